r"""One emulated DYNAMIXEL X servo: what it answers, and how it drives its motor.

    servo = Servo(1, MODELS["XL330-M288"], 1_000_000, shaft_ticks=2048)
    servo.write(64, b"\x01")                      # -> Status, as the servo would answer
    pwm = servo.control(shaft_ticks, speed, now)  # every CONTROL_PERIOD_S

Where the eManual is silent the less convenient behaviour is assumed: torque switched on drives to
the goal register's old value (so XL330s do: pollen-robotics/reachy_mini #1136), and torque on is
ignored after a shutdown. Moving Status reads 0, Present Temperature is constant, a reboot takes no
time. `deploy.twin.control_table` lists what is refused because it is not emulated.
"""

import math
from collections import deque

from deploy.dynamixel import registers
from deploy.dynamixel.protocol import ErrorCode, FactoryReset, Instruction, Status
from deploy.dynamixel.registers import (
    BAUD_RATES,
    BUS_WATCHDOG_TRIPPED,
    PWM_FULL,
    RAD_PER_TICK,
    RAD_S_PER_COUNT,
    TICKS_PER_TURN,
    HardwareError,
    Register,
)
from deploy.dynamixel.servos import CONTROL_PERIOD_S, ServoModel
from deploy.twin.control_table import SIZE, ControlTable
from deploy.twin.position_controller import PositionController

VELOCITY_FILTER_S = 0.005
"""Time constant of Present Velocity; assumed, ROBOTIS does not publish it."""
STALL_CURRENT_A = {"XL330-M288": 1.47, "XL330-M077": 1.47, "XM430-W350": 2.3}
"""At nominal voltage; eManual, "Specifications"."""

_LEVEL_NEEDED: dict[int, int] = {Instruction.PING: 0, Instruction.READ: 1}
"""Lowest Status Return Level at which an instruction is answered; 2 for the others."""
_KEPT = {
    FactoryReset.ALL: (),
    FactoryReset.ALL_BUT_ID: (registers.ID,),
    FactoryReset.ALL_BUT_ID_AND_BAUD_RATE: (registers.ID, registers.BAUD_RATE),
}


