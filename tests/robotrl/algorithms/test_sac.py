"""SAC: every rule against numbers worked by hand, and toys whose answer is known."""

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from envs.mirror import Mirror
from envs.vector_env import Step, StepInfo
from robotrl.algorithms.algorithm import TrainingError
from robotrl.algorithms.replay import Batch, Replay
from robotrl.algorithms.sac import SAC, SACConfig
from robotrl.export import export
from robotrl.runs.evaluate import evaluate_policy, evaluate_run
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train
from robotrl.runs.train_config import TrainConfig
from tests.robotrl.algorithms.test_networks import by_autograd


class Bandit:
    """Each step is an episode: see x in {-1, 1}, earn -scale · (action - x/2)²."""

    num_envs = 16

    def __init__(self, scale: float = 1.0):
        self._scale, self._generator = scale, torch.Generator().manual_seed(0)
        self.observation = self._draw()

    def step(self, action: Tensor) -> Step:
        reward = -self._scale * (action - self.observation["actor"] / 2).square().sum(dim=1)
        self.observation = self._draw()
        ends = torch.ones(self.num_envs, dtype=torch.bool)
        info = StepInfo(self.observation, {}, {}, ~ends)
        return Step(self.observation, reward, ends, ~ends, info)

    def _draw(self) -> dict[str, Tensor]:
        x = torch.randint(0, 2, (self.num_envs, 1), generator=self._generator) * 2.0 - 1
        return {"actor": x, "critic": x}


def make(*, seed: int = 0, mirror: Mirror | None = None, **settings: Any) -> SAC:
    small: dict[str, Any] = {
        "actor_hidden": [16],
        "critic_hidden": [16],
        "learning_rate": 3e-3,
        "batch_size": 64,
        "learning_starts": 64,
        "iteration_steps": 10,
    }
    config = SACConfig(**{**small, **settings})
    return SAC(config, {"actor": 1, "critic": 1}, 1, seed=seed, mirror=mirror)


def run(learner: SAC, env: Bandit, steps: int) -> dict[str, float]:
    """Act and learn; returns the last report."""
    losses = {}
    for _ in range(steps):
        losses = learner.learn(env.step(learner.act(env.observation))) or losses
    return losses


