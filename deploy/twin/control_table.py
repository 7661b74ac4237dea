"""The control table of an emulated X servo: its bytes, and which writes it refuses.

    table = ControlTable(MODELS["XL430-W250"])
    table.set(registers.GOAL_POSITION, 2048)
    values, error = table.check(116, data)  # what a write means, or the code that refuses it

Defaults, access and ranges follow the eManual, "Control Table" of each model; error codes follow
"DYNAMIXEL Protocol 2.0", Error. What the twin does not emulate is refused with a data range error,
never ignored: the secondary (shadow) id, torque on and RAM restored at startup.

Indirect data are a second way to the bytes their indirect addresses name; as ROBOTIS' examples say
(DynamixelSDK, indirect_address), the addresses can be written only while torque is off.
"""

from collections.abc import Iterator
from itertools import groupby

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

FIRMWARE = 52
"""New enough for fast sync read, and for the XL330's indirect data at 208."""

REVERSE, TIME_BASED_PROFILE, TORQUE_ON_BY_GOAL = 1, 4, 8
"""Bits of Drive Mode."""

_DIRECT_SIZE = 148
_EEPROM_SIZE = 64
_FACTORY_ID = 1
_FACTORY_BAUD_RATE = 57600
_FACTORY_PWM_SLOPE = 140
_LARGEST_X330_BAUD_RATE = 4_000_000
_LARGEST_TIME_MS = 32737
_X330_INDIRECT_DATA_FIRMWARE = 52
_NEEDS_CURRENT_SENSOR = (registers.CURRENT_LIMIT, registers.GOAL_CURRENT)
_LIMIT_OF = {
    registers.GOAL_PWM: registers.PWM_LIMIT,
    registers.GOAL_CURRENT: registers.CURRENT_LIMIT,
    registers.GOAL_VELOCITY: registers.VELOCITY_LIMIT,
}
GOALS = (*_LIMIT_OF, registers.GOAL_POSITION)
"""What a tripped bus watchdog locks."""
_PROFILE = (registers.PROFILE_ACCELERATION, registers.PROFILE_VELOCITY)
_LARGEST_EXTENDED_POSITION = 1_048_575
_ACCEPTED = {
    registers.ID: range(253),
    registers.RETURN_DELAY_TIME: range(255),
    registers.DRIVE_MODE: (0, 1, 4, 5, 8, 9, 12, 13),
    registers.SHADOW_ID: (253, 254, 255),
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
    registers.FEEDFORWARD_1ST_GAIN: range(MAX_GAIN + 1),
    registers.FEEDFORWARD_2ND_GAIN: range(MAX_GAIN + 1),
    registers.BUS_WATCHDOG: range(128),
    registers.PROFILE_ACCELERATION: range(32768),
    registers.PROFILE_VELOCITY: range(32768),
}
"""Values accepted, where they are fewer than the bytes can hold."""
_VOLTAGE_LIMITS = {"XL330": range(31, 71), "XL430": range(60, 141), "XM430": range(95, 161)}
"""What Min and Max Voltage Limit accept, by the first part of a model's name."""


