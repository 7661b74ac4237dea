"""How a robot on legs moves: its base, and its feet against the ground, at z = 0 or uneven.

    legs = Legs(simulation, robot, ["left_foot", "right_foot"])
    motion = legs.read(worlds)           # velocities, heights, all from the current state

A foot is a geom. Its height is that of its lowest point, in closed form for every shape that
MuJoCo has one for, so nothing has to look for contacts. Over uneven ground it is that of the lowest
of its corners, edge and face middles over the ground under each, and the base's height is that over
the ground under the feet. The heading frame is the world's, turned about z to where the base's x
axis points.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import mujoco
import numpy as np
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.robot import Robot
from envs.simulation import Simulation
from envs.tasks.settings import require_names
from envs.terrain import Ground
from envs.worlds import Worlds

_OFF_GROUND_M = 0.01
"""How far the feet of the home pose may be off the ground."""
_GEOM = mujoco.mjtGeom


class Motion(NamedTuple):
    """State of the base and of each foot; float32."""

    velocity: Tensor
    """(n, 3) of the base's origin, heading frame [m/s]."""
    spin: Tensor
    """(n, 3) angular velocity, base frame [rad/s]."""
    up: Tensor
    """(n, 3) the world's z axis, base frame."""
    heading: Tensor
    """(n, 2) cosine and sine of the yaw."""
    height: Tensor
    """(n,) of the base's origin over the ground [m]."""
    foot_height: Tensor
    """(n, feet) of its lowest point over the ground [m]."""
    foot_velocity: Tensor
    """(n, feet, 3) of its centre, heading frame [m/s]."""
    foot_side: Tensor
    """(n, feet) how far it is to the left of the base, heading frame [m]."""
    foot_level: Tensor
    """(n, feet) cosine of its tilt from the home pose, whatever its yaw."""

    @property
    def twist(self) -> Tensor:
        """(n, 3) speed forward, to the left [m/s] and turning about the vertical [rad/s]."""
        yaw_rate = (self.up * self.spin).sum(-1, keepdim=True)
        return torch.cat([self.velocity[:, :2], yaw_rate], dim=-1)


class Legs:
    """See the module docstring.

    Args:
        simulation: the worlds.
        robot: on a free base; x forward, y to the left, z up.
        feet: names of its geoms that touch the ground.
        ground: uneven ground; None: z = 0.
        key: setting that names them, for errors.

    Raises:
        ConfigError: the base is fixed, a foot is no geom or has no closed form, or the feet of the
            home pose are not on the ground.
    """

    def __init__(
        self,
        simulation: Simulation,
        robot: Robot,
        feet: Sequence[str],
        ground: Ground | None = None,
        *,
        key: str = "feet",
    ):
        model, device = simulation.model, simulation.device
        self.base = free_base(robot)
        geoms = [name for index in range(model.ngeom) if (name := model.geom(index).name)]
        require_names(key, feet, geoms, f"geom of {robot.name}")
        ids = [model.geom(name).id for name in feet]
        shapes = [_shape(model, robot, geom) for geom in ids]
        self._straight, self._rounded, self._radius = (
            torch.tensor(np.array(part), dtype=torch.float32, device=device)
            for part in zip(*shapes, strict=True)
        )
        self.qpos_at, self.dof_at = (
            int(model.jnt_qposadr[model.body_jntadr[self.base]]),
            int(model.jnt_dofadr[model.body_jntadr[self.base]]),
        )
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._xmat = simulation.data("xmat")[:, self.base]
        self._com = simulation.data("subtree_com")[:, int(model.body_rootid[self.base])]
        self._cvel = simulation.data("cvel")
        self._geom_xpos, self._geom_xmat = (
            simulation.data("geom_xpos"),
            simulation.data("geom_xmat"),
        )
        self._geoms = torch.tensor(ids, device=device)
        self._bodies = torch.from_numpy(model.geom_bodyid[ids].astype(np.int64)).to(device)
        self._ground = ground
        self._corners = _corners(self._straight)
        self._set_home(robot, feet, device)
        lowest = float(self.home_foot_height.min())
        if abs(lowest) > _OFF_GROUND_M:
            raise ConfigError(
                f"the lowest foot of the home pose of {robot.name!r} is {1000 * lowest:.1f} mm "
                f"over the ground (z = 0); expected it within {1000 * _OFF_GROUND_M:.0f} mm. "
                f"Correct the height of the base in the keyframe `home`, or what `{key}` names"
            )

    def read(self, worlds: Worlds) -> Motion:
        """Base and feet of some worlds now."""
        qpos, qvel, xmat, com, cvel, xpos, geom_xmat = (
            worlds.take(table)
            for table in (
                *(self._qpos, self._qvel, self._xmat, self._com),
                *(self._cvel, self._geom_xpos, self._geom_xmat),
            )
        )
        matrix = xmat.float().view(-1, 3, 3)
        heading = matrix[:, :2, 0]
        heading = heading / torch.linalg.vector_norm(heading, dim=-1, keepdim=True).clamp(min=1e-6)
        velocity = qvel[:, self.dof_at : self.dof_at + 3].float()
        base = qpos[:, self.qpos_at : self.qpos_at + 3]
        foot = xpos.index_select(1, self._geoms)
        motion = cvel.index_select(
            1, self._bodies
        ).float()  # of the point of the body that is at `com`
        arm = (foot - com[:, None]).float()
        foot_velocity = motion[..., 3:] + torch.linalg.cross(motion[..., :3], arm)
        foot_matrix = geom_xmat.index_select(1, self._geoms).float().unflatten(-1, (3, 3))
        foot_up = foot_matrix[:, :, 2]
        height = base[:, 2].float()
        foot_height = foot[..., 2].float() - self._reach_down(foot_up)
        if self._ground is not None:
            height = height - self._ground.support(foot[..., :2]).mean(dim=-1)
            foot_height = self._over(self._ground, foot, foot_matrix)
        return Motion(
            velocity=_turn_back(velocity, heading),
            spin=qvel[:, self.dof_at + 3 : self.dof_at + 6].float(),
            up=matrix[:, 2],
            heading=heading,
            height=height,
            foot_height=foot_height,
            foot_velocity=_turn_back(foot_velocity, heading[:, None]),
            foot_side=_turn_back((foot - base[:, None]).float(), heading[:, None])[..., 1],
            foot_level=(foot_up * self._home_foot_up).sum(-1),
        )

    def _reach_down(self, up: Tensor) -> Tensor:
        return reach(up, self._straight, self._rounded, self._radius)

    def _over(self, ground: Ground, foot: Tensor, matrix: Tensor) -> Tensor:
        """(n, feet) height over uneven ground of the lowest of each foot's points.

        Args:
            ground: it.
            foot: (n, feet, 3) centres.
            matrix: (n, feet, 3, 3) of their frames.
        """
        points = torch.einsum("nfij,fpj->nfpi", matrix, self._corners)
        places = foot[:, :, None, :2] + points[..., :2]
        over = points[..., 2] - (ground.height(places) - foot[:, :, None, 2].float())
        round_part = reach(matrix[:, :, 2], 0 * self._straight, self._rounded, self._radius)
        return over.amin(dim=-1) - round_part

    def _set_home(self, robot: Robot, feet: Sequence[str], device: torch.device) -> None:
        model, data = robot.model, mujoco.MjData(robot.model)
        ids = [model.geom(name).id for name in feet]
        data.qpos[:] = robot.home_qpos
        mujoco.mj_kinematics(model, data)
        up = torch.from_numpy(data.geom_xmat[ids].reshape(-1, 3, 3)[:, 2]).float().to(device)
        self._home_foot_up = up
        centre = torch.from_numpy(data.geom_xpos[ids]).float().to(device)
        self.home_foot_height = centre[:, 2] - self._reach_down(up)
        self.home_foot_side = centre[:, 1] - float(data.xpos[self.base, 1])
        self.home_height = float(data.xpos[self.base, 2])


