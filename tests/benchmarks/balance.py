"""A run of the task `balance` beside an LQR that knows the robot's equations, on the same worlds.

    python -m tests.benchmarks.balance runs/balance --worlds 64

Both see the same noisy signals of the same randomized worlds (other draws than in training, every
term at its full range) and send wheel speeds at 100 Hz. The LQR (`tests/envs/robots/test_balancer`)
is that of the linearised closed form of the nominal robot, its weights the best of eight tried at
speeds that change sign; it holds the place that its speed command, ramped at 2 m/s², integrates to,
with what the servo lacks in speed fed forward, and turns by a P law.

`follow`: random commands for 8 s, no pushes; errors count from 1 s after each command. `push`: the
base is pushed once along x while told to stand; survived if the tilt stays below 0.36 rad, where a
bumper touches. `rest`: from leaning on the bumper; up if tilted by less than 0.1 rad after 3 s.
"""

import argparse
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.randomization import at_full_range
from envs.randomization.physics.pushes import PushTerm
from envs.tasks.balance import Balance
from envs.vector_env import VectorEnv
from robotrl.algorithms.policy import Agent
from robotrl.runs.evaluate import load_policy
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env
from tests.envs.robots.test_balancer import RADIUS, ROBOT, SERVO, TRACK, equations, lqr

PUSHES_M_S = (0.2, 0.4, 0.6, 0.8)
BUMPER_RAD, UP_RAD = 0.36, 0.1
RAMP_M_S2 = 2.0
STAND = {"low": [0.0] * 3, "high": [0.0] * 3, "interval_s": [1000, 1000]}


class Pilot(Protocol):
    """What sends the wheels' targets."""

    def __call__(self, observation: Tensor, signals: dict[str, Tensor]) -> Tensor:
        """Observations and signals (n, ...) -> targets (n, 2) [rad/s]."""
        ...


class Lqr:
    """See the module docstring.

    Args:
        dt: period [s].
        top: largest target [rad/s].
    """

    def __init__(self, dt: float, top: float):
        kv = float(ROBOT.model.actuator_gainprm[0, 0])
        lost = float(ROBOT.model.actuator_damping[0]) + SERVO.friction.viscous
        a, torque = equations(2 * (kv + lost))
        gain = lqr(a, torque * 2 * kv, weights=[2.0, 1.0, 5.0, 0.1], dt=dt)
        self._gain = torch.from_numpy(gain).float()
        self._ahead = 1 + lost / kv  # a wheel turns slower than it is told
        self._dt, self._top = dt, top
        self._goal: Tensor | None = None
        self._speed = torch.zeros(())

    def __call__(self, observation: Tensor, signals: dict[str, Tensor]) -> Tensor:
        """See `Pilot`."""
        gravity, gyro = signals["projected_gravity"], signals["imu_angular_velocity"]
        pitch = torch.atan2(gravity[:, 0], -gravity[:, 2])
        place = RADIUS * (signals["joint_position"].mean(dim=1) + pitch)
        speed = RADIUS * (signals["joint_velocity"].mean(dim=1) + gyro[:, 1])
        forward, turning = signals["command"].unbind(-1)
        if self._goal is None:
            self._goal = place.clone()
        step = RAMP_M_S2 * self._dt
        asked = self._speed = self._speed + (forward - self._speed).clamp(-step, step)
        self._goal += asked * self._dt
        error = torch.stack([place - self._goal, pitch, speed - asked, gyro[:, 1]], dim=-1)
        both = -error @ self._gain + self._ahead * asked / RADIUS
        turn = turning + 0.5 * (turning - gyro[:, 2])
        apart = self._ahead * turn * TRACK / 2 / RADIUS
        return torch.stack([both - apart, both + apart], dim=-1).clamp(-self._top, self._top)


