"""Lattices of floats: whole multiples of a step, shifted, and rounded to 15 significant decimal digits.

Averages of calibrated readings look like this once they have passed through a text file. Their decimals are far too
many to be counted, but their places on the lattice are whole numbers. Values are made in integers and by one division,
so that every machine makes the same bits. What the readings' own arithmetic did to the last digit is a *nudge*: how
many units of it to add.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MIN_DIGITS, MAX_DIGITS = 4, 22
"""Decimals of the unit: no last digit is before the point, and powers of ten are whole in float64."""
MAX_POINT = 30
"""Most bits after the point: the product of a symbol with so many stays below 2**61."""
MAX_HALVES = (1 << 62) - (1 << 59)
"""Largest number of halves of a unit of a value, and largest product of a symbol and the whole part of a step."""
MAX_OFFSET = 1 << 61
"""Of a lattice, in the same halves with the bits after the point."""
MAX_STEP = 1 << 62
"""Steps are below this, likewise."""
MAX_NUDGE = 127
"""Largest nudge that is written: a byte holds it."""
_FIFTEEN = 2 * 10**15
"""The least number of 16 digits, in halves of a unit."""
_EXCESS = 4
"""Most digits beyond 15 of a number below 2**63."""
_TENS = 10 ** np.arange(_EXCESS + 1)
_ROOM = 1.05
"""What a unit leaves for the place next to the largest value."""
_MIDDLE = (0.0025, 0.9975)
"""Quantiles between which values are no strays."""
_FIT_ROUNDS = 6
_CLOSE = 0.01
"""Steps by which a gap of the fitted values may differ from a whole number of them."""
_NEAR = 0.75
"""Last digits by which a fitted value may be off to count in the next round: rounding makes half of one."""
_IN_STEP = 0.8
"""Share of the distinct values that must be whole numbers of steps apart."""
_SHARE = 0.99
"""Share of values that must lie within `MAX_NUDGE` of a lattice for it to be one."""
_UNMOVED = 0.8
"""And of those that must need no nudge."""


class Lattice(NamedTuple):
    """Values `offset + step * k`, in halves of `10**-digits`; the lowest `point` bits are after the binary point."""

    offset: int
    step: int
    digits: int
    point: int


def lattice_halves(symbols: Ints, lattice: Lattice) -> Ints:
    """What symbols stand for, in halves of a unit, rounded down."""
    whole, rest = lattice.step >> lattice.point, lattice.step & ((1 << lattice.point) - 1)
    return symbols * whole + ((symbols * rest + lattice.offset) >> lattice.point)


def lattice_symbols(values: Floats, lattice: Lattice) -> Floats:
    """The nearest symbol of each value, as a float; of what is far off, anything."""
    half = 0.5 * 10.0**-lattice.digits * 0.5**lattice.point
    return np.rint((values - lattice.offset * half) / (lattice.step * half))


def halves(values: Floats, digits: int) -> Ints:
    """Floats, rounded to 15 significant digits, in halves of `10**-digits`; 0 for what is no number or too large.

    One multiplication is enough: it errs by less than a quarter of the 15th digit.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.rint(values * float(2 * 10**digits))
        numbers = np.where(np.abs(numbers) <= float(MAX_HALVES), numbers, 0.0).astype(np.int64)
    excess = _excess(numbers)
    return _digits(numbers, excess) * (2 * _TENS[excess])


def rounded(numbers: Ints, digits: int, nudges: Ints) -> Floats:
    """Halves of `10**-digits` as floats of 15 significant digits, ties upwards, moved by so many last digits.

    >>> third = Lattice(offset=0, step=round(2 * 10**15 / 3 * 2**10), digits=15, point=10)
    >>> numbers = lattice_halves(np.array([-1, 0, 2, 400]), third)
    >>> rounded(numbers, 15, np.array([0, 0, 0, 1])).tolist()
    [-0.333333333333333, 0.0, 0.666666666666667, 133.333333333334]
    """
    excess = _excess(numbers)
    units = np.array([float(10 ** (digits - k)) for k in range(_EXCESS + 1)])
    return (_digits(numbers, excess) + nudges) / units[excess]


def nudges_to(values: Floats, numbers: Ints, digits: int) -> Ints:
    """The nudges by which `rounded` comes nearest to values; far off the lattice, 0."""
    excess = _excess(numbers)
    nudges = _digits(halves(values, digits), excess) - _digits(numbers, excess)
    return np.where(np.abs(nudges) <= MAX_NUDGE, nudges, 0)


def moved(values: Floats, nudges: Ints) -> Floats:
    """Floats moved by so many of their last places, away from 0 or, if negative, towards it.

    >>> moved(np.array([1.0, -1.0]), np.array([1, -1])).tolist()
    [1.0000000000000002, -0.9999999999999999]
    """
    with np.errstate(over="ignore"):
        return (values.view(np.int64) + nudges).view(np.float64)


def places_to(values: Floats, made: Floats) -> Ints:
    """The nudges by which `moved` makes values of what was made; far off it, 0."""
    with np.errstate(over="ignore"):
        nudges = values.view(np.int64) - made.view(np.int64)
    return np.where((nudges >= -MAX_NUDGE) & (nudges <= MAX_NUDGE), nudges, 0)


def last_digit(numbers: Ints) -> Ints:
    """What the 15th digit of each counts, in halves of a unit."""
    return 2 * _TENS[_excess(numbers)]


def unit_digits(largest: float) -> int:
    """The finest unit in which values up to `largest` fit, as its decimals; 0 if there is none."""
    if not 0 < largest < 1e14:
        return 0
    digits = int(np.floor(np.log10(MAX_HALVES) - np.log10(2 * largest)))
    return min(digits, MAX_DIGITS) if digits >= MIN_DIGITS else 0


