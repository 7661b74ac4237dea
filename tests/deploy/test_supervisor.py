"""A controller that is gone: what its joints do, and what the supervisor does with them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import BusError
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.servos.catalog import MODELS
from deploy.supervisor import NOT_SAFE, Supervisor, make_safe
from deploy.twin.port import VirtualPort
from deploy.vigil import VIGIL_BYTES, Vigil
from tests.deploy.conftest import Bench
from tests.deploy.test_faults import family_bench
from tests.deploy.test_serial_port import plug_in

__all__ = ["family_bench"]


def moving(bench: Bench) -> Bench:
    """Its controller is gone while the wrist is on its way."""
    bench.robot.connect()
    bench.robot.energise()
    target = bench.robot.target
    for _ in range(20):
        target[4] += 0.04
        bench.robot.write(target)
        bench.wait(0.02)
        bench.robot.read(bench.clock.now() + 0.01)
    return bench


def rescue(bench: Bench, *, let_go: bool) -> None:
    port = VirtualPort(bench.twin, bench.clock, 1_000_000)
    Robot(bench.config, bare_joints(bench.config), {"bus": port}).rescue(let_go=let_go)
    bench.monitor.stopped()


def test_robot_left_moving_is_held_near_where_it_was(family_bench: Bench):
    bench = moving(family_bench)
    pose = bench.twin.joint_position
    rescue(bench, let_go=False)
    bench.wait(1.0)  # longer than a watchdog
    assert all(bench.torque_on.values())
    assert bench.twin.joint_position == pytest.approx(
        pose, abs=0.2
    )  # 2 rad/s for 50 ms, and 0.1 rad
    still = bench.twin.joint_position
    bench.wait(0.5)
    assert bench.twin.joint_position == pytest.approx(still, abs=0.005)


def test_robot_whose_safe_state_is_limp_is_let_go(family_bench: Bench):
    rescue(moving(family_bench), let_go=True)
    assert not any(family_bench.torque_on.values())


def test_joint_that_is_limp_stays_limp(family_bench: Bench):
    bench = moving(family_bench)
    bench.set("gripper", bench.servo("gripper").registers.TORQUE_ENABLE, 0)
    rescue(bench, let_go=False)
    assert [joint for joint, on in bench.torque_on.items() if not on] == ["gripper"]


def test_servo_that_does_not_answer_keeps_none_of_the_others_from_being_held(family_bench: Bench):
    bench = moving(family_bench)
    bench.servo("shoulder_pan")._silent_until_s = np.inf
    with pytest.raises(BusError, match="shoulder_pan: servo 1 does not answer"):
        rescue(bench, let_go=False)
    bench.wait(0.6)
    goal = bench.servo("wrist_roll").registers.GOAL_POSITION
    wiring = bench.config.joints["wrist_roll"]
    counts = wiring.direction * (bench.get("wrist_roll", goal) - wiring.zero_ticks)
    angle = counts * MODELS[wiring.model].rad_per_tick
    assert angle == pytest.approx(bench.twin.joint_position[4], abs=0.06)


def test_robot_whose_port_is_gone_is_reported(so101: RobotConfig):
    done = make_safe(so101.at_ports({"bus": "/dev/does-not-exist"}).model_dump_json())
    assert done.startswith("the companion could not make the robot safe: /dev/does-not-exist does")


def test_adapter_that_came_back_under_another_name_is_found_there(
    so101: RobotConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The cable is pulled, the controller finds its adapter elsewhere, goes on, and is killed."""
    monkeypatch.setattr("deploy.serial_port.TERMINALS", tmp_path / "tty")
    plug_in(tmp_path, "1-1", "ttyUSB0", "FT4THV1J")
    (far_end, port), (read, write) = os.openpty(), os.pipe()
    with open(read) as stdin, open(write, "w"), monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stdin)
        patch.setattr("os.ttyname", lambda fd: "/dev/ttyUSB0")
        robot = so101.at_ports({"bus": "/dev/ttyUSB0"}).model_dump_json()
        vigil = Vigil(memoryview(bytearray(VIGIL_BYTES)))
        supervisor = Supervisor(robot, vigil, os.getppid(), {"bus": port})
        os.close(far_end)
        assert not supervisor._gone(10.0)  # the cable is, which ends the wait
    shutil.rmtree(tmp_path / "tty")
    plug_in(tmp_path, "1-1", "ttyUSB1", "FT4THV1J")
    assert "/dev/ttyUSB1 does not exist" in supervisor._rescue()


def test_robot_that_is_none_is_reported():
    assert make_safe("a robot").startswith("the companion could not make the robot safe: ")


def idle_supervisor(robot: RobotConfig) -> Supervisor:
    with Path("/dev/null").open() as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", stdin)
        return Supervisor(
            robot.model_dump_json(), Vigil(memoryview(bytearray(VIGIL_BYTES))), os.getppid(), {}
        )


def test_robot_that_does_not_confirm_at_first_is_tried_again(
    so101: RobotConfig, monkeypatch: pytest.MonkeyPatch
):
    answers = iter([f"{NOT_SAFE}: servo 3 does not answer"] * 2 + ["held"])
    monkeypatch.setattr("deploy.supervisor.make_safe", lambda *_, **__: next(answers))
    supervisor = idle_supervisor(so101)
    assert supervisor._rescue(for_s=60.0) == "held"
    assert next(answers, "none left") == "none left"


def test_robot_that_never_confirms_is_given_up(so101: RobotConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deploy.supervisor.make_safe", lambda *_, **__: NOT_SAFE)
    supervisor = idle_supervisor(so101)
    assert supervisor._rescue(for_s=0.2) == NOT_SAFE
