"""Who makes a robot safe whose controller is gone, or stands still: a thread of the companion.

    supervisor = Supervisor(robot, vigil, controller_pid, ports)
    supervisor.start()
    supervisor.over.wait(0.05)       # until the controller is gone, and the robot safe
    supervisor.said                  # what came of it

Gone (killed, crashed) is noticed at once: then standard input ends. One that stands still (a hang,
SIGSTOP) breaks its promise to be back (`deploy.vigil`), and is ended with SIGKILL, so that nobody
else uses the ports. The controller hands its open ports over: no board restarts because a port is
opened anew, and no other program comes between. One that has hung up is opened again, wherever its
adapter is by then.
Joints that hold themselves up are held where they are or let go, as `safe_state` says; limp ones
stay limp. What does not confirm is tried again for `PERSISTENCE_S`.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from deploy.errors import BusError, DeployError
from deploy.realtime import LoopConfig, realtime
from deploy.robot import Robot, bare_joints
from deploy.robot_config import AnyDevice, RobotConfig
from deploy.serial_port import Adapter, SerialPort, adapter_of, whereabouts
from deploy.vigil import Vigil

GRACE_S = 0.2
"""A controller that is late, but not hung, gets so much longer than `safety.watchdog_ms` before it
is ended: by then it has stopped the robot itself."""
PERSISTENCE_S = 5.0
"""How long a robot that does not confirm is tried again: noise and a loose plug pass."""
_LOOK_S = 0.05
_GONE_WITHIN_S = 1.0
_FREE_WITHIN_S = 1.0


class Supervisor(threading.Thread):
    """See the module docstring.

    Args:
        robot: its `RobotConfig` as JSON; None where there is no robot to look after.
        vigil: what is shared with the controller.
        controller: its process id; our parent.
        ports: file descriptors of the open serial ports, by the name of the device.
    """

    def __init__(self, robot: str | None, vigil: Vigil, controller: int, ports: Mapping[str, int]):
        super().__init__(daemon=True)
        self.over = threading.Event()
        """The controller is gone, and what was to be done is done."""
        self.said: list[str] = []
        """What came of it, for the log."""
        self._robot, self._vigil, self._controller = robot, vigil, controller
        self._ports = dict(ports)
        self._adapters = {name: adapter_of(os.ttyname(port)) for name, port in ports.items()}
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)
        for port in ports.values():
            self._poll.register(port, 0)  # hung up, no more

    def run(self) -> None:
        """Watch until the controller is gone, as punctual as this process may be."""
        try:
            with realtime(LoopConfig().model_copy(update={"priority": self._priority()})):
                self._watch()
        finally:
            for port in self._ports.values():
                os.close(port)
            self.over.set()

    def _priority(self) -> int:
        """Of SCHED_FIFO: above the loop, or one that spins is never ended on a lone core."""
        try:
            return RobotConfig.model_validate_json(self._robot or "").loop.priority + 1
        except ValueError:  # no robot, or none that can be rescued
            return 0

    def _watch(self) -> None:
        while not self._gone(min(_LOOK_S, self._vigil.back_by_s - time.monotonic())):
            if time.monotonic() > self._vigil.back_by_s:
                self._miss()
        if not self._vigil.closed and self._robot:
            self.said.append(self._rescue(for_s=PERSISTENCE_S))

    def _gone(self, within_s: float) -> bool:
        """Whether the controller ends within that time; a port that hangs up is given back."""
        for ready, _ in self._poll.poll(max(0.0, within_s) * 1e3):
            if ready == sys.stdin.fileno():
                return True
            self._poll.unregister(ready)
            os.close(ready)  # else the adapter, plugged in again, gets another name
            self._ports = {name: port for name, port in self._ports.items() if port != ready}
        return False

    def _miss(self) -> None:
        """The controller is not back: an exercise, or the real thing."""
        late_s = time.monotonic()
        self._vigil.promise(float("inf"))  # it is acted on once
        if drill := self._vigil.drill:
            self._vigil.drill = ""
            done = self._rescue(let_go=drill == "let_go")
            report = {"noticed_s": late_s, "done_s": time.monotonic(), "done": done}
            print(json.dumps(report), flush=True)
            return
        if os.getppid() == self._controller:
            os.kill(self._controller, signal.SIGKILL)
            self.said.append("it stood still, and was ended")
        self._gone(_GONE_WITHIN_S)

    def _rescue(self, let_go: bool | None = None, for_s: float = 0.0) -> str:
        assert self._robot
        give_up_s = time.monotonic() + for_s
        while True:
            done = make_safe(self._robot, self._ports, self._adapters, let_go=let_go)
            if not done.startswith(NOT_SAFE) or time.monotonic() > give_up_s:
                return done
            time.sleep(_LOOK_S)


def make_safe(
    robot: str,
    ports: Mapping[str, int] = {},
    adapters: Mapping[str, Adapter | None] = {},
    *,
    let_go: bool | None = None,
) -> str:
    """Bring a robot into its safe state.

    Args:
        robot: its `RobotConfig` as JSON, at the ports that the controller used.
        ports: descriptors of those of them that are open, by the name of the device.
        adapters: where to look for the others, if not at their path.
        let_go: instead of what its `safe_state` says.

    Returns:
        What came of it, in words.
    """
    try:
        config = RobotConfig.model_validate_json(robot)
        let_go = config.safety.safe_state == "torque_off" if let_go is None else let_go
        with _open(config, ports, adapters) as opened:
            Robot(config, bare_joints(config), opened).rescue(let_go=let_go)
    except (DeployError, ValueError) as error:
        return f"{NOT_SAFE}: {error}"
    done = "limp" if let_go else "held where it was"
    return f"the companion has made the robot safe: what held itself up is {done}, read back"


NOT_SAFE = "the companion could not make the robot safe"


@contextlib.contextmanager
def _open(
    config: RobotConfig, ports: Mapping[str, int], adapters: Mapping[str, Adapter | None]
) -> Iterator[dict[str, SerialPort]]:
    """The serial port of each device; those that are opened here are closed again."""
    with contextlib.ExitStack() as opened:
        yield {
            name: SerialPort.inherited(device.port, ports[name])
            if name in ports
            else opened.enter_context(
                contextlib.closing(_open_when_free(device, adapters.get(name)))
            )
            for name, device in config.wired.items()
        }


def _open_when_free(device: AnyDevice, adapter: Adapter | None) -> SerialPort:
    """A port whose owner is being ended."""
    give_up_s = time.monotonic() + _FREE_WITHIN_S
    while True:
        path = whereabouts(device.port, adapter)
        try:
            return SerialPort(path, device.baud_rate)
        except BusError:
            if time.monotonic() > give_up_s or not os.path.exists(path):
                raise
            time.sleep(_LOOK_S)
