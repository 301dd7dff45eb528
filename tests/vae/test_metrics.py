"""Metrics against values worked out by hand."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from vae import metrics


def quality(original: pa.Array, restored: pa.Array) -> dict[str, float | None]:
    return metrics.column_quality(pa.chunked_array([original]), pa.chunked_array([restored]))


def test_sparsity_of_known_codes() -> None:
    codes = np.array([[0, 2, 0, 0], [1, -1, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0]], np.int8)
    found = metrics.sparsity(codes)
    assert found["mean_nonzero"] == 1.0
    assert found["hoyer"] == pytest.approx((1 + (2 - 2**0.5) + 1 + 1) / 4)
    assert (found["active_units"], found["dead_latents"]) == (2, 2)
    assert metrics.usage(codes).tolist() == [0.25, 0.75, 0.0, 0.0]


def test_sparsity_of_no_rows_and_of_one_latent() -> None:
    none = {"mean_nonzero": 0.0, "hoyer": 1.0, "active_units": 0.0, "dead_latents": 3.0}
    assert metrics.sparsity(np.zeros((0, 3), np.int8)) == none
    assert metrics.usage(np.zeros((0, 3), np.int8)).tolist() == [0, 0, 0]
    assert metrics.hoyer(np.array([[3.0], [0.0]])).tolist() == [1.0, 1.0]


def test_numbers_are_judged_by_error_and_r2() -> None:
    found = quality(pa.array([1, 2, 3, 6]), pa.array([1, 2, 5, 6]))
    assert found["max_error"] == 2
    assert found["rmse"] == 1
    assert found["r2"] == found["score"] == pytest.approx(1 - 1 / 3.5)
    assert found["accuracy"] is None


def test_worse_than_the_mean_scores_zero() -> None:
    found = quality(pa.array([1.0, 2.0]), pa.array([5.0, -5.0]))
    assert found["r2"] is not None
    assert found["r2"] < 0
    assert found["score"] == 0


def test_nulls_and_what_is_not_finite_do_not_count_but_a_lost_value_does() -> None:
    original = pa.array([1.0, 3.0, None, float("nan"), float("inf")])
    assert quality(original, pa.array([1.0, 3.0, 7.0, 0.0, 0.0]))["max_error"] == 0
    lost = quality(original, pa.array([1.0, None, None, 0.0, 0.0]))
    assert lost["max_error"] == 1  # the mean of 1 and 3 stands in
    assert lost["null_accuracy"] == 0.8


def test_times_are_judged_in_their_own_unit() -> None:
    original = pa.array([0, 100, 200], pa.timestamp("s", tz="UTC"))
    restored = pa.array([0, 100, 260], pa.timestamp("s", tz="UTC"))
    assert quality(original, restored)["max_error"] == 60


@pytest.mark.parametrize(
    ("restored", "accuracy", "score"),
    [(["a", "a", "a", "b"], 1.0, 1.0), (["a", "a", "a", "a"], 0.75, 0.0), (["b", None, "a", "b"], 0.5, 0.0)],
)
def test_categories_are_judged_above_the_majority(restored: list[Any], accuracy: float, score: float) -> None:
    found = quality(pa.array(["a", "a", "a", "b"]), pa.array(restored))
    assert (found["accuracy"], found["score"], found["r2"]) == (accuracy, score, None)


def test_booleans_dictionaries_and_nested_values_are_categories() -> None:
    assert quality(pa.array([True, False, True]), pa.array([True, False, False]))[
        "accuracy"
    ] == pytest.approx(2 / 3)
    names = pa.array(["x", "y", "x"]).dictionary_encode()
    assert quality(names, names)["score"] == 1
    lists = pa.array([[1, 2], [3], [1, 2]])
    assert quality(lists, pa.array([[1, 2], [3], [4]]))["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "array", [pa.array([4, 4, 4]), pa.array(["a", "a"]), pa.nulls(3, pa.int64()), pa.nulls(2, pa.string())]
)
def test_a_constant_or_empty_column_has_no_score(array: pa.Array) -> None:
    assert quality(array, array)["score"] is None


def test_the_code_score_is_the_mean_of_the_columns_that_have_one() -> None:
    table = pa.table({"n": [1, 2, 3, 6], "c": ["a", "a", "a", "b"], "k": [1, 1, 1, 1]})
    restored = pa.table({"n": [1, 2, 5, 6], "c": ["a", "a", "a", "a"], "k": [1, 1, 1, 1]})
    found = metrics.table_quality(table, restored)
    assert list(found) == ["n", "c", "k"]
    assert metrics.code_score(found) == pytest.approx((1 - 1 / 3.5 + 0) / 2)
    assert metrics.code_score({}) == 0


def parquet_files(table: pa.Table, folder: Path) -> dict[str, int]:
    """Bytes of the Parquet file that Arrow makes of a table."""
    pq.write_table(table, folder / "snappy", compression="snappy")
    return {"parquet_snappy": (folder / "snappy").stat().st_size}


def test_general_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    table = pa.table(
        {"n": range(1000), "c": ["a", "b"] * 500, "d": pa.array(["x", "y"] * 500).dictionary_encode()}
    )
    sink = io.BytesIO()
    csv.write_csv(table.set_column(2, "d", table["d"].cast(pa.string())), sink)
    assert metrics.general_sizes(table) == {"csv": len(sink.getvalue()), **parquet_files(table, tmp_path)}


def test_nested_values_have_a_size_as_text() -> None:
    assert metrics.csv_bytes(pa.table({"v": [[1, 2]]})) == len('"v"\n"[1, 2]"\n')


def test_evidence_of_a_gaussian_model_reaches_its_marginal_likelihood() -> None:
    """p(z) = N(0, 1) and p(x|z) = N(z, 1), so p(x) = N(0, 2); the ELBO is lower by KL(q, posterior)."""
    random = np.random.default_rng(0)
    x = np.array([0.5, -1.0, 2.0])
    mean, deviation = 0.4 * x, 0.8
    z = mean + deviation * random.normal(size=(20_000, 3))

    def normal(value: Any, center: Any, spread: float) -> Any:
        return -0.5 * ((value - center) / spread) ** 2 - np.log(spread) - 0.5 * np.log(2 * np.pi)

    weights = normal(z, 0, 1) + normal(x, z, 1) - normal(z, mean, deviation)
    elbo, bound = metrics.evidence(weights)
    exact = normal(x, 0, 2**0.5).mean() / np.log(2)
    posterior, spread = x / 2, 0.5**0.5
    gap = np.log(spread / deviation) + (deviation**2 + (mean - posterior) ** 2) / (2 * spread**2) - 0.5
    assert bound == pytest.approx(exact, abs=0.002)
    assert elbo == pytest.approx(exact - gap.mean() / np.log(2), abs=0.01)


def test_numbers_whose_squares_overflow_have_no_score():
    given = pa.chunked_array([[1e300, -1e300, 1.0]])
    found = metrics.column_quality(given, pa.chunked_array([[1e300, 1e300, 1.0]]))
    assert found["r2"] is None
    assert found["score"] is None
    assert found["max_error"] == 2e300


NO_CSV: dict[str, int] = {}
"""Arrow writes no view as CSV, and bytes that are no text are none."""


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (pa.string_view(), ["a", "b", None, "a"], NO_CSV),
        (pa.binary_view(), [b"a", b"\xff", None, b"a"], NO_CSV),
        (pa.binary(), [b"a", b"\xff", None, b"a"], NO_CSV),
        (
            pa.decimal32(5, 2),
            [Decimal("1.25"), Decimal("2.50"), None, Decimal("1.25")],
            {"csv": len('"v","n"\n1.25,1\n2.50,2\n,3\n1.25,4\n')},
        ),
    ],
)
def test_every_type_is_measured_and_sized(
    kind: pa.DataType, values: list[object], text: dict[str, int], tmp_path: Path
) -> None:
    table = pa.table({"v": pa.array(values, kind), "n": [1, 2, 3, 4]})
    assert metrics.general_sizes(table) == {**text, **parquet_files(table, tmp_path)}
    restored = table.set_column(0, "v", pa.array([values[0], values[0], values[0], values[0]], kind))
    empty = dict.fromkeys(("max_error", "rmse", "r2"))
    whole = {**empty, "accuracy": 1.0, "score": 1.0, "null_accuracy": 1.0}
    assert metrics.table_quality(table, table)["v"] == whole
    guessed = {**empty, "accuracy": 2 / 3, "score": 0.0, "null_accuracy": 0.75}  # no better than the majority
    assert metrics.table_quality(table, restored)["v"] == guessed
