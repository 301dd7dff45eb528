"""Rows out of a model: as likely as it says, of the table's types, and on the way from one to another."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vae.codes import encode_rows, rows_from_codes
from vae.generate import rows_between, sample_rows
from vae.pipeline import integer_model
from vae.store import TrainedModel


def shares(column: pa.ChunkedArray) -> dict[str | None, float]:
    values, counts = np.unique([str(value) for value in column.to_pylist()], return_counts=True)
    return dict(zip(values.tolist(), (counts / counts.sum()).tolist(), strict=True))


@pytest.fixture(scope="module")
def sampled(trained: TrainedModel) -> pa.Table:
    return sample_rows(trained, 6_000, seed=1)


def test_samples_are_rows_of_the_table(trained: TrainedModel, table: pa.Table, sampled: pa.Table) -> None:
    assert sampled.num_rows == 6_000
    assert [(f.name, f.type) for f in sampled.schema] == [(f.name, f.type) for f in table.schema]
    assert set(sampled["color"].to_pylist()) <= set(table["color"].to_pylist())
    size = np.array(sampled["size"].drop_null())
    assert (
        np.array(table["size"].drop_null()).min()
        <= size.min()
        <= size.max()
        <= np.array(table["size"].drop_null()).max()
    )
    assert sampled["always"].to_pylist() == [7] * 6_000  # follows by a function, here too
    assert sampled["id"].null_count == 6_000  # the model knows nothing of it


def test_samples_come_as_often_as_in_the_table(table: pa.Table, sampled: pa.Table) -> None:
    for name in ("color", "large"):
        given, found = shares(table[name]), shares(sampled[name])
        for value, share in given.items():
            assert found.get(value, 0.0) == pytest.approx(share, abs=0.08), (name, value)
    assert sampled["size"].null_count / 6_000 == pytest.approx(
        table["size"].null_count / len(table), abs=0.03
    )


def test_samples_keep_what_columns_say_of_each_other(sampled: pa.Table) -> None:
    rows = sampled.to_pandas()
    rows = rows[rows["size"].notna()]
    assert np.corrcoef(rows["size"], rows["weight"])[0, 1] > 0.9
    assert ((rows["size"] > 60) == rows["large"]).mean() > 0.9


def test_a_sample_costs_what_the_model_says_of_it(trained: TrainedModel) -> None:
    """Noise is a file like any other: written again, what was read out of it takes as many bits as went in."""
    model = integer_model(trained)
    rows = 4_000
    symbols, states, codes = model.sample_block(rows, np.random.Generator(np.random.Philox(key=0)))
    again = model.encode_block(symbols, states, codes)
    back = model.decode_block(again, rows)
    assert all(np.array_equal(one, other) for one, other in zip(back, (symbols, states, codes), strict=True))
    held = sum(map(len, again))
    real = encode_rows(trained, sample_rows(trained, rows, seed=5))
    assert real.shape == codes.shape
    # what the model takes for likely is about as dear as the table that it was trained on
    assert 0.7 < held / (rows * trained.record["history"][-1]["bits"] / 8) < 1.3


def test_the_seed_decides(trained: TrainedModel) -> None:
    one, same, other = (sample_rows(trained, 50, seed=seed) for seed in (3, 3, 4))
    assert one.equals(same)
    assert not one.equals(other)


def test_more_rows_than_a_block(trained: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae.codec.integer.IntegerModel.block_rows", property(lambda _: 100))
    told = list[tuple[int, int]]()
    assert sample_rows(trained, 250, on_progress=lambda *seen: told.append(seen)).num_rows == 250
    assert told == [
        (50, 250),
        (100, 250),
        (150, 250),
        (200, 250),
        (250, 250),
    ]  # half a block is for what was seen


def test_the_way_begins_and_ends_with_the_rows_own_codes(trained: TrainedModel, table: pa.Table) -> None:
    pair = table.take(pa.array([3, 77]))
    way = rows_between(trained, pair, 5)
    assert way.num_rows == 5
    ends = rows_from_codes(trained, encode_rows(trained, pair))
    assert way.slice(0, 1).equals(ends.slice(0, 1))
    assert way.slice(4, 1).equals(ends.slice(1, 1))
