"""Float columns that are the sum or difference of two others, by float64 or rounded to 15 significant digits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from data.grid import ColumnGrid, State
from data.lattice import MAX_NUDGE, Floats, Ints, unit_digits
from data.stored import Mask, stored_numbers

if TYPE_CHECKING:
    from data.largetable import AnyTable

MAX_ADDENDS = 64
"""Columns among which addends are looked for."""
SEARCH_ROWS = 1 << 15
_FEW, _MANY = 16, 1024
"""Rows on which all pairs are tried, and about as many on which those are that did well."""
_SHARE = 0.75
"""Share of rows on which they must do well."""
_PAIRS, _WAYS = 16, 2
"""Most pairs that are looked at closely, and most ways that are told, of a column."""


def is_addend(kind: pa.DataType) -> bool:
    """Whether a column may be made of others, and others of it."""
    return bool(kind == pa.float64())


def find_sums(table: AnyTable, among: Sequence[str], wanted: Sequence[str]) -> list[ColumnGrid]:
    """What columns of `wanted` are sums or differences of, `among` columns that `is_addend` allows; the best ways.

    >>> net, tax = [k / 7 for k in range(99)], [k**0.5 for k in range(99)]
    >>> gross = [a + b for a, b in zip(net, tax)]
    >>> table = pa.table({"net": net, "tax": tax, "gross": gross})
    >>> [(grid.scale, grid.sources, grid.digits) for grid in find_sums(table, ["net", "tax"], ["gross"])]
    [('sum', ('net', 'tax'), 0)]
    """
    values: dict[str, Floats] = {}
    largest: dict[str, float] = {}
    for name in dict.fromkeys([*among[:MAX_ADDENDS], *wanted]):
        values[name], largest[name] = _glance(table.column(name))
    found: list[ColumnGrid] = []
    for name in wanted:
        others = [other for other in among[:MAX_ADDENDS] if other != name]
        ways = sorted(_ways(name, others, values, largest), key=lambda way: -way[0])
        found += [grid for _, grid in ways[:_WAYS]]
    return found


def _glance(column: pa.ChunkedArray) -> tuple[Floats, float]:
    """Values of evenly spread rows, and the largest magnitude of all rows."""
    step = max(1, len(column) // SEARCH_ROWS)
    parts, largest, row = [np.zeros(0)], 0.0, 0
    for chunk in column.chunks:
        numbers = stored_numbers(chunk)[0]
        largest = max(largest, float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0)))
        parts.append(numbers[-row % step :: step])
        row += len(numbers)
    return np.concatenate(parts), largest


def _ways(
    name: str, others: Sequence[str], values: Mapping[str, Floats], largest: Mapping[str, float]
) -> Iterator[tuple[float, ColumnGrid]]:
    """Grids that make `name`, each with the share of rows that need no nudge."""
    rows = _telling(values[name])
    if len(others) < 2 or len(rows) < _FEW:
        return
    few = rows[:: len(rows) // _FEW][:_FEW]
    pairs = _pairs(values[name][few], {other: values[other][few] for other in others})
    for scale, first, second in islice(pairs, _PAIRS):
        whole, *addends = (pa.array(values[n][rows]) for n in (name, first, second))
        for digits in {unit_digits(max(largest[name], largest[first], largest[second])), 0}:
            grid = ColumnGrid(name=name, kind="number", scale=scale, digits=digits, sources=(first, second))
            coded = grid.encode(whole, addends)
            valued = coded.state == State.VALUE
            if np.mean(valued) >= _SHARE:
                yield float(np.mean(valued & (coded.nudges == 0))), grid


def _telling(values: Floats) -> Ints:
    """Rows of different values, spread over all."""
    rows = np.sort(np.unique(np.where(np.isfinite(values), values, 0.0), return_index=True)[1])
    return rows[:: max(1, len(rows) // _MANY)]


def _pairs(
    whole: Floats, others: Mapping[str, Floats]
) -> Iterator[tuple[Literal["sum", "difference"], str, str]]:
    """Pairs of columns that make `whole` on most rows, but for what a nudge can tell."""
    # what is 0 adds nothing: it would pair with whatever equals the whole
    names = [name for name, column in others.items() if np.mean(column != 0) >= _SHARE]
    if len(names) < 2:
        return
    columns = np.stack([others[name] for name in names])
    for place, first in enumerate(names):
        with np.errstate(over="ignore", invalid="ignore"):
            sums = _near(whole, columns[place] + columns[place + 1 :], columns[place])
            differences = _near(whole, columns[place] - columns, columns[place])
        for k in np.flatnonzero(sums.mean(axis=1) >= _SHARE):
            yield "sum", first, names[place + 1 + int(k)]
        for k in np.flatnonzero(differences.mean(axis=1) >= _SHARE):
            if k != place:
                yield "difference", first, names[int(k)]


def _near(whole: Floats, made: Floats, first: Floats) -> Mask:
    """Whether a nudge of the last of 15 digits may tell the one from the other."""
    return np.abs(whole - made) <= MAX_NUDGE * 1e-15 * np.maximum(np.abs(first), np.abs(whole))
