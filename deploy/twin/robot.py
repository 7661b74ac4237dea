"""The simulated robot: MuJoCo moves the joints, emulated servos drive them and answer the bus.

    twin = Twin(model_path, robot_config, parameters)
    twin.receive(request, now)
    twin.advance(now)                  # bus and physics, up to now
    reply = twin.take(now)

The clock is the caller's: real time behind a pseudo-terminal (`deploy.twin.server`), virtual time
in a test (`deploy.twin.port`). Nothing else is random or timed, so the same calls give the same
bytes. The model's actuators are left out, so nothing set on them, or inherited by them, can act
here; what each servo's motor does is computed every millisecond and applied to the joint:

    torque = strength · stall · supply/nominal · duty - damping · stall/no-load speed · speed

with no second term while torque is off, because then the motor coasts. Where the MJCF names a
joint's servo, stall and damping are those of its motor alone, and friction may grow with the load
(`deploy.twin.friction`). Play, where there is some, in the MJCF or drawn, is a second
hinge behind the motor's (MuJoCo's documentation, "Modeling", Backlash). The encoder of an X servo
sits on its output shaft, so it sees both hinges; motor torque, back-EMF, friction and rotor inertia
act on the first.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from deploy.configuration import did_you_mean
from deploy.dynamixel import servos as dynamixel
from deploy.errors import ConfigError
from deploy.feetech import servos as feetech
from deploy.imu.config import ImuConfig
from deploy.imu.sample import Quaternion
from deploy.imu.signals import rotation_matrix
from deploy.microcontroller.config import MicrocontrollerConfig
from deploy.robot_config import AnyDevice, BusConfig, RobotConfig
from deploy.servos.catalog import MODELS
from deploy.servos.models import BACKLASH_HINGE, CONTROL_PERIOD_S, servos_of
from deploy.servos.sheet import ServoSheet
from deploy.twin.board_wire import BoardWire
from deploy.twin.feetech_servo import FeetechServo
from deploy.twin.feetech_wire import FeetechWire
from deploy.twin.floating_base import FloatingBase, add_hand, floating_root
from deploy.twin.friction import LoadFriction, check_servos
from deploy.twin.heat import Heat
from deploy.twin.imu import IMU_MODELS, ImuWire, Motion
from deploy.twin.imu_slave import ImuSlave
from deploy.twin.parameters import TOOL_SITE, TwinParameters
from deploy.twin.scs_servo import ScsServo
from deploy.twin.servo import Servo
from deploy.twin.thing import THING, add_thing, check_apart, vary_thing
from deploy.twin.wire import Wire

AnyWire = Wire | FeetechWire | BoardWire | ImuWire
AnyServo = Servo | FeetechServo
_EMULATED: Mapping[type[ServoSheet], Callable[..., AnyServo]] = {
    dynamixel.ServoModel: Servo,
    feetech.ServoModel: FeetechServo,
    feetech.ScsModel: ScsServo,
}
START_KEY = "rest"
"""Keyframe the robot lies in when it is switched on."""
HOME_KEY, NEAR_HOME, NEAR_HOME_RAD = "home", 0.25, 0.1
"""Keyframe in which a policy takes over. Whoever picked the robot up puts it on its feet when its
joints, all together, are at so small a share of the way there from where they lay, and a little
more: a weak neck never gets there."""
STRIBECK_SPEED_RAD_S = 0.1
"""Speed at which the additional friction at rest has fallen to a third; usual, no source."""

BLOCKED_PLAY_RAD = 0.02
"""What is left to a joint that is blocked, either way."""
IMU_SITE = "imu"
"""Site of the model at which inertial sensors sit."""
STANDARD_GRAVITY = 9.80665
BEHIND_A_BOARD = 1_000_000
"""Baud rate of servos that a microcontroller drives."""

_PLAY_END_S = 0.003
"""How soft the ends of the play are: time constant of the constraint, three steps."""
_PLAY_DAMPING = 2e-4
"""Of the free play [N·m·s/rad]: a little grease."""
_PROPERTY_TYPES = (bool, float, np.ndarray, mujoco.mjtLimited, mujoco.mjtAlignFree)


class Twin:
    """One robot on its buses, in the caller's time."""

    def __init__(
        self,
        model_path: Path,
        robot_config: RobotConfig,
        parameters: TwinParameters | None = None,
        *,
        start_s: float = 0.0,
        thing: Path | None = None,
    ):
        """Switch the robot on, torque off, in its rest pose.

        Args:
            model_path: the robot's MJCF.
            robot_config: the wiring, which names the joints that have a servo.
            parameters: how it differs from the nominal model; None for not at all.
            start_s: the time now.
            thing: MJCF of what lies before it, see `deploy.twin.thing`; None for nothing.

        Raises:
            ConfigError: a joint of `robot_config` is not in the model, or the thing is none.
        """
        self.parameters = parameters = parameters or TwinParameters()
        self.joints = list(robot_config.joints)
        """Joints that have a servo; the order of `joint_position`."""
        self.on_step: Callable[[], None] = lambda: None
        """Called after every step of the physics."""
        self._model, self._data, root, home = build_model(
            model_path, self.joints, parameters, thing
        )
        self._thing = self._data.body(THING) if thing else None
        wheels = any(wiring.continuous for wiring in robot_config.joints.values())
        self.base = (
            FloatingBase(self._model, self._data, root, parameters, lifted=not wheels)
            if root
            else None
        )
        """Of a robot that nothing holds to the ground."""
        self._qpos, self._dof = self._addresses(self.joints)
        hinges = {self._model.joint(index).name for index in range(self._model.njnt)}
        playing = [joint for joint in self.joints if joint + BACKLASH_HINGE in hinges]
        self._play_rows = [self.joints.index(joint) for joint in playing]
        self._play_qpos, self._play_dof = self._addresses(
            [joint + BACKLASH_HINGE for joint in playing]
        )
        self._home = home
        self._way_home_rad = self._from_home_rad()

        wiring = list(robot_config.joints.values())
        models = [MODELS[joint.model] for joint in wiring]
        self._direction = np.array([joint.direction for joint in wiring])
        self._zero_ticks = np.array([joint.zero_ticks for joint in wiring])
        self._rad_per_tick = np.array([model.rad_per_tick for model in models])
        self._baud_rates = {name: bus.baud_rate for name, bus in robot_config.wired.items()}
        self._zero_error = self._each(parameters.zero_error_rad, 0.0)
        self._nominal_v = np.array([model.nominal_voltage_v for model in models])
        supply_v = np.array([joint.voltage_v for joint in wiring])
        servos = servos_of(self._model)
        check_servos(servos, {name: joint.model for name, joint in robot_config.joints.items()})
        named = {row: servos[name] for row, name in enumerate(self.joints) if name in servos}
        stall = np.array([model.stall_torque_nm for model in models])
        current = np.array([model.stall_current_a for model in models])
        damping = np.array([model.damping for model in models])
        for row, servo in named.items():
            stall[row] = servo.drive_torque(servo.nominal_voltage_v)
            current[row] = stall[row] / servo.kt
            damping[row] = servo.back_emf_damping
        rubs = {row: servo.friction for row, servo in named.items() if servo != servo.plain}
        # A data sheet tells what the gears leave; what is drawn to rub in them, the motor has more.
        motor = np.full(len(stall), 1 / (1 - parameters.load_friction))
        motor[list(rubs)] = 1.0
        self._strength = self._each(parameters.strength_scale, 1.0) * stall * motor
        self._damping = self._each(parameters.damping_scale, 1.0) * damping * motor
        self._friction = self._model.dof_frictionloss[self._dof].copy()
        self._load_friction = LoadFriction(
            self._model, {self._dof[row]: friction for row, friction in rubs.items()}
        )
        self.motor_torque = np.zeros(len(self.joints))
        """What the motors apply to the joints [N·m], shape (n,)."""

        buses = {
            name: section.baud_rate if isinstance(section, BusConfig) else BEHIND_A_BOARD
            for name, section in robot_config.wired.items()
        }
        self._device = [robot_config.device_of(joint) for joint in self.joints]
        self.servos: list[AnyServo] = [
            _EMULATED[type(model)](
                joint.id,
                model,
                buses[device],
                shaft_ticks=ticks,
                voltage_v=parameters.supply_scale * joint.voltage_v,
                command_latency_s=parameters.command_latency_s,
                now_s=start_s,
            )
            for joint, model, device, ticks in zip(
                wiring, models, self._device, self._shaft_ticks(), strict=True
            )
        ]
        self._full_duty = np.array([servo.FULL_DUTY for servo in self.servos])
        self._current_per_torque = current / stall
        self.heat = Heat(np.array([model.physics.resistance_ohm for model in models]))
        """How warm the servos are."""
        self._same_supply = supply_v[:, None] == supply_v
        self.imus: list[ImuSlave] = []
        """Inertial sensors among the servos of a bus."""
        self._wires = {
            name: self._make_wire(name, section, parameters.usb_latency_s, start_s)
            for name, section in robot_config.wired.items()
        }
        self._start_s, self._steps = start_s, 0
        self.unplugged: set[str] = set()
        """Devices whose cable is off."""
        self._ranges = self._model.jnt_range.copy()
        self._limited = self._model.jnt_limited.copy()

    @property
    def time_s(self) -> float:
        """Time the physics has got to; at most `CONTROL_PERIOD_S` behind the last `advance`."""
        return self._start_s + self._steps * CONTROL_PERIOD_S

    @property
    def joint_position(self) -> NDArray[np.float64]:
        """True joint angles [rad], shape (n,)."""
        return self._sum(self._data.qpos, self._qpos, self._play_qpos)

    @property
    def joint_velocity(self) -> NDArray[np.float64]:
        """True joint speeds [rad/s], shape (n,)."""
        return self._sum(self._data.qvel, self._dof, self._play_dof)

    @property
    def has_tool(self) -> bool:
        """Whether it has a site `tool`."""
        return mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_SITE, TOOL_SITE) >= 0

    @property
    def tool_position(self) -> NDArray[np.float64]:
        """True position of the site `tool` in the world [m], shape (3,)."""
        return self._data.site(TOOL_SITE).xpos.copy()

    @property
    def thing_position(self) -> NDArray[np.float64] | None:
        """True position of the thing's middle in the world [m], shape (3,), if there is one."""
        return self._thing.xipos.copy() if self._thing else None

    @property
    def wake_s(self) -> float:
        """When `advance` and `take` have something to do on the bus next; inf if nothing is due."""
        return min(min(wire.next_event_s, wire.reply_s) for wire in self._wires.values())

    def wake_of(self, device: str | None = None) -> float:
        """The same for who waits at one port, or at the first: what comes in at others stays."""
        reply_s = self._wires[device or self.devices[0]].reply_s
        return min(reply_s, *(wire.next_event_s for wire in self._wires.values()))

    @property
    def devices(self) -> list[str]:
        """Names of the serial ports it has."""
        return list(self._wires)

    def receive(
        self, data: bytes, now_s: float, baud_rate: int | None = None, device: str | None = None
    ) -> None:
        """The host writes `data` to a serial port, which is set to `baud_rate`.

        Args:
            data: the bytes.
            now_s: the time.
            baud_rate: None for what the servos were set to when the robot was switched on.
            device: which port; None for the first.
        """
        self.advance(now_s)
        name = device or self.devices[0]
        self._wires[name].send(data, now_s, baud_rate or self._baud_rates[name])

    def advance(self, now_s: float) -> None:
        """Bring bus and physics up to now."""
        while (wire := self._next_wire()).next_event_s <= now_s:
            self._simulate(wire.next_event_s)
            wire.run_event()
        self._simulate(now_s)

    @property
    def wires(self) -> dict[str, AnyWire]:
        """What each serial port leads to, which may be replaced; see `deploy.twin.faults`."""
        return self._wires

    def device_of(self, joint: str) -> str:
        """The device a joint is on."""
        return self._device[self.joints.index(joint)]

    def block(self, joint: str, blocked: bool = True) -> None:
        """Something stands in a joint's way, or not any more."""
        index = self._model.joint(joint).id
        angle = self._data.qpos[self._qpos[self.joints.index(joint)]]
        around = angle - BLOCKED_PLAY_RAD, angle + BLOCKED_PLAY_RAD
        self._model.jnt_range[index] = around if blocked else self._ranges[index]
        self._model.jnt_limited[index] = blocked or self._limited[index]  # a wheel has no range

    def is_unplugged(self, device: str | None = None) -> bool:
        """Whether the cable of a device, or of the first, is off."""
        return (device or self.devices[0]) in self.unplugged

    def take(self, now_s: float, device: str | None = None) -> bytes:
        """Bytes a serial port, or the first, has received by now and not yet handed out."""
        return self._wires[device or self.devices[0]].take(now_s)

    def _next_wire(self) -> AnyWire:
        """The one on which something happens next."""
        return min(self._wires.values(), key=lambda wire: wire.next_event_s)

    def _make_wire(
        self, name: str, section: AnyDevice, usb_latency_s: float, start_s: float
    ) -> AnyWire:
        if isinstance(section, ImuConfig):
            model = IMU_MODELS[section.protocol]()
            return ImuWire(model, self._motion_of(section.mounting), start_s=start_s)
        rows = [row for row, device in enumerate(self._device) if device == name]
        here = [self.servos[row] for row in rows]
        if isinstance(section, MicrocontrollerConfig):
            driven = {
                servo.id: (servo, int(self._zero_ticks[row]))
                for row, servo in zip(rows, here, strict=True)
                if isinstance(servo, Servo)
            }
            if len(driven) < len(rows):
                raise ConfigError(
                    f"joints {[self.joints[row] for row in rows]} are behind board {name!r}, whose "
                    "twin drives DYNAMIXEL servos alone, as its sketch does; give them such a "
                    "`model`, or a bus of their own. A real board may drive others"
                )
            return BoardWire(
                driven,
                section.baud_rate,
                self._motion_of(section.imu.mounting, force=False) if section.imu else None,
                usb_latency_s=usb_latency_s,
                start_s=start_s,
            )
        if section.protocol == "dynamixel2":
            servos = [servo for servo in here if isinstance(servo, Servo)]
            if section.imu:
                slave = ImuSlave(
                    section.imu.id,
                    section.baud_rate,
                    self._motion_of(section.imu.mounting, force=False),
                    seed=self.parameters.seed,
                )
                self.imus.append(slave)
                return Wire([slave, *servos], section.baud_rate, usb_latency_s=usb_latency_s)
            return Wire(servos, section.baud_rate, usb_latency_s=usb_latency_s)
        servos = [servo for servo in here if isinstance(servo, FeetechServo)]
        return FeetechWire(servos, section.baud_rate, usb_latency_s=usb_latency_s)

    def _motion_of(self, mounting: Quaternion, *, force: bool = True) -> Callable[[float], Motion]:
        """How a sensor moves that is mounted like this at the site `imu`, and what it feels."""
        site = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_SITE, IMU_SITE)
        if site < 0:
            raise ConfigError(
                f"the robot has an inertial sensor, and its model no site {IMU_SITE!r}, expected "
                "one where the sensor is; add it to the MJCF"
            )
        tilt, bias = self.parameters.imu_tilt_rad, np.array(self.parameters.gyro_bias_rad_s)
        mount = rotation_matrix(mounting) @ _turned(tilt)  # sensor to site
        velocity, acceleration = np.zeros(6), np.zeros(6)
        kind = mujoco.mjtObj.mjOBJ_SITE

        def motion(time_s: float) -> Motion:
            mujoco.mj_objectVelocity(self._model, self._data, kind, site, velocity, 1)
            if force:
                mujoco.mj_rnePostConstraint(self._model, self._data)
                mujoco.mj_objectAcceleration(self._model, self._data, kind, site, acceleration, 1)
            return Motion(
                self._data.site_xmat[site].reshape(3, 3) @ mount,
                mount.T @ velocity[:3] + bias,
                mount.T @ acceleration[3:] / STANDARD_GRAVITY,
            )

        return motion

    def _simulate(self, until_s: float) -> None:
        steps = int((until_s - self._start_s) / CONTROL_PERIOD_S + 1e-6)
        while self._steps < steps:
            self._step()

    def _step(self) -> None:
        speed = self._direction * self.joint_velocity
        now_s = self.time_s
        pwm = [
            servo.control(shaft, rad_s, now_s)
            for servo, shaft, rad_s in zip(
                self.servos, self._shaft_ticks(), speed.tolist(), strict=True
            )
        ]
        duty = np.array(pwm) / self._full_duty
        driven = np.array([servo.torque_on for servo in self.servos])
        supply = np.array([servo.supply_v for servo in self.servos]) / self._nominal_v
        motor_speed = self._direction * self._data.qvel[self._dof]
        torque = self._strength * duty * supply - self._damping * motor_speed * driven
        self.motor_torque = self._direction * torque
        self._data.qfrc_applied[self._dof] = self.motor_torque
        motor_current = torque * self._current_per_torque
        self._sag(duty * motor_current)
        self._warm(motor_current)
        self._rub(motor_speed)
        if self.base:
            near_rad = NEAR_HOME * self._way_home_rad + NEAR_HOME_RAD
            self.base.act(now_s, bool(driven.all()), at_home=self._from_home_rad() < near_rad)
        mujoco.mj_step(self._model, self._data)
        self._steps += 1
        for imu in self.imus:
            imu.measure(self.time_s)
        self.on_step()

    def _from_home_rad(self) -> float:
        """How far the joints are from their home pose, all together."""
        if self._home is None:
            return 0.0
        return float(np.linalg.norm(self.joint_position - self._home))

    def _sag(self, current_a: NDArray[np.float64]) -> None:
        """The supply of the next step, for the current drawn now; braking gives none back."""
        if resistance_ohm := self.parameters.supply_resistance_ohm:
            sag_v = resistance_ohm * (self._same_supply @ np.maximum(current_a, 0.0))
            for servo, volts in zip(self.servos, sag_v.tolist(), strict=True):
                servo.sag_v = volts

    def _warm(self, motor_current_a: NDArray[np.float64]) -> None:
        self.heat.step(motor_current_a, CONTROL_PERIOD_S)
        for servo, celsius in zip(self.servos, self.heat.temperature_c.tolist(), strict=True):
            servo.temperature_c = celsius

    def _rub(self, motor_speed: NDArray[np.float64]) -> None:
        """Friction of the next step: more at rest, and more under load."""
        stribeck, load = self.parameters.stribeck_scale, self.parameters.load_friction
        if stribeck or load:
            at_rest = np.exp(-np.abs(motor_speed) / STRIBECK_SPEED_RAD_S)
            self._model.dof_frictionloss[self._dof] = self._friction * (
                1 + stribeck * at_rest
            ) + load * np.abs(self.motor_torque)
        motor = dict(zip(self._dof, self.motor_torque.tolist(), strict=True))
        self._load_friction.update(self._data, motor)

    def _shaft_ticks(self) -> list[float]:
        """What the encoders see, in counts."""
        angle = self.joint_position + self._zero_error
        return (self._zero_ticks + self._direction * angle / self._rad_per_tick).tolist()

    def _sum(
        self, values: NDArray[np.float64], own: list[int], play: list[int]
    ) -> NDArray[np.float64]:
        """Of both hinges of each joint, shape (n,)."""
        total = values[own]
        if play:
            total[self._play_rows] += values[play]
        return total

    def _addresses(self, joints: Sequence[str]) -> tuple[list[int], list[int]]:
        """Where joints are in qpos and in qvel."""
        found = [self._model.joint(joint) for joint in joints]
        return [int(joint.qposadr[0]) for joint in found], [int(joint.dofadr[0]) for joint in found]

    def _each(self, values: dict[str, float], default: float) -> NDArray[np.float64]:
        return np.array([values.get(joint, default) for joint in self.joints])


