"""The black box: what the control process committed is in the MCAP, however that process ended.

The oracle is the mcap library's own reader; disks are full and processes are killed for real.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import NonSeekingReader, make_reader

from deploy.contract import Contract
from deploy.errors import DeployError
from deploy.recorder import CAPACITY, EVENT_TOPIC, TOPIC, VANISHED, Recorder, record_dtype
from deploy.signals import SIGNALS
from tests.deploy.conftest import using
from tests.until import PATIENCE_S, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.mcap"


def commit(recorder: Recorder, number: int) -> None:
    """Commit a record in which every field tells its number."""
    record = recorder.record
    for column, name in enumerate(record.dtype.names or ()):
        record[name] = (number + column) % 256
    record["time_s"] = time.monotonic()
    recorder.commit()


def events(path: Path) -> list[dict[str, Any]]:
    """What the log says of changes of state."""
    with path.open("rb") as file:
        return [json.loads(m.data) for *_, m in make_reader(file).iter_messages([EVENT_TOPIC])]


def unfinished(path: Path) -> Path:
    """The file in which `path` is being written."""
    (found,) = path.parent.glob("run.*.incomplete.mcap")
    return found


def saved(path: Path) -> list[int]:
    """Sequence numbers of the ticks in a file that ends anywhere, by the library's own reader."""
    found = []
    with path.open("rb") as file:
        reader = NonSeekingReader(file)
        try:
            for *_, message in reader.iter_messages(topics=[TOPIC], log_time_order=False):
                found.append(message.sequence)
        except Exception:  # the end of an unfinished file
            pass
    return found


