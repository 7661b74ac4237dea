"""Left and right exchanged, held against MuJoCo: what is mirrored once stays mirrored."""

from pathlib import Path

import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.mirror import Mirror, clock_mirror, joint_mirror
from envs.robot import load_robot
from envs.simulation import State
from envs.tasks.velocity import Velocity
from envs.worlds import every

CRAWLER = str(Path(__file__).parent / "models" / "crawler.xml")
CRAWLER_FEET = {
    "front_left_foot": 0.0,
    "rear_right_foot": 0.0,
    "front_right_foot": 0.5,
    "rear_left_foot": 0.5,
}
CONFIGS = {
    "crawler": {
        "robot": CRAWLER,
        "gait": {"feet": CRAWLER_FEET, "period_s": 0.48},
        "history": 3,
    },  # its IMU is turned every way
    "microduck": {"robot": "microduck", "gait": {"period_s": 0.48}},
}
STEPS = {"crawler": 15, "microduck": 5}
TOLERANCE = {"crawler": 1e-3, "microduck": 0.1}
"""[rad/s]; a tenth of it [m, rad]. The duck's neck is off the middle by a few millimetres."""
BASE = torch.tensor([1.0, -1, 1, 1, -1, 1, -1])
"""Signs of x, y, z and of a quaternion wxyz in the mirror y = 0."""
BASE_SPEED = torch.tensor([1.0, -1, 1, -1, 1, -1])


def pair(name: str, seed: int) -> tuple[envs.VectorEnv, Mirror]:
    """Two worlds, the second the mirror image of the first; and the maps."""
    env = envs.make("velocity", num_envs=2, num_threads=1, seed=seed, task_config=CONFIGS[name])
    env.reset()
    task, simulation = env.task, env.simulation
    assert isinstance(task, Velocity)
    robot = env.deployment.robot
    mirror = task.mirror.action.double()
    qpos, qvel = (simulation.data(field)[:1].clone() for field in ("qpos", "qvel"))
    generator = torch.Generator().manual_seed(seed)
    qpos[:, robot.qpos] += 0.1 * torch.randn(1, len(robot.joints), generator=generator).double()
    quat = torch.tensor([1.0, 0.02, 0.05, 0.3]) + 0.02 * torch.randn(4, generator=generator)
    qpos[:, 3:7] = quat / quat.norm()
    qpos[:, 1], qpos[:, 2] = 0.1, qpos[:, 2] + 0.01
    qvel.copy_(0.3 * torch.randn(qvel.shape, generator=generator))
    image_qpos, image_qvel = qpos.clone(), qvel.clone()
    image_qpos[:, :7] *= BASE
    image_qvel[:, :6] *= BASE_SPEED
    image_qpos[:, robot.qpos] = qpos[:, robot.qpos] @ mirror.T
    image_qvel[:, robot.dofs] = qvel[:, robot.dofs] @ mirror.T
    ctrl = torch.zeros(2, robot.model.nu, dtype=torch.float64)
    ctrl[:, robot.actuators] = torch.cat([qpos, image_qpos])[:, robot.qpos]
    state = State(torch.cat([qpos, image_qpos]), torch.cat([qvel, image_qvel]), ctrl)
    simulation.reset(every(2), state)
    env._targets.copy_(ctrl[:, robot.actuators])
    env._encoder_state = task.encoder.initial_state(2)
    task._command.value.copy_(torch.tensor([[0.2, 0.1, -0.5], [0.2, -0.1, 0.5]]))
    task._command._goal.fill_(torch.inf)
    task._command._drawn.remaining.fill_(1000)
    # Half a stride apart: the left foot of one is the right of the other.
    task._ticks.copy_(torch.tensor([7, 7 + 12]))
    return env, task.mirror


