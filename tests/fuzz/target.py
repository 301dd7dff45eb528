"""What is asked of all that calls itself an archive: an answer or a clear refusal, soon and in little memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

from data.errors import SvaeError
from tests.fuzz.parts import Parts, put_together
from vae.codec import archive

MOST_ROWS = 4_096
"""Uncompiled, a row takes some 100 µs a column: what honestly has more rows would only be slow."""
MOST_VALUES = 1 << 10
"""Likewise of the values of all images: each takes about a millisecond."""


def read(parts: Parts, path: Path) -> bool:
    """Writes the archive of these parts to `path` and reads all of it; whether it was not refused.

    Anything raised that is not one of the project's own errors is a finding.
    """
    path.write_bytes(put_together(parts))
    with contextlib.suppress(SvaeError), archive.open(path, threads=1) as opened:
        values = sum(grid.values_of_image for grid in opened._parts.grids if grid is not None and grid.shape)
        if opened.rows > MOST_ROWS or opened.rows * values > MOST_VALUES:
            return False
        opened.report()
        opened.verify()
        for batch in opened.blocks():
            batch.validate(full=True)
        if opened.latents:
            opened.dense_codes()
        for name in opened.names[:2]:
            some = slice(opened.rows // 3, opened.rows // 2)
            part, whole = opened.read([name], some), opened.read([name])
            # in words, since a NaN is not itself
            assert repr(part.to_pydict()) == repr(whole[some].to_pydict())
        return True
    return False
