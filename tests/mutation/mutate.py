"""Do our tests notice faults? Puts small ones into the code, one at a time, and runs the tests.

    make mutate                                                 # 300 faults in the core modules
    .venv/bin/python tests/mutation/mutate.py --all --sample 600              # in all modules
    .venv/bin/python tests/mutation/mutate.py deploy/governor.py --sample 0   # all faults of one

Every fault is put into a copy of the tree, and a process that has the large libraries imported
already forks to run the tests that `modules.py` names for its module: the one first that noticed
the fault before, then those that were quick when the module was sound. The policy that some of them
need is made once, by sound code. Results lie in build/mutation/: `survivors.diff`, and
`results.jsonl`, from which a run that was stopped goes on; a result counts as long as its module
and its tests are what they were. Real-time tests may fail on a busy machine and so kill what should
survive: run it on an idle one.
"""

import argparse
import compileall
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import TemporaryDirectory

import pytest
from modules import CORE, MODULES
from mutants import Mutant, mutants, sample
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutation"
CODE = ("deploy", "envs", "robotrl")
TREE = (*CODE, "tests", "configs", "pyproject.toml", "constraints.txt", "README.md", "Makefile")
LARGE = ("torch", "mujoco", "gymnasium", "onnxruntime", "onnx", "pydantic", "scipy", "serial")
NEEDS_POLICY = (
    "tests/deploy/test_controller.py::test_two_controllers_of_one_file_do_not_share_anything"
)
"""A test that makes the policy."""
LIMIT_S = 600
"""What the tests of a sound module may take."""
LEAST_S = 20
"""What the tests of a mutant, and any one of them, may take, however quick they are otherwise."""
AT_LEAST = 8
"""Mutants of each module, however small its share of a sample."""
PASS_SHARE = 0.9
"""Share of killed mutants from which on the exit code is 0."""