def free_base(robot: Robot) -> int:
    """Id of the body that carries the joints.

    Raises:
        ConfigError: it does not move freely.
    """
    model = robot.model
    base = int(model.body_rootid[model.jnt_bodyid[model.dof_jntid[robot.dofs[0]]]])
    joint = int(model.body_jntadr[base])
    if joint < 0 or model.jnt_type[joint] != int(mujoco.mjtJoint.mjJNT_FREE):
        raise ConfigError(
            f"robot {robot.name!r} ({robot.path}) cannot walk: its base, body "
            f"{model.body(base).name!r}, is fixed. Give that body a <freejoint/>"
        )
    return base


def home_height(robot: Robot) -> float:
    """Of the base's origin over z = 0 in the home pose [m]."""
    return float(
        robot.home_qpos[robot.model.jnt_qposadr[robot.model.body_jntadr[free_base(robot)]] + 2]
    )


def reach(direction: Tensor, straight: Tensor, rounded: Tensor, radius: Tensor) -> Tensor:
    """How far a shape reaches from its centre in a direction (..., 3) of its own frame.

    The support function of a box (half sizes `straight`) and an ellipsoid (radii `rounded`), both
    (..., 3), and a ball (`radius`, (...)), each added to the other: every primitive is such a sum.
    """
    ellipsoid = torch.linalg.vector_norm(direction * rounded, dim=-1)
    return (direction.abs() * straight).sum(-1) + ellipsoid + radius


def _shape(
    model: mujoco.MjModel, robot: Robot, geom: int
) -> tuple[list[float], list[float], float]:
    """`straight`, `rounded` and `radius` of `reach` for a geom."""
    a, b, c = model.geom_size[geom].tolist()
    kind = _GEOM(model.geom_type[geom])
    none = [0.0, 0.0, 0.0]
    shapes = {
        _GEOM.mjGEOM_SPHERE: (none, none, a),
        _GEOM.mjGEOM_CAPSULE: ([0.0, 0.0, b], none, a),
        _GEOM.mjGEOM_CYLINDER: ([0.0, 0.0, b], [a, a, 0.0], 0.0),
        _GEOM.mjGEOM_BOX: ([a, b, c], none, 0.0),
        _GEOM.mjGEOM_ELLIPSOID: (none, [a, b, c], 0.0),
    }
    if kind not in shapes:
        raise ConfigError(
            f"feet: geom {model.geom(geom).name!r} of {robot.name!r} is a "
            f"{kind.name.removeprefix('mjGEOM_').lower()}; a foot must be a sphere, capsule, "
            "cylinder, box or ellipsoid. Add one to the foot, and name that"
        )
    return shapes[kind]


def _corners(straight: Tensor) -> Tensor:
    """(feet, points, 3) corners, edge and face middles of boxes with half sizes (feet, 3)."""
    signs = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3)), device=straight.device)
    return (signs * straight[:, None]).unique(dim=1)


def _turn_back(vector: Tensor, heading: Tensor) -> Tensor:
    """Vectors (..., 3) of the world, seen from the heading (..., 2)."""
    x, y, z = vector.unbind(-1)
    cos, sin = heading.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=-1)
