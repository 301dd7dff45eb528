"""How sure it is that one model costs less than another: both on the same windows of held-out rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data.split import TEST
from vae.pipeline import Split, score
from vae.store import TrainedModel

WINDOWS = 16
"""Windows of held-out rows, evenly spread, at most."""
WINDOW_ROWS = 512
"""Rows of one, at most. Neighbours are alike in a series, so that rows one by one would seem surer than they are."""


def bits_error(one: TrainedModel, other: TrainedModel, table: pa.Table, split: Split) -> float:
    """Standard error of the difference of two models' bits a row, paired by windows of the rows that `split` says are
    test rows.

    Infinite where there are too few rows for two windows: nothing is sure then.
    """
    rows = np.flatnonzero(split == TEST)
    differences: list[float] = []
    for window in windows(len(rows)):
        part = table.take(pa.array(rows[window]))
        tested = np.full(part.num_rows, TEST, np.uint8)
        differences.append(score(one, part, tested).bits_per_row - score(other, part, tested).bits_per_row)
    if len(differences) < 2:
        return float("inf")
    return float(np.std(differences, ddof=1) / np.sqrt(len(differences)))


def windows(rows: int) -> list[slice]:
    """Windows of as many rows, evenly spread over `rows`, none of which is in two.

    >>> windows(3)
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    >>> windows(100_000)[:2], len(windows(100_000)), windows(0)
    ([slice(0, 512, None), slice(6632, 7144, None)], 16, [])
    """
    count = min(WINDOWS, rows)
    size = min(WINDOW_ROWS, rows // max(1, count))
    starts = np.linspace(0, rows - size, count).astype(int).tolist()
    return [slice(start, start + size) for start in starts]
