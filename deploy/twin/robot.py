"""The simulated robot: MuJoCo moves the joints, emulated servos drive them and answer the bus.

    twin = Twin(model_path, robot_config, parameters)
    twin.receive(request, now)
    twin.advance(now)                  # bus and physics, up to now
    reply = twin.take(now)

The clock is the caller's: real time behind a pseudo-terminal (`deploy.twin.server`), virtual time
in a test (`deploy.twin.port`). Nothing else is random or timed, so the same calls give the same
bytes. The model's position actuators become torque motors, and each servo computes every
millisecond what its motor does:

    torque = strength · stall · supply/nominal · PWM/885 - damping · stall/no-load speed · speed

with no second term while torque is off, because then the motor coasts.
"""

from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from deploy.configuration import did_you_mean
from deploy.dynamixel.registers import PWM_FULL, RAD_PER_TICK
from deploy.dynamixel.servos import CONTROL_PERIOD_S, MODELS
from deploy.errors import ConfigError
from deploy.robot_config import RobotConfig
from deploy.twin.parameters import TwinParameters
from deploy.twin.servo import Servo
from deploy.twin.wire import Wire

START_KEY = "rest"
"""Keyframe the robot lies in when it is switched on."""
TOOL_SITE = "tool"


class Twin:
    """One robot on one bus, in the caller's time."""

    def __init__(
        self,
        model_path: Path,
        robot_config: RobotConfig,
        parameters: TwinParameters | None = None,
        *,
        start_s: float = 0.0,
    ):
        """Switch the robot on, torque off, in its rest pose.

        Args:
            model_path: the robot's MJCF.
            robot_config: the wiring, which names the joints that have a servo.
            parameters: how it differs from the nominal model; None for not at all.
            start_s: the time now.

        Raises:
            ConfigError: a joint of `robot_config` is not in the model.
        """
        self.parameters = parameters or TwinParameters()
        self.joints = list(robot_config.joints)
        """Joints that have a servo; the order of `joint_position`."""
        self._model = build_model(model_path, self.joints, self.parameters)
        self._data = mujoco.MjData(self._model)
        mujoco.mj_resetDataKeyframe(self._model, self._data, self._model.keyframe(START_KEY).id)
        mujoco.mj_forward(self._model, self._data)
        addresses = [self._model.joint(joint) for joint in self.joints]
        self._qpos = np.array([joint.qposadr[0] for joint in addresses])
        self._dof = np.array([joint.dofadr[0] for joint in addresses])

        wiring = list(robot_config.joints.values())
        self._direction = np.array([joint.direction for joint in wiring])
        self._zero_ticks = np.array([joint.zero_ticks for joint in wiring])
        models = [MODELS[joint.model] for joint in wiring]
        strength, damping = (
            np.array([scale.get(joint, 1.0) for joint in self.joints])
            for scale in (self.parameters.strength_scale, self.parameters.damping_scale)
        )
        stall = np.array([model.stall_torque_nm for model in models])
        self._torque_per_pwm = strength * stall * self.parameters.supply_scale / PWM_FULL
        self._damping = damping * np.array([model.damping for model in models])

        self.servos = [
            Servo(
                joint.id,
                model,
                robot_config.bus.baud_rate,
                shaft_ticks=ticks,
                voltage_v=self.parameters.supply_scale * model.nominal_voltage_v,
                command_latency_s=self.parameters.command_latency_s,
            )
            for joint, model, ticks in zip(wiring, models, self._shaft_ticks(), strict=True)
        ]
        self._wire = Wire(
            self.servos,
            robot_config.bus.baud_rate,
            usb_latency_s=self.parameters.usb_latency_s,
        )
        self._start_s, self._steps = start_s, 0

    @property
    def time_s(self) -> float:
        """Time the physics has got to; at most `CONTROL_PERIOD_S` behind the last `advance`."""
        return self._start_s + self._steps * CONTROL_PERIOD_S

    @property
    def joint_position(self) -> NDArray[np.float64]:
        """True joint angles [rad], shape (n,)."""
        return self._data.qpos[self._qpos]

    @property
    def tool_position(self) -> NDArray[np.float64]:
        """True position of the site `tool` in the world [m], shape (3,)."""
        return self._data.site(TOOL_SITE).xpos.copy()

    @property
    def wake_s(self) -> float:
        """When `advance` and `take` have something to do on the bus next; inf if nothing is due."""
        return min(self._wire.next_event_s, self._wire.reply_s)

    def receive(self, data: bytes, now_s: float) -> None:
        """The host writes `data` to its serial port."""
        self.advance(now_s)
        self._wire.send(data, now_s)

    def advance(self, now_s: float) -> None:
        """Bring bus and physics up to now."""
        while self._wire.next_event_s <= now_s:
            self._simulate(self._wire.next_event_s)
            self._wire.run_event()
        self._simulate(now_s)

    def take(self, now_s: float) -> bytes:
        """Bytes the host's serial port has received by now and not yet handed out."""
        return self._wire.take(now_s)

    def _simulate(self, until_s: float) -> None:
        steps = int((until_s - self._start_s) / CONTROL_PERIOD_S + 1e-6)
        while self._steps < steps:
            self._step()

    def _step(self) -> None:
        now_s, ticks = self.time_s, self._shaft_ticks()
        speed = self._direction * self._data.qvel[self._dof]
        pwm = [
            servo.control(shaft, rad_s, now_s)
            for servo, shaft, rad_s in zip(self.servos, ticks, speed.tolist(), strict=True)
        ]
        driven = [servo.torque_on for servo in self.servos]
        torque = self._torque_per_pwm * pwm - self._damping * speed * driven
        self._data.ctrl[:] = self._direction * torque
        mujoco.mj_step(self._model, self._data)
        self._steps += 1

    def _shaft_ticks(self) -> list[float]:
        angle = self._data.qpos[self._qpos]
        return (self._zero_ticks + self._direction * angle / RAD_PER_TICK).tolist()


def build_model(path: Path, joints: list[str], parameters: TwinParameters) -> mujoco.MjModel:
    """Compile a robot as the servos see it: 1 ms steps, and one torque motor per joint.

    Args:
        path: the MJCF; its own actuators and sensors are left out.
        joints: joints that have a servo; the order of the motors.
        parameters: how masses, friction and armature differ from the nominal ones.

    Raises:
        ConfigError: a joint is not in the model.
    """
    spec = mujoco.MjSpec.from_file(str(path))
    spec.option.timestep = CONTROL_PERIOD_S
    for element in (*spec.actuators, *spec.sensors):
        spec.delete(element)
    for key in spec.keys:
        key.ctrl = []
    names = [joint.name for joint in spec.joints]
    for joint in joints:
        if joint not in names:
            raise ConfigError(
                f"joint {joint!r} is not in {path}{did_you_mean(joint, names)}; it has "
                f"{', '.join(names)}. Correct `joints` in the robot file"
            )
        motor = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.set_to_motor()
    model = spec.compile()
    for body, scale in parameters.mass_scale.items():
        model.body(body).mass *= scale
        model.body(body).inertia *= scale
    for joint, scale in parameters.friction_scale.items():
        model.joint(joint).frictionloss *= scale
    for joint, scale in parameters.armature_scale.items():
        model.joint(joint).armature *= scale
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
