"""Who answers on a bus of servos, and how it is.

    for servo in scan(device, range(1, 21)):
        print(servo)

Nothing is changed, and nothing needs to be connected.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deploy.servos.device import ServoDevice


@dataclass(frozen=True, slots=True)
class FoundServo:
    """A servo that answered."""

    id: int
    joint: str
    """Empty for one that the YAML does not know."""
    model: str
    firmware: int
    volts: float
    celsius: int
    ticks: int
    torque_on: bool
    faults: str

    def __str__(self) -> str:
        return (
            f"id {self.id} ({self.joint or 'not wired'}): {self.model}, firmware {self.firmware}, "
            f"{self.volts:.1f} V, {self.celsius} °C, at count {self.ticks}, torque "
            f"{'on' if self.torque_on else 'off'}{self.faults and ', reports ' + self.faults}"
        )


def scan(device: ServoDevice, ids: Iterable[int]) -> list[FoundServo]:
    """The servos among `ids` that answer; what else hangs on the bus is left alone.

    Raises:
        BusError: one falls silent while it is asked how it is.
    """
    bus, wired = device.bus, {id: joint for joint, id in device.id_of.items()}
    names = device.names_of_models()
    answers = bus.scan(id for id in ids if id not in device.others)
    return [
        FoundServo(
            id=id,
            joint=wired.get(id, ""),
            model=names.get(number, f"model number {number}"),
            firmware=firmware,
            volts=bus.read(id, device.PRESENT_VOLTAGE) * device.PRESENT_VOLTAGE.scale,
            celsius=bus.read(id, device.PRESENT_TEMPERATURE),
            ticks=bus.read(id, device.PRESENT_POSITION),
            torque_on=bool(bus.read(id, device.TORQUE_ENABLE)),
            faults=device.describe_faults(bus.read(id, device.FAULTS)),
        )
        for id, (number, firmware) in answers.items()
    ]
