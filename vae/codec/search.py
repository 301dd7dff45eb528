"""The search for columns that follow from others (`vae.codec.structure`): on a sample, then proved on all rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data.grid import Coded, ColumnGrid, State, TableGrid
from vae.codec.structure import Candidate, Cells, Derived, Ints, Mask, States, Term, key_places, key_size
from vae.codec.sum_search import EXHAUSTIVE, MAX_EXCEPTIONS, sums

SAMPLE = 4096
"""Rows on which functions are looked for."""
MAX_PAIRS = 1500
"""Most pairs of key columns that are tried."""
MAX_RESIDUALS = 64
"""Most differences of two columns that are tried as functions of keys."""
FEW = 512
"""Rows on which differences of many columns, and what keys determine of them, are looked at first."""
MOST_DIFFERENCES = 8
"""Differences of one of many columns that are tried: those that take fewest values there."""
TOO_WRONG = 0.25
"""Share of the rows there, and of those that do not hold a column's commonest value, that a key may get wrong."""
BY_CHANCE = 4
"""Of the latter so many more."""
MAX_UNEXPLAINED = 0.1
"""The same, of the rows that do not hold the column's commonest value: it alone is right about most of a rare flag."""
PER_COLUMN = 8
"""Most functions of one column that are proved on all rows."""
MOST_FOLLOWED = 4
"""Columns that are tried as those a column has its nulls from: the ones whose nulls are most like its own."""
TABLE_BYTES = 24.0
"""Bytes that a function costs before its table."""
COLUMN_BYTES = 96.0
"""Bytes that a column costs before its values: streams, weights."""


class _Idea(NamedTuple):
    """A function without its table."""

    target: int
    terms: tuple[tuple[int, int], ...] = ()
    """Columns and their factors."""
    keys: tuple[int, ...] = ()
    modulus: int = 0