class ControlTable:
    """The registers of one servo."""

    def __init__(self, model: ServoModel, firmware: int = FIRMWARE):
        """Fill in what the servo leaves the factory with.

        Args:
            model: its data sheet.
            firmware: its version; older XL330s have their indirect data elsewhere.
        """
        self._model, self._firmware = model, firmware
        self._is_x330 = model.name.startswith("XL330")
        blocks = list(_indirect_blocks(self._is_x330, firmware))
        self._indirect = {
            data + index: Register(address + 2 * index, 2, f"Indirect Address {number + index}")
            for address, data, count, number in blocks
            for index in range(count)
        }
        """The register that says where the byte at an indirect data address really is."""
        self._indirect_addresses = frozenset(self._indirect.values())
        data = [
            Register(address, 1, register.name.replace("Address", "Data"))
            for address, register in self._indirect.items()
        ]
        self._by_address = {
            register.address: register
            for register in (*CONTROL_TABLE, *self._indirect.values(), *data)
        }
        self._regions = [range(_DIRECT_SIZE)]
        for address, data_address, count, _ in blocks:
            self._regions.append(range(address, address + 2 * count))
            self._regions.append(range(data_address, data_address + count))
        self._size = self._regions[-1].stop
        self._accepted = _ACCEPTED | self._accepted_by_model()
        self._bytes = bytearray(self._size)
        self.reset_eeprom()
        self.reset_ram()

    def get(self, register: Register) -> int:
        """A register's value in counts."""
        start = register.address
        return register.decode(bytes(self._bytes[start : start + register.size]))

    def scaled(self, register: Register) -> float:
        """A register's value in its unit."""
        return self.get(register) * register.scale

    def set(self, register: Register, value: int) -> None:
        """Give a register a value, in counts, whatever its access rules say."""
        start = register.address
        self._bytes[start : start + register.size] = register.encode(value)

    def read(self, address: int, length: int) -> bytes | None:
        """The bytes from `address`; None where there are no registers, or not for so long."""
        addresses = range(address, address + length)
        if not length or not all(
            any(byte in region for region in self._regions) for byte in addresses
        ):
            return None
        return bytes(self._bytes[self._resolve(byte)] for byte in addresses)

    def reset_eeprom(self) -> None:
        """Back to factory values, id and baud rate included."""
        self._bytes[:_EEPROM_SIZE] = bytes(_EEPROM_SIZE)
        self._fill(_factory_eeprom(self._model, self._firmware))
        if self._is_x330:
            self.set(registers.PWM_SLOPE, _FACTORY_PWM_SLOPE)

    def reset_ram(self) -> None:
        """Back to what RAM holds after power-up."""
        self._bytes[_EEPROM_SIZE:] = bytes(self._size - _EEPROM_SIZE)
        for data_address, register in self._indirect.items():
            self.set(register, data_address)
        self._fill(_factory_ram(self._model))
        self._reset_goals()

    def reset_for_mode(self) -> None:
        """What a change of Operating Mode sets back: gains, profile and limits."""
        self._fill(_factory_gains(self._model))
        self._fill(dict.fromkeys(_PROFILE, 0))
        self._reset_goals()

    def check(self, address: int, data: bytes) -> tuple[dict[Register, int], int]:
        """What a write means.

        Args:
            address: where it begins.
            data: the bytes to write.

        Returns:
            The value of each register it covers, and the `ErrorCode` that refuses it all, or 0. A
            register refused for its value comes last.
        """
        values: dict[Register, int] = {}
        if not data:
            return values, ErrorCode.DATA_LENGTH
        for start, piece in self._pieces(address, data):
            while piece:
                register = self._by_address.get(start)
                if register is None or self._is_locked(register):
                    return values, ErrorCode.ACCESS
                if len(piece) < register.size:
                    return values, ErrorCode.DATA_LENGTH
                values[register] = register.decode(piece[: register.size])
                if error := self._refusal(register, values[register]):
                    return values, error
                start, piece = start + register.size, piece[register.size :]
        return values, 0

    def _accepted_by_model(self) -> dict[Register, range | tuple[int, ...]]:
        """Values accepted that differ between models."""
        fastest = _LARGEST_X330_BAUD_RATE if self._is_x330 else BAUD_RATES[-1]
        volts = _VOLTAGE_LIMITS[self._model.name.partition("-")[0]]
        reachable = range(_EEPROM_SIZE, self._size)
        return {
            registers.BAUD_RATE: range(BAUD_RATES.index(fastest) + 1),
            registers.OPERATING_MODE: self._model.operating_modes,
            registers.MIN_VOLTAGE_LIMIT: volts,
            registers.MAX_VOLTAGE_LIMIT: volts,
            registers.CURRENT_LIMIT: range((self._model.current_limit or 0) + 1),
            **dict.fromkeys(self._indirect.values(), reachable),
        }

    def _resolve(self, address: int) -> int:
        """Where the byte that is read or written at `address` really is."""
        register = self._indirect.get(address)
        return address if register is None else self.get(register)

    def _pieces(self, address: int, data: bytes) -> Iterator[tuple[int, bytes]]:
        """A write as runs of bytes that lie side by side."""
        targets = [self._resolve(address + index) for index in range(len(data))]
        runs = groupby(range(len(data)), key=lambda index: targets[index] - index)
        for _, run in runs:
            indices = list(run)
            yield targets[indices[0]], data[indices[0] : indices[-1] + 1]

    def _is_locked(self, register: Register) -> bool:
        if register in _NEEDS_CURRENT_SENSOR and self._model.current_limit is None:
            return True
        if register is registers.PWM_SLOPE and not self._is_x330:
            return True
        needs_torque_off = register.in_eeprom or register in self._indirect_addresses
        return register.read_only or (needs_torque_off and bool(self.get(registers.TORQUE_ENABLE)))

    def _refusal(self, register: Register, value: int) -> int:
        if self.get(registers.BUS_WATCHDOG) == BUS_WATCHDOG_TRIPPED and (
            register in GOALS or (register is registers.BUS_WATCHDOG and value)
        ):
            return ErrorCode.DATA_RANGE
        if register in self._accepted and value not in self._accepted[register]:
            return ErrorCode.DATA_RANGE
        if (
            register in _PROFILE
            and self.get(registers.DRIVE_MODE) & TIME_BASED_PROFILE
            and value > _LARGEST_TIME_MS
        ):
            return ErrorCode.DATA_RANGE
        if register in GOALS:
            low, high = self._goal_limits(register)
            if not low <= value <= high:
                return ErrorCode.DATA_LIMIT
        return 0

    def _goal_limits(self, register: Register) -> tuple[int, int]:
        if register in _LIMIT_OF:
            limit = self.get(_LIMIT_OF[register])
            return -limit, limit
        if self.get(registers.OPERATING_MODE) == OperatingMode.POSITION:
            return self.get(registers.MIN_POSITION_LIMIT), self.get(registers.MAX_POSITION_LIMIT)
        return -_LARGEST_EXTENDED_POSITION, _LARGEST_EXTENDED_POSITION

    def _reset_goals(self) -> None:
        """Goals at their limits, but 0 where the mode acts on them at once; that is assumed."""
        acts_on = {
            OperatingMode.PWM: registers.GOAL_PWM,
            OperatingMode.CURRENT: registers.GOAL_CURRENT,
            OperatingMode.VELOCITY: registers.GOAL_VELOCITY,
        }.get(OperatingMode(self.get(registers.OPERATING_MODE)))
        for goal, limit in _LIMIT_OF.items():
            self.set(goal, 0 if goal is acts_on else self.get(limit))

    def _fill(self, values: dict[Register, int]) -> None:
        for register, value in values.items():
            self.set(register, value)


