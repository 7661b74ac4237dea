"""What is done for a robot whose controller is gone: killed, or crashed without a word.

    done = make_safe(robot)       # opens the ports, which are free once their owner is dead

Called by the companion process, which outlives the controller. Joints that hold themselves up are
held where they are or let go, as the robot's `safe_state` says; limp ones stay limp. A controller
that hangs or is stopped (SIGSTOP) still owns its ports: there only the servos' own watchdog helps.
"""

from contextlib import ExitStack, closing

from deploy.errors import DeployError
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.serial_port import SerialPort


def make_safe(robot: str) -> str:
    """Bring a robot into its safe state.

    Args:
        robot: its `RobotConfig` as JSON, at the ports that the controller used.

    Returns:
        What came of it, in words.
    """
    try:
        config = RobotConfig.model_validate_json(robot)
        let_go = config.safety.safe_state == "torque_off"
        with ExitStack() as stack:
            ports = {
                name: stack.enter_context(closing(SerialPort(bus.port, bus.baud_rate)))
                for name, bus in config.wired.items()
            }
            Robot(config, bare_joints(config), ports).rescue(let_go=let_go)
    except (DeployError, ValueError) as error:
        return f"the companion could not make the robot safe: {error}"
    done = "limp" if let_go else "held where it was"
    return f"the companion has made the robot safe: what held itself up is {done}, read back"
