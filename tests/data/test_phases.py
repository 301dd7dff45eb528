"""Places of bins: what a sequence of symbols costs."""

from __future__ import annotations

import numpy as np
import pytest

from data.phases import ESCAPE_BITS, RUN_ROWS, RUNS, description_bits, first_offset, sampled


def test_a_constant_costs_one_count() -> None:
    assert description_bits(np.zeros(1024, np.int64), 0) == pytest.approx(5.0)  # half of log2(1024), one pair


def test_independent_symbols_cost_their_entropy() -> None:
    symbols = np.random.default_rng(0).integers(0, 4, 100_000)
    assert description_bits(symbols, 0) / 100_000 == pytest.approx(2.0, abs=0.01)


def test_escapes_are_counted() -> None:
    assert description_bits(np.zeros(0, np.int64), 3) == 3 * ESCAPE_BITS


def test_names_of_symbols_do_not_matter() -> None:
    symbols = np.random.default_rng(1).integers(0, 5, 1000)
    assert description_bits(symbols * 1000 - 7, 0) == description_bits(symbols, 0)


def test_long_columns_are_sampled_in_runs() -> None:
    values = np.arange(RUNS * RUN_ROWS * 3)
    sample = sampled(values)
    assert len(sample) == RUNS * RUN_ROWS
    assert (sample[0], sample[-1]) == (0, values[-1])
    assert (np.diff(sample) != 1).sum() == RUNS - 1
    assert sampled(values[:5]) is not values
    assert sampled(values[:5]).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_the_first_middle_is_within_the_bound_of_the_lowest_value(kind: type) -> None:
    rng = np.random.default_rng(2)
    for low, bound in zip(
        rng.normal(size=500).astype(kind).astype(float), rng.exponential(size=500), strict=True
    ):
        offset = first_offset(low, float(bound), np.dtype(kind))
        assert offset == float(kind(offset))
        assert offset - low <= bound
