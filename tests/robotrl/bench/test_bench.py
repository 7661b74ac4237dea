"""A bench trains what is missing, goes on after an interruption, and tabulates what there is."""

import copy
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from deploy.errors import ConfigError
from robotrl.algorithms.ppo import PPOConfig
from robotrl.bench.bench import BenchError, bench, draw_curves, write_results
from robotrl.bench.bench_config import load_bench
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import rehearse
from robotrl.runs.train_config import TrainConfig
from robotrl.shipped import config_path

BENCHES = sorted(config_path("bench").glob("*.yaml"))


@pytest.fixture
def document(tiny_config: TrainConfig) -> dict[str, Any]:
    settings = tiny_config.model_dump(mode="json", exclude={"algorithm", "seed", "randomization"})
    settings["env_steps"] = 64
    small = {"actor_hidden": [8], "critic_hidden": [8]}
    return {
        "seeds": [0, 1],
        "processes": 2,
        "common": {"evaluation": {"episodes": 2, "interval": 32}},
        "tasks": {"reach": settings},
        "algorithms": {"ppo": {"algorithm": {"rollout_steps": 4, **small}}},
    }


def write(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_settings_of_task_algorithm_and_seed_come_together(
    document: dict[str, Any], tmp_path: Path, tiny_run: RunFolder
):
    document["tasks"]["from_file"] = {"config": str(tiny_run.config_path), "num_envs": 2}
    document["algorithms"]["sac"] = {"algorithm": {"name": "sac"}, "num_envs": 1}

    _, runs = load_bench(write(document, tmp_path))

    found = {str(run.name): run.config for run in runs}
    assert len(found) == 2 * 2 * 2
    assert found["reach/ppo/seed-1"].seed == 1
    assert found["from_file/ppo/seed-0"].num_envs == 2
    assert found["from_file/ppo/seed-0"].algorithm.actor_hidden == [8]  # 16 in the file
    assert found["from_file/sac/seed-0"].num_envs == 1  # said last
    assert found["from_file/sac/seed-0"].algorithm.name == "sac"
    assert {config.simulation_threads for config in found.values()} == {1}


def test_bench_goes_on_where_it_was_interrupted(document: dict[str, Any], tmp_path: Path):
    path, output = write(document, tmp_path), tmp_path / "out"
    _, runs = load_bench(path)
    for run in runs:  # as an interruption leaves them: one is finished, one is not
        RunFolder(output / run.name).create(run.config)
    done = RunFolder(output / runs[0].name)
    done.append_evaluation(
        {"env_steps": 64, "return": 7.0, "length": 30, "speed/wall_s": 2.0, "speed/cpu_s": 1.0}
    )

    bench(path, output, quiet())

    rows = list(csv.DictReader((output / "results.csv").open()))
    assert [(row["seed"], row["env_steps"]) for row in rows] == [("0", "64"), ("1", "64")]
    assert float(rows[0]["final"]) == 7.0  # which was not trained again
    assert not done.checkpoint_path.exists()
    other = RunFolder(output / runs[1].name)
    assert other.load_checkpoint()["env_steps"] == 64
    assert [row["env_steps"] for row in other.evaluations()] == [32, 64]
    assert float(rows[1]["final"]) == other.evaluations()[-1]["return"]
    assert float(rows[1]["cpu_s"]) > 0
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_training_that_fails_is_named_and_the_others_are_tabulated(
    document: dict[str, Any], tmp_path: Path
):
    document["seeds"] = [0, 1]
    path, output = write(document, tmp_path), tmp_path / "out"
    _, runs = load_bench(path)
    for run in runs:
        RunFolder(output / run.name).create(run.config)
    RunFolder(output / runs[0].name).append_evaluation(
        {"env_steps": 64, "return": 7.0, "speed/wall_s": 2.0, "speed/cpu_s": 1.0}
    )
    (output / runs[1].name / "checkpoint.pt").write_bytes(b"damaged")

    with pytest.raises(BenchError, match=r"1 of 2 trainings failed, the first reach/ppo/seed-1"):
        bench(path, output, quiet())

    assert "cannot be read" in (output / runs[1].name / "train.log").read_text()
    assert "| reach | ppo | 1 |" in (output / "table.md").read_text()


def test_table_has_interquartile_means_over_seeds(document: dict[str, Any], tmp_path: Path):
    document["seeds"] = [0, 1, 2, 3]
    document["tasks"]["other"] = copy.deepcopy(document["tasks"]["reach"])
    document["normalize"] = {"reach": [0, 100], "other": [0, 1000]}
    config, runs = load_bench(write(document, tmp_path))
    # finals 10, 20, 30, 90 of reach: the middle half 25; ten times that of the other
    for run in runs:
        folder = RunFolder(tmp_path / "out" / run.name)
        folder.create(run.config)
        final = (10.0, 20.0, 30.0, 90.0)[run.seed] * (1 if run.task == "reach" else 10)
        for env_steps, value in ((32, 2 * final), (64, final)):
            folder.append_evaluation(
                {
                    "env_steps": env_steps,
                    "return": value,
                    "speed/wall_s": 5 + run.seed,
                    "speed/cpu_s": 10 + run.seed,
                }
            )

    write_results(runs, tmp_path / "out", config.normalize)

    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[2:]]
    reach, other, total = cells
    assert reach[:4] == ["reach", "ppo", "4", "64"]
    assert reach[4].startswith("25 (")
    assert reach[5:] == ["50", "12", "6"]  # 11.5 and 6.5 s on average, to the even second
    assert other[4].startswith("250 (")
    # .1 .2 .3 .9 twice: the middle half is .2 .2 .3 .3
    assert total[:3] == ["all, normalised", "ppo", "8"]
    assert total[4].startswith("0.25 (")
    lines = [axes.lines[0] for axes in draw_curves(runs, tmp_path / "out").axes]
    assert [list(np.asarray(line.get_xdata())) for line in lines] == [[32, 64]] * 2
    assert [list(np.asarray(line.get_ydata())) for line in lines] == [[50, 25], [500, 250]]

    reach_only = [run for run in runs if run.task == "reach"]  # the trainings of the other failed
    write_results(reach_only, tmp_path / "out", config.normalize)

    assert (tmp_path / "out" / "table.md").read_text().splitlines() == table[:3]


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_tasks_of_a_shipped_bench_share_their_settings_and_can_be_trained(path: Path):
    _, runs = load_bench(path)

    own = {"task", "task_config", "seed"}
    shared = [run.config.model_dump(mode="json", exclude=own) for run in runs]
    assert all(settings == shared[0] for settings in shared)
    for task in {run.task for run in runs}:
        rehearse(next(run.config for run in runs if run.task == task), source=path)