@pytest.mark.parametrize("name", CONFIGS)
def test_mirrored_state_under_mirrored_actions_stays_mirrored(name: str):
    env, mirror = pair(name, seed=1)
    action_map, robot, simulation = mirror.action, env.deployment.robot, env.simulation
    generator = torch.Generator().manual_seed(2)
    touched = False

    for _ in range(STEPS[name]):
        action = 0.3 * torch.randn(1, env.num_actions, generator=generator)
        step = env.step(torch.cat([action, action @ action_map.T]), autoreset=False)

        qpos = simulation.data("qpos").float()
        assert qpos[1, :7] == pytest.approx(qpos[0, :7] * BASE, abs=0.1 * TOLERANCE[name])
        image = qpos[0, robot.qpos] @ action_map.T
        assert qpos[1, robot.qpos] == pytest.approx(image, abs=0.1 * TOLERANCE[name])
        for group, map_ in (("actor", mirror.actor), ("critic", mirror.critic)):
            seen = step.observation[group]
            assert seen[1] == pytest.approx(seen[0] @ map_.T, abs=TOLERANCE[name])
        assert isinstance(env.task, Velocity)
        touched |= bool((env.task.motion.foot_height < 0.001).any())
    assert touched


def test_mirrored_twice_is_as_before():
    for name in CONFIGS:
        for map_ in pair(name, seed=3)[1]:
            assert torch.allclose(map_ @ map_, torch.eye(len(map_)), atol=1e-5)


def test_left_and_right_joints_of_the_microduck_change_places_with_the_published_signs():
    robot = load_robot("microduck")
    matrix = joint_mirror(robot, robot.model.body("trunk").id)

    # "right legs take opposite signs" (of pitch joints); hip yaw and roll turn about the same axes
    # on both sides, so the mirror changes their sign too. Neck and head pitch stay as they are.
    rows = dict(zip(robot.joints, matrix, strict=True))
    image = {name: robot.joints[int(row.abs().argmax())] for name, row in rows.items()}
    sign = {name: int(row.sum()) for name, row in rows.items()}
    for joint in ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle"):
        assert image[f"left_{joint}"] == f"right_{joint}"
        assert sign[f"left_{joint}"] == sign[f"right_{joint}"] == -1
    assert [image[name] for name in robot.joints if "left" not in name and "right" not in name] == [
        "neck_pitch", "head_pitch", "head_yaw", "head_roll"
    ]  # fmt: skip
    assert [sign[name] for name in ("neck_pitch", "head_pitch", "head_yaw", "head_roll")] == [
        1, 1, -1, -1
    ]  # fmt: skip


def test_robot_with_an_arm_on_one_side_has_no_mirror_image(tmp_path: Path):
    text = Path(CRAWLER).read_text()
    path = tmp_path / "lame.xml"
    path.write_text(
        text.replace(
            'name="rear_left_thigh" pos="-0.08 0.06 0"', 'name="rear_left_thigh" pos="-0.06 0.06 0"'
        )
    )
    robot = load_robot(str(path))

    with pytest.raises(ConfigError) as error:
        joint_mirror(robot, robot.model.body("trunk").id)

    assert str(error.value) == (
        "robot 'lame' is not its own mirror image: no joint is the image of 'rear_right_hip' at "
        "y = 0 of the base. Train without algorithm.symmetry"
    )


def test_mirror_of_a_trot_is_half_a_stride_later_and_of_a_bound_at_once():
    feet = torch.tensor([[0.0, 1], [1, 0]]).kron(torch.eye(2))  # front and rear left, then right
    trot, bound = torch.tensor([0.0, 0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.0, 0.5])

    assert torch.allclose(clock_mirror(trot, feet), -torch.eye(2), atol=1e-6)
    assert torch.allclose(clock_mirror(bound, feet), torch.eye(2), atol=1e-6)


def test_gait_that_is_not_its_own_mirror_image_is_refused():
    feet = torch.tensor([[0.0, 1], [1, 0]])
    with pytest.raises(ConfigError, match=r"the gait's offsets .* are not their own mirror image"):
        clock_mirror(torch.tensor([0.0, 0.3]), feet)
