"""The README's commands and programs do what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from robotrl.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"robotrl ([a-z]+)((?: [^\s`#]+)*)", README)
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("verb", "words"), COMMANDS)
def test_every_command_is_one_the_program_has(verb: str, words: str):
    command = get_command(app).commands[verb]  # pyright: ignore[reportAttributeAccessIssue]

    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in words.split() if word.startswith("-")}
    assert used <= known, f"robotrl {verb} has no {used - known}"


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:configs|envs|deploy|tests)/[\w./]+", README)))
)
def test_every_path_exists(path: str):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z]+)", README))))
def test_every_make_target_exists(target: str):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: text.split("\n")[0])
def test_every_program_runs_beside_a_policy(program: str, policy_path: Path, tmp_path: Path):
    shutil.copy(policy_path, tmp_path / "policy.onnx")

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
