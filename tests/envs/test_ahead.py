"""Rows that are made ahead are those that would be made now, whoever asks for them, and when."""

import mujoco
import torch
from torch import Tensor

from envs.ahead import Ahead
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import read_terms
from envs.randomization.physics.model_terms import ModelTerms
from envs.randomization.randomization import bind
from envs.rotation import diagonalise
from envs.worlds import Worlds, choose, every
from tests.envs.randomization.worlds import DT, WALKER

NUM_ENVS = 64
CPU = torch.device("cpu")


class Counted:
    """Rows that tell world and index apart, and how often they were asked for."""

    def __init__(self):
        self.rows: list[int] = []
        self.ahead = Ahead(self.make, NUM_ENVS, CPU)

    def make(self, ids: Tensor, index: Tensor) -> list[Tensor]:
        self.rows.append(len(ids))
        return [1000 * ids + index, torch.stack([ids, index], dim=-1).double()]


def some(*ids: int) -> Worlds:
    return Worlds(torch.tensor(ids))


def test_rows_are_those_of_the_world_and_its_index_in_any_order_of_restarts():
    counted, generator = Counted(), torch.Generator().manual_seed(0)
    index = torch.zeros(NUM_ENVS, dtype=torch.int64)
    for _ in range(500):
        worlds = choose(torch.rand(NUM_ENVS, generator=generator) < 0.1, compact=True)
        index[worlds.ids] += 1
        first, second = counted.ahead.of(worlds, index[worlds.ids])

        assert torch.equal(first, 1000 * worlds.ids + index[worlds.ids])
        assert torch.equal(second, torch.stack([worlds.ids, index[worlds.ids]], dim=-1).double())


def test_few_calls_make_the_rows_of_many_restarts():
    counted = Counted()
    counted.ahead.of(every(NUM_ENVS), torch.zeros(NUM_ENVS, dtype=torch.int64))
    for index in range(1, 9):  # one world after the other
        for world in range(NUM_ENVS):
            counted.ahead.of(some(world), torch.tensor([index]))

    # all at once, then when world 0 asks for index 1 and finds nothing, and again for index 5:
    # by then the others have used up index 1, 2, 3 and 4 as well
    assert len(counted.rows) <= 1 + 8
    assert sum(counted.rows) <= NUM_ENVS * (1 + 8 + 4)


def test_after_a_jump_of_the_index_as_a_restored_run_makes_it_rows_are_right():
    counted = Counted()
    for index in (1, 2, 900, 3, 901):
        (row, _) = counted.ahead.of(some(7), torch.tensor([index]))
        assert row.tolist() == [7000 + index]


def test_where_every_world_has_a_row_it_is_made_at_once():
    counted, mask = Counted(), torch.arange(NUM_ENVS) == 3
    index = torch.full((NUM_ENVS,), 5)
    (row, _) = counted.ahead.of(choose(mask, compact=False), index)

    assert torch.equal(row, 1000 * torch.arange(NUM_ENVS) + 5)
    assert counted.rows == [NUM_ENVS]


def test_model_fields_are_to_the_bit_the_same_however_many_worlds_are_made_with_them():
    terms = read_terms(
        [
            {"inertia": "pseudo", "match": "base", "range": (-0.05, 0.05)},
            {"payload": "base", "at": (0.1, 0, 0.05), "range": (0, 0.5)},
            {"field": "opt.gravity", "operation": "rotate", "range": (0.0, 0.05)},
            {"field": "kp", "range": (0.5, 2.0), "distribution": "log_uniform"},
            {"field": "friction", "range": (1.0, 0.1), "distribution": "normal"},
        ],
        source="terms",
    )
    model = mujoco.MjModel.from_xml_string(WALKER)
    bound = bind(terms, model, [None] * len(terms))
    work = ModelTerms(bound, BatchSimulation(model, 1), Draws(0, CPU), control_dt_s=DT)
    many = work.make(bound, torch.arange(2000), torch.ones(2000, dtype=torch.int64))
    for world in range(0, 2000, 50):
        one = work.make(bound, torch.tensor([world]), torch.tensor([1]))
        for name, table in many.items():
            assert torch.equal(one[name][0], table[world]), (name, world)


def test_principal_axes_are_to_the_bit_those_of_one_matrix_among_many():
    root = torch.rand(2000, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrices = root @ root.mT
    values, turn = diagonalise(matrices)
    for place in range(0, 2000, 20):
        one, axes = diagonalise(matrices[place])
        assert torch.equal(one, values[place])
        assert torch.equal(axes, turn[place])