def _turned(vector: Sequence[float]) -> NDArray[np.float64]:
    """Rotation (3, 3) of a rotation vector [rad]."""
    quaternion = np.array([1.0, 0.0, 0.0, 0.0])
    mujoco.mju_quatIntegrate(quaternion, np.array(vector), 1.0)
    w, x, y, z = quaternion.tolist()
    return rotation_matrix((w, x, y, z))


def build_model(
    path: Path, joints: list[str], parameters: TwinParameters, thing: Path | None = None
) -> tuple[mujoco.MjModel, mujoco.MjData, str | None, NDArray[np.float64] | None]:
    """Compile a robot as the servos see it, in 1 ms steps, and put it in its rest pose.

    Masses, joints, their limits, friction, damping, stiffness and rotor inertia are the MJCF's
    (rotor inertia also where it is set on an actuator); actuators, sensors and keyframes are left
    out.

    Args:
        path: the MJCF.
        joints: joints that have a servo.
        parameters: how the robot differs from the nominal one.
        thing: MJCF of what lies before it, if anything.

    Returns:
        Model, state, the name of the body that floats, if the joints hang on one, and their angles
        in the MJCF's keyframe `home`, if it has one.

    Raises:
        ConfigError: a joint is not in the model, or the thing is none.
    """
    spec = mujoco.MjSpec.from_file(str(path))
    nominal = spec.compile()
    names = [joint.name for joint in spec.joints]
    for joint in joints:
        if joint not in names:
            raise ConfigError(
                f"joint {joint!r} is not in {path}{did_you_mean(joint, names)}; it has "
                f"{', '.join(names)}. Correct `joints` in the robot file"
            )
    spec.option.timestep = CONTROL_PERIOD_S
    for element in (*spec.sensors, *spec.actuators, *spec.keys):
        spec.delete(element)
    playing = [joint for joint in joints if parameters.backlash_rad.get(joint)]
    added = [joint for joint in playing if joint + BACKLASH_HINGE not in names]
    for joint in added:
        _add_play(spec.joint(joint))
    if parameters.payload_kg:
        _add_payload(spec, nominal, parameters.payload_kg)
    if root := floating_root(spec, joints[0]):
        add_hand(spec, root)
    if thing:
        add_thing(spec, thing, parameters)
    model = spec.compile()

    for actuator in range(nominal.nu):
        if nominal.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_JOINT:
            joint = nominal.joint(nominal.actuator_trnid[actuator, 0]).name
            gear = nominal.actuator_gear[actuator, 0]
            model.joint(joint).armature += nominal.actuator_armature[actuator] * gear**2
    for body, scale in parameters.mass_scale.items():
        model.body(body).mass *= scale
        model.body(body).inertia *= scale
    for joint, scale in parameters.friction_scale.items():
        model.joint(joint).frictionloss *= scale
    for joint, scale in parameters.armature_scale.items():
        model.joint(joint).armature *= scale
    for joint in playing:
        _set_play(model, joint, parameters.backlash_rad[joint])
    if thing:
        vary_thing(model, parameters)
    data = mujoco.MjData(model)
    mujoco.mj_setConst(model, data)
    rest = nominal.keyframe(START_KEY).qpos
    play = [model.joint(joint + BACKLASH_HINGE).qposadr[0] for joint in added]
    own = np.delete(np.arange(model.nq), play)[: len(rest)]  # a thing comes last
    data.qpos[own] = rest
    mujoco.mj_forward(model, data)
    if thing:
        check_apart(model, data)
    home = None
    if any(nominal.key(index).name == HOME_KEY for index in range(nominal.nkey)):
        at = [int(nominal.joint(joint).qposadr[0]) for joint in joints]
        home = nominal.keyframe(HOME_KEY).qpos[at]
    return model, data, root, home


