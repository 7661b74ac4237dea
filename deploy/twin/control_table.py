"""The control table of an emulated X servo: its bytes, and which writes it refuses.

    table = ControlTable(MODELS["XL430-W250"])
    table.set(registers.GOAL_POSITION, 2048)
    values, error = table.check(116, data)  # what a write means, or the code that refuses it

Defaults, access and ranges follow the eManual, "Control Table" of each model. What the twin does
not emulate is refused with a data range error, never ignored: modes other than position and
extended position, drive modes, profile acceleration, feed-forward gains, shadow ids. Indirect
addresses (168 and up) do not exist.
"""

from deploy.dynamixel import registers
from deploy.dynamixel.protocol import ErrorCode
from deploy.dynamixel.registers import (
    BAUD_RATES,
    BUS_WATCHDOG_TRIPPED,
    CONTROL_TABLE,
    PWM_FULL,
    TICKS_PER_TURN,
    OperatingMode,
    Register,
)
from deploy.dynamixel.servos import MAX_GAIN, ServoModel

FIRMWARE = 48
"""New enough for fast sync read on every X servo."""
TEMPERATURE_C = 30
SIZE = 148

_EEPROM_SIZE = 64
_FACTORY_ID = 1
_FACTORY_BAUD_RATE = 57600
_BY_ADDRESS = {register.address: register for register in CONTROL_TABLE}
_NEEDS_CURRENT_SENSOR = (registers.CURRENT_LIMIT, registers.GOAL_CURRENT)
_LIMIT_OF = {
    registers.GOAL_PWM: registers.PWM_LIMIT,
    registers.GOAL_CURRENT: registers.CURRENT_LIMIT,
    registers.GOAL_VELOCITY: registers.VELOCITY_LIMIT,
}
_GOALS = (*_LIMIT_OF, registers.GOAL_POSITION)
_LARGEST_EXTENDED_POSITION = 1_048_575
_ACCEPTED = {
    registers.ID: range(253),
    registers.BAUD_RATE: range(len(BAUD_RATES)),
    registers.RETURN_DELAY_TIME: range(255),
    registers.DRIVE_MODE: (0,),
    registers.OPERATING_MODE: (OperatingMode.POSITION, OperatingMode.EXTENDED_POSITION),
    registers.SHADOW_ID: (255,),
    registers.PROTOCOL_TYPE: (2,),
    registers.HOMING_OFFSET: range(-1_044_479, 1_044_480),
    registers.MOVING_THRESHOLD: range(1024),
    registers.TEMPERATURE_LIMIT: range(101),
    registers.PWM_LIMIT: range(PWM_FULL + 1),
    registers.VELOCITY_LIMIT: range(2048),
    registers.MAX_POSITION_LIMIT: range(TICKS_PER_TURN),
    registers.MIN_POSITION_LIMIT: range(TICKS_PER_TURN),
    registers.STARTUP_CONFIGURATION: (0,),
    registers.TORQUE_ENABLE: range(2),
    registers.LED: range(2),
    registers.STATUS_RETURN_LEVEL: range(3),
    registers.VELOCITY_I_GAIN: range(MAX_GAIN + 1),
    registers.VELOCITY_P_GAIN: range(MAX_GAIN + 1),
    registers.POSITION_D_GAIN: range(MAX_GAIN + 1),
    registers.POSITION_I_GAIN: range(MAX_GAIN + 1),
    registers.POSITION_P_GAIN: range(MAX_GAIN + 1),
    registers.FEEDFORWARD_2ND_GAIN: (0,),
    registers.FEEDFORWARD_1ST_GAIN: (0,),
    registers.BUS_WATCHDOG: range(128),
    registers.PROFILE_ACCELERATION: (0,),
    registers.PROFILE_VELOCITY: range(32768),
}
"""Values accepted, where they are fewer than the bytes can hold."""


