"""Choosing worlds by ids or by a mask: the same tables come out."""

import pytest
import torch

from envs.worlds import choose, every

MASK = torch.tensor([False, True, False, True])


@pytest.fixture(params=[True, False], ids=["ids", "mask"])
def worlds(request: pytest.FixtureRequest):
    return choose(MASK, compact=request.param)


def test_only_chosen_rows_are_written(worlds):
    table = torch.arange(8.0).reshape(4, 2)

    worlds.put(table, 10 * worlds.take(table))

    assert table.tolist() == [[0, 1], [20, 30], [4, 5], [60, 70]]


def test_one_number_fills_the_chosen_rows_of_any_type(worlds):
    table = torch.zeros(4, dtype=torch.int64)

    worlds.put(table, 7)

    assert table.tolist() == [0, 7, 0, 7]


def test_rows_are_written_in_the_type_of_the_table(worlds):
    table = torch.zeros(4, 1, dtype=torch.float64)

    worlds.put(table, torch.full((len(worlds), 1), 0.5))

    assert table.flatten().tolist() == [0, 0.5, 0, 0.5]


def test_rows_say_which_worlds_they_are_for(worlds):
    table = torch.zeros(4, dtype=torch.int64)

    worlds.put(table, worlds.ids)

    assert table.tolist() == [0, 1, 0, 3]


def test_nothing_chosen_is_known_by_ids_only():
    nobody = torch.zeros(4, dtype=torch.bool)

    assert choose(nobody, compact=True).none
    assert not choose(nobody, compact=False).none  # to know would mean to ask the device
    assert not every(4).none


def test_all_worlds_are_taken_without_a_copy():
    table = torch.zeros(4, 2)

    assert every(4).take(table) is table


def test_not_a_number_in_a_row_that_is_not_chosen_stays_out():
    table, rows = torch.zeros(4), torch.full((4,), torch.nan)
    worlds = choose(MASK, compact=False)
    rows[MASK] = 1.0

    worlds.put(table, rows)

    assert table.tolist() == [0, 1, 0, 1]
