"""A task of a user's own, by where its class is.

    find_user_task("my_package.my_task:Walk")        # a module that Python finds, also from here
    find_user_task("./my_task.py:Walk")              # a file; it may import what lies beside it
    find_user_task("projects/my_package.my_task:Walk")    # a module, and the folder it is found in

What the class lacks of `envs.task.Task` is listed at once. An exception inside the user's code
becomes a message that names file and line.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from deploy.configuration import Section, did_you_mean
from deploy.errors import ConfigError
from envs.task import Task

_METHODS = {
    name: method for name, method in vars(Task).items()
    if inspect.isfunction(method) and not name.startswith("_")
}  # fmt: skip
_ATTRIBUTES = [
    *(name for name in Task.__annotations__ if not name.startswith("_")),
    *(name for name, member in vars(Task).items() if isinstance(member, property)),
]
_OURS = [Path(__file__).parents[1] / package for package in ("deploy", "envs", "robotrl")]
_FOLDERS: set[Path] = set()
"""Where code of users was found."""


def is_user_task(name: str) -> bool:
    """Whether a task's name says where its class is."""
    return ":" in name


def is_path(name: str) -> bool:
    """Whether a task's name says in which folder its class is."""
    place = name.rpartition(":")[0]
    return "/" in place or place.endswith(".py")


def absolute_task(name: str, folder: Path) -> str:
    """The name that means the same from any folder.

    Args:
        name: of a task, of a user's own or of ours.
        folder: what a path in it is relative to.
    """
    if not is_user_task(name):
        return name
    place, class_name = name.rsplit(":", 1)
    if is_path(name):
        path = folder.absolute() / place
        return f"{path.parent.resolve() / path.name}:{class_name}"
    top = place.partition(".")[0]
    here = any((folder / part).exists() for part in (top, f"{top}.py"))
    if here and _importable_without(top, folder):
        return name
    return f"{folder.resolve() / place}:{class_name}" if here else name


def find_user_task(name: str) -> type[Any]:
    """The class of a user's own task.

    Raises:
        ConfigError: there is no such file, module or class, it cannot be imported, or it is no
            task; all that it lacks is listed.
    """
    place, class_name = name.rsplit(":", 1)
    with blamed(name):
        module = _import(name, place)
    found = getattr(module, class_name, None)
    classes = [
        key for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]  # fmt: skip
    if not inspect.isclass(found):
        raise ConfigError(
            f"task {name!r}: {module.__file__} has no class {class_name!r}"
            f"{did_you_mean(class_name, classes)}; it has {', '.join(classes) or 'none'}"
        )
    _refuse(name, _lacking_in_class(found))
    return found


def check_user_task(name: str, task: object) -> None:
    """Check that a task, once made, has everything that an environment reads of it.

    Raises:
        ConfigError: lists what is missing.
    """
    _refuse(
        name,
        [
            f"`{attribute}` is missing; set it in __init__"
            for attribute in _ATTRIBUTES
            if not hasattr(task, attribute)
        ],
    )


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Say file and line of what a user's code raises, in place of where we called it.

    Raises:
        ConfigError: in place of any exception with a user's code in its traceback.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if (line := user_line(error)) is None:
            raise
        raise ConfigError(f"task {name!r}: {line}") from error


def user_line(error: BaseException) -> str | None:
    """What went wrong where in a user's code, in a line; None if it was not there."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)
    ]
    if not frames:
        return None
    last = frames[-1]
    return f"{last.filename}, line {last.lineno}, in {last.name}: {what} ({last.line})"


def _is_users(filename: str) -> bool:
    path = Path(filename)
    ours = "site-packages" in path.parts or any(folder in path.parents for folder in _OURS)
    return not ours and any(folder in path.parents for folder in _FOLDERS)


def _importable_without(top: str, folder: Path) -> bool:
    """Whether Python finds a module in another place than a folder."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != folder.resolve()]
    return PathFinder.find_spec(top, elsewhere) is not None


def _import(name: str, place: str) -> ModuleType:
    if place.endswith(".py"):
        return _import_file(name, Path(place).absolute())
    folder, _, dotted = place.rpartition("/")
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise ConfigError(
            f"task {name!r}: expected my_package.my_task:Walk or path/to/my_task.py:Walk"
        )
    _allow(Path(folder).resolve())
    try:
        module = importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{dotted}.".startswith(f"{error.name}."):
            raise  # of something that the user's module imports
        raise ConfigError(
            f"task {name!r}: Python finds no module {error.name!r}, nor does "
            f"{Path(folder).resolve()} hold it; install it, or give the path of its file, as in "
            "path/to/my_task.py:Walk"
        ) from error
    if module.__file__:
        _FOLDERS.add(Path(module.__file__).resolve().parent)
    return module


def _import_file(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"task {name!r}: there is no file {path}; correct the path")
    _allow(path.parent.resolve())
    unique = f"user_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    if unique not in sys.modules:
        spec = importlib.util.spec_from_file_location(unique, path)
        assert spec and spec.loader
        sys.modules[unique] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[unique]
            raise
    return sys.modules[unique]


def _allow(folder: Path) -> None:
    """Let Python import from a folder; last, so that nothing installed is hidden."""
    _FOLDERS.add(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _lacking_in_class(task: type[Any]) -> list[str]:
    config = getattr(task, "Config", None)
    lacking = []
    if not (inspect.isclass(config) and issubclass(config, Section)):
        lacking.append("`Config` is missing: a subclass of envs.tasks.settings.RobotTaskConfig")
    if not callable(getattr(task, "load_model", None)):
        lacking.append("`load_model(config)` is missing: a static method that returns the MjModel")
    for name, method in _METHODS.items():
        expected = [key for key in inspect.signature(method).parameters if key != "self"]
        call = f"`{name}({', '.join(expected)})`"
        found = getattr(task, name, None)
        if not callable(found):
            lacking.append(f"{call} is missing: {(method.__doc__ or '').splitlines()[0]}")
        elif not _takes(found, 1 + len(expected)):
            lacking.append(f"{call} is expected, found `{name}{inspect.signature(found)}`")
    if not _takes(task, 3):
        lacking.append("`__init__(simulation, config, draws)` is expected")
    return lacking


def _takes(function: Any, arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    return True


def _refuse(name: str, lacking: list[str]) -> None:
    if lacking:
        listed = "\n  ".join(lacking)
        raise ConfigError(
            f"task {name!r} is no task yet; envs/task.py says what one is:\n  {listed}"
        )
