"""Which modules are mutated, and the tests that must notice.

Tests in virtual time only where possible: one that is late on a busy machine fails without a fault.
A module that is gone or renamed is refused by `tests/mutation/test_mutants.py`, as is one of
`deploy/dynamixel/` or `deploy/feetech/` that is missing here.
"""

_BUS = "tests/deploy/dynamixel"
_FEETECH = "tests/deploy/feetech"
_TWIN = "tests/deploy/twin"
_RANDOM = "tests/envs/randomization"

_SIGNALS = (f"{_RANDOM}/signals",)
_CONTRACT = ("tests/deploy/test_contract.py", "tests/deploy/test_foreign_contracts.py")
_SERVO = (f"{_TWIN}/test_servo.py", f"{_TWIN}/test_modes.py", f"{_TWIN}/test_physics.py")

CORE: dict[str, tuple[str, ...]] = {
    # what may move a joint, and what must stop it
    "deploy/governor.py": ("tests/deploy/test_governor.py",),
    "deploy/limits.py": ("tests/deploy/test_limits.py", "tests/deploy/test_governor.py"),
    "deploy/runtime.py": ("tests/deploy/test_state_machine.py", "tests/deploy/test_runtime.py"),
    "deploy/drive.py": ("tests/deploy/test_state_machine.py", "tests/deploy/test_runtime.py"),
    "deploy/direct.py": ("tests/deploy/test_direct.py",),
    "deploy/robot.py": ("tests/deploy/test_robot.py", "tests/deploy/test_devices.py"),
    "deploy/servos/device.py": ("tests/deploy/test_robot.py", "tests/deploy/test_faults.py"),
    "deploy/servos/setup.py": ("tests/deploy/test_robot.py", "tests/deploy/test_faults.py"),
    "deploy/supervisor.py": ("tests/deploy/test_supervisor.py", "tests/deploy/test_proof.py"),
    # what must not be run
    "deploy/contract.py": _CONTRACT,
    "deploy/contract_upgrade.py": ("tests/deploy/test_contract_upgrade.py",),
    "deploy/fit.py": ("tests/deploy/test_fit.py", "tests/deploy/test_foreign_contracts.py"),
    "deploy/configuration.py": ("tests/deploy/test_configuration.py",),
    "deploy/robot_config.py": ("tests/deploy/test_robot_config.py",),
    # the stand-in for reality
    "deploy/twin/servo.py": (*_SERVO, f"{_TWIN}/test_robot.py"),
    "deploy/twin/feetech_servo.py": (f"{_TWIN}/test_feetech_servo.py",),
    "deploy/twin/scs_servo.py": (f"{_TWIN}/test_scs_servo.py",),
    "deploy/twin/friction.py": (f"{_TWIN}/test_friction.py",),
    "deploy/twin/controllers.py": (f"{_TWIN}/test_controllers.py", *_SERVO),
    "deploy/twin/robot.py": (
        f"{_TWIN}/test_robot.py",
        f"{_TWIN}/test_physics.py",
        f"{_TWIN}/test_port.py",
        f"{_TWIN}/test_truth.py",
    ),
    # what is trained
    "envs/randomization/term.py": (_RANDOM,),
    "envs/randomization/physics/supply.py": (_RANDOM,),
    "envs/randomization/physics/inertia.py": (_RANDOM,),
    "envs/randomization/physics/pushes.py": (_RANDOM,),
    "envs/randomization/physics/initial.py": (_RANDOM,),
    "envs/randomization/physics/joints.py": (_RANDOM,),
    "envs/randomization/physics/numbers.py": (_RANDOM,),
    "envs/randomization/law.py": (_RANDOM,),
    "envs/randomization/physics/timer.py": (_RANDOM,),
    "envs/randomization/growth.py": (_RANDOM,),
    "envs/randomization/kinds.py": (_RANDOM,),
    "envs/randomization/physics/model_terms.py": (_RANDOM,),
    "envs/randomization/randomization.py": (_RANDOM,),
    "envs/randomization/physics/proofs.py": (_RANDOM,),
    "envs/randomization/physics/fields.py": (_RANDOM,),
    "envs/randomization/physics/limits.py": (_RANDOM,),
    "envs/randomization/physics/model_fields.py": (_RANDOM,),
    "envs/randomization/physics/probe.py": (_RANDOM,),
    "envs/rotation.py": ("tests/envs/test_rotation.py", _RANDOM),
    "envs/randomization/signals/commands.py": _SIGNALS,
    "envs/randomization/signals/sensing.py": _SIGNALS,
    "envs/randomization/signals/terms.py": _SIGNALS,
    "envs/randomization/signals/errors.py": _SIGNALS,
    "envs/randomization/signals/kinds.py": _SIGNALS,
    "envs/randomization/signals/proofs.py": _SIGNALS,
    "envs/randomization/signals/timing.py": _SIGNALS,
    "envs/randomization/signals/step_draws.py": _SIGNALS,
    "robotrl/algorithms/returns.py": ("tests/robotrl/algorithms/test_returns.py",),
    "robotrl/algorithms/distributions.py": ("tests/robotrl/algorithms/test_distributions.py",),
}
"""Where a fault that nobody notices moves a real arm wrongly, or trains for a wrong world."""

