"""Rounded fractions: floats that are whole multiples of 1 / parts, written with so many decimals.

Measurements that were averaged or converted before they were rounded look like this; told by numerators, a table of
them takes about a third.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

MAX_PARTS = 1 << 17
"""Largest denominator of the fractions that rounded floats are recognised as."""


def fractions(numerators: Ints, parts: int, digits: int) -> npt.NDArray[np.float64]:
    """Whole multiples of 1 / parts, rounded to so many decimals; the same on every machine.

    >>> fractions(np.array([1, 2, 3]), 3, 4).tolist()
    [0.3333, 0.6667, 1.0]
    """
    unit = float(10**digits)
    return np.rint(numerators * unit / parts) / unit + 0.0


def numerators(values: npt.NDArray[np.float64], parts: int) -> Ints:
    """The inverse of `fractions`."""
    return np.rint(values * parts).astype(np.int64)


def denominator(table: npt.NDArray[np.float64], digits: int, *, widest: int) -> int:
    """The smallest denominator of which all of a sorted table are rounded fractions, or 0.

    Also 0 where numerators lie further apart than `widest`, or the first further than that from 0. Denominators end at
    1 / 8 of the decimals' own unit, beyond which nearly everything is a fraction of something.
    """
    if np.abs(table).max() * MAX_PARTS >= 2.0**53:  # numerators would not be whole
        return 0
    slack = 0.5 * 10.0**-digits * 1.001

    def near(values: npt.NDArray[np.float64], parts: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        scaled = values * parts[:, None]
        return np.all(np.abs(scaled - np.rint(scaled)) <= slack * parts[:, None], axis=1)

    sample = table[:: max(1, len(table) // 64)]
    most = min(MAX_PARTS, 10**digits // 8)
    for first in range(2, most + 1, 4096):
        parts = np.arange(first, min(first + 4096, most + 1), dtype=np.float64)
        parts = parts[near(sample, parts)]
        while len(parts):
            candidate = int(parts[0])
            whole = numerators(table, candidate)
            odd = table[fractions(whole, candidate, digits) != table]
            if not len(odd):
                # larger denominators have wider gaps still
                return candidate if np.abs(np.diff(whole, prepend=0)).max() <= widest else 0
            parts = parts[1:][near(odd[:64], parts[1:])]
    return 0
