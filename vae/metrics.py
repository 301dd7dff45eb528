"""What a model and its codes are worth: sparsity, reconstruction, size; pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc
import pyarrow.csv as _csv
import pyarrow.parquet as _pq
from numpy.typing import NDArray

from data.stored import is_numeric, stored_numbers
from vae.codec.summary import Count

pc, csv, pq = cast(Any, _pc), cast(Any, _csv), cast(Any, _pq)

ACTIVE_VARIANCE = 0.01
"""A latent is active if its code varies by more than this over the rows (Burda et al. 2016)."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def sparsity(codes: NDArray[Any]) -> dict[str, float]:
    """How sparse the codes [rows, latents] are.

    `mean_nonzero` is per row, `hoyer` the mean of Hoyer's measure over the rows (1 for a single non-zero or
    none, 0 for all alike), `active_units` the latents whose variance exceeds 0.01, `dead_latents` those that
    never vary.

    >>> sparsity(np.array([[0, 3, 0, 0], [0, 0, 0, 0], [0, -1, 1, 0]]))["mean_nonzero"]
    1.0
    """
    values = np.asarray(codes, np.float64)
    variance = values.var(axis=0) if len(values) else np.zeros(values.shape[1])
    return {
        "mean_nonzero": float((values != 0).sum(axis=1).mean()) if len(values) else 0.0,
        "hoyer": float(hoyer(values).mean()) if len(values) else 1.0,
        "active_units": float((variance > ACTIVE_VARIANCE).sum()),
        "dead_latents": float((variance == 0).sum()),
    }


def hoyer(values: Floats) -> Floats:
    """Hoyer's (2004) sparseness of each row, (√d - |x|₁/|x|₂) / (√d - 1); 1 for a row of zeros or one latent.

    >>> hoyer(np.array([[0.0, 5.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0, 1.0]
    """
    root = np.sqrt(values.shape[1])
    norm = np.sqrt((values**2).sum(axis=1))
    if root <= 1:
        return np.ones(len(values))
    ratio = np.abs(values).sum(axis=1) / np.where(norm > 0, norm, 1.0)
    return np.where(norm > 0, (root - ratio) / (root - 1), 1.0)


def usage(codes: NDArray[Any]) -> Floats:
    """Share of rows on which each latent is not zero."""
    values = np.asarray(codes)
    return (values != 0).mean(axis=0).astype(np.float64) if len(values) else np.zeros(values.shape[1])


def table_quality(original: pa.Table, restored: pa.Table) -> dict[str, dict[str, float | None]]:
    """`column_quality` of each column of `restored`."""
    return {
        name: column_quality(original.column(name), restored.column(name)) for name in restored.column_names
    }


def column_quality(original: pa.ChunkedArray, restored: pa.ChunkedArray) -> dict[str, float | None]:
    """How well a column came back.

    Numbers and times (in the unit they are stored in): `max_error`, `rmse`, `r2`. All others: `accuracy`.
    Both: `null_accuracy`, the share of rows that agree on being null, and `score`, R² for numbers and
    (accuracy - majority share) / (1 - majority share) for categories, clipped at 0. Only rows with a finite
    original value count; one restored as null counts as restored to the mean. What a column cannot have is
    None: a constant has no score.
    """
    given, back = plain(original), alike(plain(restored), original.type)
    absent, lost = _mask(pc.is_null(given)), _mask(pc.is_null(back))
    agreement = float((absent == lost).mean()) if len(absent) else None
    if _is_array(given.type) and _is_array(back.type):
        measured = _arrays(given, back)
    else:
        measured = _numbers(given, back) if is_numeric(given.type) else _names(given, back)
    return {**measured, "null_accuracy": agreement}


def code_score(quality: Mapping[str, Mapping[str, float | None]]) -> float:
    """The mean score of the columns that have one; 0 if none has."""
    scores = [column["score"] for column in quality.values()]
    kept = [score for score in scores if score is not None]
    return float(np.mean(kept)) if kept else 0.0


