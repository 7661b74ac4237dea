"""A memory: the same numbers as torch's own GRU, forgotten where an episode ends, and of use."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy.controller import OnnxController
from deploy.errors import ConfigError
from envs.vector_env import Step
from robotrl.algorithms.policy import Agent
from robotrl.algorithms.ppo import PPO, PPOConfig
from robotrl.algorithms.recurrent import gru, unroll
from robotrl.controller import Controller
from robotrl.export import export, random_signals
from robotrl.play.session import open_session
from robotrl.runs.continuing import take_over
from robotrl.runs.evaluate import evaluate_policy, evaluate_run, load_policy
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_env, train
from robotrl.runs.train_config import TrainConfig
from tests.robotrl.algorithms.test_ppo import (
    MIRROR,
    ToyEnv,
    Walk,
    answer,
    collect,
    iterate,
    symmetric,
    weights,
)
from tests.robotrl.algorithms.test_ppo import make as plain
from tests.robotrl.lively import lively
from tests.robotrl.play.test_session import path_of

T, B, INPUTS, UNITS = 7, 4, 3, 5


class Sequence:
    """Inputs in float64, and episodes that begin now and then, also twice in a row."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.cell = gru(INPUTS, UNITS).double()
        for parameter in self.cell.parameters():
            parameter.data = normal(*parameter.shape) / 2
        self.x, self.memory = normal(T, B, INPUTS), normal(B, UNITS)
        self.fresh = torch.rand(T, B, generator=generator) < 0.2
        self.fresh[0, 0] = self.fresh[2, 1] = self.fresh[3, 1] = True

    def by_torch(self) -> Tensor:
        """`torch.nn.GRU` on each episode by itself."""
        reference = nn.GRU(INPUTS, UNITS).double()
        for name, parameter in self.cell.named_parameters():
            setattr(reference, f"{name}_l0", parameter)
        worlds = []
        for world in range(B):
            starts = [0, *self.fresh[:, world].nonzero().flatten().tolist(), T]
            memory, parts = self.memory[None, world], []
            for start, end in itertools.pairwise(starts):
                if self.fresh[start : start + 1, world].any():
                    memory = torch.zeros_like(memory)
                if end > start:
                    parts.append(reference(self.x[start:end, world], memory)[0])
            worlds.append(torch.cat(parts))
        return torch.stack(worlds, dim=1)


def test_unrolled_memory_is_that_of_torch_on_each_episode():
    sequence = Sequence()

    found = unroll(sequence.cell, sequence.x, sequence.memory, sequence.fresh)

    assert 4 < sequence.fresh.sum() < 14  # of 28
    torch.testing.assert_close(found, sequence.by_torch(), rtol=0, atol=1e-14)


def test_slopes_through_time_are_those_of_finite_differences_and_of_torch():
    sequence = Sequence()
    parameters = list(sequence.cell.parameters())
    inputs = [sequence.x.requires_grad_(), sequence.memory.requires_grad_(), *parameters]

    def function(x: Tensor, memory: Tensor, *_: Tensor) -> Tensor:
        return unroll(sequence.cell, x, memory, sequence.fresh)

    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, rtol=1e-6, atol=1e-8)

    of_memories = torch.randn(T, B, UNITS, dtype=torch.float64)
    found = torch.autograd.grad(function(*inputs), inputs, of_memories)
    expected = torch.autograd.grad(sequence.by_torch(), inputs, of_memories)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


class Ending(Walk):
    """`Walk`, but a third of the worlds ends in each step: half terminated, half truncated."""

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        chance = torch.rand(self.num_envs, generator=self._generator)
        final = {name: rows + 1 for name, rows in step.observation.items()}
        return Step(
            step.observation,
            step.reward,
            chance < 1 / 6,
            (chance > 1 / 6) & (chance < 1 / 3),
            step.info._replace(final_observation=final),
        )


def make(**settings: Any) -> PPO:
    """A learner with a memory of six units."""
    settings = {"actor_hidden": [16], "critic_hidden": [16], "recurrent": 6} | settings
    return PPO(PPOConfig(**settings), {"actor": 2, "critic": 3}, 2, seed=0, mirror=MIRROR)


