"""A robot that nothing holds to the ground: where its base is, who lifts it, and who pushes it.

    base = FloatingBase(model, data, root, parameters)
    base.act(now_s, energised, at_home=True)           # before every step of the physics
    base.pose, base.velocity

It is started as a maker starts the real one. It lies limp as it was switched on; when its servos
hold, a hand picks it up and keeps it upright in the air until its joints have come home, puts it on
its feet, holds it there, loosens its grip, and has let go `let_go_after_s` after it stood, when the
policy has taken over. The hand is a soft weld to a body that moves as the hand does.
A robot on wheels gets up by itself: nobody lifts it, in the air its wheels would only run away. A
push is a force on the base that gives the whole robot the drawn speed within `PUSH_S`; training
sets the speed at once.
"""

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from deploy.twin.parameters import TwinParameters

HAND = "_hand"
LIFT_S, LOWER_S = 1.0, 0.4
"""From where it lies into the air, and from there onto the floor."""
CLEARANCE_M = 0.03
"""Under its feet in the air."""
PATIENCE_S = 10.0
"""It is put down then, wherever its joints are."""
LOOSENING_S = 0.9
"""The end of its standing it is held less and less, if it is held for so long."""
PUSH_S = 0.1
PUSH_INTERVAL_S = (3.0, 6.0)

_FIRM, _WIDTH = 0.95, 10.0
"""Of the weld ("solimp" in MuJoCo's documentation): its impedance while it is held, near 0 it is
free; a width [m, rad] so large that it does not depend on how far the robot is off."""
_WELD = (0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0)  # anchor, relative pose, torque scale

Floats = NDArray[np.float64]


def floating_root(spec: mujoco.MjSpec, joint: str) -> str | None:
    """Name of the body that carries a joint and itself has a free joint; None if nothing floats."""
    body = spec.joint(joint).parent
    while body.parent is not None:
        if any(own.type == mujoco.mjtJoint.mjJNT_FREE for own in body.joints):
            return body.name
        body = body.parent
    return None


def add_hand(spec: mujoco.MjSpec, root: str) -> None:
    """What can take hold of a body; it does not yet."""
    spec.worldbody.add_body(name=HAND, mocap=True)
    weld = spec.add_equality(
        name=HAND, type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY
    )
    weld.name1, weld.name2, weld.active = HAND, root, False
    weld.data = _WELD


class FloatingBase:
    """See the module docstring.

    Args:
        model: with a hand.
        data: its state.
        root: the body that floats.
        parameters: when the hand lets go, and how hard pushes are.
        lifted: whether there is a hand.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        root: str,
        parameters: TwinParameters,
        *,
        lifted: bool = True,
    ):
        self._model, self._data, self._body = model, data, model.body(root).id
        qpos_at, dof_at = (int(at[model.body_jntadr[self._body]])
                           for at in (model.jnt_qposadr, model.jnt_dofadr))  # fmt: skip
        self._qpos, self._dof = slice(qpos_at, qpos_at + 7), slice(dof_at, dof_at + 6)
        self._standing = model.qpos0[self._qpos].copy()  # where the MJCF draws it
        self._mass_kg = float(model.body_subtreemass[self._body])
        self._mocap, self._weld = int(model.body(HAND).mocapid[0]), model.equality(HAND).id
        self._stands_held_s = parameters.let_go_after_s
        self._lifted = lifted and self._stands_held_s > 0
        self._push_m_s = parameters.push_speed_m_s
        self._rng = np.random.default_rng(parameters.seed)
        self._held_since_s: float | None = None
        self._put_down_s = self._let_go_s = math.inf
        self._lying = self.pose
        self._push_s = math.inf
        self._force: Floats = np.zeros(2)

    @property
    def pose(self) -> Floats:
        """Position [m] and orientation (quaternion wxyz) in the world, shape (7,)."""
        return self._data.qpos[self._qpos].copy()

    @property
    def velocity(self) -> Floats:
        """Velocity [m/s] in the world, and angular velocity [rad/s] in its own frame, (6,)."""
        return self._data.qvel[self._dof].copy()

    def act(self, now_s: float, energised: bool, *, at_home: bool) -> None:
        """What the hand does now."""
        if not energised:
            self._held_since_s, self._push_s = None, math.inf
        elif self._held_since_s is None:
            self._held_since_s, self._lying = now_s, self.pose
            self._put_down_s, self._let_go_s = math.inf, math.inf if self._lifted else now_s
        elif self._let_go_s == math.inf:
            held_s = now_s - self._held_since_s
            if held_s > LIFT_S and (at_home or held_s > PATIENCE_S):
                self._put_down_s = now_s
                self._let_go_s = now_s + LOWER_S + self._stands_held_s
        holds = energised and now_s < self._let_go_s
        self._data.eq_active[self._weld] = holds
        if holds:
            loosening_s = min(LOOSENING_S, self._stands_held_s)
            grip = min((self._let_go_s - now_s) / loosening_s, 1.0)
            self._model.eq_solimp[self._weld, :3] = _FIRM * grip**2, _FIRM, _WIDTH
            self._move_hand(now_s)
        elif energised and self._push_s == math.inf:
            self._plan_push(now_s)
        if self._push_m_s:
            self._push(now_s)

    def _move_hand(self, now_s: float) -> None:
        """Up from where it lay, turned upright with the heading it had, and down again."""
        assert self._held_since_s is not None
        lifted = _smooth((now_s - self._held_since_s) / LIFT_S)
        lowered = _smooth((now_s - self._put_down_s) / LOWER_S)
        upright = np.append(self._lying[:2], [self._standing[2], *_heading(self._lying[3:])])
        pose = self._lying + (upright - self._lying) * lifted
        pose[2] += CLEARANCE_M * (lifted - lowered)
        self._data.mocap_pos[self._mocap] = pose[:3]
        self._data.mocap_quat[self._mocap] = pose[3:] / np.linalg.norm(pose[3:])

    def _push(self, now_s: float) -> None:
        force = self._data.xfrc_applied[self._body, :2]
        if now_s >= self._push_s + PUSH_S:
            self._plan_push(self._push_s)
        force[:] = self._force if self._push_s <= now_s else 0.0

    def _plan_push(self, after_s: float) -> None:
        self._push_s = after_s + self._rng.uniform(*PUSH_INTERVAL_S)
        speed = self._rng.uniform(-self._push_m_s, self._push_m_s, 2)
        self._force = self._mass_kg * speed / PUSH_S


def _smooth(share: float) -> float:
    """From 0 to 1 without a jolt."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _heading(quaternion: Floats) -> Floats:
    """What is left of an orientation when it is upright: turned about the vertical alone."""
    turn = np.array([quaternion[0], 0.0, 0.0, quaternion[3]])
    length = np.linalg.norm(turn)
    return turn / length if length > 1e-6 else np.array([1.0, 0.0, 0.0, 0.0])
