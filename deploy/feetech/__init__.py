"""Feetech STS, SMS and SCS servos."""
