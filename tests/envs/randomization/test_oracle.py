"""Randomized worlds against plain MuJoCo, with the same numbers written into `MjModel` by hand.

Nothing of ours is in the oracle: it is `mj_step1` and `mj_step2` on a model compiled from the same
MJCF, `mj_setConst` where MuJoCo's manual asks for it, and assignments to the model's own arrays.
"""

import math
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.simulation import State
from envs.worlds import every as every_world

CPU = torch.device("cpu")
DT = 0.002
STEPS = 50

# An arm with every kind of quantity, and a ball that lies on the floor; most geoms have no name.
XML = f"""
<mujoco>
  <option timestep="{DT}" density="1.2" viscosity="1e-5" wind="1 0 0"/>
  <default><position forcerange="-2 2" ctrlrange="-2 2" nsample="20" delay="0.01" interp="linear"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 0.1" friction="0.1 0.001 0.0001"/>
    <body name="upper" pos="0 0 0.8" simple="false">
      <joint name="shoulder" axis="0 1 0" damping="0.1" armature="0.01" frictionloss="0.02"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="1"/>
      <geom size="0.04" pos="0.1 0 0" mass="0.2"/>
      <body name="lower" pos="0.3 0 0" quat="0.8 0.6 0 0" simple="false">
        <joint name="elbow" axis="0 1 0" damping="0.05" armature="0.01" stiffness="1"
               springref="0.2" range="-0.1 0.1" limited="true" frictionloss="0.01"/>
        <geom type="box" size="0.1 0.02 0.03" pos="0.1 0 0" mass="0.5"/>
        <site name="tip" pos="0.2 0 0"/>
      </body>
    </body>
    <body name="ball" pos="0.5 0 0.05" simple="false">
      <freejoint/>
      <geom type="box" size="0.05 0.04 0.05" mass="0.3" friction="0.8 0.005 0.001" condim="6"/>
    </body>
  </worldbody>
  <tendon>
    <fixed name="string" stiffness="2" damping="0.1" springlength="0.1">
      <joint joint="shoulder" coef="1"/><joint joint="elbow" coef="-0.5"/>
    </fixed>
  </tendon>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="30" kv="1" damping="0.2"/>
    <position name="elbow" joint="elbow" kp="20" kv="0.5"/>
  </actuator>
  <sensor>
    <jointpos name="shoulder_position" joint="shoulder" nsample="20" interp="linear"/>
    <jointvel name="elbow_velocity" joint="elbow" nsample="20" interp="linear"/>
    <framepos name="tip" objtype="site" objname="tip"/>
  </sensor>
</mujoco>
"""
UPPER, LOWER, BALL = 1, 2, 3  # bodies
BALL_GEOM, UPPER_GEOMS = 4, (1, 2)
Write = Callable[[mujoco.MjModel], None]


def scale(name: str, row: Any, factor: float) -> Write:
    """A line of `MjModel` arithmetic: nominal times factor."""

    def write(m: mujoco.MjModel) -> None:
        getattr(m, name)[row] *= factor

    return write


def add(name: str, row: Any, offset: float) -> Write:
    def write(m: mujoco.MjModel) -> None:
        getattr(m, name)[row] += offset

    return write


def put(name: str, row: Any, value: float) -> Write:
    def write(m: mujoco.MjModel) -> None:
        getattr(m, name)[row] = value

    return write


def option(name: str, value: Any) -> Write:
    return lambda m: setattr(m.opt, name, value)


def every(*writes: Write) -> Write:
    def write(m: mujoco.MjModel) -> None:
        for part in writes:
            part(m)

    return write


def t(field: str, operation: str, low: float, high: float | None = None, **more: Any) -> dict:
    return {"field": field, "operation": operation, "range": (low, high or low), **more}