class ControlTable:
    """The registers of one servo."""

    def __init__(self, model: ServoModel):
        """Fill in what the servo leaves the factory with."""
        self._model = model
        self._bytes = bytearray(SIZE)
        self.reset_eeprom()
        self.reset_ram()

    def get(self, register: Register) -> int:
        """A register's value in counts."""
        return register.decode(self.read(register.address, register.size))

    def scaled(self, register: Register) -> float:
        """A register's value in its unit."""
        return self.get(register) * register.scale

    def set(self, register: Register, value: int) -> None:
        """Give a register a value, in counts, whatever its access rules say."""
        start = register.address
        self._bytes[start : start + register.size] = register.encode(value)

    def read(self, address: int, length: int) -> bytes:
        """The bytes from `address`; shorter than `length` where the table ends."""
        return bytes(self._bytes[address : address + length])

    def reset_eeprom(self) -> None:
        """Back to factory values, id and baud rate included."""
        self._bytes[:_EEPROM_SIZE] = bytes(_EEPROM_SIZE)
        self._fill(_factory_eeprom(self._model))

    def reset_ram(self) -> None:
        """Back to what RAM holds after power-up."""
        self._bytes[_EEPROM_SIZE:] = bytes(SIZE - _EEPROM_SIZE)
        self._fill(_factory_ram(self._model))
        self.set(registers.GOAL_PWM, self.get(registers.PWM_LIMIT))
        self.set(registers.GOAL_VELOCITY, self.get(registers.VELOCITY_LIMIT))

    def check(self, address: int, data: bytes) -> tuple[dict[Register, int], int]:
        """What a write means.

        Args:
            address: where it begins.
            data: the bytes to write.

        Returns:
            The value of each register it covers, and the `ErrorCode` that refuses it all, or 0.
        """
        values: dict[Register, int] = {}
        if not data:
            return values, ErrorCode.DATA_LENGTH
        while data:
            register = _BY_ADDRESS.get(address)
            if register is None or self._is_locked(register):
                return values, ErrorCode.ACCESS
            if len(data) < register.size:
                return values, ErrorCode.DATA_LENGTH
            value = register.decode(data[: register.size])
            if error := self._refusal(register, value):
                return values, error
            values[register] = value
            address, data = address + register.size, data[register.size :]
        return values, 0

    def _is_locked(self, register: Register) -> bool:
        missing = register in _NEEDS_CURRENT_SENSOR and self._model.current_limit is None
        torque_on = self.get(registers.TORQUE_ENABLE)
        return missing or register.read_only or (register.in_eeprom and bool(torque_on))

    def _refusal(self, register: Register, value: int) -> int:
        if self.get(registers.BUS_WATCHDOG) == BUS_WATCHDOG_TRIPPED and (
            register in _GOALS or (register is registers.BUS_WATCHDOG and value)
        ):
            return ErrorCode.DATA_RANGE
        if register in _ACCEPTED and value not in _ACCEPTED[register]:
            return ErrorCode.DATA_RANGE
        if register in _GOALS:
            low, high = self._goal_limits(register)
            if not low <= value <= high:
                return ErrorCode.DATA_LIMIT
        return 0

    def _goal_limits(self, register: Register) -> tuple[int, int]:
        if register in _LIMIT_OF:
            limit = self.get(_LIMIT_OF[register])
            return -limit, limit
        if self.get(registers.OPERATING_MODE) == OperatingMode.EXTENDED_POSITION:
            return -_LARGEST_EXTENDED_POSITION, _LARGEST_EXTENDED_POSITION
        return self.get(registers.MIN_POSITION_LIMIT), self.get(registers.MAX_POSITION_LIMIT)

    def _fill(self, values: dict[Register, int]) -> None:
        for register, value in values.items():
            self.set(register, value)


def _factory_eeprom(model: ServoModel) -> dict[Register, int]:
    low_v, high_v = model.voltage_limits_v
    return {
        registers.MODEL_NUMBER: model.model_number,
        registers.FIRMWARE_VERSION: FIRMWARE,
        registers.ID: _FACTORY_ID,
        registers.BAUD_RATE: BAUD_RATES.index(_FACTORY_BAUD_RATE),
        registers.RETURN_DELAY_TIME: 250,
        registers.OPERATING_MODE: OperatingMode.POSITION,
        registers.SHADOW_ID: 255,
        registers.PROTOCOL_TYPE: 2,
        registers.MOVING_THRESHOLD: 10,
        registers.TEMPERATURE_LIMIT: model.temperature_limit_c,
        registers.MAX_VOLTAGE_LIMIT: round(high_v / registers.MAX_VOLTAGE_LIMIT.scale),
        registers.MIN_VOLTAGE_LIMIT: round(low_v / registers.MIN_VOLTAGE_LIMIT.scale),
        registers.PWM_LIMIT: PWM_FULL,
        registers.CURRENT_LIMIT: model.current_limit or 0,
        registers.VELOCITY_LIMIT: model.velocity_limit,
        registers.MAX_POSITION_LIMIT: TICKS_PER_TURN - 1,
        registers.SHUTDOWN: model.shutdown,
    }


def _factory_ram(model: ServoModel) -> dict[Register, int]:
    velocity_p_gain, velocity_i_gain = model.velocity_pi
    p_gain, i_gain, d_gain = model.position_pid
    return {
        registers.STATUS_RETURN_LEVEL: 2,
        registers.VELOCITY_I_GAIN: velocity_i_gain,
        registers.VELOCITY_P_GAIN: velocity_p_gain,
        registers.POSITION_D_GAIN: d_gain,
        registers.POSITION_I_GAIN: i_gain,
        registers.POSITION_P_GAIN: p_gain,
        registers.PRESENT_TEMPERATURE: TEMPERATURE_C,
    }
