"""Small helpers on streams of record batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

BATCH_ROWS = 65_536
"""Rows of a batch unless asked otherwise; ingestion works in these, whatever the source's own pieces."""


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
