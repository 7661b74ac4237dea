"""What a robot is, what it still lacks, and what it looks like: `robotrl robot`.

    report = check_robot(load_robot("my_arm.yaml"))
    for line in report.lines(): print(line)
    draw_robot(load_robot("my_arm.yaml"), Path("my_arm.png"))

Beside what is missing or wrong, two seconds of plain MuJoCo tell what no file says: how far the
servos let the home pose sag, how far the rest pose slides without power, whether the robot drops or
falls over, and which parts touch. Numbers that look like degrees or millimetres are worth a look.
"""

import copy
import json
from collections.abc import Iterator
from typing import NamedTuple

import mujoco
import numpy as np

from deploy.servos.models import SERVOS, servos_of
from envs.robot import Robot, driving, free_joint, position_servos, servo_problems, velocity_servos
from envs.robot_file import YAML_SUFFIXES
from envs.robot_model import MESH_SUFFIXES
from envs.sensors import IMU_SITE, SENSORS, sensor_columns

SECONDS = 2.0
"""How long a pose is watched."""
MOVES_RAD = 0.1
"""A pose whose joints move more than this in `SECONDS` is worth a look."""
_TIPS_RAD = 0.5
"""A base that tilts more than this in `SECONDS` falls."""
_SUNK_M = 0.002
_DROPS_M = 0.01
_LEVEL = 0.7
_LARGEST_M, _HEAVIEST_KG, _LIGHTEST_KG = 20.0, 500.0, 0.01
_WIDEST_RAD, _NARROWEST_RAD = 4 * np.pi, 0.06  # ±1.57 rad read as degrees is 0.055 rad wide
_IMU = ("imu_angular_velocity", "projected_gravity")
_GROUND = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))
_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)


class Report(NamedTuple):
    """What `check_robot` finds."""

    found: list[str]
    """Joints, masses, servos, poses, sensors."""
    problems: list[str]
    """What is missing or wrong, in the order to correct it."""
    remarks: list[str]
    """What may be meant so, and may not."""
    beginning: list[str] = []
    """A YAML to begin with, if there is none and something is missing."""

    def lines(self) -> list[str]:
        """What `robotrl robot` prints."""
        last = "nothing is missing: it can be trained"
        if self.problems:
            last = f"{len(self.problems)} to correct before it can be trained, in this order:"
        return [
            *self.found,
            *(f"worth a look: {text}" for text in self.remarks),
            last,
            *(f"  {number}. {text}" for number, text in enumerate(self.problems, 1)),
            *self.beginning,
        ]


def check_robot(robot: Robot) -> Report:
    """Everything about a robot, as far as its files can be read.

    Raises:
        ConfigError: nothing can be made of its files.
    """
    problems = robot.problems()
    if (model := robot.unchecked) is None:
        return Report([], problems, [])
    remarks = [*_units(model), *_touching(model), *_standing(model), *_imu_upright(model)]
    beginning = []
    if problems and robot.path.suffix not in YAML_SUFFIXES:
        name = robot.path.with_suffix(".yaml").name
        beginning = [f"A YAML beside it can add this. To begin with, as {name}:"]
        beginning += [f"  {line}" for line in starting_yaml(robot, model)]
    outside = list(_outside(model))
    if not problems and not outside:
        remarks += _moving(robot, model)
    problems = problems + outside
    return Report(list(_found(robot, model)), problems, remarks, beginning)


