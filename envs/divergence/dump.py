"""Divergences as files: numpy arrays, and the model as MuJoCo saves it."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np

from deploy.errors import ConfigError
from deploy.whole_file import explained, replaced
from envs.divergence.trail import INTEGRATION, Divergence, Recordable

_COMPONENTS = {
    f"state_{bit.name.removeprefix('mjSTATE_').lower()}": int(bit)
    for bit in mujoco.mjtState.__members__.values()
    if bit.name != "mjNSTATE" and int(bit).bit_count() == 1
}
"""Array -> the part of MuJoCo's state in it."""

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError)


class Dump(NamedTuple):
    """What a file holds."""

    divergence: Divergence
    context: dict[str, np.ndarray]
    """What the environment was doing: `step`, `episode_step`, `action`, `targets`."""


class Recorder:
    """Writes the first divergences of a run.

    Args:
        folder: where to; made when there is something to write.
        simulation: the worlds.
        limit: most files the folder gets, those of an earlier part of the run included.
    """

    def __init__(self, folder: Path, simulation: Recordable, limit: int):
        self._folder = folder
        written = len(list(folder.glob("*.npz")))
        self._found = simulation.record_divergences(limit - written)

    def write(self, step: int, **tables: Any) -> None:
        """Write what diverged in the last step of the simulation.

        Args:
            step: number of the step.
            **tables: (num_envs, ...) each; a file gets its world's row.

        Raises:
            ConfigError: it cannot be written.
        """
        for divergence in self._found:
            rows = {name: np.asarray(table[divergence.world]) for name, table in tables.items()}
            path = self._folder / f"step-{step}-world-{divergence.world}.npz"
            with explained(path, "--output"):
                write(path, divergence, {"step": np.array(step), **rows})


def write(path: Path, divergence: Divergence, context: Mapping[str, np.ndarray]) -> None:
    """Write a file; it is there whole or not at all."""
    model, states = divergence.model, divergence.states
    binary = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, binary)
    arrays = {
        "mujoco_version": np.array(mujoco.__version__),
        "model": binary,
        "world": np.array(divergence.world),
        "cause": np.array(divergence.cause),
        "num_substeps": divergence.num_substeps,
        **{name: _extract(model, states, bit) for name, bit in _COMPONENTS.items()},
        **{f"context_{name}": value for name, value in context.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: Path | str) -> Dump:
    """Read a file.

    Raises:
        ConfigError: there is none, it is damaged, or from another version of MuJoCo.
    """
    try:
        arrays = _load(Path(path))
        version = str(arrays["mujoco_version"])
        if version != mujoco.__version__:
            raise ConfigError(
                f"{path}: written with MuJoCo {version}, this is {mujoco.__version__}, and its "
                f"model can be read by the same version only: pip install mujoco=={version}"
            )
        binary = arrays["model"].tobytes()
        model = mujoco.MjModel.from_binary_path("model.mjb", {"model.mjb": binary})
        states = _combine(model, arrays)
        num_substeps = arrays["num_substeps"]
        if num_substeps.shape != states.shape[:1] or num_substeps.dtype.kind != "i":
            raise ValueError(f"{len(states)} states, but num_substeps {num_substeps.tolist()}")
        world, cause = int(arrays["world"]), str(arrays["cause"])
    except ConfigError:
        raise
    except (OSError, EOFError, LookupError, ValueError, TypeError, *_ZIP_ERRORS) as error:
        raise ConfigError(
            f"{path}: expected a file that a training run wrote into `diverged`; this one cannot "
            f"be read ({type(error).__name__}: {error}). Copy it again, or take another"
        ) from error
    divergence = Divergence(world, cause, model, states, num_substeps)
    context = {
        name.removeprefix("context_"): array
        for name, array in arrays.items()
        if name.startswith("context_")
    }
    return Dump(divergence, context)


def _load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, their checksums compared."""
    if path.is_file() and not zipfile.is_zipfile(path):  # numpy would take it for a pickle
        raise ValueError("it is no zip archive")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _extract(model: mujoco.MjModel, states: np.ndarray, component: int) -> np.ndarray:
    """One component (calls, size) of states (calls, n)."""
    out = np.empty((len(states), mujoco.mj_stateSize(model, component)))
    for state, row in zip(states, out, strict=True):
        mujoco.mj_extractState(model, state, INTEGRATION, row, component)
    return out


def _combine(model: mujoco.MjModel, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The states (calls, n) that components were extracted from."""
    data = mujoco.MjData(model)
    states = np.empty(
        (len(arrays["state_time"]), mujoco.mj_stateSize(model, INTEGRATION)), dtype=np.float64
    )
    for call, state in enumerate(states):
        for name, component in _COMPONENTS.items():
            mujoco.mj_setState(model, data, arrays[name][call], component)
        mujoco.mj_getState(model, data, state, INTEGRATION)
    return states
