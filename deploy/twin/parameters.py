"""How one simulated robot differs from the nominal model: our stand-in for the reality gap.

    draw(3, model_path)              # one particular robot
    draw(None, model_path)           # the nominal one
    draw(3, model_path).to_dict()    # what was drawn, for a log

Ranges are where a carefully built desk robot with such servos is expected, whatever a policy has
been trained on; each says why. Values are drawn uniformly, one per body or joint, independently.
Servo identifications are those of Rhoban BAM (github.com/Rhoban/bam, params/).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mujoco
import numpy as np

Range = tuple[float, float]

MASS_SCALE: Range = (0.85, 1.15)
"""Printing infill, screws, cables."""
FRICTION_SCALE: Range = (0.3, 1.3)
"""Coulomb friction over what is identified where nothing else rubs (m1). Friction at rest and under
load comes on top here, and where BAM lets it (m3 to m6) its fits leave 0.4 to 0.9 of an XL330's,
0.7 of an MX-64's, all of an STS3215's. It differs most from one gearbox to the next, and with its
temperature: m1 itself was fitted as 0.013 to 0.019 N·m."""
DAMPING_SCALE: Range = (0.75, 1.2)
"""Back-EMF of the motor."""
STRENGTH_SCALE: Range = (0.75, 1.05)
"""Stall torque of the motor at its nominal voltage: copper 60 K warmer has a quarter more
resistance, and BAM's fits of one XL330 differ by a fifth."""
ARMATURE_SCALE: Range = (0.8, 1.4)
"""Rotor inertia seen at the joint; two of BAM's fits of one XL330 differ by 1.42."""
ZERO_ERROR_RAD: Range = (-0.01, 0.01)
"""Between a joint's true angle and what its encoder means by it: horn and link are brought to zero
with a square or a printed jig, which is good to about 1 mm over a link of 100 mm."""
BACKLASH_RAD: Range = (0.002, 0.009)
"""Play between motor and horn, from end to end: ROBOTIS states 0.25° (0.0044 rad) for the XM430;
cheaper gears, and wear, have up to twice that."""
STRIBECK_SCALE: Range = (0.0, 1.0)
"""Additional friction at rest, over Coulomb friction: from none to twice as hard to start as to
keep moving (BAM's m6 of the XL330: 0.0047 N·m of each). All of it together, an XL330 without a load
starts at 8 to 32 mN·m of its motor, mostly 17; in BAM's thirty fits 3 to 28, mostly 14. To lift
0.2 N·m slowly costs it 27 to 90 mN·m; in the fits that have friction under load 66 to 201."""
LOAD_FRICTION: Range = (0.05, 0.27)
"""Friction per motor torque, of gears under load; 0.07 (m4) to 0.27 (m6) in BAM's fits of the
XL330. Their motors alone have 0.48 (m1, without it), 0.57 and 0.65 N·m at 5 V; what the gears leave
is 0.43 to 0.48 in all three. So the motor has the more the more its gears rub, and what is left at
stall and in free running is the data sheet's."""
TOOL_SITE = "tool"
PAYLOAD_KG: Range = (0.0, 0.05)
"""At the tool, if there is one: from nothing to an egg."""
SUPPLY_SCALE: Range = (0.95, 1.05)
"""Supply voltage over what the robot file says: tolerance of adapters and converters."""
SUPPLY_RESISTANCE_OHM: Range = (0.1, 0.5)
"""Of adapter, plugs and a daisy chain of 22 AWG cables, for all servos of one voltage together."""
COMMAND_LATENCY_S: Range = (0.0, 0.03)
"""From a goal's arrival at the servo to its use by the position controller. BAM identifies 5 ms on
another servo; ROBOTIS publishes nothing, so up to a tick and a half is possible."""
USB_LATENCY_S: Range = (0.001, 0.0035)
"""What the adapter adds to a reply: a full-speed frame to a busy hub; 4 ms is what the robot file
grants."""

IMU_TILT_RAD: Range = (-0.02, 0.02)
"""How far the inertial sensor is turned against where it should sit, about each axis: a board on
two screws."""
GYRO_BIAS_RAD_S: Range = (-0.0175, 0.0175)
"""What a gyroscope says at rest: ±1 °/s (ST, LSM6DSV16X, zero-rate level)."""
LET_GO_S: Range = (0.5, 4.0)
"""How long whoever picks up a robot holds it after it was put on its feet."""
THING_PLACE_M: Range = (-0.04, 0.04)
"""Where a thing is put down, against where its MJCF has it, forwards and sideways."""
THING_MASS_SCALE: Range = (0.7, 1.4)
"""Infill, a screw more or less."""
THING_FRICTION_SCALE: Range = (0.7, 1.4)
"""Of printed or wooden things on desks, by material, dust and wear."""
CAMERA_LATENCY_S: Range = (0.04, 0.09)
"""From the middle of the exposure to a position: 1 to 2 pictures of a USB camera, and finding the
marker."""
CAMERA_ERROR_M: Range = (-0.003, 0.003)
"""Where the camera is believed to be, along each axis; printed markers measured in with a ruler."""
CAMERA_MISSED: Range = (0.0, 0.1)
"""Share of pictures in which the marker is not found: blur, the arm before it."""
PUSH_SPEED_M_S = 0.25
"""What pushes of a robot on a floating base give it, at most, forwards and sideways."""


