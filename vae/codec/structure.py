"""Columns that follow from others: constants, lookups by one or two columns, sums and differences, wrapped or not.

One form says them all, on grid symbols: `x = f1*u + f2*v + table[w, z]  (mod m)`, each part optional. `hour` is a
table of `sched_dep_time`; `distance` one of origin and destination; `dep_delay` is `dep_time - sched_dep_time` modulo
1440; `time_hour` is `hour` plus a table of month and day. What a function gets wrong is stored as an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data.errors import DamagedError
from data.grid import Coded, ColumnGrid, State, TableGrid
from data.onehot import find_groups, group_cells
from vae.codec.container import Frozen

Ints = npt.NDArray[np.int64]
States = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MAX_TABLE = 1 << 20
"""Most entries of a table."""
SPECIALS = 3
"""Entries of a key for null, NaN and escape, after those for its symbols."""


MAX_MOVES = 64
"""Most steps of the choice among functions."""


class Cells(NamedTuple):
    """Symbols and states of one column."""

    symbols: Ints
    states: States


class Term(Frozen):
    """A column that enters a sum."""

    column: str
    """Name of the column."""
    factor: int = Field(ge=-(1 << 20), le=1 << 20)
    """What its symbols are multiplied by."""


class Derived(Frozen):
    """A column as a function of others, on grid symbols."""

    name: str
    """The column that follows."""
    terms: tuple[Term, ...] = Field(default=(), max_length=2)
    """The sum; where a term holds no value, its state is the result's."""
    keys: tuple[str, ...] = Field(default=(), max_length=2)
    """Columns by which the table is looked up, row-major."""
    modulus: int = Field(default=0, ge=0, le=1 << 40)
    """Sums are wrapped by this; 0 is not at all."""
    base: int = Field(default=0, ge=-(1 << 40), le=1 << 40)
    """Smallest result of wrapping."""
    follows: str | None = None
    """A column whose nulls are nulls here too."""
    table: tuple[int, ...] = Field(default=(0,), min_length=1, max_length=MAX_TABLE)
    """What is added, an entry for each combination of keys (symbols from the lowest, then null, NaN, escape)."""
    states: tuple[int, ...] = Field(default=(), max_length=MAX_TABLE)
    """State of each entry, `data.grid.State`; empty if all are values."""

    @model_validator(mode="after")
    def _check(self) -> Derived:
        if self.states and len(self.states) != len(self.table):
            raise ValueError("a table and its states differ in length")
        if any(not 0 <= state <= State.ESCAPE for state in self.states):
            raise ValueError("a state is unknown")
        if any(abs(entry) > 1 << 40 for entry in self.table):
            raise ValueError("an entry of the table is out of range")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns it is a function of, each once."""
        names = [*(term.column for term in self.terms), *self.keys, *([self.follows] if self.follows else [])]
        return tuple(dict.fromkeys(names))

    def evaluate(self, grids: Mapping[str, ColumnGrid], get: Callable[[str], Cells], rows: int) -> Cells:
        """The function's results for `rows` rows; an escape, or a result outside the column's grid, is a null.

        Raises:
            DamagedError: The table is not as long as its keys ask.
        """
        table, entry_states = np.array(self.table, np.int64), np.array(self.states, np.uint8)
        place = np.zeros(rows, np.int64)
        size = 1
        for key in self.keys:
            grid = grids[key]
            place = place * key_size(grid) + key_places(grid, get(key))
            size *= key_size(grid)
        if size != len(table):
            raise DamagedError(
                f"the table of column {self.name!r} has {len(table)} entries where its keys ask {size}"
            )
        total = table[place]
        states = entry_states[place] if len(entry_states) else np.zeros(rows, np.uint8)
        for term in self.terms:
            cells = get(term.column)
            total = total + term.factor * cells.symbols
            states = np.where(cells.states != State.VALUE, cells.states, states)
        if self.modulus:
            total = self.base + (total - self.base) % self.modulus
        if self.follows is not None:
            states = np.where(get(self.follows).states == State.NULL, np.uint8(State.NULL), states)
        own = grids[self.name]
        outside = (states == State.VALUE) & ((total < own.low) | (total > own.high))
        states = np.where(outside | (states == State.ESCAPE), np.uint8(State.NULL), states)
        return Cells(np.where(states == State.VALUE, total, 0), states.astype(np.uint8))


def key_size(grid: ColumnGrid) -> int:
    """Entries that a key takes in a table."""
    return grid.high - grid.low + 1 + SPECIALS


def key_places(grid: ColumnGrid, cells: Cells) -> Ints:
    """A column's cells as indices from 0 to `key_size - 1`."""
    special = grid.high - grid.low + cells.states.astype(np.int64)
    return np.where(cells.states == State.VALUE, cells.symbols - grid.low, special)


