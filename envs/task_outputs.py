"""Whether a task returns tables of the shapes that `envs.task.Task` promises, asked once.

A reward term (num_envs, 1) added to one (num_envs,) is (num_envs, num_envs): torch mixes all worlds
without a word, and the training that follows fails somewhere else, or learns nothing.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from deploy.errors import ConfigError


def check_outputs(
    method: str,
    tables: Mapping[str, object],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype | None = None,
) -> None:
    """Check what a task's method returned.

    Args:
        method: its name.
        tables: what it returned, by name.
        shapes: of each that is expected.
        dtype: of each; None: any.

    Raises:
        ConfigError: lists what is missing, and what has another shape or type.
    """
    wrong = []
    for name, shape in shapes.items():
        if name not in tables:
            wrong.append(f"{name!r} is missing")
        elif not isinstance(table := tables[name], Tensor):
            wrong.append(f"{name!r} is a {type(table).__name__}, expected a tensor {shape}")
        elif table.shape != shape:
            wrong.append(f"{name!r} has shape {tuple(table.shape)}, expected {shape}")
        elif dtype is not None and table.dtype != dtype:
            wrong.append(f"{name!r} is {table.dtype}, expected {dtype}")
    if wrong:
        raise ConfigError(
            f"`{method}` returned: {'; '.join(wrong)}. Correct it; envs/task.py says "
            "what each method returns"
        )
