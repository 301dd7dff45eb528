"""The sparse VAE and what it makes: sparse codes, verified archives, models on disk.

`vae.compress` trains and writes (it needs the extra `pipeline`); `vae.codec.archive.open` reads on the core alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.pipeline import compress as compress

__all__ = ["compress"]

# Read by the OpenMP runtime when torch loads it. Threads that spin while they wait made training fifteen times slower
# beside one other busy process (two cores, measured); threads that sleep cost nothing on a quiet machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Without it CUDA's matrix products refuse to be deterministic, which training asks of them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def __getattr__(name: str) -> Any:
    if name == "compress":
        from vae.pipeline import compress

        return compress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
