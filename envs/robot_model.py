"""A robot's model as its maker wrote it: an MJCF, or a URDF with its meshes where ROS has them.

spec, files = read_model(Path("arm.urdf"))
missing_files(files)               # a line for each that is not there
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from deploy.errors import ConfigError

MESH_SUFFIXES = (".stl", ".obj", ".msh")
"""Of meshes that MuJoCo reads."""
_URDF_TIMESTEP_S = 0.005


def read_model(path: Path) -> tuple[mujoco.MjSpec, list[Path]]:
    """The model, and all files it consists of."""
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        files = [Path(name) for name in mujoco.mju_getXMLDependencies(str(path.absolute()))]
        root = ElementTree.parse(path).getroot()
    except (ValueError, ElementTree.ParseError) as error:
        raise ConfigError(f"{path}: MuJoCo cannot read it: {error}") from error
    if root.tag == "robot":
        files += list(_find_meshes(spec, path))
        if root.find("mujoco/option") is None:
            spec.option.timestep = _URDF_TIMESTEP_S
            spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return spec, sorted(set(files))


def _find_meshes(spec: mujoco.MjSpec, path: Path) -> Iterator[Path]:
    """Files of a URDF's meshes; `package://` is resolved in the folders above, as ROS lays them."""
    folder = path.absolute().parent
    for mesh in spec.meshes:
        if mesh.file.startswith("package://"):
            name = mesh.file.removeprefix("package://")
            places = [above / name for above in (folder, *folder.parents)]
            mesh.file = str(next((place for place in places if place.exists()), folder / name))
            spec.strippath = False
        elif spec.strippath:
            mesh.file = Path(mesh.file).name
        yield folder / spec.meshdir / mesh.file


def missing_files(files: Sequence[Path]) -> list[str]:
    """A line for each file that is not there."""
    return [
        f"the file {file} is missing; put it there, or correct the model" + _unreadable(file)
        for file in files
        if not file.exists()
    ]


def _unreadable(file: Path) -> str:
    if file.suffix.lower() != ".dae":
        return ""
    return f" (MuJoCo reads meshes in {', '.join(MESH_SUFFIXES)}, so convert it)"
