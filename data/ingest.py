"""A source becomes a dataset: a folder of Parquet parts and a manifest, complete or not there at all.

::

    DIR/manifest.json                     names the parts; replacing it is the moment a new version takes effect
    DIR/parts-<digest>/part-00000.parquet

A new version is written under a hidden name beside `DIR`, flushed, and moved in before the manifest is replaced;
the former parts go last. Killed at any point, the manifest names complete parts, old or new.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from data.atomic import (
    atomic_path,
    made_parents,
    remove_tree,
    sync_file,
    sync_folder,
    temporary_name,
    writing,
)
from data.batches import BATCH_ROWS, rebatch
from data.errors import SourceError
from data.files import explained
from data.manifest import FORMAT, MANIFEST_NAME, Manifest, Origin, Part
from data.schema import ColumnStats, Schema
from data.sources import Source, open_source
from data.split import Split, split_for
from data.statistics import ContentDigest, TableStatistics

pq: Any = pyarrow.parquet

PART_ROWS = 16 * BATCH_ROWS
"""Rows of one Parquet file; a row group holds `BATCH_ROWS`."""

Progress = Callable[[int, int | None], None]
"""Called with rows done and rows in all (None where unknown)."""
RowNumbers = np.ndarray[tuple[int], np.dtype[np.int64]]


class Dataset:
    """An ingested dataset, opened for reading."""

    def __init__(self, path: Path, manifest: Manifest, *, reused: bool = False) -> None:
        self.path = path
        """The dataset's folder."""
        self.manifest = manifest
        self.reused = reused
        """Whether `ingest` found its work done already."""

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self.manifest.schema

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.manifest.rows

    @property
    def stats(self) -> dict[str, ColumnStats]:
        """Statistics by column name."""
        return self.manifest.columns

    def table(
        self, columns: list[str] | None = None, rows: slice | tuple[int, int] | RowNumbers | None = None
    ) -> pa.Table:
        """Some or all of the table.

        Args:
            columns: Names, in the order wished; all by default.
            rows: A range (start, stop), a slice without step, or row numbers in any order; all by default.
        """
        arrow = self._arrow(columns)
        if isinstance(rows, np.ndarray):
            return self._take(rows, columns, arrow)
        start, stop = self._range(rows)
        return pa.Table.from_batches(self._read(start, stop, columns), schema=arrow)

    def batches(self, rows: int = BATCH_ROWS, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The table in batches of exactly `rows`, the last one shorter."""
        return rebatch(self._read(0, self.rows, columns), self._arrow(columns), rows)

    def split_of(self, rows: RowNumbers) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """0 train, 1 validation or 2 test for each of these row numbers."""
        return self.manifest.split.of(rows)

    def is_whole(self) -> bool:
        """Whether every part is there with its size."""
        return all(_size(self.path / part.path) == part.bytes for part in self.manifest.parts)

    def _arrow(self, columns: list[str] | None) -> pa.Schema:
        schema = self.schema
        if columns is not None:
            schema = schema.model_copy(update={"columns": tuple(schema.column(name) for name in columns)})
        return schema.to_arrow()

    def _range(self, rows: slice | tuple[int, int] | None) -> tuple[int, int]:
        wanted = slice(None) if rows is None else rows if isinstance(rows, slice) else slice(*rows)
        start, stop, step = wanted.indices(self.rows)
        if step != 1:
            raise ValueError(f"rows {rows}: a step of {step} is not read; give row numbers")
        return start, max(start, stop)

    def _read(self, start: int, stop: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Rows `start` to `stop`, touching only the row groups that hold them."""
        arrow = self._arrow(columns)
        first = 0
        for part in self.manifest.parts:
            if first < stop and first + part.rows > start:
                with explained(str(self.path / part.path)):
                    yield from _read_part(self.path / part.path, start - first, stop - first, arrow)
            first += part.rows

    def _take(self, numbers: RowNumbers, columns: list[str] | None, arrow: pa.Schema) -> pa.Table:
        """Rows by number, one batch in memory at a time beside the result."""
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < self.rows:
            raise IndexError(f"row numbers must lie in 0 ... {self.rows - 1}")
        order = np.argsort(numbers, kind="stable")
        sorted_numbers = numbers[order]
        pieces: list[pa.RecordBatch] = []
        for index, batch in enumerate(self.batches(columns=columns)):
            first = index * BATCH_ROWS
            low, high = np.searchsorted(sorted_numbers, [first, first + batch.num_rows])
            if low < high:
                pieces.append(batch.take(pa.array(sorted_numbers[low:high] - first)))
        return pa.Table.from_batches(pieces, schema=arrow).take(pa.array(np.argsort(order, kind="stable")))


def ingest(
    source: str | Path | Source,
    out_dir: str | Path,
    *,
    schema: Schema | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Make a dataset of a source, unless it is there already.

    Args:
        source: A source or its name.
        out_dir: The dataset's folder; a former dataset there is replaced, at once and as a whole.
        schema: What is known of the columns; the rest is inferred.
        progress: Called now and then with rows done and rows in all.

    Returns:
        The dataset; its `reused` says that same source and schema had been ingested here before.
    """
    opened = source if isinstance(source, Source) else open_source(source, schema)
    target = Path(out_dir)
    request = None if schema is None else schema.digest()
    former = _former(target)
    if former is not None and former.manifest.format == FORMAT and former.is_whole():
        origin = former.manifest.source
        if (origin.digest, origin.request) == (opened.digest(), request):
            return Dataset(target, former.manifest, reused=True)
    with made_parents(target), writing(target):
        work = temporary_name(target)
        try:
            manifest = _write(opened, work, request, former, progress)
            _publish(work, target, manifest)
        finally:
            remove_tree(work)
    return Dataset(target, manifest)


def open_dataset(path: str | Path) -> Dataset:
    """The dataset in this folder; SourceError if there is none or it is not whole."""
    folder = Path(path)
    dataset = Dataset(folder, Manifest.read(folder))
    for part in dataset.manifest.parts:
        if _size(folder / part.path) != part.bytes:
            raise SourceError(
                f"{folder / part.path}: is missing or cut short; ingest {dataset.manifest.source.uri} again"
            )
    return dataset


def _former(target: Path) -> Dataset | None:
    try:
        return Dataset(target, Manifest.read(target))
    except SourceError:
        return None


def _write(
    source: Source, work: Path, request: str | None, former: Dataset | None, progress: Progress | None
) -> Manifest:
    """Parts and manifest under a temporary folder."""
    schema = source.schema
    digest, statistics = ContentDigest(schema), TableStatistics(schema)
    (work / "parts").mkdir(parents=True)
    parts: list[Part] = []
    rows = 0
    writer: _PartWriter | None = None
    try:
        for batch in source.batches(BATCH_ROWS):
            if writer is None:
                writer = _PartWriter(work / "parts" / f"part-{len(parts):05d}.parquet", batch.schema)
            writer.write(batch)
            digest.add(batch)
            statistics.add(batch)
            rows += batch.num_rows
            if writer.rows >= PART_ROWS:
                parts.append(writer.close())
                writer = None
            if progress is not None:
                progress(rows, source.rows)
        if writer is not None:
            parts.append(writer.close())
    finally:
        if writer is not None:
            writer.abandon()
    if not rows:
        raise SourceError(f"{source.uri}: has no rows")
    if not source.is_unchanged():
        raise SourceError(f"{source.uri}: changed while it was read; try again when nothing writes to it")
    content = digest.hexdigest()
    name = f"parts-{content[:16]}"
    return Manifest(
        schema=schema,
        rows=rows,
        digest=content,
        columns=statistics.finish(),
        split=_split(rows, source.uri, former),
        source=Origin(
            uri=source.uri,
            source_bytes=source.source_bytes,
            stored_bytes=source.stored_bytes,
            digest=source.digest(),
            request=request,
        ),
        parts=tuple(part.model_copy(update={"path": f"{name}/{part.path}"}) for part in parts),
    )


def _split(rows: int, uri: str, former: Dataset | None) -> Split:
    """The split; a source that has grown keeps the run length it began with, so that no complete run moves."""
    if former is not None and former.manifest.source.uri == uri and former.rows <= rows:
        return former.manifest.split
    return split_for(rows)


def _publish(work: Path, target: Path, manifest: Manifest) -> None:
    """Bring finished parts and manifest under the dataset's name."""
    name = manifest.parts[0].path.split("/")[0]
    (work / "parts").rename(work / name)
    (work / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    sync_file(work / MANIFEST_NAME)
    sync_folder(work / name)
    sync_folder(work)
    if not target.exists():
        work.rename(target)
        sync_folder(target.parent)
        return
    if (target / name).exists():
        # Same content, damaged parts or another source digest: what stands there is not trusted.
        remove_tree(target / name)
    (work / name).rename(target / name)
    sync_folder(target)
    with atomic_path(target / MANIFEST_NAME) as path:
        path.write_text(manifest.to_json(), encoding="utf-8")
    for entry in target.iterdir():
        if entry.name.startswith("parts-") and entry.name != name:
            remove_tree(entry)


class _PartWriter:
    """One Parquet file, a row group a batch."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            write_statistics=True,
            write_page_index=True,
            write_page_checksum=True,
            store_schema=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self.rows += batch.num_rows

    def close(self) -> Part:
        self._writer.close()
        sync_file(self.path)
        return Part(path=self.path.name, rows=self.rows, bytes=self.path.stat().st_size)

    def abandon(self) -> None:
        """Let go of the file after an error."""
        if self._writer.is_open:
            self._writer.close()


def _read_part(path: Path, start: int, stop: int, arrow: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows `start` to `stop` (which may lie outside) of one part, with the types and metadata of `arrow`."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                low, high = max(start - first, 0), min(stop - first, count)
                if low < high:
                    table = (
                        file.read_row_group(group, columns=arrow.names)
                        .select(arrow.names)
                        .slice(low, high - low)
                    )
                    yield from table.cast(arrow).to_batches()
                first += count
    except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
        raise SourceError(f"{path}: is damaged; ingest the source again") from error


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
