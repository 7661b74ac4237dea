"""A servo's bridge and controller: sagging supply, slow voltage, the play that the controller sees.

All servos of one nominal voltage share a supply with a resistance. Under load their gain and torque
limit fall together, and with them, back-EMF being what it is, the no-load speed. The voltage
without load is the one that the torque limit of each world stands for. Some firmwares let the
motor's voltage rise no faster than a slope: a torque limit about the last torque. The controller's
encoder is on the output shaft: what it sees of the play is added to its error, undelayed.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deploy.servos.models import BACKLASH_HINGE
from deploy.servos.physics import ServoPhysics
from envs.servos.places import drives_of, places, table
from envs.simulation import Simulation

_LOWEST = 0.05
"""Motors that are turned backwards at full duty could ask for less than nothing."""


def voltage_factor(conductance: Tensor, emf_current: Tensor, resistance_ohm: Tensor) -> Tensor:
    """Supply voltage under load over that without, `_LOWEST`..1.

    At a duty d a bridge takes d times its motor's current from the supply, (d²·U - d·kt·w) / R, so
    that U = U0 - r·current has the solution below, which is stable however large the load. A motor
    that brakes feeds the others; what is left over is lost (as in BAM, bam/mujoco.py).

    Args:
        conductance: sum of d²/R over the servos [1/ohm].
        emf_current: sum of d·kt·w/R over them, over U0 [1/ohm].
        resistance_ohm: r.
    """
    loaded = (1 + resistance_ohm * emf_current) / (1 + resistance_ohm * conductance)
    return loaded.clamp(_LOWEST, 1)


class Bridge:
    """Writes gains and torque limits of position servos between physics steps.

    Args:
        simulation: the worlds.
        servos: servos on a supply, by joint.
        plays: driven joints with play.
    """

    def __init__(
        self, simulation: Simulation, servos: Mapping[str, ServoPhysics], plays: Sequence[str]
    ):
        model, like = simulation.model, simulation.data("qvel")
        device = like.device
        self._dofs = places([int(model.joint(name).dofadr[0]) for name in servos], device)
        self._actuators = places(drives_of(model, servos), device)
        hinges = [model.joint(name + BACKLASH_HINGE) for name in plays]
        self._play_qpos = places([int(hinge.qposadr[0]) for hinge in hinges], device)
        self._play_dofs = places([int(hinge.dofadr[0]) for hinge in hinges], device)
        self._played = places(drives_of(model, plays), device)
        self._any_play = bool(plays)
        sloped = {name: s for name, s in servos.items() if s.pwm_slope_v_s is not None}
        self._sloped = places(drives_of(model, sloped), device)
        step_s = float(model.opt.timestep)
        self._reach = table(
            [(s.pwm_slope_v_s or 0) * step_s * s.kt / s.resistance_ohm for s in sloped.values()],
            like,
        )
        """(sloped servos,) largest change of torque in a physics step [N·m]."""

        physics = list(servos.values())
        ohm = table([servo.resistance_ohm for servo in physics], like)
        self._kt = table([servo.kt for servo in physics], like)
        self._max_duty = table([servo.max_duty for servo in physics], like)
        self._volts_per_nm = table(
            [s.nominal_voltage_v / s.drive_torque(s.nominal_voltage_v) for s in physics], like
        )
        volts = [servo.nominal_voltage_v for servo in physics]
        same = table([float(a == b) for a in volts for b in volts], like)
        self._conductance = same.view(len(volts), len(volts)) / ohm[:, None]
        """(servos, servos) 1/R of the first where both share a supply."""
        self.resistance_ohm: Tensor | None = None
        """(num_envs, 1) of the supplies; None: they do not sag."""

        self._speed, self._position = like, simulation.data("qpos")
        self._force = simulation.data("actuator_force")
        names = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")
        self._fields = [simulation.field(name) for name in names]
        self._own = [field.clone() for field in self._fields]
        self.factor = torch.ones_like(self._force)
        """(num_envs, nu) what the last physics step had of the voltage without load."""

    @property
    def needed(self) -> bool:
        """Whether there is anything to write."""
        return self._any_play or len(self._reach) > 0 or self.resistance_ohm is not None

    def begin(self) -> None:
        """Note what the worlds' own gains are."""
        for own, field in zip(self._own, self._fields, strict=True):
            own.copy_(field)

    def write(self) -> None:
        """Set the gains of the next physics step."""
        gain, bias, limits = self._fields
        own_gain, own_bias, own_limits = self._own
        if self.resistance_ohm is not None:
            self._sag(own_limits[:, self._actuators, 1])
            gain[..., 0] = own_gain[..., 0] * self.factor
            bias[..., 1:3] = own_bias[..., 1:3] * self.factor[..., None]
            limits.copy_(own_limits * self.factor[..., None])
        elif len(self._reach):
            limits.copy_(own_limits)
        if len(self._reach):
            last = self._force[:, self._sloped]
            low, high = limits[:, self._sloped].unbind(-1)
            reached = (last - self._reach).clamp(low, high), (last + self._reach).clamp(low, high)
            limits[:, self._sloped] = torch.stack(reached, dim=-1)
        if self._any_play:
            behind = bias[:, self._played, 1] * self._position[:, self._play_qpos]
            behind += bias[:, self._played, 2] * self._speed[:, self._play_dofs]
            bias[:, self._played, 0] = behind

    def end(self) -> None:
        """Give the worlds their own gains back."""
        for own, field in zip(self._own, self._fields, strict=True):
            field.copy_(own)

    def _sag(self, limit: Tensor) -> None:
        """Update `factor` for worlds whose torque limits without load are `limit` (n, servos)."""
        assert self.resistance_ohm is not None
        duty = self._force[:, self._actuators] / (limit * self.factor[:, self._actuators])
        duty = self._max_duty * duty
        volts = limit * self._volts_per_nm
        emf = duty * self._kt * self._speed[:, self._dofs] / volts
        self.factor[:, self._actuators] = voltage_factor(
            (duty * duty) @ self._conductance, emf @ self._conductance, self.resistance_ohm
        )
