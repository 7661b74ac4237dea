"""Robots: those that ship with the package, one MJCF folder each, and anybody's own by path.

    robot = load_robot("desk_arm")              # or the path of an MJCF, URDF or YAML
    robot.joints                                # names, in the order of every joint array
    qpos[:, robot.qpos]; ctrl[:, robot.actuators] = targets      # nothing is found by its position

A robot's joints are hinges moved by position servos, or all of them by velocity servos, such as
wheels. They have a `<jointpos>` and a `<jointvel>` sensor each, and the keyframes are `home` (the
start pose) and `rest` (stable without power). The base may stand fast or be free. The MJCF may have
joints, actuators and sensors in any order, under any names, and have other joints and free bodies
beside them.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from deploy.configuration import did_you_mean, validate
from deploy.contract import JointSpec, OperatingMode
from deploy.errors import ConfigError
from envs.sensors import SENSORS, sensor_columns

if TYPE_CHECKING:
    from envs.robot_file import Built

_FOLDER = Path(__file__).parent / "robots"
_KEYFRAMES = {"home": "the start pose", "rest": "a pose that is stable without power"}
ENDLESS_RAD = (-1000.0, 1000.0)
"""Position limits of a joint without any: the largest that a contract knows."""
_JOINT_SENSORS = ("joint_position", "joint_velocity")


@dataclass(frozen=True)
class Robot:
    """A robot model."""

    name: str
    path: Path
    """The MJCF file, URDF file, or YAML of `envs.robot_file`."""
    moved: tuple[tuple[str, float], ...] = ()
    """Joints whose home is not that of the model, and where it is [rad]."""

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled nominal model.

        Raises:
            ConfigError: lists everything that is wrong with the robot's files.
        """
        if self._built.model is None or self._built.problems:
            raise self.refused(self.problems())
        return self._built.model

    @property
    def unchecked(self) -> mujoco.MjModel | None:
        """The model with all that is wrong with it; None if it cannot be built."""
        return self._built.model

    @property
    def files(self) -> list[Path]:
        """All files it is made of: YAML, model, included files, meshes."""
        return self._built.files

    def spec(self) -> mujoco.MjSpec:
        """A copy of what the model is compiled from, to add to."""
        return self._built.spec.copy()

    def mjcf(self) -> str:
        """The whole robot as one MJCF; meshes stay where they are."""
        spec = self._built.spec
        folder = Path(spec.modelfiledir).absolute()
        for attribute in ("meshdir", "texturedir"):
            setattr(spec, attribute, str(folder / getattr(spec, attribute)))
        return spec.to_xml()

    def problems(self) -> list[str]:
        """Everything that training and the contract need and the robot lacks; empty if nothing."""
        built = self._built
        return built.problems + (_problems(built.model) if built.model else [])

    def check(self, *, fixed_base: bool = False) -> None:
        """Check that the model says everything training and the contract need.

        Args:
            fixed_base: whether the robot must stand fast.

        Raises:
            ConfigError: lists everything that is missing.
        """
        problems, model = self.problems(), self._built.model
        if fixed_base and model and (joint := free_joint(model)) is not None:
            name = model.joint(joint).name
            problems.append(f"its base moves freely, by joint {name!r}; this task needs it fixed")
        if problems:
            raise self.refused(problems)

    @cached_property
    def joints(self) -> list[str]:
        """Actuated joints in the order of the kinematic tree; the order of every joint array."""
        return [self.model.joint(index).name for index in self._joint_ids]

    @cached_property
    def actuators(self) -> np.ndarray:
        """(joints,) place of each joint's servo in `ctrl` and in `actuator_*` fields."""
        drives = {int(self.model.actuator_trnid[a, 0]): a for a in range(self.model.nu)}
        return np.array([drives[joint] for joint in self._joint_ids])

    @property
    def qpos(self) -> np.ndarray:
        """(joints,) place of each joint's angle in `qpos`."""
        return self.model.jnt_qposadr[self._joint_ids].astype(np.int64)

    @property
    def dofs(self) -> np.ndarray:
        """(joints,) place of each joint's speed in `qvel` and in `dof_*` fields."""
        return self.model.jnt_dofadr[self._joint_ids].astype(np.int64)

    @property
    def operating_mode(self) -> OperatingMode:
        """What its servos follow, and so what a policy commands."""
        return "velocity" if velocity_servos(self.model)[self.actuators].all() else "position"

    def sensors(self, kinds: Iterable[str]) -> dict[str, np.ndarray]:
        """Where signals are measured: (elements,) places in `sensordata` for each kind.

        Raises:
            ConfigError: lists every sensor that the model lacks.
        """
        places: dict[str, np.ndarray] = {}
        missing: list[str] = []
        for kind in kinds:
            row = SENSORS[kind]
            found = [
                sensor_columns(self.model, kind, joint)
                for joint in (self._joint_ids if row.per_joint else [-1])
            ]
            if any(columns is None for columns in found):
                missing.append(f"{kind}: {row.xml}" + (" of each joint" if row.per_joint else ""))
            else:
                places[kind] = np.concatenate([c for c in found if c is not None]).astype(np.int64)
        if missing:
            raise ConfigError(
                f"robot {self.name!r} ({self.path}) lacks sensors for {'; '.join(missing)}. "
                "Add them under <sensor>."
            )
        return places

    def target_range(self, margin_rad: float) -> tuple[np.ndarray, np.ndarray]:
        """(joints,) lowest and highest target: the joint limits, less a margin [rad].

        Raises:
            ConfigError: the robot is not driven by position, or the home pose is not inside.
        """
        if self.operating_mode != "position":
            raise ConfigError(
                f"robot {self.name!r} ({self.path}) is driven by {self.operating_mode}, and this "
                "task sends joint angles; choose a robot of position servos, or another task"
            )
        low, high = self.model.actuator_ctrlrange[self.actuators].T
        low, high = low + margin_rad, high - margin_rad
        outside = (self.home < low) | (self.home > high)
        if outside.any():
            names = [name for name, out in zip(self.joints, outside, strict=True) if out]
            raise ConfigError(
                f"the home pose of {names} lies outside their limits, less limit_margin_rad "
                f"{margin_rad}; lower the margin, or correct `home` (the keyframe, or the setting)"
            )
        return low, high

    def joint_specs(
        self,
        *,
        low: Iterable[float] | None = None,
        high: Iterable[float] | None = None,
        velocity_limit: float,
    ) -> list[JointSpec]:
        """The contract's joints: operating mode, gains, limits and torque as the model has them.

        Args:
            low: (joints,) lowest angle [rad]; None: as the joints are limited, if they are.
            high: (joints,) highest angle [rad]; None: likewise.
            velocity_limit: fastest target, or change of one that is an angle [rad/s].
        """
        model, mode, ids = self.model, self.operating_mode, self._joint_ids
        limited = model.jnt_limited[ids, None].astype(bool)
        ends = np.where(limited, model.jnt_range[ids], ENDLESS_RAD).T.tolist()
        rows = zip(
            self.joints,
            self.actuators.tolist(),
            self.home.tolist(),
            ends[0] if low is None else low,
            ends[1] if high is None else high,
            strict=True,
        )
        return [
            validate(
                {
                    "name": name,
                    "operating_mode": mode,
                    "kp_nm_per_rad": 0.0 - float(model.actuator_biasprm[actuator, 1]),
                    "kd_nm_s_per_rad": 0.0 - float(model.actuator_biasprm[actuator, 2]),
                    "default_position_rad": home,
                    "position_limits_rad": (float(lowest), float(highest)),
                    "velocity_limit_rad_s": velocity_limit,
                    "effort_limit_nm": float(model.actuator_forcerange[actuator, 1]),
                },
                JointSpec,
                source=f"robot {self.name}",
            )
            for name, actuator, home, lowest, highest in rows
        ]

    @property
    def max_torque(self) -> np.ndarray:
        """(joints,) largest torque of their servos [N·m]."""
        return self.model.actuator_forcerange[self.actuators, 1]

    def with_home(self, angles: Mapping[str, float]) -> "Robot":
        """The same robot, with some of `joints` elsewhere in its start pose [rad]."""
        return replace(self, moved=tuple(angles.items()))

    @property
    def home(self) -> np.ndarray:
        """(joints,) start pose [rad]."""
        return self.home_qpos[self.qpos]

    @property
    def home_qpos(self) -> np.ndarray:
        """(nq,) start pose of everything in the model."""
        qpos = self.model.keyframe("home").qpos.copy()
        for name, angle in self.moved:
            qpos[self.model.joint(name).qposadr] = angle
        return qpos

    @property
    def sha256(self) -> str:
        """Identity of the model: of its file, or of the names and contents of all its files."""
        digests = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files}
        if len(digests) == 1:
            return digests[self.files[0]]
        folder = self.path.absolute().parent
        lines = sorted(f"{os.path.relpath(file, folder)} {hash}" for file, hash in digests.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def _built(self) -> "Built":
        from envs.robot_file import build  # which needs what is below

        return build(self.path)

    def refused(self, problems: list[str]) -> ConfigError:
        """The error that lists what is wrong."""
        listed = "\n  ".join(problems)
        return ConfigError(f"robot {self.name!r} ({self.path}) cannot be trained:\n  {listed}")

    @cached_property
    def _joint_ids(self) -> list[int]:
        self.check()
        return sorted(self.model.actuator_trnid[:, 0].tolist())


def load_robot(name: str) -> Robot:
    """Find a robot by name, or by the path of an MJCF, URDF or YAML.

    Raises:
        ConfigError: there is no such robot.
    """
    from envs.robot_file import SUFFIXES, robot_name

    if (path := Path(name)).suffix in SUFFIXES:
        if not path.is_file():
            raise ConfigError(f"robot {name!r}: there is no such file; correct the path")
        return Robot(robot_name(path), path)
    names = sorted(path.name for path in _FOLDER.iterdir() if (path / f"{path.name}.xml").exists())
    if name not in names:
        raise ConfigError(
            f"unknown robot {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    return Robot(name, _FOLDER / name / f"{name}.xml")


def position_servos(model: mujoco.MjModel) -> np.ndarray:
    """(nu,) bool: which actuators obey force = kp (target - position) - kd velocity."""
    gain, bias = model.actuator_gainprm, model.actuator_biasprm
    return _affine(model) & (bias[:, 1] == -gain[:, 0]) & (bias[:, 2] <= 0)


def velocity_servos(model: mujoco.MjModel) -> np.ndarray:
    """(nu,) bool: which actuators obey force = kd (target - velocity)."""
    gain, bias = model.actuator_gainprm, model.actuator_biasprm
    return _affine(model) & (bias[:, 1] == 0) & (bias[:, 2] == -gain[:, 0])


def _affine(model: mujoco.MjModel) -> np.ndarray:
    """(nu,) bool: force = gain · target + bias, linear in position and velocity."""
    return (
        (model.actuator_gaintype == int(mujoco.mjtGain.mjGAIN_FIXED))
        & (model.actuator_biastype == int(mujoco.mjtBias.mjBIAS_AFFINE))
        & (model.actuator_gainprm[:, 0] > 0)
        & (model.actuator_biasprm[:, 0] == 0)
    )


def _problems(model: mujoco.MjModel) -> list[str]:
    """Everything a robot needs and this model lacks."""
    problems = [] if model.nu else ["it has no actuators"]
    problems += servo_problems(model)
    if position_servos(model).any() and velocity_servos(model).any():
        problems.append(
            "some of its servos follow a position and others a velocity: a policy has one kind of "
            "target"
        )
    driven = sorted(set(model.actuator_trnid[driving(model), 0].tolist()))
    for kind in _JOINT_SENSORS:
        lacking = [joint for joint in driven if sensor_columns(model, kind, joint) is None]
        if lacking:
            names = [repr(model.joint(joint).name) for joint in lacking]
            problems.append(_each("joint", names, f"has no {SENSORS[kind].xml} sensor"))
    keyframes = {model.key(index).name for index in range(model.nkey)}
    problems += [
        f"keyframe {name!r} is missing: {what}"
        for name, what in _KEYFRAMES.items()
        if name not in keyframes
    ]
    return problems


def servo_problems(model: mujoco.MjModel) -> list[str]:
    """Why actuators are no servos that a policy can command, one line for each reason."""
    driven: dict[int, str] = {}
    found: dict[str, list[str]] = {}
    for index in range(model.nu):
        actuator = model.actuator(index).name or str(index)
        joint = int(model.actuator_trnid[index, 0])
        if model.actuator_trntype[index] != int(mujoco.mjtTrn.mjTRN_JOINT):
            what = "drives no joint, which a policy's targets are for: delete it"
            found.setdefault(what, []).append(actuator)
            continue
        for problem in _servo_problems(model, index, joint):
            found.setdefault(problem, []).append(actuator)
        if joint in driven:
            same = f"drives the same joint as actuator {driven[joint]}"
            found.setdefault(same, []).append(actuator)
        driven[joint] = actuator
    return [_each("actuator", names, problem) for problem, names in found.items()]


def _each(what: str, names: list[str], problem: str) -> str:
    """A problem that one or several have."""
    if len(names) == 1:
        return f"{what} {names[0]} {problem}"
    return f"each of the {what}s {', '.join(names)} {problem}"


def _servo_problems(model: mujoco.MjModel, index: int, joint: int) -> list[str]:
    """Why an actuator is no servo of a hinge with known gain and limits."""
    problems, wheel = [], velocity_servos(model)[index]
    if model.jnt_type[joint] != int(mujoco.mjtJoint.mjJNT_HINGE) or not model.joint(joint).name:
        problems.append("drives a joint that is no hinge with a name")
    if not wheel and not position_servos(model)[index]:
        problems.append(
            "is no position servo, so its gains are not known: use <position kp=...>, or "
            "<velocity kv=...> for a wheel"
        )
    if model.actuator_dyntype[index] != int(mujoco.mjtDyn.mjDYN_NONE):
        problems.append("filters or integrates its target: use <position> without timeconst")
    if model.actuator_gear[index, 0] != 1:
        problems.append("has a gear ratio, so its target is no joint angle: use gear 1")
    low, high = model.actuator_forcerange[index]
    if not model.actuator_forcelimited[index] or not low < 0 < high:
        problems.append("has no forcerange: give the stall torque of the servo")
    low, high = model.actuator_ctrlrange[index]
    if not model.actuator_ctrllimited[index] or not low < high:
        problems.append(
            "has no ctrlrange: give the fastest target"
            if wheel
            else 'has no ctrlrange: write inheritrange="1" to take that of the joint'
        )
    return problems


def driving(model: mujoco.MjModel) -> np.ndarray:
    """Actuators that drive a joint, and not a tendon, a site or a body."""
    return np.flatnonzero(model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT))


def free_joint(model: mujoco.MjModel) -> int | None:
    """The free joint between the world and a driven joint; or any joint, if none is driven."""
    joints = model.actuator_trnid[driving(model), 0]
    for joint in joints if len(joints) else range(model.njnt):
        root = int(model.body_rootid[model.jnt_bodyid[joint]])
        first = int(model.body_jntadr[root])
        if first not in (-1, joint) and model.jnt_type[first] == int(mujoco.mjtJoint.mjJNT_FREE):
            return first
    return None
