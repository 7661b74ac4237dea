"""Robots that ship with the package: one MJCF folder each.

    robot = load_robot("desk_arm")
    robot.joints                                # names, in the order of every joint array
    qpos[:, robot.qpos]; ctrl[:, robot.actuators] = targets      # nothing is found by its position

A robot's joints are moved by position servos, have a `<jointpos>` and a `<jointvel>` sensor each,
and its keyframes are `home` (the start pose) and `rest` (stable without power). The MJCF may have
them in any order, under any names, and have other joints and free bodies beside them.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mujoco
import numpy as np

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError

_FOLDER = Path(__file__).parent / "robots"
_KEYFRAMES = {"home": "the start pose", "rest": "a pose that is stable without power"}
_SENSORS = {
    "jointpos": mujoco.mjtSensor.mjSENS_JOINTPOS,
    "jointvel": mujoco.mjtSensor.mjSENS_JOINTVEL,
}


@dataclass(frozen=True)
class Robot:
    """A robot model."""

    name: str
    path: Path
    """The MJCF file."""

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled nominal model.

        Raises:
            ConfigError: MuJoCo cannot read the file.
        """
        try:
            return mujoco.MjModel.from_xml_path(str(self.path))
        except ValueError as error:
            raise ConfigError(f"{self.path}: MuJoCo cannot read it: {error}") from error

    def check(self, *, fixed_base: bool = False) -> None:
        """Check that the model says everything training and the contract need.

        Args:
            fixed_base: whether the robot must stand fast.

        Raises:
            ConfigError: lists everything that is missing.
        """
        problems = _problems(self.model)
        if fixed_base and (joint := _free_joint(self.model)):
            problems.append(f"its base moves freely, by joint {joint!r}; this task needs it fixed")
        if problems:
            listed = "\n  ".join(problems)
            raise ConfigError(f"robot {self.name!r} ({self.path}) cannot be trained:\n  {listed}")

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
    def position_sensors(self) -> np.ndarray:
        """(joints,) place of each joint's measured angle in `sensordata`."""
        return self._sensor_places("jointpos")

    @property
    def velocity_sensors(self) -> np.ndarray:
        """(joints,) place of each joint's measured speed in `sensordata`."""
        return self._sensor_places("jointvel")

    @property
    def home(self) -> np.ndarray:
        """(joints,) start pose [rad]."""
        return self.home_qpos[self.qpos]

    @property
    def home_qpos(self) -> np.ndarray:
        """(nq,) start pose of everything in the model."""
        return self.model.keyframe("home").qpos.copy()

    @property
    def sha256(self) -> str:
        """Identity of the model."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def _joint_ids(self) -> list[int]:
        self.check()
        return sorted(self.model.actuator_trnid[:, 0].tolist())

    def _sensor_places(self, kind: str) -> np.ndarray:
        sensors = [_sensor(self.model, kind, joint) for joint in self._joint_ids]
        return self.model.sensor_adr[sensors].astype(np.int64)


def load_robot(name: str) -> Robot:
    """Find a robot by name.

    Raises:
        ConfigError: there is no such robot.
    """
    names = sorted(path.name for path in _FOLDER.iterdir() if (path / f"{path.name}.xml").exists())
    if name not in names:
        raise ConfigError(
            f"unknown robot {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    return Robot(name, _FOLDER / name / f"{name}.xml")


def position_servos(model: mujoco.MjModel) -> np.ndarray:
    """(nu,) bool: which actuators obey force = kp (target - position) - kd velocity."""
    gain, bias = model.actuator_gainprm, model.actuator_biasprm
    return (
        (model.actuator_gaintype == int(mujoco.mjtGain.mjGAIN_FIXED))
        & (model.actuator_biastype == int(mujoco.mjtBias.mjBIAS_AFFINE))
        & (gain[:, 0] > 0)
        & (bias[:, 0] == 0)
        & (bias[:, 1] == -gain[:, 0])
        & (bias[:, 2] <= 0)
    )


def _problems(model: mujoco.MjModel) -> list[str]:
    """Everything a robot needs and this model lacks."""
    problems = [] if model.nu else ["it has no actuators"]
    driven: dict[int, str] = {}
    for index in range(model.nu):
        actuator = f"actuator {model.actuator(index).name or index}"
        joint = int(model.actuator_trnid[index, 0])
        if model.actuator_trntype[index] != int(mujoco.mjtTrn.mjTRN_JOINT):
            problems.append(f"{actuator} drives no joint")
            continue
        problems += [f"{actuator} {problem}" for problem in _servo_problems(model, index, joint)]
        if joint in driven:
            problems.append(f"{actuator} drives the same joint as {driven[joint]}")
        driven[joint] = actuator
    for joint in sorted(driven):
        problems += [
            f"joint {model.joint(joint).name!r} has no <{kind}> sensor"
            for kind in _SENSORS
            if _sensor(model, kind, joint) is None
        ]
    keyframes = {model.key(index).name for index in range(model.nkey)}
    problems += [
        f"keyframe {name!r} is missing: {what}"
        for name, what in _KEYFRAMES.items()
        if name not in keyframes
    ]
    return problems


def _servo_problems(model: mujoco.MjModel, index: int, joint: int) -> list[str]:
    """Why an actuator is no position servo of a hinge with known gain and limits."""
    problems = []
    if model.jnt_type[joint] != int(mujoco.mjtJoint.mjJNT_HINGE) or not model.joint(joint).name:
        problems.append("drives a joint that is no hinge with a name")
    if not position_servos(model)[index]:
        problems.append("is no position servo, so its gains are not known: use <position kp=...>")
    if model.actuator_dyntype[index] != int(mujoco.mjtDyn.mjDYN_NONE):
        problems.append("filters or integrates its target: use <position> without timeconst")
    if model.actuator_gear[index, 0] != 1:
        problems.append("has a gear ratio, so its target is no joint angle: use gear 1")
    low, high = model.actuator_forcerange[index]
    if not model.actuator_forcelimited[index] or not low < 0 < high:
        problems.append("has no forcerange: give the stall torque of the servo")
    low, high = model.actuator_ctrlrange[index]
    if not model.actuator_ctrllimited[index] or not low < high:
        problems.append('has no ctrlrange: write inheritrange="1" to take that of the joint')
    return problems


def _sensor(model: mujoco.MjModel, kind: str, joint: int) -> int | None:
    """Id of a joint's sensor."""
    found = (model.sensor_type == int(_SENSORS[kind])) & (model.sensor_objid == joint)
    return int(np.flatnonzero(found)[0]) if found.any() else None


def _free_joint(model: mujoco.MjModel) -> str | None:
    """Name of a free joint between the world and an actuated joint."""
    for actuator in range(model.nu):
        if model.actuator_trntype[actuator] != int(mujoco.mjtTrn.mjTRN_JOINT):
            continue
        body = int(model.jnt_bodyid[model.actuator_trnid[actuator, 0]])
        root = int(model.body_rootid[body])
        first = int(model.body_jntadr[root])
        if first >= 0 and model.jnt_type[first] == int(mujoco.mjtJoint.mjJNT_FREE):
            return model.joint(first).name or "(without a name)"
    return None
