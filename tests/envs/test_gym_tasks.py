"""Gymnasium's MuJoCo tasks, batched: against Gymnasium's own environments, step by step."""

import copy
import inspect
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.mujoco import MujocoEnv

import envs
from deploy.errors import ConfigError
from envs.registry import GYM_TASKS

NUM_ENVS = 2
STEPS = 1000
"""One whole episode of the longest tasks."""
ROUNDING = 2.0**-24
"""Of a number to float32, relative; all else is computed in float64 as in Gymnasium."""

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")  # Gymnasium's XML is old

every_task = pytest.mark.parametrize("name", GYM_TASKS)


def gymnasium_env(name: str, **settings: Any) -> tuple[gymnasium.Env, MujocoEnv]:
    """Gymnasium's own environment of one of our tasks, with and without its time limit."""
    env = gymnasium.make(name.removeprefix("gym/"), **settings)
    assert isinstance(env.unwrapped, MujocoEnv)
    return env, env.unwrapped


def same_start(env: gymnasium.Env, state: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Start an episode of Gymnasium's environment in a state; returns the first observation."""
    env.reset(seed=0)
    inner: Any = env.unwrapped
    inner.set_state(*state)
    return inner._get_obs()


class Pair:
    """Our environment and, for each of its worlds, Gymnasium's, in the same states."""

    def __init__(self, name: str, **settings: Any):
        self.ours = envs.make(name, num_envs=NUM_ENVS, seed=3, task_config=settings, num_threads=2)
        self.theirs = [gymnasium_env(name, **settings)[0] for _ in range(NUM_ENVS)]
        self.ends = 0
        self._qpos, self._qvel = (
            self.ours._simulation.data(field).numpy() for field in ("qpos", "qvel")
        )
        first = self.ours.reset()["actor"].numpy()
        for world in range(NUM_ENVS):
            self._start(world, first)

    def step(self, action: torch.Tensor) -> None:
        """Make the same step in both, and compare everything."""
        controls = self.ours.task.decoder(action, {}).double().numpy()
        step = self.ours.step(action)
        terms = torch.stack(list(step.info.rewards.values())).double()
        for world, env in enumerate(self.theirs):
            observation, reward, terminated, truncated, _ = env.step(controls[world])
            assert_rounded(step.info.final_observation["actor"][world].numpy(), observation)
            # each term is rounded once, and once more when it is added
            scale = float(terms[:, world].abs().sum())
            assert abs(float(step.reward[world]) - float(reward)) <= 8 * ROUNDING * scale
            assert bool(step.terminated[world]) == terminated
            # Gymnasium may say both; ours says truncated only where the task did not fail
            assert bool(step.truncated[world]) == (truncated and not terminated)
            if terminated or truncated:
                self._start(world, step.observation["actor"].numpy())
                self.ends += 1
            else:
                data: Any = env.unwrapped
                assert np.array_equal(self._qpos[world], data.data.qpos)
                assert np.array_equal(self._qvel[world], data.data.qvel)

    def _start(self, world: int, first: np.ndarray) -> None:
        state = self._qpos[world], self._qvel[world]
        assert_rounded(first[world], same_start(self.theirs[world], state))


def assert_rounded(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Ours are theirs in float32; sine and cosine of torch and numpy may round another way."""
    np.testing.assert_allclose(ours, theirs, rtol=2 * ROUNDING, atol=0)


def random_actions(env: envs.VectorEnv, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(steps, env.num_envs, env.num_actions, generator=generator) - 1


@every_task
def test_every_step_is_gymnasiums_over_whole_episodes(name: str):
    pair = Pair(name)

    for action in random_actions(pair.ours, STEPS):
        pair.step(action)

    assert pair.ends >= NUM_ENVS


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gym/HalfCheetah-v5", {"forward_reward_weight": 2.0, "ctrl_cost_weight": 0.3}),
        ("gym/Hopper-v5", {"terminate_when_unhealthy": False, "healthy_reward": 3.0}),
        (
            "gym/Ant-v5",
            {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.1},
        ),
        # no contact force is computed any more
        ("gym/Ant-v5", {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}),
        # heavy enough that the contact cost reaches its limit
        (
            "gym/Humanoid-v5",
            {
                "contact_cost_weight": 1e-4,
                "terminate_when_unhealthy": False,
                "include_cfrc_ext_in_observation": False,
            },
        ),
        ("gym/HumanoidStandup-v5", {"impact_cost_weight": 1e-4, "ctrl_cost_weight": 0.5}),
        ("gym/Reacher-v5", {"reward_dist_weight": 2.0, "reward_control_weight": 0.5}),
        ("gym/Pusher-v5", {"reward_near_weight": 2.0, "reward_control_weight": 0.5}),
        ("gym/InvertedDoublePendulum-v5", {"healthy_reward": 3.0}),
    ],
)
def test_settings_mean_what_they_mean_in_gymnasium(name: str, settings: dict[str, Any]):
    pair = Pair(name, **settings)

    for action in random_actions(pair.ours, 200):
        pair.step(action)


@pytest.mark.parametrize(
    "name", ["gym/Hopper-v5", "gym/Walker2d-v5", "gym/Ant-v5", "gym/Humanoid-v5"]
)
def test_a_fall_is_what_gymnasium_calls_one(name: str):
    """Random walks leave most of these ranges through one end only."""
    count = 2000
    env = envs.make(name, num_envs=count)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    qpos, qvel = (env._simulation.data(field) for field in ("qpos", "qvel"))
    qpos[:, 1:4] += 1.5 * torch.randn(count, 3, generator=generator)
    qpos[: count // 2, 1:3] = torch.tensor([1.2, 0.05]).double()  # standing, for Hopper
    qvel.mul_(4e4 * torch.rand(count, 1, generator=generator))

    terminated = env.task.terminated()

    inner: Any = gymnasium_env(name)[1]
    for world in range(count):
        inner.set_state(qpos[world].numpy(), qvel[world].numpy())
        assert bool(terminated[world]) == (not inner.is_healthy), world
    assert 0.01 < terminated.float().mean() < 0.99


@every_task
def test_names_and_defaults_are_gymnasiums(name: str):
    task = GYM_TASKS[name]
    spec = gymnasium.spec(name.removeprefix("gym/"))
    _, inner = gymnasium_env(name)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(type(inner).__init__).parameters.items()
    }

    assert task.episode_steps == spec.max_episode_steps
    assert task.num_substeps == defaults["frame_skip"]
    assert task.model_file == defaults["xml_file"]
    settings = task.Config().model_dump()
    assert settings == {key: defaults[key] for key in settings}


@every_task
def test_initial_states_follow_gymnasiums_law(name: str):
    """Two-sample Kolmogorov-Smirnov; a true law fails once in 10⁴ numbers, and seeds are fixed."""
    samples = 500
    limit = np.sqrt(np.log(2e4) / samples)  # c √(2/n), c = √(ln(2/α)/2), α = 1e-4
    ours = envs.make(name, num_envs=samples, seed=1)
    ours.reset()
    states = np.concatenate(
        [ours._simulation.data(field).numpy() for field in ("qpos", "qvel")], axis=1
    )

    env, inner = gymnasium_env(name)
    env.reset(seed=2)
    theirs = []
    for _ in range(samples):
        env.reset()
        theirs.append(np.concatenate([inner.data.qpos, inner.data.qvel]))

    for column, (one, other) in enumerate(zip(states.T, np.array(theirs).T, strict=True)):
        points = np.concatenate([one, other])
        below_one, below_other = (
            np.searchsorted(np.sort(values), points, side="right") for values in (one, other)
        )
        assert np.abs(below_one - below_other).max() / samples < limit, column


def test_reacher_targets_fill_a_disc():
    """The share of a disc within a radius grows as its square."""
    samples = 500
    env = envs.make("gym/Reacher-v5", num_envs=samples)
    env.reset()

    x, y = env._simulation.data("qpos")[:, 2:].T.numpy()

    area = np.sort((x**2 + y**2) / 0.2**2)
    assert np.abs(area - np.arange(samples) / samples).max() < 2.2 / np.sqrt(samples)  # α = 1e-4
    assert max(x.max(), y.max()) > 0.15 and min(x.min(), y.min()) < -0.15


def test_a_pusher_starts_with_its_object_off_the_goal():
    env = envs.make("gym/Pusher-v5", num_envs=500)
    env.reset()

    distance = env._simulation.data("qpos")[:, 7:9].norm(dim=-1)

    assert distance.min() > 0.17


@every_task
def test_a_copy_continues_with_the_same_bits(name: str):
    env = envs.make(name, num_envs=NUM_ENVS, num_threads=1)
    env.reset()
    first, second = random_actions(env, 40).split(20)
    for action in first:
        env.step(action)

    other = copy.deepcopy(env)

    for action in second:
        one, two = env.step(action), other.step(action)
        assert torch.equal(one.observation["actor"], two.observation["actor"])
        assert torch.equal(one.reward, two.reward)
        assert torch.equal(one.terminated, two.terminated)


@every_task
def test_every_number_of_the_observation_has_a_name_of_its_own(name: str):
    columns = envs.make(name).columns["actor"]

    assert len(set(columns)) == len(columns)
    assert all("." in column and not column.endswith(".") for column in columns)


def test_columns_are_named_after_joints_and_bodies():
    columns = envs.make("gym/Ant-v5").columns["actor"]

    assert columns[:6] == [
        "position.root.z",
        "position.root.qw",
        "position.root.qx",
        "position.root.qy",
        "position.root.qz",
        "position.hip_1",
    ]
    assert columns[13] == "velocity.root.vx"
    assert columns[27] == "contact_force.torso.torque_x"
    assert columns[-1] == "contact_force.ankle_4.force_z"  # a body without a name


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"task gym/Ant-v5: reset_noise_scale: .*found 2"):
        envs.make("gym/Ant-v5", task_config={"reset_noise_scale": 2})