def starting_yaml(robot: Robot, model: mujoco.MjModel) -> Iterator[str]:
    """Lines of a `RobotFile` with which a bare model can be trained; the numbers are to correct."""
    yield f"model: {robot.path.name}"
    usable = driving(model).size == model.nu and not any(servo_problems(model))
    if not model.nu or not usable:
        if model.nu:
            yield "replace_actuators: true"
        names = [
            joint.name
            for joint in map(model.joint, _hinges(model))
            if joint.type[0] == _HINGE and model.jnt_limited[joint.id] and joint.name
        ]
        if not names:
            yield "# no hinge with a name and a range was found; NAME: what your servos turn"
        yield "servos:"
        yield f"  - {{joints: [{', '.join(names or ['NAME'])}], servo: XL430-W250, p_gain: 800}}"
        yield f"    # yours is one of {', '.join(SERVOS)}; for any other, instead of servos:"
        yield "  # motors: [{joints: [..], kp_nm_per_rad: .., kd_nm_s_per_rad: .., torque_nm: ..}]"
    base = free_joint(model)
    if base is None:
        yield "# free_base: true      # if it walks; and then `floor: true` and `imu: {body: ..}`"
    else:
        if not _has_ground(model):
            yield "floor: true"
        if mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_SITE), IMU_SITE) < 0:
            yield f"imu: {{body: {model.body(model.jnt_bodyid[base]).name}}}    # where yours sits"
    outside = {}
    for index in _hinges(model):
        low, high = model.jnt_range[index].tolist()
        if model.jnt_limited[index] and not low <= 0 <= high:
            outside[model.joint(index).name] = round((low + high) / 2, 2)
    joints = json.dumps(outside).replace('"', "")
    keys = {model.key(index).name for index in range(model.nkey)}
    for key, what in (("home", "start pose"), ("rest", "stable without power")):
        if key not in keys:
            yield f"{key}: {{joints: {joints}}}    # {what}; the others at 0"


def _found(robot: Robot, model: mujoco.MjModel) -> Iterator[str]:
    base = free_joint(model)
    stands = "the base stands fast"
    if base is not None:
        stands = f"free base by joint {model.joint(base).name!r}"
    yield (
        f"robot {robot.name!r}: {len(_hinges(model))} joints, {model.nu} actuators, "
        f"{model.body_mass.sum():.4g} kg, {stands}, physics step {1e3 * model.opt.timestep:g} ms"
    )
    meshes = [file for file in robot.files if file.suffix.lower() in MESH_SUFFIXES]
    files = [file.name for file in robot.files if file not in meshes]
    yield "files: " + ", ".join(files + ([f"{len(meshes)} meshes"] if meshes else []))
    yield "masses [g]: " + ", ".join(
        f"{model.body(body).name or f'body {body}'} {_grams(model.body_mass[body])}"
        for body in np.flatnonzero(model.body_mass)
    )
    yield "joints:"
    yield from _joint_table(model)
    keys = [model.key(index).name for index in range(model.nkey)]
    yield f"keyframes: {', '.join(keys) or 'none'}"
    sites = [
        f"{model.site(index).name} on {model.body(model.site_bodyid[index]).name}"
        for index in range(model.nsite)
        if model.site(index).name
    ]
    yield f"sites: {', '.join(sites) or 'none'}"
    driven = sorted(set(model.actuator_trnid[driving(model), 0].tolist()))
    measured = [
        kind for kind, row in SENSORS.items()
        if (driven or not row.per_joint) and all(
            sensor_columns(model, kind, joint) is not None
            for joint in (driven if row.per_joint else [-1])
        )
    ]  # fmt: skip
    yield f"signals: {', '.join(measured) or 'none'}"


def _joint_table(model: mujoco.MjModel) -> Iterator[str]:
    """A line per hinge or slide: limits, servo, gains, angles of the keyframes."""
    servos = servos_of(model)
    drives = {int(model.actuator_trnid[row, 0]): row for row in reversed(driving(model).tolist())}
    width = max((len(model.joint(index).name) for index in _hinges(model)), default=0)
    keys = {model.key(index).name: model.key_qpos[index] for index in range(model.nkey)}
    for index in _hinges(model):
        name, unit = model.joint(index).name, "rad" if model.jnt_type[index] == _HINGE else "m"
        low, high = model.jnt_range[index]
        limits = f"{low:+.2f} to {high:+.2f} {unit}" if model.jnt_limited[index] else "no limits"
        words = [f"  {name:{width}s}  {limits:19s}"]
        if index in drives:
            words.append(_servo(model, drives[index], servos[name].name if name in servos else ""))
        place = model.jnt_qposadr[index]
        words += [f"{key} {keys[key][place]:+.2f}" for key in ("home", "rest") if key in keys]
        yield "  ".join(words)


