"""Films without a display: frames of a world into an MP4 file.

    film(session, Path("arm.mp4"), seconds=10)
    film_divergence(replay, Path("diverged.mp4"))

H.264 by the ffmpeg that the package `imageio-ffmpeg` brings along. A film of a session runs at the
speed of the world, in about 30 frames a second; one of a divergence shows each state for a second
and each physics step of the last call for half of one.
"""

from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import mujoco
import numpy as np

from deploy.errors import ConfigError
from envs.divergence import Replay
from envs.divergence.playback import load, substeps
from envs.render import HEIGHT, WIDTH, Renderer
from robotrl.play.markers import command_markers
from robotrl.play.session import Session

_FPS = 30
_DIVERGENCE_FPS = 2


def film(session: Session, path: Path, *, seconds: float) -> None:
    """Write the next `seconds` of a session.

    Raises:
        ConfigError: there is no OpenGL, or the file cannot be written.
    """
    period = session.env.task.control_dt_s
    skip = max(1, round(1 / (_FPS * period)))
    with Renderer(session.model) as renderer:
        frames = _frames(session, renderer, round(seconds / period), skip)
        write_video(path, frames, 1 / (skip * period))


def _frames(session: Session, renderer: Renderer, steps: int, skip: int) -> Iterator[np.ndarray]:
    for step in range(steps):
        if step % skip == 0:
            markers = command_markers(session.command_spec, session.command, session.data)
            yield renderer.render(session.data, markers)
        session.step()


def film_divergence(replay: Replay, path: Path) -> None:
    """Write how a world came to diverge: the remembered states, then the last physics steps."""
    divergence = replay.dump.divergence
    model = divergence.model
    with Renderer(model) as renderer:

        def frames() -> Iterator[np.ndarray]:
            for state in divergence.states[:-1]:
                frame = renderer.render(_posed(model, load(model, state)))
                yield from [frame] * _DIVERGENCE_FPS
            for data in substeps(replay.dump):
                yield renderer.render(_posed(model, data))

        write_video(path, frames(), _DIVERGENCE_FPS)


def _posed(model: mujoco.MjModel, data: mujoco.MjData) -> mujoco.MjData:
    """Poses of what is drawn, without dynamics, which may fail here."""
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
    return data


def write_video(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    """Write images (height, width, 3) uint8 of 960 × 540 into an MP4 file.

    Raises:
        ConfigError: the file cannot be written, or is not an .mp4.
    """
    if path.suffix != ".mp4":
        raise ConfigError(f"{path}: films are written as .mp4, found {path.suffix!r}; rename it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another") from error
    writer = imageio_ffmpeg.write_frames(
        str(path), (WIDTH, HEIGHT), fps=fps, quality=7, macro_block_size=2
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
