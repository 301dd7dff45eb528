"""Small helpers on streams of record batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

BATCH_ROWS = 65_536
"""Rows of a batch unless asked otherwise; ingestion works in these, whatever the source's own pieces."""
BATCH_BYTES = 1 << 25
"""Most bytes of a batch's arrays and images, unless one row is more."""


def batch_rows(schema: pa.Schema, most_bytes: int = BATCH_BYTES) -> int:
    """`BATCH_ROWS`, or as many rows as hold this many bytes where arrays make them wide.

    >>> batch_rows(pa.schema([("a", pa.int64())])), batch_rows(pa.schema([("a", pa.list_(pa.uint8(), 1 << 20))]))
    (65536, 32)
    """
    width = sum(_width(field.type) for field in schema)
    return max(1, min(BATCH_ROWS, most_bytes // max(1, width)))


def _width(type_: Any) -> int:
    """Bytes of one value; 0 where they differ."""
    if pa.types.is_fixed_size_list(type_):
        return type_.list_size * _width(type_.value_type)
    return -(-type_.bit_width // 8) if pa.types.is_primitive(type_) else 0


def rebatch(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `rows`, the last one shorter; never copies more than one batch."""
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        start = 0
        while count + batch.num_rows - start >= rows:
            taken = rows - count
            yield _joined([*pending, batch.slice(start, taken)], schema)
            pending, count, start = [], 0, start + taken
        if start < batch.num_rows:
            pending.append(batch.slice(start))
            count += batch.num_rows - start
    if pending:
        yield _joined(pending, schema)


def _joined(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    joined = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    return pa.RecordBatch.from_arrays(joined.columns, schema=schema)
