"""How well commands were followed, told when each ends: what a policy is judged by."""

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.commands import VelocityCommand
from envs.walking.gait import STILL
from envs.walking.terms import Step, as_speed
from envs.worlds import Worlds

SETTLED_S = 1.0
"""Start of a command, before which its error does not count."""


class CommandScore:
    """Sums over the present command of each world.

    Args:
        num_envs: number of worlds.
        joints: their names.
        control_dt_s: period of the policy [s].
        device: where the worlds are.
    """

    def __init__(
        self, num_envs: int, joints: Sequence[str], *, control_dt_s: float, device: torch.device
    ):
        self._joints = joints
        self._settle_steps = max(1, round(SETTLED_S / control_dt_s))
        self.sums = torch.zeros(num_envs, 4 + len(joints), device=device)
        """Of settled steps, their squared error, speed along the command, speed asked; and of all
        steps the squared torque of each joint."""

    def add(self, step: Step, command: VelocityCommand) -> None:
        """Count a step that was made."""
        settled = (command.steps - command.remaining >= self._settle_steps).float()
        achieved, asked = as_speed(step.twist), as_speed(step.command)
        error = (step.twist - step.command)[:, :2].square().sum(-1)
        row = [torch.ones_like(error), error, (achieved * asked).sum(-1), asked.square().sum(-1)]
        self.sums[:, :4] += settled[:, None] * torch.stack(row, dim=-1)
        self.sums[:, 4:] += step.torque.square()

    def metrics(self, command: VelocityCommand, fallen: Tensor) -> dict[str, Tensor]:
        """Of the commands so far, (num_envs,) each.

        `speed_share` is the speed along the command by that asked for, `velocity_error_m_s` the rms
        of what lacks, `fell` whether it ends by a fall, `torque_rms_nm/<joint>` what the servo had
        to give. What does not apply is nan: the share of a speed of about zero, the error of a
        command that did not last for a second.
        """
        steps, error, along, asked, *torques = self.sums.unbind(-1)
        lasted = (command.steps - command.remaining).clamp(min=1)
        rms = (torch.stack(torques, dim=-1) / lasted[:, None]).sqrt().unbind(-1)
        return {
            "speed_share": torch.where(asked > STILL**2 * steps, along / asked, torch.nan),
            "velocity_error_m_s": torch.where(steps > 0, error / steps, torch.nan).sqrt(),
            "fell": fallen.float(),
            **{
                f"torque_rms_nm/{name}": column
                for name, column in zip(self._joints, rms, strict=True)
            },
        }

    def restart(self, worlds: Worlds) -> None:
        """Begin with the next command in some worlds."""
        worlds.put(self.sums, 0)