class Servo:
    """A servo on the bus. Its shaft's angle and speed come from outside, through `control`."""

    def __init__(
        self,
        id: int,
        model: ServoModel,
        baud_rate: int,
        *,
        shaft_ticks: float,
        voltage_v: float | None = None,
        command_latency_s: float = 0.0,
    ):
        """Power up a servo.

        Args:
            id: its id.
            model: its data sheet.
            baud_rate: what its Baud Rate register says [bit/s].
            shaft_ticks: shaft angle in encoder counts, neither rounded nor wrapped.
            voltage_v: supply; None for the nominal one.
            command_latency_s: time from a goal's arrival to its use by the controller.
        """
        self.model = model
        self.voltage_v = model.nominal_voltage_v if voltage_v is None else voltage_v
        self.torque_on = False
        """The motor is driven; otherwise it coasts."""
        self._command_latency_s = command_latency_s
        self._shaft, self._speed, self._now_s = shaft_ticks, 0.0, 0.0
        self._controller = PositionController()
        self._table = ControlTable(model)
        self._table.set(registers.ID, id)
        self._table.set(registers.BAUD_RATE, BAUD_RATES.index(baud_rate))
        self._boot()

    @property
    def id(self) -> int:
        """Id it answers to."""
        return self._table.get(registers.ID)

    @property
    def return_delay_s(self) -> float:
        """Pause before each of its replies."""
        return self._table.scaled(registers.RETURN_DELAY_TIME)

    def answers(self, instruction: int) -> bool:
        """Whether Status Return Level lets it answer; READ stands for reads of any kind."""
        level = self._table.get(registers.STATUS_RETURN_LEVEL)
        return level >= _LEVEL_NEEDED.get(instruction, 2)

    def hear(self) -> None:
        """An instruction packet passed on the bus, whoever it was for: it feeds the watchdog."""
        self._heard_s = self._now_s

    def ping(self) -> Status:
        """Model number and firmware version."""
        parts = (registers.MODEL_NUMBER, registers.FIRMWARE_VERSION)
        return self._status(b"".join(self._table.read(part.address, part.size) for part in parts))

    def read(self, address: int, length: int) -> Status:
        """The bytes of part of the control table."""
        if not 0 < length <= SIZE - address:
            return self._status(error=ErrorCode.ACCESS)
        self._refresh()
        return self._status(self._table.read(address, length))

    def write(self, address: int, data: bytes) -> Status:
        """Write whole registers: all of them or, with an error, none."""
        values, error = self._table.check(address, data)
        status = self._status(error=error)  # now: a new id does not sign its own receipt
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

    def clear_turns(self) -> Status:
        """Bring Present Position back into one turn."""
        self._forget_turns()
        return self._status()

    def reboot(self) -> Status:
        """Torque off, RAM back to its defaults, hardware errors forgotten."""
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
        self._shaft, self._speed, self._now_s = shaft_ticks, speed_rad_s, now_s
        self._velocity += (speed_rad_s - self._velocity) * (CONTROL_PERIOD_S / VELOCITY_FILTER_S)
        while self._arriving and self._arriving[0][0] <= now_s:
            self._goal = self._arriving.popleft()[1]
        self._check_voltage()
        self._check_watchdog()
        self._pwm = 0.0
        if self.torque_on:
            self._pwm = self._controller.step(self._goal, self._present, speed_rad_s)
        return self._pwm

    @property
    def _present(self) -> int:
        return round(self._shaft) + self._offset

    def _check_voltage(self) -> None:
        low_v, high_v = self._voltage_limits_v
        if not low_v <= self.voltage_v <= high_v:
            errors = self._table.get(registers.HARDWARE_ERROR_STATUS)
            errors |= HardwareError.INPUT_VOLTAGE
            self._table.set(registers.HARDWARE_ERROR_STATUS, errors)
            if self._is_shut_down():
                self._table.set(registers.TORQUE_ENABLE, 0)
                self._reload()

    def _check_watchdog(self) -> None:
        """After too long a silence: hold where it is, and lock the goals."""
        if self.torque_on and 0 < self._watchdog_s < self._now_s - self._heard_s:
            self._arriving.clear()
            self._goal = self._present
            self._table.set(registers.GOAL_POSITION, self._goal)
            self._table.set(registers.PROFILE_VELOCITY, 0)
            self._table.set(registers.BUS_WATCHDOG, BUS_WATCHDOG_TRIPPED)
            self._reload()

    def _is_shut_down(self) -> bool:
        errors = self._table.get(registers.HARDWARE_ERROR_STATUS)
        return bool(errors & self._table.get(registers.SHUTDOWN))

    def _boot(self) -> None:
        self._table.reset_ram()
        self._registered: tuple[int, bytes] | None = None
        self._arriving: deque[tuple[float, int]] = deque()
        self._booted_s = self._heard_s = self._now_s
        self._velocity = self._pwm = 0.0
        self._forget_turns()
        self._goal = self._present
        self._table.set(registers.GOAL_POSITION, self._goal)
        self._controller.start(self._goal)
        self._reload()

    def _forget_turns(self) -> None:
        turns = math.floor(round(self._shaft) / TICKS_PER_TURN)
        self._offset = self._table.get(registers.HOMING_OFFSET) - turns * TICKS_PER_TURN

    def _write(self, register: Register, value: int) -> None:
        if register is registers.TORQUE_ENABLE and value:
            if self._is_shut_down():
                return
            if not self.torque_on:
                self._forget_turns()
                self._controller.start(self._present)
        self._table.set(register, value)
        if register is registers.HOMING_OFFSET:
            self._forget_turns()
        if register is registers.GOAL_POSITION:
            self._arriving.append((self._now_s + self._command_latency_s, value))

    def _reload(self) -> None:
        """Decode what is needed every millisecond."""
        table, controller = self._table, self._controller
        self.torque_on = bool(table.get(registers.TORQUE_ENABLE))
        self._watchdog_s = table.scaled(registers.BUS_WATCHDOG)
        limits = (registers.MIN_VOLTAGE_LIMIT, registers.MAX_VOLTAGE_LIMIT)
        self._voltage_limits_v = tuple(table.scaled(limit) for limit in limits)
        controller.p = table.scaled(registers.POSITION_P_GAIN)
        controller.i = table.scaled(registers.POSITION_I_GAIN)
        controller.d = table.scaled(registers.POSITION_D_GAIN)
        controller.pwm_limit = abs(table.get(registers.GOAL_PWM))
        profile = min(table.get(registers.PROFILE_VELOCITY), table.get(registers.VELOCITY_LIMIT))
        profile_step = profile * RAD_S_PER_COUNT / RAD_PER_TICK * CONTROL_PERIOD_S
        controller.max_step = profile_step or math.inf

    def _refresh(self) -> None:
        """Bring the registers that describe the motion up to date."""
        table = self._table
        velocity = round(self._velocity / RAD_S_PER_COUNT)
        milliseconds = int((self._now_s - self._booted_s) / registers.REALTIME_TICK.scale)
        table.set(registers.REALTIME_TICK, milliseconds % 32768)
        table.set(registers.MOVING, abs(velocity) > table.get(registers.MOVING_THRESHOLD))
        table.set(registers.PRESENT_PWM, round(self._pwm))
        table.set(registers.PRESENT_CURRENT, self._current_counts())
        table.set(registers.PRESENT_VELOCITY, velocity)
        table.set(registers.PRESENT_POSITION, self._present)
        table.set(registers.POSITION_TRAJECTORY, round(self._controller.trajectory))
        voltage = self.voltage_v / registers.PRESENT_INPUT_VOLTAGE.scale
        table.set(registers.PRESENT_INPUT_VOLTAGE, round(voltage))

    def _current_counts(self) -> int:
        """Present Current or, without a current sensor, Present Load, which is the PWM."""
        duty = self._pwm / PWM_FULL
        if self.model.current_unit_a is None:
            return round(1000 * duty)
        if not self.torque_on:
            return 0
        drive = duty * self.voltage_v / self.model.nominal_voltage_v
        back_emf = self._speed / self.model.no_load_speed_rad_s
        return round(
            (drive - back_emf) * STALL_CURRENT_A[self.model.name] / self.model.current_unit_a
        )

    def _status(self, data: bytes = b"", error: int = 0) -> Status:
        return Status(self.id, data, error, bool(self._table.get(registers.HARDWARE_ERROR_STATUS)))
