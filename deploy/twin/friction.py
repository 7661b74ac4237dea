"""Friction of a servo's gears under load, where the MJCF says which servo drives a joint.

What a joint's friction may be at most is `Friction` of `deploy.servos.physics`; MuJoCo applies as
much of it as stops the joint. The motor's torque is that of the coming step; what the world does to
the joint is what MuJoCo computed in the last one: gravity, Coriolis and constraint forces, of which
each joint's own friction is known by its row.
"""

from collections.abc import Mapping

import mujoco
import numpy as np
from numpy.typing import NDArray

from deploy.errors import ConfigError
from deploy.servos.physics import Friction, ServoPhysics

Floats = NDArray[np.float64]


def friction_limit(friction: Friction, motor: float, external: float, speed: float) -> float:
    """Torque up to which friction resists, viscous friction apart [N·m].

    Args:
        friction: of the servo.
        motor: torque of the motor, less back-EMF [N·m].
        external: torque of the world on the joint, of the same sign [N·m].
        speed: [rad/s].
    """
    at_rest = abs(friction.load_motor_stribeck * motor - friction.load_external_stribeck * external)
    moving = abs(friction.load_motor * motor - friction.load_external * external)
    fading = friction.fading(speed)
    return friction.base + moving + fading * (friction.stribeck + at_rest)


def check_servos(servos: dict[str, ServoPhysics], wired: dict[str, str]) -> None:
    """Check that the servos of a model are those of a robot file, by joint.

    Raises:
        ConfigError: another one is wired.
    """
    for joint in servos.keys() & wired.keys():
        if servos[joint].name != wired[joint]:
            raise ConfigError(
                f"joint {joint!r}: the model has {servos[joint].name} there, the robot file "
                f"{wired[joint]}; correct `model` in the robot file, or train with this servo"
            )


class LoadFriction:
    """Sets the friction of some joints of a model before each step.

    Args:
        model: the model; its friction loss over a servo's own scales all of that servo's friction.
        frictions: of servos, by the dof of their joint.
    """

    def __init__(self, model: mujoco.MjModel, frictions: Mapping[int, Friction]):
        self._model = model
        self._joints = [
            (dof, friction, float(model.dof_frictionloss[dof]) / friction.at_rest)
            for dof, friction in frictions.items()
        ]

    def update(self, data: mujoco.MjData, motor: dict[int, float]) -> None:
        """Set the friction of the coming step.

        Args:
            data: after the last step.
            motor: torque of the motors in the coming one, by dof [N·m].
        """
        rubbing = self._friction(data)
        for dof, friction, scale in self._joints:
            external = data.qfrc_constraint[dof] - rubbing[dof] - data.qfrc_bias[dof]
            limit = friction_limit(friction, motor[dof], external, data.qvel[dof])
            self._model.dof_frictionloss[dof] = scale * limit

    def _friction(self, data: mujoco.MjData) -> Floats:
        """(nv,) the friction that acted in the last step."""
        forces = np.zeros(self._model.nv)
        rows = data.efc_type == int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF)
        forces[data.efc_id[rows]] = data.efc_force[rows]
        return forces
