"""Any source as typed Arrow record batches, read in bounded memory.

CSV (also `.gz`, `.zip`), Parquet, `.npy`/`.npz`, `.jsonl`; a file, a folder or glob of files, a dataset that was
ingested before, `sample:NAME`, a table in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from data.batches import BATCH_ROWS, rebatch
from data.csvfile import CsvFiles
from data.errors import SourceError
from data.files import DataFile, find_files, joint_digest
from data.manifest import MANIFEST_NAME
from data.schema import Schema


class Source(ABC):
    """Rows from somewhere: typed, digested, readable as often as wished."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """The columns; finding their types may cost a pass over the source, made once."""

    @property
    @abstractmethod
    def rows(self) -> int | None:
        """Rows, where known without reading them all."""

    @property
    @abstractmethod
    def source_bytes(self) -> int:
        """Bytes as handed over: decompressed, and for arrays their raw bytes."""

    @property
    @abstractmethod
    def stored_bytes(self) -> int:
        """Bytes on disk."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of the stored bytes, hex; independent of names and times."""

    @abstractmethod
    def _read(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches of any size, with the types of `schema`."""

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows in batches of exactly `rows`, the last one shorter."""
        return rebatch(self._read(), self.schema.to_arrow(), rows)

    def table(self) -> pa.Table:
        """All rows at once."""
        return pa.Table.from_batches(self._read(), schema=self.schema.to_arrow())

    def is_unchanged(self) -> bool:
        """Whether nothing has written to the source since it was opened, as far as can be told cheaply."""
        return True


class FileSource(Source):
    """A source in one or several files of one format."""

    def __init__(self, uri: str, files: list[DataFile], wanted: Schema | None) -> None:
        super().__init__(uri)
        self.files = files
        self.wanted = wanted

    @property
    def stored_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @cached_property
    def source_bytes(self) -> int:
        return sum(file.content_bytes() for file in self.files)

    def digest(self) -> str:
        return self._digest

    def is_unchanged(self) -> bool:
        return all(file.is_unchanged() for file in self.files)

    @cached_property
    def _digest(self) -> str:
        return joint_digest(self.files)


class CsvSource(FileSource):
    """CSV files with one header."""

    @cached_property
    def _content(self) -> CsvFiles:
        return CsvFiles(self.files, self.wanted)

    @property
    def schema(self) -> Schema:
        return self._content.schema

    @property
    def rows(self) -> int:
        return self._content.rows

    def _read(self) -> Iterator[pa.RecordBatch]:
        return self._content.read()


class TableSource(Source):
    """A table in memory."""

    def __init__(self, table: pa.Table, uri: str = "memory:table") -> None:
        super().__init__(uri)
        self._table = table

    @cached_property
    def schema(self) -> Schema:
        return Schema.from_arrow(self._table.schema)

    @property
    def rows(self) -> int:
        return self._table.num_rows

    @property
    def source_bytes(self) -> int:
        return self._table.get_total_buffer_size()

    @property
    def stored_bytes(self) -> int:
        return self.source_bytes

    @cached_property
    def _digest(self) -> str:
        from data.statistics import content_digest

        return content_digest(self._table)

    def digest(self) -> str:
        return self._digest

    def _read(self) -> Iterator[pa.RecordBatch]:
        yield from self._table.to_batches()


def open_source(uri: str | Path, schema: Schema | None = None) -> Source:
    """The source of this name.

    Args:
        uri: A path, folder, glob, address such as `s3://bucket/key`, or `sample:NAME`.
        schema: What is known of the columns; what it does not say is inferred from all rows.

    Raises:
        SourceError: Missing, empty, unreadable or malformed; names the place and the way out. What can only be seen
            by reading is raised when `schema`, `rows` or the batches are asked for.
        SchemaError: The columns are not those of `schema`.
    """
    name = str(uri)
    if name.startswith("sample:"):
        from data.samples import sample_path

        return open_source(sample_path(name.removeprefix("sample:")), schema)
    folder = Path(name)
    if "://" not in name and (folder / MANIFEST_NAME).is_file():
        from data.ingest import open_dataset

        return TableSource(open_dataset(folder).table(), name)
    files = find_files(name)
    if files[0].format == "csv":
        return CsvSource(name, files, schema)
    raise SourceError(f"{name}: not yet read")