def read(path: Path) -> tuple[dict[str, str], list[dict[str, Any]], list[int]]:
    """Metadata, messages and their sequence numbers."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        (metadata,) = reader.iter_metadata()
        messages = [message for *_, message in reader.iter_messages(topics=[TOPIC])]
    return (
        metadata.metadata,
        [json.loads(message.data) for message in messages],
        [message.sequence for message in messages],
    )


def test_every_record_is_in_the_log_in_order_with_its_values(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    for number in range(300):
        commit(recorder, number)
    recorder.close()

    _, ticks, sequence = read(path)
    assert sequence == list(range(300))
    names = list(record_dtype(contract).names or ())
    for number, tick in enumerate(ticks):
        assert list(tick) == names
        for column, name in enumerate(names[1:], start=1):
            value = (number + column) % 256
            count = record_dtype(contract)[name].shape
            assert tick[name] == (value if not count else [value] * count[0])


def test_record_has_the_signals_of_the_policy_and_always_the_joints(contract: Contract):
    dtype = record_dtype(using(contract, "projected_gravity", "time", "joint_position"))

    shapes = {name: dtype[name].shape for name in dtype.names or () if name in SIGNALS}
    assert shapes == {
        "joint_position": (6,),
        "joint_velocity": (6,),
        "projected_gravity": (3,),
        "time": (1,),
    }


def test_values_keep_the_precision_of_the_record(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    recorder.record["time_s"] = 12345.678901234567
    recorder.record["joint_position"] = np.float32(0.1)
    recorder.commit()
    recorder.close()
    (tick,) = read(path)[1]
    assert tick["time_s"] == 12345.678901234567
    assert np.float32(tick["joint_position"][0]) == np.float32(0.1)


def test_contract_and_metadata_travel_with_the_log(path: Path, contract: Contract):
    Recorder(path, contract, {"robot": "a robot"}).close()
    metadata, ticks, _ = read(path)
    assert Contract.model_validate_json(metadata["contract"]) == contract
    assert metadata["robot"] == "a robot"
    assert ticks == []


def test_log_times_are_the_clock_on_the_wall(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    commit(recorder, 0)
    recorder.close()
    with path.open("rb") as file:
        ((_, _, message),) = make_reader(file).iter_messages()
    assert message.log_time / 1e9 == pytest.approx(time.time(), abs=5.0)


def test_changes_of_state_and_their_reasons_are_in_the_log(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    recorder.note(100.5, "running")
    recorder.note(101.25, "fault", "joint 'elbow' ist zu heiß: 91 °C")
    recorder.close()
    assert events(path) == [
        {"time_s": 100.5, "state": "running", "text": ""},
        {"time_s": 101.25, "state": "fault", "text": "joint 'elbow' ist zu heiß: 91 °C"},
    ]


def test_endless_reason_is_cut_between_two_characters(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    recorder.note(0.0, "fault", "x" + "°" * 5000)
    recorder.close()
    text = events(path)[0]["text"]
    assert text == "x" + "°" * 2031  # 4064 bytes, and half a ° less


def test_log_appears_only_when_it_is_complete(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    commit(recorder, 0)
    assert not path.exists()
    recorder.close()
    assert path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["run.mcap"]


def test_earlier_log_of_the_same_name_is_replaced(path: Path, contract: Contract):
    path.write_text("old")
    recorder = Recorder(path, contract, {})
    assert path.read_text() == "old"
    recorder.close()
    assert read(path)[1] == []


def test_commit_takes_microseconds(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    took_s = []
    for _ in range(1000):
        begin_s = time.perf_counter()
        recorder.commit()
        took_s.append(time.perf_counter() - begin_s)
    recorder.close()
    assert np.median(took_s) < 100e-6


def test_folder_of_the_log_is_made(tmp_path: Path, contract: Contract):
    path = tmp_path / "logs" / "today" / "run.mcap"
    Recorder(path, contract, {}).close()
    assert read(path)[1] == []


def test_file_in_place_of_the_folder_is_refused(path: Path, contract: Contract):
    path.write_text("a file")
    below = path / "run.mcap"
    with pytest.raises(DeployError, match=re.escape(f"{below}: cannot be recorded: ")):
        Recorder(below, contract, {})


# Where a log may be


def kinds_of_target(path: Path) -> dict[str, Path]:
    """One of each, but a regular file."""
    other = path.with_name("other")
    other.write_text("precious")
    (path.parent / "folder").mkdir()
    (path.parent / "link").symlink_to(other)
    (path.parent / "dangling").symlink_to(path.parent / "nothing")
    os.mkfifo(path.parent / "pipe")
    return {
        "a folder": path.parent / "folder",
        "a symbolic link": path.parent / "link",
        "a symbolic link ": path.parent / "dangling",
        "a device or a pipe": path.parent / "pipe",
        "a device or a pipe ": Path("/dev/null"),
    }


def test_only_a_regular_file_is_replaced(path: Path, contract: Contract):
    targets = kinds_of_target(path)
    before = sorted(path.parent.iterdir())
    for kind, target in targets.items():
        status = target.lstat()
        with pytest.raises(DeployError) as caught:
            Recorder(target, contract, {})
        assert str(caught.value) == (
            f"{target}: cannot be recorded: it is {kind.strip()}, expected a regular file or "
            "nothing; give --log another name"
        )
        assert target.lstat() == status
    assert sorted(path.parent.iterdir()) == before
    assert path.with_name("other").read_text() == "precious"


def test_what_took_the_logs_place_meanwhile_is_not_replaced(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    recorder.commit()
    path.symlink_to("/dev/null")
    with pytest.raises(DeployError, match="it is a symbolic link") as caught:
        recorder.close()
    assert path.is_symlink()
    assert f"what was saved is in {unfinished(path)}" in str(caught.value)
    assert saved(unfinished(path)) == [0]


def test_temporary_file_is_no_way_around(path: Path, contract: Contract, monkeypatch: Any):
    """Whoever guesses its name gains nothing: an existing entry is never opened."""
    precious = path.with_name("precious")
    precious.write_text("precious")
    monkeypatch.setattr("deploy.recorder.secrets.token_hex", lambda count: "guessed")
    path.with_name("run.guessed.incomplete.mcap").symlink_to(precious)
    path.with_name("run.mcap.tmp").symlink_to(precious)  # the name it once had
    with pytest.raises(DeployError, match=r"cannot be recorded: .*File exists"):
        Recorder(path, contract, {})
    monkeypatch.undo()
    Recorder(path, contract, {}).close()
    assert precious.read_text() == "precious"


def test_log_can_be_read_by_whom_the_umask_lets(path: Path, contract: Contract):
    before = os.umask(0o027)
    try:
        Recorder(path, contract, {}).close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_folder_called_deploy_where_the_user_is_does_not_matter(
    tmp_path: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/__init__.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    Recorder(Path("run.mcap"), contract, {}).close()
    assert read(tmp_path / "run.mcap")[1] == []


# Full disks and full memory, for real


def fill_disk(recorder: Recorder, limit: int) -> None:
    """From now on the companion can write no file beyond `limit` bytes."""
    resource.prlimit(recorder._companion.pid, resource.RLIMIT_FSIZE, (limit, limit))


def test_disk_that_fills_up_is_an_error_that_says_where_the_rest_is(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    for number in range(400):
        commit(recorder, number)
        time.sleep(0.001)
    until(lambda: len(saved(unfinished(path))) > 100)
    fill_disk(recorder, unfinished(path).stat().st_size + 100)
    for number in range(400):
        commit(recorder, number)

    with pytest.raises(DeployError) as caught:
        recorder.close()

    left = unfinished(path)
    assert str(caught.value) == (
        f"{path}: the log is not complete: [Errno 27] File too large; what was saved is in {left}, "
        "which `robotrl report` can read"
    )
    assert not path.exists()
    found = saved(left)
    assert len(found) > 100
    assert found == list(range(len(found)))


def test_companion_without_a_log_goes_on_watching(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    fill_disk(recorder, unfinished(path).stat().st_size + 100)
    for number in range(400):
        commit(recorder, number)
    until(recorder.trouble)

    assert "File too large" in recorder.trouble()
    assert recorder._companion.poll() is None
    with pytest.raises(DeployError, match="File too large"):
        recorder.close()
    assert recorder._companion.poll() == 1


def test_disk_that_is_full_from_the_start_is_refused_and_leaves_nothing(
    path: Path, contract: Contract
):
    with limited(resource.RLIMIT_FSIZE, 4 << 20), pytest.raises(DeployError) as caught:
        Recorder(path, contract, {"long": "x" * (5 << 20)})
    assert str(caught.value) == f"{path}: cannot be recorded: [Errno 27] File too large"
    assert list(path.parent.iterdir()) == []


class limited:  # noqa: N801 (reads as a verb)
    """A limit of this process and those it starts meanwhile."""

    def __init__(self, which: int, value: int):
        self.which, self.value = which, value

    def __enter__(self) -> None:
        self.before = resource.getrlimit(self.which)
        resource.setrlimit(self.which, (self.value, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(self.which, self.before)


def test_memory_that_is_not_there_is_refused_not_a_bus_error(path: Path, contract: Contract):
    with limited(resource.RLIMIT_FSIZE, 4096), pytest.raises(DeployError) as caught:
        Recorder(path, contract, {})
    assert str(caught.value) == f"{path}: cannot be recorded: [Errno 27] File too large"
    assert list(path.parent.iterdir()) == []


COMMIT_MUCH = """
import sys
from pathlib import Path
from deploy.contract import Contract
from deploy.recorder import CAPACITY, Recorder

