"""The task of our own that is not shipped: a robot with a free base."""

import pytest

from envs.registry import TASKS
from tests.envs.models.stand_task import Stand


@pytest.fixture
def stand_task(monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name, registered."""
    monkeypatch.setitem(TASKS, "stand", Stand)
    return "stand"