@pytest.mark.parametrize("symmetry", [False, True])
def test_what_was_acted_on_is_what_is_learned_from(symmetry: bool, monkeypatch: pytest.MonkeyPatch):
    """The unrolled policy is the one that acted, tick by tick, over ends and several rollouts."""
    env = Ending(num_envs=24)
    settings: dict[str, Any] = {"rollout_steps": 5, "minibatches": 3, "symmetry": symmetry}
    learner = make(learning_rate=1e-12, **settings)  # only the statistics change
    observation = env.observation
    state: dict[str, Tensor] = {"memory": torch.zeros(24, 6)}
    of_images = dict(state)
    for _ in range(3):
        expected: list[tuple[Tensor, Tensor]] = []
        policy = copy.deepcopy(learner.policy)
        for _ in range(5):
            with torch.no_grad():
                action, state = policy.step(observation["actor"], state)
                image, of_images = policy.step(observation["actor"] @ MIRROR.actor, of_images)
            expected.append((action, image))
            step = env.step(learner.act(observation))
            ended = (step.terminated | step.truncated)[:, None]
            state, of_images = (
                {"memory": each["memory"].masked_fill(ended, 0)} for each in (state, of_images)
            )
            learner.store(step)
            observation = step.observation
        rollout = learner.rollout()
        of_worlds = torch.stack([action for action, _ in expected])
        torch.testing.assert_close(rollout.mean.tanh(), of_worlds)

        means: list[Tensor] = []
        look = learner._means

        def watched(*args: Tensor, look: Any = look, means: list[Tensor] = means) -> Tensor:
            mean = look(*args)
            means.append(mean.detach().clone())
            return mean

        monkeypatch.setattr(learner, "_means", watched)
        losses = learner.update(rollout)
        assert losses["policy/clip_fraction"] == losses["policy/kl"] == 0

        found = torch.stack(means[:3]).view(3, 5, 8, 2).transpose(1, 2).flatten(0, 1).tanh()
        sides = torch.stack([torch.stack(side, dim=1) for side in zip(*expected, strict=True)])
        apart = (found[:, None, None] - sides).abs().amax(dim=(3, 4))  # (24, 2 sides, 24)
        assert (apart.amin(dim=(1, 2)) < 1e-5).all()  # each is one world, all its ticks in order
        best = apart.flatten(1).argmin(dim=1)
        assert sorted((best % 24).tolist()) == list(range(24))
        mirrored = int((best >= 24).sum())
        assert (3 < mirrored < 21) if symmetry else mirrored == 0


def test_critic_of_an_image_sees_what_the_image_remembers():
    env = Ending(num_envs=200)
    learner = make(rollout_steps=3, symmetry=True)
    iterate(learner, env)  # the second rollout begins with a memory
    rollout, _ = collect(learner, env, env.observation)
    memory = rollout.memory
    assert memory is not None
    before, after = (part.transpose(1, 2) for part in memory.unbind(dim=1))  # (T, B, sides, 6)
    batch = {
        "actor": rollout.actor.flatten(0, 1),
        "critic": rollout.critic.flatten(0, 1),
        "pre_tanh": rollout.pre_tanh.flatten(0, 1),
        "past": torch.cat([torch.zeros(3, 200, 1), before[:, :, 0]], dim=-1).flatten(0, 1),
    }

    found = learner._with_mirror_images(batch, rollout)

    mirrored = (found["pre_tanh"] != batch["pre_tanh"]).any(dim=1).view(3, 200)
    assert torch.equal(mirrored, mirrored[:1].expand(3, 200))  # whole worlds
    side = mirrored.long()[..., None, None].expand(3, 200, 1, 6)
    assert torch.equal(found["critic"][:, 3:].view(3, 200, 6), after.gather(2, side)[:, :, 0])
    assert torch.equal(found["past"][:, 1:].view(3, 200, 6), before.gather(2, side)[:, :, 0])
    assert not torch.equal(after[:, :, 0], after[:, :, 1])


class Timed(Walk):
    """`Walk`, where all worlds run out of time in every third step, last seen at (5, 6)."""

    steps = 0

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        self.steps += 1
        over = torch.full((self.num_envs,), self.steps % 3 == 0)
        final = {
            name: torch.where(over[:, None], torch.tensor([5.0, 6.0, 7.0])[: rows.shape[1]], rows)
            for name, rows in step.observation.items()
        }
        info = step.info._replace(final_observation=final)
        return step._replace(truncated=over, info=info)


