"""What the operating system grants is taken and given back; what it refuses is advice."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from deploy import realtime as module
from deploy.clock import MonotonicClock
from deploy.realtime import LoopConfig, realtime

QUIET = LoopConfig(priority=0, lock_memory=False)


def timer_slack() -> int:
    return int(Path(f"/proc/{os.getpid()}/timerslack_ns").read_text())


def test_timers_are_exact_meanwhile_and_as_before_afterwards():
    before = timer_slack()
    with realtime(QUIET) as advice:
        assert timer_slack() == 1
        assert advice == []
    assert timer_slack() == before


def test_loop_has_its_cores_and_gives_them_back():
    before = os.sched_getaffinity(0)
    core = min(before)
    with realtime(QUIET.model_copy(update={"cpus": [core]})):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


def test_core_that_does_not_exist_is_no_error():
    with realtime(QUIET.model_copy(update={"cpus": [1000]})) as advice:
        (line,) = advice
    assert line.startswith("other programs share its cores: `loop.cpus` names one that it may not")


def test_what_is_refused_says_which_privilege_would_help(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.os, "sched_setscheduler", refuse)
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(module.resource, "getrlimit", lambda limit: (8 * 1024 * 1024, -1))
    with realtime(LoopConfig()) as advice:
        memory, priority = advice
    assert "memlock unlimited" in memory
    assert "(may lock 8192 KiB)" in memory
    assert "rtprio 91" in priority
    assert "CAP_SYS_NICE" in priority


SCHEDULING = """
import os, subprocess, sys
from deploy.realtime import LoopConfig, realtime
with realtime(LoopConfig(priority=10, lock_memory=False)) as advice:
    inside = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"],
        capture_output=True, text=True,
    ).stdout
after = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
print(len(advice), *inside, child.strip(), after)
"""


def test_loop_comes_before_all_others_and_what_it_starts_does_not():
    done = subprocess.run(
        [sys.executable, "-c", SCHEDULING], capture_output=True, text=True, check=True
    )
    refused, *found = map(int, done.stdout.split())
    if refused:
        pytest.skip("this user may not raise a priority")
    assert found == [os.SCHED_FIFO, 10, os.SCHED_OTHER, os.SCHED_OTHER]


def test_wait_ends_at_the_deadline_and_not_before():
    clock = MonotonicClock(spin_s=0.002)
    for wait_s in (0.0005, 0.004, -1.0):
        due_s = time.monotonic() + wait_s
        clock.sleep_until(due_s)
        assert time.monotonic() >= due_s


def test_last_part_of_a_wait_is_spent_awake(monkeypatch: pytest.MonkeyPatch):
    slept, looks = [], iter([5.0, 5.01, 5.02, 5.03])
    time = types.SimpleNamespace(sleep=slept.append, monotonic=lambda: next(looks))
    monkeypatch.setattr("deploy.clock.time", time)
    MonotonicClock(spin_s=0.01).sleep_until(5.03)
    assert slept == [pytest.approx(0.02)]
    assert not list(looks)  # it looked at the clock until it was due
