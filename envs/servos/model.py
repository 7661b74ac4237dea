"""Servos and their play as MuJoCo elements.

A servo applies a share of its supply to a motor, so its torque is that of a position actuator less
back-EMF, and what saturates is the voltage:

    torque = clip(kp (target - position) - kd speed, ±kt·U/R) - kt²/R speed

All of it is native: `kp`, `kv` and `forcerange` of `<position>`, whose own `damping` is not clipped
(XMLreference, "actuator/damping") and is the back-EMF. That is exact for a P or PD law in duty, on
CPU and in mujoco_warp, and `envs.robot` reads kp and kd from it for the contract, which it cannot
from a `<dcmotor input="pos">`; `<pid>` mujoco_warp refuses. So a servo's I gain must be 0. Friction
and rotor inertia are the joint's.
"""

import math

import mujoco
import numpy as np

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from deploy.servos.models import BACKLASH_HINGE, PLAIN, SERVO_TEXT, SERVOS
from deploy.servos.physics import SUPPLY_SHARES, ServoPhysics
from envs.sensors import ENCODER, SENSORS

_SPARE_DELAY_STEPS = 8
"""Physics steps by which a delay may be randomized upwards."""
_MAX_BACKLASH_RAD = 0.2
_END_S = 0.004
"""How soft the ends of the play are: time constant of the constraint, at least two steps."""
_INHERITED = (
    *("gainprm", "biasprm", "dynprm", "actdim", "actlimited", "actrange", "actearly"),
    *("ctrlrange", "lengthrange"),
)
"""What an actuator gets from the MJCF's defaults, and a servo sets not itself."""
_GREASE = 2e-4
"""Damping of the free play [N·m·s/rad]."""


def add_servo(
    spec: mujoco.MjSpec,
    joint: str,
    servo: ServoPhysics,
    *,
    p_gain: float,
    d_gain: float = 0.0,
    supply_v: float | None = None,
    load_friction: bool = False,
    delay_s: float = 0.0,
) -> mujoco.MjsActuator:
    """Drive a hinge by a servo: a position actuator of the joint's name.

    Overrides the joint's friction, damping, armature and limit of actuator forces, and inherits
    nothing from the MJCF's defaults for actuators.

    Args:
        spec: the model.
        joint: a limited hinge without an actuator.
        servo: its physics, from `SERVOS`.
        p_gain: position P gain as in the register; `kp / servo.kp(1, supply_v)` for one in SI.
        d_gain: position D gain as in the register.
        supply_v: supply voltage; None for the nominal one.
        load_friction: friction that grows with the load, written between physics steps by
            `with_servos`; else constant, and motor torque such that the data sheet still holds.
        delay_s: from a target to its use.

    Raises:
        ConfigError: there is no such joint, it is no hinge or driven already, or a number is no
            servo's.
    """
    hinge = _hinge(spec, joint)
    if any(actuator.target == joint for actuator in spec.actuators):
        raise ConfigError(f"joint {joint!r} has an actuator already; delete that one")
    if not hinge.range[0] < hinge.range[1]:
        raise ConfigError(
            f"joint {joint!r} has no range, and a position servo's targets need one; give it one "
            "in the MJCF"
        )
    voltage = servo.nominal_voltage_v if supply_v is None else supply_v
    low, high = (share * servo.nominal_voltage_v for share in SUPPLY_SHARES)
    if not low <= voltage <= high:
        raise ConfigError(
            f"joint {joint!r}: a supply of {voltage:g} V, expected {low:g}..{high:g} for "
            f"{servo.name}; correct supply_v"
        )
    if not (p_gain > 0 and d_gain >= 0 and delay_s >= 0):
        raise ConfigError(
            f"joint {joint!r}: p_gain {p_gain:g}, d_gain {d_gain:g}, delay_s {delay_s:g}; expected "
            "a positive p_gain, and the others not negative"
        )
    if SERVOS.get(servo.name) != servo:
        raise ConfigError(
            f"joint {joint!r}: {servo.name!r} is not as in the table of servos, where the twin "
            "looks for it; change it in deploy/servos/models.py"
        )
    spec.add_text(name=SERVO_TEXT + joint, data=servo.name + ("" if load_friction else PLAIN))
    servo = servo if load_friction else servo.plain
    try:
        kd = servo.kd(d_gain, voltage)
    except ValueError as error:
        raise ConfigError(f"joint {joint!r}: {error}; use d_gain 0") from error
    hinge.frictionloss = servo.friction.at_rest
    hinge.damping = [servo.friction.viscous, 0, 0]
    hinge.armature = servo.armature
    hinge.actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE

    actuator = add_bare_actuator(spec, joint, delay_s=delay_s)
    actuator.set_to_position(kp=servo.kp(p_gain, voltage), kv=kd, inheritrange=True)
    limit = servo.drive_torque(voltage)
    actuator.forcerange = [-limit, limit]
    actuator.damping = [servo.back_emf_damping, 0, 0]
    return actuator