CASES: dict[str, tuple[list[dict], Write]] = {
    "one element": ([t("dof_damping", "scale", 1.7, match="elbow")], scale("dof_damping", 1, 1.7)),
    "list of names": (
        [t("dof_frictionloss", "add", 0.05, match=["shoulder", "elbow"])],
        add("dof_frictionloss", slice(0, 2), 0.05),
    ),
    "free joint's dofs": (
        [t("dof_damping", "set", 0.3, body="ball")], put("dof_damping", slice(2, 8), 0.3)
    ),
    "column of a body's geoms": (
        [t("geom_friction", "set", 0.35, body="ball", columns="slide")],
        put("geom_friction", (BALL_GEOM, 0), 0.35),
    ),
    "columns by number": (
        [t("geom_friction", "scale", 1.5, body="ball", columns=[1, 2])],
        scale("geom_friction", (BALL_GEOM, slice(1, 3)), 1.5),
    ),
    "all columns of a record": (
        [t("geom_friction", "scale", 1.5, body="ball", columns="all")],
        scale("geom_friction", BALL_GEOM, 1.5),
    ),
    "solref": (
        [t("geom_solref", "scale", 1.4, body="ball", columns="timeconst")],
        scale("geom_solref", (BALL_GEOM, 0), 1.4),
    ),
    "solimp": (
        [t("geom_solimp", "set", 0.5, body="ball", columns="dmin")],
        put("geom_solimp", (BALL_GEOM, 0), 0.5),
    ),
    "size": (
        [t("geom_size", "add", 0.004, body="ball", columns=[0, 1, 2])],
        add("geom_size", BALL_GEOM, 0.004),
    ),
    "mass": (
        [t("mass", "scale", 1.3)],
        every(scale("body_mass", slice(None), 1.3), scale("body_inertia", slice(None), 1.3)),
    ),
    "added mass": (
        [t("mass", "add", 0.25, match="lower")],
        every(add("body_mass", LOWER, 0.25), scale("body_inertia", LOWER, 1.5)),
    ),
    "inertia": (
        [t("body_inertia", "scale", 1.2, match="ball", shared="columns")],
        scale("body_inertia", BALL, 1.2),
    ),
    "centre of mass": (
        [t("body_ipos", "add", 0.01, match="ball", columns="y")], add("body_ipos", (BALL, 1), 0.01)
    ),
    "whole vector": ([t("body_pos", "add", 0.02, match="lower")], add("body_pos", LOWER, 0.02)),
    "site": ([t("site_pos", "add", 0.02, match="tip")], add("site_pos", 0, 0.02)),
    "kp": (
        [t("kp", "scale", 0.75)],
        every(scale("actuator_gainprm", (slice(None), 0), 0.75),
              scale("actuator_biasprm", (slice(None), 1), 0.75)),
    ),
    "kd": ([t("kd", "add", 0.5)], add("actuator_biasprm", (slice(None), 2), -0.5)),
    "raw gain": (
        [t("actuator_gainprm", "scale", 1.1, columns=0, match="elbow"),
         t("actuator_biasprm", "scale", 1.1, columns=1, match="elbow")],
        every(scale("actuator_gainprm", (1, 0), 1.1), scale("actuator_biasprm", (1, 1), 1.1)),
    ),
    "scaled range": (
        [t("actuator_forcerange", "scale", 0.25)], scale("actuator_forcerange", slice(None), 0.25)
    ),
    "shifted range": (
        [t("jnt_range", "add", 0.08, match="elbow")], add("jnt_range", 1, 0.08)
    ),
    "end of a range": (
        [t("jnt_range", "set", 0.02, match="elbow", columns="high")], put("jnt_range", (1, 1), 0.02)
    ),
    "servo damping": ([t("actuator_damping", "scale", 2.5)], scale("actuator_damping", 0, 2.5)),
    "gear": (
        [t("actuator_gear", "scale", 1.1, columns="x")],
        scale("actuator_gear", (slice(None), 0), 1.1),
    ),
    "armature": ([t("dof_armature", "scale", 2.0)], scale("dof_armature", slice(None), 2.0)),
    "spring": ([t("jnt_stiffness", "scale", 3.0)], scale("jnt_stiffness", 1, 3.0)),
    "spring's rest": ([t("qpos_spring", "add", 0.3, match="elbow")], add("qpos_spring", 1, 0.3)),
    "zero of a joint": ([t("qpos0", "add", 0.1, match="shoulder")], add("qpos0", 0, 0.1)),
    "tendon": ([t("tendon_stiffness", "scale", 1.5)], scale("tendon_stiffness", 0, 1.5)),
    "option of one number": ([t("opt.density", "set", 50.0)], option("density", 50.0)),
    "column of an option": (
        [t("opt.gravity", "add", 0.5, columns="z")], option("gravity", [0, 0, -9.81 + 0.5])
    ),
    "option of three numbers": ([t("opt.wind", "add", 0.7)], option("wind", [1.7, 0.7, 0.7])),
    "delay": ([t("actuator_delay", "set", 0.0127)], put("actuator_delay", slice(None), 0.0127)),
    "sensor delay": (
        [t("sensor_delay", "set", 0.0111, match="*_*")], put("sensor_delay", slice(0, 2), 0.0111)
    ),
    "friction": (
        [t("friction", "scale", 1.5, body="ball")], scale("geom_friction", BALL_GEOM, 1.5)
    ),
    "joint zero": (
        [t("joint_zero", "add", 0.05, match="elbow")],
        every(add("qpos0", 1, 0.05), add("qpos_spring", 1, 0.05), add("jnt_range", 1, 0.05)),
    ),
    "fields together": (
        [{"fields": ["kp", "actuator_forcerange"], "range": (0.1, 0.1)}],
        every(scale("actuator_gainprm", (slice(None), 0), 0.1),
              scale("actuator_biasprm", (slice(None), 1), 0.1),
              scale("actuator_forcerange", slice(None), 0.1)),
    ),
    "supply": (
        [{"supply": "*", "range": (0.3, 0.3)}],
        every(scale("actuator_gainprm", (slice(None), 0), 0.3),
              scale("actuator_biasprm", (slice(None), slice(1, 3)), 0.3),
              scale("actuator_forcerange", slice(None), 0.3)),
    ),
    "order of terms": (
        [t("dof_damping", "add", 0.5, match="elbow"),
         t("dof_damping", "scale", 3.0, match="elbow")],
        every(add("dof_damping", 1, 0.5), scale("dof_damping", 1, 3.0)),
    ),
    "drawn at startup": (
        [t("dof_damping", "scale", 1.7, match="elbow", when="startup")],
        scale("dof_damping", 1, 1.7),
    ),
}  # fmt: skip

