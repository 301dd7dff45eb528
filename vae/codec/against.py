"""An archive against the table that it was made of: every value, within the bound of its column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from data.errors import ArchiveError
from data.largetable import AnyTable
from data.stored import one_array
from vae.codec.compare import first_difference, largest_error


def compare(
    path: Path,
    schema: pa.Schema,
    rows: int,
    batches: Iterable[pa.RecordBatch],
    bounds: Sequence[float],
    table: AnyTable,
    progress: Callable[[float], None] | None,
) -> dict[str, float]:
    """Largest error of each column of the archive at `path`, whose rows are `batches`.

    Raises:
        ArchiveError: It has other columns or rows than `table`, or a value out of its bound.
    """
    _check_table(path, schema, rows, table)
    names: list[str] = schema.names
    errors = dict.fromkeys(names, 0.0)
    at = 0
    for batch in batches:
        part = table.slice(at, batch.num_rows)
        for place, (name, bound) in enumerate(zip(names, bounds, strict=True)):
            given, back = one_array(part.column(place)), batch.column(place)
            error = largest_error(given, back, bound)
            if error is None:
                row = first_difference(given, back, bound)
                what = "the original" if bound == 0 else f"within {bound:g} of the original"
                raise ArchiveError(
                    f"{path}: column {name!r} of row {at + row} is not {what}: "
                    f"{_brief(back[row])}, not {_brief(given[row])}"
                )
            errors[name] = max(errors[name], error)
        at += batch.num_rows
        if progress is not None:
            progress(at / max(1, rows))
    return errors


def _check_table(path: Path, schema: pa.Schema, rows: int, table: AnyTable) -> None:
    """ArchiveError unless the table has these columns, of these types, and as many rows."""
    if table.column_names != schema.names:
        raise ArchiveError(f"{path}: holds columns {schema.names}, the other table {table.column_names}")
    for mine, other in zip(schema, table.schema, strict=True):
        if mine.type != other.type:
            raise ArchiveError(
                f"{path}: column {mine.name!r} is {mine.type}, in the other table {other.type}"
            )
    if table.num_rows != rows:
        raise ArchiveError(f"{path}: holds {rows:,} rows, the other table {table.num_rows:,}")


def _brief(value: pa.Scalar) -> str:
    """A value for a message."""
    text = repr(value.as_py())
    return text if len(text) <= 60 else f"{text[:60]}..."
