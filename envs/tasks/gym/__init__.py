"""Gymnasium's MuJoCo tasks, version 5, batched; see `envs.tasks.gym.gym_task`.

On mujoco_warp derived data is current, not a physics step behind as in Gymnasium: Pusher's
observation differs by that step. Ant, Humanoid and HumanoidStandup observe contact forces as MuJoCo
computes them, and are refused there.
"""

from envs.tasks.gym.gym_task import GymTask as GymTask
from envs.tasks.gym.humanoid import Humanoid, HumanoidStandup
from envs.tasks.gym.locomotion import Ant, HalfCheetah, Hopper, Swimmer, Walker2d
from envs.tasks.gym.manipulation import Pusher, Reacher
from envs.tasks.gym.pendulums import InvertedDoublePendulum, InvertedPendulum

GYM_TASKS: dict[str, type[GymTask]] = {
    f"gym/{task.__name__}-v5": task
    for task in (
        HalfCheetah,
        Hopper,
        Walker2d,
        Ant,
        Humanoid,
        HumanoidStandup,
        Swimmer,
        Reacher,
        Pusher,
        InvertedPendulum,
        InvertedDoublePendulum,
    )
}
