"""A register of a servo's control table: where it is, what its bytes mean.

    GOAL_POSITION = Register(116, 4, "Goal Position", signed=True, unit="rad", scale=RAD_PER_TICK)

Families that write negative numbers otherwise than as two's complement derive their own.
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Register:
    """One row of a control table."""

    EEPROM_SIZE: ClassVar[int] = 64
    """Addresses below are kept at power-off."""

    address: int
    size: int
    """Bytes."""
    name: str
    """As in the maker's manual."""
    signed: bool = False
    unit: str = ""
    scale: float = 1.0
    """`unit`s per count."""
    read_only: bool = False
    byte_order: Literal["little", "big"] = "little"

    @property
    def in_eeprom(self) -> bool:
        """Kept at power-off."""
        return self.address < self.EEPROM_SIZE

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value the bytes can hold."""
        bits = 8 * self.size
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)

    def encode(self, value: int) -> bytes:
        """The register's bytes for `value`.

        Raises:
            ValueError: the value does not fit.
        """
        low, high = self.range
        if not low <= value <= high:
            raise ValueError(
                f"{self} cannot hold {value}: expected {low}..{high}; "
                "give raw counts, not rad or percent"
            )
        return self._to_bytes(value)

    def decode(self, data: bytes) -> int:
        """The value in the register's bytes."""
        return int.from_bytes(data, self.byte_order, signed=self.signed)

    def _to_bytes(self, value: int) -> bytes:
        return value.to_bytes(self.size, self.byte_order, signed=self.signed)

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def describe(flags: IntFlag) -> str:
    """The flags that are set, in words."""
    return " and ".join(flag.name.lower().replace("_", " ") for flag in flags if flag.name)