def test_bootstrap_remembers_the_episode_until_its_last_observation():
    """The critic is the sum of the memory; every next value is worked out from the definition."""
    env = Timed(num_envs=4)
    learner = make(rollout_steps=4, gamma=0.9, gae_lambda=0.0, critic_hidden=[])
    with torch.no_grad():
        for parameter in learner.critic.parameters():
            parameter.zero_()
        learner.critic[0].get_parameter("weight")[0, 3:] = 1.0
    first = env.observation

    rollout, following = collect(learner, env, first)

    # Episodes: observations 0, 1, 2, then the one where time is up; then observation 3 and on.
    see = learner.policy.normalizer
    cell, zero, x = learner.policy.cell, torch.zeros(4, 6), rollout.raw["actor"]
    assert cell is not None
    with torch.no_grad():
        h = [cell(see(x[0]), zero)]
        for tick in (1, 2):
            h.append(cell(see(x[tick]), h[-1]))
        at_the_end = cell(see(torch.tensor([[5.0, 6.0]]).expand(4, 2)), h[2])
        h.append(cell(see(x[3]), zero))  # begins anew
        at_last = cell(see(following["actor"]), h[3])
    values = torch.stack(h).sum(dim=-1)
    next_values = torch.stack([h[1], h[2], at_the_end, at_last]).sum(dim=-1)
    reward = torch.tanh(rollout.pre_tanh).sum(dim=-1)
    torch.testing.assert_close(rollout.values, values)
    torch.testing.assert_close(rollout.advantages, reward + 0.9 * next_values - values)


@pytest.mark.parametrize("minibatches", [3, 100])
def test_minibatches_are_whole_worlds(minibatches: int):
    learner = make(rollout_steps=4, epochs=2, minibatches=minibatches)

    parts = list(learner._minibatches(4 * 10))

    assert len(parts) == 2 * min(minibatches, 10)
    for epoch in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
        assert torch.cat(epoch).sort().values.tolist() == list(range(40))
        for part in epoch:  # row = tick · 10 + world
            ticks = part.view(4, -1)
            assert torch.equal(ticks // 10, torch.arange(4)[:, None].expand_as(ticks))
            assert torch.equal(ticks % 10, ticks[:1].expand_as(ticks))


def test_restored_learner_remembers():
    env = Ending(num_envs=8)
    learner, restored = make(rollout_steps=4), make(rollout_steps=4, epochs=5)
    observation = env.observation
    for each in (learner, restored):
        _, observation = collect(each, env, observation)
    restored.load_state_dict(copy.deepcopy(learner.state_dict()))
    forgetful = make(rollout_steps=4)
    forgetful.load_state_dict(copy.deepcopy(learner.state_dict() | {"memory": None}))

    actions = [each.act(observation) for each in (learner, restored, forgetful)]

    assert torch.equal(actions[0], actions[1])
    assert not torch.equal(actions[0], actions[2])


@pytest.mark.parametrize(
    ("symmetry", "of_policy", "of_critic"),
    [(False, -2.078415, 0.206819), (True, -2.440917, 0.006683)],
)
def test_learner_without_a_memory_learns_what_it_did_before_there_were_any(
    symmetry: bool, of_policy: float, of_critic: float
):
    """Sums of weights after two updates at commit 16ca6b7, where the code knew of no memory."""
    learner = symmetric(rollout_steps=4) if symmetry else plain(Walk(8), rollout_steps=4)

    iterate(learner, Walk(num_envs=8), 2)

    assert weights(learner.policy).sum().item() == pytest.approx(of_policy, abs=1e-4)
    assert weights(learner.critic).sum().item() == pytest.approx(of_critic, abs=1e-4)


def test_agent_forgets_in_the_worlds_that_are_told():
    policy = make().policy
    nn.init.orthogonal_(policy.network[2].get_parameter("weight"))  # it does something
    agent, fresh = Agent(policy, 2), Agent(policy, 2)
    first, second = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))

    agent.act(first)
    agent.forget(torch.tensor([False, True]))
    later, new = agent.act(second), fresh.act(second)

    assert torch.equal(later[1], new[1])
    assert (later[0] - new[0]).abs().max() > 1e-3
    with pytest.raises(RuntimeError, match="has a memory"):
        policy(first)


class Cue:
    """An episode of eleven steps: see -1 or 1 in the first, then a clock; in the last step earn
    -(action - half of that)², in the others nothing."""

    num_envs, length = 64, 11

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._begin()
        self.observation = self._observe()

    def step(self, action: Tensor) -> Step:
        self._tick += 1
        last = torch.full((self.num_envs,), self._tick == self.length)
        reward = torch.where(last, -(action[:, 0] - 0.5 * self._cue).square(), 0.0)
        if self._tick == self.length:
            self._begin()
        self.observation = self._observe()
        return answer(self.observation, reward, last, torch.zeros_like(last))

    def _begin(self) -> None:
        self._tick = 0
        self._cue = torch.randint(0, 2, (self.num_envs,), generator=self._generator) * 2.0 - 1

    def _observe(self) -> dict[str, Tensor]:
        clock = torch.full((self.num_envs,), self._tick / 10)
        seen = torch.stack([self._cue if self._tick == 0 else 0 * clock, clock], dim=1)
        return {"actor": seen, "critic": seen.clone()}


