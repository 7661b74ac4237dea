"""Friction that grows under load and at rest, as the friction loss of joints.

The law is `deploy.servos.physics.Friction`, i.e. m5 of Rhoban BAM (docs/theory/models.rst;
Duclusaud et al., "Extended Friction Models for the Physics Simulation of Servo Actuators", ICRA
2025, arXiv:2410.08650). As there, the torques are those of the last physics step, and the world's
torque on a joint is gravity, Coriolis and constraint forces without the friction itself. The latter
is taken to be what of the constraint force the friction could have been: right where a joint
touches nothing else, and off by less than twice the friction where it does.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from deploy.servos.physics import ServoPhysics
from envs.servos.places import drives_of, places, table
from envs.simulation import Simulation


class FrictionTable(NamedTuple):
    """`deploy.servos.physics.Friction` of several joints, (joints,) each."""

    base: Tensor
    stribeck: Tensor
    load_motor: Tensor
    load_external: Tensor
    load_motor_stribeck: Tensor
    load_external_stribeck: Tensor
    stribeck_speed: Tensor
    stribeck_exponent: Tensor


def friction_limit(
    friction: FrictionTable, motor: Tensor, external: Tensor, speed: Tensor
) -> Tensor:
    """Torque up to which friction resists, viscous friction apart [N·m].

    Args:
        friction: parameters, broadcast over worlds.
        motor: (..., joints) torque of the motor, less back-EMF [N·m].
        external: (..., joints) torque of the world on the joint, of the same sign [N·m].
        speed: (..., joints) [rad/s].
    """
    f = friction
    power = (speed / f.stribeck_speed).abs_().log_().mul_(f.stribeck_exponent)  # half of pow's time
    fading = power.exp_().neg_().exp_()
    moving = torch.addcmul(f.load_motor * motor, f.load_external, external, value=-1).abs_()
    resting = torch.addcmul(
        f.load_motor_stribeck * motor, f.load_external_stribeck, external, value=-1
    ).abs_()
    return moving.add_(f.base).addcmul_(fading, resting.add_(f.stribeck))


class LoadFriction:
    """Writes `dof_frictionloss` between physics steps.

    A world's own friction loss, over the nominal one, scales all of the friction.

    Args:
        simulation: the worlds.
        servos: by joint.
    """

    def __init__(self, simulation: Simulation, servos: Mapping[str, ServoPhysics]):
        model, like = simulation.model, simulation.data("qvel")
        self._dofs = places([int(model.joint(name).dofadr[0]) for name in servos], like.device)
        self._actuators = places(drives_of(model, servos), like.device)
        friction = [servo.friction for servo in servos.values()]
        self._table = FrictionTable(
            *(table([getattr(f, name) for f in friction], like) for name in FrictionTable._fields)
        )
        self._at_rest = table([f.at_rest for f in friction], like)
        self._back_emf = table([servo.back_emf_damping for servo in servos.values()], like)
        self._speed, self._force = like, simulation.data("actuator_force")
        self._bias = simulation.data("qfrc_bias")
        self._constraint = simulation.data("qfrc_constraint")
        self._loss = simulation.field("dof_frictionloss")
        self._own = self._loss[:, self._dofs].clone()
        self._scale = torch.ones_like(self._own)
        self.limit = self._own.clone()
        """(num_envs, joints) what the last physics step had."""

    def begin(self) -> None:
        """Note what the worlds' own friction is."""
        self._own.copy_(self._loss[:, self._dofs])
        torch.div(self._own, self._at_rest, out=self._scale)

    def write(self) -> None:
        """Set the friction of the next physics step."""
        speed = self._speed[:, self._dofs]
        motor = torch.addcmul(self._force[:, self._actuators], self._back_emf, speed, value=-1)
        constraint = self._constraint[:, self._dofs]
        friction = constraint.clamp(-self.limit, self.limit)
        external = (constraint - friction).sub_(self._bias[:, self._dofs])
        limit = friction_limit(self._table, motor, external, speed)
        torch.mul(limit, self._scale, out=self.limit)
        self._loss[:, self._dofs] = self.limit

    def end(self) -> None:
        """Give the worlds their own friction back."""
        self._loss[:, self._dofs] = self._own
