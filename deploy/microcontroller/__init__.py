"""Boards that run our firmware: joints, an IMU and the supply behind one microcontroller."""
