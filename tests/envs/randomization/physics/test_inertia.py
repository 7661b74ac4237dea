"""Inertial terms against 4 x 4 pseudo-inertias in numpy, and against MuJoCo's own compiler."""

import math
import re

import mujoco
import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.randomization.physics.inertia import Inertia, deform, load
from envs.rotation import diagonalise, to_matrix
from envs.worlds import every

GENERATOR = torch.Generator().manual_seed(0)
XML = """
<mujoco>
  <worldbody>
    <body name="arm" pos="0 0 1" simple="false">
      <joint name="arm" axis="0 1 0"/>
      <inertial pos="0.1 -0.05 0.02" mass="2" fullinertia="0.03 0.02 0.04 0.004 -0.003 0.002"/>
      <geom size="0.01" mass="0"/>
      {extra}
    </body>
  </worldbody>
</mujoco>
"""


def random(*shape: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    return low + (high - low) * torch.rand(*shape, generator=GENERATOR, dtype=torch.float64)


def pseudo(mass: float, com: np.ndarray, moments: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """J of Wensing, Kim & Slotine (2018), about the body frame: [[S, m c], [m c', m]]."""
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, axes)
    rotation = rotation.reshape(3, 3)
    about_com = rotation @ np.diag(moments) @ rotation.T
    about_frame = about_com + mass * (com @ com * np.eye(3) - np.outer(com, com))
    second = np.trace(about_frame) / 2 * np.eye(3) - about_frame
    return np.block([[second, mass * com[:, None]], [mass * com[None], np.array([[mass]])]])


def pseudo_of(body: Inertia, row: int = 0) -> np.ndarray:
    return pseudo(float(body.mass[row]), *(part[row].numpy() for part in body[1:]))


def some_body(bodies: int) -> Inertia:
    """Bodies of random shape and orientation."""
    second = random(bodies, 3, low=0.001, high=0.02)  # ∫ x² dm, y², z²
    axes = torch.randn(bodies, 4, generator=GENERATOR, dtype=torch.float64)
    return Inertia(
        random(bodies, low=0.1, high=3),
        random(bodies, 3),
        second.sum(dim=1, keepdim=True) - second,
        axes / axes.norm(dim=1, keepdim=True),
    )


def test_axes_are_those_of_numpy():
    matrix = random(200, 3, 3)
    matrix = matrix + matrix.mT

    values, turn = diagonalise(matrix)

    rotation = to_matrix(turn)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(matrix), atol=1e-13)
    torch.testing.assert_close(rotation @ torch.diag_embed(values) @ rotation.mT, matrix)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(200).double())


def test_diagonal_matrix_keeps_its_axes_in_their_order():
    values, turn = diagonalise(torch.diag(torch.tensor([2.0, 5.0, 1.0], dtype=torch.float64)))

    assert values.tolist() == [2, 5, 1]
    assert turn.tolist() == [1, 0, 0, 0]


def test_parameters_are_the_log_cholesky_ones_relative_to_the_body():
    bodies, parameters = some_body(50), random(50, 10, low=-0.5, high=0.5)

    found = deform(bodies, parameters)

    for row in range(50):
        m, x, y, z, xy, yz, xz, tx, ty, tz = parameters[row].numpy()
        upper = math.exp(m) * np.array(
            [[math.exp(x), xy, xz, tx], [0, math.exp(y), yz, ty], [0, 0, math.exp(z), tz],
             [0, 0, 0, 1]]
        )  # fmt: skip
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, bodies.axes[row].numpy())
        frame = np.eye(4)  # from the body's principal axes to its frame
        frame[:3, :3], frame[:3, 3] = rotation.reshape(3, 3), bodies.com[row].numpy()
        about_com = np.linalg.inv(frame) @ pseudo_of(bodies, row) @ np.linalg.inv(frame).T
        root = frame @ np.sqrt(np.diag(np.diag(about_com)))
        np.testing.assert_allclose(
            pseudo_of(found, row), root @ upper @ upper.T @ root.T, rtol=1e-9, atol=1e-12
        )


def test_no_parameters_drawn_leave_the_body_as_it_is():
    bodies = some_body(20)

    found = deform(bodies, torch.zeros(20, 10, dtype=torch.float64))

    assert torch.equal(found.mass, bodies.mass)
    assert torch.equal(found.com, bodies.com)
    assert torch.equal(found.axes, bodies.axes)
    torch.testing.assert_close(found.moments, bodies.moments, rtol=1e-14, atol=0)


def test_any_parameters_give_a_body_that_exists():
    found = deform(some_body(5000), random(5000, 10))

    a, b, c = found.moments.unbind(-1)
    assert (found.mass > 0).all()
    assert ((a + b > c) & (b + c > a) & (c + a > b)).all()
    assert np.linalg.eigvalsh([pseudo_of(found, row) for row in range(200)]).min() > 0


