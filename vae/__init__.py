"""Sparse codes, verified archives and models of tables.

`open` reads archives, on the core alone; `compress` trains and writes (it needs the extra `pipeline`).

>>> import pyarrow as pa, vae
>>> from vae.settings import TrainSettings
>>> table = pa.table({"shop": ["north", "south"] * 500, "sold": [k * k % 17 for k in range(1_000)]})
>>> report = vae.compress(table, "sales.svae", training=TrainSettings(steps=20))
>>> with vae.open("sales.svae") as sales:
...     sales.read().equals(table)
True
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.codec.archive import open as open
    from vae.codec.reader import Archive as Archive
    from vae.codec.summary import ArchiveReport as ArchiveReport
    from vae.pipeline import compress as compress

__all__ = ["Archive", "ArchiveReport", "compress", "open"]

# Read by the OpenMP runtime (libgomp) when torch loads it. Threads that spin for milliseconds while they wait made
# training fifteen times slower beside another busy process; threads that sleep at once make it half as fast on a quiet
# machine, for a step has a thousand short waits. So they spin for 10,000 turns, then sleep (see NOTES.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Without it CUDA's matrix products refuse to be deterministic, which training asks of them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def __getattr__(name: str) -> Any:
    """What is public, imported when it is first asked for: a program that reads archives never loads torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "compress":
        from vae.extras import needed

        needed("torch", "pipeline")
        from vae import pipeline as home
    else:
        from vae.codec import archive as home
    found = globals()[name] = getattr(home, name)
    return found
