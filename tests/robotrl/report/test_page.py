"""Reports on made-up runs: the arm stands still at home, its target moves around the tool."""

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer
from numpy.typing import NDArray

pytest.importorskip("matplotlib", reason="reports need robotrl[train]")

from deploy.configuration import load_yaml
from deploy.contract import METADATA_KEY, Contract, parse_contract
from deploy.controller import read_policy
from deploy.errors import ConfigError
from deploy.governor import LimitedBy
from deploy.onnx_file import inspect_onnx
from deploy.recorder import Recorder, record_dtype
from deploy.robot_config import RobotConfig
from deploy.runtime import State
from deploy.twin.robot import Twin
from deploy.twin.truth import TruthRecorder
from envs.robot import load_robot
from robotrl.report.log import Log, read_log
from robotrl.report.page import write_report
from robotrl.report.reaching import settled_ticks, tool_path, true_path
from robotrl.report.verdict import Verdict, violations
from tests.deploy.conftest import SCHEMA_1_PATH

PERIOD_S = 0.02
TWO_SECONDS = 100  # ticks
FROM_JOINTS = "from the joint angles, so only as true as the zeros in the robot file"


@pytest.fixture(scope="module")
def robot() -> RobotConfig:
    return load_yaml(Path(__file__).parents[3] / "configs/robots/desk_arm.yaml", RobotConfig)


@pytest.fixture(scope="module")
def contract(policy_path: Path) -> Contract:
    """The tiny policy's, with a new target every 2 to 4 s."""
    contract = read_policy(policy_path)[0]
    command = contract.command.model_copy(update={"interval_s": (2.0, 4.0)})
    return contract.model_copy(update={"command": command})


@pytest.fixture(scope="module")
def home() -> NDArray[np.float64]:
    return load_robot("desk_arm").home


