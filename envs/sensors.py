"""The robot's signals as MuJoCo's sensors give them, before noise and delay.

    sensors = SensorReader(simulation, robot.sensors(["joint_position", "projected_gravity"]))
    sensors.read(worlds)                      # {"joint_position": (n, joints), ...}, float32

Each kind of `deploy.signals` that a model can measure is one row of `SENSORS`: which MuJoCo sensor
it is, on what it sits, and with which sign. A delay of the MJCF's sensor is in the reading.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.simulation import Simulation
from envs.worlds import Worlds, as_slice

IMU_SITE = "imu"
"""Site of the inertial sensor; its frame is that of the signals."""
ENCODER = "/encoder"
"""A joint's name and this is the tendon whose length its encoder sees, where the joint has play."""


class Sensor(NamedTuple):
    """How a kind of signal is measured in a model."""

    type: mujoco.mjtSensor
    xml: str
    """What to write into the MJCF."""
    per_joint: bool
    """One sensor for each joint, or one on the site of the IMU."""
    sign: int = 1
    behind_play: mujoco.mjtSensor | None = None
    """What it is on the tendon `ENCODER` of a joint with play."""


_WORLD_Z = f'<framezaxis objtype="xbody" objname="world" reftype="site" refname="{IMU_SITE}"/>'

SENSORS: Mapping[str, Sensor] = MappingProxyType(
    {
        "joint_position": Sensor(
            mujoco.mjtSensor.mjSENS_JOINTPOS,
            "<jointpos/>",
            True,
            behind_play=mujoco.mjtSensor.mjSENS_TENDONPOS,
        ),
        "joint_velocity": Sensor(
            mujoco.mjtSensor.mjSENS_JOINTVEL,
            "<jointvel/>",
            True,
            behind_play=mujoco.mjtSensor.mjSENS_TENDONVEL,
        ),
        "joint_effort": Sensor(mujoco.mjtSensor.mjSENS_JOINTACTFRC, "<jointactuatorfrc/>", True),
        "imu_angular_velocity": Sensor(
            mujoco.mjtSensor.mjSENS_GYRO, f'<gyro site="{IMU_SITE}"/>', False
        ),
        "projected_gravity": Sensor(mujoco.mjtSensor.mjSENS_FRAMEZAXIS, _WORLD_Z, False, -1),
    }
)
"""Kind -> sensor. The world's z axis seen from the IMU points up; gravity is its opposite, but in
worlds whose gravity is tilted: see `SensorReader`."""


def sensor_columns(model: mujoco.MjModel, kind: str, joint: int = -1) -> np.ndarray | None:
    """Where a reading is in `sensordata`, of a joint or of the IMU; None if the model lacks it."""
    row = SENSORS[kind]
    found = model.sensor_type == int(row.type)
    if row.per_joint:
        found &= model.sensor_objid == joint
        if row.behind_play and joint >= 0:
            found |= (model.sensor_type == int(row.behind_play)) & (
                model.sensor_objid == _encoder(model, joint)
            )
    elif kind == "projected_gravity":
        found &= model.sensor_refid == _site(model)
        found &= model.sensor_reftype == int(mujoco.mjtObj.mjOBJ_SITE)
        found &= model.sensor_objid == 0  # the world
    else:
        found &= model.sensor_objid == _site(model)
    if not found.any():
        return None
    sensor = int(np.flatnonzero(found)[0])
    return model.sensor_adr[sensor] + np.arange(model.sensor_dim[sensor])


def _encoder(model: mujoco.MjModel, joint: int) -> int:
    """Id of the tendon that a joint's encoder sees; -1 if the joint has no play."""
    name = model.joint(joint).name + ENCODER
    return mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_TENDON), name)


def _site(model: mujoco.MjModel) -> int:
    return mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_SITE), IMU_SITE)


class SensorReader:
    """Reads signals of all worlds.

    An IMU feels gravity, not the floor. Where `opt.gravity` is tilted, as on a floor that is not
    level, `projected_gravity` is tilted with it. Without any gravity it is the world's -z.

    Args:
        simulation: the worlds.
        columns: kind -> (elements,) places in `sensordata`.
    """

    def __init__(self, simulation: Simulation, columns: Mapping[str, np.ndarray]):
        self._sensordata = simulation.data("sensordata")
        self._columns = {
            kind: as_slice(torch.from_numpy(places).to(simulation.device))
            for kind, places in columns.items()
        }
        self._gravity: Tensor | None = None
        if "projected_gravity" in columns:
            self._gravity = simulation.field("opt.gravity")
            self._imu = simulation.data("site_xmat")[:, _site(simulation.model)]

    def read(self, worlds: Worlds) -> dict[str, Tensor]:
        """The signals of some worlds now, (n, elements) each, float32."""
        sensordata = worlds.take(self._sensordata)
        signals = {
            kind: SENSORS[kind].sign * sensordata[:, places].float()
            for kind, places in self._columns.items()
        }
        if self._gravity is not None:
            tilt = off_vertical(worlds.take(self._gravity))
            imu = worlds.take(self._imu).reshape(-1, 3, 3)
            signals["projected_gravity"] += (imu * tilt[:, :, None]).sum(dim=1).float()
        return signals


def off_vertical(gravity: Tensor) -> Tensor:
    """Direction of gravity (n, 3) less the world's -z; 0 where there is none."""
    strength = torch.linalg.vector_norm(gravity, dim=-1, keepdim=True)
    direction = gravity / strength.clamp(min=1e-9)
    direction[:, 2] += 1
    return torch.where(strength > 0, direction, 0)