def error_of(iterations: int, **settings: Any) -> float:
    """Mean squared error in the last step of a learner that was trained on `Cue`."""
    env: ToyEnv = Cue()
    common: dict[str, Any] = {"rollout_steps": 22, "gamma": 1.0, "entropy_coef": 0.0}
    config = PPOConfig(
        actor_hidden=[32],
        critic_hidden=[32],
        learning_rate=3e-3,
        minibatches=2,
        **common,
        **settings,
    )
    learner = PPO(config, {"actor": 2, "critic": 2}, 1, seed=0)
    iterate(learner, env, iterations)
    agent, env = Agent(learner.policy, Cue.num_envs), Cue()
    rewards = [env.step(agent.act(env.observation["actor"])).reward for _ in range(Cue.length)]
    return -float(rewards[-1].mean())


def test_what_was_seen_ten_steps_ago_is_answered_with_a_memory_and_only_with_one():
    # without one the best is to say 0 always, an error of 0.5² = 0.25
    assert error_of(40, recurrent=16) < 0.02
    assert error_of(40, recurrent=None) == pytest.approx(0.25, abs=0.05)


@pytest.fixture(scope="module")
def run(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run with a memory of eight units, whose policy moves the arm and never rests."""
    algorithm = PPOConfig(rollout_steps=4, actor_hidden=[16], critic_hidden=[16], recurrent=8)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    config = tiny_config.model_copy(update={"algorithm": algorithm})
    folder.create(config)
    train(config, folder)
    return lively(folder)


@pytest.fixture(scope="module")
def path(run: RunFolder) -> Path:
    """The file exported from `run`."""
    path = run.path / "policy.onnx"
    contract = export(run, path, {})
    assert [(spec.name, spec.shape) for spec in contract.state][-1] == ("memory", [1, 8])
    return path


def test_onnxruntime_remembers_what_torch_remembers(run: RunFolder, path: Path):
    onnx_controller = OnnxController(path)
    env = make_env(run.config(), num_envs=1, num_threads=1)
    controller = Controller(env.task, load_policy(run.config(), env, run.load_checkpoint()))
    signals = random_signals(onnx_controller.contract, 200, 1, seed=3)
    (found,) = onnx_controller.outputs.values()
    state, errors, moved, forgotten = [], [], [], []
    for tick in range(200):
        if tick in (0, 30, 31, 120):
            onnx_controller.reset()
            state = controller.initial_state(1)
        for name, array in onnx_controller.inputs.items():
            array[:] = signals[name][tick, 0].numpy()
        inputs = [signals[name][tick] for name in controller.signals]
        onnx_controller.step()
        with torch.no_grad():
            blank = controller(*inputs, *state[:-1], torch.zeros_like(state[-1]))[0]
            expected, *state = controller(*inputs, *state)

        errors.append(np.abs(found - expected[0].numpy()).max())
        moved.append(expected[0])
        forgotten.append((expected - blank).abs().max())

    assert np.max(errors) <= 1e-5  # rad
    assert torch.stack(moved).std(dim=0)[:5].min() > 0.02
    assert torch.stack(forgotten).median() > 1e-4  # what it remembers matters


def test_run_and_file_with_a_memory_are_equally_good(run: RunFolder, path: Path):
    # Both start in the same world; a tenth of a millimetre is what rounding does in 30 ticks.
    of_run, of_file = evaluate_run(run, episodes=1), evaluate_policy(path, episodes=1)
    of_torch, of_onnx = (path_of(open_session(str(each), seed=4), 40) for each in (run.path, path))

    name = "reach_error_m/median"
    assert of_file[name] == pytest.approx(of_run[name], abs=1e-4)
    np.testing.assert_allclose(of_onnx, of_torch, atol=1e-3)  # over an end, after 30 steps


def test_memory_is_taken_over_by_a_run_that_starts_from_another(run: RunFolder):
    config = run.config()
    env = make_env(config, num_envs=1, num_threads=1)
    checkpoint = run.load_checkpoint()

    def learner(algorithm: Any) -> Any:
        return algorithm.learner(env.observation_sizes, env.num_actions, seed=1)

    tuned = learner(config.algorithm)
    take_over(tuned, checkpoint, run.path)
    assert torch.equal(
        tuned.policy.cell.weight_hh, checkpoint["algorithm"]["policy"]["cell.weight_hh"]
    )

    with pytest.raises(ConfigError, match=r"policy\.cell\.weight_ih is \(24, \d+\) there and miss"):
        take_over(learner(config.algorithm.model_copy(update={"recurrent": None})),
                  checkpoint, run.path)  # fmt: skip