def test_payload_is_what_mujoco_makes_of_a_ball_at_that_point():
    # MuJoCo leaves geoms out where there is <inertial>, so the body is a box, and the payload a
    # ball of 0.1 mm, whose own inertia 2/5 m r² is 2.8e-9 kg m².
    box = 'size="0.1 0.2 0.05" pos="0.1 -0.05 0.02" quat="0.8 0.2 0.4 0.1" mass="2"'
    plain = re.sub("<inertial .*/>", f'<geom type="box" {box}/>', XML)
    ball = '<geom size="1e-4" pos="0.3 0.1 -0.2" mass="0.7"/>'
    nominal = mujoco.MjModel.from_xml_string(plain.format(extra=""))
    loaded = mujoco.MjModel.from_xml_string(plain.format(extra=ball))

    def body(model: mujoco.MjModel) -> Inertia:
        names = ("body_mass", "body_ipos", "body_inertia", "body_iquat")
        return Inertia(*(torch.from_numpy(getattr(model, name)[1:]) for name in names))

    at = torch.tensor([0.3, 0.1, -0.2], dtype=torch.float64)
    found = load(body(nominal), torch.tensor([0.7], dtype=torch.float64), at)

    np.testing.assert_allclose(pseudo_of(found), pseudo_of(body(loaded)), rtol=1e-12, atol=1e-8)


def test_payload_without_mass_changes_nothing():
    bodies = some_body(20)

    found = load(bodies, torch.zeros(20).double(), torch.ones(3).double())

    for part, nominal in zip(found, bodies, strict=True):
        torch.testing.assert_close(part, nominal, rtol=1e-12, atol=1e-12)


def draw(term: dict, num_envs: int = 64) -> BatchSimulation:
    model = mujoco.MjModel.from_xml_string(XML.format(extra=""))
    worlds, simulation = every(num_envs), BatchSimulation(model, num_envs, num_threads=1)
    terms = read_terms([term], source="terms")
    at_work = Randomization(terms, simulation, Draws(0, simulation.device), signals={},
                            control_dt_s=0.02)  # fmt: skip
    at_work.begin(worlds, worlds.ids)
    return simulation


@pytest.mark.parametrize(
    ("columns", "changed"),
    [
        ("mass", {"body_mass", "body_inertia"}),
        ("stretch", {"body_inertia"}),
        ("shear", {"body_inertia", "body_iquat"}),
        ("shift", {"body_ipos"}),
        (["shift", "mass"], {"body_mass", "body_inertia", "body_ipos"}),
        (None, {"body_mass", "body_inertia", "body_ipos", "body_iquat"}),
    ],
)
def test_group_of_parameters_changes_what_it_says(columns: object, changed: set[str]):
    simulation = draw({"inertia": "pseudo", "columns": columns, "range": (-0.2, 0.2)})

    found = {
        name
        for name in ("body_mass", "body_ipos", "body_inertia", "body_iquat")
        if not np.allclose(simulation.field(name).numpy(), getattr(simulation.model, name),
                           rtol=1e-9)
    }  # fmt: skip
    assert found == changed


def test_mass_parameter_is_half_the_logarithm_of_the_factor():
    simulation = draw({"inertia": "pseudo", "columns": "mass", "range": (0.1, 0.1)}, 2)

    assert simulation.field("body_mass")[0, 1].item() == pytest.approx(2 * math.exp(0.2))


def test_shift_is_in_radii_of_gyration_along_the_principal_axes():
    simulation = draw({"inertia": "pseudo", "columns": "shift", "range": (0.5, 0.5)}, 2)
    model = simulation.model
    moved = simulation.field("body_ipos")[0, 1].numpy() - model.body_ipos[1]

    back = np.zeros(3)
    mujoco.mju_negQuat(turn := np.zeros(4), model.body_iquat[1])
    mujoco.mju_rotVecQuat(back, moved, turn)
    x, y, z = model.body_inertia[1]
    second = np.array([y + z - x, z + x - y, x + y - z]) / 2
    np.testing.assert_allclose(back, 0.5 * np.sqrt(second / 2.0))


@pytest.mark.parametrize(
    ("term", "problem"),
    [
        ({"inertia": "pseudo", "range": (-2, 2)}, "parameters are logarithms and lie between"),
        ({"inertia": "pseudo", "range": (0, 0)}, "inertia: add [0.0, 0.0] changes nothing"),
        ({"inertia": "pseudo", "columns": "mas", "range": (0, 1)}, "input should be 'mass'"),
        ({"inertia": "pseudo", "match": "world", "range": (0, 1)},
         "'inertia' has no element matching 'world'; its elements are ['arm']"),
        ({"payload": "arm", "range": (-1, 1)}, "payload: a mass is not negative"),
        ({"payload": "amr", "range": (0, 1)}, "'payload' has no element matching 'amr' (did you"),
    ],
)  # fmt: skip
def test_term_that_means_nothing_is_refused(term: dict, problem: str):
    with pytest.raises(ConfigError) as error:
        draw(term)
    assert problem in str(error.value)


def test_body_that_mujoco_simplified_is_refused_with_mujocos_reason():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body name='cube'><freejoint/><geom type='box' size='1 1 1'/></body>"
        "</worldbody></mujoco>"
    )
    terms = read_terms([{"payload": "cube", "range": (0, 1), "at": (0.1, 0, 0)}], source="terms")

    with pytest.raises(ConfigError, match=r"MuJoCo refuses the values: .*simple='false'"):
        Randomization(terms, BatchSimulation(model, 1), Draws(0, torch.device("cpu")), signals={},
                      control_dt_s=0.02)  # fmt: skip