def find(
    grid: TableGrid, coded: Mapping[str, Coded], *, keep: Collection[str] = (), widest_key: int = 2048
) -> list[Derived]:
    """Columns that are best stored as functions of others, each after those that it is a function of.

    Args:
        grid: The grids of the table's columns.
        coded: The columns that may take part, on their grids.
        keep: Columns that are not to be derived.
        widest_key: Symbols of the widest column that may be a key: identifiers are cheaper to code when what they
            determine is known already than the other way round.
    """
    from vae.codec.search import candidates

    if not coded or not len(next(iter(coded.values())).symbols):
        return []
    found, cost = candidates(grid, coded, keep, widest_key)
    return order(_select(found, cost))


class Structure(NamedTuple):
    """A table with what was found in it."""

    grid: TableGrid
    """The grids of its columns, and after them those of its one-hot groups."""
    coded: dict[str, Coded]
    """The columns and groups that have a grid."""
    derived: tuple[Derived, ...]
    """Columns and groups that follow from others, each after those."""


def analyse(grid: TableGrid, coded: Mapping[str, Coded], *, keep: Collection[str] = ()) -> Structure:
    """One-hot groups, whose members follow from them, and what else follows from what; arguments as for `find`."""
    images = {c.name: coded[c.name] for c in grid.columns if c.kind == "image" and c.name in coded}
    coded = {name: cells for name, cells in coded.items() if name not in images}  # they follow from nothing
    groups = find_groups(grid, {name: cells for name, cells in coded.items() if name not in keep})
    cells = {**coded, **{group.name: group_cells(group, grid.columns, coded) for group in groups}}
    grid = TableGrid(columns=(*grid.columns, *groups))
    members = [_member(group, grid[name]) for group in groups for name in group.values]
    free = {name: column for name, column in cells.items() if name not in {m.name for m in members}}
    derived = tuple(order([*find(grid, free, keep=keep), *members]))
    return Structure(grid, cells | images, derived)


def _member(group: ColumnGrid, member: ColumnGrid) -> Derived:
    """A member of a one-hot group as a function of the group."""
    entries = np.full(key_size(group), member.low)
    entries[group.values.index(member.name)] = member.high
    return Derived(name=member.name, keys=(group.name,), table=tuple(entries.tolist()))


def order(derived: Sequence[Derived]) -> list[Derived]:
    """Each after those that it is a function of; ValueError if they go round in a circle."""
    left = {d.name: d for d in derived}
    out: list[Derived] = []
    while left:
        ready = [d for d in left.values() if not any(source in left for source in d.sources)]
        if not ready:
            raise ValueError(f"columns {sorted(left)} follow from each other")
        out += ready
        for d in ready:
            del left[d.name]
    return out


class Candidate(NamedTuple):
    """A function that holds, and what it costs."""

    derived: Derived
    size: float
    """Bytes of its table and exceptions, estimated."""


def _select(found: Sequence[Candidate], cost: Mapping[str, float]) -> list[Derived]:
    """The acyclic choice, at most one a column, that leaves least to code: local search from nothing.

    A move takes up one function, drops those that would close a circle with it, and takes up what still pays.
    """

    def gain(candidate: Candidate) -> float:
        return cost[candidate.derived.name] - candidate.size

    def saved(choice: Mapping[str, Candidate]) -> float:
        return sum(gain(c) for c in choice.values())

    chosen: dict[str, Candidate] = {}
    ranked = sorted(found, key=gain, reverse=True)
    for _ in range(MAX_MOVES):
        moves = (_move(chosen, c, ranked) for c in ranked if chosen.get(c.derived.name) != c)
        best = max(moves, key=saved, default=chosen)
        if saved(best) <= saved(chosen) + 1e-9:
            break
        chosen = best
    return [c.derived for c in chosen.values()]


def _move(
    chosen: Mapping[str, Candidate], new: Candidate, ranked: Sequence[Candidate]
) -> dict[str, Candidate]:
    out = {**chosen, new.derived.name: new}
    while circle := _circle(out, new.derived.name):
        # what stands last before the circle closes gives way
        del out[circle[-1]]
    for candidate in ranked:
        name = candidate.derived.name
        if name not in out:
            out[name] = candidate
            if _circle(out, name):
                del out[name]
    return out


def _circle(chosen: Mapping[str, Candidate], start: str) -> list[str]:
    """Names of a circle of functions that begins with `start`, or nothing."""
    stack: list[list[str]] = [[start]]
    seen: set[str] = set()
    while stack:
        path = stack.pop()
        for source in chosen[path[-1]].derived.sources:
            if source == start:
                return path
            if source in chosen and source not in seen:
                seen.add(source)
                stack.append([*path, source])
    return []
