"""DYNAMIXEL servos over a serial port: wire format, registers, servo models, bus."""
