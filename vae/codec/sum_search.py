"""The search for columns that are sums or differences of others, on a sample of rows.

Of a few columns every sum is tried. Of many, whose sums are too many, only those that hold on a handful of rows: where
x = u + v + c, what x, u and v change by from one row to another adds up as well, and so do linear hashes of changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, islice, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Terms = tuple[tuple[int, int], ...]
"""Columns and their factors, 1 or -1."""

QUICK = 512
"""Rows on which sums are looked for first."""
FEWEST = 32
"""Rows with a value in all columns of a sum, of these, that say anything of it."""
EXHAUSTIVE = 64
"""Most columns of which every sum of two is tried."""
HANDFULS = 16
"""Handfuls of rows by which sums of more columns are looked for: what holds on most rows holds on all rows of some."""
HANDFUL = 9
"""Rows of one."""
MOVES = 3
"""Rows of a handful, at least, on which a column differs from the first: one that hardly moves is like all others."""
CHANGES = 4
"""Different amounts, at least, by which a column differs from there, to be looked at in sums of two: of small numbers
that are mostly 0, nearly all sums are another column's by chance."""
MOST = 1 << 16
"""Sums of two that one handful brings at most."""
OWN = 17
"""Rows of a handful drawn for one column, whose numbers are few or seldom there: more, or much is there by chance."""
PER_COLUMN = 64
"""Sums of one of many columns that are tried: those that hold on most handfuls."""
MAX_EXCEPTIONS = 0.02
"""Largest share of rows that a function may get wrong."""


class Sum(NamedTuple):
    """A column as a sum of others and a constant."""

    target: int
    terms: Terms
    modulus: int
    """By what the sum is wrapped; 0 if not at all."""


def sums(symbols: Ints, valued: Mask, numbers: Sequence[int]) -> Iterator[Sum]:
    """x = ±u + c, x = ±u ± v + c, modulo m; the simpler ones first.

    Args:
        symbols: (rows, columns), a sample of rows in any order.
        valued: Where these are values, as opposed to nulls and the like.
        numbers: The columns that may take part.
    """
    if not numbers:
        return
    likely = _every if len(numbers) <= EXHAUSTIVE else _hashed
    for target, terms in likely(symbols, valued, numbers):
        modulus = modulus_of(symbols, valued, target, terms)
        if modulus is not None:
            yield Sum(target, terms, modulus)


