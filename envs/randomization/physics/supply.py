"""The supply voltage: gain, torque limit and speed limit of all servos together.

    - {supply: "*", range: [0.85, 1.05]}      # of the voltage the servos were measured at
    - {field: supply_resistance_ohm, operation: set, range: [0, 0.2]}   # which sags, `envs.servos`

A servo's bridge applies a share of the supply to its motor. With a factor f on the voltage, a
position servo's stall torque and its gains (torque per angle and per speed, before the bridge
saturates) become f times as large; its damping is back-EMF and stays, so its no-load speed, torque
over damping, is f times as large too. For a `dcmotor` the gains of its controller and its `Vmax`
scale. What limits the current, such as a dcmotor's force range, does not know the voltage. One
battery, one draw: for servos on different supplies write a term for each.

Source: V = R i + K w and torque = K i of a DC motor; MuJoCo's technical note on `dcmotor`,
sections 1.1 and 2.5, for the columns of its parameters.
"""

from typing import Any

import mujoco
import numpy as np
import torch
from pydantic import model_validator

from deploy.errors import ConfigError
from envs.randomization.physics.fields import check_effect
from envs.randomization.physics.model_fields import model_field
from envs.randomization.physics.numbers import Change, Numbers, Part, Place
from envs.randomization.term import ModelTerm, Pattern, matching_rows
from envs.robot import position_servos

_DCMOTOR_CONTROLLER = (4, 5, 6, 7)  # kp, ki, kd and Vmax in actuator_gainprm
_VMAX = 7
_HIGHEST = 2.0


class SupplyTerm(ModelTerm):
    """A factor on the supply voltage."""

    supply: Pattern
    """Pattern or patterns of the actuators that share the supply."""

    @model_validator(mode="after")
    def _check(self) -> "SupplyTerm":
        check_effect(self, "scale")
        if self.extremes[0] == 0:
            raise ValueError("supply: without voltage nothing moves; raise the low end")
        if self.extremes[1] > _HIGHEST:
            raise ValueError(
                f"supply is a factor on the nominal voltage, at most {_HIGHEST:g}, found "
                f"{list(self.range)}; is it in volts?"
            )
        return self

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "supply"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"supply/{self.supply}/{self.when}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.supply, "scale")

    def bind(self, model: mujoco.MjModel) -> Change:
        """Resolve names in a model.

        Raises:
            ConfigError: a pattern without a match, or an actuator that knows no voltage.
        """
        field = model_field(model, "actuator_gainprm")
        chosen = np.array(matching_rows("supply", field.rows, self.supply))
        servo = position_servos(model)[chosen]
        motor = (model.actuator_gaintype[chosen] == int(mujoco.mjtGain.mjGAIN_DCMOTOR)) & (
            model.actuator_gainprm[chosen, _VMAX] > 0
        )
        if names := [field.rows[row] for row in chosen[~(servo | motor)]]:
            raise ConfigError(
                f"randomization: '{self}': {names} are neither position servos nor a <dcmotor> "
                "with Vmax, so a voltage means nothing to them; leave them out of `supply`"
            )
        parts = []
        if servo.any():
            rows = torch.tensor(chosen[servo], dtype=torch.int64)[:, None]
            gain = Place("actuator_gainprm", rows, torch.tensor([0]))
            bias = Place("actuator_biasprm", rows, torch.tensor([1, 2]))
            limit = Place("actuator_forcerange", rows, torch.arange(2))
            parts += [Part(gain, (bias,)), Part(limit)]
        if motor.any():
            rows = torch.tensor(chosen[motor], dtype=torch.int64)[:, None]
            parts.append(Part(Place("actuator_gainprm", rows, torch.tensor(_DCMOTOR_CONTROLLER))))
        return Numbers(parts, "scale", self, (1, 1))
