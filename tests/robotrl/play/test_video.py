"""Films can be read by others, last as long as they say, and show what happened."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.divergence import replay
from envs.render import HEIGHT, WIDTH
from robotrl.play.session import open_session

pytest.importorskip("imageio_ffmpeg", reason="films need robotrl[train]")
from robotrl.play.video import film, film_divergence, write_video

pytestmark = pytest.mark.usefixtures("opengl")


def test_film_lasts_as_long_as_the_world_does(tmp_path: Path):
    path = tmp_path / "new" / "arm.mp4"
    film(open_session("arm_reach", action="random"), path, seconds=0.4)

    frames = iio.imread(path, plugin="FFMPEG")
    # 0.4 s at 50 Hz are 20 steps, of which every second is shown, at 25 frames a second.
    assert frames.shape == (10, HEIGHT, WIDTH, 3)
    assert iio.immeta(path, plugin="FFMPEG")["fps"] == pytest.approx(25.0)
    assert np.abs(frames[-1].astype(int) - frames[0]).max() > 100  # it moved


def test_slow_worlds_are_filmed_step_by_step(tmp_path: Path):
    path = tmp_path / "pusher.mp4"
    film(open_session("gym/Pusher-v5"), path, seconds=0.2)  # 20 Hz
    assert iio.immeta(path, plugin="FFMPEG")["fps"] == pytest.approx(20.0)
    assert len(iio.imread(path, plugin="FFMPEG")) == 4


def test_pictures_survive_the_film(tmp_path: Path):
    # A quadrant of each colour: H.264 with shared chroma keeps large areas to a few grey levels.
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2, 0] = 200
    picture[: HEIGHT // 2, WIDTH // 2 :, 1] = 200
    picture[HEIGHT // 2 :, : WIDTH // 2, 2] = 200
    write_video(tmp_path / "colours.mp4", iter([picture] * 3), 10)

    found = iio.imread(tmp_path / "colours.mp4", plugin="FFMPEG")[1].astype(int)

    for row, column in ((100, 200), (100, 700), (400, 200), (400, 700)):
        assert np.abs(found[row, column] - picture[row, column]).max() < 12


def test_only_mp4_is_written(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"arm.gif: films are written as .mp4, found '.gif'"):
        write_video(tmp_path / "arm.gif", iter([]), 25)


def test_folder_that_cannot_be_made_is_explained(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another"):
        write_video(tmp_path / "file" / "arm.mp4", iter([]), 25)


def test_divergence_is_filmed_up_to_where_it_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    env = envs.make("arm_reach", num_envs=1, num_threads=1)
    env.reset()
    env.record_divergences(tmp_path / "diverged")
    for _ in range(3):
        env.step(torch.zeros(1, env.num_actions))
    env.simulation.data("xfrc_applied")[0, 3, 0] = 1e15
    env.step(torch.zeros(1, env.num_actions))
    (dump,) = (tmp_path / "diverged").iterdir()

    film_divergence(replay(dump), tmp_path / "film.mp4")

    # Three calls before the last, two frames each, and the one step that went wrong.
    assert len(iio.imread(tmp_path / "film.mp4", plugin="FFMPEG")) == 7
