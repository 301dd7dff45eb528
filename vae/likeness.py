"""Which of very many columns are looked at beside one: those that go along with it most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MANY = 64
"""Columns up to which every one is looked at beside every other."""
NEAREST = 32
"""Of more columns, those that are: of numbers the likest, and of others the first."""


def likeness(columns: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """Correlation of the ranks of each two columns without its sign, from 0 to 1; (columns, columns).

    >>> x = np.arange(100)
    >>> (likeness([x, -(x**3), x % 10]) > 0.9).tolist()
    [[True, True, False], [True, True, False], [False, False, True]]
    """
    # ties in the order of rows, for which any would do
    ranks = np.stack([np.argsort(np.argsort(column, kind="stable")) for column in columns]).astype(np.float32)
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= np.maximum(1, ranks.std(axis=1, keepdims=True))
    return np.abs(ranks @ ranks.T) / max(1, ranks.shape[1])


def nearest(like: npt.NDArray[np.float32], numbers: Sequence[int], others: Sequence[int]) -> list[int]:
    """Which of the numbers, and of the columns that are none, are looked at beside one that is so `like` each."""
    if len(numbers) + len(others) <= MANY:
        return sorted([*numbers, *others])
    ranked = sorted(numbers, key=lambda column: -like[column])
    return sorted([*ranked[:NEAREST], *others[:NEAREST]])
