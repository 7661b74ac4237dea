r"""One emulated DYNAMIXEL X servo: what it answers, and how it drives its motor.

    servo = Servo(1, MODELS["XL330-M288"], 1_000_000, shaft_ticks=2048)
    servo.write(64, b"\x01")                      # -> Status, as the servo would answer
    pwm = servo.control(shaft_ticks, speed, now)  # every CONTROL_PERIOD_S

Sources: eManual, the description of each register, and "DYNAMIXEL Protocol 2.0". Where they are
silent the less convenient behaviour is assumed: torque switched on drives to the goal register's
old value (so XL330s do: pollen-robotics/reachy_mini #1136), a bus watchdog that is cleared lets it
go on at the speed or current it was told before, torque on is ignored after a shutdown, a reboot
takes `BOOT_S`. The current controller is perfect. Heat never trips the shutdown, and the
following error bit of Moving Status stays 0. A PWM Slope of 0 is taken for none.
`deploy.twin.control_table` lists what is refused.
"""

import math
from collections import deque
from collections.abc import Callable

from deploy.dynamixel import registers
from deploy.dynamixel.protocol import ErrorCode, FactoryReset, Instruction, Status
from deploy.dynamixel.registers import (
    BAUD_RATES,
    BUS_WATCHDOG_TRIPPED,
    PWM_FULL,
    RAD_PER_TICK,
    RAD_S2_PER_COUNT,
    RAD_S_PER_COUNT,
    TICKS_PER_TURN,
    HardwareError,
    OperatingMode,
    Register,
)
from deploy.dynamixel.servos import ServoModel
from deploy.servos.models import CONTROL_PERIOD_S
from deploy.twin.control_table import (
    FIRMWARE,
    GOALS,
    REVERSE,
    TIME_BASED_PROFILE,
    TORQUE_ON_BY_GOAL,
    ControlTable,
)
from deploy.twin.controllers import PositionController, VelocityController, clip
from deploy.twin.heat import AIR_C
from deploy.twin.profile import by_time, by_velocity

VELOCITY_FILTER_S = 0.005
"""Time constant of Present Velocity; assumed, ROBOTIS does not publish it."""
BOOT_S = 0.25
"""From a reboot until it answers again; assumed, ROBOTIS does not publish it."""
IN_POSITION_TICKS = 10
"""Farthest from the goal that counts as arrived in Moving Status; assumed."""

_CLEAR_TURNS = b"\x01\x44\x58\x4c\x22"
_FARTHEST_HOMING_IN_A_TURN = 1024
_TICKS_S_PER_COUNT = RAD_S_PER_COUNT / RAD_PER_TICK
_TICKS_S2_PER_COUNT = RAD_S2_PER_COUNT / RAD_PER_TICK
_IN_POSITION, _PROFILE_ONGOING, _PROFILE_TYPE_SHIFT = 1, 2, 4
_POSITION_MODES = (
    OperatingMode.POSITION,
    OperatingMode.EXTENDED_POSITION,
    OperatingMode.CURRENT_BASED_POSITION,
)
_LEVEL_NEEDED: dict[int, int] = {Instruction.PING: 0, Instruction.READ: 1}
"""Lowest Status Return Level at which an instruction is answered; 2 for the others."""
_KEPT = {
    FactoryReset.ALL: (),
    FactoryReset.ALL_BUT_ID: (registers.ID,),
    FactoryReset.ALL_BUT_ID_AND_BAUD_RATE: (registers.ID, registers.BAUD_RATE),
}

WriteListener = Callable[[Register, int, int], None]
"""Register, value, and the error code that refuses the write it is part of, or 0."""