def test_ppo_is_annealed_over_the_steps_of_its_bench():
    _, runs = load_bench(config_path("bench/ppo.yaml"))

    for run in runs:
        assert isinstance(run.config.algorithm, PPOConfig)
        assert run.config.algorithm.anneal_steps == run.config.env_steps


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seeds": [1, 1]}, "seeds: [1, 1] has one twice"),
        ({"seeds": []}, "seeds: "),
        ({"normalize": {"rich": [0, 1]}}, "normalize has ['rich'], the tasks are ['reach']"),
        ({"normalize": {"reach": [1, 1]}}, "normalize: reach: 1.0 must be less than 1.0"),
        ({"tasks": {"../x": {}}}, "tasks"),
        ({"algorithms": {"td3": {"algorithm": {"name": "td3"}}}}, "reach with td3: algorithm: "),
        ({"common": {"evaluation": None}}, "evaluation is null; a bench compares evaluations"),
        ({"common": {"gamma": 1}}, "reach with ppo: (top level): unknown key 'gamma'"),
    ],
)
def test_mistake_is_refused_before_anything_is_trained(
    document: dict[str, Any], tmp_path: Path, changes: dict[str, Any], problem: str
):
    with pytest.raises(ConfigError) as error:
        bench(write({**document, **changes}, tmp_path), tmp_path / "out", quiet())

    assert problem in str(error.value)
    assert not (tmp_path / "out").exists()


def test_runs_made_with_other_settings_are_not_mixed_in(document: dict[str, Any], tmp_path: Path):
    path, output = write(document, tmp_path), tmp_path / "out"
    _, runs = load_bench(path)
    RunFolder(output / runs[0].name).create(runs[0].config.model_copy(update={"num_envs": 3}))

    with pytest.raises(ConfigError, match="was trained with other settings; remove it, or choose"):
        bench(path, output, quiet())
