"""A time limit that also holds in a worker thread, which nobody can end from outside: the work itself looks at it."""

from __future__ import annotations

import time
from pathlib import Path

from data.errors import SvaeError

HOUR = 3600.0
WEEK = 168 * HOUR
FILE_SECONDS = 6 * HOUR
"""Default limit for one file of a folder job."""


class FileTimeoutError(SvaeError, TimeoutError):
    """One file of a folder took longer than it may."""


class Deadline:
    """When the work on a file must be done; called as the progress of that work, it looks at the clock."""

    def __init__(self, source: Path, seconds: float, alone: str) -> None:
        """`alone` is the command that does this file by itself, and without a limit."""
        self.source, self.seconds, self.alone = source, seconds, alone
        self._end = time.monotonic() + seconds

    def __call__(self, _event: object = None) -> None:
        """Nothing while there is time.

        Raises:
            FileTimeoutError: There is none left.
        """
        if time.monotonic() >= self._end:
            raise FileTimeoutError(
                f"{self.source}: not done within {in_words(self.seconds)} (file_timeout_seconds); give it a longer"
                f" limit, or do it alone: {self.alone} {self.source}"
            )


def in_words(seconds: float) -> str:
    """A time as people say it.

    >>> in_words(6 * 3600), in_words(90), in_words(0.05)
    ('6 hours', '1.5 minutes', '0.05 seconds')
    """
    for unit, size in (("hours", HOUR), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} seconds"
