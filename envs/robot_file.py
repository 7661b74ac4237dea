"""A robot by path: an MJCF, a URDF, or a YAML that adds to one what training needs.

    model: arm.urdf                  # from this file's folder
    servos:
      - {joints: [pan, lift], servo: XL430-W250, p_gain: 800, supply_v: 12}
      - {joints: ["finger_*"], servo: XL330-M288, p_gain: 400}
    imu: {body: trunk, position_m: [0, 0, 0.02]}
    sites: {tool: {body: hand, position_m: [0.05, 0, 0]}}
    home: {joints: {lift: 0.4, "finger_*": 0.2}}       # the others at 0
    rest: {joints: {lift: -1.4}}

Servos become actuators, friction and rotor inertia (`envs.servos`), `motors` are given by numbers;
each driven joint gets its sensors, and the IMU its own. What the model has already is not touched:
a part that is in both is refused. Everything that is wrong is found before anything is said.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import mujoco
from pydantic import Field

from deploy.configuration import Section, load_yaml
from deploy.errors import ConfigError
from deploy.quantities import Angle, Length, Name
from envs import robot_parts
from envs.robot import free_joint
from envs.robot_model import missing_files, read_model

YAML_SUFFIXES = (".yaml", ".yml")
SUFFIXES = (".xml", ".urdf", *YAML_SUFFIXES)
"""What a robot's file ends with."""

Gain = Annotated[float, Field(ge=0, le=16383)]
"""A gain as in a servo's register."""
ServoDelay = Annotated[float, Field(ge=0, le=0.5)]
Point = tuple[Length, Length, Length]
Component = Annotated[float, Field(ge=-1, le=1)]


class ServoGroup(Section):
    """Joints that one model of servo drives."""

    joints: Annotated[list[Name], Field(min_length=1)]
    """Names, or patterns such as `*_knee`."""
    servo: str
    """A servo of `deploy.servos.models`; its friction, damping, rotor inertia and torque limit
    replace those that the model gives the joint."""
    p_gain: Annotated[Gain, Field(gt=0)]
    """Position P gain as in its register."""
    d_gain: Gain = 0.0
    """Position D gain as in its register."""
    supply_v: Annotated[float, Field(gt=0, le=100)] | None = None
    """Supply voltage; by default the servo's nominal one."""
    load_friction: bool = False
    """Friction that grows with load: closer, and slower to simulate."""
    delay_s: ServoDelay = 0.01
    """From a target to its use."""


class MotorGroup(Section):
    """Joints with a servo that is in no table, by its numbers."""

    joints: Annotated[list[Name], Field(min_length=1)]
    """Names, or patterns such as `*_knee`."""
    kp_nm_per_rad: Annotated[float, Field(gt=0, le=1e5)]
    kd_nm_s_per_rad: Annotated[float, Field(ge=0, le=1e4)] = 0.0
    torque_nm: Annotated[float, Field(gt=0, le=1e4)]
    """The most it can do."""
    armature_kg_m2: Annotated[float, Field(ge=0, le=100)] | None = None
    """Inertia of the rotor behind the gears; by default as in the model."""
    delay_s: ServoDelay = 0.01
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
    motors: list[MotorGroup] = []
    """What drives others, by numbers; friction and damping of these joints are the model's."""
    replace_actuators: bool = False
    """Leave all actuators of the model out."""
    free_base: bool = False
    """Let the first body move freely, by a joint `base`; a URDF cannot say so."""
    floor: bool = False
    """A floor at z = 0, if the model has none."""
    imu: Placement | None = None
    """Inertial sensor."""
    sites: dict[Name, Placement] = {}
    """What tasks name, such as the tool."""
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
        spec, files = read_model(path)
        problems = missing_files(files)
        return _finish(spec, path, problems, files, None)
    file = load_yaml(path, RobotFile)
    model_path = path.parent / file.model
    if not model_path.is_file():
        raise ConfigError(f"{path}: model: there is no file {model_path}; correct the path")
    spec, files = read_model(model_path)
    problems = missing_files(files)
    problems += robot_parts.complete(spec, file)
    poses = [(name, pose) for name, pose in (("home", file.home), ("rest", file.rest)) if pose]
    return _finish(spec, model_path, problems, [path, *files], poses)


def robot_name(path: Path) -> str:
    """What a robot is called in a contract: as its YAML says, or as the file."""
    if path.suffix in YAML_SUFFIXES and (name := load_yaml(path, RobotFile).name):
        return name
    return path.stem


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
        if free_joint(model) is not None:
            robot_parts.carry_lamps(spec)
            model = spec.compile()
        if poses is not None:
            robot_parts.add_sensors(spec, model)
            problems += (
                text
                for name, pose in poses
                for text in robot_parts.add_key(spec, model, name, pose)
            )
            model = spec.compile()
            robot_parts.hold(spec, model)
            model = spec.compile()
    except ValueError as error:
        if not problems:
            raise ConfigError(f"{model_path}: MuJoCo cannot build it: {error}") from error
        model = None
    return Built(spec, model, problems, files)
