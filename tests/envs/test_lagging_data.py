"""Derived data that lags as in Gymnasium, against a plain loop over `mj_step`."""

import mujoco
import numpy as np
import pytest
import torch

from envs import lagging_data
from envs.batch_simulation import BatchSimulation
from envs.simulation import State
from envs.worlds import every

NUM_ENVS = 3
FIELDS = ("xpos", "xipos", "site_xpos", "cvel", "cinert", "qfrc_constraint", "cfrc_ext")
FALLING_BALL = """
<mujoco>
  <option integrator="{integrator}" timestep="0.01"/>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    <body name="ball" pos="0 0 0.11">
      <freejoint/>
      <geom type="sphere" size="0.1"/>
      <site name="top" pos="0 0 0.1"/>
    </body>
  </worldbody>
</mujoco>
"""


def make_model(integrator: str, *, lagging: bool) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_string(FALLING_BALL.format(integrator=integrator))
    if lagging:
        lagging_data.request(spec, contact_forces=True)
    return spec.compile()


def start(simulation: BatchSimulation) -> list[mujoco.MjData]:
    """Balls at different heights, in our worlds and in plain ones."""
    model = simulation.model
    qpos = torch.from_numpy(model.qpos0).repeat(NUM_ENVS, 1)
    qpos[:, 2] = torch.linspace(0.098, 0.12, NUM_ENVS)
    qvel = torch.zeros(NUM_ENVS, model.nv, dtype=torch.float64)
    simulation.reset(every(NUM_ENVS), State(qpos, qvel, qvel[:, :0]))
    plain = []
    for row in qpos.numpy():
        data = mujoco.MjData(model)
        data.qpos[:] = row
        mujoco.mj_forward(model, data)
        plain.append(data)
    return plain


@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
def test_data_is_what_plain_mujoco_leaves_behind(integrator: str):
    simulation = BatchSimulation(make_model(integrator, lagging=True), NUM_ENVS, num_threads=2)
    fields = {name: simulation.data(name).numpy() for name in FIELDS}
    plain = start(simulation)
    largest_force = 0.0

    for _ in range(20):
        for world, data in enumerate(plain):
            for name in FIELDS:
                assert np.array_equal(fields[name][world], getattr(data, name)), name
            mujoco.mj_step(simulation.model, data, nstep=5)
            mujoco.mj_rnePostConstraint(simulation.model, data)
        simulation.step(5)
        largest_force = max(largest_force, np.abs(fields["cfrc_ext"]).max())

    assert largest_force > 10  # a ball of 4 kg has hit the floor


def test_without_the_request_data_is_current():
    simulation = BatchSimulation(make_model("RK4", lagging=False), NUM_ENVS, num_threads=1)
    height = simulation.data("xpos")[:, 1, 2]
    start(simulation)

    simulation.step(5)

    assert torch.equal(height, simulation.data("qpos")[:, 2])


def test_the_request_is_known_from_the_model():
    without_contacts = mujoco.MjSpec.from_string(FALLING_BALL.format(integrator="RK4"))
    lagging_data.request(without_contacts, contact_forces=False)
    models = [
        make_model("RK4", lagging=True),
        make_model("RK4", lagging=False),
        without_contacts.compile(),
    ]

    assert [lagging_data.requested(model) for model in models] == [True, False, True]


def test_the_request_changes_no_motion():
    heights = []
    for lagging in (True, False):
        simulation = BatchSimulation(make_model("RK4", lagging=lagging), NUM_ENVS, num_threads=1)
        start(simulation)
        simulation.step(50)
        heights.append(simulation.data("qpos").clone())

    assert torch.equal(*heights)
