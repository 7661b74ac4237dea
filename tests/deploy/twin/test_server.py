import contextlib
import json
import socket
import time

import numpy as np
import pytest

from deploy.commands.udp import Address
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.registers import PRESENT_POSITION
from deploy.errors import BusError, ConfigError
from deploy.serial_port import SerialPort
from deploy.twin.parameters import draw
from deploy.twin.server import serve
from tests.until import PATIENCE_S, until


def test_server_runs_a_robot_and_writes_down_what_it_did(running_server, arm_path, tmp_path):
    link, truth_path, parameters = tmp_path / "port", tmp_path / "truth.npz", draw(3, arm_path)
    started_s = time.monotonic()

    with running_server(link=link, truth_path=truth_path, parameters=parameters) as path:
        assert path == str(link)
        for _ in range(2):  # a program may hang up and another one come
            with contextlib.closing(SerialPort(path, 1_000_000)) as port:
                bus = DynamixelBus(port, 1_000_000)
                until(lambda bus=bus: set(bus.scan(range(4))) == {1, 2})
                # it falls; 0.5 rad are 2000 - 326 counts
                until(lambda bus=bus: bus.read(2, PRESENT_POSITION) < 1670, BusError)

    assert not link.is_symlink()
    truth = np.load(truth_path)
    assert np.diff(truth["time_s"]) == pytest.approx(0.01)
    assert started_s < truth["time_s"][0] < truth["time_s"][-1] < time.monotonic()
    assert truth["joint_position"][0] == pytest.approx([0.0, 0.5], abs=1e-3)
    assert truth["joint_position"][-1][1] > 0.5
    assert truth["tool_position"].shape == (len(truth["time_s"]), 3)
    assert list(truth["joints"]) == ["shoulder", "elbow"]
    assert json.loads(str(truth["parameters"])) == json.loads(json.dumps(parameters.to_dict()))


def test_server_tells_where_the_thing_before_the_robot_is(running_server, tmp_path):
    (tmp_path / "ball.xml").write_text(
        "<mujoco><option gravity='0 0 0'/><worldbody><body pos='0.3 0.1 0.2'><freejoint/>"
        "<geom size='0.01'/></body></worldbody></mujoco>"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(PATIENCE_S)
        camera = Address(port=listener.getsockname()[1])
        with running_server(thing=tmp_path / "ball.xml", camera=camera):
            message = json.loads(listener.recv(4096))
    assert message["signals"]["object_position"][:2] == pytest.approx([0.3, 0.1], abs=3e-3)
    assert 0.06 <= message["age_s"] < 1.0


def test_camera_that_cannot_send_is_refused(tmp_path, arm_path, arm_config):
    (tmp_path / "ball.xml").write_text(
        "<mujoco><worldbody><body pos='0.3 0.1 0.2'><freejoint/><geom size='0.01'/></body>"
        "</worldbody></mujoco>"
    )
    with pytest.raises(ConfigError, match=r"--camera nowhere\.invalid:5555 cannot be sent to"):
        serve(
            arm_path,
            arm_config,
            thing=tmp_path / "ball.xml",
            camera=Address("nowhere.invalid"),
            ready=lambda path: None,
        )


def test_link_does_not_replace_a_file(arm_path, arm_config, tmp_path):
    taken = tmp_path / "port"
    taken.write_text("precious")
    with pytest.raises(BusError) as caught:
        serve(arm_path, arm_config, link=taken, ready=lambda path: None)
    assert str(caught.value) == (
        f"{taken} exists and is no symbolic link, expected a free name for the twin's port; "
        "choose another name or remove it"
    )
    assert taken.read_text() == "precious"


def test_folder_of_the_truth_must_exist_from_the_start(arm_path, arm_config, tmp_path):
    with pytest.raises(ConfigError) as caught:
        serve(
            arm_path,
            arm_config,
            truth_path=tmp_path / "logs" / "truth.npz",
            ready=lambda path: None,
        )
    assert str(caught.value) == (
        f"{tmp_path / 'logs'} is no folder, expected one for truth.npz; make it first"
    )


def test_link_left_behind_by_a_killed_twin_is_replaced(running_server, tmp_path):
    link = tmp_path / "port"
    link.symlink_to("/dev/pts/gone")
    with running_server(link=link):
        assert link.exists()