@pytest.fixture(scope="module")
def tool_at_home(home: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the tool is when all joints are at home [m]."""
    model = load_robot("desk_arm").model
    data = mujoco.MjData(model)
    data.qpos[:] = home
    mujoco.mj_kinematics(model, data)
    return data.site("tool").xpos.copy()


MakeTicks = Callable[..., NDArray[Any]]


@pytest.fixture(scope="module")
def make_ticks(
    contract: Contract, home: NDArray[np.float64], tool_at_home: NDArray[np.float64]
) -> MakeTicks:
    """Records of a run at home: ten ticks to the start, the policy, ten ticks to park.

    Each target is given as its distance to the tool [m] and how many ticks it lasts.
    """

    def make(targets: Sequence[tuple[float, int]], contract: Contract = contract) -> NDArray[Any]:
        steps = 10 + sum(count for _, count in targets) + 10
        ticks = np.zeros(steps, record_dtype(contract))
        ticks["time_s"] = 1000.0 + PERIOD_S * np.arange(steps)
        ticks["joint_position"] = ticks["policy_target"] = ticks["sent_target"] = home
        ticks["state"][:10] = State.MOVING_TO_START
        ticks["state"][-10:] = State.STOPPING
        begin = 10
        for number, (distance, count) in enumerate(targets):
            direction = [(-1.0) ** number, 0.0, 0.0]  # so that equal distances are two targets
            ticks["state"][begin : begin + count] = State.RUNNING
            ticks["command"][begin : begin + count] = tool_at_home + np.multiply(
                distance, direction
            )
            begin += count
        return ticks

    return make


def as_planned(ticks: NDArray[Any]) -> list[dict[str, Any]]:
    """The changes of state of a run without troubles."""
    states = [State(state) for state in ticks["state"]]
    changes = [i for i in range(len(states)) if not i or states[i] != states[i - 1]]
    begin = {"time_s": 999.0, "state": "idle", "text": "six servos were found"}
    end = {"time_s": 2000.0, "state": "idle", "text": ""}
    return [
        begin,
        *({"time_s": float(ticks["time_s"][i]), "state": states[i].name.lower(), "text": ""}
          for i in changes),
        end,
    ]  # fmt: skip


MakeLog = Callable[..., Log]


@pytest.fixture
def make_log(contract: Contract, robot: RobotConfig) -> MakeLog:
    """The log of such records, without a file."""

    def make(ticks: NDArray[Any], contract: Contract = contract) -> Log:
        columns = {name: ticks[name] for name in ticks.dtype.names or ()}
        return Log(contract, robot, columns, as_planned(ticks))

    return make


Events = list[dict[str, Any]]


def write_log(
    path: Path,
    ticks: NDArray[Any],
    contract: Contract,
    metadata: dict[str, str],
    events: Events | None = None,
) -> Path:
    """Write records as a run does, one without troubles unless `events` say otherwise."""
    with Recorder(path, contract, metadata) as recorder:
        for event in as_planned(ticks) if events is None else events:
            recorder.note(**event)
        for tick in ticks:
            recorder.record[...] = tick
            recorder.commit()
    return path


Record = Callable[..., Path]


@pytest.fixture
def record(contract: Contract, robot: RobotConfig, tmp_path: Path) -> Record:
    metadata = {
        "robot": robot.model_dump_json(),
        "run": json.dumps({"twin": True, "command_line": ["robotrl", "run"], "port": "/dev/pts/7"}),
    }
    return lambda ticks, events=None: write_log(
        tmp_path / "run.mcap", ticks, contract, metadata, events
    )


# The verdict


def test_median_distance_of_five_millimetres_passes():
    verdict = Verdict([0.001, 0.005, 0.5, 0.002, 0.5], [], FROM_JOINTS)
    assert verdict.passed
    assert verdict.summary() == (
        f"PASS: median distance to target 0.50 cm over 5 targets ({FROM_JOINTS}); allowed 0.5 cm"
    )


def test_larger_median_distance_fails():
    verdict = Verdict([0.001, 0.0051, 0.5, 0.002, 0.5], [], FROM_JOINTS)
    assert not verdict.passed
    assert verdict.summary().startswith("FAIL: median distance to target 0.51 cm over 5 targets")


def test_violated_limit_fails_however_accurate_the_arm_was():
    verdict = Verdict([0.001], ["elbow_flex moved at 11.0 rad/s"], FROM_JOINTS)
    assert not verdict.passed
    assert verdict.summary().splitlines() == [
        f"FAIL: median distance to target 0.10 cm over 1 targets ({FROM_JOINTS}); allowed 0.5 cm",
        "  violated: elbow_flex moved at 11.0 rad/s",
    ]


def test_few_targets_decide_nothing_and_the_run_that_would_is_named(
    make_ticks: MakeTicks, record: Record, tmp_path: Path
):
    path = record(make_ticks([(0.001, TWO_SECONDS), (0.002, TWO_SECONDS)]))
    verdict = write_report(path, tmp_path / "run.html")
    assert not verdict.passed
    assert verdict.summary() == (
        f"UNDECIDED: median distance to target 0.15 cm over 2 targets ({FROM_JOINTS}); allowed "
        "0.5 cm\n"
        "  too few targets to judge, expected at least 5 that have their time; run it with "
        "--command random --duration 20"  # 5 of at most 4 s
    )
    assert "<title>robotrl report: undecided</title>" in (tmp_path / "run.html").read_text()


def test_run_without_a_target_that_had_its_time_is_undecided():
    assert Verdict([], [], FROM_JOINTS).word == "UNDECIDED"


def test_distance_that_is_no_number_fails():
    assert Verdict([float("nan"), *[0.001] * 4], [], FROM_JOINTS).word == "FAIL"


# What is judged


def bounds(settled: Sequence[NDArray[np.intp]]) -> list[tuple[int, int]]:
    """First and last tick of each; they are contiguous."""
    for ticks in settled:
        assert np.all(np.diff(ticks) == 1)
    return [(int(ticks[0]), int(ticks[-1])) for ticks in settled]


def test_last_second_of_each_target_is_judged(make_ticks: MakeTicks, make_log: MakeLog):
    # ticks 10..129, 130..279 and 280..379; the last second of each is 50 ticks
    log = make_log(make_ticks([(0.01, 120), (0.02, 150), (0.03, 100)]))
    assert bounds(list(settled_ticks(log))) == [(80, 129), (230, 279), (330, 379)]


def test_target_that_the_end_cut_short_is_not_judged(make_ticks: MakeTicks, make_log: MakeLog):
    log = make_log(make_ticks([(0.01, 120), (0.02, 98)]))  # less than 2 s
    assert bounds(list(settled_ticks(log))) == [(80, 129)]


def test_target_shorter_than_a_second_is_judged_on_its_own_ticks(
    make_ticks: MakeTicks, make_log: MakeLog, contract: Contract
):
    hasty = contract.command.model_copy(update={"interval_s": (0.5, 1.0)})
    ticks = make_ticks([(0.01, 30), (0.02, 40), (0.03, 60)])
    log = make_log(ticks, contract.model_copy(update={"command": hasty}))
    assert bounds(list(settled_ticks(log))) == [(10, 39), (40, 79), (90, 139)]


def test_tool_path_follows_from_the_measured_angles(
    make_ticks: MakeTicks, make_log: MakeLog, tool_at_home: NDArray[np.float64]
):
    ticks = make_ticks([(0.0, TWO_SECONDS)])
    ticks["joint_position"][20:, 0] += np.pi / 2  # the arm turns left: x becomes y
    path = tool_path(make_log(ticks))
    x, y, z = tool_at_home
    assert path[19] == pytest.approx([x, y, z], abs=1e-6)
    assert path[20] == pytest.approx([-y, x, z], abs=1e-6)


# Violations


def test_run_within_the_limits_violates_nothing(make_ticks: MakeTicks, make_log: MakeLog):
    assert violations(make_log(make_ticks([(0.01, TWO_SECONDS)]))) == []


def test_joint_beyond_its_range_is_a_violation(make_ticks: MakeTicks, make_log: MakeLog):
    ticks = make_ticks([(0.01, TWO_SECONDS)])
    ticks["joint_position"][50, 1] = 1.58
    assert violations(make_log(ticks)) == [
        "shoulder_lift was at -0.200 to 1.580 rad, allowed -1.5 to 1.57 rad"
    ]


def test_overspeed_is_a_violation(make_ticks: MakeTicks, make_log: MakeLog):
    ticks = make_ticks([(0.01, TWO_SECONDS)])
    ticks["joint_velocity"][50, 2] = -10.6  # more than 3 times 3.5 rad/s
    assert violations(make_log(ticks)) == ["elbow_flex moved at 10.6 rad/s"]


def test_run_that_was_not_parked_is_a_violation(make_ticks: MakeTicks, make_log: MakeLog):
    ticks = make_ticks([(0.01, TWO_SECONDS)])[:-10]
    assert violations(make_log(ticks)) == [
        "the run ended before the robot was parked; its last state is idle"
    ]


FAULT: Events = [
    {"time_s": 1000.2, "state": "running", "text": ""},
    {"time_s": 1002.0, "state": "fault", "text": "SafetyError: joint 'gripper' has not been read"},
    {"time_s": 1002.1, "state": "fault", "text": "the robot holds its pose, confirmed"},
]


def test_fault_while_parking_is_a_violation(make_ticks: MakeTicks, make_log: MakeLog):
    """The last tick was one of the ramp to the rest pose, as in a run that went well."""
    log = make_log(make_ticks([(0.01, TWO_SECONDS)]))
    log.events[-1:] = FAULT[1:]
    assert violations(log) == [
        "the run ended before the robot was parked; its last state is fault\n"
        "SafetyError: joint 'gripper' has not been read\nthe robot holds its pose, confirmed"
    ]


def test_reason_of_a_fault_is_in_the_report(make_ticks: MakeTicks, record: Record, tmp_path: Path):
    path = record(make_ticks([(0.01, TWO_SECONDS)])[:-10], FAULT)
    verdict = write_report(path, tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    rows = dict(re.findall("<tr><td>(.*?)<td>([^<]*)", page))
    assert "has not been read" in verdict.summary()
    assert rows["1.80 s"] == "fault: SafetyError: joint &#x27;gripper&#x27; has not been read"
    assert rows["1.90 s"] == "fault: the robot holds its pose, confirmed"


def test_report_tells_what_was_run_where(make_ticks: MakeTicks, record: Record, tmp_path: Path):
    write_report(record(make_ticks([(0.01, TWO_SECONDS)])), tmp_path / "run.html")
    rows = dict(re.findall("<tr><td>(.*?)<td>([^<]*)", (tmp_path / "run.html").read_text()))
    assert (rows["port"], rows["twin"], rows["command_line"]) == (
        "/dev/pts/7",
        "True",
        "robotrl run",
    )


# The page


@pytest.fixture(scope="module")
def good_run(
    make_ticks: MakeTicks,
    contract: Contract,
    robot: RobotConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Verdict, str]:
    """The verdict on a good run of five targets, and the page about it."""
    folder = tmp_path_factory.mktemp("report")
    ticks = make_ticks([(cm / 100, TWO_SECONDS) for cm in (0.1, 0.4, 1.5, 0.1, 1.5)])
    ticks["limited_by"][10:40, 3] = LimitedBy.VELOCITY
    ticks["lost"][-1] = 17
    metadata = {"robot": robot.model_dump_json()}
    log = write_log(folder / "run.mcap", ticks, contract, metadata)
    page = folder / "pages" / "run.html"
    return write_report(log, page), page.read_text()


def test_distances_come_from_the_log(good_run: tuple[Verdict, str]):
    assert good_run[0].errors_m == pytest.approx([0.001, 0.004, 0.015, 0.001, 0.015], abs=1e-6)


def test_page_begins_with_the_verdict(good_run: tuple[Verdict, str]):
    verdict, page = good_run
    assert "<title>robotrl report: pass</title>" in page
    assert f"{verdict.summary()}</b>" in page


def test_page_lists_the_targets_and_the_bus(good_run: tuple[Verdict, str]):
    rows = dict(re.findall("<tr><td>(.*?)<td>([^<]*)", good_run[1]))
    assert rows["target 2"] == "0.40 cm"
    assert rows["ticks, policy in charge"] == "500 of 520"
    assert rows["ticks limited by velocity"] == "6.0%"
    assert rows["joint readings lost"] == "17"


def test_page_needs_nothing_but_itself(good_run: tuple[Verdict, str]):
    page = good_run[1]
    assert "http" not in page
    assert "<script" not in page
    assert "<link" not in page
    sources = re.findall("""(?:src|href)=['"]([^'"]{20})""", page)
    assert len(sources) == 5
    assert all(source.startswith("data:image/svg+xml;") for source in sources)


def test_page_shows_every_signal_the_policy_was_shown(good_run: tuple[Verdict, str]):
    (picture,) = re.findall("<h2>Signals.*?base64,([^']+)", good_run[1], re.DOTALL)
    drawn = base64.b64decode(picture).decode()
    for label in ("joint position", "joint velocity", "joint target", "command", "[rad/s]", "[m]"):
        assert f"<!-- {label} -->" in drawn


def velocity_command(contract: Contract) -> Contract:
    """The contract of a policy that is told how fast to go."""
    document = contract.model_dump(mode="json")
    units = ["m/s", "m/s", "rad/s"]
    document["command"] |= {"unit": units, "site": ""}
    (command,) = (spec for spec in document["inputs"] if spec["kind"] == "command")
    command["unit"] = units
    return parse_contract(json.dumps(document), source="")


def test_policy_that_does_not_reach_is_judged_by_the_limits_alone(
    make_ticks: MakeTicks, contract: Contract, robot: RobotConfig, tmp_path: Path
):
    ticks = make_ticks([(0.3, TWO_SECONDS)])  # far from anything
    metadata = {"robot": robot.model_dump_json()}
    log = write_log(tmp_path / "run.mcap", ticks, velocity_command(contract), metadata)

    verdict = write_report(log, tmp_path / "run.html")

    assert verdict.passed
    assert verdict.summary() == (
        "PASS: judged by the limits alone, its command is no point to reach"
    )
    page = (tmp_path / "run.html").read_text()
    assert "<h2>Signals" in page
    assert "target 1" not in page


def test_violated_limit_fails_a_policy_that_does_not_reach():
    verdict = Verdict(None, ["elbow_flex moved at 11.0 rad/s"], "")
    assert not verdict.passed
    assert verdict.summary().splitlines() == [
        "FAIL: judged by the limits alone, its command is no point to reach",
        "  violated: elbow_flex moved at 11.0 rad/s",
    ]


def test_log_of_a_policy_with_the_first_schema_is_read(
    make_ticks: MakeTicks, robot: RobotConfig, tmp_path: Path
):
    text = inspect_onnx(SCHEMA_1_PATH.read_bytes(), source="").metadata[METADATA_KEY]
    contract = parse_contract(text, source="")
    inputs = [spec for spec in contract.inputs if spec.kind != "joint_target"]
    recorded = contract.model_copy(update={"inputs": inputs})  # joint_target was not, at that time
    log = write_log(
        tmp_path / "run.mcap",
        make_ticks([(0.001, 200)], recorded),
        recorded,
        {"robot": robot.model_dump_json(), "contract": text},
    )

    assert write_report(log, tmp_path / "run.html").errors_m == pytest.approx([0.001], abs=1e-6)


def test_inaccurate_run_fails(make_ticks: MakeTicks, record: Record, tmp_path: Path):
    path = record(make_ticks([(0.006, TWO_SECONDS)] * 5))
    verdict = write_report(path, tmp_path / "run.html")
    assert not verdict.passed
    assert "<title>robotrl report: fail</title>" in (tmp_path / "run.html").read_text()


# Logs that are none


def test_missing_log_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        read_log(tmp_path / "run.mcap")
    assert (
        str(caught.value) == f"{tmp_path / 'run.mcap'}: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("content", [b"", b"not an MCAP file", bytes(1000)])
def test_file_that_is_no_log_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "run.mcap"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: is no log of `robotrl run`: ")):
        read_log(path)


def test_log_that_ends_before_it_says_whose_it_is_is_refused(make_ticks: MakeTicks, record: Record):
    path = record(make_ticks([(0.01, TWO_SECONDS)]))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="is no log of `robotrl run`: the file ends too early"):
        read_log(path)


def chunks_end(path: Path) -> list[int]:
    """Where each chunk of ticks ends, by the library's own index."""
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary
    return sorted(c.chunk_start_offset + c.chunk_length for c in summary.chunk_indexes)


@pytest.fixture(scope="module")
def slow_log(
    make_ticks: MakeTicks,
    contract: Contract,
    robot: RobotConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A log that was written over more than a second, so in several chunks."""
    path = tmp_path_factory.mktemp("slow") / "run.mcap"
    with Recorder(path, contract, {"robot": robot.model_dump_json()}) as recorder:
        for tick in make_ticks([(0.01, TWO_SECONDS)]):
            recorder.record[...] = tick
            recorder.commit()
            time.sleep(0.012)
    assert len(chunks_end(path)) >= 2
    return path


def test_log_that_ends_anywhere_is_read_as_far_as_it_goes(slow_log: Path, tmp_path: Path):
    whole = read_log(slow_log)
    data, ends = slow_log.read_bytes(), chunks_end(slow_log)
    for end in np.linspace(ends[0], len(data) - 1, 40, dtype=int):
        path = tmp_path / "cut.mcap"
        path.write_bytes(data[:end])
        log = read_log(path)
        assert log.damage.startswith("the file ends too early or is damaged")
        found = len(log.ticks["time_s"])
        assert found > 10
        for name, values in log.ticks.items():
            assert np.array_equal(values, whole.ticks[name][:found])
    assert whole.damage == ""


def test_report_of_an_unfinished_log_says_that_it_is_not_complete(slow_log: Path, tmp_path: Path):
    path = tmp_path / "cut.mcap"
    path.write_bytes(slow_log.read_bytes()[: chunks_end(slow_log)[-1]])
    verdict = write_report(path, tmp_path / "run.html")
    assert not verdict.passed
    assert "violated: the log is not complete: the file ends too early" in verdict.summary()


def test_flipped_bit_is_noticed(slow_log: Path, tmp_path: Path):
    data = bytearray(slow_log.read_bytes())
    first, second, *_ = chunks_end(slow_log)
    data[(first + second) // 2] ^= 0x10
    path = tmp_path / "flipped.mcap"
    path.write_bytes(data)
    log = read_log(path)
    assert log.damage
    assert len(log.ticks["time_s"]) < len(read_log(slow_log).ticks["time_s"])


def test_ticks_missing_in_between_are_a_violation(make_ticks: MakeTicks, record: Record):
    path = record(make_ticks([(0.01, TWO_SECONDS)]))
    renumbered = path.with_name("renumbered.mcap")
    with path.open("rb") as old, renumbered.open("wb") as new:
        reader, writer = make_reader(old), Writer(new)
        writer.start()
        for metadata in reader.iter_metadata():
            writer.add_metadata(metadata.name, metadata.metadata)
        channels: dict[str, int] = {}
        for _, channel, message in reader.iter_messages():
            if channel.topic not in channels:
                channels[channel.topic] = writer.register_channel(channel.topic, "json", 0)
            if channel.topic == "/event" or not 20 <= message.sequence < 27:
                writer.add_message(
                    channels[channel.topic], message.log_time, message.data, 0, message.sequence
                )
        writer.finish()
    assert violations(read_log(renumbered)) == [
        "the log is not complete: 7 ticks are missing in between"
    ]


def test_missing_log_points_to_an_unfinished_one(tmp_path: Path):
    unfinished = tmp_path / "run.00112233.incomplete.mcap"
    unfinished.touch()
    with pytest.raises(ConfigError) as caught:
        read_log(tmp_path / "run.mcap")
    assert str(caught.value).endswith(f"; an unfinished log of this name is {unfinished}")


def test_log_that_does_not_tell_its_robot_is_refused(
    make_ticks: MakeTicks, contract: Contract, tmp_path: Path
):
    path = write_log(tmp_path / "run.mcap", make_ticks([(0.01, TWO_SECONDS)]), contract, {})
    with pytest.raises(ConfigError, match="is no log of `robotrl run`"):
        read_log(path)


def test_run_in_which_the_policy_never_ran_is_refused(make_ticks: MakeTicks, record: Record):
    path = record(make_ticks([(0.01, TWO_SECONDS)])[:10])
    with pytest.raises(ConfigError) as caught:
        read_log(path)
    assert str(caught.value) == (
        f"{path}: the policy never ran (10 ticks recorded); its last state is idle"
    )


def test_run_that_was_refused_is_refused_with_its_reason(make_ticks: MakeTicks, record: Record):
    reason = [{"time_s": 1.0, "state": "fault", "text": "BusError: no answer from gripper (id 6)"}]
    path = record(make_ticks([(0.01, TWO_SECONDS)])[:0], reason)
    with pytest.raises(ConfigError) as caught:
        read_log(path)
    assert str(caught.value) == (
        f"{path}: the policy never ran (0 ticks recorded); its last state is fault\n"
        "BusError: no answer from gripper (id 6)"
    )


# A twin's truth


SaveTruth = Callable[[float, float], Path]


@pytest.fixture
def save_truth(robot: RobotConfig, tmp_path: Path) -> SaveTruth:
    """What a twin did that was switched on for some time, in its rest pose."""

    def save(begin_s: float, end_s: float) -> Path:
        twin = Twin(load_robot("desk_arm").path, robot, start_s=begin_s)
        truth = TruthRecorder(twin)
        truth.advance(end_s)
        truth.save(tmp_path / "truth.npz")
        return tmp_path / "truth.npz"

    return save


def test_truth_overrules_the_measured_angles(
    make_ticks: MakeTicks, record: Record, save_truth: SaveTruth, tmp_path: Path
):
    path = record(make_ticks([(0.001, TWO_SECONDS)]))
    verdict = write_report(path, tmp_path / "run.html", save_truth(999.9, 1003.0))
    assert verdict.source == "true position of the twin's tool"
    assert verdict.errors_m
    assert verdict.errors_m[0] > 0.05  # the measured angles say home, the twin was at rest
    assert not verdict.passed
    assert "Twin: factors on the nominal robot" in (tmp_path / "run.html").read_text()


def test_truth_is_interpolated_between_its_samples(tmp_path: Path):
    path = tmp_path / "truth.npz"
    np.savez(path, time_s=[1.0, 2.0], tool_position=[[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]])
    tool = true_path(path, np.array([1.0, 1.25, 2.0]))
    assert tool == pytest.approx(np.array([[0, 0, 0], [0.025, 0.05, 0.075], [0.1, 0.2, 0.3]]))


@pytest.mark.parametrize(("begin_s", "end_s"), [(1000.5, 1003.0), (999.0, 1001.0)])
def test_truth_of_another_run_is_refused(
    make_ticks: MakeTicks,
    record: Record,
    save_truth: SaveTruth,
    tmp_path: Path,
    begin_s: float,
    end_s: float,
):
    path, truth = record(make_ticks([(0.001, TWO_SECONDS)])), save_truth(begin_s, end_s)
    with pytest.raises(ConfigError) as caught:
        write_report(path, tmp_path / "run.html", truth)
    assert str(caught.value) == (
        f"{truth}: belongs to another run, its times do not cover the log's"
    )
    assert not (tmp_path / "run.html").exists()


def test_truth_of_a_twin_with_nothing_before_it_does_not_tell_where_a_thing_was(
    save_truth: SaveTruth,
):
    truth = save_truth(999.9, 1003.0)
    with pytest.raises(ConfigError, match="of a twin with nothing before it, expected one with"):
        true_path(truth, np.array([1000.0]), "object_position")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def without_tool(path: Path) -> None:
    np.savez(path, time_s=[999.0, 1003.0])


def plain_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize("damage", [truncated, without_tool, plain_array, Path.unlink])
def test_file_that_is_no_truth_is_refused(save_truth: SaveTruth, damage: Callable[[Path], None]):
    truth = save_truth(999.9, 1003.0)
    damage(truth)
    with pytest.raises(
        ConfigError, match=re.escape(f"{truth}: is no truth file of `robotrl twin`")
    ):
        true_path(truth, np.array([1000.0]))
