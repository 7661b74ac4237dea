import numpy as np
import pytest

from deploy.twin.truth import TruthRecorder


def test_samples_lie_a_period_apart_however_the_twin_is_advanced(twin, tmp_path):
    truth = TruthRecorder(twin)
    for now_s in (0.003, 0.0204, 0.1):
        truth.advance(now_s)
    truth.save(tmp_path / "truth.npz")

    saved = np.load(tmp_path / "truth.npz")
    assert saved["time_s"] == pytest.approx(np.arange(11) * 0.01)
    assert twin.time_s == pytest.approx(0.1)
    assert np.array_equal(saved["joint_position"][-1], twin.joint_position)
    assert np.array_equal(saved["tool_position"][-1], twin.tool_position)


def test_without_samples_the_arrays_are_empty(twin, tmp_path):
    TruthRecorder(twin).save(tmp_path / "truth.npz")
    saved = np.load(tmp_path / "truth.npz")
    assert saved["joint_position"].shape == (0, 2)
    assert saved["tool_position"].shape == (0, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["truth.npz"]