@dataclass(frozen=True)
class TwinParameters:
    """The physics of one simulated robot; names not listed have the nominal value."""

    seed: int | None = None
    """What it was drawn from; None for the nominal robot."""
    mass_scale: dict[str, float] = field(default_factory=dict)
    """By body; mass and inertia."""
    friction_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    damping_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    strength_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    armature_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    zero_error_rad: dict[str, float] = field(default_factory=dict)
    """By joint: what its encoder says too much; see `ZERO_ERROR_RAD`."""
    backlash_rad: dict[str, float] = field(default_factory=dict)
    """By joint: play of its gears from end to end, see `BACKLASH_RAD`."""
    stribeck_scale: float = 0.0
    """See `STRIBECK_SCALE`."""
    load_friction: float = 0.0
    """See `LOAD_FRICTION`."""
    payload_kg: float = 0.0
    """A point mass at the tool."""
    supply_scale: float = 1.0
    """Supply voltage over what the robot file says, while no current is drawn."""
    supply_resistance_ohm: float = 0.0
    """See `SUPPLY_RESISTANCE_OHM`."""
    command_latency_s: float = 0.0
    """Latency inside the servos, see `COMMAND_LATENCY_S`."""
    usb_latency_s: float = 0.001
    """What the USB adapter adds to each reply."""
    imu_tilt_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """See `IMU_TILT_RAD`; a rotation vector."""
    gyro_bias_rad_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """See `GYRO_BIAS_RAD_S`."""
    push_speed_m_s: float = 0.0
    """See `PUSH_SPEED_M_S`; 0 for no pushes."""
    thing_place_m: tuple[float, float] = (0.0, 0.0)
    """See `THING_PLACE_M`."""
    thing_mass_scale: float = 1.0
    """See `THING_MASS_SCALE`."""
    thing_friction_scale: float = 1.0
    """See `THING_FRICTION_SCALE`."""
    camera_latency_s: float = 0.06
    """See `CAMERA_LATENCY_S`."""
    camera_error_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """See `CAMERA_ERROR_M`."""
    camera_missed: float = 0.0
    """See `CAMERA_MISSED`."""
    let_go_after_s: float = 1.2
    """How long whoever picks up a robot on a floating base holds it after putting it on its feet,
    which is when its joints have come home; 0 if nobody picks it up."""

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON and tables."""
        return asdict(self)


def draw(seed: int | None, model_path: Path) -> TwinParameters:
    """One robot: the nominal one for None, else physically different within the ranges above.

    Args:
        seed: what the robot is drawn from; the same seed is the same robot.
        model_path: the robot's MJCF, for the names of its bodies and joints.
    """
    if seed is None:
        return TwinParameters()
    model = mujoco.MjModel.from_xml_path(str(model_path))
    bodies = [model.body(index).name for index in np.flatnonzero(model.body_mass)]
    joints = [model.joint(index).name for index in range(model.njnt)]
    has_tool = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, TOOL_SITE) >= 0
    floats = bool((model.jnt_type == mujoco.mjtJoint.mjJNT_FREE).any())
    rng = np.random.default_rng(seed)

    def each(names: Sequence[str], bounds: Range) -> dict[str, float]:
        return dict(zip(names, rng.uniform(*bounds, len(names)).tolist(), strict=True))

    return TwinParameters(
        seed=seed,
        mass_scale=each(bodies, MASS_SCALE),
        friction_scale=each(joints, FRICTION_SCALE),
        damping_scale=each(joints, DAMPING_SCALE),
        strength_scale=each(joints, STRENGTH_SCALE),
        armature_scale=each(joints, ARMATURE_SCALE),
        zero_error_rad=each(joints, ZERO_ERROR_RAD),
        backlash_rad=each(joints, BACKLASH_RAD),
        stribeck_scale=rng.uniform(*STRIBECK_SCALE),
        load_friction=rng.uniform(*LOAD_FRICTION),
        payload_kg=rng.uniform(*PAYLOAD_KG) * has_tool,
        supply_scale=rng.uniform(*SUPPLY_SCALE),
        supply_resistance_ohm=rng.uniform(*SUPPLY_RESISTANCE_OHM),
        command_latency_s=rng.uniform(*COMMAND_LATENCY_S),
        usb_latency_s=rng.uniform(*USB_LATENCY_S),
        imu_tilt_rad=tuple(rng.uniform(*IMU_TILT_RAD, 3).tolist()),
        gyro_bias_rad_s=tuple(rng.uniform(*GYRO_BIAS_RAD_S, 3).tolist()),
        push_speed_m_s=PUSH_SPEED_M_S * floats,
        let_go_after_s=rng.uniform(*LET_GO_S),
        thing_place_m=tuple(rng.uniform(*THING_PLACE_M, 2).tolist()),
        thing_mass_scale=rng.uniform(*THING_MASS_SCALE),
        thing_friction_scale=rng.uniform(*THING_FRICTION_SCALE),
        camera_latency_s=rng.uniform(*CAMERA_LATENCY_S),
        camera_error_m=tuple(rng.uniform(*CAMERA_ERROR_M, 3).tolist()),
        camera_missed=rng.uniform(*CAMERA_MISSED),
    )
