"""A robot by path: an MJCF, a URDF, or a YAML that adds to one what training needs.

    model: arm.urdf                  # from this file's folder
    servos:
      - {joints: [pan, lift], servo: XL430-W250, p_gain: 800, supply_v: 12}
      - {joints: ["finger_*"], servo: XL330-M288, p_gain: 400}
    imu: {body: trunk, position_m: [0, 0, 0.02]}
    sites: {tool: {body: hand, position_m: [0.05, 0, 0]}}
    home: {joints: {lift: 0.4, "finger_*": 0.2}}       # the others at 0
    rest: {joints: {lift: -1.4}}

Servos become actuators, friction and rotor inertia (`envs.servos`); each driven joint gets its
sensors, and the IMU its own. What the model has already is not touched: a part that is in both is
refused. Everything that is wrong is found before anything is said.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, NamedTuple
from xml.etree import ElementTree

import mujoco
import numpy as np
from pydantic import Field

from deploy.configuration import Section, did_you_mean, load_yaml
from deploy.errors import ConfigError
from deploy.quantities import Angle, Length, Name
from deploy.servo_models import SERVOS
from envs.robot import position_servos
from envs.sensors import IMU_SITE, SENSORS, sensor_columns
from envs.servos.model import add_servo

YAML_SUFFIXES = (".yaml", ".yml")
SUFFIXES = (".xml", ".urdf", *YAML_SUFFIXES)
"""What a robot's file ends with."""
_HISTORY_STEPS = 8
"""Physics steps by which a reading may be delayed."""
_URDF_TIMESTEP_S = 0.005
_JOINT = int(mujoco.mjtTrn.mjTRN_JOINT)

Gain = Annotated[float, Field(ge=0, le=16383)]
"""A gain as in a servo's register."""
Point = tuple[Length, Length, Length]
Component = Annotated[float, Field(ge=-1, le=1)]


class ServoGroup(Section):
    """Joints that one model of servo drives."""

    joints: Annotated[list[Name], Field(min_length=1)]
    """Names, or patterns such as `*_knee`."""
    servo: str
    """A servo of `deploy.servo_models`; its friction, damping, rotor inertia and torque limit
    replace those that the model gives the joint."""
    p_gain: Annotated[Gain, Field(gt=0)]
    """Position P gain as in its register."""
    d_gain: Gain = 0.0
    """Position D gain as in its register."""
    supply_v: Annotated[float, Field(gt=0, le=100)] | None = None
    """Supply voltage; by default the servo's nominal one."""
    load_friction: bool = False
    """Friction that grows with load: closer, and slower to simulate."""
    delay_s: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    """From a target to its use."""


class Placement(Section):
    """A place on a body."""

    body: Name
    position_m: Point = (0.0, 0.0, 0.0)
    """In the body's frame."""
    quaternion_wxyz: tuple[Component, Component, Component, Component] = (1.0, 0.0, 0.0, 0.0)
    """From the body's frame."""


class Pose(Section):
    """Where the robot is."""

    joints: dict[Name, Angle] = {}
    """Angle [rad] of joints, by names or patterns; the last that fits counts, others are at 0."""
    base_position_m: Point | None = None
    """Of a free base; by default as in the model."""
    base_quaternion_wxyz: tuple[Component, Component, Component, Component] | None = None
    """Of a free base; by default as in the model."""


class RobotFile(Section):
    """See the module docstring."""

    model: Annotated[str, Field(min_length=1)]
    """MJCF or URDF, from this file's folder."""
    name: Name | None = None
    """By default the file's, without its ending."""
    servos: list[ServoGroup] = []
    """What drives the joints."""
    replace_actuators: bool = False
    """Leave all actuators of the model out."""
    free_base: bool = False
    """Let the first body move freely, by a joint `base`; a URDF cannot say so."""
    floor: bool = False
    """A floor at z = 0, if the model has none."""
    imu: Placement | None = None
    """Inertial sensor."""
    sites: dict[Name, Placement] = {}
    """What tasks name: the tool, the feet."""
    home: Pose | None = None
    """Start pose."""
    rest: Pose | None = None
    """Pose that is stable without power."""
    timestep_s: Annotated[float, Field(ge=1e-4, le=0.02)] | None = None
    """Physics step; by default the model's, and 5 ms for a URDF."""


