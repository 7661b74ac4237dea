"""What the Feetech servos we know can do.

    MODELS["STS3215-12V"].p_gain(8.2, effort_nm)     # the nearest P Coefficient

Torque, speed and the meaning of gains are those of `deploy.servos.models`; limits and gains as they
leave the factory are Feetech's memory table's. The 7.4 V and the 12 V servo have the same model
number: only the supply tells them apart, which `connect` looks at.
"""

from dataclasses import dataclass
from typing import ClassVar

from deploy.feetech import registers
from deploy.servos.register import Register
from deploy.servos.sheet import ServoSheet

STS3215_NUMBER = 777


@dataclass(frozen=True, slots=True, kw_only=True)
class ServoModel(ServoSheet):
    """A servo model's data sheet."""

    PROTOCOLS: ClassVar[tuple[str, ...]] = ("feetech_sts",)
    P_GAIN: ClassVar[Register] = registers.P_GAIN
    D_GAIN: ClassVar[Register] = registers.D_GAIN
    MAX_GAIN: ClassVar[int] = 254


MODELS: dict[str, ServoModel] = {
    model.name: model
    for model in (
        ServoModel(
            name="STS3215-7.4V",
            model_number=STS3215_NUMBER,
            voltage_limits_v=(4.0, 8.0),
            temperature_limit_c=70,
            position_pid=(32, 0, 32),
            baud_rates=registers.BAUD_RATES,
        ),
        ServoModel(
            name="STS3215-12V",
            model_number=STS3215_NUMBER,
            voltage_limits_v=(4.0, 14.0),  # the upper one is assumed
            temperature_limit_c=70,
            position_pid=(32, 0, 32),
            baud_rates=registers.BAUD_RATES,
        ),
    )
}
"""Known servo models by name."""
