"""The further runs of the tests are what they say: uncompiled, and with indices checked."""

from __future__ import annotations

import os
from types import FunctionType

import numpy as np
import numpy.typing as npt
import pytest

from vae.codec.jit import COMPILED, jit

pytestmark = pytest.mark.jit


@jit
def _double(number: int) -> int:
    return 2 * number


@jit
def _at(numbers: npt.NDArray[np.int64], index: int) -> int:
    return numbers[index]


def test_numba_disable_jit_decides_whether_functions_are_compiled() -> None:
    uncompiled = os.environ.get("NUMBA_DISABLE_JIT") == "1"
    assert COMPILED is not uncompiled
    assert isinstance(_double, FunctionType) is uncompiled
    assert _double(21) == 42


@pytest.mark.skipif(
    os.environ.get("NUMBA_BOUNDSCHECK") != "1", reason="machine code checks no index by itself"
)
def test_numba_boundscheck_has_indices_checked() -> None:
    assert _at(np.arange(3), 2) == 2
    with pytest.raises(IndexError):
        _at(np.arange(3), 3)