def batch(n: int = 4, **changes: Tensor) -> Batch:
    """Transitions with random numbers."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    seen, following = ({"actor": (x := normal(n, 1)), "critic": x} for _ in range(2))
    values = Batch(seen, torch.tanh(normal(n, 1)), normal(n), following, torch.full((n,), 0.9))
    return values._replace(**changes)


@pytest.mark.parametrize("backup_entropy", [True, False])
def test_target_is_the_lesser_value_and_the_entropy_if_it_counts(backup_entropy: bool):
    learner = make(backup_entropy=backup_entropy, initial_alpha=0.5)
    learner.target.forward = lambda x: torch.tensor([[3.0, -1.0], [1.0, 4.0]])[..., None]
    step = batch(2, reward=torch.tensor([10.0, 20.0]), discount=torch.tensor([0.9, 0.0]))

    targets = learner.targets(step, torch.zeros(2, 1), torch.tensor([2.0, -0.6]), None)

    # 10 + 0.9 · (min(3, 1) - 0.5 · 2) = 10, without entropy 10.9; the second has no future
    assert targets[:, 0].tolist() == pytest.approx([10.0 if backup_entropy else 10.9, 20.0])


def test_of_many_critics_a_random_pair_makes_the_target():
    learner = make(critics=4, backup_entropy=False)
    learner.target.forward = lambda x: torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    step = batch(1, reward=torch.zeros(1), discount=torch.ones(1))

    zeros = torch.zeros(1, 1), torch.zeros(1)
    found = [learner.targets(step, *zeros, learner._pair()).item() for _ in range(600)]

    # least of a pair of 4: 1 in 3 of 6 pairs, 2 in 2, 3 in 1, 4 never
    shares = [found.count(value) / 600 for value in (1.0, 2.0, 3.0, 4.0)]
    assert shares == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0], abs=0.07)


def test_target_entropy_is_that_of_a_gaussian_of_the_wanted_spread_for_each_action():
    one = SAC(SACConfig(target_std=0.2), {"actor": 1, "critic": 1}, 1, seed=0)
    three = SAC(SACConfig(target_std=0.2), {"actor": 1, "critic": 1}, 3, seed=0)

    gaussian = torch.distributions.Normal(0.0, 0.2).entropy().item()
    assert one.target_entropy == pytest.approx(gaussian)
    assert three.target_entropy == pytest.approx(3 * gaussian)
    usual = SAC(SACConfig(), {"actor": 1, "critic": 1}, 6, seed=0).target_entropy
    assert usual == pytest.approx(-3, rel=0.05)  # -1/2 for each action


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "settings",
    [{}, {"layer_norm": True}, {"critics": 3, "atoms": 5}],
    ids=["SAC", "LayerNorm", "many, C51"],
)
def test_machine_code_learns_what_python_learns(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    learners = [make(compile_after=after, **settings) for after in (None, 0)]
    for learner in learners:
        learner._updates = 1
        for _ in range(3):
            learner.update(batch(8))

    expected, found = (learner.state_dict() for learner in learners)
    for part in ("policy", "critic", "target"):
        for name, weight in expected[part].items():
            torch.testing.assert_close(found[part][name], weight, rtol=1e-4, atol=1e-5)
    assert not [each for each in caplog.records if each.name == "robotrl.algorithms.machine_code"]


def test_temperature_brings_the_policy_to_the_wanted_spread():
    env, learner = Bandit(scale=4.0), make(target_std=0.2, initial_alpha=0.1, learning_rate=1e-2)

    report = run(learner, env, 60)

    mean, log_std = learner.policy.gaussian(
        learner.policy.normalizer(torch.tensor([[-1.0], [1.0]]))
    )
    noise = torch.randn(2, 4000, 1, generator=torch.Generator().manual_seed(1))
    actions = torch.tanh(mean[:, None] + log_std.exp()[:, None] * noise)
    assert actions.std(dim=1).mean().item() == pytest.approx(0.2, rel=0.25)
    assert report["policy/entropy"] == pytest.approx(learner.target_entropy, abs=0.4)


def test_bandit_is_solved():
    env, learner = Bandit(scale=4.0), make(initial_alpha=0.1)

    run(learner, env, 80)

    action = learner.policy(torch.tensor([[-1.0], [1.0]]))
    torch.testing.assert_close(action, torch.tensor([[-0.5], [0.5]]), atol=0.1, rtol=0)


def assert_adam_went_down(
    before: list[Tensor], gradients: Sequence[Tensor], after: Iterable[Tensor]
) -> None:
    """By Adam's first step of 3e-3; where a gradient is tiny, ε and rounding decide."""
    for old, gradient, new in zip(before, gradients, after, strict=True):
        clear = gradient.abs() > 1e-5
        moved = 3e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(new[clear], (old - moved)[clear], rtol=1e-3, atol=1e-5)


def test_critics_learn_half_the_squared_error_and_targets_follow_slowly():
    learner = make(tau=0.25, gamma=0.0)
    parameters = list(learner.critic.parameters())
    before = [parameter.clone() for parameter in parameters]
    step = batch(8, discount=torch.zeros(8))
    inputs = torch.cat([step.observation["critic"], step.action], dim=1)
    error = by_autograd(learner.critic, inputs).squeeze(-1) - step.reward
    gradients = torch.autograd.grad(0.5 * error.square().mean(dim=1).sum(), parameters)

    learner.update(step)

    assert_adam_went_down(before, gradients, parameters)
    for old, new, slow in zip(before, parameters, learner.target.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.75 * old + 0.25 * new)


