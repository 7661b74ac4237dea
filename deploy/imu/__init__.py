"""Inertial sensors: angular velocity and the direction of gravity, from a serial port or a bus."""
