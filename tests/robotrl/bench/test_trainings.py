"""Trainings side by side give their exit codes and end when they are asked to, also below Ray.

Ray itself is no dependency; a stand-in makes its few calls, in threads of this process.
"""

import importlib.machinery
import os
import subprocess
import sys
import threading
import types
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import robotrl.bench.trainings
from deploy.errors import ConfigError
from robotrl.bench.trainings import (
    INTERRUPTED,
    LocalTrainings,
    RayTrainings,
    _train_until_interrupted,
)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Processes in place of trainings: each runs what stands in its folder's file `script`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sh", str(folder / "script")]))
        return started[-1]

    monkeypatch.setattr(robotrl.bench.trainings, "_start", start)
    return started


def training(folder: Path, script: str) -> Path:
    folder.mkdir()
    (folder / "script").write_text(script)
    return folder


def test_training_shares_our_session_whose_priority_it_keeps_but_not_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tell = "import os; print(os.getsid(0), os.getpgid(0), os.getpid())"
    monkeypatch.setattr(
        robotrl.bench.trainings, "command_of", lambda *words: [sys.executable, "-c", tell]
    )

    assert LocalTrainings().run(tmp_path) == 0

    session, group, process = map(int, (tmp_path / "train.log").read_text().split())
    assert session == os.getsid(0)  # Linux gives each session its own share of the CPU, nice or not
    assert group == process


class FakeRay(types.ModuleType):
    class exceptions:  # noqa: N801
        RayError = type("RayError", (Exception,), {})
        TaskCancelledError = type("TaskCancelledError", (RayError,), {})

    def __init__(self) -> None:
        super().__init__("ray")
        self.__spec__ = importlib.machinery.ModuleSpec("ray", None)
        self.pool, self.cancelled = ThreadPoolExecutor(), []

    def init(self, **settings: Any) -> None: ...

    def shutdown(self) -> None:
        self.pool.shutdown()

    def remote(self, **settings: Any) -> Any:
        assert settings == {"num_cpus": 1, "max_retries": 0}
        return lambda function: types.SimpleNamespace(
            remote=lambda *arguments: self.pool.submit(function, *arguments)
        )

    def get(self, task: Future[int]) -> int:
        return task.result()

    def cancel(self, task: subprocess.Popen[bytes]) -> None:
        task.terminate()

    def wait(self, tasks: list[object], *, num_returns: int) -> None: ...


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    module = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


@pytest.mark.parametrize("kind", [LocalTrainings, RayTrainings])
def test_exit_codes_are_those_of_the_trainings(
    kind: Any, tmp_path: Path, ray: FakeRay, children: list[Any]
):
    with kind() as trainings:
        assert trainings.run(training(tmp_path / "good", "exit 0")) == 0
        assert trainings.run(training(tmp_path / "bad", "exit 3")) == 3


def test_trainings_that_are_stopped_end_and_no_more_are_started(
    tmp_path: Path, children: list[subprocess.Popen[bytes]]
):
    endless = training(tmp_path / "endless", "trap 'exit 130' TERM; while :; do sleep 0.05; done")
    with ThreadPoolExecutor() as pool, LocalTrainings() as trainings:
        code = pool.submit(trainings.run, endless)
        while not children:
            pass
        trainings.stop()
        assert code.result(timeout=30) in (INTERRUPTED, -15)
        assert trainings.run(endless) == INTERRUPTED

    assert len(children) == 1


@pytest.mark.parametrize("kind", [LocalTrainings, RayTrainings])
def test_training_that_begins_while_all_are_stopped_is_stopped_too(
    kind: Any, tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
):
    child = subprocess.Popen(["sleep", "30"])

    def start(folder: Path) -> subprocess.Popen[bytes]:
        stopping.start()
        stopping.join(timeout=0.5)  # all the time it could want, unless it waits for us
        return child

    monkeypatch.setattr(robotrl.bench.trainings, "_start", start)
    below_ray = types.SimpleNamespace(remote=start)
    monkeypatch.setattr(ray, "remote", lambda **settings: lambda function: below_ray)
    monkeypatch.setattr(ray, "get", subprocess.Popen.wait)
    with kind() as trainings:
        stopping = threading.Thread(target=trainings.stop)
        assert trainings.run(tmp_path) == -15  # else 0, half a minute later
        stopping.join()


def test_machine_that_is_lost_counts_as_a_failed_training(
    tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, children: list[Any]
):
    def lost(task: object) -> int:
        raise ray.exceptions.RayError("node 2 died")

    monkeypatch.setattr(ray, "get", lost)
    with RayTrainings() as trainings:
        folder = training(tmp_path / "run", "exit 0")
        assert trainings.run(folder) == 1

    assert (folder / "train.log").read_text() == "ray: node 2 died\n"


def test_training_below_ray_is_ended_when_its_task_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[subprocess.Popen[bytes]]
):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt  # as Ray has it

    monkeypatch.setattr("robotrl.bench.trainings.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _train_until_interrupted(training(tmp_path / "run", "exec sleep 600"))

    assert children[0].poll() == -15  # SIGTERM: Ray blocks SIGINT in its processes


def test_ray_that_is_not_installed_is_explained(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr("robotrl.bench.trainings.importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match="--ray needs Ray, which is not installed; pip install r"):
        RayTrainings()