class Built(NamedTuple):
    """What became of a robot's files."""

    spec: mujoco.MjSpec
    model: mujoco.MjModel | None
    """None: it cannot be built."""
    problems: list[str]
    """Everything in the files that is wrong, in the order to correct it."""
    files: list[Path]
    """All of them: YAML, model, included files, meshes."""


def build(path: Path) -> Built:
    """Read and complete a robot.

    Args:
        path: an MJCF, a URDF, or a YAML as in `RobotFile`.

    Raises:
        ConfigError: there is no such file, or nothing can be made of it.
    """
    if path.suffix not in YAML_SUFFIXES:
        spec, files = _read(path)
        problems = _missing(files)
        return _finish(spec, path, problems, files, None)
    file = load_yaml(path, RobotFile)
    model_path = path.parent / file.model
    if not model_path.is_file():
        raise ConfigError(f"{path}: model: there is no file {model_path}; correct the path")
    spec, files = _read(model_path)
    problems = _missing(files)
    problems += _complete(spec, file)
    poses = [(name, pose) for name, pose in (("home", file.home), ("rest", file.rest)) if pose]
    return _finish(spec, model_path, problems, [path, *files], poses)


def robot_name(path: Path) -> str:
    """What a robot is called in a contract: as its YAML says, or as the file."""
    if path.suffix in YAML_SUFFIXES and (name := load_yaml(path, RobotFile).name):
        return name
    return path.stem


def _read(path: Path) -> tuple[mujoco.MjSpec, list[Path]]:
    """The model, and all files it consists of."""
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        files = [Path(name) for name in mujoco.mju_getXMLDependencies(str(path.absolute()))]
        root = ElementTree.parse(path).getroot()
    except (ValueError, ElementTree.ParseError) as error:
        raise ConfigError(f"{path}: MuJoCo cannot read it: {error}") from error
    if root.tag == "robot":
        files += list(_find_meshes(spec, path))
        if root.find("mujoco/option") is None:
            spec.option.timestep = _URDF_TIMESTEP_S
            spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return spec, sorted(set(files))


def _find_meshes(spec: mujoco.MjSpec, path: Path) -> Iterator[Path]:
    """Files of a URDF's meshes; `package://` is resolved in the folders above, as ROS lays them."""
    folder = path.absolute().parent
    for mesh in spec.meshes:
        if mesh.file.startswith("package://"):
            name = mesh.file.removeprefix("package://")
            places = [above / name for above in (folder, *folder.parents)]
            mesh.file = str(next((place for place in places if place.exists()), folder / name))
            spec.strippath = False
        elif spec.strippath:
            mesh.file = Path(mesh.file).name
        yield folder / spec.meshdir / mesh.file


def _missing(files: Sequence[Path]) -> list[str]:
    return [
        f"the file {file} is missing; put it there, or correct the model" + _unreadable(file)
        for file in files
        if not file.exists()
    ]


def _unreadable(file: Path) -> str:
    kinds = (".stl", ".obj", ".msh")
    if file.suffix.lower() != ".dae":
        return ""
    return f" (MuJoCo reads meshes in {', '.join(kinds)}, so convert it)"


def _complete(spec: mujoco.MjSpec, file: RobotFile) -> list[str]:
    """Add what the YAML says; returns what is wrong with it."""
    problems: list[str] = []
    if file.timestep_s is not None:
        spec.option.timestep = file.timestep_s
    if file.replace_actuators:
        for actuator in list(spec.actuators):
            spec.delete(actuator)
    if file.servos or file.replace_actuators:
        for key in spec.keys:
            key.ctrl = []  # of other actuators; see `_hold`
    driven: set[str] = set()
    for row, group in enumerate(file.servos):
        problems += (f"servos.{row}: {text}" for text in _add_servos(spec, group, driven))
    if file.free_base:
        problems += _free(spec)
    if file.floor and not any(_is_plane(geom) for geom in spec.worldbody.geoms):
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], rgba=[0.8] * 3 + [1]
        )
    placed = {**file.sites, **({IMU_SITE: file.imu} if file.imu else {})}
    for name, place in placed.items():
        problems += _add_site(spec, "imu" if name == IMU_SITE else f"sites.{name}", name, place)
    return problems


