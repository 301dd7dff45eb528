"""Archives: `write` makes one of an Arrow table, `open` reads it, on the core alone.

>>> import pyarrow as pa, tempfile
>>> path = tempfile.mkdtemp() + "/t.svae"
>>> report = write(pa.table({"x": [1, 2, None], "y": ["a", "", None]}), path)
>>> with open(path) as archive:
...     archive.read(["y"], (1, 3)).to_pylist()
[{'y': ''}, {'y': None}]
"""

from __future__ import annotations

from pathlib import Path

from vae.codec.blocks import BlockModel
from vae.codec.container import DEFAULT_BLOCK_ROWS as BLOCK_ROWS
from vae.codec.reader import Archive, Rows
from vae.codec.summary import ArchiveReport
from vae.codec.writer import write

__all__ = ["BLOCK_ROWS", "Archive", "ArchiveReport", "Rows", "open", "write"]


def open(
    path: str | Path, model: BlockModel | None = None, *, inspect: bool = False, threads: int | None = None
) -> Archive:
    """The archive at `path`, to be read whole or by parts.

    Args:
        path: A local file.
        model: The model of an archive that only refers to it.
        inspect: Open it without its model, to look at the schema and the report.
        threads: Threads that decode; default: as many as there are processors.

    Raises:
        ArchiveError: No such file, not an archive, or one of a newer version.
        DamagedError: Header or index is damaged.
        ModelError: The model is elsewhere and was not handed over.

    >>> import vae
    >>> with vae.open("flights.svae") as flights:
    ...     flights.read(["carrier", "dep_delay"], rows=(2, 4)).to_pylist()
    [{'carrier': 'EV', 'dep_delay': 122}, {'carrier': 'EV', 'dep_delay': 85}]
    """
    return Archive(path, model, inspect=inspect, threads=threads)
