"""Which modules are mutated, and the tests that must notice: the quickest to fail first.

Tests in virtual time only where possible: one that is late on a busy machine fails without a fault.
A module that is gone or renamed is refused by `tests/mutation/test_mutants.py`, as is one of
`deploy/dynamixel/` that is missing here.
"""

_BUS = "tests/deploy/dynamixel"
_TWIN = "tests/deploy/twin"

MODULES: dict[str, tuple[str, ...]] = {
    # what may move a joint, and what must stop it
    "deploy/governor.py": ("tests/deploy/test_governor.py",),
    "deploy/runtime.py": ("tests/deploy/test_runtime.py",),
    "deploy/robot.py": ("tests/deploy/test_robot.py", "tests/deploy/test_runtime.py"),
    "deploy/clock.py": ("tests/deploy/test_clock.py",),
    "deploy/commands.py": ("tests/deploy/test_commands.py",),
    # what must not be run
    "deploy/contract.py": ("tests/deploy/test_contract.py",),
    "deploy/configuration.py": ("tests/deploy/test_configuration.py",),
    "deploy/robot_config.py": ("tests/deploy/test_robot_config.py",),
    # the wire
    "deploy/dynamixel/bus.py": (f"{_BUS}/test_bus.py", f"{_BUS}/test_sync.py"),
    "deploy/dynamixel/crc.py": (f"{_BUS}/test_crc.py", f"{_BUS}/test_protocol.py"),
    "deploy/dynamixel/protocol.py": (f"{_BUS}/test_protocol.py",),
    "deploy/dynamixel/registers.py": (f"{_BUS}/test_registers.py",),
    "deploy/dynamixel/replies.py": (f"{_BUS}/test_replies.py", f"{_BUS}/test_sync.py"),
    "deploy/dynamixel/servos.py": (f"{_BUS}/test_servos.py",),
    "deploy/dynamixel/sync.py": (f"{_BUS}/test_sync.py",),
    # the stand-in for reality
    "deploy/twin/servo.py": (f"{_TWIN}/test_servo.py", f"{_TWIN}/test_robot.py"),
    "deploy/twin/position_controller.py": (
        f"{_TWIN}/test_position_controller.py",
        f"{_TWIN}/test_servo.py",
    ),
    # what is trained
    "envs/randomization.py": ("tests/envs/test_randomization.py",),
    "envs/signal_noise.py": ("tests/envs/test_signal_noise.py",),
    "envs/draws.py": ("tests/envs/test_draws.py",),
    "robotrl/returns.py": ("tests/robotrl/test_returns.py",),
    "robotrl/distributions.py": ("tests/robotrl/test_distributions.py",),
}