@dataclass(frozen=True)
class Job:
    """Tests to run on one module, sound or with a fault in it."""

    path: str
    source: str
    """The sound module."""
    tests: str
    """Digest of what its tests say."""
    mutant: Mutant | None = None
    killer: str = ""
    """The test that failed the last time, perhaps before some tests were changed: the first now."""

    @property
    def code(self) -> str:
        """What the module's file says meanwhile."""
        return self.mutant.apply(self.source) if self.mutant else self.source

    @property
    def fingerprint(self) -> str:
        """Of the module with its fault."""
        return sha256(self.code.encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """How it went."""

    outcome: str
    """"killed", "timeout" or "survived"."""
    seconds: float
    """Of the processor's time."""
    by: str = ""
    """The test that failed."""


class TestTimes:
    """Plugin of pytest: puts the killer first, the others by their time on the sound module."""

    __test__ = False

    def __init__(self, path: Path, killer: str):
        self._path, self._killer = path, killer
        self._taken_s: dict[str, float] = defaultdict(float)
        self.sound_s: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(
            key=lambda item: (item.nodeid not in self._killer, self.sound_s.get(item.nodeid, 0))
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._taken_s[report.nodeid] += report.duration

    def keep(self) -> None:
        """For the processes to come."""
        self._path.write_text(json.dumps(self._taken_s))


def main() -> int:
    """Print the table; 0 if enough mutants were killed."""
    arguments = _arguments()
    os.nice(5)
    WORK.mkdir(parents=True, exist_ok=True)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: sys.exit("stopped; run it again to go on"))
    wanted = arguments.modules or (MODULES if arguments.all else CORE)
    sources = {path: (ROOT / path).read_text() for path in wanted}
    found = {path: mutants(path, source) for path, source in sources.items()}
    chosen = choose(found, arguments.sample, arguments.seed)
    reasons, known = equivalents(), known_results()
    digests = {path: _digest(MODULES[path]) for path in sources}
    results: dict[Mutant, Result] = {}
    jobs = []
    for mutant in chosen:
        job = Job(mutant.path, sources[mutant.path], digests[mutant.path], mutant)
        tests, result = known.get(job.fingerprint, ("", Result("", 0)))
        if mutant.key in reasons:
            results[mutant] = Result("equivalent", 0)
        elif tests == job.tests:
            results[mutant] = result
        else:
            jobs.append(replace(job, killer=result.by))
    if jobs:
        with TemporaryDirectory(prefix="mutation-") as folder:
            trees = [Path(folder) / f"tree{number}" for number in range(arguments.workers)]
            _make_policy(Path(folder) / "policy.onnx")
            results |= _measure(jobs, [_copy_tree(tree) for tree in trees])
    return _report(results, sources)


def _make_policy(path: Path) -> None:
    """Put it where the fixture `policy_path` of every process to come looks for it."""
    os.environ["ROBOTRL_TINY_POLICY"] = str(path)
    make = [sys.executable, "-m", "pytest", "--setup-only", NEEDS_POLICY]
    subprocess.run(make, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert path.exists(), NEEDS_POLICY


def _measure(jobs: list[Job], trees: list[Path]) -> dict[Mutant, Result]:
    for name in LARGE:
        with suppress(ImportError):
            __import__(name)
    sound = {job.path: Job(job.path, job.source, job.tests) for job in jobs}
    limits_s, unknown, known = {}, [], known_results()
    for path, job in sound.items():
        tests, result = known.get(job.fingerprint, ("", Result("", 0)))
        if tests == job.tests:
            limits_s[path] = LEAST_S + 3 * result.seconds
        else:
            unknown.append(job)
    for job, result in run(unknown, trees, defaultdict(lambda: LIMIT_S)):
        if result.outcome != "survived":
            sys.exit(f"{job.path}: its tests fail without a fault in it: {result}")
        limits_s[job.path] = LEAST_S + 3 * result.seconds
        _keep(job, result)
        print(f"{job.path}: its tests take {result.seconds:.1f} s")
    results: dict[Mutant, Result] = {}
    for job, result in run(jobs, trees, limits_s):
        assert job.mutant
        results[job.mutant] = result
        _keep(job, result)
        place = f"{job.path}:{job.mutant.line} {job.mutant.where}"
        print(f"{len(results)}/{len(jobs)} {result.outcome} {result.seconds:.1f} s {place}")
    return results


def choose(found: dict[str, list[Mutant]], count: int, seed: int) -> list[Mutant]:
    """A sample of about `count` in proportion to what each module offers; all of them for 0."""
    places = {path: len({(m.start, m.end) for m in each}) for path, each in found.items()}
    total = sum(places.values())
    if not count:
        return [mutant for each in found.values() for mutant in each]
    shares = {path: max(AT_LEAST, math.ceil(count * n / total)) for path, n in places.items()}
    return [mutant for path, each in found.items() for mutant in sample(each, shares[path], seed)]


def equivalents() -> dict[tuple[str, str, str, str], str]:
    """Mutants that behave as the code does, by `Mutant.key`, and why."""
    entries = tomllib.loads((ROOT / "tests/mutation/equivalent.toml").read_text())
    return {
        (path, entry["where"], entry["was"], entry["now"]): entry["why"]
        for path, listed in entries.items()
        for entry in listed
    }


def run(
    jobs: list[Job], trees: list[Path], limits_s: Mapping[str, float]
) -> Iterator[tuple[Job, Result]]:
    """Run every job in a process of its own, as many at a time as there are trees.

    Limits are of the processor's time, by module: others may use it too.
    """
    waiting, free = jobs[::-1], list(trees)
    running: dict[int, tuple[Job, Path]] = {}
    try:
        while waiting:
            while waiting and free:
                job, tree = waiting.pop(), free.pop()
                running[_start(job, tree, limits_s[job.path])] = job, tree
            while running and not (waiting and free):
                pid, status, usage = os.wait4(-1, 0)
                job, tree = running.pop(pid)
                _end(pid)
                (tree / job.path).write_text(job.source)
                free.append(tree)
                code = os.waitstatus_to_exitcode(status)
                yield job, _result(code, usage.ru_utime + usage.ru_stime, tree)
    finally:
        for pid in running:
            _end(pid)


def _start(job: Job, tree: Path, limit_s: float) -> int:
    (tree / job.path).write_text(job.code)
    sys.stdout.flush()
    if pid := os.fork():
        os.setpgid(pid, pid)  # not a session: a pseudo-terminal would become its terminal
        return pid
    code = 3
    try:
        os.chdir(tree)
        output = os.open(_log(tree), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.path[0] = str(tree)  # before the tree this is a copy of
        os.environ["PYTHONPATH"] = str(tree)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit_s), resource.RLIM_INFINITY))
        times = TestTimes(WORK / f"{job.path.replace('/', '.')}.json", job.killer)
        options = ["-x", "--tb=line", "-p", "no:cacheprovider", f"--basetemp={tree}.tmp"]
        if job.mutant:
            options += [
                f"--timeout={LEAST_S + 5 * max(times.sound_s.values(), default=LIMIT_S):.0f}"
            ]
        code = int(pytest.main([*options, *MODULES[job.path]], plugins=[times]))
        if not job.mutant:
            times.keep()
        sys.stdout.flush()
    finally:
        os._exit(code)


