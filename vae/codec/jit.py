"""`jit`: numba where it is installed, plain Python from the same source where it is not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

try:
    from numba import njit as _njit
except ImportError:  # a machine without numba still reads every archive, slowly
    _njit = None

COMPILED = _njit is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
"""Whether jitted functions run as machine code."""

NONE, ONE, TWO, THREE, FIVE, EIGHT = (cast(int, np.int64(number)) for number in (0, 1, 2, 3, 5, 8))
"""Numbers to hand to jitted functions: numba compiles them anew for each literal, and for each width of integers."""

_JITTED = (
    "jit",
    "vectors",
    "entropy",
    "counts",
    "plan",
    "frontend",
    "intervals",
    "kernel",
    "shades",
    "pixels",
    "surroundings",
    "mixing",
)
"""Modules whose functions and constants are compiled into one another."""


def jit(function: F) -> F:
    """Compile `function`, which makes no arrays, without the interpreter lock; its machine code is cached on disk.

    numba counts the references to each array that a function touches, in a word of memory that all threads share: a
    quarter of the codec's time on one thread, and more on two. What makes no arrays has nothing to count.

    Jitted functions become part of those that call them: a call hands over seven words for each array of a tuple, a
    hundred and more in all, which took as long as what most of the functions do.
    """
    return _compiled(function, counts=False)


def jit_with_arrays(function: F) -> F:
    """As `jit`, for a function that makes arrays."""
    return _compiled(function, counts=True)


def _compiled(function: F, *, counts: bool) -> F:
    if not COMPILED:
        return function
    compiler = cast(Any, _njit)
    options: dict[str, Any] = {"nogil": True, "_nrt": counts, "forceinline": True}
    try:
        compiled = compiler(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep machine code in: a read-only installation without a home
        return cast(F, compiler(**options)(function))
    # numba asks whether the function's own file has changed; what it calls, and the constants, stand in others
    cached = compiled._cache._cache_file
    cached._source_stamp = (cached._source_stamp, _sources())
    return cast(F, compiled)


def _sources() -> str:
    """Digest of the modules that are compiled into one another."""
    digest = hashlib.sha256()
    for name in _JITTED:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()
