"""One-hot groups: found where they are, and their cells those of their members."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.grid import State, TableGrid
from data.gridfit import fit_table
from data.onehot import encode_table, find_groups, with_groups


def indicators(places: np.ndarray, count: int, kind: pa.DataType = pa.int64()) -> dict[str, pa.Array]:
    return {f"is_{k}": pa.array((places == k).astype(int)).cast(kind) for k in range(count)}


def groups_of(columns: dict[str, pa.Array]) -> list[tuple[str, tuple[str, ...]]]:
    table = pa.table(columns)
    grid = fit_table(table)
    return [(g.name, g.values) for g in find_groups(grid, encode_table(grid, table.column))]


PLACES = np.random.default_rng(0).integers(0, 5, 3_000)


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.float32(), pa.bool_()])
def test_a_group_of_any_type_is_found(kind):
    columns = {"other": pa.array(PLACES * 7), **indicators(PLACES, 5, kind)}
    assert groups_of(columns) == [("is_*", ("is_0", "is_1", "is_2", "is_3", "is_4"))]


def test_two_groups_are_told_apart_and_named_apart():
    others = np.random.default_rng(1).integers(0, 4, 3_000)
    columns = indicators(PLACES, 5) | {f"is_not_{k}": pa.array((others == k).astype(int)) for k in range(4)}
    found = groups_of(columns)
    assert [name for name, _ in found] == ["is_*", "is_not_*"]
    assert [len(members) for _, members in found] == [5, 4]


def test_a_rare_member_goes_to_the_group_that_excludes_it():
    """What is hardly ever set shares few rows with any column."""
    areas = PLACES % 3
    soils = np.where(np.arange(3_000) % 500 == 0, 2, PLACES % 2)
    columns = {f"area_{k}": pa.array((areas == k).astype(int)) for k in range(3)}
    columns |= {f"soil_{k}": pa.array((soils == k).astype(int)) for k in range(3)}
    assert [members for _, members in groups_of(columns)] == [
        ("area_0", "area_1", "area_2"),
        ("soil_0", "soil_1", "soil_2"),
    ]


def test_a_group_may_leave_out_one_category():
    assert groups_of(indicators(PLACES, 4)) == [("is_*", ("is_0", "is_1", "is_2", "is_3"))]


@pytest.mark.parametrize(
    "columns",
    [
        indicators(PLACES, 2),
        {f"flag_{k}": pa.array(np.random.default_rng(k).integers(0, 2, 3_000)) for k in range(6)},
        {f"constant_{k}": pa.array(np.zeros(3_000, int)) for k in range(6)},
        {f"wide_{k}": pa.array(PLACES + k) for k in range(4)},
        {},
    ],
    ids=["two", "free", "constant", "wide", "none"],
)
def test_what_is_no_group_is_left_alone(columns):
    assert groups_of(columns) == []


@given(st.lists(st.lists(st.sampled_from([0, 1, None]), min_size=3, max_size=3), min_size=1, max_size=30))
def test_a_groups_cell_is_the_one_member_that_is_set(rows):
    names = ["a", "b", "c"]
    learned = pa.table({name: (PLACES[:100] % 3 == k).astype(int) for k, name in enumerate(names)})
    own = fit_table(learned)
    (group,) = find_groups(own, encode_table(own, learned.column))
    grid = TableGrid(columns=(*own.columns, group))
    table = pa.table({name: pa.array([row[k] for row in rows], pa.int64()) for k, name in enumerate(names)})

    shown = with_groups(table, grid)[group.name].to_pylist()

    expected = [names[row.index(1)] if row.count(1) == 1 and row.count(None) == 0 else None for row in rows]
    assert shown == expected
    cells = encode_table(grid, table.column)[group.name]
    assert (cells.state == State.NULL).tolist() == [name is None for name in expected]
