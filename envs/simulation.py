"""What every physics backend offers: many worlds of one model, as torch tensors.

Everything above this Protocol (tasks, rewards, signals, randomization) is written once, in torch,
on the backend's device. A backend is one file: `batch_simulation.py` is MuJoCo on CPU threads.
"""

from typing import Any, Protocol

import mujoco
from torch import Tensor, device


class Simulation(Protocol):
    """`num_envs` independent worlds of `model`.

    Tensors returned by `data` and `field` are live views in the backend's own precision: reading
    sees the current world, writing changes it. Derived data (sensors, site positions) describe
    the state after the last call, never one substep behind.
    """

    model: mujoco.MjModel
    num_envs: int
    device: device

    def data(self, name: str) -> Tensor:
        """Live (num_envs, ...) tensor of an `MjData` field, e.g. `qpos`, `ctrl`, `sensordata`."""
        ...

    def field(self, name: str) -> Tensor:
        """Live (num_envs, ...) tensor of an `MjModel` field; worlds may differ from then on."""
        ...

    def step(self, num_substeps: int) -> Tensor:
        """Advance all worlds; returns the ids of worlds that diverged; their state is finite."""
        ...

    def reset(self, ids: Tensor, qpos: Tensor, qvel: Tensor, ctrl: Tensor) -> None:
        """Put worlds `ids` into the state (n, nq), (n, nv), with controls (n, nu).

        `ids` (n,) are sorted and unique.
        Delay buffers are filled as if that state and control had lasted for ever.
        """
        ...

    def recompute_constants(self, ids: Tensor) -> None:
        """Recompute what MuJoCo derives from inertial fields, in worlds `ids`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue with the same bits, delay buffers and fields included."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...