class Bench:
    """A run, its policy and its worlds.

    Args:
        folder: the run.
        worlds: how many of them.
    """

    def __init__(self, folder: RunFolder, worlds: int):
        self._config, self._worlds = folder.config(), worlds
        self._checkpoint = folder.load_checkpoint()
        self._terms = [t for t in at_full_range(self._config.terms) if not isinstance(t, PushTerm)]

    def start(self, pilot: str, **task: object) -> tuple[VectorEnv, Balance, Pilot, Tensor]:
        """The same worlds for either pilot, at their start."""
        env = make_test_env(
            self._config,
            num_envs=self._worlds,
            seed=self._config.seed + 1_000_003,
            randomization=self._terms,
            task_config=self._config.task_config | task,
            num_threads=1,
        )
        if not isinstance(env.task, Balance):
            raise ConfigError(f"a run of {self._config.task}; this compares runs of balance")
        decode, top = env.task.decoder, env.task.config.max_wheel_speed_rad_s
        agent = Agent(load_policy(self._config, env, self._checkpoint), self._worlds)
        fly: Pilot = Lqr(env.task.control_dt_s, top)
        if pilot == "policy":
            fly = lambda observation, signals: decode(agent.act(observation), signals)  # noqa: E731
        return env, env.task, fly, env.reset()["actor"]

    @torch.no_grad()
    def follow(self, pilot: str) -> tuple[float, float, float, float]:
        """Rms error of speed [m/s] and turning [rad/s], rms tilt [rad], share that fell."""
        env, task, fly, seen = self.start(pilot, episode_s=8.0, rest_share=0.0, start_tilt_rad=0.0)
        age, before = torch.zeros(self._worlds), task.command.clone()
        alive = torch.ones(self._worlds, dtype=torch.bool)
        sums = torch.zeros(4)
        for _ in range(task.episode_steps - 1):
            step = env.step_targets(fly(seen, env.signals), autoreset=False)
            seen, motion = step.observation["actor"], task.motion
            alive &= ~step.terminated
            same = (task.command == before).all(dim=-1)
            age, before = torch.where(same, age + 1, 0), task.command.clone()
            counts = alive & (age > 1 / task.control_dt_s)
            error = (motion.twist[:, ::2] - task.command).square()
            rows = torch.cat([torch.ones_like(error[:, :1]), error, _tilt(task)[:, None] ** 2], 1)
            sums += (rows * counts[:, None]).sum(dim=0)
        speed, turning, tilt = (sums[1:] / sums[0]).sqrt().tolist()
        return speed, turning, tilt, float((~alive).float().mean())

    @torch.no_grad()
    def push(self, pilot: str, size: float) -> float:
        """Share of worlds that survive a push [m/s], of either sign."""
        env, task, fly, seen = self.start(
            pilot, episode_s=9.0, rest_share=0.0, start_tilt_rad=0.0, command=STAND
        )
        alive = torch.ones(self._worlds, dtype=torch.bool)
        for tick in range(500):
            if tick == 200:
                sign = torch.arange(self._worlds) % 2 * 2.0 - 1
                env.simulation.data("qvel")[:, :2] += size * sign[:, None] * task.motion.heading
            seen = env.step_targets(fly(seen, env.signals), autoreset=False).observation["actor"]
            alive &= _tilt(task) < BUMPER_RAD
        return float(alive.float().mean())

    @torch.no_grad()
    def rest(self, pilot: str) -> float:
        """Share of worlds that are up 3 s after they lay on the bumper."""
        env, task, fly, seen = self.start(pilot, episode_s=9.0, rest_share=1.0, command=STAND)
        for _ in range(300):
            seen = env.step_targets(fly(seen, env.signals), autoreset=False).observation["actor"]
        return float((_tilt(task) < UP_RAD).float().mean())


def _tilt(task: Balance) -> Tensor:
    return torch.acos(task.motion.up[:, 2].clamp(-1, 1))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--worlds", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(RunFolder(arguments.run), arguments.worlds)
    pushes = "  ".join(f"push {size}" for size in PUSHES_M_S)
    print(f"{'':7} speed [m/s]  turning [rad/s]  tilt [rad]  fell   {pushes}  rest")
    for pilot in ("policy", "lqr"):
        speed, turning, tilt, fell = bench.follow(pilot)
        survived = "".join(f"{bench.push(pilot, size):10.2f}" for size in PUSHES_M_S)
        print(
            f"{pilot:7} {speed:11.3f}  {turning:15.3f}  {tilt:10.3f}  {fell:4.2f} {survived}  "
            f"{bench.rest(pilot):4.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
