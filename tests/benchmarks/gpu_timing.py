"""How long a step takes on a GPU, and how often the host waits for it; for any environment."""

import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

HEAD = f"{'task':36}{'worlds':>8}{'steps/s':>12}{'ms/step':>9}{'physics':>9}{'GiB':>7}  waits"
WARM_UP, ROUNDS, COUNTED = 5, 5, 10
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def row(task: str, num_envs: int, whole_s: float, physics_s: float, device: str, waits: str) -> str:
    """A line of the table under `HEAD`."""
    memory = 0.0
    if device != "cpu":
        free, total = torch.cuda.mem_get_info(device)
        memory = (total - free) / 2**30
    return (
        f"{task:36}{num_envs:8}{num_envs / whole_s:12,.0f}{1e3 * whole_s:9.2f}"
        f"{physics_s / whole_s:9.0%}{memory:7.1f}  {waits}"
    )


def time_each(call: Callable[[], object], steps: int, device: str) -> float:
    """Seconds per call, the median of some rounds."""
    for _ in range(WARM_UP):
        call()
    rounds = []
    for _ in range(ROUNDS):
        _wait(device)
        start = time.perf_counter()
        for _ in range(steps):
            call()
        _wait(device)
        rounds.append((time.perf_counter() - start) / steps)
    return statistics.median(rounds)


def _wait(device: str) -> None:
    """Until the device has caught up."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def count_waits(call: Callable[[], object]) -> str:
    """CUDA calls in which the host waits, per call; what the profiler adds itself cancels out."""
    counts = []
    for steps in (COUNTED, 2 * COUNTED):
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            for _ in range(steps):
                call()
        averages = profiler.key_averages()
        counts.append(sum(event.count for event in averages if event.key in _WAITS))
    return f"{(counts[1] - counts[0]) / COUNTED:g}"
