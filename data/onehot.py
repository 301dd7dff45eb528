"""One-hot groups: columns of which a row has at most one set, seen as one column of categories.

Forty indicator columns cost a model forty heads, though what they say is one choice. A group is a grid like any other,
with `one_hot` set, whose categories are the names of its members; its cells come from theirs: the place of the one that
is set, null where none is, or several.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.grid import Coded, ColumnGrid, Ints, State, States, TableGrid

FEWEST_MEMBERS = 3
"""Of two columns that exclude each other, one follows from the other."""
SAMPLE_ROWS = 65_536
"""Rows on which it is looked for what excludes each other, before it is proved on all."""
MOST_SHARED = 1e-2
"""Largest share of the rows that set a member in which the group has another one set."""
MOST_BROKEN = 1e-2
"""Largest share of rows in which a member holds anything but its two values."""


def find_groups(grid: TableGrid, coded: Mapping[str, Coded]) -> list[ColumnGrid]:
    """The groups among columns of two values, of which the larger one is the set one; a column is in one at most."""
    binary = [c for c in grid.columns if c.name in coded and c.high == c.low + 1 and not c.one_hot]
    rows = len(coded[binary[0].name].symbols) if binary else 0
    if len(binary) < FEWEST_MEMBERS or not rows:
        return []
    sample = np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE_ROWS)).astype(np.int64))
    set_there = np.stack(
        [_is_set(c, coded[c.name].symbols[sample], coded[c.name].state[sample]) for c in binary]
    )
    names = {c.name for c in grid.columns}
    groups: list[ColumnGrid] = []
    for places in _exclusive(set_there):
        members = [binary[place] for place in places]
        if len(members) >= FEWEST_MEMBERS and _holds(members, coded):
            group = _group([member.name for member in members], names)
            names.add(group.name)
            groups.append(group)
    return groups


def encode_table(grid: TableGrid, column: Callable[[str], pa.Array | pa.ChunkedArray]) -> dict[str, Coded]:
    """Every column that has a grid, groups included, as symbols; `column` gives the values of one."""
    coded = {c.name: c.encode(column(c.name)) for c in grid.columns if c.kind != "opaque" and not c.one_hot}
    return coded | {c.name: group_cells(c, grid.columns, coded) for c in grid.columns if c.one_hot}


def group_cells(group: ColumnGrid, grids: Sequence[ColumnGrid], coded: Mapping[str, Coded]) -> Coded:
    """The cells of a group, from those of its members."""
    members = {c.name: c for c in grids}
    rows = len(coded[group.values[0]].symbols)
    symbols, count, odd = np.zeros(rows, np.int64), np.zeros(rows, np.int32), np.zeros(rows, bool)
    for place, name in enumerate(group.values):
        cells = coded[name]
        is_set = _is_set(members[name], cells.symbols, cells.state)
        symbols[is_set] = place
        count += is_set
        odd |= cells.state != State.VALUE
    alone = (count == 1) & ~odd
    states = np.where(alone, np.uint8(State.VALUE), np.uint8(State.NULL))
    return Coded(np.where(alone, symbols, 0), states, pa.array([], pa.string()))


def with_groups(table: pa.Table, grid: TableGrid) -> pa.Table:
    """The table and, after its own, a column of member names for each group of the grid."""
    for group in (c for c in grid.columns if c.one_hot):
        coded = {name: grid[name].encode(table[name]) for name in group.values}
        table = table.append_column(group.name, group.decode(*group_cells(group, grid.columns, coded)))
    return table


def _is_set(grid: ColumnGrid, symbols: Ints, states: States) -> npt.NDArray[np.bool_]:
    return (states == State.VALUE) & (symbols == grid.high)


def _exclusive(set_there: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Columns, in the table's order, each put to the first that hardly ever are set where it is."""
    rows = set_there.shape[1]
    ones = set_there.astype(np.float32)
    together = ones @ ones.T
    groups: list[list[int]] = []
    for place in range(len(ones)):
        if not together[place, place] or together[place, place] == rows:
            continue  # never or always set, as far as the sample shows
        fits = (
            group for group in groups if together[place, group].sum() <= MOST_SHARED * together[place, place]
        )
        group = next(fits, None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    return groups


def _holds(members: Sequence[ColumnGrid], coded: Mapping[str, Coded]) -> bool:
    """Whether of the rows that set a member hardly one sets several, and hardly a row holds something else in one."""
    rows = len(coded[members[0].name].symbols)
    count, odd = np.zeros(rows, np.int32), np.zeros(rows, bool)
    for member in members:
        cells = coded[member.name]
        count += _is_set(member, cells.symbols, cells.state)
        odd |= cells.state != State.VALUE
    return bool((count > 1).sum() <= MOST_SHARED * (count > 0).sum() and odd.sum() <= MOST_BROKEN * rows)


def _group(members: list[str], taken: set[str]) -> ColumnGrid:
    """A group under a name that no column has.

    >>> _group(["soil_1", "soil_2", "soil_3"], {"soil_1"}).name
    'soil_*'
    """
    alike = (len(set(letters)) == 1 for letters in zip(*members, strict=False))
    name = members[0][: len(list(itertools.takewhile(bool, alike)))] + "*"
    while name in taken:
        name += "*"
    return ColumnGrid(
        name=name, kind="category", scale="names", high=len(members) - 1, values=tuple(members), one_hot=True
    )
