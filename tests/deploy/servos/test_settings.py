"""Settings saved before they are changed, and written back, on a twin in virtual time."""

from pathlib import Path

import pytest

from deploy.device import SettingChange
from deploy.dynamixel import registers
from deploy.errors import ConfigError, ServoError
from deploy.robot import Robot
from deploy.servos import settings as servo_settings
from tests.deploy.conftest import Bench

LEFT = {
    "elbow_flex": {registers.HOMING_OFFSET: -300, registers.MAX_POSITION_LIMIT: 3000},
    "gripper": {registers.OPERATING_MODE: 4, registers.RETURN_DELAY_TIME: 100},
}


@pytest.fixture
def changed(bench: Bench, tmp_path: Path) -> tuple[Bench, Path]:
    """An arm that was set up by another program, and then by us; the file in between."""
    path = tmp_path / "logs" / "servos.yaml"
    for joint, settings in LEFT.items():
        for register, value in settings.items():
            bench.set(joint, register, value)

    def approve(changes: list[SettingChange]) -> bool:
        servo_settings.save(changes, path)
        return True

    ports = {"bus": bench.port}
    Robot(bench.config, bench.contract.joints, ports, approve=approve).connect()
    return bench, path


def test_what_was_found_is_written_back(changed: tuple[Bench, Path]):
    bench, path = changed
    assert bench.get("elbow_flex", registers.HOMING_OFFSET) == 0

    done = servo_settings.restore(bench.robot.devices, path)

    assert "elbow_flex (id 3): Homing Offset (20) is -300" in done
    for joint, settings in LEFT.items():
        for register, value in settings.items():
            assert bench.get(joint, register) == value


def test_servo_that_holds_torque_is_left_alone(changed: tuple[Bench, Path]):
    bench, path = changed
    bench.set("gripper", registers.TORQUE_ENABLE, 1)
    with pytest.raises(ServoError, match=r"gripper \(id 6\) holds torque"):
        servo_settings.restore(bench.robot.devices, path)
    assert bench.get("elbow_flex", registers.HOMING_OFFSET) == 0


def test_earlier_file_is_never_replaced(changed: tuple[Bench, Path]):
    _, path = changed
    before = path.read_text()
    change = SettingChange("gripper", 6, "Homing Offset", 20, 1, 0)
    with pytest.raises(ConfigError, match="cannot be saved"):
        servo_settings.save([change], path)
    assert path.read_text() == before


def test_value_that_no_register_holds_is_refused_before_anything_is_written(
    bench: Bench, tmp_path: Path
):
    path = tmp_path / "servos.yaml"
    path.write_text("servos: {gripper: {id: 6, settings: {Operating Mode: 4, Drive Mode: 300}}}")
    with pytest.raises(ConfigError, match=r"gripper: Drive Mode \(10\) cannot hold 300"):
        servo_settings.restore(bench.robot.devices, path)
    assert bench.get("gripper", registers.OPERATING_MODE) == 3


@pytest.mark.parametrize("name", ["Goal Position", "Model Number", "Homing"])
def test_file_that_names_what_is_no_setting_is_refused(bench: Bench, tmp_path: Path, name: str):
    path = tmp_path / "servos.yaml"
    path.write_text(f"servos: {{gripper: {{id: 6, settings: {{{name}: 5}}}}}}")
    with pytest.raises(ConfigError, match=rf"gripper: \['{name}'\] are no settings of a servo"):
        servo_settings.restore(bench.robot.devices, path)
