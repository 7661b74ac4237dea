"""The few exception types of the robot side; each is also the builtin it specialises.

A message says what was found, what was expected and what to do.
"""


class DeployError(Exception):
    """Base of everything `deploy` raises on purpose."""


class ConfigError(DeployError, ValueError):
    """A configuration file has an unknown key, a wrong type or an impossible value."""


class ContractError(DeployError, ValueError):
    """A policy file is damaged, of another schema, or made for another robot."""


class BusError(DeployError, OSError):
    """The serial port or a servo on it cannot be used."""


class BusTimeout(BusError, TimeoutError):
    """A servo did not answer before the deadline."""


class DeviceLost(BusError):
    """A serial port is gone, or nobody behind it answers any more: it may come back."""


class ServoError(BusError):
    """A servo answered with an error, or holds a value other than the one written."""


class SafetyError(DeployError, RuntimeError):
    """The robot was stopped: the message names the signal or limit that was violated."""
