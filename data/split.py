"""Which rows train, validate and test: whole runs of neighbouring rows, dealt by hash."""

from __future__ import annotations

import hashlib

import numpy as np
from pydantic import Field

from data.schema import Frozen

TRAIN, VALIDATION, TEST = 0, 1, 2
RUN_ROWS = 4096
"""Rows of a run in a table that has enough of them."""
_DEAL = 10
"""Runs dealt at once: of each ten, eight train, one validates, one tests."""
_ENOUGH_RUNS = 40


class Split(Frozen):
    """A deterministic split of a table's rows by runs.

    Runs are dealt in tens, each ten in an order hashed from seed and number: the share of each split is exact, the
    place of a run depends on its index alone, and rows appended later never move a complete run.
    """

    run_rows: int = Field(default=RUN_ROWS, ge=1)
    """Rows of a run; neighbours within a run stay together, or a series would leak from train to test."""
    seed: int = Field(default=0, ge=0)
    """Seed of the hash."""

    def of(
        self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """0 train, 1 validation or 2 test for each of these row numbers."""
        runs = np.asarray(rows, np.int64) // self.run_rows
        if not len(runs):
            return np.zeros(0, np.uint8)
        deals = np.concatenate([self._deal(number) for number in range(int(runs.max()) // _DEAL + 1)])
        return deals[runs]

    def _deal(self, number: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """The splits of one ten of runs."""
        keys = [hashlib.sha256(f"{self.seed}/{number}/{run}".encode()).digest() for run in range(_DEAL)]
        order = sorted(range(_DEAL), key=keys.__getitem__)
        if number == 0:
            # So that even a table of three rows has one for each split.
            order = [1, 2, *(run for run in order if run not in (1, 2))]
        deal = np.full(_DEAL, TRAIN, np.uint8)
        deal[order[0]] = VALIDATION
        deal[order[1]] = TEST
        return deal


def split_for(rows: int, seed: int = 0) -> Split:
    """The split of a table of so many rows: runs of 4,096 rows, shorter (a power of two) in small tables.

    >>> split_for(1_000_000).run_rows, split_for(10_000).run_rows, split_for(30).run_rows
    (4096, 128, 1)
    """
    longest = max(1, rows // _ENOUGH_RUNS)
    return Split(run_rows=min(RUN_ROWS, 1 << (longest.bit_length() - 1)), seed=seed)
