"""What the DYNAMIXEL servos we know can do, and their gains in SI units.

    servo = MODELS["XL430-W250"]
    servo.kp(640)        # N·m/rad of the factory's Position P Gain
    servo.p_gain(5.5)    # the nearest Position P Gain
    servo.p_gain(5.5, joint.effort_limit)   # for a model whose motor has that torque at full duty

Sources: eManual, "Control Table" of each model, e.g.
https://emanual.robotis.com/docs/en/dxl/x/xl430-w250/, values as they leave the factory; torque,
speed and current are those of `deploy.servo_models` at `nominal_voltage_v`. The joint's sign and
zero are applied in `deploy.robot`.

The position controller turns error into PWM duty, `duty_per_p` of `deploy.servo_models`, and a
stalled motor turns duty into `torque = stall_torque · duty`. A register is a duty, not a torque: a
model with friction under load, or another supply, has another torque at full duty for the same
gain. Torque also falls with speed, by `damping`, whatever the gains (back-EMF).
"""

from dataclasses import dataclass

from deploy.dynamixel.registers import POSITION_D_GAIN, POSITION_P_GAIN, Register
from deploy.errors import ConfigError
from deploy.servo_models import SERVOS
from deploy.servo_physics import ServoPhysics

MAX_GAIN = 16383


@dataclass(frozen=True, slots=True, kw_only=True)
class ServoModel:
    """A servo model's data sheet."""

    name: str
    model_number: int
    """What the servo answers to a ping."""
    voltage_limits_v: tuple[float, float]
    """Min and Max Voltage Limit: outside, the servo reports an input voltage error."""
    temperature_limit_c: int
    current_unit_a: float | None
    """Ampere per count of current; None where Present Load takes its place."""
    current_limit: int | None
    """Current Limit in counts; None where there is none."""
    velocity_limit: int
    """Velocity Limit in counts."""
    position_pid: tuple[int, int, int]
    """Position P, I and D Gain."""
    velocity_pi: tuple[int, int]
    """Velocity P and I Gain."""
    shutdown: int
    """Shutdown mask (`HardwareError` bits)."""
    operating_modes: tuple[int, ...]
    max_baud_rate: int
    """Last of `BAUD_RATES` that it has [bit/s]."""
    fast_read_firmware: int
    """First firmware version that understands fast sync read."""

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
        """As the data sheet states it."""
        current = self.physics.nominal.stall_current_a
        assert current is not None, f"the data sheet of {self.name} states none"
        return current

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
        """Stiffness of a Position P Gain [N·m/rad].

        Args:
            p_gain: the register.
            full_duty_nm: motor torque at full duty; None for the stall torque.
        """
        torque = self.stall_torque_nm if full_duty_nm is None else full_duty_nm
        return p_gain * self.physics.duty_per_p * torque

    def kd(self, d_gain: int, full_duty_nm: float | None = None) -> float:
        """Damping of a Position D Gain [N·m·s/rad], on top of `damping`; arguments as in `kp`."""
        torque = self.stall_torque_nm if full_duty_nm is None else full_duty_nm
        assert self.physics.duty_per_d is not None, "known for every X servo"
        return d_gain * self.physics.duty_per_d * torque

    def p_gain(self, kp: float, full_duty_nm: float | None = None) -> int:
        """Position P Gain nearest to a stiffness [N·m/rad].

        Args:
            kp: the stiffness.
            full_duty_nm: motor torque at full duty of the model it was meant for.

        Raises:
            ConfigError: the servo cannot be that stiff.
        """
        return self._gain(POSITION_P_GAIN, kp, self.kp(1, full_duty_nm), "N·m/rad")

    def d_gain(self, kd: float, full_duty_nm: float | None = None) -> int:
        """Position D Gain nearest to a damping [N·m·s/rad], `damping` apart; see `p_gain`.

        Raises:
            ConfigError: the servo cannot damp that much.
        """
        return self._gain(POSITION_D_GAIN, kd, self.kd(1, full_duty_nm), "N·m·s/rad")

    def _gain(self, register: Register, wanted: float, per_count: float, unit: str) -> int:
        counts = wanted / per_count
        if not 0 <= counts < MAX_GAIN + 0.5:
            raise ConfigError(
                f"{self.name} cannot be set to {wanted:g} {unit}, expected "
                f"0..{MAX_GAIN * per_count:.4g} ({register} 0..{MAX_GAIN}); "
                "lower the gain, or use a stronger servo"
            )
        return round(counts)


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
            max_baud_rate=4_500_000,
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
            max_baud_rate=4_000_000,
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
            max_baud_rate=4_000_000,
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
            max_baud_rate=4_500_000,
            fast_read_firmware=45,
        ),
    )
}
"""Known servo models by name."""
