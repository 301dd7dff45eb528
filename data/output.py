"""Tables as files: Parquet, CSV, NumPy arrays, lines of JSON or text, by the ending of the name; images as a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet

from data.atomic import atomic_path, check_writable
from data.errors import UsageError
from data.schema import Schema

pq: Any = pyarrow.parquet

ENDINGS = (".parquet", ".csv", ".npy", ".npz", ".jsonl", ".txt")
"""What `write_table` writes as a file."""
_KNOWN = f"the name must end in one of {', '.join(ENDINGS)}, or have no ending for a folder of PNG images"


def write_table(rows: pa.Table | Iterable[pa.RecordBatch], schema: Schema, path: str | Path) -> None:
    """Write rows to `path`; it appears whole or not at all.

    Args:
        rows: A table or batches, with the columns of `schema`. Parquet, CSV, JSON and text are written as batches come.
        schema: Names, types and text formats; a CSV source's fields get their own text back.
        path: Ends in one of `ENDINGS`; without an ending, a folder of PNG images. A `.txt` holds one column of texts.

    Raises:
        UsageError: Another ending, or a folder for what is not images, or a `.txt` for what is not one column of texts.
        DataError: The path cannot be written to, or an array or a line of text cannot hold the values.
    """
    target = Path(path)
    ending = check_output(target, schema)
    batches: Iterable[pa.RecordBatch] = cast(Any, rows).to_batches() if isinstance(rows, pa.Table) else rows
    if not ending:
        from data.pngfolder import write_png_folder

        write_png_folder(batches, schema, target)
        return
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        if ending == ".parquet":
            _write_parquet(batches, schema, file)
        elif ending == ".csv":
            from data.csvtext import write_csv

            write_csv(batches, schema, file)
        elif ending == ".jsonl":
            from data.jsonl import write_jsonl

            write_jsonl(batches, schema, file)
        elif ending == ".txt":
            from data.txtfile import write_lines

            write_lines(batches, schema, file)
        else:
            from data.arrays import write_arrays

            arrow = schema.to_arrow()
            write_arrays(pa.Table.from_batches(_cast(batches, arrow), arrow), schema, target, file)


def check_output(path: Path, schema: Schema | None = None) -> str:
    """The ending, if it is one that is written, before any work is done in vain.

    Args:
        path: Without an ending, the folder for a table of images.
        schema: The table's, where it is known already.

    Raises:
        UsageError: The ending is not one that is written, or the table is not one for it.
        DataError: The path cannot be written to.
    """
    ending = path.suffix.lower()
    if ending and ending not in ENDINGS:
        raise UsageError(f"{path}: {_KNOWN}")
    if ending:
        if ending == ".txt" and schema is not None:
            _check_lines(path, schema)
        check_writable(path)
        return ending
    from data.pngfolder import check_free, image_column

    if schema is not None:
        try:
            image_column(schema)
        except UsageError as error:
            raise UsageError(f"{path}: {_KNOWN}: {error}") from error
    check_free(path)
    return ending


def _check_lines(path: Path, schema: Schema) -> None:
    from data.txtfile import check_lines

    try:
        check_lines(schema)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _write_parquet(batches: Iterable[pa.RecordBatch], schema: Schema, file: Any) -> None:
    arrow = schema.to_arrow()
    with pq.ParquetWriter(file, arrow, compression="zstd", write_page_checksum=True) as writer:
        for batch in _cast(batches, arrow):
            writer.write_batch(batch)


def _cast(batches: Iterable[pa.RecordBatch], arrow: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_arrays(batch.columns, schema=arrow)
