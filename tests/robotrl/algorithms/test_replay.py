"""The replay buffer: what comes out of it, worked by hand and against a plain list."""

import resource
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.vector_env import Step, StepInfo
from robotrl.algorithms.replay import Batch, Replay


def make(size: int, num_envs: int = 1) -> Replay:
    """Observations of one number for the actor, and it and its negative for the critic."""
    return Replay(size, num_envs=num_envs, sizes={"actor": 1, "critic": 2}, num_actions=1)


def observe(values: Tensor) -> dict[str, Tensor]:
    return {"actor": values[:, None], "critic": torch.stack([values, -values], dim=1)}


def answer(
    observation: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, final: Tensor
) -> Step:
    """A step, all arguments (num_envs,)."""
    info = StepInfo(observe(final), {}, {}, torch.zeros_like(terminated))
    return Step(observe(observation), reward, terminated, truncated, info)


def take(replay: Replay, *, n_step: int, gamma: float = 0.5, size: int = 500) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return replay.sample(size, n_step=n_step, gamma=gamma, generator=generator)


def story(ended: str) -> Replay:
    """Observations 10, 20, 30 with rewards 1, 2, 4; an episode ends at 99; then 40 and reward 8."""
    replay = make(100)
    replay.start(observe(torch.tensor([10.0])))
    yes, no = torch.tensor([True]), torch.tensor([False])
    for following, reward in ((20.0, 1.0), (30.0, 2.0), (40.0, 4.0), (50.0, 8.0)):
        ends = reward == 4
        replay.add(
            torch.tensor([[reward / 10]]),
            answer(
                torch.tensor([following]),
                torch.tensor([reward]),
                yes if ends and ended == "terminated" else no,
                yes if ends and ended == "truncated" else no,
                torch.tensor([99.0 if ends else following]),
            ),
        )
    return replay


@pytest.mark.parametrize(
    ("n_step", "expected"),
    [
        # observation -> reward, next observation, discount; γ = 0.5
        (1, {10: (1, 20, 0.5), 20: (2, 30, 0.5), 30: (4, 99, 0.5), 40: (8, 50, 0.5)}),
        (2, {10: (2, 30, 0.25), 20: (4, 99, 0.25), 30: (4, 99, 0.5), 40: (8, 50, 0.5)}),
        # 10: 1 + 2/2 + 4/4 = 3 and three steps; the others end earlier, or nothing more is known
        (5, {10: (3, 99, 0.125), 20: (4, 99, 0.25), 30: (4, 99, 0.5), 40: (8, 50, 0.5)}),
    ],
)
@pytest.mark.parametrize("ended", ["truncated", "terminated"])
def test_rewards_add_up_to_the_end_of_the_episode_and_only_a_truncated_one_has_a_future(
    n_step: int, expected: dict[int, tuple[float, float, float]], ended: str
):
    batch = take(story(ended), n_step=n_step)

    seen = set()
    for row, start in enumerate(batch.observation["actor"][:, 0].tolist()):
        reward, following, discount = expected[int(start)]
        if following == 99 and ended == "terminated":
            discount = 0
        seen.add(start)
        assert batch.reward[row] == pytest.approx(reward)
        assert batch.next_observation["critic"][row].tolist() == [following, -following]
        assert batch.discount[row] == pytest.approx(discount)
    assert seen == set(expected)


@dataclass
class Known:
    """One transition of the plain list."""

    observation: float
    reward: float
    terminated: float
    ended: float
    following: float