def add_bare_actuator(spec: mujoco.MjSpec, joint: str, *, delay_s: float) -> mujoco.MjsActuator:
    """An actuator of a joint and of its name, limited, its target delayed, as no default says."""
    actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    blank = mujoco.MjSpec().add_actuator()
    for inherited in _INHERITED:
        setattr(actuator, inherited, getattr(blank, inherited))
    actuator.ctrllimited = actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
    actuator.damping = [0, 0, 0]
    actuator.armature = 0.0
    actuator.gear = [1, 0, 0, 0, 0, 0]
    steps = math.ceil(delay_s / spec.option.timestep) + _SPARE_DELAY_STEPS
    actuator.delay, actuator.nsample = delay_s, steps if delay_s else 0
    actuator.interp = 1  # linear
    return actuator


def add_backlash(spec: mujoco.MjSpec, joint: str, half_width_rad: float) -> None:
    """Give a driven hinge play: a second hinge behind it (modeling.rst, "Backlash").

    The actuator, its friction and rotor inertia stay on the joint, which is the motor's side. The
    encoder sits behind the gears, so the joint's position and velocity sensors become those of a
    tendon that adds both hinges, under the same names and with the same delay; that the servo's own
    controller sees the play too is up to `with_servos`. Keyframes get the new hinge at 0.

    Args:
        spec: the model, with the joint's servo and sensors.
        joint: the hinge.
        half_width_rad: play to either side.

    Raises:
        ConfigError: there is no such hinge, it has play already, has no rotor inertia, or the
            width is no play's.
    """
    hinge = _hinge(spec, joint)
    if not 0 < half_width_rad <= _MAX_BACKLASH_RAD:
        raise ConfigError(
            f"joint {joint!r}: {half_width_rad:g} rad of play to either side, expected more than 0 "
            f"and at most {_MAX_BACKLASH_RAD:g} rad; a servo has about 0.005"
        )
    if any(other.name == joint + BACKLASH_HINGE for other in spec.joints):
        raise ConfigError(f"joint {joint!r} has play already; add it once")
    if hinge.armature == 0 and not any(
        actuator.target == joint and actuator.armature for actuator in spec.actuators
    ):
        raise ConfigError(
            f"joint {joint!r} has no armature, so nothing weighs between motor and play; add its "
            "servo first"
        )
    width = math.degrees(half_width_rad) if spec.compiler.degree else half_width_rad
    play = hinge.parent.add_joint(name=joint + BACKLASH_HINGE, type=hinge.type)
    play.pos, play.axis = hinge.pos, hinge.axis
    if hinge.frame is not None:
        play.set_frame(hinge.frame)
    play.limited, play.range = mujoco.mjtLimited.mjLIMITED_TRUE, [-width, width]
    play.actfrclimited, play.actgravcomp = mujoco.mjtLimited.mjLIMITED_FALSE, False
    play.ref = play.springref = play.margin = play.frictionloss = play.armature = 0.0
    play.stiffness, play.damping, play.springdamper = [0, 0, 0], [_GREASE, 0, 0], [0, 0]
    play.solref_limit = [max(_END_S, 2 * spec.option.timestep), 1.0]
    play.solimp_limit = [0.95, 0.99, 0.0005, 0.5, 2.0]
    tendon = spec.add_tendon(name=joint + ENCODER)
    tendon.wrap_joint(joint, 1.0)
    tendon.wrap_joint(play.name, 1.0)
    to_tendon = {row.type: row.behind_play for row in SENSORS.values() if row.behind_play}
    for sensor in spec.sensors:
        if sensor.type in to_tendon and sensor.objname == joint:
            sensor.type = to_tendon[sensor.type]
            sensor.objtype, sensor.objname = mujoco.mjtObj.mjOBJ_TENDON, tendon.name
    _extend_keyframes(spec, play.name)


def _hinge(spec: mujoco.MjSpec, joint: str) -> mujoco.MjsJoint:
    names = [other.name for other in spec.joints]
    if joint not in names:
        raise ConfigError(
            f"joint {joint!r} is not in the model{did_you_mean(joint, names)}; it has "
            f"{', '.join(names)}"
        )
    hinge = spec.joint(joint)
    if hinge.type != mujoco.mjtJoint.mjJNT_HINGE:
        raise ConfigError(f"joint {joint!r} is no hinge, and servos turn; choose another joint")
    return hinge


def _extend_keyframes(spec: mujoco.MjSpec, joint: str) -> None:
    """A 0 for a new hinge in every keyframe, where MuJoCo will look for it."""
    if not spec.keys:
        return
    bare = spec.copy()
    for key in bare.keys:
        bare.delete(key)
    added = bare.compile().joint(joint)
    for key in spec.keys:
        if len(key.qpos):
            key.qpos = np.insert(np.array(key.qpos), added.qposadr[0], 0.0)
        if len(key.qvel):
            key.qvel = np.insert(np.array(key.qvel), added.dofadr[0], 0.0)
