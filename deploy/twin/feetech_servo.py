r"""One emulated Feetech servo: what it answers, and how it drives its motor.

    servo = FeetechServo(1, MODELS["STS3215-12V"], 1_000_000, shaft_ticks=2048)
    servo.write(40, b"\x01")                      # -> Status, as the servo would answer
    duty = servo.control(shaft_ticks, speed, now)  # every CONTROL_PERIOD_S

Defaults and protections follow Feetech's memory table; the position law, duty = P · 0.166 per rad
and 97 % at most, and the 3400 steps/s at which the firmware itself moves its goal, are those of
Rhoban BAM, by oscilloscope. Nobody has published what D and I do, so they do nothing here: BAM has
identified it with the factory's. Where sources are silent the less convenient is assumed: torque
switched on drives to an old goal, an overload lasts until torque was off, silence changes nothing
(there is no watchdog). Mode 3 and the reset instruction are not emulated. `FeetechServo` is an STS;
what an SCS does otherwise is in `deploy.twin.scs_servo`.
"""

from collections import deque
from collections.abc import Callable

from deploy.feetech import registers
from deploy.feetech.protocol import Status
from deploy.feetech.registers import (
    BAUD_RATES,
    LOAD_FULL,
    TICKS_PER_TURN,
    Fault,
    Mode,
    Register,
)
from deploy.feetech.servos import ServoModel
from deploy.servos.models import CONTROL_PERIOD_S
from deploy.twin.controllers import clip
from deploy.twin.heat import AIR_C
from deploy.twin.profile import by_velocity

FIRMWARE = (3, 10)
BOOT_S = 0.25
"""From power-up until it answers; assumed."""
SPEED_FILTER_S = 0.005
"""Time constant of Present Velocity; assumed."""
MAKE_MIDDLE = 128
"""Written to Torque Enable, it makes where the shaft is the middle of the turn."""

_SIZE = 86
_FACTORY: dict[Register, int] = {
    registers.FIRMWARE_MAJOR: FIRMWARE[0],
    registers.FIRMWARE_MINOR: FIRMWARE[1],
    registers.RETURN_DELAY_TIME: 250,
    registers.RESPONSE_LEVEL: 1,
    registers.MAX_POSITION_LIMIT: TICKS_PER_TURN - 1,
    registers.MAX_TORQUE: LOAD_FULL,
    registers.PHASE: 12,
    registers.UNLOAD_CONDITION: Fault.OVERHEATING | Fault.OVER_CURRENT | Fault.OVERLOAD,
    registers.LED_ALARM: 47,
    registers.MINIMUM_STARTUP_FORCE: 16,
    registers.CW_DEAD_ZONE: 1,
    registers.CCW_DEAD_ZONE: 1,
    registers.PROTECTION_CURRENT: 500,
    registers.ANGULAR_RESOLUTION: 1,
    registers.PROTECTIVE_TORQUE: 20,
    registers.PROTECTION_TIME: 200,
    registers.OVERLOAD_TORQUE: 80,
    registers.SPEED_P_GAIN: 10,
    registers.OVER_CURRENT_TIME: 200,
    registers.SPEED_I_GAIN: 10,
}
"""What leaves the factory, where it is not 0; of the speed gains that is assumed."""


