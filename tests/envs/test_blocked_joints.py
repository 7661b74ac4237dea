"""A joint that is blocked ends an episode where the governor would stop the robot."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.configuration import load_yaml
from deploy.errors import SafetyError
from deploy.governor import Governor
from deploy.robot_config import RobotConfig
from envs.blocked_joints import BlockedJoints
from envs.tasks.arm_object import ArmObject
from robotrl.shipped import config_path

STEP_RAD, PERIOD_S = 0.04, 0.02


@pytest.fixture(scope="module")
def governed() -> tuple[Governor, np.ndarray, np.ndarray]:
    """The governor of a desk arm, and gain and largest torque of its joints."""
    joints = envs.make("arm_push", num_envs=1, num_threads=1).deployment.joints
    robot = load_yaml(config_path("robots/desk_arm.yaml"), RobotConfig)
    gains, torques = ([getattr(joint, name) for joint in joints]
                      for name in ("kp_nm_per_rad", "effort_limit_nm"))  # fmt: skip
    return Governor(joints, PERIOD_S, robot), np.array(gains), np.array(torques)


def test_what_the_governor_stops_is_stopped_in_the_same_tick(
    governed: tuple[Governor, np.ndarray, np.ndarray],
):
    governor, gains, torques = governed
    rng, stops, count = np.random.default_rng(0), [], len(gains)
    fake = SimpleNamespace(
        angle=torch.zeros(1, count),
        target=torch.zeros(1, count),
        lead=lambda effort: torch.from_numpy(effort * torques / gains),
    )
    for _ in range(100):  # episodes in which some joint is blocked, now and then
        blocked = BlockedJoints(cast(Any, fake), step_rad=STEP_RAD, control_dt_s=PERIOD_S)
        governor._astray_ticks[:] = 0
        joint, share, farthest = rng.integers(count), rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.8)
        for tick in range(200):
            error = rng.uniform(-0.05, 0.05, count)
            error[joint] = farthest if rng.random() < share else 0.05
            duty = np.clip(gains * error / torques, -1, 1)
            fake.target[0] = torch.tensor(error)
            stopped = bool(blocked.update())
            try:
                governor.check_following(error, np.zeros(count), np.zeros(count), duty)
            except SafetyError:
                assert stopped
                stops.append(tick)
                break
            assert not stopped
    assert 20 < len(stops) < 80  # or nothing was compared
    assert len(set(stops)) > 10


def test_arm_that_presses_on_the_desk_with_all_it_has_fails():
    env = envs.make("arm_push", num_envs=2, num_threads=1, task_config={"episode_s": 30.0})
    env.reset()
    cast(ArmObject, env.task).decoder.lead = None
    task, action = cast(ArmObject, env.task), torch.zeros(2, env.num_actions)
    action[0, task.config.arm_joints.index("shoulder_lift")] = 1.0  # the second arm rests
    most_strain, done = 0.0, env.step(action, autoreset=False)
    for _ in range(150):
        if not done.terminated.any():
            done = env.step(action, autoreset=False)
            most_strain = max(most_strain, float(task.strain()[0]))
            assert task.strain()[1] < 0.01
    assert done.terminated.tolist() == [True, False]
    assert done.info.metrics["blocked"].tolist() == [1.0, 0.0]
    assert done.info.metrics["lost"].tolist() == [0.0, 0.0]
    assert done.info.measured[0]
    assert most_strain > 0.1


def test_joint_pushes_what_is_in_its_way_with_part_of_its_torque():
    task = cast(ArmObject, envs.make("arm_push", num_envs=1, num_threads=1).task)
    pan, lift, elbow, wrist, roll, gripper = cast(Tensor, task.decoder.lead).tolist()
    assert pan == pytest.approx(0.75 * 1.5 / 6.9057, rel=1e-4)  # N·m over N·m/rad
    assert lift == pytest.approx(0.9 * 1.5 / 10.3586, rel=1e-4)  # 0.130 rad; 3/4 are 0.109
    assert elbow == pytest.approx(0.9 * 0.52 / 4.4887, rel=1e-4)
    assert wrist == pytest.approx(0.75 * 0.52 / 2.3940, rel=1e-4)
    assert roll == gripper == pytest.approx(0.75 * 0.52 / 1.1970, rel=1e-4)


def test_gripper_holds_a_cube_with_a_part_of_its_torque_that_keeps_it_cool():
    task = cast(ArmObject, envs.make("arm_lift", num_envs=1, num_threads=1).task)
    *arm, gripper = cast(Tensor, task.decoder.lead).tolist()
    assert gripper == pytest.approx(0.5 * 0.52 / 1.1970, rel=1e-4)  # N·m over N·m/rad
    pushing = cast(ArmObject, envs.make("arm_push", num_envs=1, num_threads=1).task)
    assert arm == cast(Tensor, pushing.decoder.lead).tolist()[:-1]


def test_episode_begins_with_no_joint_blocked():
    env = envs.make("arm_push", num_envs=1, num_threads=1)
    env.reset()
    blocked = cast(ArmObject, env.task)._blocked_joints
    blocked._steps += 25

    env.reset()

    assert not blocked._steps.any()