class Servo:
    """A servo on the bus. Its shaft's angle and speed come from outside, through `control`."""

    FULL_DUTY = PWM_FULL
    """What `control` returns at full duty."""
    registers = registers

    def __init__(
        self,
        id: int,
        model: ServoModel,
        baud_rate: int,
        *,
        shaft_ticks: float,
        voltage_v: float | None = None,
        command_latency_s: float = 0.0,
        firmware: int = FIRMWARE,
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
            firmware: its version.
            now_s: the time.
        """
        self.model = model
        self.voltage_v = model.nominal_voltage_v if voltage_v is None else voltage_v
        """What its supply gives while nobody draws current."""
        self.sag_v = 0.0
        """What the supply has lost since, for the current that is drawn."""
        self.torque_on = False
        """The motor is driven; otherwise it coasts."""
        self.temperature_c = AIR_C
        """How warm it is; see `deploy.twin.heat`."""
        self.boot_s = BOOT_S
        """How long it is silent after a reboot."""
        self.on_write: WriteListener = lambda register, value, error: None
        """Told of every register of every write, accepted or not, before it takes effect."""
        self._command_latency_s = command_latency_s
        self._raw_shaft, self._raw_speed, self._now_s = shaft_ticks, 0.0, now_s
        self._position = PositionController()
        self._pwm_per_p = model.physics.duty_per_p * PWM_FULL * RAD_PER_TICK
        """PWM counts per count of error and unit of the Position P Gain."""
        self._velocity = VelocityController()
        self._table = ControlTable(model, firmware)
        self._table.set(registers.ID, id)
        self._table.set(registers.BAUD_RATE, BAUD_RATES.index(baud_rate))
        self._boot()
        self._silent_until_s = now_s

    @property
    def id(self) -> int:
        """Id it answers to."""
        return self._table.get(registers.ID)

    @property
    def return_delay_s(self) -> float:
        """Pause before each of its replies."""
        return self._table.scaled(registers.RETURN_DELAY_TIME)

    @property
    def supply_v(self) -> float:
        """The voltage at its connector."""
        return self.voltage_v - self.sag_v

    def listens(self, baud_rate: int, now_s: float) -> bool:
        """Whether it understands what is sent at `baud_rate` now."""
        own = BAUD_RATES[self._table.get(registers.BAUD_RATE)]
        return baud_rate == own and now_s >= self._silent_until_s

    def hush(self, until_s: float) -> None:
        """Hear and say nothing until then: its plug is out of the bus."""
        self._silent_until_s = until_s

    def force(self, register: Register, value: int) -> None:
        """Make a register hold a value, whoever may write to it."""
        self._table.set(register, value)
        self._reload()

    @property
    def reads_fast(self) -> bool:
        """Whether its firmware knows fast reads."""
        version = self._table.get(registers.FIRMWARE_VERSION)
        return version >= self.model.fast_read_firmware

    def answers(self, instruction: int) -> bool:
        """Whether Status Return Level lets it answer; READ stands for reads of any kind."""
        level = self._table.get(registers.STATUS_RETURN_LEVEL)
        return level >= _LEVEL_NEEDED.get(instruction, 2)

    def hear(self, now_s: float) -> None:
        """An instruction packet passed on the bus, whoever it was for: it feeds the watchdog."""
        self._heard_s = self._now_s = now_s

    def ping(self) -> Status:
        """Model number and firmware version."""
        numbers = (registers.MODEL_NUMBER, registers.FIRMWARE_VERSION)
        return self._status(b"".join(part.encode(self._table.get(part)) for part in numbers))

    def read(self, address: int, length: int) -> Status:
        """The bytes of part of the control table."""
        self._refresh()
        data = self._table.read(address, length)
        return self._status(error=ErrorCode.ACCESS) if data is None else self._status(data)

    def write(self, address: int, data: bytes) -> Status:
        """Write whole registers: all of them or, with an error, none."""
        values, error = self._table.check(address, data)
        status = self._status(error=error)  # now: a new id does not sign its own receipt
        for register, value in values.items():
            self.on_write(register, value, error)
        if not error:
            for register, value in values.items():
                self._write(register, value)
            self._reload()
        return status

    def reg_write(self, address: int, data: bytes) -> Status:
        """As `write`, but held back until `action`."""
        _, error = self._table.check(address, data)
        if not error:
            self._registered = (address, data)
            self._table.set(registers.REGISTERED_INSTRUCTION, 1)
        return self._status(error=error)

    def action(self) -> Status:
        """Carry out what `reg_write` held back."""
        if self._registered is None:
            return self._status(error=ErrorCode.INSTRUCTION)
        registered, self._registered = self._registered, None
        self._table.set(registers.REGISTERED_INSTRUCTION, 0)
        return self.write(*registered)

    def clear(self, parameters: bytes) -> Status:
        """Bring Present Position back into one turn; only while the shaft stands still."""
        if len(parameters) < len(_CLEAR_TURNS):
            return self._status(error=ErrorCode.DATA_LENGTH)
        if parameters != _CLEAR_TURNS:
            return self._status(error=ErrorCode.DATA_RANGE)
        if self._is_moving():
            return self._status(error=ErrorCode.RESULT_FAIL)
        self._forget_turns()
        return self._status()

    def reboot(self) -> Status:
        """Torque off, RAM back to its defaults, hardware errors forgotten, silent for a while."""
        status = self._status()
        self._boot()
        return status

    def factory_reset(self, what: int) -> Status:
        """Registers back to their factory values, except id and baud rate as asked."""
        if what not in _KEPT:
            return self._status(error=ErrorCode.DATA_RANGE)
        status = self._status()
        kept = {register: self._table.get(register) for register in _KEPT[FactoryReset(what)]}
        self._table.reset_eeprom()
        for register, value in kept.items():
            self._table.set(register, value)
        self._boot()
        return status

    def refuse(self, error: ErrorCode) -> Status:
        """Its answer to an instruction it can make nothing of."""
        return self._status(error=error)

    def control(self, shaft_ticks: float, speed_rad_s: float, now_s: float) -> float:
        """One control period.

        Args:
            shaft_ticks: shaft angle in encoder counts, neither rounded nor wrapped.
            speed_rad_s: shaft speed.
            now_s: time.

        Returns:
            PWM for the next period in counts; `PWM_FULL` is the whole supply voltage.
        """
        self._raw_shaft, self._raw_speed, self._now_s = shaft_ticks, speed_rad_s, now_s
        speed = self._speed
        self._filtered += (speed - self._filtered) * (CONTROL_PERIOD_S / VELOCITY_FILTER_S)
        self._check_voltage()
        self._check_watchdog()
        while self._arriving and self._arriving[0][0] <= now_s + 1e-9:
            self._use(*self._arriving.popleft()[1:])
        if self.torque_on:
            change = self._law(speed) - self._pwm
            self._pwm += clip(change, self._pwm_slope / self.supply_v)
        else:
            self._pwm = 0.0
        return self._sign * self._pwm

    def motor_current_a(self, duty: float, speed_rad_s: float) -> float:
        """Motor current at a duty and a shaft speed, by the data sheet's stall and no load."""
        drive = duty * self.supply_v / self.model.nominal_voltage_v
        return (drive - speed_rad_s / self.model.no_load_speed_rad_s) * self.model.stall_current_a

    def _law(self, speed: float) -> float:
        """PWM the operating mode asks for."""
        limit = self._position.pwm_limit
        match self._mode:
            case OperatingMode.PWM:
                return self._goals[registers.GOAL_PWM]
            case OperatingMode.VELOCITY:
                return self._velocity.step(self._goals[registers.GOAL_VELOCITY], speed)
            case OperatingMode.CURRENT:
                current = self._goals[registers.GOAL_CURRENT]
                return clip(self._pwm_for_current(current, speed), limit)
        self._motion = self._plan.at(self._now_s - self._planned_s)
        pwm = self._position.step(self._motion, self._present, speed)
        if self._mode == OperatingMode.CURRENT_BASED_POSITION:
            most = abs(self._goals[registers.GOAL_CURRENT])
            low, high = self._pwm_for_current(-most, speed), self._pwm_for_current(most, speed)
            pwm = clip(min(max(pwm, low), high), limit)
        return pwm

    def _pwm_for_current(self, counts: float, speed: float) -> float:
        """PWM that drives a current through the motor as it turns."""
        model = self.model
        assert model.current_unit_a is not None, f"{model.name} has no mode that needs a current"
        drive = counts * model.current_unit_a / model.stall_current_a
        drive += speed / model.no_load_speed_rad_s
        return drive * model.nominal_voltage_v / self.supply_v * PWM_FULL

    @property
    def _speed(self) -> float:
        """Shaft speed [rad/s] in the direction Drive Mode counts."""
        return self._sign * self._raw_speed

    @property
    def _present(self) -> int:
        return round(self._sign * self._raw_shaft) + self._offset

    def _check_voltage(self) -> None:
        low_v, high_v = self._voltage_limits_v
        if not low_v <= self.supply_v <= high_v:
            errors = self._table.get(registers.HARDWARE_ERROR_STATUS)
            if not errors & HardwareError.INPUT_VOLTAGE:
                errors |= HardwareError.INPUT_VOLTAGE
                self._table.set(registers.HARDWARE_ERROR_STATUS, errors)
            if self.torque_on and self._is_shut_down():
                self._table.set(registers.TORQUE_ENABLE, 0)
                self._reload()

    def _check_watchdog(self) -> None:
        """After too long a silence: stop where it is, and lock the goals."""
        if self.torque_on and 0 < self._watchdog_s < self._now_s - self._heard_s:
            self._arriving.clear()
            self._table.set(registers.PROFILE_VELOCITY, 0)
            self._table.set(registers.PROFILE_ACCELERATION, 0)
            self._table.set(registers.BUS_WATCHDOG, BUS_WATCHDOG_TRIPPED)
            self._reload()
            if self._mode in _POSITION_MODES:
                self._table.set(registers.GOAL_POSITION, self._present)
                self._use(registers.GOAL_POSITION, self._present)
            else:
                self._goals.update(dict.fromkeys(GOALS, 0))

    def _is_shut_down(self) -> bool:
        errors = self._table.get(registers.HARDWARE_ERROR_STATUS)
        return bool(errors & self._table.get(registers.SHUTDOWN))

    def _is_moving(self) -> bool:
        counts = abs(round(self._filtered / RAD_S_PER_COUNT))
        return counts > self._table.get(registers.MOVING_THRESHOLD) or self._profile_ongoing()

    def _profile_ongoing(self) -> bool:
        return self.torque_on and self._now_s - self._planned_s < self._plan.duration_s

    def _boot(self) -> None:
        self._table.reset_ram()
        self._registered: tuple[int, bytes] | None = None
        self._arriving: deque[tuple[float, Register, int]] = deque()
        self._booted_s = self._heard_s = self._now_s
        self._silent_until_s = self._now_s + self.boot_s
        self._filtered = self._pwm = 0.0
        self._reload()
        self._forget_turns()
        self._table.set(registers.GOAL_POSITION, self._present)
        self._goals = {goal: self._table.get(goal) for goal in GOALS}
        self._start()

    def _start(self) -> None:
        """All controllers at rest, and off to the goal."""
        self._position.start()
        self._velocity.start()
        self._motion = (float(self._present), 0.0, 0.0)
        self._replan()

    def _replan(self) -> None:
        """A trajectory from where the present one is to the goal."""
        position, velocity, _ = self._motion
        goal = self._goals[registers.GOAL_POSITION]
        limit, ramp = (
            self._table.get(register)
            for register in (registers.PROFILE_VELOCITY, registers.PROFILE_ACCELERATION)
        )
        if self._time_based:
            self._plan = by_time(
                position, velocity, goal, span_s=limit * 1e-3, acceleration_s=ramp * 1e-3
            )
        else:
            limit = min(limit, self._table.get(registers.VELOCITY_LIMIT))
            self._plan = by_velocity(
                position,
                velocity,
                goal,
                max_velocity=limit * _TICKS_S_PER_COUNT,
                acceleration=ramp * _TICKS_S2_PER_COUNT,
            )
        self._planned_s = self._now_s

    def _forget_turns(self) -> None:
        """Present Position as after power-up: within a turn, plus Homing Offset."""
        turns = math.floor(round(self._sign * self._raw_shaft) / TICKS_PER_TURN)
        homing = self._table.get(registers.HOMING_OFFSET)
        if self._mode == OperatingMode.POSITION and abs(homing) > _FARTHEST_HOMING_IN_A_TURN:
            homing = 0
        self._offset = homing - turns * TICKS_PER_TURN

    def _write(self, register: Register, value: int) -> None:
        if register is registers.TORQUE_ENABLE and value:
            if self._is_shut_down():
                return
            if not self.torque_on:
                self._switch_on()
        found = self._table.get(register)
        changed = value != found
        self._table.set(register, value)
        if register is registers.BUS_WATCHDOG and found == BUS_WATCHDOG_TRIPPED:
            self._goals = {goal: self._table.get(goal) for goal in GOALS}
        if register is registers.OPERATING_MODE and changed:
            self._table.reset_for_mode()
        if register in (registers.OPERATING_MODE, registers.DRIVE_MODE, registers.HOMING_OFFSET):
            self._reload()
            if register is not registers.OPERATING_MODE or self._mode == OperatingMode.POSITION:
                self._forget_turns()
        if register in GOALS:
            self._arriving.append((self._now_s + self._command_latency_s, register, value))
            if self._torque_on_by_goal and not self.torque_on:
                self._write(registers.TORQUE_ENABLE, 1)

    def _switch_on(self) -> None:
        if self._mode == OperatingMode.POSITION:
            self._forget_turns()
        self._arriving.clear()
        self._goals = {goal: self._table.get(goal) for goal in GOALS}
        self._start()

    def _use(self, register: Register, value: int) -> None:
        """A goal has made its way to the controllers."""
        self._goals[register] = value
        if register is registers.GOAL_POSITION:
            self._replan()
        elif register is registers.GOAL_VELOCITY:
            self._velocity.max_change = self._velocity_step(value)

    def _velocity_step(self, goal: int) -> float:
        """Fastest change of a velocity trajectory on its way to `goal`, per period."""
        ramp = self._table.get(registers.PROFILE_ACCELERATION)
        if self._time_based and ramp:
            return abs(goal - self._velocity.trajectory) / ramp
        return ramp * RAD_S2_PER_COUNT / RAD_S_PER_COUNT * CONTROL_PERIOD_S

    def _reload(self) -> None:
        """Decode what is needed every millisecond."""
        table, position, velocity = self._table, self._position, self._velocity
        drive_mode = table.get(registers.DRIVE_MODE)
        self._sign = -1 if drive_mode & REVERSE else 1
        self._time_based = bool(drive_mode & TIME_BASED_PROFILE)
        self._torque_on_by_goal = bool(drive_mode & TORQUE_ON_BY_GOAL)
        self._mode = table.get(registers.OPERATING_MODE)
        self.torque_on = bool(table.get(registers.TORQUE_ENABLE))
        self._watchdog_s = table.scaled(registers.BUS_WATCHDOG)
        limits = (registers.MIN_VOLTAGE_LIMIT, registers.MAX_VOLTAGE_LIMIT)
        self._voltage_limits_v = tuple(table.scaled(limit) for limit in limits)
        position.p = table.get(registers.POSITION_P_GAIN) * self._pwm_per_p
        position.i = table.scaled(registers.POSITION_I_GAIN)
        position.d = table.scaled(registers.POSITION_D_GAIN)
        position.feedforward_1st = table.scaled(registers.FEEDFORWARD_1ST_GAIN)
        position.feedforward_2nd = table.scaled(registers.FEEDFORWARD_2ND_GAIN)
        velocity.p = table.scaled(registers.VELOCITY_P_GAIN)
        velocity.i = table.scaled(registers.VELOCITY_I_GAIN)
        position.pwm_limit = velocity.pwm_limit = abs(table.get(registers.GOAL_PWM))
        slope_v_s = table.scaled(registers.PWM_SLOPE)
        self._pwm_slope = slope_v_s * CONTROL_PERIOD_S * PWM_FULL or math.inf
        """PWM counts per period, times the supply voltage."""

    def _refresh(self) -> None:
        """Bring the registers that describe the motion up to date."""
        table = self._table
        milliseconds = int((self._now_s - self._booted_s) / registers.REALTIME_TICK.scale)
        table.set(registers.REALTIME_TICK, milliseconds % 32768)
        table.set(registers.MOVING, self._is_moving())
        table.set(registers.MOVING_STATUS, self._moving_status())
        table.set(registers.PRESENT_PWM, round(self._pwm))
        table.set(registers.PRESENT_CURRENT, self._current_counts())
        table.set(registers.PRESENT_VELOCITY, round(self._filtered / RAD_S_PER_COUNT))
        table.set(registers.PRESENT_POSITION, self._present)
        position, velocity, _ = self._motion
        if self._mode == OperatingMode.VELOCITY:
            velocity_counts = self._velocity.trajectory
        else:
            velocity_counts = velocity / _TICKS_S_PER_COUNT
        table.set(registers.VELOCITY_TRAJECTORY, round(velocity_counts))
        table.set(registers.POSITION_TRAJECTORY, round(position))
        table.set(registers.PRESENT_TEMPERATURE, round(self.temperature_c))
        voltage = self.supply_v / registers.PRESENT_INPUT_VOLTAGE.scale
        table.set(registers.PRESENT_INPUT_VOLTAGE, round(voltage))

    def _moving_status(self) -> int:
        if self._mode not in _POSITION_MODES:
            return 0
        away = abs(self._goals[registers.GOAL_POSITION] - self._present)
        status = self._plan.type << _PROFILE_TYPE_SHIFT
        status |= _PROFILE_ONGOING if self._profile_ongoing() else 0
        return status | (_IN_POSITION if away <= IN_POSITION_TICKS else 0)

    def _current_counts(self) -> int:
        """Present Current or, without a current sensor, Present Load, which is the PWM."""
        duty = self._pwm / PWM_FULL
        if self.model.current_unit_a is None:
            return round(1000 * duty)
        if not self.torque_on:
            return 0
        return round(self.motor_current_a(duty, self._speed) / self.model.current_unit_a)

    def _status(self, data: bytes = b"", error: int = 0) -> Status:
        return Status(self.id, data, error, bool(self._table.get(registers.HARDWARE_ERROR_STATUS)))
