"""What Prefect's page shows of a run beside its log: progress and tables.

The work does not depend on it: while the server does not answer, nothing is shown, and the run goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

PAUSE_SECONDS = 120.0
"""How long a server that did not answer is left alone: Prefect's client asks for a minute before it gives up."""

_silent_until = -float("inf")


class ProgressArtifact:
    """A progress bar in Prefect, moved at most once a second: each move is a call to the server."""

    def __init__(self, key: str, description: str) -> None:
        self._id: Any = None
        self._words = {"key": key, "description": description}
        self._last = -float("inf")
        self(0.0)

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now < _silent_until or (now - self._last < 1 and share < 1):
            return
        progress = round(100 * min(share, 1.0), 1)
        with _asked():
            if self._id is None:
                self._id = create_progress_artifact(progress, **self._words)
            else:
                update_progress_artifact(self._id, progress=progress)
        self._last = time.monotonic()


def show_table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """A table in Prefect."""
    if time.monotonic() < _silent_until:
        return
    with _asked():
        create_table_artifact([dict(row) for row in rows], key=key, description=description)


@contextlib.contextmanager
def _asked() -> Iterator[None]:
    """A call to the server that may fail: it is told once, and the server is left alone for a while."""
    global _silent_until  # noqa: PLW0603  (one server a process)
    try:
        yield
    except (httpx.HTTPError, PrefectException, OSError) as error:
        _silent_until = time.monotonic() + PAUSE_SECONDS
        get_run_logger().warning(
            "the Prefect server does not answer (%s); the work goes on, not all of it will be shown there",
            error,
        )
