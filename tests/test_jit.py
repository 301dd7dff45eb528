"""The second run of the tests is what it says: uncompiled."""

from __future__ import annotations

import os
from types import FunctionType

import pytest

from vae.codec.jit import COMPILED, jit

pytestmark = pytest.mark.jit


@jit
def _double(number: int) -> int:
    return 2 * number


def test_numba_disable_jit_decides_whether_functions_are_compiled() -> None:
    uncompiled = os.environ.get("NUMBA_DISABLE_JIT") == "1"
    assert COMPILED is not uncompiled
    assert isinstance(_double, FunctionType) is uncompiled
    assert _double(21) == 42
