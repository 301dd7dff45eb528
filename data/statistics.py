"""What one pass over a table counts: per-column statistics and the digest of the content."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from data.distinct import DistinctValues
from data.schema import ColumnStats, Kind, Schema

pc: Any = pyarrow.compute


class TableStatistics:
    """Statistics of every column, gathered batch by batch."""

    def __init__(self, schema: Schema) -> None:
        self._columns = {column.name: _ColumnCounter(column.kind) for column in schema.columns}

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of one more batch."""
        for counter, values in zip(self._columns.values(), batch.columns, strict=True):
            counter.add(values)

    def finish(self) -> dict[str, ColumnStats]:
        """The statistics, by column name."""
        return {name: counter.finish() for name, counter in self._columns.items()}


def table_stats(table: pa.Table) -> dict[str, ColumnStats]:
    """Statistics of a table in memory, as an ingested dataset's manifest would hold them."""
    statistics = TableStatistics(Schema.from_arrow(table.schema))
    for batch in table.to_batches():
        statistics.add(batch)
    return statistics.finish()


class ContentDigest:
    """SHA-256 over names, types and values, the same however the rows are cut into files and batches.

    Each column feeds streams of its own (validity, lengths, values with nulls zeroed), so cuts leave no trace. All
    NaNs count as one.
    """

    def __init__(self, schema: Schema) -> None:
        self._names = [(column.name, str(column.type)) for column in schema.columns]
        self._columns: list[_Streams] = [_Streams() for _ in schema.columns]
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the rows of one more batch."""
        self._rows += batch.num_rows
        for streams, values in zip(self._columns, batch.columns, strict=True):
            streams.add("", values)

    def hexdigest(self) -> str:
        """The digest, in hex."""
        whole = hashlib.sha256(repr((self._rows, self._names)).encode())
        for streams in self._columns:
            whole.update(streams.digest())
        return whole.hexdigest()


def content_digest(table: pa.Table) -> str:
    """The digest of a table in memory."""
    digest = ContentDigest(Schema.from_arrow(table.schema))
    for batch in table.to_batches():
        digest.add(batch)
    return digest.hexdigest()


@dataclass
class _Moments:
    """Count, mean and sum of squared deviations, merged as Chan, Golub & LeVeque (1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray[Any, Any]) -> None:
        if not len(values):
            return
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # The largest floats overflow: then the moments are None.
            mean = float(values.mean())
            squares = float(np.square(values - mean).sum())
            shift, total = mean - self.mean, self.count + len(values)
            self.squares += squares + shift * shift * self.count * len(values) / total
            self.mean += shift * len(values) / total
        self.count = total