@pytest.mark.parametrize("equal", [False, True], ids=["critics differ", "critics are equal"])
def test_actor_goes_up_its_value_and_leaves_the_critics_alone(equal: bool):
    learner = make()
    if equal:  # the slope is that of one of them, not of both together
        for weight in learner.critic.parameters():
            weight.data[1] = weight.data[0]
    critics = [parameter.clone() for parameter in learner.critic.parameters()]
    noise = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    step, policy = batch(8), learner.policy
    mean, log_std = policy.gaussian(step.observation["actor"])
    std = log_std.exp()
    u = mean + std * noise
    gaussian = torch.distributions.Normal(mean, std)
    log_prob = (gaussian.log_prob(u) - torch.log1p(-torch.tanh(u).square())).sum(dim=1)
    inputs = torch.cat([step.observation["critic"], torch.tanh(u)], dim=1)
    values = by_autograd(learner.critic, inputs).squeeze(-1)
    loss = (1.0 * log_prob - values.amin(dim=0)).mean()
    gradients = torch.autograd.grad(loss, list(policy.parameters()))
    before = [parameter.clone() for parameter in policy.parameters()]

    _, gradient, _, found, _ = learner._gradients(step, torch.cat([torch.zeros(8, 1), noise]), None)
    learner._actor_step.step(gradient)

    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    assert_adam_went_down(before, gradients, policy.parameters())
    assert all(map(torch.equal, critics, learner.critic.parameters()))