class FeetechServo:
    """A servo on the bus. Its shaft's angle and speed come from outside, through `control`."""

    FULL_DUTY = 1.0
    """What `control` returns at full duty."""
    SYNC_READS = True
    """Whether it answers a sync read."""
    FACTORY = _FACTORY
    """What leaves the factory, where it is not 0 or the model's."""

    def __init__(
        self,
        id: int,
        model: ServoModel,
        baud_rate: int,
        *,
        shaft_ticks: float,
        voltage_v: float | None = None,
        command_latency_s: float = 0.0,
        now_s: float = 0.0,
    ):
        """Power up a servo.

        Args:
            id: its id.
            model: its data sheet.
            baud_rate: what its Baud Rate register says [bit/s].
            shaft_ticks: shaft angle in encoder counts, neither rounded nor wrapped.
            voltage_v: supply; None for the nominal one.
            command_latency_s: time from a goal's arrival to its use by the controller.
            now_s: the time.
        """
        self.model = model
        self.registers = model.REGISTERS
        """Its control table."""
        self._writable = {
            address
            for register in self.registers.CONTROL_TABLE
            if not register.read_only
            for address in range(register.address, register.address + register.size)
        }
        self.voltage_v = model.nominal_voltage_v if voltage_v is None else voltage_v
        """What its supply gives while nobody draws current."""
        self.sag_v = 0.0
        """What the supply has lost since, for the current that is drawn."""
        self.torque_on = False
        """The motor is driven; otherwise it coasts."""
        self.temperature_c = AIR_C
        """How warm it is; see `deploy.twin.heat`."""
        self.boot_s = BOOT_S
        """How long it is silent after power-up."""
        self.on_write: Callable[[Register, int, int], None] = lambda register, value, error: None
        """Told of every register of every write and 0, before it takes effect."""
        self._command_latency_s = command_latency_s
        self._raw_shaft, self._raw_speed, self._now_s = shaft_ticks, 0.0, now_s
        self._table = bytearray(_SIZE)
        for register, value in self.FACTORY.items():
            self._set(register, value)
        self._set(registers.ID, id)
        self._set(registers.BAUD_RATE, BAUD_RATES.index(baud_rate))
        self._fill_from_sheet()
        self._kept = bytes(self._table[: Register.EEPROM_SIZE])
        self._boot()
        self._silent_until_s = now_s

    @property
    def id(self) -> int:
        """Id it answers to."""
        return self._get(registers.ID)

    @property
    def return_delay_s(self) -> float:
        """Pause before each of its replies."""
        return self._scaled(registers.RETURN_DELAY_TIME)

    @property
    def supply_v(self) -> float:
        """The voltage at its connector."""
        return self.voltage_v - self.sag_v

    @property
    def answers_writes(self) -> bool:
        """Whether it answers more than pings and reads."""
        return bool(self._get(registers.RESPONSE_LEVEL))

    def listens(self, baud_rate: int, now_s: float) -> bool:
        """Whether it understands what is sent at `baud_rate` now."""
        own = self._get(registers.BAUD_RATE)
        known = own < len(BAUD_RATES) and baud_rate == BAUD_RATES[own]
        return known and now_s >= self._silent_until_s

    def hush(self, until_s: float) -> None:
        """Hear and say nothing until then: its plug is out of the bus."""
        self._silent_until_s = until_s

    def force(self, register: Register, value: int) -> None:
        """Make a register hold a value, whoever may write to it."""
        self._set(register, value)
        self._reload()

    def hear(self, now_s: float) -> None:
        """An instruction packet passed on the bus."""
        self._now_s = now_s

    def ping(self) -> Status:
        """It is there."""
        return Status(self.id, faults=self._get(registers.STATUS))

    def read(self, address: int, length: int) -> Status:
        """The bytes of part of the table; zeros where there are no registers."""
        self._refresh()
        data = bytes(self._table[address : address + length]).ljust(length, b"\0")
        return Status(self.id, data, self._get(registers.STATUS))

    def write(self, address: int, data: bytes) -> Status:
        """Write bytes; what is read-only, or no register, stays as it is."""
        status = self.ping()  # now: a new id does not sign its own receipt
        touched = range(address, address + len(data))
        changed = bytearray(self._table)
        for place, byte in zip(touched, data, strict=True):
            if place in self._writable:
                changed[place] = byte
        written = [
            (register, register.decode(bytes(changed[register.address :][: register.size])))
            for register in self.registers.CONTROL_TABLE
            if register.address in touched and register.address in self._writable
        ]
        for register, value in written:
            self.on_write(register, value, 0)
        for register, value in written:
            self._write(register, value)
        return status

    def reg_write(self, address: int, data: bytes) -> Status:
        """As `write`, but held back until `action`."""
        self._registered = (address, data)
        self._set(registers.ASYNC_WRITE, 1)
        return self.ping()

    def action(self) -> Status:
        """Carry out what `reg_write` held back, if there is something."""
        registered, self._registered = self._registered, None
        self._set(registers.ASYNC_WRITE, 0)
        return self.write(*registered) if registered else self.ping()

    def reboot(self) -> None:
        """The power goes off and on: torque off, what is not kept is forgotten."""
        self._boot()

    def control(self, shaft_ticks: float, speed_rad_s: float, now_s: float) -> float:
        """One control period.

        Args:
            shaft_ticks: shaft angle in encoder counts, neither rounded nor wrapped.
            speed_rad_s: shaft speed.
            now_s: time.

        Returns:
            Duty for the next period; 1 is all that the firmware gives.
        """
        self._raw_shaft, self._raw_speed, self._now_s = shaft_ticks, speed_rad_s, now_s
        self._filtered += (speed_rad_s - self._filtered) * (CONTROL_PERIOD_S / SPEED_FILTER_S)
        while self._arriving and self._arriving[0][0] <= now_s + 1e-9:
            self._use(self._arriving.popleft()[1])
        self._protect()
        self._duty = clip(self._law(), self._limit()) if self.torque_on else 0.0
        return self._duty

    def motor_current_a(self, duty: float, speed_rad_s: float) -> float:
        """Motor current at a duty and a shaft speed."""
        physics = self.model.physics
        drive_v = duty * physics.max_duty * self.supply_v
        return (drive_v - physics.kt * speed_rad_s) / physics.resistance_ohm

    def _law(self) -> float:
        """Duty that the operating mode asks for."""
        if self._mode == Mode.PWM:
            return self._get(self.registers.GOAL_TIME) / LOAD_FULL
        if self._mode == Mode.SPEED:
            self._turned += self._get(self.registers.GOAL_SPEED) * CONTROL_PERIOD_S
            error = self._turned - self._raw_shaft
        else:
            self._motion = self._plan.at(self._now_s - self._planned_s)
            error = self._motion[0] - self._present
        dead = registers.CCW_DEAD_ZONE if error > 0 else registers.CW_DEAD_ZONE
        if abs(error) <= self._get(dead):
            return 0.0
        return self._gain * error

    def _limit(self) -> float:
        """Largest duty it may give."""
        limit = self._scaled(self._torque_limit)
        if self._get(registers.STATUS) & Fault.OVERLOAD:
            limit = min(limit, self._scaled(self.registers.PROTECTIVE_TORQUE))
        return limit

    def _protect(self) -> None:
        """Faults, and what the servo does about those that Unloading Condition names."""
        status, enabled = self._get(registers.STATUS), self._get(registers.UNLOAD_CONDITION)
        low_v, high_v = self._scaled(registers.MIN_VOLTAGE), self._scaled(registers.MAX_VOLTAGE)
        off = not low_v <= self.supply_v <= high_v
        status = status | Fault.INPUT_VOLTAGE if off else status & ~Fault.INPUT_VOLTAGE
        too_much = abs(self._duty) > self._scaled(self.registers.OVERLOAD_TORQUE)
        self._overloaded_s = self._overloaded_s + CONTROL_PERIOD_S if too_much else 0.0
        if self._overloaded_s > self._scaled(self.registers.PROTECTION_TIME) > 0:
            status |= enabled & Fault.OVERLOAD
        if self._draws_too_much():
            status |= enabled & Fault.OVER_CURRENT
        self._set(registers.STATUS, status)
        if status & enabled & ~Fault.OVERLOAD and self.torque_on:
            self._set(registers.TORQUE_ENABLE, 0)
            self.torque_on = False

    def _draws_too_much(self) -> bool:
        """Whether the current has been too much for too long."""
        current_a = abs(self.motor_current_a(self._duty, self._raw_speed))
        too_much = self.torque_on and current_a > self._scaled(registers.PROTECTION_CURRENT)
        self._shorted_s = self._shorted_s + CONTROL_PERIOD_S if too_much else 0.0
        return self._shorted_s > self._scaled(registers.OVER_CURRENT_TIME) > 0

    @property
    def _present(self) -> int:
        """Present Position: within a turn, less the correction."""
        corrected = round(self._raw_shaft) - self._get(registers.HOMING_OFFSET)
        if self._get(registers.PHASE) & registers.MULTI_TURN:
            return corrected
        return corrected % TICKS_PER_TURN

    @property
    def _torque_limit(self) -> Register:
        """What bounds the duty."""
        return registers.TORQUE_LIMIT

    def _fill_from_sheet(self) -> None:
        """What leaves the factory, as the model's data sheet has it."""
        low_v, high_v = self.model.voltage_limits_v
        p_gain, _, d_gain = self.model.position_pid
        self._set(self.registers.MODEL_NUMBER, self.model.model_number)
        self._set(registers.MAX_TEMPERATURE, self.model.temperature_limit_c)
        self._set(registers.MAX_VOLTAGE, round(high_v / registers.MAX_VOLTAGE.scale))
        self._set(registers.MIN_VOLTAGE, round(low_v / registers.MIN_VOLTAGE.scale))
        self._set(registers.P_GAIN, p_gain)
        self._set(registers.D_GAIN, d_gain)

    def _boot(self) -> None:
        self._table[: Register.EEPROM_SIZE] = self._kept
        self._table[Register.EEPROM_SIZE :] = bytes(_SIZE - Register.EEPROM_SIZE)
        self._set(self._torque_limit, self._get(self.registers.MAX_TORQUE))
        self._set(self.registers.LOCK, 1)
        self._set(registers.PRESENT_TEMPERATURE, round(self.temperature_c))
        self._set(self.registers.GOAL_POSITION, self._present)
        self._registered: tuple[int, bytes] | None = None
        self._arriving: deque[tuple[float, int]] = deque()
        self._goal = self._present
        self._silent_until_s = self._now_s + self.boot_s
        self._filtered = self._duty = self._overloaded_s = self._shorted_s = 0.0
        self._reload()
        self._start()

    def _start(self) -> None:
        """At rest, and off to the goal."""
        self._turned = self._raw_shaft
        self._motion = (float(self._present), 0.0, 0.0)
        self._replan()

    def _replan(self) -> None:
        """A trajectory from where the present one is to the goal."""
        low = self._get(self.registers.MIN_POSITION_LIMIT)
        high = self._get(self.registers.MAX_POSITION_LIMIT)
        goal = min(max(self._goal, low), high) if low < high else self._goal
        position, velocity, _ = self._motion
        fastest = self.model.physics.goal_speed_rad_s
        own = fastest / self.model.rad_per_tick if fastest else 0.0
        asked = abs(self._get(self.registers.GOAL_SPEED))
        speed = min(asked, own) if asked and own else asked or own
        self._plan = by_velocity(
            position, velocity, goal, max_velocity=speed, acceleration=self._ramp
        )
        self._planned_s = self._now_s

    @property
    def _ramp(self) -> float:
        """Acceleration of the goal [counts/s²]; 0 for no limit."""
        return self._scaled(registers.ACCELERATION) / self.model.rad_per_tick

    def _use(self, goal: int) -> None:
        """A goal has made its way to the controller."""
        self._goal = goal
        self._replan()

    def _write(self, register: Register, value: int) -> None:
        if register is registers.MODE and value not in (Mode.POSITION, Mode.SPEED, Mode.PWM):
            return
        if register is registers.TORQUE_ENABLE:
            if value == MAKE_MIDDLE:
                self._make_middle()
                return
            if value and not self.torque_on:
                self._arriving.clear()
                self._goal = self._get(self.registers.GOAL_POSITION)
                self._start()
            if not value:  # switched off, an overload is over
                self._set(registers.STATUS, self._get(registers.STATUS) & ~Fault.OVERLOAD)
        self._set(register, value)
        if register.in_eeprom and not self._get(self.registers.LOCK):
            self._keep()
        if register is self.registers.GOAL_POSITION:
            self._arriving.append((self._now_s + self._command_latency_s, value))
        self._reload()

    def _make_middle(self) -> None:
        """Position Correction so that the shaft now reads the middle of the turn."""
        half = TICKS_PER_TURN // 2
        offset = (round(self._raw_shaft) - half + half) % TICKS_PER_TURN - half
        self._set(registers.HOMING_OFFSET, min(max(offset, 1 - half), half - 1))
        self._keep()

    def _keep(self) -> None:
        self._kept = bytes(self._table[: Register.EEPROM_SIZE])

    def _reload(self) -> None:
        """Decode what is needed every millisecond."""
        self.torque_on = bool(self._get(registers.TORQUE_ENABLE))
        self._mode = self._operating_mode
        physics = self.model.physics
        share_per_rad = self._get(registers.P_GAIN) * physics.duty_per_p / physics.max_duty
        self._gain = share_per_rad * self.model.rad_per_tick

    @property
    def _operating_mode(self) -> int:
        return self._get(registers.MODE)

    def _refresh(self) -> None:
        """Bring the registers that describe the motion up to date."""
        speed = self._filtered / self.model.rad_per_tick
        self._set(self.registers.PRESENT_POSITION, self._present)
        self._set(self.registers.PRESENT_SPEED, round(speed))
        self._set(self.registers.PRESENT_LOAD, round(self._duty * LOAD_FULL))
        self._set(registers.PRESENT_VOLTAGE, round(self.supply_v / registers.PRESENT_VOLTAGE.scale))
        self._set(registers.PRESENT_TEMPERATURE, round(self.temperature_c))
        self._set(registers.MOVING, abs(speed) > 10)
        self._measure_current()

    def _measure_current(self) -> None:
        current_a = self.motor_current_a(self._duty, self._filtered) if self.torque_on else 0.0
        self._set(registers.PRESENT_CURRENT, round(current_a / registers.PRESENT_CURRENT.scale))

    def _get(self, register: Register) -> int:
        start = register.address
        return register.decode(bytes(self._table[start : start + register.size]))

    def _scaled(self, register: Register) -> float:
        return self._get(register) * register.scale

    def _set(self, register: Register, value: int) -> None:
        start = register.address
        self._table[start : start + register.size] = register.encode(int(value))