def test_full_ring_gives_what_a_plain_list_of_the_latest_steps_gives():
    generator = torch.Generator().manual_seed(1)
    worlds, rows, steps = 3, 8, 60
    replay, known = make(rows * worlds, worlds), [[] for _ in range(worlds)]
    now = torch.rand(worlds, generator=generator)
    replay.start(observe(now))
    for _ in range(steps):
        reward, following, final = torch.rand(3, worlds, generator=generator)
        chance = torch.rand(worlds, generator=generator)
        terminated, truncated = chance < 0.2, (chance >= 0.2) & (chance < 0.4)
        final = torch.where(terminated | truncated, final, following)
        replay.add(now[:, None], answer(following, reward, terminated, truncated, final))
        for world in range(worlds):
            values = (now, reward, terminated, terminated | truncated, final)
            known[world].append(Known(*(value[world].item() for value in values)))
        now = following
    assert len(replay) == (rows - 1) * worlds

    batch = take(replay, n_step=3, gamma=0.9, size=2000)

    latest = {
        one.observation: (series[-(rows - 1) :], place)
        for series in known
        for place, one in enumerate(series[-(rows - 1) :])
    }
    counts = dict.fromkeys(latest, 0)
    for row in range(2000):
        start = batch.observation["actor"][row].item()
        series, place = latest[start]
        counts[start] += 1
        made = [series[place]]
        while len(made) < 3 and not made[-1].ended and place + len(made) < len(series):
            made.append(series[place + len(made)])
        reward = sum(0.9**k * one.reward for k, one in enumerate(made))
        discount = 0 if made[-1].terminated else 0.9 ** len(made)
        assert batch.action[row].item() == start
        assert batch.reward[row].item() == pytest.approx(reward, rel=1e-5)
        assert batch.next_observation["actor"][row].item() == made[-1].following
        assert batch.discount[row].item() == pytest.approx(discount, rel=1e-5)
    # 2000 draws of 21: 95 each, with a standard deviation of 9.5
    assert all(95 - 45 < count < 95 + 45 for count in counts.values())


def test_side_table_keeps_no_more_than_the_ends_that_are_remembered():
    replay, here = make(8 * 4, num_envs=4), torch.zeros(4)
    replay.start(observe(here))
    everywhere = torch.ones(4, dtype=torch.bool)
    for _ in range(500):
        replay.add(here[:, None], answer(here, here, everywhere, ~everywhere, here))

    assert len(replay.state_dict()["finals"]["actor"]) <= 64  # 28 are needed, 2000 there were


@pytest.mark.parametrize("steps", [3, 40])
def test_restored_buffer_goes_on_with_the_same_bits(steps: int):
    replay, restored = make(20, 2), make(20, 2)
    generator = torch.Generator().manual_seed(0)

    def add(*targets: Replay) -> None:
        values = torch.rand(3, 2, generator=generator)
        ends = values[0] < 0.3
        for each in targets:
            each.add(values[:1].T, answer(values[0], values[1], ends, ends & False, values[2]))

    replay.start(observe(torch.zeros(2)))
    for _ in range(steps):
        add(replay)
    restored.load_state_dict(replay.state_dict())
    for _ in range(5):
        add(replay, restored)

    one, other = take(replay, n_step=2), take(restored, n_step=2)
    for name in ("observation", "next_observation"):
        assert torch.equal(getattr(one, name)["critic"], getattr(other, name)["critic"])
    for name in ("action", "reward", "discount"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_buffer_without_room_for_every_world_is_refused():
    with pytest.raises(ConfigError) as error:
        make(10, num_envs=4)

    assert str(error.value) == (
        "algorithm.buffer_size: room for 10 steps of 4 worlds is 2 of each; expected 3 or more: "
        "raise it, or lower num_envs"
    )


def test_memory_is_taken_as_it_fills():
    def resident_bytes() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    before = resident_bytes()
    replay = Replay(4_000_000, num_envs=4, sizes={"actor": 60}, num_actions=5)

    assert resident_bytes() - before < 0.5e9  # of 1.1 GB, once it is full
    assert len(replay) == 0


def test_replay_that_no_memory_holds_is_refused():
    with pytest.raises(ConfigError, match=r"algorithm.buffer_size: .*has memory for; lower it"):
        Replay(10**9, num_envs=4, sizes={"actor": 10**6}, num_actions=5)