def _every(symbols: Ints, valued: Mask, numbers: Sequence[int]) -> Iterator[tuple[int, Terms]]:
    """Of all sums those that differ from a column by one number on half of the first rows."""
    quick, quick_valued = symbols[:QUICK][:, numbers], valued[:QUICK][:, numbers]
    single = [((u, f),) for u in numbers for f in (1, -1)]
    double = [((u, f), (v, g)) for u, v in combinations(numbers, 2) for f, g in product((1, -1), repeat=2)]
    for terms in (*single, *double):
        places = [u for u, _ in terms]
        there = quick_valued & np.logical_and.reduce(valued[:QUICK, places], axis=1, keepdims=True)
        rest = np.where(there, quick - _total(symbols[:QUICK], terms)[:, None], np.iinfo(np.int64).max)
        # the median of what is there, column by column
        count = np.count_nonzero(there, axis=0)
        middle = np.sort(rest, axis=0)[count // 2, np.arange(len(numbers))]
        hits = np.count_nonzero((rest == middle) & there, axis=0)
        for place in np.flatnonzero((hits >= 0.5 * count) & (count >= FEWEST)):
            if numbers[int(place)] not in places:
                yield numbers[int(place)], terms


def _hashed(symbols: Ints, valued: Mask, numbers: Sequence[int]) -> Iterator[tuple[int, Terms]]:
    """Sums that hold on a handful of rows; all of one term before those of two, the more frequent ones first."""
    random = np.random.default_rng(2)
    columns = np.array(numbers)
    found = Counter[tuple[int, Terms]]()
    telling = np.zeros(len(columns), np.int64)
    for _ in range(HANDFULS):
        rows = random.choice(len(symbols), min(HANDFUL, len(symbols)), replace=False)
        change, hashes, moves = _changes(symbols, valued, columns, rows, random)
        varied = moves.astype(bool) & (_amounts(change) >= CHANGES)
        telling += varied
        likely = moves >= MOVES
        added = islice(_added(columns[varied], hashes[varied]), MOST)
        found.update({*_alike(columns[likely], hashes[likely]), *added})
    for place in np.flatnonzero(telling < HANDFULS // 2).tolist():
        for rows in _own_rows(symbols[:, columns[place]], valued[:, columns[place]], random):
            _, hashes, moves = _changes(symbols, valued, columns, rows, random)
            if moves[place] >= MOVES:
                kept = np.flatnonzero(moves)
                found.update(set(_added_to(int(columns[place]), hashes[place], columns[kept], hashes[kept])))
    left = dict.fromkeys(numbers, PER_COLUMN)
    for target, terms in sorted(found, key=lambda pair: (len(pair[1]), -found[pair], pair)):
        left[target] -= 1
        if left[target] >= 0:
            yield target, terms


def _changes(
    symbols: Ints, valued: Mask, columns: Ints, rows: Ints, random: np.random.Generator
) -> tuple[Ints, npt.NDArray[np.uint64], Ints]:
    """What columns change by from the first of some rows, a linear hash of it, and on how many rows they change: on
    none where not all of them are values.
    """
    change = symbols[np.ix_(rows[1:], columns)] - symbols[rows[0], columns]
    factors = random.integers(1 << 63, size=len(change), dtype=np.uint64) | np.uint64(1)
    hashes = (change.astype(np.uint64) * factors[:, None]).sum(axis=0, dtype=np.uint64)
    there = valued[np.ix_(rows, columns)].all(axis=0)
    return change, hashes, np.where(there, np.count_nonzero(change, axis=0), 0)


def _own_rows(symbols: Ints, valued: Mask, random: np.random.Generator) -> Iterator[Ints]:
    """Handfuls for one column, of rows on which it has a value, more and more of them not its commonest one."""
    there = np.flatnonzero(valued)
    if len(there) < OWN:
        return
    values, counts = np.unique(symbols[there], return_counts=True)
    rare = there[symbols[there] != values[np.argmax(counts)]]
    for share in (0, OWN // 2, OWN - 1):
        own = random.choice(rare, min(share, len(rare)), replace=False)
        rows = np.concatenate([own, random.choice(there, OWN - len(own), replace=False)])
        yield np.unique(rows)


def _amounts(change: Ints) -> npt.NDArray[np.intp]:
    """Different numbers other than 0 in each column."""
    ordered = np.sort(change, axis=0)
    new = np.concatenate([np.ones((1, ordered.shape[1]), bool), np.diff(ordered, axis=0) != 0])
    return np.count_nonzero(new & (ordered != 0), axis=0)


def _alike(columns: Ints, hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[int, Terms]]:
    """Columns whose changes are those of another, or their negatives: each from the first of its kind."""
    first: dict[int, tuple[int, int]] = {}
    for column, value in zip(columns.tolist(), hashes.tolist(), strict=True):
        kind = min(value, -value % (1 << 64))
        sign = 1 if kind == value else -1
        if kind not in first:
            first[kind] = column, sign
            continue
        other, other_sign = first[kind]
        yield column, ((other, sign * other_sign),)
        yield other, ((column, sign * other_sign),)


def _signed(
    one: np.uint64, others: npt.NDArray[np.uint64]
) -> Iterator[tuple[int, int, npt.NDArray[np.uint64]]]:
    """±one ± others, with the two signs."""
    yield 1, 1, others + one
    yield 1, -1, one - others
    yield -1, 1, others - one
    yield -1, -1, np.negative(others + one)


def _added(columns: Ints, hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[int, Terms]]:
    """Columns whose changes are those of two others, with signs, added up."""
    hashes, kept = np.unique(hashes, return_index=True)
    columns = columns[kept]
    for i, u in enumerate(columns.tolist()):
        rest = hashes[i + 1 :]
        for f, g, total in _signed(hashes[i], rest):
            place = np.minimum(np.searchsorted(hashes, total), len(hashes) - 1)
            for j in np.flatnonzero(hashes[place] == total).tolist():
                v, x = int(columns[i + 1 + j]), int(columns[place[j]])
                if x not in (u, v):
                    yield x, ((u, f), (v, g)) if u < v else ((v, g), (u, f))


def _added_to(
    own: int, change: np.uint64, columns: Ints, hashes: npt.NDArray[np.uint64]
) -> Iterator[tuple[int, Terms]]:
    """Sums of two in which one column takes part, by hashes of changes: each of the three as a sum of the others."""
    order = np.argsort(hashes, kind="stable")
    for f, g, total in _signed(change, hashes):
        place = order[np.minimum(np.searchsorted(hashes, total, sorter=order), len(order) - 1)]
        for j in np.flatnonzero(hashes[place] == total).tolist():
            v, x = int(columns[j]), int(columns[place[j]])
            if len({own, v, x}) == 3:
                for target, *terms in (
                    (x, (own, f), (v, g)), (own, (x, f), (v, -f * g)), (v, (x, g), (own, -f * g))
                ):  # fmt: skip
                    yield target, tuple(sorted(terms))


def _total(symbols: Ints, terms: Terms) -> Ints:
    total = np.zeros(len(symbols), np.int64)
    for u, factor in terms:
        total += factor * symbols[:, u]
    return total


def modulus_of(symbols: Ints, valued: Mask, target: int, terms: Terms) -> int | None:
    """By what the sums must be wrapped to give the target, 0 if not at all; None if that does not explain it."""
    there = valued[:, [target, *(u for u, _ in terms)]].all(axis=1)
    rest = (symbols[:, target] - _total(symbols, terms))[there]
    values, counts = np.unique(rest, return_counts=True)
    away = np.abs(values - values[np.argmax(counts)])
    wrong = counts[away > 0].sum()
    if wrong <= MAX_EXCEPTIONS * len(rest):
        # a few wraps are wraps too, if they are all the same
        likely = away[away > 0][np.argmax(counts[away > 0])] if wrong else 0
        return int(likely) if wrong > 2 and (away % max(1, likely) == 0).all() and likely > 1 else 0
    likely = int(away[away > 0][np.argmax(counts[away > 0])])
    if likely < 2 or counts[away % likely != 0].sum() > MAX_EXCEPTIONS * len(rest):
        return None
    return likely
