"""Servos in a MuJoCo model: native actuators, and what they lack between physics steps.

    spec = mujoco.MjSpec.from_file("robot.xml")
    add_servo(spec, "knee", SERVOS["XL330-M288"], p_gain=200, supply_v=7.4, load_friction=True)
    add_backlash(spec, "knee", 0.009)
    simulation = with_servos(BatchSimulation(spec.compile(), 256))    # a `Simulation` again

The numbers of the servos are in `deploy.servos.models`.
"""

from envs.servos.bridge import voltage_factor
from envs.servos.friction import friction_limit
from envs.servos.model import add_backlash, add_servo
from envs.servos.simulation import SUPPLY_RESISTANCE, ServoSimulation, with_servos

__all__ = [
    "SUPPLY_RESISTANCE",
    "ServoSimulation",
    "add_backlash",
    "add_servo",
    "friction_limit",
    "voltage_factor",
    "with_servos",
]
