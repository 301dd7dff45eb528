"""Any source as typed Arrow record batches, read in bounded memory.

CSV (also `.gz`, `.zip`), Parquet, `.npy`/`.npz`, `.jsonl`, `.txt`, idx, PNG and JPEG; a file, a folder or glob of
files, a dataset that was ingested before, `sample:NAME`, a table in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa

from data.batches import batch_rows, rebatch
from data.dataset import Dataset, open_dataset
from data.distinct import with_categories
from data.errors import SchemaError, SourceError
from data.files import DataFile, find_files, joint_digest
from data.manifest import MANIFEST_NAME
from data.schema import Schema
from data.statistics import content_digest


class Source(ABC):
    """Rows from somewhere: typed, digested, readable as often as wished."""

    def __init__(self, uri: str, wanted: Schema | None = None) -> None:
        self.uri = uri
        """The source as it was named."""
        self.wanted = wanted
        """The schema that was given, if one was."""

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

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should hear of it, as far as it has been read."""
        return ()

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of the stored bytes, hex; independent of names and times."""

    @abstractmethod
    def _read(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches of any size, with the types of `schema`."""

    def batches(self, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in batches of exactly `rows` (of `batch_rows`), the last one shorter.

        Raises:
            SchemaError: A null that may not be.
        """
        arrow = self.schema.to_arrow()
        for batch in rebatch(self._read(), arrow, rows or batch_rows(arrow)):
            self._check_nulls(batch)
            yield batch

    def table(self) -> pa.Table:
        """All rows at once."""
        return pa.Table.from_batches(self.batches(), schema=self.schema.to_arrow())

    def is_unchanged(self) -> bool:
        """Whether nothing has written to the source since it was opened, as far as can be told cheaply."""
        return True

    def _check_nulls(self, batch: pa.RecordBatch) -> None:
        for values, column in zip(batch.columns, self.schema.columns, strict=True):
            if values.null_count and not column.nullable:
                raise self.forbidden_null(column.name)

    def forbidden_null(self, name: str) -> SchemaError:
        """The error to raise for a null in a column whose schema allows none."""
        return SchemaError(
            f"{self.uri}: column {name!r} holds nulls, its schema allows none (nullable: false)"
        )


class FileContent(Protocol):
    """What the reader of one format knows once it has been through the files."""

    schema: Schema
    rows: int

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, typed."""
        ...


class ArrayContent(FileContent, Protocol):
    """The same for arrays and images."""

    source_bytes: int


class FileSource(Source):
    """A source in one or several files of one format; the files are gone through when first asked about.

    Args:
        uri: The source as it was named.
        files: The files, in order.
        read: The reader of their format.
        wanted: A given schema.
    """

    def __init__(
        self,
        uri: str,
        files: list[DataFile],
        read: Callable[[list[DataFile], Schema | None], FileContent],
        wanted: Schema | None = None,
    ) -> None:
        super().__init__(uri, wanted)
        self.files = files
        self._reader = read

    @property
    def schema(self) -> Schema:
        return self._content.schema

    @property
    def rows(self) -> int:
        return self._content.rows

    @property
    def stored_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def source_bytes(self) -> int:
        return self._source_bytes

    @property
    def notes(self) -> tuple[str, ...]:
        known = "_content" in self.__dict__  # asking must not cost a pass
        return getattr(self._content, "notes", ()) if known else ()

    def digest(self) -> str:
        return self._digest

    def is_unchanged(self) -> bool:
        return all(file.is_unchanged() for file in self.files)

    def _read(self) -> Iterator[pa.RecordBatch]:
        return self._content.read()

    @cached_property
    def _content(self) -> FileContent:
        return self._reader(self.files, self.wanted)

    @cached_property
    def _digest(self) -> str:
        return joint_digest(self.files)

    @cached_property
    def _source_bytes(self) -> int:
        return sum(file.content_bytes() for file in self.files)


class ArraySource(FileSource):
    """Arrays or images: what counts as handed over are their values, not headers and compression."""

    def __init__(
        self,
        uri: str,
        files: list[DataFile],
        read: Callable[[list[DataFile], Schema | None], ArrayContent],
        wanted: Schema | None = None,
    ) -> None:
        super().__init__(uri, files, read, wanted)

    @property
    def source_bytes(self) -> int:
        return cast(ArrayContent, self._content).source_bytes


class ImageSource(ArraySource):
    """Files of images: their names are data, too."""

    @cached_property
    def _digest(self) -> str:
        from data.imagefiles import named_digest

        return named_digest(self.files)


class TableSource(Source):
    """A table in memory."""

    def __init__(self, table: pa.Table, uri: str = "memory:table", schema: Schema | None = None) -> None:
        super().__init__(uri, schema)
        self._table = table
        found = with_categories(Schema.from_arrow(table.schema), table.to_batches())
        self._schema = found if schema is None else found.with_wishes(schema, uri)

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def rows(self) -> int:
        return self._table.num_rows

    @property
    def source_bytes(self) -> int:
        return self._table.nbytes

    @property
    def stored_bytes(self) -> int:
        return self._table.nbytes

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return content_digest(self._table)

    def _read(self) -> Iterator[pa.RecordBatch]:
        yield from self._table.to_batches()


class DatasetSource(Source):
    """A dataset that was ingested before; sizes are those of the source it came from."""

    def __init__(self, dataset: Dataset, schema: Schema | None = None) -> None:
        super().__init__(str(dataset.path), schema)
        self.dataset = dataset
        self._schema = dataset.schema if schema is None else dataset.schema.with_wishes(schema, self.uri)

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def rows(self) -> int:
        return self.dataset.rows

    @property
    def source_bytes(self) -> int:
        return self.dataset.manifest.source.source_bytes

    @property
    def stored_bytes(self) -> int:
        return self.dataset.manifest.source.stored_bytes

    def digest(self) -> str:
        return self.dataset.manifest.digest

    def _read(self) -> Iterator[pa.RecordBatch]:
        return self.dataset.batches()


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
        from data.samples import open_sample

        return open_sample(name.removeprefix("sample:"), schema)
    if "://" not in name and (Path(name) / MANIFEST_NAME).is_file():
        return DatasetSource(open_dataset(name), schema)
    return file_source(name, find_files(name), schema)


def file_source(uri: str, files: list[DataFile], schema: Schema | None) -> FileSource:
    """The source in these files, which are of one format."""
    empty = next((file for file in files if file.size == 0), None)
    if empty is not None:
        raise SourceError(f"{empty.path}: is empty")
    form = files[0].format
    if form in ("npy", "npz"):
        if len(files) > 1:
            raise SourceError(f"{uri}: holds several array files; name one of them")
        from data.arrays import ArrayFile

        return ArraySource(uri, files, lambda found, wanted: ArrayFile(found[0], wanted), schema)
    if form == "image":
        from data.imagefiles import ImageFiles

        return ImageSource(uri, files, ImageFiles, schema)
    if form == "idx":
        from data.idxfile import IdxFiles

        return ArraySource(uri, files, IdxFiles, schema)
    if form == "jsonl":
        from data.jsonl import JsonLines

        return FileSource(uri, files, JsonLines, schema)
    if form == "txt":
        from data.txtfile import TxtFiles

        return FileSource(uri, files, TxtFiles, schema)
    if form == "parquet":
        from data.parquetfile import ParquetFiles

        return FileSource(uri, files, ParquetFiles, schema)
    from data.csvfile import CsvFiles

    return FileSource(uri, files, CsvFiles, schema)