def _add_play(joint: mujoco.MjsJoint) -> None:
    """A second hinge on the same axis, without what the MJCF makes joints inherit."""
    play = joint.parent.add_joint(name=joint.name + BACKLASH_HINGE)
    blank = mujoco.MjSpec().worldbody.add_body().add_joint()
    for attribute in dir(blank):
        if isinstance(value := getattr(blank, attribute), _PROPERTY_TYPES):
            setattr(play, attribute, value)
    play.type, play.pos, play.axis = joint.type, joint.pos, joint.axis
    if joint.frame is not None:
        play.set_frame(joint.frame)


def _set_play(model: mujoco.MjModel, joint: str, width_rad: float) -> None:
    """How far the second hinge goes; set here, where angles are in radians."""
    play = model.joint(joint + BACKLASH_HINGE)
    play.limited, play.range = 1, [-width_rad / 2, width_rad / 2]
    play.solref, play.solimp = [_PLAY_END_S, 1.0], [0.95, 0.99, 0.0005, 0.5, 2.0]
    play.damping = _PLAY_DAMPING


def _add_payload(spec: mujoco.MjSpec, nominal: mujoco.MjModel, mass_kg: float) -> None:
    """A point mass at the tool, which inherits nothing."""
    site = nominal.site(TOOL_SITE)
    body = spec.body(nominal.body(site.bodyid[0]).name)
    radius_m = 0.01
    inertia = [0.4 * mass_kg * radius_m**2] * 3
    body.add_body(
        name="payload",
        pos=site.pos,
        ipos=[0, 0, 0],
        mass=mass_kg,
        inertia=inertia,
        explicitinertial=True,
    )
