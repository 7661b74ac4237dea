"""Two processes learn what one learns with as many worlds, stop together, and none hangs.

Whole trainings run under torchrun; the arithmetic is worked by hand for process 1 of 2.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from deploy.configuration import validate
from deploy.errors import ConfigError
from robotrl.algorithms import parallel
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import rehearse, train
from robotrl.runs.train_config import TrainConfig
from tests.robotrl.runs.test_train import finish, metrics, tensors
from tests.until import until

TORCHRUN = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
UPDATES = 4
ADAPTED = "share/mass scale [0.8, 1.25] on *"


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    """Everything that is drawn or averaged over worlds: 8 worlds of a robot with a mirror image,
    falls, minibatches of unequal size (32 rows in 3), entropy bonus, a term that adapts."""
    return validate(
        {
            "task": "balance",
            "num_envs": 8,
            "env_steps": UPDATES * 8 * 4,
            "checkpoint_interval": 1,
            "simulation_threads": 1,
            "evaluation": {"episodes": 2},
            "task_config": {"episode_s": 0.2, "command": {"interval_s": [0.03, 0.06]}},
            "algorithm": {
                "rollout_steps": 4,
                "epochs": 2,
                "minibatches": 3,
                "entropy_coef": 0.01,
                "anneal_steps": 1000,
                "reward_centering": 0.3,
                "sparse_observations": True,
                "actor_hidden": [16],
                "critic_hidden": [16],
                "symmetry": True,
            },
            "randomization": [
                {
                    "field": "mass",
                    "range": [0.8, 1.25],
                    "adapt": {
                        "metric": "fell",
                        "good": 0.5,
                        "bad": 0.9,
                        "samples": 2,
                    },
                },
                {
                    "signal": "joint_velocity",
                    "operation": "add",
                    "range": [-0.1, 0.1],
                    "when": "step",
                },
                {"initial": "yaw", "range": [-3.0, 3.0]},
            ],
        },
        TrainConfig,
        source="test",
    )


def start(processes: int, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, str(processes), "-m", "robotrl.cli", "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def two(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of two processes, which were started again half way."""
    folder = RunFolder(tmp_path_factory.mktemp("parallel") / "two")
    source = RunFolder(folder.path.with_name("source"))
    source.create(config)
    half = f"env_steps={config.env_steps // 2}"
    finished(start(2, source.config_path, half, "--output", folder.path))
    text = folder.config_path.read_text()
    folder.config_path.write_text(text.replace("env_steps: 64\n", "env_steps: 128\n"))
    said = finished(start(2, "--resume", folder.path))
    assert said.count("Next: robotrl export") == 1  # one speaks
    return folder


def finished(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return said


def test_two_processes_learn_what_one_learns_with_as_many_worlds(
    config: TrainConfig, two: RunFolder, tmp_path: Path
):
    one = finish(config, tmp_path / "one")

    alone, together = one.load_checkpoint()["algorithm"], two.load_checkpoint()["algorithm"]
    assert together["steps"] == UPDATES * 32
    assert torch.equal(alone["generator"], together["generator"])
    # float32: what is summed in another order differs by an ulp. Measured on arm_reach after five
    # updates of six steps: 6e-8 at most. A step moves each weight by about 3e-4.
    found, expected = tensors(together), tensors(alone)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=2e-5, atol=2e-6), name
    for row, wanted in zip(metrics(two), metrics(one), strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-5, nan_ok=True)
    assert two.evaluations()[-1]["return"] == pytest.approx(
        one.evaluations()[-1]["return"], rel=1e-4
    )
    assert len({row[ADAPTED] for row in metrics(two)}) > 1  # there was something to agree on
    assert (together["critic_normalizer"]["nonzero"] < 0.99).any()  # likewise


