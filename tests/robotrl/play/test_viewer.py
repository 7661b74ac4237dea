"""The world's side of the viewer: real time, pause, reset, pushes, commands; without a browser."""

import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from mujoco.studio import launch_thread, messages, sim, sim_history, step_control, viewer_handle

from robotrl.play import viewer
from robotrl.play.session import Session, open_session
from robotrl.play.viewer import HeldCommand, Stage, joint_forces


class VirtualTime:
    """In place of the module `time`: a sleep ends at once, on time."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "time", VirtualTime())


class Show:
    """A session as the viewer runs it, without the viewer's thread."""

    def __init__(self, task: str):
        self.session = open_session(task)
        control = step_control.StepControl()
        plugins = [control, sim_history.SimHistory(), Stage(self.session, control)]
        _, endpoint = launch_thread.make_thread_endpoints()
        self.handle = viewer_handle.ViewerHandle(endpoint, sim_plugins=plugins)
        self.handle.set_model(self.session.model)
        self.pause(sim.PauseState.NORMAL_PAUSED)

    def run(self, seconds: float) -> None:
        end_s = viewer.time.perf_counter() + seconds
        while viewer.time.perf_counter() < end_s:
            self.handle.sync()

    def pause(self, state: sim.PauseState) -> None:
        self.handle.dispatch(messages.RequestPauseEvent(state))

    def single_step(self) -> None:
        self.handle.dispatch(messages.SingleStepEvent())
        self.run(0.05)

    @property
    def data(self) -> mujoco.MjData:
        assert self.handle.data is not None
        return self.handle.data


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Show:
    return Show(getattr(request, "param", "arm_reach"))


def test_time_runs_as_outside(show: Show):
    show.pause(sim.PauseState.UNPAUSED)
    show.run(1.0)
    assert show.session.time_s == pytest.approx(1.0, abs=0.021)  # 50 steps of 20 ms


def test_speed_is_what_the_viewer_asks_for(show: Show):
    slow = step_control.StepControl().step_control
    slow.set_speed(10.0)
    show.handle.dispatch(messages.StepControlSnapshot.from_step_control(slow))
    show.pause(sim.PauseState.UNPAUSED)
    show.run(1.0)
    assert show.session.time_s == pytest.approx(0.1, abs=0.021)


def test_nothing_moves_while_paused_but_single_steps(show: Show):
    show.run(0.2)
    assert show.session.time_s == 0

    show.single_step()
    assert show.session.time_s == pytest.approx(0.02)


def test_viewer_sees_the_session(show: Show):
    for _ in range(3):
        show.single_step()
    np.testing.assert_array_equal(show.data.qpos, show.session.data.qpos)
    assert show.data.time == pytest.approx(0.06)


def test_reset_begins_an_episode(show: Show):
    for _ in range(3):
        show.single_step()
    before = show.session.data.qpos.copy()

    show.handle.dispatch(messages.ResetEvent())
    show.run(0.05)

    assert show.session.time_s == 0
    assert not np.array_equal(show.session.data.qpos, before)
    np.testing.assert_array_equal(show.data.qpos, show.session.data.qpos)  # not the model's zero


def test_file_dropped_on_the_page_replaces_nothing(show: Show, tmp_path: Path):
    path = tmp_path / "other.xml"
    path.write_text("<mujoco/>")
    show.handle.dispatch(messages.LoadModelEvent(str(path)))
    show.single_step()
    assert show.handle.model is show.session.model


def test_sliders_hold_the_command_until_they_let_go(show: Show):
    show.handle.dispatch(HeldCommand((0.2, 0.1, 0.1)))
    show.single_step()
    assert show.session.command == pytest.approx([0.2, 0.1, 0.1])

    show.handle.dispatch(HeldCommand(()))
    show.handle.dispatch(messages.ResetEvent())
    show.single_step()
    assert show.session.command != pytest.approx([0.2, 0.1, 0.1])


@pytest.mark.parametrize("show", ["gym/Ant-v5"], indirect=True)
def test_robot_is_pushed_by_what_the_mouse_pulls(show: Show):
    torso, model = show.session.model.body("torso").id, show.session.model
    mass = float(model.body_subtreemass[torso])
    other = Show("gym/Ant-v5")
    force = np.zeros((model.nbody, 6))
    force[torso, 0] = 40.0
    sig = int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)
    show.handle.dispatch(messages.PerturbSnapshot(force.ravel(), sig))

    show.single_step()
    other.single_step()

    # The momentum of the whole robot grows by the force times 0.05 s, against its unpushed twin:
    # it is in the air, so nothing else differs.
    def momentum(session: Session) -> float:
        mujoco.mj_subtreeVel(model, session.data)
        return float(session.data.subtree_linvel[torso, 0]) * mass

    assert momentum(show.session) - momentum(other.session) == pytest.approx(40 * 0.05, rel=0.05)

    show.handle.dispatch(messages.PerturbSnapshot(np.zeros(model.nbody * 6), sig))
    show.single_step()
    assert not show.session.env.simulation.data("qfrc_applied").any()


def test_forces_on_bodies_are_turned_into_joint_forces_as_mujoco_does():
    model = open_session("gym/Humanoid-v5").model
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    data.qvel[:] = rng.normal(size=model.nv)
    data.xfrc_applied[1:] = rng.normal(size=(model.nbody - 1, 6))
    model.opt.gravity[:] = 0
    mujoco.mj_forward(model, data)
    forced = data.qfrc_smooth.copy()
    applied = joint_forces(model, data)

    data.xfrc_applied[:] = 0
    mujoco.mj_forward(model, data)

    np.testing.assert_allclose(applied, forced - data.qfrc_smooth, atol=1e-9)


def test_edited_pose_is_where_time_goes_on(show: Show):
    show.single_step()
    pan = show.data.qpos[0]
    show.data.qpos[0] += 0.5

    show.single_step()

    # The servo holds its target with 1.5 N·m; in 20 ms it cannot take back a tenth of the way.
    assert show.session.data.qpos[0] - pan == pytest.approx(0.5, abs=0.1)


def test_error_of_the_session_reaches_the_caller(show: Show, monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise ZeroDivisionError("in the task")

    monkeypatch.setattr(show.session, "step", fail)
    with pytest.raises(ZeroDivisionError, match="in the task"):
        show.single_step()


WATCH = """
import threading, time
from robotrl.play.session import open_session
from robotrl.play.viewer import watch

def sockets():
    listening = []
    while not listening:
        time.sleep(0.01)
        with open("/proc/self/net/tcp") as four, open("/proc/self/net/tcp6") as six:
            rows = [line.split() for table in (four, six) for line in table.readlines()[1:]]
        listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(PORT)]
    found = {place.split(":")[0] for place in listening}
    print(f"listens {found}\\n", end="")  # at once, as the page says its own meanwhile

threading.Thread(target=sockets, daemon=True).start()
session = open_session("arm_reach")
for _ in range(2):
    watch(session, port=18231, seconds=1.5)
print("played", round(session.time_s, 6))
"""


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads Linux's socket table")
def test_page_is_for_this_machine_alone_and_ends_when_its_time_is_up():
    program = WATCH.replace("PORT", repr(f":{18231:04X}"))

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "listens {'0100007F'}" in done.stdout  # 127.0.0.1, and nothing of IPv6
    assert "played 3.0" in done.stdout