@pytest.mark.parametrize("critics", [1, 2, 4])
@pytest.mark.parametrize("atoms", [1, 11])
@pytest.mark.parametrize("settings", [{}, {"layer_norm": True}, {"backup_entropy": False}])
def test_gradients_are_those_of_autograd(critics: int, atoms: int, settings: dict[str, Any]):
    """Equations 5, 7 and 9 of arXiv 1812.05905, for critics that see more than the actor."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    config = SACConfig(actor_hidden=[9, 6], critic_hidden=[8, 6], critics=critics, atoms=atoms,
                       initial_alpha=0.3, **settings)  # fmt: skip
    learner = SAC(config, {"actor": 3, "critic": 5}, 2, seed=1)
    actor, critic = learner.policy.network, learner.critic
    for network in (actor, critic, learner.target):
        for parameter in network.parameters():
            parameter.data.copy_(0.4 * normal(*parameter.shape))
    n, pair = 7, torch.tensor([2, 0]) if critics > 2 else torch.arange(critics)
    seen, following = ({"actor": normal(n, 3), "critic": normal(n, 5)} for _ in range(2))
    discount = torch.rand(n, generator=generator)
    step = Batch(seen, torch.tanh(normal(n, 2)), normal(n), following, discount)
    next_noise, new_noise = normal(n, 2), normal(n, 2)

    def drawn(observed: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """What critics see of new actions, and their log density."""
        mean, log_std = learner.policy.gaussian(observed["actor"])
        gaussian = torch.distributions.Normal(mean, log_std.exp())
        u = mean + log_std.exp() * noise
        action = torch.tanh(u)
        density = gaussian.log_prob(u) - torch.log1p(-action.square())
        return torch.cat([observed["critic"], action], dim=1), density.sum(dim=1)

    def value(outputs: Tensor) -> Tensor:
        if atoms == 1:
            return outputs.squeeze(-1)
        return outputs.softmax(dim=-1) @ torch.linspace(-20, 20, atoms)

    with torch.no_grad():
        x, log_prob = drawn(following, next_noise)
        asked = by_autograd(learner.target, x)[pair]
        least = asked[value(asked).argmin(dim=0), torch.arange(n)]
        entropy = 0.3 * log_prob if config.backup_entropy else torch.zeros(n)
        wanted = learner._head.target(least, step.reward - discount * entropy, discount)
    found = by_autograd(critic, torch.cat([seen["critic"], step.action], dim=1))
    if atoms == 1:
        loss = 0.5 * (found - wanted).square().sum(dim=(0, 2)).mean()
    else:
        loss = -(wanted * found.log_softmax(dim=-1)).sum(dim=(0, 2)).mean()
    of_critic = torch.autograd.grad(loss, list(critic.parameters()))
    x, log_prob = drawn(seen, new_noise)
    judged = value(by_autograd(critic, x))
    judged = judged.mean(dim=0) if critics > 2 else judged.amin(dim=0)
    actor_loss = (0.3 * log_prob - judged).mean()
    of_actor = torch.autograd.grad(actor_loss, list(actor.parameters()))

    with torch.no_grad():
        noise = torch.cat([next_noise, new_noise])
        *gradients, _, told, density = learner._gradients(
            step, noise, pair if critics > 2 else None
        )

    assert told.item() == pytest.approx(actor_loss.item(), abs=1e-5)
    assert density.item() == pytest.approx(log_prob.mean().item(), abs=1e-5)
    for gradient, expected in zip(gradients, (of_critic, of_actor), strict=True):
        expected = nn.utils.parameters_to_vector(expected)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("ratio", "updates"), [(1.0, 16 * 6), (0.25, 4 * 6), (1 / 32, 3)])
def test_updates_keep_their_ratio_to_steps_once_learning_has_started(
    ratio: float, updates: int, monkeypatch: pytest.MonkeyPatch
):
    env, learner, made = Bandit(), make(learning_starts=64, updates_per_step=ratio), []
    monkeypatch.setattr(learner, "update", lambda batch: made.append(batch) or torch.zeros(4))

    run(learner, env, 10)  # 160 steps: 4 · 16 before, 6 · 16 after

    assert len(made) == updates


def test_first_actions_are_uniform_and_later_ones_the_policys():
    env, learner = Bandit(), make(learning_starts=320)
    actions = []
    for _ in range(20):
        actions.append(learner.act(env.observation))
        learner.learn(env.step(actions[-1]))

    first = torch.cat(actions)
    # of 320 uniform numbers in [-1, 1]: mean 0 ± 0.032, mean square 1/3 ± 0.017
    assert abs(first.mean()) < 0.13
    assert first.square().mean() == pytest.approx(1 / 3, abs=0.07)
    assert learner.act(env.observation).abs().max() < 1


def test_half_of_a_batch_is_its_mirror_image():
    mirror = Mirror(-torch.eye(1), -torch.eye(1), -torch.eye(1))
    env, learner = Bandit(), make(symmetry=True, mirror=mirror, batch_size=400)
    run(learner, env, 4)

    drawn, plain = learner._sample(), make(batch_size=400)
    plain.load_state_dict(learner.state_dict())
    raw = plain.policy.normalizer.inverse(drawn.observation["actor"])

    # reward = -(a - x/2)², which the mirror image of a transition earns too
    expected = -(drawn.action - raw / 2).square().sum(dim=1)
    torch.testing.assert_close(drawn.reward, expected, rtol=1e-4, atol=1e-4)
    assert raw.abs().allclose(torch.ones(1), atol=1e-4)


@pytest.mark.parametrize(("log_prob", "direction"), [(3.0, 1), (-9.0, -1)])
def test_temperature_rises_where_the_entropy_is_below_its_target(log_prob: float, direction: int):
    learner = make(initial_alpha=0.5, learning_rate=0.01)  # target entropy -0.99

    learner._learn_alpha(torch.tensor(log_prob))

    # Adam's first step of log α is the learning rate, whatever α is
    assert math.log(learner.alpha) == pytest.approx(math.log(0.5) + direction * 0.01, abs=1e-6)


def test_what_is_remembered_is_raw_and_both_ends_are_normalised_alike():
    env, learner = Bandit(), make(batch_size=200)
    seen = [env.observation["actor"]]
    for _ in range(6):
        learner.learn(env.step(learner.act(env.observation)))
        seen.append(env.observation["actor"])
    drawn = learner._sample()

    values = torch.cat(seen[:-1])  # what was acted on
    mean, std = values.mean(), (values.var(correction=0) + 1e-6).sqrt()
    expected = ((torch.tensor([-1.0, 1.0]) - mean) / std).tolist()
    for observed in (drawn.observation, drawn.next_observation):
        found = sorted(set(observed["critic"].flatten().tolist()))
        assert found == pytest.approx(expected, rel=1e-4)


class Lock:
    """Each step is an episode: three numbers within 0.15 of x/2 earn 1, everything else nothing."""

    num_envs = 16

    def __init__(self):
        self._generator = torch.Generator().manual_seed(0)
        self.observation = self._draw()

    def step(self, action: Tensor) -> Step:
        miss = (action - self.observation["actor"] / 2).abs().amax(dim=1)
        self.observation = self._draw()
        ends = torch.ones(self.num_envs, dtype=torch.bool)
        info = StepInfo(self.observation, {}, {}, ~ends)
        return Step(self.observation, (miss < 0.15).float(), ends, ~ends, info)

    def _draw(self) -> dict[str, Tensor]:
        x = torch.randint(0, 2, (self.num_envs, 1), generator=self._generator) * 2.0 - 1
        return {"actor": x, "critic": x}


def shown_lock() -> Replay:
    """The key, ten times in every world."""
    env = Lock()
    replay = Replay(16 * 12, num_envs=16, sizes={"actor": 1, "critic": 1}, num_actions=3)
    replay.start(env.observation)
    for _ in range(10):
        action = (env.observation["actor"] / 2).expand(-1, 3)
        replay.add(action, env.step(action))
    return replay


def test_demonstrations_open_a_lock_that_chance_does_not():
    opened = []
    for shown in (shown_lock(), None):
        env = Lock()
        config = SACConfig(
            actor_hidden=[32],
            critic_hidden=[32],
            learning_rate=3e-3,
            learning_starts=64,
            batch_size=64,
            initial_alpha=0.01,
        )
        sizes = {"actor": 1, "critic": 1}
        learner = SAC(config, sizes, 3, seed=0, demonstrations=shown)
        for _ in range(40):
            learner.learn(env.step(learner.act(env.observation)))
        action = learner.policy(env.observation["actor"])
        opened.append(env.step(action).reward.mean().item())

    assert opened == [1.0, 0.0]


def test_half_of_a_batch_was_demonstrated():
    env = Lock()
    learner = SAC(
        SACConfig(batch_size=7), {"actor": 1, "critic": 1}, 3, seed=0, demonstrations=shown_lock()
    )
    learner.learn(env.step(learner.act(env.observation)))
    learner.learn(env.step(learner.act(env.observation)))

    drawn = learner._sample()

    assert drawn.reward.tolist() == [0, 0, 0, 0, 1, 1, 1]  # of 7 its own are 4


def test_bandit_is_solved_by_critics_that_learn_a_distribution():
    env, learner = Bandit(scale=4.0), make(initial_alpha=0.1, atoms=21, value_limit=10.0)

    run(learner, env, 80)

    action = learner.policy(torch.tensor([[-1.0], [1.0]]))
    torch.testing.assert_close(action, torch.tensor([[-0.5], [0.5]]), atol=0.15, rtol=0)


def test_same_seed_gives_the_same_bits_whatever_else_draws_random_numbers():
    finals = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        env, learner = Bandit(), make(seed=5)
        run(learner, env, 10)
        finals.append(nn.utils.parameters_to_vector(learner.policy.parameters()))

    assert torch.equal(*finals)


def test_reward_that_is_not_finite_is_refused():
    env, learner = Bandit(), make()
    step = env.step(learner.act(env.observation))
    step.reward[3] = math.nan

    with pytest.raises(TrainingError, match=r"^the reward is nan$"):
        learner.learn(step)


def test_run_with_sac_is_evaluated_and_exported_like_any_other(
    tiny_config: TrainConfig, tmp_path: Path
):
    algorithm = SACConfig(
        iteration_steps=4, learning_starts=40, batch_size=16, actor_hidden=[16], critic_hidden=[16]
    )
    folder = RunFolder(tmp_path / "run")
    config = tiny_config.model_copy(update={"algorithm": algorithm})
    folder.create(config)
    train(config, folder)

    result = evaluate_run(folder, episodes=4)
    export(folder, tmp_path / "policy.onnx", result)  # checked against torch on golden vectors

    assert math.isfinite(result["reward_per_step"])
    assert evaluate_policy(tmp_path / "policy.onnx", episodes=1)
