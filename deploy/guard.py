"""A companion for a program of one's own: makes the robot safe of a program that is gone.

    with guarded(config, ports) as vigil:
        vigil.promise(now_s + 0.3)       # while something moves; inf once it holds by itself

A process like the recorder's (`deploy.companion`), without a log: what it has done it says on the
program's standard error.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping

from deploy.errors import DeployError
from deploy.process import comes_up, start_companion, take_job
from deploy.ring import allocate, map_memory
from deploy.robot_config import RobotConfig
from deploy.serial_port import SerialPort
from deploy.supervisor import Supervisor
from deploy.vigil import VIGIL_BYTES, Vigil


@contextlib.contextmanager
def guarded(config: RobotConfig, ports: Mapping[str, SerialPort]) -> Iterator[Vigil]:
    """Have somebody watch this process for as long as the block runs.

    Args:
        config: the robot, at the ports that are open.
        ports: which are shared, by the name of the device.

    Raises:
        DeployError: the companion does not start.
    """
    memory, handles = allocate(VIGIL_BYTES), {name: port.fd for name, port in ports.items()}
    vigil = Vigil(map_memory(memory))
    job = {"robot": config.model_dump_json(), "memory": memory, "ports": handles}
    job["controller"] = os.getpid()
    try:
        with start_companion("deploy.guard", job, (memory, *handles.values())) as guard:
            try:
                if not comes_up(guard):
                    guard.kill()
                    raise DeployError(
                        "the companion process, which makes the robot safe if this program is "
                        "killed, does not start; see what it says above"
                    )
                yield vigil
            finally:
                vigil.close()
    finally:
        os.close(memory)


def main() -> None:
    """Run the job on standard input."""
    job = take_job()
    vigil = Vigil(map_memory(job["memory"]))
    supervisor = Supervisor(job["robot"], vigil, job["controller"], job["ports"])
    print("ready", flush=True)
    supervisor.run()
    print(*supervisor.said, sep="\n", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