def _servo(model: mujoco.MjModel, row: int, name: str) -> str:
    if position_servos(model)[row]:
        gain = f"kp {model.actuator_gainprm[row, 0]:.3g} N·m/rad"
    elif velocity_servos(model)[row]:
        gain = f"kv {model.actuator_gainprm[row, 0]:.3g} N·m·s/rad"
    else:
        return "an actuator that is no servo"
    limited = model.actuator_forcelimited[row]
    torque = f"{model.actuator_forcerange[row, 1]:.3g} N·m" if limited else "no limit of torque"
    return f"{name or 'servo'}: {gain}, {torque}"


def _hinges(model: mujoco.MjModel) -> list[int]:
    """Joints with an angle or a length."""
    kinds = (_HINGE, int(mujoco.mjtJoint.mjJNT_SLIDE))
    return np.flatnonzero(np.isin(model.jnt_type, kinds)).tolist()


def _grams(mass: float) -> str:
    """Four digits, and no exponent."""
    return f"{1e3 * mass:.4g}" if mass < 10 else f"{1e3 * mass:.0f}"


def _has_ground(model: mujoco.MjModel) -> bool:
    return bool(np.isin(model.geom_type[model.geom_bodyid == 0], _GROUND).any())


def _standing(model: mujoco.MjModel) -> Iterator[str]:
    """What a robot that walks needs."""
    if free_joint(model) is None:
        return
    if not _has_ground(model):
        yield "it has nothing to stand on: add a plane, or `floor: true` in its YAML"
    if lacking := [kind for kind in _IMU if sensor_columns(model, kind) is None]:
        lines = ", ".join(SENSORS[kind].xml for kind in lacking)
        yield (
            f"it cannot measure {' and '.join(lacking)}, which walking needs: add a site "
            f"{IMU_SITE!r} with {lines}, or `imu: {{body: ..}}` in its YAML"
        )


def _imu_upright(model: mujoco.MjModel) -> Iterator[str]:
    """An IMU that is turned otherwise than the robot that it sits on."""
    if "home" not in {model.key(index).name for index in range(model.nkey)}:
        return
    if (site := mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_SITE), IMU_SITE)) >= 0:
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
        mujoco.mj_kinematics(model, data)
        if (up := data.site_xmat[site].reshape(3, 3)[2])[2] < _LEVEL:
            yield (
                f"home: the IMU's z axis does not point up: at rest it reads a projected gravity "
                f"of ({-up[0]:+.1f}, {-up[1]:+.1f}, {-up[2]:+.1f}). Turn it in the model, or make "
                "sure that the real one says the same"
            )


def _touching(model: mujoco.MjModel) -> Iterator[str]:
    """Parts of the robot that are in each other."""
    data = mujoco.MjData(model)
    for key in range(model.nkey):
        mujoco.mj_resetDataKeyframe(model, data, key)
        mujoco.mj_forward(model, data)
        pairs, sunk = set(), 0.0
        for contact in data.contact:
            if np.isin(model.geom_type[contact.geom], _GROUND).any():
                sunk = max(sunk, -contact.dist)
            elif contact.dist < 0:
                bodies = (model.body(model.geom_bodyid[geom]).name for geom in contact.geom)
                pairs.add(" in ".join(sorted(body or "a body" for body in bodies)))
        if pairs:
            yield f"{model.key(key).name}: {', '.join(sorted(pairs))}; exclude contacts not meant"
        if sunk > _SUNK_M:
            yield f"{model.key(key).name}: {1e3 * sunk:.0f} mm deep in the floor; raise the base"


