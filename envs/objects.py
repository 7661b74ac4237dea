"""Things on a desk: a puck or a cube that is added to a robot's model, and seen in all worlds.

    model = with_object(robot, Thing(shape="puck"))
    puck = FreeObject(simulation)
    puck.position, puck.velocity                 # (num_envs, 3), in the base frame
    puck.put_down(state.qpos, worlds, xy, yaw)   # at rest on the desk, as tall as it is there

The thing's own friction and softness hold in all its contacts (priority), so that one number of the
randomization, `geom_friction` of `object`, is that between thing and desk, and thing and finger.
For a grasp the cone of friction is elliptic and `impratio` 10, as MuJoCo's documentation says
("Friction cones, impratio, and NoSlip"); NoSlip itself does not exist on a GPU.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import mujoco
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from deploy.configuration import Section
from deploy.errors import ConfigError
from envs.robot import Robot
from envs.rotation import to_matrix
from envs.simulation import Simulation
from envs.worlds import Worlds

OBJECT = "object"
"""Name of its body, joint and geom."""
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_NET_FORCE = 3  # how a contact sensor makes one of many: their sum, in the world frame

Edge = Annotated[float, Field(ge=0.005, le=0.5)]


class Thing(Section):
    """What lies on the desk."""

    shape: Literal["puck", "cube"]
    """A flat cylinder, or a box with a square base."""
    width_m: Edge
    """Diameter or edge."""
    height_m: Edge
    """From the desk to its top."""
    mass_kg: Annotated[float, Field(ge=1e-3, le=10)]
    """Its mass, evenly spread."""
    friction: Annotated[float, Field(ge=0.01, le=3)]
    """Coefficient of sliding friction, on the desk and between fingers."""


def with_object(robot: Robot, thing: Thing, *, fingers: Sequence[str] = ()) -> mujoco.MjModel:
    """The robot's model with a thing in front of it.

    Args:
        robot: a robot whose base stands fast.
        thing: the thing.
        fingers: bodies that hold it; a sensor `object/<body>` tells the force of each.

    Raises:
        ConfigError: the robot has no desk, nothing or no finger that could touch the thing, or a
            part with the thing's name.
    """
    robot.check(fixed_base=True)
    desk_height(robot.model)
    _check_room(robot, fingers)
    spec = robot.spec()
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = max(10.0, spec.option.impratio)
    half = thing.width_m / 2, thing.height_m / 2
    place = [0.0, 0.0, desk_height(robot.model) + half[1]]
    body = spec.worldbody.add_body(name=OBJECT, pos=place)
    body.add_freejoint(name=OBJECT)
    puck = thing.shape == "puck"
    body.add_geom(
        name=OBJECT,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER if puck else mujoco.mjtGeom.mjGEOM_BOX,
        size=[*half, 0.0] if puck else [half[0], *half],
        mass=thing.mass_kg,
        friction=[thing.friction, 0.005, 0.0001],
        condim=4,  # fingers hold it against turning, too
        solref=[0.01, 1.0],  # two physics steps: as hard as it may be
        contype=1,
        conaffinity=1,
        priority=2,
        rgba=[0.85, 0.2, 0.2, 1.0],
    )
    for finger in fingers:
        spec.add_sensor(
            name=f"{OBJECT}/{finger}",
            type=mujoco.mjtSensor.mjSENS_CONTACT,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            objname=finger,
            reftype=mujoco.mjtObj.mjOBJ_BODY,
            refname=OBJECT,
            intprm=[1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), _NET_FORCE, 1],
        )
    for key in spec.keys:
        key.qpos = [*key.qpos, *place, 1.0, 0.0, 0.0, 0.0]
    return spec.compile()


def desk_height(model: mujoco.MjModel) -> float:
    """Height of the highest horizontal plane [m].

    Raises:
        ConfigError: there is none.
    """
    if (height := plane_height(model)) is None:
        raise ConfigError(
            "the robot has no desk on which things can lie; add a plane to its worldbody with "
            "contype 1, or `floor: true` to its YAML"
        )
    return height


def plane_height(model: mujoco.MjModel) -> float | None:
    """Height of the highest horizontal plane [m]; None: there is none."""
    planes = (model.geom_type == _PLANE) & (model.geom_bodyid == 0) & (model.geom_contype & 1 > 0)
    return float(model.geom_pos[planes, 2].max()) if planes.any() else None


def touching_bodies(model: mujoco.MjModel) -> list[str]:
    """Names of the bodies that collide with a thing, apart from the desk."""
    touching = ((model.geom_contype | model.geom_conaffinity) & 1 > 0) & (model.geom_bodyid > 0)
    bodies = np.unique(model.geom_bodyid[touching]).tolist()
    return [name for index in bodies if (name := model.body(index).name) != OBJECT]


def _check_room(robot: Robot, fingers: Sequence[str]) -> None:
    model, kinds = robot.model, ("BODY", "JOINT", "GEOM")
    types = [int(getattr(mujoco.mjtObj, f"mjOBJ_{kind}")) for kind in kinds]
    if any(mujoco.mj_name2id(model, kind, OBJECT) >= 0 for kind in types):
        raise ConfigError(
            f"robot {robot.name!r} ({robot.path}) has a part named {OBJECT!r}, as the thing on the "
            "desk is; rename it"
        )
    found = touching_bodies(model)
    lacking = [finger for finger in fingers if finger not in found]
    if lacking or not found:
        raise ConfigError(
            f"robot {robot.name!r} ({robot.path}): no geom of {lacking or 'it'} touches things; "
            'give those that should conaffinity="1"'
        )


class FreeObject:
    """The thing in all worlds.

    Args:
        simulation: the worlds, of a model made by `with_object`.
    """

    def __init__(self, simulation: Simulation):
        model = simulation.model
        joint, self._geom = model.joint(OBJECT), model.geom(OBJECT).id
        start, dof = int(joint.qposadr[0]), int(joint.dofadr[0])
        self._place, self._turn = slice(start, start + 3), slice(start + 3, start + 7)
        self._qpos = simulation.data("qpos")
        self._velocity = simulation.data("qvel")[:, dof : dof + 3]
        self._size = simulation.field("geom_size")
        self._tall = 1 if model.geom(OBJECT).type[0] == int(mujoco.mjtGeom.mjGEOM_CYLINDER) else 2
        self.desk_m = desk_height(model)
        """Height of what it stands on [m]."""

    @property
    def position(self) -> Tensor:
        """(num_envs, 3) true position of its middle [m]."""
        return self._qpos[:, self._place].float()

    @property
    def velocity(self) -> Tensor:
        """(num_envs, 3) true velocity of its middle [m/s]."""
        return self._velocity.float()

    @property
    def upright(self) -> Tensor:
        """(num_envs,) cosine of the angle between its axis and the vertical."""
        return to_matrix(self._qpos[:, self._turn])[:, 2, 2].float()

    @property
    def lift(self) -> Tensor:
        """(num_envs,) how far its middle is above where it is when it stands on the desk [m]."""
        half = self._size[:, self._geom, self._tall]
        return (self._qpos[:, self._place][:, 2] - half - self.desk_m).float()

    def put_down(self, qpos: Tensor, worlds: Worlds, xy: Tensor, yaw: Tensor) -> None:
        """Stand it on the desk, in the states of some worlds.

        Args:
            qpos: (n, nq) is written.
            worlds: where.
            xy: (n, 2) [m].
            yaw: (n,) [rad].
        """
        half = worlds.take(self._size[:, self._geom, self._tall])
        qpos[:, self._place] = torch.cat([xy, (self.desk_m + half)[:, None]], dim=1).to(qpos)
        zero = torch.zeros_like(yaw)
        turn = torch.stack([(yaw / 2).cos(), zero, zero, (yaw / 2).sin()], dim=1)
        qpos[:, self._turn] = turn.to(qpos)


def outside(xy: Tensor, low: Sequence[float], high: Sequence[float], margin: float) -> Tensor:
    """(num_envs,) bool: points (num_envs, 2) farther than a margin from a box [m]."""
    ends = [(low[axis] - margin, high[axis] + margin) for axis in range(2)]
    return torch.stack(
        [(xy[:, axis] < a) | (xy[:, axis] > b) for axis, (a, b) in enumerate(ends)]
    ).any(dim=0)
