"""What the tests of legged robots share: poses, simulated or not, and sums over bodies."""

import mujoco
import numpy as np
from numpy.typing import NDArray

FLOOR = "floor"


def posed(model: mujoco.MjModel, key: str | None = None, **angles: float) -> mujoco.MjData:
    """Kinematics at a keyframe, or with every joint at 0; then some joints turned [rad]."""
    data = mujoco.MjData(model)
    if key is not None:
        mujoco.mj_resetDataKeyframe(model, data, model.key(key).id)
    for joint, angle in angles.items():
        data.joint(joint).qpos = angle
    mujoco.mj_forward(model, data)
    return data


def simulated(model: mujoco.MjModel, key: str, *, seconds: float) -> mujoco.MjData:
    """State after holding a keyframe's control, with delay buffers that start full."""
    data = posed(model, key)
    for actuator in range(model.nu):
        held = np.full(model.actuator_history[actuator, 0], data.ctrl[actuator])
        mujoco.mj_initCtrlHistory(model, data, actuator, None, held)
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
    return data


def nose_down(model: mujoco.MjModel, angle: float) -> mujoco.MjData:
    """Home, level or turned about +y [rad]: then down is also forward."""
    data = posed(model, "home")
    data.qpos[3:7] = [np.cos(angle / 2), 0, np.sin(angle / 2), 0]
    mujoco.mj_forward(model, data)
    return data


def unpowered(model: mujoco.MjModel) -> mujoco.MjModel:
    """Without servo torque: neither drive nor back-EMF."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION
    return model


def stiffened(model: mujoco.MjModel, factor: float) -> mujoco.MjModel:
    """Servos with a higher P gain."""
    model.actuator_gainprm[:, 0] *= factor
    model.actuator_biasprm[:, 1] *= factor
    return model


def inertia_about_com(model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.float64]:
    """(3, 3) inertia of the whole robot about its centre of mass, in world axes [kg·m²]."""
    total = np.zeros((3, 3))
    for body in range(1, model.nbody):
        axes = data.ximat[body].reshape(3, 3)
        arm = data.xipos[body] - data.subtree_com[1]
        parallel_axis = model.body_mass[body] * (arm @ arm * np.eye(3) - np.outer(arm, arm))
        total += axes @ np.diag(model.body_inertia[body]) @ axes.T + parallel_axis
    return total


def body_inertia(model: mujoco.MjModel, body: int) -> NDArray[np.float64]:
    """(3, 3) inertia of a body about its centre of mass, in its own frame [kg·m²]."""
    axes = np.empty(9)
    mujoco.mju_quat2Mat(axes, model.body_iquat[body])
    axes = axes.reshape(3, 3)
    return axes @ np.diag(model.body_inertia[body]) @ axes.T


def height(model: mujoco.MjModel, data: mujoco.MjData, geom: str) -> float:
    """Distance of a geom from the floor, as MuJoCo's own collision code has it [m]."""
    ends = np.empty(6)
    return mujoco.mj_geomDistance(model, data, model.geom(FLOOR).id, model.geom(geom).id, 1.0, ends)


def assert_mirrored(model: mujoco.MjModel, left: str, right: str) -> None:
    """Bodies of two sides differ by the sign of y alone: joint anchor, mass, inertia."""
    mirror = np.diag([1.0, -1.0, 1.0])
    a, b = model.body(left), model.body(right)
    np.testing.assert_allclose(b.pos, mirror @ a.pos, atol=1e-12)
    np.testing.assert_allclose(b.ipos, mirror @ a.ipos, atol=1e-12)
    np.testing.assert_allclose(b.mass, a.mass)
    mirrored = mirror @ body_inertia(model, a.id) @ mirror
    np.testing.assert_allclose(body_inertia(model, b.id), mirrored, atol=1e-12)


def assert_stays_over_the_floor(model: mujoco.MjModel, *, sunk: float, falls: int) -> None:
    """Dropped in any pose and any attitude, no geom ends lower than `sunk` under the floor [m]."""
    random = np.random.default_rng(0)
    model, data = unpowered(model), mujoco.MjData(model)
    ends = np.empty(6)
    for _ in range(falls):
        mujoco.mj_resetData(model, data)
        quat = random.normal(size=4)
        data.qpos[2], data.qpos[3:7] = 0.3, quat / np.linalg.norm(quat)
        data.qpos[7:] = random.uniform(*model.jnt_range[1:].T)
        mujoco.mj_step(model, data, nstep=400)  # 2 s
        for geom in np.flatnonzero(model.geom_bodyid):
            lowest = mujoco.mj_geomDistance(model, data, model.geom(FLOOR).id, geom, 1.0, ends)
            body = model.body(model.geom_bodyid[geom]).name
            assert lowest > -sunk, f"{body}, geom {geom}: {lowest:.4f} m"
        assert not any(warning.number for warning in data.warning)