def _numbers(given: pa.Array, back: pa.Array) -> dict[str, float | None]:
    values, absent = _floats(given)
    restored, lost = _floats(back)
    rows = ~absent & np.isfinite(values)
    values, restored, lost = values[rows], restored[rows], lost[rows] | ~np.isfinite(restored[rows])
    if not len(values):
        return dict.fromkeys(("max_error", "rmse", "r2", "accuracy", "score"))
    with np.errstate(over="ignore", invalid="ignore"):  # squares of numbers near the largest are infinite
        mean = values.mean()
        error = np.abs(values - np.where(lost, mean, restored))
        power, variance = float((error**2).mean()), float(((values - mean) ** 2).mean())
    r2 = 1 - power / variance if 0 < variance < np.inf else None
    return {
        "max_error": float(error.max()),
        "rmse": power**0.5,
        "r2": r2,
        "accuracy": None,
        "score": max(0.0, r2) if r2 is not None else None,
    }


def _is_array(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) and is_numeric(cast(Any, kind).value_type)


def _arrays(given: pa.Array, back: pa.Array) -> dict[str, float | None]:
    """Arrays of numbers, images say: R² over all their values, each value's own mean known."""
    rows = pc.and_(pc.is_valid(given), pc.is_valid(back))
    values, restored = (
        _floats(cast(Any, array.filter(rows)).flatten())[0].reshape(-1, cast(Any, given.type).list_size)
        for array in (given, back)
    )
    error = restored - values
    power, variance = (
        float((error**2).mean()) if error.size else 0.0,
        float(values.var(0).mean()) if len(values) else 0.0,
    )
    r2 = 1 - power / variance if 0 < variance < np.inf else None
    return {
        "max_error": float(np.abs(error).max(initial=0.0)),
        "rmse": power**0.5,
        "r2": r2,
        "accuracy": None,
        "score": max(0.0, r2) if r2 is not None else None,
    }


def _names(given: pa.Array, back: pa.Array) -> dict[str, float | None]:
    if not _has_kernels(given.type):
        given, back = _texts(given), _texts(back)
    rows = pc.is_valid(given)
    values, restored = given.filter(rows), back.filter(rows)
    empty: dict[str, float | None] = dict.fromkeys(("max_error", "rmse", "r2", "accuracy", "score"))
    if not len(values):
        return empty
    accuracy = _share(_equal(values, restored))
    majority = _majority(values)
    score = max(0.0, (accuracy - majority) / (1 - majority)) if majority < 1 else None
    return {**empty, "accuracy": accuracy, "score": score}


def _equal(values: pa.Array, restored: pa.Array) -> Any:
    """Where two arrays agree."""
    return pc.fill_null(pc.equal(values, restored), False)


def _has_kernels(kind: pa.DataType) -> bool:
    """Whether Arrow compares and counts such values."""
    types = pa.types
    strange = (types.is_string_view, types.is_binary_view, types.is_decimal32, types.is_decimal64)
    return not types.is_nested(kind) and not any(is_strange(kind) for is_strange in strange)


def _texts(array: pa.Array) -> pa.Array:
    """What Python prints of each value, for types that Arrow has no kernels for."""
    texts = [None if value is None else repr(value) for value in array.to_pylist()]
    return cast(pa.Array, pa.array(texts, pa.string()))


def _majority(values: pa.Array) -> float:
    return pc.max(pc.struct_field(pc.value_counts(values), "counts")).as_py() / len(values)


def plain(column: pa.ChunkedArray) -> Any:
    """A column as one array without a dictionary."""
    array = cast(Any, column.combine_chunks())
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def alike(array: Any, kind: pa.DataType) -> Any:
    """`array` in the type it is compared in: times in one unit; numbers of any type compare as they are."""
    if array.type == kind or isinstance(kind, pa.DictionaryType) or not pa.types.is_temporal(kind):
        return array
    return array.cast(kind, safe=False)


