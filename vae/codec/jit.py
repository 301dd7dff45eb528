"""`jit`: numba where it is installed, plain Python from the same source where it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

try:
    from numba import njit as _njit  # pyright: ignore[reportMissingTypeStubs]
except ImportError:  # a machine without numba still reads every archive, slowly
    _njit = None

COMPILED = _njit is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
"""Whether jitted functions run as machine code."""


def jit(function: F) -> F:
    """Compile `function` without the interpreter lock, its machine code cached on disk."""
    if not COMPILED:
        return function
    return cast(F, cast(Any, _njit)(cache=True, nogil=True, boundscheck=None)(function))