def test_ctrl_c_saves_and_says_how_as_many_processes_go_on(config: TrainConfig, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    folder.create(config.model_copy(update={"env_steps": 10**9}))
    process = start(2, "--resume", folder.path)  # it has no checkpoint yet
    until(lambda: len(folder.metrics()) >= 2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=200)

    again = f"torchrun --nproc-per-node 2 -m robotrl.cli train --resume {folder.path}"
    assert f"saved; go on with: {again}\n" in said
    assert said.count("finishing this iteration") == 1
    saved = folder.load_checkpoint()
    assert saved["env_steps"] == 32 * len(folder.metrics())
    with pytest.raises(
        ConfigError, match=f"was written by 2 processes, found 1; go on with {again}"
    ):
        train(folder.config(), folder, resume=True)


def test_process_that_dies_ends_the_others_with_a_message(config: TrainConfig, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    folder.create(config.model_copy(update={"env_steps": 10**9}))
    process = start(2, "--resume", folder.path)
    until(folder.checkpoint_path.exists)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = next(child for child in map(int, children) if rank(child) == "1")

    os.kill(second, signal.SIGKILL)
    said, _ = process.communicate(timeout=200)  # not the 30 minutes that one waits for another

    assert process.returncode != 0
    assert said.count("error: another process of this training has ended, so it cannot go on") == 1
    assert re.search(rf"exitcode *: -9 \(pid: {second}\)", said)
    assert folder.load_checkpoint()["iteration"] >= 1


def rank(process: int) -> str | None:
    variables = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in variables if line).get("RANK")


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processes", lambda: 2)
    monkeypatch.setattr(parallel, "number", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")


def test_each_process_takes_the_rows_of_its_own_worlds(second_of_two: None):
    # 2 steps of 4 worlds, rows 0 to 7; worlds 2 and 3 are here: rows 2, 3 and 6, 7
    assert parallel.own_rows(torch.arange(8), num_envs=2).tolist() == [2, 3, 6, 7]

    # of a minibatch 7, 0, 2, 5: the first is the fourth row here, the third is the first row here
    part = parallel.own_part(torch.tensor([7, 0, 2, 5]), num_envs=2)
    assert part.rows.tolist() == [3, 0]
    assert isinstance(part.places, torch.Tensor)
    assert part.places.tolist() == [0, 2]
    assert part.size == 4


def test_all_processes_together_take_every_row_of_a_minibatch_once(monkeypatch: pytest.MonkeyPatch):
    order, taken = torch.randperm(5 * 6, generator=torch.Generator().manual_seed(0)), []
    monkeypatch.setattr(parallel, "processes", lambda: 3)
    for number in range(3):
        monkeypatch.setattr(parallel, "number", lambda number=number: number)
        part = parallel.own_part(order, num_envs=2)
        everything = parallel.own_rows(torch.arange(30), num_envs=2)
        assert torch.equal(everything[part.rows], order[part.places])
        taken += everything[part.rows].tolist()
    assert sorted(taken) == list(range(30))


def test_moments_are_those_of_the_rows_of_all(second_of_two: None, monkeypatch: pytest.MonkeyPatch):
    # 1, 3 there and 5, 11 here: mean (2 + 8) / 2 = 5, variance (16 + 4 + 0 + 36) / 4 = 14
    there = iter([torch.tensor([2.0]), torch.tensor([1.0 + 3.0**2])])
    monkeypatch.setattr(parallel, "total", lambda values: values + next(there))

    count, mean, var = parallel.moments(torch.tensor([[5.0], [11.0]]))

    assert (count, mean.item(), var.item()) == (4, 5.0, 14.0)


def test_means_leave_out_what_is_not_a_number_in_either_process(
    second_of_two: None, monkeypatch: pytest.MonkeyPatch
):
    there = torch.tensor([[6.0, 2.0], [0.0, 0.0]])  # 6 of two numbers; nothing
    monkeypatch.setattr(parallel, "total", lambda values: values + there)

    found = parallel.means({"a": torch.tensor([3.0, torch.nan]), "b": torch.tensor([torch.nan])})

    assert found == pytest.approx({"a": 3.0, "b": torch.nan}, nan_ok=True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"num_envs": 7},
            "num_envs: 7 worlds cannot be divided evenly among 2 processes; choose 6 or 8",
        ),
        ({"num_envs": 1}, "among 2 processes; choose 2"),
        (
            {"algorithm": {"name": "sac"}},
            "algorithm.name: sac trains in one process, found 2; start it without torchrun, or",
        ),
        ({"device": "cuda:0"}, "device: 2 processes on this machine need a GPU each, found "),
    ],
)
def test_training_that_cannot_be_divided_is_refused(
    tiny_config: TrainConfig, second_of_two: None, changes: dict[str, object], problem: str
):
    config = validate(
        {**tiny_config.model_dump(mode="json"), **changes}, TrainConfig, source="test"
    )

    with pytest.raises(ConfigError) as error:
        rehearse(config, source=Path("new.yaml"))

    assert problem in str(error.value)


def test_each_process_simulates_with_its_share_of_the_cores(second_of_two: None):
    placed = parallel.placement(8, "cuda", 0)

    assert placed["num_envs"] == 4
    assert placed["device"] == "cuda:1"
    assert placed["num_threads"] == max(1, (os.cpu_count() or 1) // 2)
    assert placed["share"][:2] == (4, 2)
    assert parallel.placement(8, "cpu", 3)["num_threads"] == 3


def test_sigterm_ends_a_process_unless_it_has_to_tell_that_another_has_ended(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(parallel, "_alone", threading.Event())
    with pytest.raises(SystemExit):
        parallel._leave(signal.SIGTERM, None)

    def fail() -> None:
        raise RuntimeError("Connection closed by peer")

    with pytest.raises(parallel.ProcessLost):
        parallel._talk(fail)
    parallel._leave(signal.SIGTERM, None)