def _indirect_blocks(is_x330: bool, firmware: int) -> Iterator[tuple[int, int, int, int]]:
    """First indirect address, first indirect data, how many, number of the first.

    XL330: eManual, and before firmware 52 the model files of ROBOTIS' dynamixel_hardware_interface.
    """
    if is_x330:
        yield 168, 208 if firmware >= _X330_INDIRECT_DATA_FIRMWARE else 224, 20, 1
    else:
        yield 168, 224, 28, 1
        yield 578, 634, 28, 29


def _factory_eeprom(model: ServoModel, firmware: int) -> dict[Register, int]:
    low_v, high_v = model.voltage_limits_v
    return {
        registers.MODEL_NUMBER: model.model_number,
        registers.FIRMWARE_VERSION: firmware,
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
    return _factory_gains(model) | {
        registers.STATUS_RETURN_LEVEL: 2,
    }


def _factory_gains(model: ServoModel) -> dict[Register, int]:
    """The eManual says that each mode has gains of its own; it gives only these."""
    velocity_p_gain, velocity_i_gain = model.velocity_pi
    p_gain, i_gain, d_gain = model.position_pid
    return {
        registers.VELOCITY_I_GAIN: velocity_i_gain,
        registers.VELOCITY_P_GAIN: velocity_p_gain,
        registers.POSITION_D_GAIN: d_gain,
        registers.POSITION_I_GAIN: i_gain,
        registers.POSITION_P_GAIN: p_gain,
        registers.FEEDFORWARD_2ND_GAIN: 0,
        registers.FEEDFORWARD_1ST_GAIN: 0,
    }