MODULES: dict[str, tuple[str, ...]] = CORE | {
    # the wire
    "deploy/dynamixel/bus.py": (f"{_BUS}/test_bus.py",),
    "deploy/dynamixel/device.py": ("tests/deploy/test_robot.py",),
    "deploy/feetech/device.py": (
        "tests/deploy/test_devices.py",
        f"{_FEETECH}/test_scs.py",
        "tests/deploy/test_faults.py",
    ),
    "deploy/feetech/protocol.py": (f"{_FEETECH}/test_protocol.py", f"{_FEETECH}/test_sync.py"),
    "deploy/feetech/registers.py": (f"{_FEETECH}/test_protocol.py",),
    "deploy/feetech/scs_registers.py": (f"{_FEETECH}/test_scs.py",),
    "deploy/feetech/servos.py": (f"{_FEETECH}/test_servos.py", f"{_FEETECH}/test_scs.py"),
    "deploy/feetech/sync.py": (f"{_FEETECH}/test_sync.py", f"{_FEETECH}/test_scs.py"),
    "deploy/servos/register.py": (f"{_BUS}/test_registers.py",),
    "deploy/servos/bus.py": (f"{_BUS}/test_bus.py", f"{_BUS}/test_sync.py"),
    "deploy/servos/sheet.py": (f"{_BUS}/test_servos.py", f"{_FEETECH}/test_servos.py"),
    "deploy/servos/sync_read.py": (f"{_BUS}/test_sync.py", f"{_FEETECH}/test_sync.py"),
    "deploy/dynamixel/crc.py": (f"{_BUS}/test_crc.py", f"{_BUS}/test_protocol.py"),
    "deploy/dynamixel/imu.py": (f"{_BUS}/test_imu.py",),
    "deploy/dynamixel/protocol.py": (f"{_BUS}/test_protocol.py",),
    "deploy/dynamixel/registers.py": (f"{_BUS}/test_registers.py",),
    "deploy/servos/reply_times.py": ("tests/deploy/servos/test_reply_times.py",),
    "deploy/dynamixel/replies.py": (f"{_BUS}/test_replies.py", f"{_BUS}/test_sync.py"),
    "deploy/dynamixel/servos.py": (f"{_BUS}/test_servos.py",),
    "deploy/servos/models.py": ("tests/deploy/servos/test_models.py", "tests/envs/servos"),
    "deploy/servos/physics.py": ("tests/deploy/servos/test_models.py",),
    "deploy/dynamixel/sync.py": (f"{_BUS}/test_sync.py",),
    # what goes with them
    "deploy/clock.py": ("tests/deploy/test_clock.py",),
    "deploy/commands/udp.py": ("tests/deploy/commands/test_udp.py",),
    "deploy/commands/keyboard.py": ("tests/deploy/commands/test_keyboard.py",),
    "deploy/commands/gamepad.py": ("tests/deploy/commands/test_gamepad.py",),
    "deploy/commands/schedule.py": ("tests/deploy/commands/test_schedule.py",),
    "deploy/commands/random_commands.py": ("tests/deploy/commands/test_fixed_and_random.py",),
    "deploy/histogram.py": ("tests/deploy/test_histogram.py",),
    "deploy/twin/profile.py": (f"{_TWIN}/test_profile.py",),
    "deploy/twin/monitor.py": (f"{_TWIN}/test_monitor.py",),
    "envs/draws.py": ("tests/envs/test_draws.py",),
}