class _Table(NamedTuple):
    """The columns that take part."""

    grids: list[ColumnGrid]
    cells: list[Cells]
    low: Ints
    """Smallest symbol of each column."""
    distinct: Ints
    rare: Ints
    """Rows that do not hold the column's commonest value."""
    bits: npt.NDArray[np.float64]
    """Bits a row of each column by itself, coded by value or by step, whichever is less."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.cells[0].symbols)


def candidates(
    grid: TableGrid, coded: Mapping[str, Coded], keep: Collection[str], widest_key: int
) -> tuple[list[Candidate], dict[str, float]]:
    """Functions that hold on all rows but a few, and for each column the bytes of coding it by itself."""
    grids = [g for g in grid.columns if g.name in coded]
    table = _survey(grids, [Cells(coded[g.name].symbols, coded[g.name].state) for g in grids])
    # a column that must be coded costs more than its bits: no model of it is perfect
    cost = table.rows / 8 * (table.bits + np.minimum(2.0, 4.0 * table.bits))
    found: list[Candidate] = []
    for idea in _ideas(table, widest_key):
        candidate = None if grids[idea.target].name in keep else _prove(table, idea, cost)
        if candidate is not None:
            found.append(candidate)
    return found, {g.name: float(c) + COLUMN_BYTES for g, c in zip(grids, cost, strict=True)}


def _survey(grids: list[ColumnGrid], cells: list[Cells]) -> _Table:
    rows, columns = len(cells[0].symbols), len(grids)
    low, distinct, rare = (np.zeros(columns, np.int64) for _ in range(3))
    bits = np.zeros(columns)
    # whole runs of rows, so that steps from row to row are seen
    parts = [slice(0, rows)]
    if rows > 1 << 19:
        parts = [slice(start, start + (1 << 14)) for start in range(0, rows - (1 << 14), rows // 16)]
    for i, grid in enumerate(grids):
        places = key_places(grid, cells[i])
        present = cells[i].symbols[cells[i].states == State.VALUE]
        low[i] = int(present.min()) if len(present) else 0
        counts = np.bincount(places)
        distinct[i], rare[i] = np.count_nonzero(counts), rows - counts.max()
        steps = np.concatenate([np.diff(places[part]) for part in parts])
        by_step = _entropy(np.bincount(steps - steps.min())) if len(steps) else np.inf
        bits[i] = min(_entropy(counts), by_step)
    return _Table(grids, cells, low, distinct, rare, bits)


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log2(share)).sum())


# ------------------------------------------------------------------------------------------------------ looking


def _ideas(table: _Table, widest_key: int) -> list[_Idea]:
    """Functions that hold on a sample, the simplest first, a few for each column."""
    rows = table.rows
    chosen = np.unique(np.random.default_rng(0).integers(0, rows, min(rows, SAMPLE) * 2))
    chosen = chosen if rows > SAMPLE else np.arange(rows)
    chosen = chosen[np.sort(np.random.default_rng(1).permutation(len(chosen))[:SAMPLE])]
    symbols = np.stack([cells.symbols[chosen] for cells in table.cells], axis=1)
    states = np.stack([cells.states[chosen] for cells in table.cells], axis=1)
    ideas = [_Idea(i) for i in range(len(table.grids)) if table.distinct[i] == 1]
    varied = [i for i in range(len(table.grids)) if table.distinct[i] > 1]
    if rows >= 64:
        ideas += _sums(table, symbols, states == State.VALUE, varied)
        ideas += _lookups(table, symbols, states, varied, widest_key)
    counts: dict[int, int] = {}
    out: list[_Idea] = []
    for idea in ideas:
        counts[idea.target] = counts.get(idea.target, 0) + 1
        if counts[idea.target] <= PER_COLUMN:
            out.append(idea)
    return out


def _sums(table: _Table, symbols: Ints, valued: Mask, varied: Sequence[int]) -> Iterator[_Idea]:
    """Sums of columns that take more than two values."""
    numbers = [i for i in varied if table.grids[i].kind == "number" and table.distinct[i] > 2]
    return (_Idea(*found[:2], modulus=found.modulus) for found in sums(symbols, valued, numbers))


def _lookups(
    table: _Table, symbols: Ints, states: States, varied: Sequence[int], widest_key: int
) -> Iterator[_Idea]:
    """x, or x ± u, as a table of one or two columns."""
    cells = [key_places(g, Cells(symbols[:, i], states[:, i])) for i, g in enumerate(table.grids)]
    ids = {i: np.unique(cells[i], return_inverse=True)[1].reshape(-1) for i in varied}
    places = [_Idea(x) for x in varied]
    places += _residuals(table, symbols, states == State.VALUE, varied)
    if not places:
        return
    targets = np.stack([_residual(cells, symbols, states, idea) for idea in places], axis=1)
    keys = [i for i in varied if key_size(table.grids[i]) <= widest_key + 3]
    rare = targets != _commonest(targets)
    singles: set[tuple[int, int]] = set()
    for u in keys:
        for place in _determined(ids[u], int(ids[u].max()) + 1, targets, rare):
            idea = places[place]
            if u not in (idea.target, *(t for t, _ in idea.terms)):
                singles.add((place, u))
                yield idea._replace(keys=(u,))
    pairs = [(key_size(table.grids[u]) * key_size(table.grids[v]), u, v) for u, v in combinations(keys, 2)]
    most = min(1 << 18, max(256, table.rows // 4))
    for _, u, v in sorted(p for p in pairs if p[0] <= most)[:MAX_PAIRS]:
        width = int(ids[v].max()) + 1
        for place in _determined(ids[u] * width + ids[v], (int(ids[u].max()) + 1) * width, targets, rare):
            idea = places[place]
            used = (idea.target, *(t for t, _ in idea.terms))
            if u not in used and v not in used and not {(place, u), (place, v)} & singles:
                yield idea._replace(keys=(u, v))


def _residuals(table: _Table, symbols: Ints, valued: Mask, varied: Sequence[int]) -> list[_Idea]:
    """Differences and sums of two columns that take far fewer values than the first."""
    numbers = [i for i in varied if table.grids[i].kind == "number" and table.distinct[i] > 8]
    found: list[tuple[float, _Idea]] = []
    alone = {x: len(np.unique(symbols[:, x])) for x in numbers}
    for x in numbers:
        for u, factor in _likely_residuals(symbols, x, numbers) if table.bits[x] > 0.5 else ():
            both = valued[:, x] & valued[:, u]
            share = len(np.unique((symbols[:, x] - factor * symbols[:, u])[both])) / max(1, alone[x])
            if share <= 0.5:
                found.append((share, _Idea(x, ((u, factor),))))
    found.sort(key=lambda pair: pair[0])
    return [idea for _, idea in found[:MAX_RESIDUALS]]


def _likely_residuals(symbols: Ints, x: int, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Columns and factors to try: all of a few columns; of many those whose difference takes fewest values on a few
    rows from all over the sample.
    """
    if len(numbers) <= EXHAUSTIVE:
        return [(u, factor) for u in numbers if u != x for factor in (1, -1)]
    few = symbols[:: max(1, len(symbols) // FEW)]
    found: list[tuple[int, int, int]] = []
    for factor in (1, -1):
        rest = np.sort(few[:, [x]] - factor * few[:, list(numbers)], axis=0)
        values = np.count_nonzero(np.diff(rest, axis=0), axis=0)
        found += [(int(count), u, factor) for count, u in zip(values, numbers, strict=True) if u != x]
    return [(u, factor) for _, u, factor in sorted(found)[:MOST_DIFFERENCES]]


def _residual(cells: Sequence[Ints], symbols: Ints, states: States, idea: _Idea) -> Ints:
    if not idea.terms:
        return cells[idea.target]
    ((u, factor),) = idea.terms
    both = (states[:, idea.target] == State.VALUE) & (states[:, u] == State.VALUE)
    return np.where(both, symbols[:, idea.target] - factor * symbols[:, u], np.iinfo(np.int64).min)


def _commonest(targets: Ints) -> Ints:
    """The most frequent entry of each column."""
    ordered = np.sort(targets, axis=0)
    # what fills more than half of a column stands in its middle; of others any entry will do
    return ordered[len(ordered) // 2]


def _determined(key: Ints, size: int, targets: Ints, rare: Mask) -> npt.NDArray[np.intp]:
    """Which targets are a function of `key` (from 0 to size - 1), as far as rows with equal keys show."""
    rows = len(key)
    first = np.zeros(size, np.int64)
    first[key[::-1]] = np.arange(rows - 1, -1, -1)
    model = first[key]
    repeats = np.flatnonzero(model != np.arange(rows))
    if len(repeats) < 32:
        return np.zeros(0, np.intp)
    left = np.arange(targets.shape[1])
    if len(left) > 2 * EXHAUSTIVE:
        few = repeats[:: max(1, len(repeats) // FEW)]
        wrong = np.count_nonzero(targets[model[few]] != targets[few], axis=0)
        telling = np.count_nonzero(rare[few], axis=0)
        left = np.flatnonzero((wrong <= TOO_WRONG * len(few)) & (wrong <= TOO_WRONG * telling + BY_CHANCE))
        targets, rare = targets[:, left], rare[:, left]
    wrong = np.count_nonzero(targets[model[repeats]] != targets[repeats], axis=0)
    telling = np.count_nonzero(rare[repeats], axis=0)
    # twice, since one wrong entry of a key is wrong against all others
    return left[(wrong <= 2 * MAX_EXCEPTIONS * len(repeats)) & (wrong <= 2 * MAX_UNEXPLAINED * telling)]


# ------------------------------------------------------------------------------------------------------ proving


def _prove(table: _Table, idea: _Idea, cost: npt.NDArray[np.float64]) -> Candidate | None:
    """The function with its table, if it is right on all rows but a few and pays."""
    rows, x = table.rows, idea.target
    derived = _with_table(table, idea)
    wrong = _wrong(table, derived, x)
    if wrong.any():
        derived, wrong = _with_follows(table, derived, idea, wrong)
    errors = int(wrong.sum())
    if errors > min(MAX_EXCEPTIONS * rows, MAX_UNEXPLAINED * table.rare[x]):
        return None
    per_error = np.log2(rows / errors) + 1.5 + min(16.0, float(table.bits[x]) + 1) if errors else 0.0
    entries = len(set(derived.table))
    size = TABLE_BYTES + len(derived.table) * np.log2(max(1, entries)) / 8 + errors * per_error / 8
    return Candidate(derived, float(size)) if size <= 0.5 * cost[x] + TABLE_BYTES else None


def _with_table(table: _Table, idea: _Idea) -> Derived:
    x, grids, cells = idea.target, table.grids, table.cells
    place = np.zeros(table.rows, np.int64)
    size = 1
    for key in idea.keys:
        place = place * key_size(grids[key]) + key_places(grids[key], cells[key])
        size *= key_size(grids[key])
    rest = cells[x].symbols - sum(f * cells[u].symbols for u, f in idea.terms)
    if idea.modulus:
        rest = rest % idea.modulus
    valued = np.ones(table.rows, bool)
    for u, _ in idea.terms:
        valued &= cells[u].states == State.VALUE
    state = cells[x].states
    entry, entry_state = _majority(place[valued], size, rest[valued], state[valued])
    return Derived(
        name=grids[x].name,
        terms=tuple(Term(column=grids[u].name, factor=f) for u, f in idea.terms),
        keys=tuple(grids[u].name for u in idea.keys),
        modulus=idea.modulus,
        base=int(table.low[x]) if idea.modulus else 0,
        table=tuple(entry.tolist()),
        states=tuple(entry_state.tolist()) if entry_state.any() else (),
    )


def _majority(place: Ints, size: int, values: Ints, states: States) -> tuple[Ints, States]:
    """The most frequent value and state at each place; places that do not occur repeat the one before."""
    table, table_states, seen = np.zeros(size, np.int64), np.zeros(size, np.uint8), np.zeros(size, bool)
    values = np.where(states == State.VALUE, values, 0)
    table[place], table_states[place], seen[place] = values, states, True
    wrong = np.zeros(size, bool)
    wrong[place[(table[place] != values) | (table_states[place] != states)]] = True
    doubtful = np.flatnonzero(wrong[place])
    if len(doubtful):
        rows = doubtful[np.lexsort((states[doubtful], values[doubtful], place[doubtful]))]
        triple = np.stack([place[rows], values[rows], states[rows].astype(np.int64)])
        starts = np.flatnonzero(np.concatenate(([True], (np.diff(triple) != 0).any(axis=0))))
        counts = np.diff(np.concatenate((starts, [len(rows)])))
        rising = starts[np.argsort(counts, kind="stable")]
        table[triple[0, rising]], table_states[triple[0, rising]] = triple[1, rising], triple[2, rising]
    last = np.maximum.accumulate(np.where(seen, np.arange(size), 0))
    return table[last], table_states[last]


def _wrong(table: _Table, derived: Derived, target: int) -> Mask:
    """Rows that the function gets wrong."""
    by_name = {g.name: cells for g, cells in zip(table.grids, table.cells, strict=True)}
    result = derived.evaluate({g.name: g for g in table.grids}, by_name.__getitem__, table.rows)
    actual = table.cells[target]
    differ = (actual.states == State.VALUE) & (result.symbols != actual.symbols)
    return differ | (result.states != actual.states)


def _with_follows(table: _Table, derived: Derived, idea: _Idea, wrong: Mask) -> tuple[Derived, Mask]:
    """The function that takes its further nulls from another column, if one has them."""
    nulls = table.cells[idea.target].states == State.NULL
    if (wrong & nulls).sum() < 8:
        return derived, wrong
    best = (derived, wrong)
    shared = [
        (int(((cells.states == State.NULL) != nulls).sum()), i)
        for i, cells in enumerate(table.cells)
        if i != idea.target and (cells.states[wrong & nulls] == State.NULL).mean() >= 0.5
    ]
    for _, i in sorted(shared)[:MOST_FOLLOWED]:
        other = derived.model_copy(update={"follows": table.grids[i].name})
        other_wrong = _wrong(table, other, idea.target)
        if other_wrong.sum() < best[1].sum():
            best = (other, other_wrong)
    return best
