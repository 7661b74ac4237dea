"""What the Feetech servos we know can do.

    MODELS["STS3215-12V"].p_gain(8.2, effort_nm)     # the nearest P Coefficient

Torque, speed and the meaning of gains are those of `deploy.servos.models`; limits and gains as they
leave the factory are Feetech's memory table's. The 7.4 V and the 12 V servo have the same model
number: only the supply tells them apart, which `connect` looks at.

SCS0009: Feetech's memory table of potentiometer servos, the upper voltage from Waveshare's SC09.
SCS15: Feetech's manual of 2016, whose upper voltage, 25 V, never trips. Model numbers: Feetech's
debugging tool, as in https://github.com/Kotakku/FT_SCServo_Debug_Qt.
"""

import math
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

from deploy.feetech import registers, scs_registers
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
    PROTECTS_ITSELF: ClassVar[bool] = True
    REGISTERS: ClassVar[ModuleType] = registers
    """Its control table: a module of constants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsModel(ServoModel):
    """An SCS servo's."""

    PROTOCOLS: ClassVar[tuple[str, ...]] = ("feetech_scs",)
    REGISTERS: ClassVar[ModuleType] = scs_registers
    ticks: int = scs_registers.TICKS
    rad_per_tick: float = math.radians(300) / scs_registers.TICKS


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
        ScsModel(
            name="SCS0009",
            model_number=0x0504,
            voltage_limits_v=(4.0, 8.4),
            temperature_limit_c=70,
            position_pid=(15, 0, 0),  # assumed, the SCS15's
            baud_rates=registers.BAUD_RATES,
        ),
        ScsModel(
            name="SCS15",
            model_number=0x050F,
            voltage_limits_v=(5.0, 25.0),
            temperature_limit_c=80,
            position_pid=(15, 0, 0),
            baud_rates=registers.BAUD_RATES,
            rad_per_tick=math.radians(215) / scs_registers.TICKS,
        ),
    )
}
"""Known servo models by name."""
