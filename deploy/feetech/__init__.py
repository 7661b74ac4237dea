"""Feetech STS and SMS servos."""
