"""Which version of the format is needed by what is packed, told by what packs it to whoever writes the archive."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar


class Needs:
    """The oldest version of the format that knows all that was packed; threads share it.

    >>> needs = Needs()
    >>> with needs.noted():
    ...     need(9)
    >>> need(11)
    >>> needs.version
    9
    """

    def __init__(self) -> None:
        self._versions = {1}

    @property
    def version(self) -> int:
        """The newest that anything needs."""
        return max(self._versions)

    @contextmanager
    def noted(self) -> Generator[None]:
        """What is packed meanwhile, in this thread, counts."""
        before = _NEEDS.set(self)
        try:
            yield
        finally:
            _NEEDS.reset(before)

    def add(self, version: int) -> None:
        """Something needs this version."""
        self._versions.add(version)


_NEEDS: ContextVar[Needs | None] = ContextVar("needs", default=None)


def need(version: int) -> None:
    """Tell that what is being packed needs this version of the format."""
    needs = _NEEDS.get()
    if needs is not None:
        needs.add(version)