def _end(pid: int) -> None:
    """The process, and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _result(code: int, seconds: float, tree: Path) -> Result:
    if code == -signal.SIGXCPU:
        return Result("timeout", seconds)
    lines = _log(tree).read_text(errors="replace").splitlines()
    by = next((line for line in lines if line.startswith(("FAILED ", "ERROR "))), "")
    if "Timeout (>" in by:
        return Result("timeout", seconds, by)
    return Result("killed" if code else "survived", seconds, by)


def _log(tree: Path) -> Path:
    return tree.with_suffix(".log")


def _copy_tree(tree: Path) -> Path:
    tree.mkdir()
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    for name in CODE:  # compiled files that know their source by its hash, not by its date
        compileall.compile_dir(
            tree / name, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )
    return tree


def known_results() -> dict[str, tuple[str, Result]]:
    """By `Job.fingerprint`: digest of the tests, and how it went, when it was run last."""
    with suppress(FileNotFoundError):
        lines = map(json.loads, (WORK / "results.jsonl").read_text().splitlines())
        return {fingerprint: (tests, Result(*rest)) for fingerprint, tests, *rest in lines}
    return {}


def _keep(job: Job, result: Result) -> None:
    with (WORK / "results.jsonl").open("a") as log:
        log.write(json.dumps([job.fingerprint, job.tests, *vars(result).values()]) + "\n")


def _report(results: dict[Mutant, Result], sources: dict[str, str]) -> int:
    survivors = sorted(
        (m for m, result in results.items() if result.outcome == "survived"),
        key=lambda mutant: (mutant.path, mutant.line),
    )
    (WORK / "survivors.diff").write_text(
        "".join(f"# {m.path}:{m.line}\n{m.diff(sources[m.path])}\n\n" for m in survivors)
    )
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, result in results.items():
        counts[mutant.path][result.outcome] += 1
    outcomes = ("killed", "timeout", "survived", "equivalent")
    table = Table("module", *outcomes, "share killed")
    for path, count in sorted(counts.items(), key=lambda entry: list(MODULES).index(entry[0])):
        table.add_row(path, *(str(count[outcome]) for outcome in outcomes), _percent(count))
    total = sum(counts.values(), Counter())
    table.add_section()
    table.add_row("all", *(str(total[outcome]) for outcome in outcomes), _percent(total))
    Console(width=100).print(table)
    if survivors:
        print(f"survivors: {WORK / 'survivors.diff'}")
    return 0 if _share(total) >= PASS_SHARE else 1


def _share(count: Counter[str]) -> float:
    """Killed ones among all that are no equivalents; a test that hangs is a test that failed."""
    noticed = count["killed"] + count["timeout"]
    return noticed / max(1, noticed + count["survived"])


def _percent(count: Counter[str]) -> str:
    return f"{_share(count):.0%}"


def _digest(tests: Iterable[str]) -> str:
    paths = [ROOT / test for test in tests]
    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    files += (ROOT / "tests").rglob("conftest.py")
    return sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="MODULE",
        choices=[[], *MODULES],
        help="only these modules",
    )
    parser.add_argument("--all", action="store_true", help="not only the core modules")
    parser.add_argument("--sample", type=int, default=300, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
