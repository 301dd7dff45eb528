"""Parquet files, one or many, as one table."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from pyarrow.fs import LocalFileSystem

from data.distinct import with_categories
from data.errors import SchemaError, SourceError
from data.files import DataFile, explained
from data.schema import Kind, Schema

ds: Any = pyarrow.dataset
pq: Any = pyarrow.parquet


class ParquetFiles:
    """Parquet files of one schema; folders named `year=2013` below the source's own become columns.

    Args:
        files: The files, in order.
        wanted: A given schema, whose kinds and bounds are taken over.
    """

    def __init__(self, files: list[DataFile], wanted: Schema | None = None) -> None:
        first = files[0]
        for file in files:
            if file.size == 0:
                raise SourceError(f"{file.path}: is empty")
        with _is_parquet(first.path):
            _check_names(first)
            self._dataset = ds.dataset(
                [file.path for file in files],
                filesystem=first.system,
                format=ds.ParquetFileFormat(
                    default_fragment_scan_options=ds.ParquetFragmentScanOptions(
                        page_checksum_verification=True,
                        # worth its memory, some 100 MB, where each read is a request over a network
                        pre_buffer=not isinstance(first.system, LocalFileSystem),
                    )
                ),
                partitioning="hive" if first.root else None,
                partition_base_dir=first.root or None,
            )
        self.rows = self._count(first.path)
        if not self.rows or not self._dataset.schema.names:
            raise SourceError(f"{first.root or first.path}: has no rows")
        found = Schema.from_arrow(self._dataset.schema)
        texts = [column.name for column in found.columns if column.kind is Kind.text]
        schema = with_categories(found, self._scan(texts)) if texts else found
        self.schema = schema if wanted is None else schema.with_wishes(wanted, first.path)

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, in batches as the row groups give them."""
        return self._scan(self.schema.names)

    def _count(self, place: str) -> int:
        """Rows of all files, after making sure that their columns agree."""
        known: pa.Schema | None = None
        rows = 0
        for fragment in self._dataset.get_fragments():
            with _is_parquet(fragment.path):
                schema = fragment.physical_schema
                rows += fragment.count_rows()
            known = schema if known is None else known
            if not schema.equals(known):
                raise SourceError(f"{fragment.path}: its columns are not those of {place}; ingest them apart")
        return rows

    def _scan(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with explained(self._dataset.files[0]):
            yield from self._dataset.to_batches(columns=columns, batch_readahead=2, fragment_readahead=1)


def _check_names(file: DataFile) -> None:
    with file.system.open_input_file(file.path) as content:
        names = pq.read_schema(content).names
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"{file.path}: column name {name!r} occurs twice; rename one of the columns")


@contextmanager
def _is_parquet(path: str) -> Generator[None]:
    """Arrow's words for a file that is no Parquet are many; ours are few."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
        raise SourceError(f"{path}: is not Parquet, or is damaged or cut short; fetch it again") from error
