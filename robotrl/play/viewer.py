"""A session in MuJoCo's studio viewer: pause, speed, reset, push with the mouse, command sliders.

Two plugins talk over the viewer's message channels, because the world and the pictures live in
different threads. `Stage` steps the session in real time. `Panel` shows what happens in it and
sends the command that its sliders hold. The timeline shows the past; whoever edits the pose or goes
back and lets time run again continues from what is seen, with the delays and noise of the present.
The viewer's physics settings change its picture only, not the world.
"""

import dataclasses
import time

import mujoco
import numpy as np
from mujoco.studio import app as studio_app
from mujoco.studio import messages, plugin, sim, sim_history, step_control, ux, viewer_handle
from mujoco.studio.dear_imgui import dear_imgui as imgui

from deploy.contract import CommandSpec
from envs.render import camera_of
from envs.viewer import open_viewer
from robotrl.play.markers import command_markers
from robotrl.play.session import Session

_POLL_S = 0.002
_HISTORY_S = 20.0
_LEFT, _TOP, _WIDTH = 225, 35, 330
"""Of the panel [pixels]: beside the viewer's own options, clear of the middle."""


@dataclasses.dataclass(frozen=True)
class HeldCommand(messages.Snapshot):
    """From the panel: ask for this; empty: for what the task itself asks."""

    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Status(messages.Snapshot):
    """To the panel: how the episode goes."""

    time_s: float
    total_reward: float
    command: tuple[float, ...]
    lines: tuple[str, ...]
    """Parts of the reward, and the task's measures."""


class Stage(plugin.SimPlugin):
    """Steps the session, and shows each state.

    Args:
        session: what is shown.
        control: MuJoCo's own stepper, which knows pause and speed; it never gets to step.
        seconds: how long to play; None: until the viewer is closed.
    """

    def __init__(
        self, session: Session, control: step_control.StepControl, seconds: float | None = None
    ):
        self._session, self._control = session, control
        self._dt = session.env.task.control_dt_s
        self._steps_left = None if seconds is None else round(seconds / self._dt)
        self._due, self._resets = time.perf_counter(), False
        self._lines: tuple[str, ...] = ()
        self._shown = np.zeros(session.model.nq)

    @messages.handler
    def on_command(self, message: HeldCommand) -> None:
        """The sliders moved."""
        self._session.hold_command(message.values or None)

    @messages.handler
    def on_reset(self, event: messages.ResetEvent) -> None:
        """Begin an episode, once the viewer's own handlers have had the event."""
        self._resets = True

    @messages.handler
    def on_load(self, event: messages.LoadModelEvent) -> bool:
        """Reload is a reset; a file dropped on the page is no part of the session."""
        self._resets = True
        return True

    @messages.handler
    def on_post_model(self, event: messages.PostModelEvent) -> None:
        """The world is there: show it."""
        self._show(event.data)

    @messages.handler
    def on_step(self, event: messages.StepEvent) -> bool:
        """Advance if it is time."""
        control = self._control.step_control
        if self._resets:
            self._resets = False
            self._session.reset()
            self._show(event.data)
        if control.get_pause_state() != sim.PauseState.UNPAUSED:
            if control.consume_single_step_request():
                self._advance(event.data)
            self._due = time.perf_counter()
        elif (ahead := self._due - time.perf_counter()) <= 0:
            period = self._dt * 100 / control.get_speed()
            self._due = max(self._due + period, time.perf_counter() - period)  # late: no rush
            self._advance(event.data)
            return True
        else:
            time.sleep(min(ahead, _POLL_S))
            return True
        time.sleep(_POLL_S)
        return True

    def _advance(self, data: mujoco.MjData) -> None:
        simulation = self._session.env.simulation
        if not np.array_equal(data.qpos, self._shown):  # edited, or gone back to
            for name in ("qpos", "qvel", "act"):
                if (value := getattr(data, name)).size:
                    table = simulation.data(name)
                    table[0] = table.new_tensor(value.copy())
        applied = simulation.data("qfrc_applied")  # xfrc_applied belongs to randomization
        applied[0] = applied.new_tensor(joint_forces(self._session.model, data))
        step = self._session.step()
        rewards = step.info.rewards.items()
        metrics = step.info.metrics.items()
        self._lines = tuple(
            f"{name} {float(value[0]):+.4f}" for name, value in [*rewards, *metrics]
        )
        self._show(data)
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left <= 0:
                self.handle.close()

    def _show(self, data: mujoco.MjData) -> None:
        """Copy the world into what the viewer sees; forces of the mouse stay."""
        session = self._session
        for name in ("qpos", "qvel", "act", "ctrl", "mocap_pos", "mocap_quat"):
            getattr(data, name)[:] = getattr(session.data, name)
        data.time = session.data.time
        self._shown = data.qpos.copy()
        mujoco.mj_forward(session.model, data)
        self.handle.send_to_viewer(
            Status(session.time_s, session.total_reward, tuple(session.command), self._lines)
        )


