"""Which version of the format is needed by what is packed, told by what packs it to whoever writes the archive; and
which is known to whoever asks for less than all that can be done.
"""

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


@contextmanager
def known(version: int) -> Generator[None]:
    """What is packed meanwhile, in this thread, needs no newer version.

    >>> with known(8):
    ...     is_known(9)
    False
    """
    before = _KNOWN.set(version)
    try:
        yield
    finally:
        _KNOWN.reset(before)


def is_known(version: int) -> bool:
    """Whether what is being packed may need this version."""
    newest = _KNOWN.get()
    return newest is None or version <= newest


_KNOWN: ContextVar[int | None] = ContextVar("known", default=None)
_NEEDS: ContextVar[Needs | None] = ContextVar("needs", default=None)


def need(version: int) -> None:
    """Tell that what is being packed needs this version of the format."""
    needs = _NEEDS.get()
    if needs is not None:
        needs.add(version)
