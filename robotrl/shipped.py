"""Configurations that come with the package: in a checkout `configs/`, in a wheel beside us."""

from pathlib import Path

from deploy.errors import ConfigError

_HERE = Path(__file__).parent


def config_path(name: str) -> Path:
    """Path of a shipped configuration, e.g. `robots/desk_arm.yaml`."""
    for folder in (_HERE / "configs", _HERE.parent / "configs"):
        if (folder / name).exists():
            return folder / name
    raise ConfigError(f"configs/{name} did not come with this installation; install robotrl again")