def joint_forces(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """(nv,) what the forces on bodies, `xfrc_applied`, come to in the joints."""
    total = np.zeros(model.nv)
    for body in np.flatnonzero(data.xfrc_applied.any(axis=1)).tolist():
        force, torque = np.split(data.xfrc_applied[body], 2)
        mujoco.mj_applyFT(model, data, force, torque, data.xipos[body], body, total)
    return total


class Panel(plugin.ViewerPlugin):
    """The window with the command's sliders, and the command in the scene.

    Args:
        title: what is shown.
        spec: the command; None: there is none.
    """

    def __init__(self, title: str, spec: CommandSpec | None):
        self._title, self._spec = title, spec
        self._held: list[float] | None = None
        self._status = Status(0.0, 0.0, (), ())

    @messages.handler
    def on_app(self, event: studio_app.InitEvent) -> None:
        """The standard interface is there."""
        self._app = event.app

    @messages.handler(priority=messages.Priority.INTERNAL - 1)  # after the interface has its own
    def on_post_model(self, event: messages.PostModelEvent) -> None:
        """Look where a film would look."""
        camera = camera_of(event.model)
        own = self.viewer.camera
        if camera.type == int(mujoco.mjtCamera.mjCAMERA_FIXED):
            self._app.ux_state.camera_index = ux.set_camera(event.model, own, camera.fixedcamid)
        elif camera.type == int(mujoco.mjtCamera.mjCAMERA_TRACKING):
            own.type, own.trackbodyid = camera.type, camera.trackbodyid
            self._app.ux_state.camera_index = ux.TRACKING_CAMERA_IDX

    @messages.handler
    def on_status(self, status: Status) -> None:
        """News of the session."""
        self._status = status

    @messages.handler
    def on_update(self, event: messages.UpdateEvent) -> None:
        """Draw the command."""
        self.viewer.extra_geoms[:] = command_markers(
            self._spec, self._status.command, self.viewer.data
        )

    @messages.handler
    def on_build_gui(self, event: messages.BuildGuiEvent) -> None:
        """Draw the window."""
        imgui.SetNextWindowPos(imgui.Vec2(_LEFT, _TOP), int(imgui.Cond.FirstUseEver))
        imgui.SetNextWindowSize(imgui.Vec2(_WIDTH, 0), int(imgui.Cond.FirstUseEver))
        expanded, _ = imgui.Begin("Play")
        if expanded:
            imgui.TextUnformatted(self._title)
            imgui.TextUnformatted(
                f"{self._status.time_s:.2f} s   reward {self._status.total_reward:+.2f}"
            )
            if self._spec is not None:
                self._build_sliders(self._spec)
            if imgui.TreeNode("Rewards and measures"):
                for line in self._status.lines:
                    imgui.TextUnformatted(line)
                imgui.TreePop()
        imgui.End()

    def _build_sliders(self, spec: CommandSpec) -> None:
        """A slider for each number of the command; touching one holds them all."""
        imgui.SeparatorText(spec.name.replace("_", " "))
        values = list(self._held or self._status.command or spec.low)
        touched = False
        for index, (element, unit) in enumerate(zip(spec.elements, spec.units, strict=True)):
            changed, values[index] = imgui.SliderFloat(
                f"{element} [{unit}]", values[index], spec.low[index], spec.high[index]
            )
            touched |= changed
        changed, holds = imgui.Checkbox("hold", self._held is not None)
        if touched or (changed and holds):
            limits = zip(values, spec.low, spec.high, strict=True)
            self._held = [min(max(value, low), high) for value, low, high in limits]
            self.viewer.send_to_sim(HeldCommand(tuple(self._held)))
        elif changed:
            self._held = None
            self.viewer.send_to_sim(HeldCommand(()))


def watch(session: Session, *, port: int = 0, seconds: float | None = None) -> None:
    """Show a session until the viewer is closed, the time is up, or Ctrl-C.

    Args:
        session: what to show.
        port: of the page, see `envs.viewer.open_viewer`.
        seconds: how long to play; None: without end.

    Raises:
        ConfigError: the port is taken.
    """
    control = step_control.StepControl()
    plugins = [
        control,
        sim_history.SimHistory(min_seconds=_HISTORY_S),
        Stage(session, control, seconds),
        Panel(session.title, session.command_spec),
    ]
    title = f"robotrl play {session.title}"
    with open_viewer(title, plugins, port=port) as handle:
        handle.set_model(session.model)
        viewer_handle.run_sim_loop(handle)
