"""Folds of a table, what a trial may choose, and what it is measured by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.split import TEST
from vae import tuning
from vae.judging import HELD_RUN
from vae.metrics import probe
from vae.settings import Codes, Family, ModelSettings, TrainSettings


@given(rows=st.integers(1, 2_000), count=st.integers(2, 6))
def test_each_row_is_held_out_once_with_its_neighbours(rows: int, count: int) -> None:
    splits = tuning.folds(rows, count)
    held = np.stack([split == TEST for split in splits])
    assert (held.sum(0) == 1).all()
    if rows >= count * HELD_RUN:
        owner = held.argmax(0)
        assert (np.diff(owner) != 0).sum() <= rows // HELD_RUN


def test_a_trial_chooses_within_what_is_offered() -> None:
    class First:
        def suggest_categorical(self, name: str, choices: object) -> object:
            del name
            return list(choices)[0]  # type: ignore[call-overload]  # noqa: RUF015

    base = ModelSettings(family=Family.topk, encoder_width=64)
    found = tuning.chosen(First(), base)
    assert (found.latents, found.codes, found.width) == (4, Codes.lean, 8)
    assert (found.family, found.encoder_width) == (Family.topk, 64)


@pytest.mark.parametrize(("target", "fewest"), [("nonzeros=10", 12), ("bits=3", 4), ("nonzeros=40", 256)])
def test_a_trial_can_have_what_the_target_asks_for(target: str, fewest: int) -> None:
    asked = dict[str, list[object]]()

    class First:
        def suggest_categorical(self, name: str, choices: list[object]) -> object:
            asked[name] = list(choices)
            return asked[name][0]

    found = tuning.chosen(First(), ModelSettings(target=target))
    assert found.latents == fewest
    assert set(asked) == {"latents", "width"}  # the target says how much the code is asked for


@pytest.mark.parametrize("probed", [None, "color"])
def test_a_fold_is_measured_on_rows_that_it_did_not_see(table: pa.Table, probed: str | None) -> None:
    small = ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1)
    training = TrainSettings(steps=60, batch_rows=128, threads=1)
    (split, _) = tuning.folds(table.num_rows, 2)
    fold = tuning.measure(table, split, bounds={}, model=small, training=training, probed=probed)
    assert fold.total_bytes == pytest.approx(fold.model_bytes + fold.bits_per_row * table.num_rows / 8)
    assert 0 < fold.bits_per_row < 200
    assert (fold.probe is None) == (probed is None)
    if fold.probe is not None:
        assert 0.4 < fold.probe <= 1  # four colours, which size and weight tell


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(-2, 3, (4_000, 3)).astype(np.int8)
    names = pa.chunked_array([pa.array([None if k == 2 else f"n{k}" for k in codes[:, 0]])])
    numbers = pa.chunked_array([pa.array(2.0 * codes[:, 1] + (codes[:, 2] != 0))])
    noise = pa.chunked_array([pa.array(random.normal(size=4_000))])

    def read(column: pa.ChunkedArray) -> float:
        return probe(codes[:3_000], column.slice(0, 3_000), codes[3_000:], column.slice(3_000))

    assert read(names) > 0.99
    assert read(numbers) == pytest.approx(1, abs=1e-6)
    assert abs(read(noise)) < 0.05
    assert read(pa.chunked_array([pa.array(["same"] * 4_000)])) == 0