recorder = Recorder(Path(sys.argv[1]), Contract.model_validate_json(sys.stdin.read()), {})
for number in range(CAPACITY):
    recorder.commit()
recorder.close()
"""


def run_script(script: str, path: Path, contract: Contract, *prefix: str) -> int:
    command = [*prefix, sys.executable, "-c", script, str(path)]
    return subprocess.run(command, input=contract.model_dump_json(), text=True).returncode


def test_full_shared_memory_file_system_does_not_matter(path: Path, contract: Contract):
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm && "
    mount += '{ cat /dev/zero >/dev/shm/full 2>/dev/null; exec "$@"; }'
    alone = [shutil.which("unshare") or "", "-Urm", "sh", "-c", mount, "sh"]
    if not alone[0] or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount file systems of their own")
    assert run_script(COMMIT_MUCH, path, contract, *alone) == 0
    assert len(read(path)[1]) == CAPACITY


# The companion dies


def test_companion_that_is_killed_is_noticed_while_the_robot_runs(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    for number in range(10):
        commit(recorder, number)
    recorder.note(0.0, "running")
    until(lambda: len(saved(unfinished(path))) == 10)
    assert recorder.trouble() == ""

    assert recorder.watches()
    recorder._companion.kill()
    until(recorder.trouble)
    assert not recorder.watches()
    recorder.commit()  # and the run goes on

    expected = (
        f"{path}: the log is not complete: its companion process was killed (signal 9); what was "
        f"saved is in {unfinished(path)}, which `robotrl report` can read"
    )
    assert recorder.trouble() == expected
    with pytest.raises(DeployError) as caught:
        recorder.close()
    assert str(caught.value) == expected


def test_signals_for_everybody_do_not_end_the_companion(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        recorder._companion.send_signal(number)
    time.sleep(0.1)
    recorder.commit()
    recorder.close()
    assert len(read(path)[1]) == 1


def test_ticks_are_in_the_file_although_nobody_closed_it(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    commit(recorder, 0)
    until(lambda: saved(unfinished(path)) == [0])
    recorder.close()


def test_trouble_with_the_log_does_not_hide_what_stopped_the_robot(path: Path, contract: Contract):
    with (
        pytest.raises(ZeroDivisionError, match="the reason") as caught,
        Recorder(path, contract, {}) as recorder,
    ):
        recorder._companion.kill()
        raise ZeroDivisionError("the reason")
    (note,) = caught.value.__notes__
    assert note.startswith(f"{path}: the log is not complete: its companion process was killed")


def test_trouble_with_the_log_alone_is_an_error(path: Path, contract: Contract):
    with (
        pytest.raises(DeployError, match="companion process was killed"),
        Recorder(path, contract, {}) as recorder,
    ):
        recorder._companion.kill()


def test_companion_that_takes_too_long_is_left_to_finish(
    path: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deploy.recorder._FINISH_TIMEOUT_S", 0.1)
    recorder = Recorder(path, contract, {})
    companion = recorder._companion
    companion.send_signal(signal.SIGSTOP)
    recorder.commit()
    with pytest.raises(DeployError) as caught:
        recorder.close()
    assert str(caught.value) == (
        f"{path}: the log is not finished after 0 s, the disk is too slow; process {companion.pid} "
        f"goes on. Wait until {unfinished(path)} has been renamed"
    )
    companion.send_signal(signal.SIGCONT)
    assert companion.wait(PATIENCE_S) == 0
    assert len(read(path)[1]) == 1


# The controller dies

WRITER = """
import sys
from pathlib import Path
from deploy.contract import Contract
from deploy.recorder import Recorder

