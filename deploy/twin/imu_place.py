"""Where an inertial sensor sits on the simulated robot, and what it feels there.

    place = ImuPlace(slave, model, data, mounting, parameters)
    place.measure(now_s)                 # after every step of the physics

It sits at the MJCF's site `imu`, turned as the robot file says and, by the drawn error, a little
otherwise. Noise is that of `deploy.twin.imu`; the gyroscope has its drawn bias.
"""

import mujoco
import numpy as np

from deploy.errors import ConfigError
from deploy.imu.sample import Quaternion
from deploy.twin.imu import GYRO_NOISE_RAD_S, TILT_NOISE_RAD, Motion
from deploy.twin.imu_slave import PERIOD_S, ImuSlave
from deploy.twin.parameters import TwinParameters

IMU_SITE = "imu"


class ImuPlace:
    """See the module docstring."""

    def __init__(
        self,
        slave: ImuSlave,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        mounting: Quaternion,
        parameters: TwinParameters,
    ):
        """Mount a sensor.

        Args:
            slave: what answers for it.
            model: the robot.
            data: its state.
            mounting: from the sensor's frame to that of the site, wxyz.
            parameters: its errors.

        Raises:
            ConfigError: the model has no such site.
        """
        self.slave = slave
        self._model, self._data = model, data
        self._site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, IMU_SITE)
        if self._site < 0:
            raise ConfigError(
                f"the robot file has an inertial sensor, its MJCF no site {IMU_SITE!r}; expected "
                "one where the sensor sits. Add it, or leave the sensor out"
            )
        self._turn = _matrix(np.array(mounting)) @ _turned(np.array(parameters.imu_tilt_rad))
        self._bias = np.array(parameters.gyro_bias_rad_s)
        self._rng = np.random.default_rng(parameters.seed)
        self._next_s = -np.inf
        self._spin = np.zeros(6)

    def measure(self, now_s: float) -> None:
        """Measure, if it is time to."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + PERIOD_S
        site = mujoco.mjtObj.mjOBJ_SITE
        mujoco.mj_objectVelocity(self._model, self._data, site, self._site, self._spin, 1)
        noise = _turned(self._rng.normal(scale=TILT_NOISE_RAD, size=3))
        gyro_noise = self._rng.normal(scale=GYRO_NOISE_RAD_S, size=3)
        self.slave.latch(
            Motion(
                self._data.site_xmat[self._site].reshape(3, 3) @ self._turn @ noise,
                self._turn.T @ self._spin[:3] + self._bias + gyro_noise,
                np.zeros(3),  # not among what the board says
            )
        )


def _turned(vector: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) of a rotation vector [rad]."""
    quaternion = np.array([1.0, 0.0, 0.0, 0.0])
    mujoco.mju_quatIntegrate(quaternion, vector, 1.0)
    return _matrix(quaternion)


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
