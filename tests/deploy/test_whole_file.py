"""A file is there whole or as it was before, and a place that cannot be written is told at once."""

import re
from pathlib import Path

import pytest

from deploy.errors import ConfigError
from deploy.whole_file import explained, replaced, require_writable


def test_file_is_replaced_when_all_of_it_is_written(tmp_path: Path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"before")

    with replaced(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_bytes() == b"before"
        assert Path(file.name).read_bytes() == b"after"  # to be checked before it counts

    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_error_half_way_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"before")

    with pytest.raises(error), replaced(path) as file:
        file.write(b"half of")
        raise error

    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_explained(tmp_path: Path):
    path = Path("/dev/full")

    with (
        pytest.raises(
            ConfigError,
            match=r"^/dev/full cannot be written: No space left on device; make room, or choose "
            r"another --output$",
        ),
        explained(path, "--output"),
        path.open("wb") as file,
    ):
        file.write(b"more than there is room for")


def test_place_that_can_be_written_is_left_as_it_was(tmp_path: Path):
    path = tmp_path / "policy.onnx"
    require_writable(path, "--output")
    assert list(tmp_path.iterdir()) == []

    path.write_bytes(b"before")
    require_writable(path, "--output")
    assert path.read_bytes() == b"before"


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path):
    expected = f"^{re.escape(str(tmp_path))} cannot be written: Is a directory; .* another --record"
    with pytest.raises(ConfigError, match=expected):
        require_writable(tmp_path, "--record")
