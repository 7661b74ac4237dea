"""What the DYNAMIXEL servos we know can do, and their gains in SI units.

    servo = MODELS["XL430-W250"]
    servo.kp(640)        # N·m/rad of the factory's Position P Gain
    servo.p_gain(5.5)    # the nearest Position P Gain
    servo.p_gain(5.5, joint.effort_limit)   # for a model whose motor has that torque at full duty

Sources: eManual, "Control Table" of each model, e.g.
https://emanual.robotis.com/docs/en/dxl/x/xl430-w250/, values as they leave the factory; torque,
speed and current are those of `deploy.servos.models` at `nominal_voltage_v`. The joint's sign and
zero are applied in `deploy.servos.device`; gains in SI units are in `deploy.servos.sheet`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from deploy.contract import TARGET_OF, OperatingMode
from deploy.dynamixel import registers
from deploy.errors import ConfigError
from deploy.servos.register import Register
from deploy.servos.sheet import ServoSheet
from deploy.signals import TargetKind

MAX_GAIN = 16383
MODES: Mapping[OperatingMode, registers.OperatingMode] = MappingProxyType(
    {
        "position": registers.OperatingMode.POSITION,
        "velocity": registers.OperatingMode.VELOCITY,
        "torque": registers.OperatingMode.CURRENT,
    }
)
"""What a servo's register holds for each of a contract's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServoModel(ServoSheet):
    """A servo model's data sheet."""

    PROTOCOLS: ClassVar[tuple[str, ...]] = ("dynamixel2",)
    P_GAIN: ClassVar[Register] = registers.POSITION_P_GAIN
    D_GAIN: ClassVar[Register] = registers.POSITION_D_GAIN
    MAX_GAIN: ClassVar[int] = MAX_GAIN

    current_unit_a: float | None
    """Ampere per count of current; None where Present Load takes its place."""
    current_limit: int | None
    """Current Limit in counts; None where there is none."""
    velocity_limit: int
    """Velocity Limit in counts."""
    velocity_pi: tuple[int, int]
    """Velocity P and I Gain."""
    shutdown: int
    """Shutdown mask (`HardwareError` bits)."""
    operating_modes: tuple[int, ...]
    fast_read_firmware: int
    """First firmware version that understands fast sync read."""

    @property
    def obeys(self) -> tuple[TargetKind, ...]:
        """What it can be driven by: torque where it measures its current."""
        return tuple(TARGET_OF[mode] for mode in MODES if MODES[mode] in self.operating_modes)

    @property
    def most_current_a(self) -> float:
        """Its Current Limit as it leaves the factory; 0 where it measures none."""
        return (self.current_unit_a or 0.0) * (self.current_limit or 0)

    def velocity_kd(self, p_gain: int, full_duty_nm: float | None = None) -> float:
        """Torque per error of speed [N·m·s/rad] of a Velocity P Gain; arguments as in `kp`.

        eManual, "Velocity PI Gain": duty = P/128 · counts of error / 885.
        """
        torque = self.stall_torque_nm if full_duty_nm is None else full_duty_nm
        gain = p_gain * registers.VELOCITY_P_GAIN.scale
        return gain / (registers.PWM_FULL * registers.RAD_S_PER_COUNT) * torque

    def velocity_p_gain(self, kd: float, full_duty_nm: float | None = None) -> int:
        """Velocity P Gain nearest to a torque per error of speed [N·m·s/rad]; see `p_gain`.

        Raises:
            ConfigError: the servo cannot follow that hard.
        """
        unit = self.velocity_kd(1, full_duty_nm)
        return self._gain(registers.VELOCITY_P_GAIN, kd, unit, "N·m·s/rad")

    def torque_per_count(self, full_duty_nm: float, voltage_v: float) -> float:
        """Motor torque of a count of Goal Current [N·m].

        Args:
            full_duty_nm: torque at rest and full duty of the model it is meant for.
            voltage_v: supply that belongs to that.

        Raises:
            ConfigError: the servo measures no current.
        """
        if self.current_unit_a is None:
            raise ConfigError(
                f"{self.name} measures no current, so it cannot be driven by torque; drive it by "
                "position or by speed"
            )
        return full_duty_nm * self.current_unit_a / self.full_duty_current_a(voltage_v)


_ALL_BAUD_RATES = registers.BAUD_RATES
_X330_BAUD_RATES = registers.BAUD_RATES[:-1]
_ALL_MODES = (0, 1, 3, 4, 5, 16)

MODELS: dict[str, ServoModel] = {
    model.name: model
    for model in (
        ServoModel(
            name="XL430-W250",
            model_number=1060,
            voltage_limits_v=(6.0, 14.0),
            temperature_limit_c=72,
            current_unit_a=None,
            current_limit=None,
            velocity_limit=265,
            position_pid=(640, 0, 4000),
            velocity_pi=(100, 1000),
            shutdown=52,
            operating_modes=(1, 3, 4, 16),
            baud_rates=_ALL_BAUD_RATES,
            fast_read_firmware=45,
        ),
        ServoModel(
            name="XL330-M288",
            model_number=1200,
            voltage_limits_v=(3.5, 7.0),
            temperature_limit_c=70,
            current_unit_a=1e-3,
            current_limit=1750,
            velocity_limit=445,
            position_pid=(400, 0, 0),
            velocity_pi=(180, 1600),
            shutdown=53,
            operating_modes=_ALL_MODES,
            baud_rates=_X330_BAUD_RATES,
            fast_read_firmware=46,
        ),
        ServoModel(
            name="XL330-M077",
            model_number=1190,
            voltage_limits_v=(3.5, 7.0),
            temperature_limit_c=70,
            current_unit_a=1e-3,
            current_limit=1750,
            velocity_limit=1620,
            position_pid=(400, 400, 0),
            velocity_pi=(40, 400),
            shutdown=53,
            operating_modes=_ALL_MODES,
            baud_rates=_X330_BAUD_RATES,
            fast_read_firmware=46,
        ),
        ServoModel(
            name="XM430-W350",
            model_number=1020,
            voltage_limits_v=(9.5, 16.0),
            temperature_limit_c=80,
            current_unit_a=2.69e-3,
            current_limit=1193,
            velocity_limit=350,
            position_pid=(800, 0, 0),
            velocity_pi=(100, 1920),
            shutdown=52,
            operating_modes=_ALL_MODES,
            baud_rates=_ALL_BAUD_RATES,
            fast_read_firmware=45,
        ),
    )
}
"""Known servo models by name."""
