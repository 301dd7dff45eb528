"""What can still be read of a damaged archive: the blocks that need no damaged stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa

from data.errors import DamagedError
from vae.codec.parts import Kept, Part, Parts


class Lost(NamedTuple):
    """Rows of a damaged archive that cannot be read."""

    start: int
    stop: int
    """The first row after them."""
    why: str
    """The damaged part, by name."""


def salvaged(
    parts: Parts,
    asked: Iterable[Part],
    places: Sequence[int],
    pool: ThreadPoolExecutor,
    on_lost: Callable[[Lost], None],
) -> Iterator[list[pa.Array]]:
    """Columns of what is whole of the parts asked for; runs of rows that are lost for one reason are told as one."""
    lost: Lost | None = None
    for part, found in _tried(parts, asked, places, pool):
        if not isinstance(found, DamagedError):
            yield found
            continue
        first = part.group * parts.header.group_rows
        here = Lost(first + part.start, first + part.stop, str(found))
        if lost is not None and (lost.stop, lost.why) == (here.start, here.why):
            here = here._replace(start=lost.start)
        elif lost is not None:
            on_lost(lost)
        lost = here
    if lost is not None:
        on_lost(lost)


def _tried(
    parts: Parts, asked: Iterable[Part], places: Sequence[int], pool: ThreadPoolExecutor
) -> Iterator[tuple[Part, list[pa.Array] | DamagedError]]:
    """Groups, and of damaged ones the blocks; each as its columns or as what is wrong with it."""
    for whole in asked:
        kept = parts.kept()
        found = _read(parts, whole, places, pool, kept)
        if isinstance(found, DamagedError):
            for part in parts.cut(whole):
                yield part, _read(parts, part, places, pool, kept)
        else:
            yield whole, found


def _read(
    parts: Parts, part: Part, places: Sequence[int], pool: ThreadPoolExecutor, kept: Kept
) -> list[pa.Array] | DamagedError:
    try:
        return parts.read_part(part, places, pool, kept)
    except DamagedError as error:
        return error