class Fitted(NamedTuple):
    """A lattice and the smallest and largest place of the values on it."""

    lattice: Lattice
    low: int
    high: int


def fit_lattice(values: Floats, table: Floats, *, widest: int) -> Fitted | None:
    """The lattice on which nearly all `values` (finite) lie, with fewer than `widest` places; None if there is none.

    `table` are the distinct ones, sorted. The commonest gap between neighbours gives the places of all, these the step
    and offset by weighted least squares.
    """
    low, high = np.quantile(table, _MIDDLE)
    middle = table[(table >= low) & (table <= high)]
    strays = len(middle) > 1 and table[-1] / 2 - table[0] / 2 > middle[-1] - middle[0]
    for part in (table, middle) if strays else (table,):
        placed = [_placed(values, lattice, widest) for lattice in _candidates(part, widest)]
        sound = [(share, fitted) for share, fitted in placed if fitted is not None]
        if sound:
            return max(sound, key=lambda pair: pair[0])[1]
    return None


def _candidates(table: Floats, widest: int) -> list[Lattice]:
    """The lattice of sorted values, as fitted and, where that is nearly so, through 0."""
    digits = unit_digits(_ROOM * float(np.abs(table).max()))
    numbers = halves(table, digits)
    step = _common_gap(np.diff(numbers), int(last_digit(numbers).max())) if digits else None
    kept = None if step is None else _in_step(numbers, step)
    if step is None or kept is None:
        return []
    places = np.cumsum(np.rint(np.diff(kept, prepend=kept[:1]) / step).astype(np.int64))
    if not 0 < places[-1] < widest:
        return []
    point = max(0, min(MAX_POINT, 60 - int(step).bit_length()))
    lattice = _least_squares(kept, places, Lattice(0, int(step * 2.0**point), digits, point))
    if lattice is None:
        return []
    return [lattice, lattice._replace(offset=0)] if abs(lattice.offset) < 8 << point else [lattice]


def _excess(numbers: Ints) -> Ints:
    """Digits beyond 15."""
    size = np.abs(numbers)
    return sum((size >= _FIFTEEN * 10**k for k in range(_EXCESS)), np.zeros(numbers.shape, np.int64))


def _digits(numbers: Ints, excess: Ints) -> Ints:
    unit = _TENS[excess]
    return (numbers + unit) // (2 * unit)


def _common_gap(gaps: Ints, least: int) -> float | None:
    """The middle of the commonest gaps above twice `least`: those within 1% of each other."""
    gaps = np.sort(gaps[gaps > 2 * least])
    if not len(gaps):
        return None
    upper = np.searchsorted(gaps, gaps * (1 + _CLOSE))
    first = int(np.argmax(upper - np.arange(len(gaps))))
    return float(np.median(gaps[first : upper[first]]))


def _in_step(numbers: Ints, step: float) -> Ints | None:
    """Without those that are no whole number of steps from either neighbour; None if they are many."""
    kept = numbers
    for _ in range(_FIT_ROUNDS):
        gaps = np.diff(kept) / step
        odd = np.abs(gaps - np.rint(gaps)) > _CLOSE
        alone = np.concatenate([odd[:1], odd[:-1] & odd[1:], odd[-1:]])
        if not alone.any():
            break
        kept = kept[~alone]
        if len(kept) < _IN_STEP * len(numbers):
            return None
    return kept


def _least_squares(numbers: Ints, places: Ints, lattice: Lattice) -> Lattice | None:
    """`lattice` fitted to numbers at places; symbol 0 becomes the place nearest to 0. None where none fits.

    Residuals are whole numbers, so that what float64 loses of them is mended in the next round.
    """
    unit = last_digit(numbers)
    first = int(numbers[0])
    weights = (unit.max() / unit) ** 2.0
    for _ in range(_FIT_ROUNDS):
        rest = numbers - first - lattice_halves(places, lattice)
        off = np.abs(rest) / unit
        near = weights * (off <= max(_NEAR, 3 * float(np.median(off))))
        centre = np.average(places, weights=near)
        spread = float((near * (places - centre) ** 2).sum())
        if not spread > 0:  # one place has them all
            return None
        slope = float((near * (places - centre) * rest).sum()) / spread
        shift = float(np.average(rest, weights=near) - slope * centre)
        scale = 2.0**lattice.point
        lattice = lattice._replace(
            offset=lattice.offset + round(shift * scale), step=lattice.step + round(slope * scale)
        )
        if not (0 < lattice.step < MAX_STEP and abs(lattice.offset) <= MAX_OFFSET):
            return None
    offset = lattice.offset + (first << lattice.point)
    return lattice._replace(offset=offset - round(offset / lattice.step) * lattice.step)


def _placed(values: Floats, lattice: Lattice, widest: int) -> tuple[float, Fitted | None]:
    """Share of values that need no nudge, and the lattice if it is one of nearly all of them."""
    with np.errstate(over="ignore"):
        places = lattice_symbols(values, lattice)
    inside = np.abs(places) <= min(MAX_HALVES // max(1, lattice.step >> lattice.point), 1 << 31)
    symbols = np.where(inside, places, 0.0).astype(np.int64)
    numbers = lattice_halves(symbols, lattice)
    nudges = nudges_to(values, numbers, lattice.digits)
    same = inside & (rounded(numbers, lattice.digits, nudges) == values)
    unmoved = float(np.mean(same & (nudges == 0)))
    if np.mean(same) < _SHARE or unmoved < _UNMOVED:
        return unmoved, None
    low, high = int(symbols[same].min()), int(symbols[same].max())
    return unmoved, Fitted(lattice, low, high) if high - low < widest else None
