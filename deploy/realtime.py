"""What the operating system can do for a loop that must not be late, as far as it is allowed.

    with realtime(config) as advice:        # lines: what was refused, and what would allow it
        ...                                 # the loop; afterwards everything is as it was

Scheduling before all others (SCHED_FIFO), memory that is never paged out (mlockall), cores of its
own (affinity) and a timer without slack. Whatever is refused is no error: the loop is a little
later, the overruns are counted, and the advice says which privilege would improve what. Linux only;
elsewhere everything is refused.
"""

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from deploy.configuration import Section

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
PR_SET_TIMERSLACK, PR_GET_TIMERSLACK = 29, 30
_CAN_LOCK = 256 * 1024 * 1024
"""Memory that this process may come to need; a smaller limit would make allocations fail."""

Cpu = Annotated[int, Field(ge=0, le=1023)]


class LoopConfig(Section):
    """`loop:` in a robot's YAML: how punctual the loop is to be, and what happens if it is not."""

    overrun: Literal["skip", "hold", "stop"] = "skip"
    """After a missed deadline: go on with the next; or hold still for a tick before that; or stop
    the robot. Whichever, `safety.max_overruns` in a row stop it."""
    spin_us: Annotated[float, Field(ge=0, le=5000)] = 100.0
    """The last part of a wait is spent looking at the clock: it costs processor time, and buys the
    40 µs that waking up takes, not the tail, which other programs' system calls and a hypervisor
    make (tests/benchmarks/loop.py: p99.9 is the same with and without, in C too)."""
    priority: Annotated[int, Field(ge=0, le=90)] = 50
    """Of SCHED_FIFO; 0 leaves scheduling as it is. The companion's is one higher."""
    cpus: list[Cpu] = []
    """Cores to run on; all where there are none."""
    lock_memory: bool = True
    """Keep the process's memory from being paged out."""


@contextlib.contextmanager
def realtime(config: LoopConfig) -> Iterator[list[str]]:
    """Make the calling thread as punctual as it may be; yields advice on what was refused."""
    advice: list[str] = []
    with contextlib.ExitStack() as undo:
        for prepare in (_timer, _affinity, _memory, _priority):
            try:
                prepare(config, undo)
            except (OSError, AttributeError, ValueError) as refused:
                advice.append(f"{_ADVICE[prepare]} ({refused})")
        yield advice


def _timer(config: LoopConfig, undo: contextlib.ExitStack) -> None:
    before = _call("prctl", PR_GET_TIMERSLACK)
    _call("prctl", PR_SET_TIMERSLACK, 1)
    undo.callback(_call, "prctl", PR_SET_TIMERSLACK, before)


def _affinity(config: LoopConfig, undo: contextlib.ExitStack) -> None:
    if config.cpus:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, config.cpus)
        undo.callback(os.sched_setaffinity, 0, before)


def _memory(config: LoopConfig, undo: contextlib.ExitStack) -> None:
    if not config.lock_memory:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() and -1 < soft < _CAN_LOCK:
        raise OSError(f"may lock {soft // 1024} KiB")
    # What was never used stays out: stacks and numpy's buffers would fill 130 MB with nothing.
    _call("mlockall", MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
    undo.callback(_call, "munlockall")


def _priority(config: LoopConfig, undo: contextlib.ExitStack) -> None:
    if config.priority:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        # What this process starts is not as important as it is.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(config.priority))
        undo.callback(_restore, *before)


def _restore(policy: int, param: os.sched_param) -> None:
    # Who may not raise a priority may not clear this flag either.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, param)


_ADVICE = {
    _timer: "timers end up to 50 µs late: this system has no prctl(PR_SET_TIMERSLACK)",
    _affinity: "other programs share its cores: `loop.cpus` names one that it may not use",
    _memory: "a page fault may delay a tick by milliseconds: allow `memlock unlimited` in "
    "/etc/security/limits.conf, or LimitMEMLOCK=infinity in its systemd unit",
    _priority: "a busy machine delays ticks: allow `rtprio 91` in /etc/security/limits.conf, "
    "LimitRTPRIO=91 in its systemd unit, or CAP_SYS_NICE",
}


def _call(name: str, *arguments: int) -> int:
    """A function of the C library.

    Raises:
        OSError: it fails.
        AttributeError: there is none.
    """
    library = ctypes.CDLL(None, use_errno=True)
    words = (ctypes.c_ulong(argument) for argument in arguments)
    if (result := getattr(library, name)(*words)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
