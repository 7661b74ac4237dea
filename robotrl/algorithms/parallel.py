"""One training in several processes; in one process nothing here does anything.

    torchrun --nproc-per-node 2 -m robotrl.cli train CONFIG

Each process simulates its share of the worlds, and all have the same weights and the same random
numbers: what is drawn is drawn for the worlds of all, and each takes its own (`own_rows`,
`own_part`); what is learned from is summed over all (`total`, `moments`). So the result is that of
one process with as many worlds, but for the order in which numbers are added. The first process
alone reads and writes the run's folder. CPUs talk by gloo, GPUs by NCCL.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from deploy.errors import ConfigError, DeployError
from envs.worlds import Share

Result = TypeVar("Result")

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(minutes=30)
"""What others wait for, the longest an evaluation may take. Who dies is noticed at once."""
_alone = threading.Event()
"""Another process has ended."""


class ProcessLost(DeployError, ConnectionError):
    """Another process of the training has ended."""


@contextmanager
def joined() -> Iterator[None]:
    """Train together with the other processes that torchrun started, if it did."""
    if not all(name in os.environ for name in _TORCHRUN) or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(_local_rank() % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "gloo"
    signal.signal(signal.SIGTERM, _leave)
    _talk(lambda: dist.init_process_group(backend, timeout=_PATIENCE))
    try:
        yield
    except ProcessLost:
        if is_first():  # one tells, beside the one that ended
            raise
        raise SystemExit(1) from None
    except DeployError as error:
        error.add_note(f"in process {number()} of {processes()}")
        raise
    _talk(dist.barrier)  # who leaves early would be missed
    dist.destroy_process_group()  # after an error it could wait for those that wait for us


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    """Of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process reads, writes and tells."""
    return number() == 0


def program(count: int = 0) -> str:
    """What to type for `robotrl` in so many processes; by default as many as now."""
    count = count or processes()
    return "robotrl" if count == 1 else f"torchrun --nproc-per-node {count} -m robotrl.cli"


def require_shareable(num_envs: int, device: str) -> None:
    """Refuse worlds that cannot be divided among the processes.

    Raises:
        ConfigError: says what would do.
    """
    count = processes()
    if num_envs % count:
        below, above = num_envs // count * count, -(-num_envs // count) * count
        raise ConfigError(
            f"num_envs: {num_envs} worlds cannot be divided evenly among {count} processes; choose "
            + (f"{below} or {above}" if below else f"{above}")
        )
    if count > 1 and device != "cpu":
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if device != "cuda" or here > gpus:
            raise ConfigError(
                f"device: {here} processes on this machine need a GPU each, found {gpus} and "
                f"device {device!r}; say `cuda`, and --nproc-per-node as many as there are"
            )


def placement(num_envs: int, device: str, num_threads: int) -> dict[str, Any]:
    """Arguments of `envs.make` for the share of this process, of what all have together."""
    count = processes()
    if count == 1:
        return {}
    own = num_envs // count
    cores = (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])
    return {
        "num_envs": own,
        "device": f"cuda:{_local_rank()}" if device == "cuda" else device,
        "num_threads": num_threads or max(cores, 1),
        "share": Share(number() * own, count, total),
    }


def total(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if processes() > 1:
        _talk(lambda: dist.all_reduce(values))
    return values


def moments(rows: Tensor) -> tuple[int, Tensor, Tensor]:
    """Number, mean and variance, in float64, of the rows (n, ...) of all; n is the same in each."""
    rows = rows.double()
    mean = rows.mean(dim=0)
    var = (rows - mean).square_().mean(dim=0)  # a fifth of the time of `torch.var_mean`
    if processes() > 1:
        own, count = mean, processes()
        mean = total(own.clone()) / count
        var = total(var + (own - mean).square()) / count
    return len(rows) * processes(), mean, var


def means(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean over all processes of what is not nan; nan where nothing is."""
    found = [
        torch.stack([each.nansum(dtype=torch.float64), (~each.isnan()).sum()])
        for each in values.values()
    ]
    sums, counts = total(torch.stack(found)).T
    return dict(zip(values, (sums / counts).tolist(), strict=True))


def any_of(one: bool, device: torch.device) -> bool:
    """Whether it is true in some process."""
    return one if processes() == 1 else bool(total(torch.tensor(float(one), device=device)))


def own_rows(drawn: Tensor, num_envs: int) -> Tensor:
    """Of rows (steps · worlds of all, ...), those of the `num_envs` worlds here."""
    if processes() == 1:
        return drawn
    return drawn.unflatten(0, (-1, processes(), num_envs))[:, number()].flatten(0, 1)


class Part(NamedTuple):
    """A minibatch over all processes."""

    rows: Tensor
    """(n,) those that are here, by their place among the rows here."""
    places: Tensor | slice
    """Where they stand in the minibatch."""
    size: int
    """Rows in all processes; sums over `rows` are divided by it."""


def own_part(part: Tensor, num_envs: int) -> Part:
    """Of indices (n,) into the rows (steps · worlds of all), those of the worlds here."""
    if processes() == 1:
        return Part(part, slice(None), len(part))
    step, world = part // (processes() * num_envs), part % (processes() * num_envs)
    world = world - number() * num_envs
    places = ((world >= 0) & (world < num_envs)).nonzero().squeeze(-1)
    return Part((step * num_envs + world)[places], places, len(part))


def from_first(make: Callable[[], Result]) -> Result:
    """What the first process makes; the others do nothing but wait for it."""
    told = [make() if is_first() else None]
    if processes() > 1:
        _talk(lambda: dist.broadcast_object_list(told, src=0))
    return told[0]  # pyright: ignore[reportReturnType]


def gathered(state: Any) -> list[Any]:
    """Each process's plain data and tensors, in the first one; in others nothing."""
    if processes() == 1:
        return [state]
    states = [None] * processes() if is_first() else None
    _talk(lambda: dist.gather_object(state, states))
    return states or []


def _local_rank() -> int:
    return int(os.environ["LOCAL_RANK"])


def _leave(number: int, frame: FrameType | None) -> None:
    """What SIGTERM does. When another process has ended torchrun sends one; first we tell."""
    if not _alone.is_set():
        raise SystemExit(128 + number)


def _talk(exchange: Callable[[], Any]) -> None:
    try:
        exchange()
    except RuntimeError as error:
        _alone.set()
        raise ProcessLost(
            "another process of this training has ended, so it cannot go on; what that one wrote, "
            "or torchrun below, says why. Go on from the last checkpoint with --resume"
        ) from error
