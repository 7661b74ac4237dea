"""What every physics backend offers: many worlds of one model, as torch tensors.

Everything above this Protocol (tasks, rewards, signals, randomization) is written once, in torch,
on the backend's device. A backend is one file: `batch_simulation.py` is MuJoCo on CPU threads,
`warp_simulation.py` is mujoco_warp on a GPU.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import mujoco
import torch
from torch import Tensor

from envs.worlds import Worlds


class State(NamedTuple):
    """Where worlds start: what MuJoCo integrates, and what its actuators are told."""

    qpos: Tensor
    """(n, nq); free bodies and the robot's base are as ordinary as joints."""
    qvel: Tensor
    """(n, nv); of a free base: linear in the world frame, then angular in its own."""
    ctrl: Tensor
    """(n, nu)."""


class Simulation(Protocol):
    """`num_envs` independent worlds of `model`.

    Tensors returned by `data` and `field` are live views in the backend's own precision: reading
    sees the current world, writing changes it. Derived data (sensors, site positions) describe
    the state after the last call, never one substep behind.
    """

    model: mujoco.MjModel
    num_envs: int
    device: torch.device
    compact: bool
    """Whether worlds are best chosen by ids; see `envs.worlds`."""

    def data(self, name: str) -> Tensor:
        """Live (num_envs, ...) tensor of an `MjData` field, e.g. `qpos`, `ctrl`, `sensordata`."""
        ...

    def field(self, name: str) -> Tensor:
        """Live (num_envs, ...) tensor of an `MjModel` field; worlds may differ from then on.

        Options are fields too, as `opt.gravity`.

        Raises:
            ConfigError: there is no such field, or it cannot differ between worlds.
        """
        ...

    def step(self, num_substeps: int, before_substep: Callable[[], None] | None = None) -> Tensor:
        """Advance all worlds.

        Args:
            num_substeps: physics steps.
            before_substep: called before each of them; may write `data` and `field`.

        Returns:
            (num_envs,) bool: worlds that diverged; their state is finite, and they must be reset.
        """
        ...

    def check(self) -> None:
        """Ask the device whether any step since the last call left something out.

        Raises:
            ConfigError: contacts or constraints found no room; says which setting to raise.
        """
        ...

    def reset(self, worlds: Worlds, state: State) -> None:
        """Put worlds into states (n, ...), in the dtype of the backend's `data`.

        Delay buffers are filled as if that state and control had lasted for ever.
        """
        ...

    def recompute_constants(self, worlds: Worlds) -> None:
        """Recompute what MuJoCo derives from inertial fields, in these worlds at least."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue with the same bits, delay buffers and fields included."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...
