"""A source becomes a dataset: a folder of Parquet parts and a manifest, complete or not there at all.

::

    DIR/manifest.json                      names the parts; replacing it is the moment a new version takes effect
    DIR/parts-<digest>/part-00000.parquet

A new version is written under a hidden name beside `DIR` and flushed. Where nothing stands yet it is renamed to
`DIR`; else its parts move in, the manifest is replaced, and the former parts go last. Killed at any point, `DIR`
holds a manifest that names complete parts, old or new, or does not exist. Nothing else in `DIR` is ever touched, and
a folder that holds other things than a dataset is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from data.atomic import (
    atomic_path,
    made_parents,
    remove_leftovers,
    remove_tree,
    sync_file,
    sync_folder,
    temporary_name,
    writing,
)
from data.batches import batch_rows
from data.dataset import Dataset, open_dataset, stored_schema
from data.errors import DataError, SourceError
from data.manifest import FORMAT, MANIFEST_NAME, Manifest, Origin, Part
from data.schema import ColumnStats, Schema
from data.sources import Source, open_source
from data.split import Split, split_for
from data.statistics import ContentDigest, TableStatistics

__all__ = ["Dataset", "Manifest", "Progress", "ingest", "open_dataset"]

pq: Any = pyarrow.parquet

PARTS = "parts"
_PARTS_FOLDER = re.compile(rf"{PARTS}-[0-9a-f]{{16}}(-[0-9a-f]{{8}})?")
"""Names that only we give."""
PART_BATCHES = 16
"""Row groups of one Parquet file; each holds a batch."""

Progress = Callable[[int, int | None], None]
"""Called with rows done and rows in all (None where unknown)."""


def ingest(
    source: str | Path | Source,
    out_dir: str | Path,
    *,
    schema: Schema | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Make a dataset of a source, unless it is there already.

    Args:
        source: A source or its name.
        out_dir: The dataset's folder; a former dataset there is replaced, at once and as a whole.
        schema: With a name: what is known of the columns; the rest is inferred.
        fresh: Make it anew even if it is there: the code that types a source may have changed.
        progress: Called now and then with rows done and rows in all.

    Returns:
        The dataset; its `reused` says that same source and schema had been ingested here before.

    Raises:
        SourceError: The source is missing, empty, malformed, or changed while it was read.
        SchemaError: The source's columns are not what `schema` says.
        DataError: The dataset cannot be written, or would take the place of something else.
    """
    opened = source if isinstance(source, Source) else open_source(source, schema)
    target = Path(out_dir)
    _check_target(target, opened)
    remove_leftovers(target)
    request = None if opened.wanted is None else opened.wanted.digest()
    former = _former(target)
    if former is not None and former.is_whole() and not fresh:
        origin = former.manifest.source
        if (former.manifest.format, origin.digest, origin.request) == (FORMAT, opened.digest(), request):
            return Dataset(target, former.manifest, reused=True)
    with made_parents(target), writing(target):
        work = temporary_name(target)
        try:
            parts, content = _write_parts(opened, work / PARTS, progress)
            manifest = Manifest(
                schema=opened.schema,
                rows=content.rows,
                digest=content.digest,
                columns=content.stats,
                split=_split(content.rows, opened.uri, former),
                source=Origin(
                    uri=opened.uri,
                    source_bytes=opened.source_bytes,
                    stored_bytes=opened.stored_bytes,
                    digest=opened.digest(),
                    request=request,
                ),
                parts=parts,
            )
            return Dataset(target, _publish(work, target, manifest))
        finally:
            remove_tree(work)


class _Content:
    """What is counted while the rows go by."""

    def __init__(self, schema: Schema) -> None:
        self.rows = 0
        self._digest, self._statistics = ContentDigest(schema), TableStatistics(schema)

    def add(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self._digest.add(batch)
        self._statistics.add(batch)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    @property
    def stats(self) -> dict[str, ColumnStats]:
        return self._statistics.finish()


def _check_target(target: Path, source: Source) -> None:
    """DataError where a dataset at `target` would take the place of other files, or of the source itself."""
    if "://" not in source.uri and ":" not in source.uri.split("/")[0]:
        origin = Path(source.uri).resolve()
        if origin == target.resolve() or target.resolve() in origin.parents:
            raise DataError(f"{target}: holds the source {source.uri}; name another folder")
    if target.is_dir():
        if any(target.iterdir()) and not (target / MANIFEST_NAME).exists():
            raise DataError(f"{target}: holds other files and no dataset; name a new or an empty folder")
    elif target.exists():
        raise DataError(f"{target}: is a file; name a folder")


def _former(target: Path) -> Dataset | None:
    """The dataset that stands there, if one does and its manifest can be read."""
    try:
        return Dataset(target, Manifest.read(target))
    except SourceError:
        return None


def _write_parts(
    source: Source, folder: Path, progress: Progress | None
) -> tuple[tuple[Part, ...], _Content]:
    """All rows as Parquet files in a new folder, flushed to the disk."""
    schema = source.schema
    content, stored = _Content(schema), stored_schema(schema)
    folder.mkdir(parents=True)
    parts: list[Part] = []
    batches, part_rows = source.batches(), PART_BATCHES * batch_rows(schema.to_arrow())
    batch = next(batches, None)
    if batch is None or not batch.num_rows:
        raise SourceError(f"{source.uri}: has no rows")
    while batch is not None:
        path = folder / f"part-{len(parts):05d}.parquet"
        rows = 0
        with _parquet_writer(path, stored) as writer:
            while batch is not None and rows < part_rows:
                writer.write_batch(batch.cast(stored))
                content.add(batch)
                rows += batch.num_rows
                if progress is not None:
                    progress(content.rows, source.rows)
                batch = next(batches, None)
        sync_file(path)
        parts.append(Part(path=path.name, rows=rows, bytes=path.stat().st_size))
    sync_folder(folder)
    if not source.is_unchanged():
        raise SourceError(f"{source.uri}: changed while it was read; try again when nothing writes to it")
    return tuple(parts), content


def _parquet_writer(path: Path, schema: pa.Schema) -> Any:
    """A writer that makes one row group of each batch."""
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        write_statistics=True,
        write_page_index=True,
        write_page_checksum=True,
    )


def _split(rows: int, uri: str, former: Dataset | None) -> Split:
    """The split; a source that has grown keeps the run length it began with, so that no complete run moves."""
    if former is not None and former.manifest.source.uri == uri and former.rows <= rows:
        return former.manifest.split
    return split_for(rows)


def _publish(work: Path, target: Path, manifest: Manifest) -> Manifest:
    """Bring parts and manifest under the dataset's name, by renames alone."""
    folder = f"{PARTS}-{manifest.digest[:16]}"
    manifest = manifest.in_folder(folder)
    (work / PARTS).rename(work / folder)
    _write_manifest(work, manifest)
    with suppress(OSError):  # A folder stands there already: then its manifest is replaced.
        work.rename(target)
        sync_folder(target.parent)
        return manifest
    with _locked(target):
        free = folder
        while (target / free).exists():
            free = f"{folder}-{os.urandom(4).hex()}"
        manifest = manifest.in_folder(free)
        (work / folder).rename(target / free)
        sync_folder(target)
        _write_manifest(target, manifest)
        for entry in target.iterdir():
            if _PARTS_FOLDER.fullmatch(entry.name) and entry.is_dir() and entry.name != free:
                remove_tree(entry)
    return manifest


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    with atomic_path(folder / MANIFEST_NAME) as path:
        path.write_text(manifest.to_json(), encoding="utf-8")


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keep other processes from publishing into the same folder, where the platform has such locks."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover  (Windows)
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
