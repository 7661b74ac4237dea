"""What runs on the robot; needs neither torch nor MuJoCo.

import deploy

with deploy.open_robot("configs/robots/desk_arm.yaml") as arm:     # see deploy.direct
    arm.move({"gripper": 0.5})
"""

from typing import TYPE_CHECKING, Any

from deploy.errors import DeployError as DeployError

if TYPE_CHECKING:
    from deploy.direct import open_robot as open_robot


def __getattr__(name: str) -> Any:
    """`open_robot`, imported when it is asked for: most of `deploy` does not need it."""
    if name == "open_robot":
        from deploy.direct import open_robot

        return open_robot
    raise AttributeError(f"module 'deploy' has no attribute {name!r}")
