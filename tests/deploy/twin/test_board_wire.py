"""The balancer behind its microcontroller, in virtual time: it balances over the wire, and it stops
by itself whatever becomes of the host."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.configuration import load_yaml, validate
from deploy.errors import BusError, BusTimeout, ConfigError, SafetyError
from deploy.microcontroller.device import Microcontroller
from deploy.microcontroller.messages import Mode, Parts, Reason
from deploy.robot import Robot, measured_signals
from deploy.robot_config import RobotConfig
from deploy.serial_port import Port

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from deploy.twin.board_wire import BoardWire
from deploy.twin.robot import Twin
from tests.deploy.balancer import RADIUS, REPOSITORY, TRACK, Balancer, balance, joint
from tests.deploy.twin.conftest import ARM


class Cable:
    """A port that can be cut, and lose frames."""

    def __init__(self, port: Port):
        self._port, self.cut, self.lose = port, False, 0

    def now(self) -> float:
        return self._port.now()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.lose:
            self.lose -= 1
        elif not self.cut:
            self._port.write(data)

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        return self._port.read_into(buffer, deadline_s)

    def close(self) -> None: ...

    def reopen(self) -> None: ...


class Bench(Balancer):
    """Behind its board, on a cable."""

    def __init__(self, *, mode: str = "velocity", safe_state: str = "torque_off"):
        config = load_yaml(REPOSITORY / "configs/robots/balancer.yaml", RobotConfig)
        safety = config.safety.model_copy(update={"safe_state": safe_state})
        super().__init__(config.model_copy(update={"safety": safety}))
        self.cable = Cable(self.port)
        joints = [joint(name, mode) for name in config.joints]
        self.robot = Robot(self.config, joints, {"board": self.cable})
        device = self.robot.devices[0]
        assert isinstance(device, Microcontroller)
        self.device = device
        wire = self.twin._wires["board"]
        assert isinstance(wire, BoardWire)
        self.board = wire.board


@pytest.fixture
def bench() -> Bench:
    """Connected, wheels driven and at rest."""
    bench = Bench()
    bench.robot.connect()
    bench.robot.energise()
    return bench


def test_it_stands_up_and_balances_on_what_comes_over_the_wire(bench: Bench) -> None:
    assert bench.pitch == pytest.approx(0.384, abs=0.02)
    for tick in range(400):
        bench.tick(balance(bench))
        if tick > 250:
            assert abs(bench.pitch) < 0.05
    assert np.abs(bench.twin._data.qpos[:2]).max() < 0.1
    assert bench.robot.alarm() == ""
    statistics = bench.robot.statistics
    assert (statistics.lost, statistics.crc_errors) == (0, 0)


def test_signals_agree_with_the_simulated_robot_while_it_turns(bench: Bench) -> None:
    for _ in range(150):
        bench.tick(balance(bench) + np.array([2.0, -2.0]))
    robot, twin = bench.robot, bench.twin
    np.testing.assert_allclose(robot.velocity, twin.joint_velocity, atol=0.3)
    np.testing.assert_allclose(robot.position, twin.joint_position, atol=0.05)
    left, right = twin.joint_velocity
    rate = robot.readings["imu_angular_velocity"].values[2]
    assert rate == pytest.approx(RADIUS * (right - left) / TRACK, abs=0.1) and rate < -0.7
    up = twin._data.site("imu").xmat.reshape(3, 3)[2]
    np.testing.assert_allclose(robot.readings["projected_gravity"].values, -up, atol=0.02)
    # the sketch's loop of 2 ms, 0.2 ms to answer, the wire and the adapter
    assert 0 < robot.age_s.max() < 0.005
    # the twin's board is 17 s ahead and gains 40 us per second
    assert bench.device.link.clocks.offset_s == pytest.approx(17.0, abs=1e-3)


def test_it_is_looked_at_before_it_is_connected() -> None:
    bench = Bench(mode="torque")  # whatever a policy would send
    assert re.fullmatch(
        r"board: firmware \d+, id [0-9a-f]{16}, \d\.\d V, obeys position, velocity, motors off, "
        r"left_wheel at [+-]0\.00 rad, right_wheel at [+-]0\.00 rad, "
        r"down is \[0\.\d+, .*, -0\.9\d?\]",
        bench.device.look(),
    )
    assert not bench.wheels_driven


def test_the_measured_signals_are_those_of_board_and_imu(bench: Bench) -> None:
    assert measured_signals(bench.config) == tuple(bench.robot.readings)


@pytest.mark.parametrize(("safe_state", "driven"), [("torque_off", False), ("hold", True)])
def test_when_the_host_falls_silent_the_wheels_stop_in_the_deadmans_time(
    safe_state: str, driven: bool
) -> None:
    bench = Bench(safe_state=safe_state)
    bench.robot.connect()
    bench.robot.energise()
    for _ in range(20):
        bench.tick(np.array([10.0, 10.0]))
    bench.wait(0.098)
    assert (
        bench.wheels_driven and bench.board.mode == Mode.VELOCITY and not bench.board.state.reason
    )
    bench.wait(0.006)
    assert bench.board.state.reason == Reason.SILENCE
    assert bench.wheels_driven == driven
    assert list(bench.board.targets) == [0.0, 0.0]


def test_a_stop_by_the_deadman_is_an_alarm_and_commands_do_not_undo_it(bench: Bench) -> None:
    bench.tick(np.array([10.0, 10.0]))
    bench.wait(0.2)
    bench.tick(np.array([10.0, 10.0]))
    bench.tick()
    assert "was stopped by silence" in bench.robot.alarm()
    assert not bench.wheels_driven
    bench.robot.energise()
    bench.tick(np.array([10.0, 10.0]))
    bench.tick()
    assert bench.robot.alarm() == "" and bench.wheels_driven


def test_one_lost_frame_costs_a_reading_and_nothing_else(bench: Bench) -> None:
    for tick in range(40):
        bench.cable.lose = int(tick == 20)
        bench.tick(balance(bench))
        assert bench.robot.alarm() == ""
    assert bench.robot.statistics.lost == 1
    assert bench.device.link.state.lost == 1


def test_a_board_that_restarts_is_an_alarm_and_obeys_nothing(bench: Bench) -> None:
    bench.tick(np.array([5.0, 5.0]))
    bench.board.__init__(2, {Mode.VELOCITY}, imu=True, supply=True)  # as after a brown-out
    bench.tick(np.array([5.0, 5.0]))
    bench.tick()
    assert "has restarted" in bench.robot.alarm()
    assert not bench.wheels_driven


def test_a_pressed_emergency_stop_is_an_alarm_and_cannot_be_started_over(bench: Bench) -> None:
    bench.board.press(True)
    bench.tick()
    assert "its emergency stop, which is pressed" in bench.robot.alarm()
    with pytest.raises(
        SafetyError, match=r"stopped by its emergency stop.* expected it to be clear"
    ):
        bench.robot.energise()
    bench.board.press(False)
    bench.robot.energise()
    assert bench.robot.energised


def test_holding_and_letting_go_are_confirmed_by_the_board(bench: Bench) -> None:
    bench.tick(np.array([5.0, 5.0]))
    bench.robot.hold()
    bench.wait(1.0)  # no command, and it still holds
    assert bench.wheels_driven and bench.board.state.reason == Reason.BY_HOST
    assert np.abs(bench.twin.joint_velocity).max() < 0.05
    bench.robot.release()
    bench.wait(0.01)
    assert not bench.wheels_driven and not bench.robot.energised


def test_letting_go_of_a_board_that_does_not_answer_is_an_error(bench: Bench) -> None:
    bench.cable.cut = True
    with pytest.raises(BusError, match="the board does not answer"):
        bench.robot.release()


def test_a_board_that_is_not_there_is_refused() -> None:
    bench = Bench()
    bench.cable.cut = True
    with pytest.raises(BusTimeout, match=r"no board answers .* expected one that runs"):
        bench.robot.connect()


def test_a_board_that_holds_is_not_let_go_by_connecting(bench: Bench) -> None:
    bench.robot.hold()
    again = Robot(bench.config, bench.robot.joints, {"board": bench.cable})
    again.connect()
    bench.wait(0.1)
    assert again.energised and bench.wheels_driven


def test_a_board_with_other_joints_or_modes_is_refused(bench: Bench) -> None:
    welcome = bench.board.welcome
    bench.board.welcome = replace(welcome, joints=3)
    with pytest.raises(BusError, match="has 3 joints, the robot's YAML gives it 2"):
        bench.robot.connect()
    bench.board.welcome = replace(welcome, modes=frozenset({Mode.TORQUE}))
    with pytest.raises(BusError, match="obeys torque, the policy sends velocity"):
        bench.robot.connect()
    bench.board.welcome = replace(welcome, parts=Parts.SUPPLY)
    with pytest.raises(BusError, match="has no IMU, the robot's YAML says `imu:`"):
        bench.robot.connect()


def test_joints_driven_in_different_ways_are_refused() -> None:
    bench = Bench()
    joints = [joint("left_wheel", "velocity"), joint("right_wheel", "torque")]
    with pytest.raises(ConfigError, match="driven by torque and velocity, expected one"):
        Robot(bench.config, joints, {"board": bench.cable})


def test_positions_are_held_where_the_joints_are() -> None:
    bench = Bench(mode="position", safe_state="hold")
    bench.robot.connect()
    bench.robot.energise()
    target = bench.robot.position + np.array([0.5, -0.5])
    for _ in range(80):
        bench.tick(target)
    np.testing.assert_allclose(bench.twin.joint_position, target, atol=0.1)
    bench.robot.hold()
    bench.wait(0.5)
    np.testing.assert_allclose(bench.twin.joint_position, target, atol=0.12)


@pytest.mark.parametrize("let_go", [True, False])
def test_another_program_stops_what_a_killed_one_has_left(let_go: bool) -> None:
    bench = Bench(safe_state="hold")
    bench.robot.connect()
    bench.robot.energise()
    for _ in range(20):
        bench.tick(np.array([10.0, 10.0]))
    rescuer = Robot(bench.config, bench.robot.joints, {"board": bench.cable})
    rescuer.rescue(let_go=let_go)
    bench.wait(0.5)
    assert bench.wheels_driven != let_go
    if not let_go:
        assert bench.board.state.reason == Reason.BY_HOST
        assert np.abs(bench.twin.joint_velocity).max() < 0.05


def test_a_robot_is_let_go_without_being_connected_first(bench: Bench) -> None:
    Robot(bench.config, bench.robot.joints, {"board": bench.cable}).release()
    bench.wait(0.01)
    assert not bench.wheels_driven


def test_servos_of_another_family_behind_a_board_are_refused(tmp_path: Path) -> None:
    (tmp_path / "arm.xml").write_text(ARM)
    joints = {
        joint: {"id": row, "model": "STS3215-12V", "rest_rad": 0.0}
        | {"position_limits_rad": [-1.5, 1.5], "velocity_limit_rad_s": 5.0}
        for row, joint in enumerate(("shoulder", "elbow"))
    }
    devices = {"board": {"port": "/dev/board", "protocol": "microcontroller"}}
    document = {"robot": "arm", "devices": devices, "joints": joints}
    config = validate(document, RobotConfig, source="arm.yaml")
    with pytest.raises(
        ConfigError, match=r"joints \['shoulder', 'elbow'\] are behind board 'board'"
    ):
        Twin(tmp_path / "arm.xml", config)
