"""An emulated Feetech servo in the hands of a test: its registers, and a shaft held still."""

from deploy.feetech.registers import Register
from deploy.twin.feetech_servo import FeetechServo


def get(servo: FeetechServo, register: Register) -> int:
    """What a register says."""
    return register.decode(servo.read(register.address, register.size).data)


def put(servo: FeetechServo, register: Register, value: int) -> None:
    """Write a register."""
    servo.write(register.address, register.encode(value))


def run(servo: FeetechServo, seconds: float, *, ticks: float, start_s: float = 0.0) -> float:
    """Hold the shaft still for a while; returns the duty at the end."""
    duty = 0.0
    for step in range(round(seconds * 1000)):
        duty = servo.control(ticks, 0.0, start_s + step * 1e-3)
    return duty
