"""What every servo model's data sheet has, whoever makes it, and its gains in SI units.

    sheet.kp(640)        # N·m/rad of a register's value
    sheet.p_gain(5.5)    # the nearest value of the register
    sheet.p_gain(5.5, joint.effort_limit)   # for a model whose motor has that torque at full duty

The position controller turns error into PWM duty, `duty_per_p` of `deploy.servos.models`, and a
stalled motor turns duty into `torque = stall_torque · duty`. A register is a duty, not a torque: a
model with friction under load, or another supply, has another torque at full duty for the same
gain. Torque also falls with speed, by `damping`, whatever the gains (back-EMF).
"""

from dataclasses import dataclass
from typing import ClassVar

from deploy.errors import ConfigError
from deploy.servos.models import SERVOS
from deploy.servos.physics import ServoPhysics
from deploy.servos.register import Register
from deploy.signals import TargetKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ServoSheet:
    """A servo model; torque, speed and current are those of `deploy.servos.models`."""

    PROTOCOLS: ClassVar[tuple[str, ...]]
    """`protocol`s of a bus it can hang on."""
    P_GAIN: ClassVar[Register]
    D_GAIN: ClassVar[Register]
    MAX_GAIN: ClassVar[int]
    PROTECTS_ITSELF: ClassVar[bool] = False
    """Whether it can be told from which torque on it does."""

    name: str
    model_number: int
    """What the servo answers when asked."""
    voltage_limits_v: tuple[float, float]
    """Outside, the servo reports an input voltage error, as it leaves the factory."""
    temperature_limit_c: int
    position_pid: tuple[int, int, int]
    """Gains of the position controller, as it leaves the factory."""
    baud_rates: tuple[int, ...]
    """It can be set to [bit/s]."""
    ticks: int = 4096
    """Counts of its encoder: 0 to one less."""
    rad_per_tick: float = 0.0015339807878856412
    """Angle of a count."""

    @property
    def obeys(self) -> tuple[TargetKind, ...]:
        """What it can be driven by on a bus."""
        return ("joint_position_target",)

    @property
    def most_current_a(self) -> float:
        """Largest current it can be told to keep to; 0 if it cannot be told."""
        return 0.0

    @property
    def physics(self) -> ServoPhysics:
        """Its motor, gears and friction."""
        return SERVOS[self.name]

    @property
    def nominal_voltage_v(self) -> float:
        """Supply that torque, speed and current below belong to."""
        return self.physics.nominal_voltage_v

    @property
    def stall_torque_nm(self) -> float:
        """As the data sheet states it."""
        return self.physics.nominal.stall_torque_nm

    @property
    def no_load_speed_rad_s(self) -> float:
        """As the data sheet states it."""
        return self.physics.nominal.no_load_speed_rad_s

    @property
    def stall_current_a(self) -> float:
        """As the data sheet states it; else what the winding draws."""
        current = self.physics.nominal.stall_current_a
        return self.nominal_voltage_v / self.physics.resistance_ohm if current is None else current

    def full_duty_current_a(self, voltage_v: float) -> float:
        """What a stalled motor draws at full duty of a supply."""
        return self.stall_current_a * voltage_v / self.nominal_voltage_v

    @property
    def damping(self) -> float:
        """Torque lost to back-EMF per joint speed [N·m·s/rad]."""
        return self.stall_torque_nm / self.no_load_speed_rad_s

    def full_duty_torques_nm(self, voltage_v: float) -> tuple[float, ...]:
        """What models of this servo have as motor torque at full duty of a supply.

        The data sheet's stall torque, that and constant friction, that and friction under load.
        """
        stall = self.stall_torque_nm * voltage_v / self.nominal_voltage_v
        motors = (self.physics.plain, self.physics)
        return stall, *(motor.drive_torque(voltage_v) for motor in motors)

    def kp(self, p_gain: int, full_duty_nm: float | None = None) -> float:
        """Stiffness of a P gain [N·m/rad].

        Args:
            p_gain: the register.
            full_duty_nm: motor torque at full duty; None for the stall torque.
        """
        torque = self.stall_torque_nm if full_duty_nm is None else full_duty_nm
        return p_gain * self.physics.duty_per_p / self.physics.max_duty * torque

    def kd(self, d_gain: int, full_duty_nm: float | None = None) -> float:
        """Damping of a D gain [N·m·s/rad], on top of `damping`; arguments as in `kp`."""
        torque = self.stall_torque_nm if full_duty_nm is None else full_duty_nm
        return d_gain * (self.physics.duty_per_d or 0.0) / self.physics.max_duty * torque

    def p_gain(self, kp: float, full_duty_nm: float | None = None) -> int:
        """P gain nearest to a stiffness [N·m/rad].

        Args:
            kp: the stiffness.
            full_duty_nm: motor torque at full duty of the model it was meant for.

        Raises:
            ConfigError: the servo cannot be that stiff.
        """
        return self._gain(self.P_GAIN, kp, self.kp(1, full_duty_nm), "N·m/rad")

    def d_gain(self, kd: float, full_duty_nm: float | None = None) -> int:
        """D gain nearest to a damping [N·m·s/rad], `damping` apart; see `p_gain`.

        The factory's where nobody has published what it does: servos are identified with it.

        Raises:
            ConfigError: the servo cannot damp that much.
        """
        if self.physics.duty_per_d is not None:
            return self._gain(self.D_GAIN, kd, self.kd(1, full_duty_nm), "N·m·s/rad")
        if kd:
            raise ConfigError(
                f"{self.name} cannot be set to {kd:g} N·m·s/rad: nobody has published what its "
                f"{self.D_GAIN} does; train with a kd of 0"
            )
        return self.position_pid[2]

    def _gain(self, register: Register, wanted: float, per_count: float, unit: str) -> int:
        counts = wanted / per_count
        if not 0 <= counts < self.MAX_GAIN + 0.5:
            raise ConfigError(
                f"{self.name} cannot be set to {wanted:g} {unit}, expected "
                f"0..{self.MAX_GAIN * per_count:.4g} ({register} 0..{self.MAX_GAIN}); "
                "lower the gain, or use a stronger servo"
            )
        return round(counts)