def _add_servos(spec: mujoco.MjSpec, group: ServoGroup, driven: set[str]) -> Iterator[str]:
    if (servo := SERVOS.get(group.servo)) is None:
        yield (
            f"servo {group.servo!r} is not known{did_you_mean(group.servo, SERVOS)}; there are "
            f"{', '.join(SERVOS)}"
        )
    names = [joint.name for joint in spec.joints if joint.name]
    for pattern in group.joints:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            yield _no_such("joint", pattern, names)
        for name in found:
            joint = spec.joint(name)
            if name in driven:
                yield f"joint {name!r} has a servo already; name it in one group"
            elif any(actuator.target == name for actuator in spec.actuators):
                yield (
                    f"joint {name!r} has an actuator in the model already; delete that, or say "
                    "`replace_actuators: true`"
                )
            elif not _is_limited(joint):
                yield (
                    f"joint {name!r} has no limits, which a position servo needs; give it a range "
                    "in the model (in a URDF: type `revolute`, with <limit>)"
                )
            elif servo is not None:
                driven.add(name)
                joint.actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE  # of the motor it replaces
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


def _add_site(spec: mujoco.MjSpec, key: str, name: str, place: Placement) -> Iterator[str]:
    if spec.site(name) is not None:
        yield f"{key}: the model has a site {name!r} already; delete one of the two"
    elif (body := spec.body(place.body)) is None:
        yield f"{key}: {_no_such('body', place.body, [body.name for body in spec.bodies])}"
    elif not np.isclose(np.linalg.norm(place.quaternion_wxyz), 1, atol=0.01):
        yield f"{key}: quaternion_wxyz {place.quaternion_wxyz} is not of length 1; correct it"
    else:
        body.add_site(name=name, pos=place.position_m, quat=place.quaternion_wxyz)


def _finish(
    spec: mujoco.MjSpec,
    model_path: Path,
    problems: list[str],
    files: list[Path],
    poses: list[tuple[str, Pose]] | None,
) -> Built:
    """Compile; if there is a YAML, with its poses, and sensors of what is driven."""
    model = None
    try:
        model = spec.compile()
        if poses is not None:
            _add_sensors(spec, model)
            problems += (text for name, pose in poses for text in _add_key(spec, model, name, pose))
            model = spec.compile()
            _hold(spec, model)
            model = spec.compile()
    except ValueError as error:
        if not problems:
            raise ConfigError(f"{model_path}: MuJoCo cannot build it: {error}") from error
        model = None
    return Built(spec, model, problems, files)


def _add_sensors(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """What the signals of `SENSORS` are measured by, as far as it is lacking."""
    driven = sorted({int(model.actuator_trnid[row, 0]) for row in _drives(model)})
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


def _add_key(spec: mujoco.MjSpec, model: mujoco.MjModel, name: str, pose: Pose) -> Iterator[str]:
    if any(key.name == name for key in spec.keys):
        yield f"{name}: the model has a keyframe {name!r} already; delete one of the two"
        return
    qpos = model.qpos0.copy()
    places = {}
    bases = []
    for index, kind in enumerate(model.jnt_type.tolist()):
        place = int(model.jnt_qposadr[index])
        if kind in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)):
            places[model.joint(index).name] = place
        elif kind == int(mujoco.mjtJoint.mjJNT_FREE):
            bases.append(place)
    qpos[list(places.values())] = 0.0
    for pattern, angle in pose.joints.items():
        found = [place for joint, place in places.items() if fnmatchcase(joint, pattern)]
        if not found:
            yield f"{name}: {_no_such('joint', pattern, list(places))}"
        qpos[found] = angle
    base = (pose.base_position_m, slice(0, 3)), (pose.base_quaternion_wxyz, slice(3, 7))
    for value, part in base:
        if value is not None and not bases:
            yield f"{name}: the base stands fast, so it cannot be placed; say `free_base: true`"
        elif value is not None:
            qpos[bases[0] :][part] = value
    spec.add_key(name=name, qpos=qpos)


def _hold(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """Targets that hold each keyframe, where it has none."""
    servos = position_servos(model)
    for key, qpos in zip(spec.keys, model.key_qpos, strict=True):
        if not len(key.ctrl):
            ctrl = np.zeros(model.nu)
            for row in _drives(model):
                if servos[row]:
                    ctrl[row] = qpos[model.jnt_qposadr[model.actuator_trnid[row, 0]]]
            key.ctrl = ctrl


def _drives(model: mujoco.MjModel) -> list[int]:
    """The actuators that drive a joint."""
    return np.flatnonzero(model.actuator_trntype == _JOINT).tolist()


def _no_such(what: str, name: str, valid: Sequence[str]) -> str:
    return f"{what} {name!r} is not in the model{did_you_mean(name, valid)}; it has " + (
        ", ".join(valid) or "none"
    )
