"""What `no_sync` finds, and what it lets through."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.envs.no_sync import HostWaited, no_sync

TABLE, MASK = torch.arange(6.0).view(3, 2), torch.tensor([True, False, True])
IDS = torch.tensor([0, 2])


def write(index: Tensor, value: float) -> None:
    TABLE[index] = value


@pytest.mark.parametrize(
    "waits",
    [
        lambda: TABLE[0, 0].item(),
        lambda: int(IDS[0]),
        lambda: "yes" if MASK.any() else "no",
        lambda: torch.nonzero(MASK),
        lambda: TABLE[MASK],
        lambda: write(MASK, 0.0),
        lambda: torch.equal(TABLE, TABLE),
        lambda: torch.tensor([1.0, 2.0]),
        lambda: TABLE[:, [0, 1]],
        lambda: torch.from_numpy(np.zeros(3)),
    ],
)
def test_what_waits_for_a_gpu_is_refused(waits: Callable[[], object]):
    with no_sync(), pytest.raises(HostWaited):
        waits()


def test_what_a_gpu_does_alone_passes():
    with no_sync():
        torch.where(MASK[:, None], TABLE, 0.0).masked_fill_(MASK[:, None], 1.0)
        TABLE[IDS] = TABLE[IDS] + torch.full((2, 2), 2.0)
        TABLE[:, 1] = 0.5