def _units(model: mujoco.MjModel) -> Iterator[str]:
    """Numbers that look like millimetres, grams or degrees."""
    size, mass = model.stat.extent, model.body_mass.sum()
    if size > _LARGEST_M:
        yield f"it is {size:.4g} m large; lengths are in m: were these mm? Scale them by 0.001"
    if not _LIGHTEST_KG <= mass <= _HEAVIEST_KG:
        yield f"it weighs {mass:.4g} kg; masses are in kg, and what has none weighs 1 kg/l"
    driven = set(model.actuator_trnid[driving(model), 0].tolist())
    for index in _hinges(model):
        low, high = model.jnt_range[index]
        if not model.jnt_limited[index] or model.jnt_type[index] != _HINGE:
            continue
        name = f"joint {model.joint(index).name!r} turns from {low:+.3g} to {high:+.3g} rad"
        if max(-low, high) > _WIDEST_RAD:
            yield f"{name}: were these degrees? An MJCF counts in rad with `angle: radian`"
        if high - low < _NARROWEST_RAD and (not driven or index in driven):
            yield f"{name} only: were these rad? An MJCF counts in degrees without `angle: radian`"


def _outside(model: mujoco.MjModel) -> Iterator[str]:
    """Joints of a keyframe beyond their limits."""
    keys = {model.key(index).name: model.key_qpos[index] for index in range(model.nkey)}
    for key in ("home", "rest"):
        for index in _hinges(model) if key in keys else ():
            (low, high), angle = model.jnt_range[index], keys[key][model.jnt_qposadr[index]]
            if model.jnt_limited[index] and not low <= angle <= high:
                unit = "rad" if model.jnt_type[index] == _HINGE else "m"
                yield (
                    f"{key}: joint {model.joint(index).name!r} is at {angle:+.3g} {unit}, its "
                    f"limits are {low:+.3g} to {high:+.3g}; correct the keyframe"
                )


def _moving(robot: Robot, model: mujoco.MjModel) -> Iterator[str]:
    """Poses that do not last."""
    for key, powered, how in (
        ("home", True, "held by its servos; stronger gains or another pose may last"),
        ("rest", False, "without power; another pose may last"),
    ):
        before, after = _settle(model, key, powered=powered)
        moved = np.abs(after.qpos - before.qpos)[robot.qpos]
        worst = int(moved.argmax())
        in_time = f"in {SECONDS:g} s {how}"
        if moved[worst] > MOVES_RAD:
            yield f"{key}: joint {robot.joints[worst]!r} moves by {moved[worst]:.2f} rad {in_time}"
        if (base := free_joint(model)) is None:
            continue
        body = model.jnt_bodyid[base]
        tilt = np.arccos(np.clip(before.xmat[body, 6:] @ after.xmat[body, 6:], -1, 1))
        drop = before.xpos[body, 2] - after.xpos[body, 2]
        if tilt > _TIPS_RAD:
            yield f"{key}: the robot tips over by {tilt:.1f} rad {in_time}"
        elif drop > _DROPS_M and _has_ground(model):
            yield f"{key}: the base drops by {1e3 * drop:.0f} mm {in_time}, or a lower base"


def _settle(
    model: mujoco.MjModel, key: str, *, powered: bool
) -> tuple[mujoco.MjData, mujoco.MjData]:
    """The robot in a keyframe, and `SECONDS` later."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key(key).id)
    for row in range(model.nu) if powered else ():
        if samples := int(model.actuator_history[row, 0]):
            target = np.full(samples, data.ctrl[row])
            mujoco.mj_initCtrlHistory(model, data, row, None, target)
    if not powered:
        model = _limp(model)
    mujoco.mj_kinematics(model, data)
    before = copy.copy(data)
    mujoco.mj_step(model, data, nstep=round(SECONDS / model.opt.timestep))
    mujoco.mj_kinematics(model, data)
    return before, data


def _limp(model: mujoco.MjModel) -> mujoco.MjModel:
    """The robot with all torque off; a coasting motor has no back-EMF either."""
    limp = mujoco.MjModel.__copy__(model)
    limp.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    return limp
