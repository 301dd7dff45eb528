"""How sure a difference of bits is, by windows of held-out rows."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.split import TEST, TRAIN
from vae import paired

ROWS = 40_000
ONE: Any = "one"
OTHER: Any = "other"


@pytest.fixture(autouse=True)
def _bits_are_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """A "model" is the name of a column that says what each row costs."""

    def score(model: Any, table: pa.Table, split: Any) -> Any:
        assert (split == TEST).all()
        return SimpleNamespace(bits_per_row=float(np.mean(table[model].to_numpy())))

    monkeypatch.setattr(paired, "score", score)


def error(one: Any, other: Any, split: Any = None, rows: int = ROWS) -> float:
    held = np.full(rows, TEST, np.uint8) if split is None else split
    return paired.bits_error(ONE, OTHER, pa.table({ONE: one, OTHER: other}), held)


def test_it_is_that_of_the_mean_of_independent_differences() -> None:
    random = np.random.default_rng(0)
    found = [error(random.normal(40, 2, ROWS), random.normal(40, 1, ROWS)) for _ in range(20)]
    windows = paired.WINDOWS * paired.WINDOW_ROWS
    assert np.mean(found) == pytest.approx(math.sqrt((4 + 1) / windows), rel=0.1)


def test_what_both_have_in_common_is_no_error() -> None:
    dear = np.random.default_rng(0).normal(40, 20, ROWS)
    assert error(dear, dear + 0.5) == pytest.approx(0, abs=1e-12)


def test_neighbours_that_are_alike_are_one_witness() -> None:
    random = np.random.default_rng(0)
    long = np.repeat(random.normal(0, 1, ROWS // 400), 400)
    alone = random.normal(0, 1, ROWS)
    zero = np.zeros(ROWS)
    assert error(long, zero) > 8 * error(alone, zero)


def test_only_held_out_rows_count() -> None:
    held = np.arange(ROWS) % 1_000 < 300
    cost = np.where(held, 1.0, np.random.default_rng(0).normal(0, 99, ROWS))
    assert error(cost, np.zeros(ROWS), np.where(held, TEST, TRAIN).astype(np.uint8)) == 0


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_is_sure_of_one_row(rows: int) -> None:
    assert error(np.zeros(rows), np.ones(rows), rows=rows) == math.inf
