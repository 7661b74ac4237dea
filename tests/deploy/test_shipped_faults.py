"""The fault scripts that ship end as they say, on every kind of device."""

from pathlib import Path

import pytest

from deploy.configuration import load_yaml
from deploy.runtime import State
from deploy.twin.faults import FaultScript
from tests.deploy.conftest import REPOSITORY
from tests.deploy.faulty_arm import FAMILIES, FaultyArm

SCRIPTS = REPOSITORY / "configs/faults"
ENDS = {
    "noisy_cable": "goes on",
    "busy_computer": "goes on",
    "loose_plug": "waits",
    "weak_supply": "waits",
}


def test_every_script_is_tried():
    assert {path.stem for path in SCRIPTS.iterdir()} == set(ENDS)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("family", ["DYNAMIXEL", "Feetech STS", "board"])
def test_script_ends_as_it_says(name: str, family: str, tmp_path: Path):
    assert family in FAMILIES
    arm = FaultyArm(family, tmp_path, load_yaml(SCRIPTS / f"{name}.yaml", FaultScript))

    error = arm.run(4.0)

    assert not arm.monitor.violations
    end = "stops" if error else "waits" if State.PAUSED in arm.states else "goes on"
    assert end == ENDS[name], error