recorder = Recorder(Path(sys.argv[1]), Contract.model_validate_json(sys.stdin.read()), {})
recorder.note(1.0, "running")
for number in range(500):
    recorder.record["overruns"] = number
    recorder.commit()
print(flush=True)
while True:
    pass
"""


def test_killed_writer_leaves_a_complete_log_that_says_so(path: Path, contract: Contract):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin and writer.stdout
    writer.stdin.write(contract.model_dump_json())
    writer.stdin.close()
    writer.stdout.readline()

    killed_s = time.monotonic()
    writer.send_signal(signal.SIGKILL)  # and nobody waits for it: it stays as a zombie
    until(path.exists)

    assert [tick["overruns"] for tick in read(path)[1]] == list(range(500))
    running, vanished = events(path)
    assert running["state"] == "running"
    assert vanished["state"] == VANISHED
    assert vanished["text"].startswith("the controller ended without closing this log")
    assert killed_s < vanished["time_s"] < time.monotonic()
    assert [file.name for file in path.parent.iterdir()] == ["run.mcap"]
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()


# Nothing allocates or waits


def test_text_that_is_no_unicode_is_recorded(path: Path, contract: Contract):
    with Recorder(path, contract, {}) as recorder:
        recorder.note(0.0, "fault", "/dev/tty\udcff is gone")
    assert events(path)[-1]["text"] == r"/dev/tty\udcff is gone"


def test_commit_and_note_keep_no_memory(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    recorder.commit()
    tracemalloc.start()
    begin, _ = tracemalloc.get_traced_memory()
    for _ in range(2000):
        recorder.commit()
    recorder.note(0.0, "running", "text")
    end, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    recorder.close()
    assert end - begin < 500
    assert peak - begin < 8000  # the longest text


def test_memory_of_the_ring_is_there_before_it_is_needed(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CAPACITY):
        recorder.commit()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin
    recorder.close()
    assert faults < 50  # a page holds ten records: one fault each would be 400


# A ring that overflows


def test_overwritten_records_are_counted_and_the_rest_is_there(path: Path, contract: Contract):
    recorder = Recorder(path, contract, {})
    recorder._companion.send_signal(signal.SIGSTOP)
    for number in range(CAPACITY + 100):
        recorder.record["overruns"] = number
        recorder.commit()
    recorder._companion.send_signal(signal.SIGCONT)
    with pytest.raises(DeployError) as caught:
        recorder.close()
    assert str(caught.value) == (
        f"{path}: the log is not complete: 100 records were overwritten before they could be saved"
    )
    _, ticks, sequence = read(path)
    assert sequence == list(range(100, CAPACITY + 100))
    assert [tick["overruns"] for tick in ticks] == sequence
