"""A program of one's own that is gone: its companion leaves the robot in the safe state."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.errors import BusError, DeployError
from deploy.feetech import protocol
from deploy.feetech import registers as feetech
from deploy.guard import guarded
from deploy.process import start_companion
from deploy.robot_config import RobotConfig
from deploy.serial_port import SerialPort
from deploy.servos.bus import ServoBus
from tests.deploy.conftest import REPOSITORY
from tests.until import until

PROGRAM = """
import sys, deploy
with deploy.open_robot(sys.argv[1], sys.argv[2], change_settings=True) as arm:
    write = arm.robot.write
    def tell(targets):
        write(targets)
        print("moving", flush=True)
    arm.robot.write = tell
    arm.move({"shoulder_pan": 0.5})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_program_that_is_killed_or_stopped_in_a_move_leaves_the_safe_state(
    tmp_path: Path, number: signal.Signals
):
    pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")
    from robotrl.run_policy import running_twin

    robot = tmp_path / "so101.yaml"
    document = yaml.safe_load((REPOSITORY / "configs/robots/so101.yaml").read_text())
    document["safety"] |= {"safe_state": "torque_off", "move_to_start_s": 60.0}
    document["safety"] |= {"watchdog_ms": 1000, "stale_after_ms": 1000, "max_overruns": 1000}
    robot.write_text(yaml.safe_dump(document))

    def torque(port: str) -> list[int]:
        with contextlib.closing(SerialPort(port, 1_000_000)) as opened:  # once nobody has it
            bus = ServoBus(opened, 1_000_000, protocol)
            return [bus.read(id, feetech.TORQUE_ENABLE) for id in range(1, 7)]

    with running_twin(robot) as port:
        command = [sys.executable, "-c", PROGRAM, robot, port]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout
            assert program.stdout.readline() == "moving\n"
            program.send_signal(number)
            assert until(lambda: torque(port), BusError) == [0] * 6
            assert program.wait() == -signal.SIGKILL


def test_program_without_a_companion_does_not_begin(
    so101: RobotConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "deploy.guard.start_companion",
        lambda module, job, handles: start_companion("this", job, handles),  # says other things
    )
    with pytest.raises(DeployError, match="the companion process, which makes"), guarded(so101, {}):
        raise AssertionError("nobody watches")
