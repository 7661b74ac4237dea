"""A task by where its class is: found, checked against `Task`, blamed for its own exceptions."""

import sys
from pathlib import Path

import gymnasium
import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.user_task import absolute_task, find_user_task, user_line

STAND = Path(__file__).parent / "models" / "stand_task.py"
SOURCE = STAND.read_text().replace(
    'Path(__file__).parent / "crawler.xml"', f'Path("{STAND.parent}") / "crawler.xml"'
)


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as error:
        envs.make(name, num_threads=1)
    return str(error.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, from which nothing was imported before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


# --- where it is -------------------------------------------------------------------------------


def test_task_of_a_file_lives_the_same_episodes_as_the_registered_one(stand_task: str):
    one = envs.make(stand_task, num_envs=2, num_threads=1)
    two = envs.make(f"{STAND}:Stand", num_envs=2, num_threads=1)

    assert torch.equal(one.reset()["critic"], two.reset()["critic"])
    for _ in range(5):
        a, b = (env.step(torch.full((2, 8), 0.2)) for env in (one, two))
        assert torch.equal(a.reward, b.reward)


def test_task_is_a_gymnasium_environment():
    env = gymnasium.make("robotrl/ArmReach-v0", task=f"{STAND}:Stand")
    observation, _ = env.reset(seed=0)

    assert env.action_space.shape == (8,)
    assert observation.shape == env.observation_space.shape
    assert env.step(env.action_space.sample())[0].shape == observation.shape


def test_file_may_import_what_lies_beside_it(here: Path):
    write(here / "tasks" / "walking_help.py", "from envs.rewards import closeness")
    source = SOURCE.replace("from envs.rewards import", "from walking_help import")
    write(here / "tasks" / "walk.py", source)

    assert find_user_task("tasks/walk.py:Stand").__name__ == "Stand"


def test_two_files_of_one_name_are_two_tasks(here: Path):
    for folder in ("one", "two"):
        write(here / folder / "walk.py", SOURCE + f"\n\nFOLDER = {folder!r}\n")

    one, two = (find_user_task(f"./{folder}/walk.py:Stand") for folder in ("one", "two"))

    assert sys.modules[one.__module__].FOLDER == "one"
    assert sys.modules[two.__module__].FOLDER == "two"


def test_module_is_found_in_the_present_folder_and_in_a_named_one(here: Path):
    write(here / "walking_package_a" / "__init__.py", "")
    write(here / "walking_package_a" / "walk.py", SOURCE)
    write(here / "lab" / "walking_package_b" / "walk.py", SOURCE)

    assert find_user_task("walking_package_a.walk:Stand").__name__ == "Stand"
    assert find_user_task("lab/walking_package_b.walk:Stand").__name__ == "Stand"


def test_name_that_means_the_same_from_any_folder(here: Path):
    write(here / "walking_package_c" / "walk.py", SOURCE)

    assert absolute_task("arm_reach", here) == "arm_reach"
    assert absolute_task("./walk.py:Walk", here) == f"{here}/walk.py:Walk"
    assert absolute_task("../walk.py:Walk", here / "lab") == f"{here}/walk.py:Walk"
    assert absolute_task(f"{here}/walk.py:Walk", Path("/")) == f"{here}/walk.py:Walk"
    name = absolute_task("walking_package_c.walk:Walk", here)
    assert name == f"{here}/walking_package_c.walk:Walk"
    assert absolute_task(name, Path("/")) == name
    assert absolute_task("gymnasium.envs:Walk", here) == "gymnasium.envs:Walk"  # installed


# --- what is wrong with it ---------------------------------------------------------------------


def test_everything_a_task_lacks_is_listed_at_once(here: Path):
    name = write(
        here / "walk.py",
        "class Walk:\n"
        "    def __init__(self, simulation): ...\n"
        "    def rewards(self, action): ...\n"
        "    def terminated(self): ...\n"
        "    def measure(self, worlds): ...\n"
        "    def advance(self): ...\n"
        "    def state_dict(self): ...\n",
    )

    assert refusal(f"{name}:Walk").splitlines() == [
        f"task '{name}:Walk' is no task yet; envs/task.py says what one is:",
        "  `Config` is missing: a subclass of envs.tasks.settings.RobotTaskConfig",
        "  `load_model(config)` is missing: a static method that returns the MjModel",
        "  `initial_state(worlds, episode)` is missing: Where episodes (n,) start, and everything "
        "of the task's own that starts with them.",
        "  `observe_privileged(worlds)` is missing: The features named by `privileged`, (n, "
        "columns) each.",
        "  `rewards(action, previous_action)` is expected, found `rewards(self, action)`",
        "  `load_state_dict(state)` is missing: Restore what `state_dict` returned.",
        "  `__init__(simulation, config, draws)` is expected",
    ]


def test_attributes_that_a_task_does_not_set_are_listed_at_once(here: Path):
    source = SOURCE.replace("self.privileged = {", "forgotten = {")
    name = write(here / "walk.py", source.replace("self.episode_steps =", "steps ="))

    assert refusal(f"{name}:Stand").splitlines() == [
        f"task '{name}:Stand' is no task yet; envs/task.py says what one is:",
        "  `episode_steps` is missing; set it in __init__",
        "  `privileged` is missing; set it in __init__",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # (3, 1) + (3,) is (3, 3): every world would be paid for all of them.
        (("self._upright().float()}", "self._upright().float()[:, None]}"),
         "`Stand.rewards` returned: 'upright' has shape (3, 1), expected (3,)"),
        (("self._upright().float()}", "0.1}"),
         "`Stand.rewards` returned: 'upright' is a float, expected a tensor (3,)"),
        (("self._upright().float()}", "self._upright().double()}"),
         "`Stand.rewards` returned: 'upright' is torch.float64, expected torch.float32"),
        (("self._upright() < 0.5", "(self._upright() < 0.5).float()"),
         "`Stand.terminated` returned: 'terminated' is torch.float32, expected torch.bool"),
        (('{"command": worlds.take(self._command.value).clone()}', "{}"),
         "`Stand.measure` returned: 'command' is missing"),
        (("height[:, None].float()", "height[None].float()"),
         "`Stand.observe_privileged` returned: 'base_height' has shape (1, 3), expected (3, 1)"),
    ],
    ids=["column", "number", "double", "flags", "signal", "privileged"],
)  # fmt: skip
def test_table_of_another_shape_or_type_is_told_at_the_first_step(
    here: Path, change: tuple[str, str], message: str
):
    source = SOURCE.replace(*change)
    assert source != SOURCE
    env = envs.make(f"{write(here / 'walk.py', source)}:Stand", num_envs=3, num_threads=1)

    with pytest.raises(ConfigError) as error:
        env.reset()
        env.step(torch.zeros(3, env.num_actions))

    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./none.py:Walk", "there is no file {here}/none.py; correct the path"),
        ("./walk.py:Stnad", "{here}/walk.py has no class 'Stnad' (did you mean 'Stand'?); it has "
         "StandConfig, StandFeatures, Stand"),
        ("no_such_package.walk:Walk", "Python finds no module 'no_such_package', nor does {here} "
         "hold it; install it, or give the path of its file, as in path/to/my_task.py:Walk"),
        ("./walk.py", "does not say which class; expected e.g. ./walk.py:Walk, the file and"),
        ("no-module:Walk", "expected my_package.my_task:Walk or path/to/my_task.py:Walk"),
    ],
    ids=["file", "class", "module", "no class", "name"],
)  # fmt: skip
def test_task_that_is_not_there_is_refused(here: Path, name: str, message: str):
    write(here / "walk.py", SOURCE)

    assert message.format(here=here) in refusal(name)


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("import mujoco\n", "import mujoco\nimport no_such_module\n"),
         "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (("class Stand:", "class Stand("), "class Stand(", "SyntaxError: '(' was never closed"),
        (("start = int(", "start = 1 / 0 + int("), "start = 1 / 0 + int(",
         "ZeroDivisionError: division by zero"),
    ],
    ids=["import", "syntax", "constructor"],
)  # fmt: skip
def test_exception_in_a_users_code_is_told_with_file_and_line(
    here: Path, change: tuple[str, str], line: str, message: str
):
    source = SOURCE.replace(*change)
    path = write(here / "walk.py", source)
    number = next(i for i, text in enumerate(source.splitlines(), 1) if line in text)

    found = refusal(f"{path}:Stand")

    assert f"{path}, line {number}" in found
    assert message in found


def test_exception_in_a_step_is_found_in_the_users_code_and_only_there(here: Path):
    path = write(here / "walk.py", SOURCE.replace("closeness(self._error(), 0.02)", "self.lost"))
    env = envs.make(f"{path}:Stand", num_threads=1)
    env.reset()

    with pytest.raises(AttributeError) as error:
        env.step(torch.zeros(1, 8))
    told = user_line(error.value)
    with pytest.raises(RuntimeError) as other:
        envs.make("arm_reach", num_threads=1).step(torch.zeros(1, 5))

    assert told is not None
    assert told.startswith(f"{path}, line ")
    assert "in rewards: AttributeError: 'Stand' object has no attribute 'lost'" in told
    assert user_line(other.value) is None
