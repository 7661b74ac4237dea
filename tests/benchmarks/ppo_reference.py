"""Returns of Stable-Baselines3's PPO with the settings that Tianshou publishes for its own.

    python tests/benchmarks/ppo_reference.py Ant-v5 --seed 10     # ten minutes of one core

Says what those settings reach on today's tasks by code that is neither theirs nor ours: Tianshou's
numbers are of v2 and v3. From Tianshou's `examples/mujoco/mujoco_ppo.py`: 64 worlds, updates every
2048 steps, 10 epochs of minibatches of 64, a rate that falls to 0, no normalised advantages;
advantages are not computed anew for each epoch, as theirs are. Prints the return without noise over
10 episodes, every 100,000 steps.
"""

import argparse

import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

WORLDS, UPDATE, INTERVAL = 64, 2048, 100_000


class Report(BaseCallback):
    """Evaluates in a world of its own, with the statistics learned so far."""

    def __init__(self, task: str, seed: int):
        super().__init__()
        single = DummyVecEnv([lambda: Monitor(gymnasium.make(task))])
        self._test = VecNormalize(single, training=False, norm_reward=False)
        self._test.seed(seed + 1000)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.num_timesteps % INTERVAL >= UPDATE:
            return
        learned = self.model.get_vec_normalize_env()
        assert learned is not None
        self._test.obs_rms = learned.obs_rms
        mean, _ = evaluate_policy(self.model, self._test, n_eval_episodes=10)
        print(f"{self.num_timesteps:>9,} steps  return {mean:.4g}", flush=True)


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worlds = DummyVecEnv([lambda: Monitor(gymnasium.make(arguments.task))] * WORLDS)
    ppo = PPO(
        "MlpPolicy",
        VecNormalize(worlds, clip_reward=float("inf")),
        n_steps=UPDATE // WORLDS,
        batch_size=64,
        n_epochs=10,
        learning_rate=lambda left: 3e-4 * left,
        vf_coef=0.25,
        normalize_advantage=False,
        policy_kwargs={
            "net_arch": {"pi": [64, 64], "vf": [64, 64]},
            "activation_fn": nn.Tanh,
            "log_std_init": -0.5,
        },
        seed=arguments.seed,
        device="cpu",
    )
    ppo.learn(arguments.steps, callback=Report(arguments.task, arguments.seed))


if __name__ == "__main__":
    main()