def _mask(array: Any) -> Mask:
    return array.to_numpy(zero_copy_only=False)


def _share(mask: Any) -> float:
    return float(_mask(mask).mean())


def _floats(array: pa.Array) -> tuple[Floats, Mask]:
    numbers, missing = stored_numbers(array)
    return numbers.astype(np.float64), missing


def general_sizes(table: pa.Table) -> dict[str, int]:
    """Bytes of the table as CSV text (as Arrow writes it) and as Parquet with snappy, as it comes without options.

    A format that cannot hold the table, such as CSV bytes that are no text, is left out.
    """
    sizes: dict[str, int] = {}
    with suppress(pa.ArrowException):
        sizes["csv"] = csv_bytes(table)
    counter = Count()
    with suppress(pa.ArrowException), pa.PythonFile(counter, mode="w") as sink:
        pq.write_table(table, sink, compression="snappy")
        sizes["parquet_snappy"] = counter.size
    return sizes


def csv_bytes(table: pa.Table) -> int:
    """Bytes of the table as CSV text; nested values, for which CSV has no form, as their Python text.

    >>> csv_bytes(pa.table({"a": [1, None], "b": ["x", "y"]}))  # "a","b"  1,"x"  ,"y"
    19
    """
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, _flat(table.column(index)))
    counter = Count()
    with pa.PythonFile(counter, mode="w") as sink:
        csv.write_csv(table, sink)
    return counter.size


def _flat(column: pa.ChunkedArray) -> Any:
    if isinstance(column.type, pa.DictionaryType):
        return cast(Any, column).cast(column.type.value_type)
    return pa.chunked_array([pa.array([str(value) for value in column.to_pylist()], pa.string())])


def evidence(log_weights: Floats) -> tuple[float, float]:
    """ELBO and importance-weighted bound (Burda et al. 2016), bits per row.

    `log_weights` [samples, rows] are log p(x, z) - log q(z|x) in nats for z drawn from q(z|x): their mean is
    the ELBO, the logarithm of their mean weight the tighter bound.

    >>> round(evidence(np.log(np.array([[0.25], [0.75]])))[1], 9)
    -1.0
    """
    elbo = float(log_weights.mean())
    bound = float((np.logaddexp.reduce(log_weights, axis=0) - np.log(len(log_weights))).mean())
    return float(elbo / np.log(2)), float(bound / np.log(2))


def probe(
    codes: NDArray[Any], target: pa.ChunkedArray, held_codes: NDArray[Any], held: pa.ChunkedArray
) -> float:
    """How well a linear model reads a column off codes [rows, latents], on held-out rows: accuracy, for numbers R².

    A latent shows its value, and whether it is there. A ridge regression, or a logistic one for names; rows in which
    the column is null are left out, and names that only held-out rows have count as wrong.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numeric = is_numeric(target.type)

    def told(values: NDArray[Any], column: pa.ChunkedArray) -> tuple[Floats, NDArray[Any]]:
        given = plain(column)
        if numeric:
            numbers, absent = _floats(given)
            rows = ~absent & np.isfinite(numbers)
            answers: NDArray[Any] = numbers[rows]
        else:
            rows = ~_mask(pc.is_null(given))
            answers = np.array([str(name) for name in given.filter(pa.array(rows)).to_pylist()])
        inputs = np.concatenate([values, values != 0], 1).astype(np.float64)[rows]
        return inputs, answers

    x, y = told(codes, target)
    held_x, held_y = told(held_codes, held)
    if len(held_y) < 2 or len(np.unique(y)) < 2:
        return 0.0
    model = Ridge() if numeric else LogisticRegression(max_iter=1_000)
    return float(make_pipeline(StandardScaler(), model).fit(x, y).score(held_x, held_y))
