"""Robots that fell: a pool of states for episodes to start from, made by plain simulation.

    states = fallen_states("microduck", seed=0, count=256, settle_s=1.5)      # State, (count, ...)

Each robot is dropped from just above the floor, turned any way at random, its servos holding random
angles, and lies for a while. So every start is one that physics allows: nothing is sunk into the
floor, servos sag under what lies on them. A few still roll when their time is up.
"""

import functools
import math

import torch
from torch import Tensor

from envs.batch_simulation import BatchSimulation
from envs.draws import Draws, Stream
from envs.robot import load_robot
from envs.simulation import State
from envs.tasks.settings import count_steps
from envs.walking.legs import free_base
from envs.worlds import every

_ABOVE_M = 0.01


@functools.lru_cache(maxsize=8)
def fallen_states(name: str, *, seed: int, count: int, settle_s: float) -> State:
    """States (count, ...) of a robot of position servos on a free base; not to be written to.

    Args:
        name: of the robot, or its path.
        seed: of orientations and angles.
        count: how many; fewer come back if the physics of some diverged.
        settle_s: time from the drop to the state.
    """
    robot = load_robot(name)
    model = robot.model
    simulation = BatchSimulation(model, count)
    worlds, draws = every(count), Draws(seed, simulation.device)
    streams = [Stream("fallen_turn", 3), Stream("fallen_pose", len(robot.joints))]
    turn, pose = draws.uniform(streams, worlds.ids, torch.zeros_like(worlds.ids))
    low, high = map(torch.from_numpy, robot.target_range(0.0))
    angles = low + (high - low) * pose
    base = int(model.jnt_qposadr[model.body_jntadr[free_base(robot)]])
    qpos = torch.from_numpy(robot.home_qpos).repeat(count, 1)
    qpos[:, torch.from_numpy(robot.qpos)] = angles
    qpos[:, base + 3 : base + 7] = any_orientation(turn.double())
    ctrl = torch.zeros(count, model.nu, dtype=torch.float64)
    ctrl[:, torch.from_numpy(robot.actuators)] = angles
    still = torch.zeros(count, model.nv, dtype=torch.float64)
    simulation.reset(worlds, State(qpos, still, ctrl))
    own = torch.from_numpy(model.geom_bodyid > 0)
    bottom = simulation.data("geom_xpos")[:, own, 2] - torch.from_numpy(model.geom_rbound)[own]
    qpos[:, base + 2] += _ABOVE_M - bottom.amin(dim=1)
    simulation.reset(worlds, State(qpos, still, ctrl))
    kept = ~simulation.step(count_steps(settle_s, model.opt.timestep))
    found = (simulation.data("qpos"), simulation.data("qvel"), ctrl)
    return State(*(table[kept].clone() for table in found))


def any_orientation(uniform: Tensor) -> Tensor:
    """Numbers (..., 3) in [0, 1) -> quaternions (..., 4), uniform over all rotations.

    Shoemake, "Uniform random rotations", Graphics Gems III (1992).
    """
    split, first, second = uniform.unbind(-1)
    one, other = (1 - split).sqrt(), split.sqrt()
    first, second = 2 * math.pi * first, 2 * math.pi * second
    return torch.stack(
        [other * second.cos(), one * first.sin(), one * first.cos(), other * second.sin()], dim=-1
    )