class _ColumnCounter:
    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._distinct: DistinctValues | None = DistinctValues()
        self._moments = _Moments()
        self._min: Any = None
        self._max: Any = None
        self._nulls = self._nans = self._infinities = 0

    def add(self, values: pa.Array) -> None:
        self._nulls += values.null_count
        if self._kind in (Kind.array, Kind.other):
            self._distinct = None
            return
        values = _countable(values)
        if self._distinct is not None:
            self._distinct.add(values)
        if self._kind in (Kind.numeric, Kind.integer, Kind.timestamp):
            self._add_numbers(values)

    def _add_numbers(self, values: pa.Array) -> None:
        numbers = pc.drop_null(values)
        if self._kind is Kind.timestamp:
            numbers = numbers.view(pa.int32() if pa.types.is_date32(numbers.type) else pa.int64())
        if pa.types.is_floating(numbers.type):
            numbers = pc.cast(numbers, pa.float64())
            finite = pc.is_finite(numbers)
            nans = pc.sum(pc.is_nan(numbers)).as_py() or 0
            kept = pc.filter(numbers, finite)
            self._nans += nans
            self._infinities += len(numbers) - len(kept) - nans
            numbers = kept
        if not len(numbers):
            return
        extremes = pc.min_max(numbers).as_py()
        self._min = extremes["min"] if self._min is None else min(self._min, extremes["min"])
        self._max = extremes["max"] if self._max is None else max(self._max, extremes["max"])
        if self._kind is not Kind.timestamp:
            self._moments.add(numbers.to_numpy(zero_copy_only=False).astype(np.float64))

    def finish(self) -> ColumnStats:
        is_number = self._kind in (Kind.numeric, Kind.integer) and self._moments.count > 0
        distinct = None if self._distinct is None else self._distinct.count
        categories = None
        if self._kind is Kind.categorical and distinct is not None and self._distinct is not None:
            values = self._distinct.values
            categories = () if values is None else tuple(sorted(values.to_pylist()))
        std = math.sqrt(self._moments.squares / self._moments.count) if is_number else None
        return ColumnStats(
            min=self._min,
            max=self._max,
            nulls=self._nulls,
            nans=self._nans,
            infinities=self._infinities,
            distinct=distinct,
            mean=_finite(self._moments.mean) if is_number else None,
            std=_finite(std),
            categories=categories,
        )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class _Streams:
    """The byte streams of one column, each under its own hash."""

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}

    def digest(self) -> bytes:
        parts = [name.encode() + b"\0" + self._hashes[name].digest() for name in sorted(self._hashes)]
        return b"".join(parts)

    def _feed(self, stream: str, data: Any) -> None:
        if stream not in self._hashes:
            self._hashes[stream] = hashlib.sha256()
        self._hashes[stream].update(data)

    def add(self, path: str, values: pa.Array) -> None:
        """Feed an array and, under longer paths, what is nested in it."""
        values = _plain(values)
        type_, types = values.type, pa.types
        self._feed(f"{path}/valid", _numbers(values.is_valid().cast(pa.uint8())))
        if types.is_struct(type_):
            for index, child in enumerate(values.flatten()):
                self.add(f"{path}/{index}", child)
        elif types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
            self._feed(
                f"{path}/length", _numbers(pc.fill_null(pc.list_value_length(values), 0).cast(pa.int64()))
            )
            self.add(f"{path}/item", pc.list_flatten(values))
        elif types.is_large_binary(type_):
            self._add_bytes(path, pc.fill_null(values, b""))
        elif types.is_floating(type_):
            numbers = _numbers(pc.fill_null(values, pa.scalar(0.0, type_)))
            self._feed(f"{path}/data", np.where(np.isnan(numbers), numbers.dtype.type(np.nan), numbers))
        elif not types.is_null(type_):
            self._add_fixed(path, values)

    def _add_bytes(self, path: str, values: pa.Array) -> None:
        """Byte strings without nulls."""
        self._feed(f"{path}/length", _numbers(pc.binary_length(values)))
        _, offsets, data = values.buffers()
        bounds = np.frombuffer(offsets, np.int64, len(values) + 1, values.offset * 8)
        if data is not None:
            self._feed(f"{path}/data", memoryview(data)[int(bounds[0]) : int(bounds[-1])])

    def _add_fixed(self, path: str, values: pa.Array) -> None:
        """Values of a fixed number of bytes, nulls as zeros."""
        width = values.type.bit_width // 8
        data = np.frombuffer(values.buffers()[1], np.uint8, len(values) * width, values.offset * width)
        if values.null_count:
            data = data.reshape(-1, width) * _numbers(values.is_valid().cast(pa.uint8()))[:, None]
        self._feed(f"{path}/data", np.ascontiguousarray(data))


def _countable(values: pa.Array) -> pa.Array:
    """The same values in a type that Arrow can count."""
    if pa.types.is_dictionary(values.type):
        return _countable(pc.cast(values, values.type.value_type))
    if pa.types.is_float16(values.type):
        return pc.cast(values, pa.float32())
    return pc.cast(values, pa.string()) if pa.types.is_string_view(values.type) else values


def _plain(values: pa.Array) -> pa.Array:
    """The same values in one of few layouts: no dictionaries, maps as lists, text as large binary, bits as bytes."""
    type_, types = values.type, pa.types
    if isinstance(type_, pa.BaseExtensionType):
        return _plain(values.storage)
    if types.is_dictionary(type_):
        return _plain(pc.cast(values, type_.value_type))
    if types.is_run_end_encoded(type_):
        return _plain(pc.run_end_decode(values))
    if types.is_map(type_):
        return values.cast(pa.list_(pa.struct([type_.key_field, type_.item_field])))
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return pc.cast(values, pa.large_string()).cast(pa.large_binary())
    if types.is_binary(type_) or types.is_binary_view(type_):
        return pc.cast(values, pa.large_binary())
    return pc.cast(values, pa.uint8()) if types.is_boolean(type_) else values


def _numbers(values: pa.Array) -> np.ndarray[Any, Any]:
    return values.to_numpy(zero_copy_only=False)
