"""What the decoding of an archive may ask for, so that a small file cannot ask for all the memory there is.

A stream may become no more than its length justifies (`vae.codec.framing.allowance`), and what is held together, the
streams, cells and values of a group of rows, no more than `HELD` bytes, or `MAX_RATIO` times what the file has.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from data.errors import ArchiveError, DamagedError
from vae.codec.framing import allowance

HELD = 3 << 27
"""Bytes that a group of rows may become without question; groups are written with less, as far as rows allow it."""
CELL_BYTES = 16
"""What a cell takes of it beside its value, about: its symbol and its state, or the length of its text and its rank."""
MAX_RATIO = 10_000
"""Beyond that, more than so many times the file's length is a decompression bomb."""


class Room:
    """Bytes that a group of rows may still become; threads share it."""

    def __init__(self, path: Path, file_bytes: int, version: int) -> None:
        """`version`: of the format, as the file at `path` says."""
        self.path, self.file_bytes, self.version = path, file_bytes, version
        self.left = self.whole = max(HELD, MAX_RATIO * file_bytes)
        self._lock = threading.Lock()

    def spend(self, count: int) -> None:
        """Take so many bytes; ArchiveError if they are not there."""
        with self._lock:
            self.left -= count
            if self.left >= 0:
                return
        raise ArchiveError(
            f"{self.path}: its {self.file_bytes:,} bytes become more than {self.whole:,}; "
            "read fewer columns at a time, and none from somebody you do not know"
        )

    @contextmanager
    def shared(self) -> Generator[None]:
        """All budgets that are made meanwhile, in this thread, take from this room too."""
        before = _ROOM.set(self)
        try:
            yield
        finally:
            _ROOM.reset(before)


_ROOM: ContextVar[Room | None] = ContextVar("room", default=None)


class Budget:
    """Bytes that the decoding of one stream may still ask for."""

    def __init__(self, stream_bytes: int) -> None:
        self.left = allowance(stream_bytes)
        self._room = _ROOM.get()

    def spend(self, count: int, width: int = 1) -> None:
        """Take `count` values of `width` bytes; DamagedError if the stream is too short to justify them.

        ArchiveError if they are more than may be held together with those of other streams.
        """
        taken = count * max(1, width)
        self.left -= taken
        if self.left < 0:
            raise DamagedError(f"{count} values announced, which a stream of this length does not justify")
        if self._room is not None:
            self._room.spend(taken)

    def need(self, version: int, what: str) -> None:
        """DamagedError if the archive says that it is of an older version, which has no such thing."""
        if self._room is not None and self._room.version < version:
            raise DamagedError(f"version {self._room.version} of the format has no {what}")