INERTIAL = ["body_mass", "body_ipos", "body_inertia", "body_iquat"]
FIELDS = {  # that a term changes, if it is not the one that it names
    "mass": ["body_mass", "body_inertia"],
    "kp": ["actuator_gainprm", "actuator_biasprm"],
    "friction": ["geom_friction"],
    "joint_zero": ["qpos0", "qpos_spring", "jnt_range"],
    "fields": ["dof_damping", "dof_frictionloss"],
    "supply": ["actuator_gainprm", "actuator_biasprm", "actuator_forcerange"],
    "inertia": INERTIAL,
    "payload": INERTIAL,
}
RANDOM: dict[str, list[dict]] = {
    "pseudo-inertia": [{"inertia": "pseudo", "match": ["upper", "lower", "ball"],
                        "range": (-0.3, 0.3)}],
    "payload": [{"payload": "lower", "at": (0.1, 0.02, -0.03), "range": (0.0, 1.0)}],
    "inertial terms together": [
        {"payload": "lower", "at": (0.1, 0.02, -0.03), "range": (0.0, 1.0)},
        t("mass", "scale", 0.7, 1.4),
        {"inertia": "pseudo", "match": "lower", "columns": "shift", "range": (-0.3, 0.3)},
    ],
    "supply": [{"supply": "*", "range": (0.1, 1.1)}],
    "fields together": [{"fields": ["dof_damping", "dof_frictionloss"], "match": "[se]*",
                         "range": (0.1, 3.0)}],
    "coupled": [t("friction", "scale", 0.5, 2.0, body=["ball", "world"]),
                t("joint_zero", "add", -0.1, 0.1)],
    "each number": [t("body_ipos", "add", -0.01, 0.01), t("mass", "scale", 0.7, 1.4)],
    "shared by rows": [t("body_pos", "add", -0.01, 0.01, shared="rows", match=["upper", "lower"])],
    "shared by columns": [t("body_inertia", "scale", 0.7, 1.4, shared="columns")],
    "shared by all": [t("dof_damping", "scale", 0.5, 2.0, shared=True)],
    "orientation": [t("body_quat", "rotate", 0.0, 0.3), t("body_iquat", "rotate", 0.0, 0.3)],
    "tilted vector": [t("opt.gravity", "rotate", 0.0, 0.2), t("jnt_axis", "rotate", 0.0, 0.2)],
    "ranges": [t("jnt_range", "scale", 0.2, 1.5, match="elbow"),
               t("actuator_forcerange", "scale", 0.1, 1.0)],
    "delays": [t("actuator_delay", "set", DT, 0.03),
               t("sensor_delay", "set", DT, 0.03, match="*_*")],
    "normal": [t("kp", "scale", 1.0, 0.1, distribution="normal")],
    "log_uniform": [t("opt.density", "scale", 0.1, 100.0, distribution="log_uniform")],
}  # fmt: skip


