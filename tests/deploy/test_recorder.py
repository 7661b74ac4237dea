"""The black box: what the control process committed is in the MCAP, however that process ended."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader

from deploy.companion import TOPIC
from deploy.contract import Contract
from deploy.errors import DeployError
from deploy.recorder import CAPACITY, Recorder, Ring, record_dtype, wait_for_records


@pytest.fixture(autouse=True)
def rings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """The folder of the rings; nothing may be left in it."""
    folder, make = tmp_path_factory.mktemp("rings"), tempfile.mkstemp
    monkeypatch.setattr(
        "deploy.recorder.tempfile.mkstemp", lambda **options: make(**{**options, "dir": folder})
    )
    yield folder
    assert list(folder.iterdir()) == []


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


def test_path_that_cannot_be_written_is_refused_at_once(path: Path, contract: Contract):
    path.with_name("run.mcap.tmp").mkdir()
    begin_s = time.monotonic()
    with pytest.raises(DeployError) as caught:
        Recorder(path, contract, {})
    assert str(caught.value) == (
        f"{path}: cannot be recorded: [Errno 21] Is a directory: '{path}.tmp'"
    )
    assert time.monotonic() - begin_s < 5.0


def test_file_in_place_of_the_folder_is_refused(path: Path, contract: Contract):
    path.write_text("a file")
    below = path / "run.mcap"
    with pytest.raises(DeployError, match=re.escape(f"{below}: cannot be recorded: ")):
        Recorder(below, contract, {})


def test_folder_is_no_place_for_a_log(tmp_path: Path, contract: Contract):
    with pytest.raises(DeployError, match="cannot be recorded"):
        Recorder(tmp_path, contract, {}).close()


WRITER = """
import sys
from pathlib import Path
from deploy.contract import Contract
from deploy.recorder import Recorder

recorder = Recorder(Path(sys.argv[1]), Contract.model_validate_json(sys.stdin.read()), {})
for number in range(500):
    recorder.record["overruns"] = number
    recorder.commit()
print(recorder._ring_path, flush=True)
sys.stdin.close()
while True:
    pass
"""


def test_killed_writer_leaves_a_complete_log_and_nothing_else(path: Path, contract: Contract):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin and writer.stdout
    writer.stdin.write(contract.model_dump_json())
    writer.stdin.close()
    ring = Path(writer.stdout.readline().strip())
    assert ring.exists()

    writer.send_signal(signal.SIGKILL)  # and nobody waits for it: it stays as a zombie
    give_up_s = time.monotonic() + 10.0
    while not path.exists() or ring.exists():
        assert time.monotonic() < give_up_s, "the companion did not finish"
        time.sleep(0.01)

    assert [tick["overruns"] for tick in read(path)[1]] == list(range(500))
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()


def test_companion_ends_when_its_writer_is_gone_between_two_looks(
    contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    # the process was there when it was asked for, and is gone when its state is looked up
    monkeypatch.setattr("deploy.recorder.os.kill", lambda pid, number: None)
    assert wait_for_records(new_ring(tmp_path / "ring", contract), 0, dead.pid, 0.001) == (0, True)


def new_ring(path: Path, contract: Contract) -> Ring:
    dtype = record_dtype(contract)
    path.write_bytes(bytes(16 + CAPACITY * dtype.itemsize))
    return Ring.map(str(path), dtype)


def test_records_are_waited_for(contract: Contract, tmp_path: Path):
    ring = new_ring(tmp_path / "ring", contract)
    ring.counter[0] = 7
    assert wait_for_records(ring, 5, os.getpid(), 0.001) == (7, False)


def test_writer_that_is_done_is_noticed_although_it_lives(contract: Contract, tmp_path: Path):
    ring = new_ring(tmp_path / "ring", contract)
    ring.counter[:] = 7, 1
    assert wait_for_records(ring, 7, os.getpid(), 0.001) == (7, True)


# A ring that overflows


@pytest.fixture
def overflown_log(path: Path, contract: Contract) -> tuple[Path, str]:
    """The log of a companion that was 100 records too late, and what it said at the end."""
    ring_path = path.parent / "ring"
    ring = new_ring(ring_path, contract)
    for number in range(CAPACITY + 100):
        ring.records["overruns"][number % CAPACITY] = number
    ring.counter[:] = CAPACITY + 100, 1
    job = {
        "ring": str(ring_path),
        "dtype": record_dtype(contract).descr,
        "path": str(path),
        "writer": os.getpid(),
        "metadata": {},
    }
    done = subprocess.run(
        [sys.executable, "-m", "deploy.companion"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    return path, done.stderr


def test_overwritten_records_are_missing_and_the_rest_is_there(overflown_log: tuple[Path, str]):
    _, ticks, sequence = read(overflown_log[0])
    assert sequence == list(range(100, CAPACITY + 100))
    assert [tick["overruns"] for tick in ticks] == sequence


def test_companion_says_how_many_records_were_lost(overflown_log: tuple[Path, str]):
    assert overflown_log[1] == "100 records were overwritten before they could be saved\n"


def test_lost_records_reach_the_user(
    path: Path, contract: Contract, caplog: pytest.LogCaptureFixture
):
    recorder = Recorder(path, contract, {})
    os.kill(recorder._companion.pid, signal.SIGSTOP)
    for _ in range(CAPACITY + 100):
        recorder.commit()
    os.kill(recorder._companion.pid, signal.SIGCONT)
    recorder.close()
    assert "records were overwritten before they could be saved" in caplog.text


def test_companion_that_died_reaches_the_user(
    path: Path, contract: Contract, caplog: pytest.LogCaptureFixture
):
    recorder = Recorder(path, contract, {})
    recorder._companion.kill()
    recorder.commit()
    recorder.close()
    assert str(path) in caplog.text
