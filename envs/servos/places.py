"""Where joints are in the tables of a simulation."""

from collections.abc import Iterable, Sequence

import mujoco
import numpy as np
import torch
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.robot import position_servos


def places(columns: Sequence[int], device: torch.device) -> slice | Tensor:
    """Columns as an index: a slice where they follow each other, which needs no copy."""
    if columns and list(columns) == list(range(columns[0], columns[0] + len(columns))):
        return slice(columns[0], columns[0] + len(columns))
    return torch.tensor(columns, dtype=torch.int64, device=device)


def table(values: Sequence[float], like: Tensor) -> Tensor:
    """A number for each joint, in the precision and on the device of another table."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def drives_of(model: mujoco.MjModel, joints: Iterable[str]) -> list[int]:
    """The position actuator of each joint.

    Raises:
        ConfigError: a joint is not in the model, or no position servo drives it.
    """
    names = [model.joint(index).name for index in range(model.njnt)]
    drives = position_servos(model) & (model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT))
    found: list[int] = []
    for joint in joints:
        if joint not in names:
            raise ConfigError(
                f"servo of joint {joint!r}: there is no such joint{did_you_mean(joint, names)}; "
                f"there are {', '.join(names)}"
            )
        own = drives & (model.actuator_trnid[:, 0] == names.index(joint))
        if own.sum() != 1:
            raise ConfigError(
                f"servo of joint {joint!r}: {own.sum()} position actuators drive it, expected one; "
                "use `add_servo`"
            )
        found.append(int(np.flatnonzero(own)[0]))
    return found