def start(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    qpos = np.array([0.3, 0.02, 0.5, 0, 0.06, 1, 0, 0, 0])
    return qpos, np.array([1.0, 2.0, 0.5, -0.3, 0.0, 1.0, 2.0, 3.0])


def controls() -> np.ndarray:
    generator = np.random.default_rng(1)
    return generator.uniform(-1.5, 1.5, (STEPS, 2))


def ours(worlds: BatchSimulation) -> list[np.ndarray]:
    """(worlds, numbers) of state and sensors before each step."""
    n = worlds.num_envs
    qpos, qvel = (torch.from_numpy(v).expand(n, -1) for v in start(worlds.model))
    worlds.reset(every_world(n), State(qpos, qvel, torch.zeros(n, 2, dtype=torch.float64)))
    rows = []
    for ctrl in controls():
        rows.append(
            torch.cat([worlds.data(k) for k in ("qpos", "qvel", "sensordata")], dim=1)
            .numpy()
            .copy()
        )
        worlds.data("ctrl")[:] = torch.from_numpy(ctrl)
        worlds.step(1)
    return rows


def plain(model: mujoco.MjModel) -> list[np.ndarray]:
    """The same by MuJoCo alone."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start(model)
    for actuator in range(model.nu):  # as if control 0 had lasted for ever
        mujoco.mj_initCtrlHistory(model, data, actuator, None, np.zeros(20))
    undelayed = mujoco.MjModel.from_xml_string(XML)
    undelayed.qpos0[:], undelayed.body_pos[:] = model.qpos0, model.body_pos
    now = mujoco.MjData(undelayed)
    now.qpos[:], now.qvel[:] = start(model)
    mujoco.mj_forward(undelayed, now)
    for sensor in (0, 1):  # and as if the arm had always been there
        mujoco.mj_initSensorHistory(
            model, data, sensor, None, np.full(20, now.sensordata[sensor]), 0.0
        )
    rows = []
    for ctrl in controls():
        mujoco.mj_step1(model, data)
        rows.append(np.concatenate([data.qpos, data.qvel, data.sensordata]))
        data.ctrl[:] = ctrl
        mujoco.mj_step2(model, data)
    return rows


def randomization(worlds: BatchSimulation, terms: list[dict]) -> Randomization:
    return Randomization(
        read_terms(terms, source="terms"), worlds, Draws(0, CPU), signals={}, control_dt_s=DT
    )


def randomize(terms: list[dict], num_envs: int = 2, episode: int = 1) -> BatchSimulation:
    model = mujoco.MjModel.from_xml_string(XML)
    worlds = BatchSimulation(model, num_envs, num_threads=1)
    chosen = every_world(num_envs)
    randomization(worlds, terms).begin(chosen, torch.full_like(chosen.ids, episode))
    return worlds


@pytest.mark.parametrize("case", CASES)
def test_term_does_to_the_motion_what_plain_mujoco_does_with_its_numbers(case: str):
    terms, write = CASES[case]
    model = mujoco.MjModel.from_xml_string(XML)
    untouched = plain(model)
    write(model)
    mujoco.mj_setConst(model, mujoco.MjData(model))

    expected = plain(model)
    found = ours(randomize(terms))

    for step, (row, oracle) in enumerate(zip(found, expected, strict=True)):
        assert np.array_equal(row[0], oracle), step
        assert np.array_equal(row[1], oracle), step
    assert not all(np.array_equal(a, b) for a, b in zip(expected, untouched, strict=True))


@pytest.mark.parametrize("case", RANDOM)
def test_drawn_numbers_do_to_the_motion_what_they_do_in_plain_mujoco(case: str):
    worlds = randomize(RANDOM[case])
    expected = []
    for world in range(2):
        model = mujoco.MjModel.from_xml_string(XML)
        for term in RANDOM[case]:
            target = term.get("field", next(iter(term)))
            for name in FIELDS.get(target, [target]):
                values = worlds.field(name)[world].numpy()
                if name.startswith("opt."):
                    setattr(model.opt, name[4:], values)
                else:
                    getattr(model, name)[:] = values
        mujoco.mj_setConst(model, mujoco.MjData(model))
        expected.append(plain(model))

    found = ours(worlds)

    for step in range(STEPS):
        for world in range(2):
            assert np.array_equal(found[step][world], expected[world][step]), (step, world)
    assert not np.array_equal(found[-1][0], found[-1][1])


def test_delay_is_exact_within_a_physics_step():
    # A motor of 1 N·m on a free rotor of 1 kg·m²: its speed is the time since the torque arrived.
    rotor = """
    <mujoco><option timestep="0.005" gravity="0 0 0" integrator="Euler"/>
      <worldbody><body name="rotor"><joint name="rotor" axis="0 0 1"/>
        <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body></worldbody>
      <actuator>
        <motor name="rotor" joint="rotor" nsample="10" interp="linear" delay="0.01"/>
      </actuator>
    </mujoco>"""
    worlds = BatchSimulation(mujoco.MjModel.from_xml_string(rotor), 64, num_threads=1)
    chosen = every_world(64)
    terms = [t("actuator_delay", "set", 0.005, 0.05)]
    randomization(worlds, terms).begin(chosen, chosen.ids)
    zero = torch.zeros(64, 1, dtype=torch.float64)
    worlds.reset(chosen, State(zero, zero, zero))
    worlds.data("ctrl")[:] = 1.0

    worlds.step(40)  # 0.2 s

    delay = worlds.field("actuator_delay")[:, 0]
    assert len(delay.unique()) == 64
    torch.testing.assert_close(worlds.data("qvel")[:, 0], 0.2 - delay, atol=1e-12, rtol=0)


def test_environment_moves_and_measures_as_plain_mujoco_does_with_its_numbers():
    terms = [
        t("mass", "scale", 0.8, 1.25),
        t("kp", "scale", 0.8, 1.2),
        t("dof_frictionloss", "scale", 0.5, 2.0),
        t("actuator_delay", "set", 0.005, 0.03),
        {"signal": "joint_position", "operation": "add", "range": (0.03, 0.03)},
        {"signal": "joint_velocity", "operation": "scale", "range": (1.5, 1.5), "when": "step"},
    ]
    env = envs.make("arm_reach", num_envs=2, num_threads=1, randomization=terms)
    env.reset()
    world = env._simulation
    names = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    plain_worlds = []
    for index in range(2):
        model = mujoco.MjModel.from_xml_path(str(env.deployment.robot.path))
        for name in ("body_mass", "body_inertia", "actuator_gainprm", "actuator_biasprm",
                     "dof_frictionloss", "actuator_delay"):  # fmt: skip
            getattr(model, name)[:] = world.field(name)[index].numpy()
        mujoco.mj_setConst(model, mujoco.MjData(model))
        data = mujoco.MjData(model)
        data.qpos[:] = world.data("qpos")[index].numpy()
        for actuator in range(model.nu):
            mujoco.mj_initCtrlHistory(model, data, actuator, None, np.full(10, data.qpos[actuator]))
        mujoco.mj_step1(model, data)
        plain_worlds.append((model, data))

    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        env.step(2 * torch.rand(2, 5, generator=generator) - 1)
        for index, (model, data) in enumerate(plain_worlds):
            for place, name in enumerate(names):
                data.actuator(name).ctrl = env.signals["joint_target"][index, place].item()
            for _ in range(4):
                mujoco.mj_step2(model, data)
                mujoco.mj_step1(model, data)
            angles = np.array([data.sensor(f"{n}_position").data[0] for n in names], np.float32)
            speeds = np.array([data.sensor(f"{n}_velocity").data[0] for n in names], np.float32)
            assert np.array_equal(world.data("qpos")[index].numpy(), data.qpos)
            assert np.array_equal(
                env.signals["joint_position"][index].numpy(), angles + np.float32(0.03)
            )
            assert np.array_equal(
                env.signals["joint_velocity"][index].numpy(), speeds * np.float32(1.5)
            )


# --- the draws themselves -----------------------------------------------------------------------


def draws(terms: list[dict], names: list[str], num_envs: int = 500, episodes: int = 4) -> Tensor:
    """(num_envs * episodes, numbers): every number of the fields, of every episode."""
    model = mujoco.MjModel.from_xml_string(XML)
    worlds = BatchSimulation(model, num_envs, num_threads=1)
    at_work, chosen, rows = randomization(worlds, terms), every_world(num_envs), []
    for episode in range(episodes):
        at_work.begin(chosen, torch.full_like(chosen.ids, episode))
        rows.append(torch.cat([worlds.field(name).reshape(num_envs, -1) for name in names], dim=1))
    return torch.cat(rows)


def test_all_numbers_of_all_terms_worlds_and_episodes_are_independent():
    # Fields that do not influence each other, so that every number shows one draw.
    terms = [
        t("body_pos", "add", -0.1, 0.1, match=["upper", "lower", "ball"]),
        t("body_ipos", "add", -0.01, 0.01, match=["upper", "lower", "ball"]),
        t("geom_friction", "scale", 0.5, 2.0, columns="all", body="ball"),
        t("dof_damping", "set", 0.1, 1.0),
        t("body_mass", "scale", 0.5, 2.0, match="upper"),
        t("opt.gravity", "add", -1.0, 1.0),
        t("opt.wind", "add", -1.0, 1.0),
        t("kp", "scale", 0.5, 2.0),
    ]
    names = [
        *("body_pos", "body_ipos", "geom_friction", "dof_damping", "body_mass", "opt.gravity"),
        *("opt.wind", "actuator_gainprm"),
    ]
    numbers = draws(terms, names)
    numbers = numbers[:, numbers.std(dim=0) > 0]
    assert numbers.shape == (2000, 9 + 9 + 3 + 8 + 1 + 3 + 3 + 2)

    shifted = torch.cat([numbers, numbers.roll(1, 0), numbers.roll(500, 0)], dim=1)
    correlation = torch.corrcoef(shifted.T)[:38]  # with the neighbour, and the episode before
    strongest = (correlation - torch.eye(38, 3 * 38)).abs().max().item()
    assert strongest < 5.5 / math.sqrt(2000)  # 4332 pairs of 0 ± 1/√2000
    for column in numbers.T:
        assert len(column.unique()) > 1990
    moves = numbers[:, :3] - torch.tensor([0, 0, 0.8])
    assert (moves[:, 0] - moves[:, 1]).abs().min() > 0  # no diagonal


def kolmogorov_smirnov(values: Tensor, cumulative: Callable[[float], float]) -> float:
    """√n times the largest distance of the empirical from the given distribution function."""
    ordered = sorted(values.tolist())
    n = len(ordered)
    distance = max(
        max(abs(cumulative(v) - i / n), abs(cumulative(v) - (i + 1) / n))
        for i, v in enumerate(ordered)
    )
    return math.sqrt(n) * distance


@pytest.mark.parametrize(
    ("law", "range_", "cumulative", "mean", "variance"),
    [
        ("uniform", (0.5, 2.0), lambda x: (x - 0.5) / 1.5, 1.25, 1.5**2 / 12),
        (
            "log_uniform", (0.5, 2.0), lambda x: math.log(x / 0.5) / math.log(4),
            1.5 / math.log(4), (4 - 0.25) / 2 / math.log(4) - (1.5 / math.log(4)) ** 2,
        ),
        (
            "normal", (1.0, 0.1), lambda x: (1 + math.erf((x - 1) / 0.1 / math.sqrt(2))) / 2,
            1.0, 0.01,
        ),
    ],
)  # fmt: skip
def test_draws_follow_their_law(
    law: str,
    range_: tuple[float, float],
    cumulative: Callable[[float], float],
    mean: float,
    variance: float,
):
    term = t("dof_damping", "scale", *range_, distribution=law, match="shoulder")
    factors = draws([term], ["dof_damping"])[:, 0] / 0.1

    # The law of the statistic: P(KS > 1.95) = 0.001 (Kolmogorov 1933).
    assert kolmogorov_smirnov(factors, cumulative) < 1.95
    assert factors.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / 2000))
    assert factors.var().item() == pytest.approx(variance, rel=0.15)


def turns(drawn: Tensor, nominal: np.ndarray) -> np.ndarray:
    """(n, 3) rotation vectors from nominal to drawn orientations, by MuJoCo's own algebra."""
    back, relative, found = np.zeros(4), np.zeros(4), []
    mujoco.mju_negQuat(back, nominal)
    for quaternion in drawn.numpy():
        mujoco.mju_mulQuat(relative, back, quaternion)
        vector = np.zeros(3)
        mujoco.mju_quat2Vel(vector, relative, 1.0)
        found.append(vector)
    return np.array(found)


def test_orientation_turns_by_an_angle_of_its_law_about_an_axis_of_any_direction():
    term = t("body_quat", "rotate", 0.1, 0.4, match="lower")
    quaternions = draws([term], ["body_quat"]).reshape(-1, 4, 4)[:, LOWER]
    vectors = turns(quaternions, np.array([0.8, 0.6, 0, 0]))
    angles = np.linalg.norm(vectors, axis=1)
    axes = vectors / angles[:, None]

    assert (quaternions.norm(dim=1) - 1).abs().max() < 1e-12
    assert kolmogorov_smirnov(torch.from_numpy(angles), lambda x: (x - 0.1) / 0.3) < 1.95
    for column in axes.T:  # each coordinate of a uniform direction is uniform (Archimedes)
        assert kolmogorov_smirnov(torch.from_numpy(column), lambda x: (x + 1) / 2) < 1.95
    assert np.abs(np.corrcoef(axes.T) - np.eye(3)).max() < 4.5 / math.sqrt(2000)
    assert abs(np.corrcoef(angles, axes[:, 2])[0, 1]) < 4.5 / math.sqrt(2000)


def test_vector_tilts_by_an_angle_of_its_law_to_any_side_and_keeps_its_length():
    gravity = draws([t("opt.gravity", "rotate", 0.0, 0.2)], ["opt.gravity"])
    angles = torch.acos(-gravity[:, 2] / 9.81)
    sides = torch.atan2(gravity[:, 1], gravity[:, 0])

    torch.testing.assert_close(gravity.norm(dim=1), torch.full((2000,), 9.81, dtype=torch.float64))
    assert kolmogorov_smirnov(angles, lambda x: x / 0.2) < 1.95
    assert kolmogorov_smirnov(sides, lambda x: (x + math.pi) / (2 * math.pi)) < 1.95
