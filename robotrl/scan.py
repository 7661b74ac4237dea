"""`robotrl scan`: who answers on a robot's ports and how it is; nothing is changed.

    for line in scan(robot.devices, ids=range(21)):
        print(line)                         # and a BusError after the last, or all is well

Servos are compared with the robot's YAML; a board or an IMU says itself what is wrong with it.
"""

from collections.abc import Iterable, Iterator, Sequence

from deploy.device import Device
from deploy.dynamixel.device import DynamixelServos
from deploy.errors import BusError
from deploy.imu.device import Imu
from deploy.microcontroller.device import Microcontroller
from deploy.servos.device import ServoDevice
from deploy.servos.scan import scan as scan_bus


def scan(devices: Sequence[Device], ids: Iterable[int]) -> Iterator[str]:
    """A line for each servo, board and IMU: how it is, or that it does not answer.

    Args:
        devices: of a robot; none needs to be connected.
        ids: asked on each bus of servos, beside those that the YAML names.

    Raises:
        BusError: after the last line; names all that is missing, or other than the YAML says.
    """
    asked, problems = list(ids), list[str]()
    for device in devices:
        if isinstance(device, ServoDevice):
            yield from _scan_servos(device, asked, problems)
        try:
            yield from _look(device)
        except BusError as error:
            problems.append(str(error))
            yield f"{device.name}: {error}"
    if problems:
        raise BusError(
            f"{'; '.join(problems)}. Check power, cables and baud rate, and correct `id` and "
            "`model` in the robot's YAML"
        )


def _scan_servos(device: ServoDevice, asked: list[int], problems: list[str]) -> Iterator[str]:
    """A line for each servo; what is wrong is added to `problems`."""
    wirings = {joint: device.config.joints[joint] for joint in device.joints}
    ids = sorted({*asked, *device.id_of.values()})
    found = {servo.id: servo for servo in scan_bus(device, ids)}
    yield from (f"{device.name}: {servo}" for servo in found.values())
    for joint, wiring in wirings.items():
        servo, who = found.get(wiring.id), f"{joint} (id {wiring.id})"
        if servo is None:
            problems.append(f"{who} does not answer")
            yield f"{device.name}: id {wiring.id} ({joint}): no answer"
        elif wiring.model not in servo.model.split(" or "):
            problems.append(f"{who} is {servo.model}, expected {wiring.model}")


def _look(device: Device) -> Iterator[str]:
    """A line for what else there is to see."""
    if isinstance(device, DynamixelServos) and device.imu:
        yield f"{device.name}: {device.imu.look()}"
    if isinstance(device, Microcontroller):
        yield device.look()
    if isinstance(device, Imu):
        device.connect()
        yield device.describe()
