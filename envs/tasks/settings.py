"""Settings that tasks share, and checks of settings against a model."""

import copy
from collections.abc import Iterable, Sequence
from typing import Annotated

import mujoco
from pydantic import Field, model_validator

from deploy.configuration import Section, did_you_mean
from deploy.errors import ConfigError
from deploy.quantities import Duration, Period

Weight = Annotated[float, Field(ge=-1000, le=1000)]
"""Weight of a reward term."""


class RobotTaskConfig(Section):
    """What every task on a robot can be told."""

    robot: str
    """A robot of `envs/robots/`, or the path of an MJCF, URDF or YAML (`envs.robot_file`)."""
    control_dt_s: Period = 0.02
    """Period of the policy."""
    episode_s: Duration = 20.0
    """Length of an episode."""

    @model_validator(mode="after")
    def _check_episode(self) -> "RobotTaskConfig":
        if self.episode_s < self.control_dt_s:
            raise ValueError(
                f"episode_s {self.episode_s} is shorter than control_dt_s {self.control_dt_s}"
            )
        return self

    def num_substeps(self, model: mujoco.MjModel) -> int:
        """Physics steps per control step.

        Raises:
            ConfigError: that is no whole number.
        """
        steps = round(self.control_dt_s / model.opt.timestep)
        if abs(steps * model.opt.timestep - self.control_dt_s) > 1e-9:
            raise ConfigError(
                f"control_dt_s {self.control_dt_s} s is no multiple of the physics timestep "
                f"{model.opt.timestep} s; choose one that is"
            )
        return steps


def at_training_timestep(
    model: mujoco.MjModel, config: RobotTaskConfig, timestep_s: float | None
) -> mujoco.MjModel:
    """The model with another timestep, for training; the model itself if there is none.

    Raises:
        ConfigError: the period of the policy is no multiple of it.
    """
    if timestep_s is None:
        return model
    model = copy.copy(model)
    model.opt.timestep = timestep_s
    try:
        config.num_substeps(model)
    except ConfigError as error:
        raise ConfigError(f"training_timestep_s: {error}, or another timestep") from error
    return model


def count_steps(duration_s: float, control_dt_s: float) -> int:
    """Control steps of a duration [s], at least one."""
    return max(1, round(duration_s / control_dt_s))


def require_different(key: str, names: Sequence[str]) -> None:
    """Check that no name is there twice.

    Raises:
        ValueError: one is.
    """
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"{key} must be different, found {', '.join(sorted(twice))} twice; keep one"
        )


def require_names(key: str, names: Iterable[str], valid: Sequence[str], what: str) -> None:
    """Check that every name is a valid one.

    Raises:
        ConfigError: names the first that is not, and the nearest that is.
    """
    for name in names:
        if name not in valid:
            raise ConfigError(
                f"{key}: {name!r}{did_you_mean(name, valid)} is no {what}; "
                f"there are {', '.join(valid)}"
            )
