"""What a robot's YAML adds to its model: servos, a free base, sites, sensors, poses.

Each function changes the `MjSpec` and returns or yields what is wrong with the file, so that all of
it is found before anything is said. See `envs.robot_file`.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from deploy.servos.models import SERVOS
from envs.robot import driving, free_joint, position_servos
from envs.sensors import IMU_SITE, SENSORS, sensor_columns
from envs.servos.model import add_bare_actuator, add_servo

if TYPE_CHECKING:
    from envs.robot_file import MotorGroup, Placement, Pose, RobotFile, ServoGroup

_BASES = (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL)
_HISTORY_STEPS = 8
"""Physics steps by which a reading may be delayed."""


def complete(spec: mujoco.MjSpec, file: "RobotFile") -> list[str]:
    """Add what the YAML says; returns what is wrong with it."""
    problems: list[str] = []
    if file.timestep_s is not None:
        spec.option.timestep = file.timestep_s
    if file.replace_actuators:
        for actuator in list(spec.actuators):
            spec.delete(actuator)
    if file.servos or file.motors or file.replace_actuators:
        for key in spec.keys:
            key.ctrl = []  # of other actuators; see `hold`
    driven: set[str] = set()
    for row, group in enumerate(file.servos):
        problems += (f"servos.{row}: {text}" for text in _add_servos(spec, group, driven))
    for row, group in enumerate(file.motors):
        problems += (f"motors.{row}: {text}" for text in _add_motors(spec, group, driven))
    if file.free_base:
        problems += _free(spec)
    if file.floor and not any(_is_plane(geom) for geom in spec.worldbody.geoms):
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], rgba=[0.8] * 3 + [1]
        )
    if file.imu and IMU_SITE in file.sites:
        problems.append(f"sites: {IMU_SITE!r} is said by `imu` already; delete one of the two")
    placed = {**file.sites, **({IMU_SITE: file.imu} if file.imu else {})}
    for name, place in placed.items():
        problems += _add_site(spec, "imu" if name == IMU_SITE else f"sites.{name}", name, place)
    return problems


def _add_servos(spec: mujoco.MjSpec, group: "ServoGroup", driven: set[str]) -> Iterator[str]:
    if (servo := SERVOS.get(group.servo)) is None:
        yield (
            f"servo {group.servo!r} is not known{did_you_mean(group.servo, SERVOS)}; there are "
            f"{', '.join(SERVOS)}"
        )
    for name, problem in _undriven(spec, group.joints, driven):
        driven.add(name)
        if problem:
            yield problem
        elif servo is not None:
            try:
                add_servo(
                    spec,
                    name,
                    servo,
                    p_gain=group.p_gain,
                    d_gain=group.d_gain,
                    supply_v=group.supply_v,
                    load_friction=group.load_friction,
                    delay_s=group.delay_s,
                )
            except ConfigError as error:
                yield str(error)


def _add_motors(spec: mujoco.MjSpec, group: "MotorGroup", driven: set[str]) -> Iterator[str]:
    for name, problem in _undriven(spec, group.joints, driven):
        if problem:
            yield problem
            continue
        driven.add(name)
        spec.joint(name).actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE
        if group.armature_kg_m2 is not None:
            spec.joint(name).armature = group.armature_kg_m2
        actuator = add_bare_actuator(spec, name, delay_s=group.delay_s)
        actuator.set_to_position(
            kp=group.kp_nm_per_rad, kv=group.kd_nm_s_per_rad, inheritrange=True
        )
        actuator.forcerange = [-group.torque_nm, group.torque_nm]


def _undriven(
    spec: mujoco.MjSpec, patterns: Sequence[str], driven: set[str]
) -> Iterator[tuple[str, str]]:
    """Joints to drive, each with why it cannot be; empty if it can."""
    names = [joint.name for joint in spec.joints if joint.name and joint.type not in _BASES]
    taken = {
        actuator.target
        for actuator in spec.actuators
        if actuator.trntype == mujoco.mjtTrn.mjTRN_JOINT
    }
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            yield "", _no_such("joint", pattern, names)
        for name in found:
            problem = ""
            if name in driven:
                problem = f"joint {name!r} has a servo already; name it in one group"
            elif name in taken:
                problem = (
                    f"joint {name!r} has an actuator in the model already; delete that, or say "
                    "`replace_actuators: true`"
                )
            elif not _is_limited(spec.joint(name)):
                problem = (
                    f"joint {name!r} has no limits, which a position servo needs; give it a range "
                    "in the model (in a URDF: type `revolute`, with <limit>). What turns without "
                    "end, such as a wheel, takes a <velocity> actuator in the MJCF"
                )
            yield name, problem


def _is_limited(joint: mujoco.MjsJoint) -> bool:
    if joint.limited == mujoco.mjtLimited.mjLIMITED_AUTO:
        return joint.range[0] < joint.range[1]
    return joint.limited == mujoco.mjtLimited.mjLIMITED_TRUE


def _free(spec: mujoco.MjSpec) -> Iterator[str]:
    bodies = spec.worldbody.bodies
    if not bodies:
        yield "free_base: the model has no body; delete the line"
    elif joints := bodies[0].joints:
        yield (
            f"free_base: the first body, {bodies[0].name!r}, has the joint {joints[0].name!r} "
            "already; delete the line"
        )
    else:
        bodies[0].add_freejoint(name="base")


def _is_plane(geom: mujoco.MjsGeom) -> bool:
    return geom.type == mujoco.mjtGeom.mjGEOM_PLANE


def _add_site(spec: mujoco.MjSpec, key: str, name: str, place: "Placement") -> Iterator[str]:
    if spec.site(name) is not None:
        yield f"{key}: the model has a site {name!r} already; delete one of the two"
    elif (body := spec.body(place.body)) is None:
        yield f"{key}: {_no_such('body', place.body, [body.name for body in spec.bodies])}"
    elif not np.isclose(np.linalg.norm(place.quaternion_wxyz), 1, atol=0.01):
        yield f"{key}: quaternion_wxyz {place.quaternion_wxyz} is not of length 1; correct it"
    else:
        body.add_site(name=name, pos=place.position_m, quat=place.quaternion_wxyz)


def add_sensors(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """What the signals of `SENSORS` are measured by, as far as it is lacking."""
    driven = sorted({int(model.actuator_trnid[row, 0]) for row in driving(model).tolist()})
    has_imu = spec.site(IMU_SITE) is not None
    common = {"nsample": _HISTORY_STEPS, "interp": 1}
    for kind, row in SENSORS.items():
        if row.per_joint:
            for joint in driven:
                if sensor_columns(model, kind, joint) is None:
                    spec.add_sensor(
                        type=row.type,
                        objtype=mujoco.mjtObj.mjOBJ_JOINT,
                        objname=model.joint(joint).name,
                        **common,
                    )
        elif has_imu and sensor_columns(model, kind) is None:
            site = (mujoco.mjtObj.mjOBJ_SITE, IMU_SITE)
            world = (mujoco.mjtObj.mjOBJ_XBODY, "world")
            of, seen_from = (world, site) if kind == "projected_gravity" else (site, None)
            sensor = spec.add_sensor(type=row.type, objtype=of[0], objname=of[1], **common)
            if seen_from:
                sensor.reftype, sensor.refname = seen_from


def add_key(spec: mujoco.MjSpec, model: mujoco.MjModel, name: str, pose: "Pose") -> Iterator[str]:
    """A keyframe of a pose."""
    if any(key.name == name for key in spec.keys):
        yield f"{name}: the model has a keyframe {name!r} already; delete one of the two"
        return
    qpos = model.qpos0.copy()
    places = {}
    for index, kind in enumerate(model.jnt_type.tolist()):
        place = int(model.jnt_qposadr[index])
        if kind in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)):
            places[model.joint(index).name] = place
    qpos[list(places.values())] = 0.0
    for pattern, angle in pose.joints.items():
        found = [place for joint, place in places.items() if fnmatchcase(joint, pattern)]
        if not found:
            yield f"{name}: {_no_such('joint', pattern, list(places))}"
        qpos[found] = angle
    base = free_joint(model)
    parts = (pose.base_position_m, slice(0, 3)), (pose.base_quaternion_wxyz, slice(3, 7))
    for value, part in parts:
        if value is not None and base is None:
            yield f"{name}: the base stands fast, so it cannot be placed; say `free_base: true`"
        elif value is not None:
            qpos[model.jnt_qposadr[base] :][part] = value
    spec.add_key(name=name, qpos=qpos)


def carry_lamps(spec: mujoco.MjSpec) -> None:
    """Let lamps that stand in the world go along: where a robot walks to, it shall not be dark."""
    for light in spec.worldbody.lights:
        if light.mode == mujoco.mjtCamLight.mjCAMLIGHT_FIXED:
            light.mode = mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM


def hold(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """Targets that hold each keyframe, where it has none."""
    servos = position_servos(model)
    for key, qpos in zip(spec.keys, model.key_qpos, strict=True):
        if not len(key.ctrl):
            ctrl = np.zeros(model.nu)
            for row in driving(model).tolist():
                if servos[row]:
                    ctrl[row] = qpos[model.jnt_qposadr[model.actuator_trnid[row, 0]]]
            key.ctrl = ctrl


def _no_such(what: str, name: str, valid: Sequence[str]) -> str:
    return f"{what} {name!r} is not in the model{did_you_mean(name, valid)}; it has " + (
        ", ".join(valid) or "none"
    )
