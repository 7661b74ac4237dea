"""MuJoCo's studio viewer on a world that something else steps: a web page.

    with open_viewer("my world") as handle:              # a page on this machine's loopback address
        while handle.is_running():
            handle.sync(model, data)

The page is for this machine alone: the viewer knows no password, and whoever reaches its port may
push the robot, read logs and upload files. From elsewhere: `ssh -L 8080:localhost:8080 machine`.
What the viewer offers and what its plugins are is in MuJoCo's own documentation ("Studio"). Its
native window is not used: that of MuJoCo 4.0.0 needs Python 3.12, and fails at the first frame.
"""

import gc
import time
from collections.abc import Sequence

from mujoco.studio import (
    app,
    endpoints,
    launch_thread,
    plugin,
    viewer_handle,
    viewer_protocol,
    web_viewer,
)

from deploy.errors import ConfigError
from envs.render import look_at
from envs.simulation import Simulation

LOOPBACK = "127.0.0.1"


class LoopbackViewer(web_viewer.WebViewer):
    """MuJoCo's web viewer, which listens on all interfaces, kept to this machine."""

    @property
    def _host(self) -> str:
        return LOOPBACK

    @_host.setter
    def _host(self, value: str) -> None:
        """Whatever MuJoCo asks for."""

    def _start_server(self) -> None:
        address = self._http_sock.getsockname()[0]
        if address != LOOPBACK:  # another version of MuJoCo may ask in another way
            raise ConfigError(
                f"the viewer would listen on {address}, expected {LOOPBACK}; this version of "
                "mujoco-studio is not supported, install the one in constraints.txt"
            )
        super()._start_server()


def open_viewer(
    title: str, plugins: Sequence[plugin.Plugin] = (), *, port: int = 0
) -> viewer_handle.ViewerHandle:
    """Serve the viewer's page, and open it in a browser where there is a display.

    Args:
        title: of the page.
        plugins: the caller's own, beside the viewer's standard interface.
        port: of the page; 0 takes the first free one from 8080 up.

    Returns:
        What the simulation's side talks to; closing it closes the viewer. It raises ConfigError
        when it is used and the port was taken.
    """
    # What is left of an earlier viewer must not be freed while a new one draws: MuJoCo's interface
    # libraries keep one context per process, and crash.
    gc.collect()
    config = viewer_protocol.ViewerConfig(title, http_port=port, open_browser=True)
    interface = app.App(app.Config(show_inspector=False))
    viewer_plugins, sim_plugins = plugin.split_plugins([interface, *plugins])

    def serve(endpoint: endpoints.ViewerEndpoint) -> None:
        try:
            viewer = LoopbackViewer(config, endpoint, plugins=viewer_plugins)
        except RuntimeError as error:  # raised again where the handle is used
            raise ConfigError(f"the page cannot be served: {error}") from error
        viewer_protocol.run_viewer_loop(viewer)

    return launch_thread.launch_thread(serve, sim_plugins=sim_plugins)


class LiveView:
    """A world in the viewer while its owner steps it, no faster than the world's own time.

    Args:
        simulation: the worlds.
        period_s: how long each state is shown at least.
        title: of the page.
    """

    def __init__(self, simulation: Simulation, period_s: float, title: str):
        self._period_s, self._due = period_s, time.perf_counter()
        self._data = look_at(simulation)
        self._handle = open_viewer(title)

    def show(self, simulation: Simulation) -> None:
        """Show what world 0 is like now; does nothing once a person has closed the viewer."""
        if not self._handle.is_running():
            return
        time.sleep(max(0.0, self._due - time.perf_counter()))
        self._due = max(self._due, time.perf_counter() - self._period_s) + self._period_s
        self._handle.sync(self._data.model, look_at(simulation, 0, self._data))

    def close(self) -> None:
        """Close the viewer."""
        self._handle.close()
