"""The product by the compiler's vectors is numpy's, to the bit that wraps around."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import NumbaError

from vae.codec.jit import COMPILED, jit
from vae.codec.vectors import (
    LANES,
    Ints,
    add_product,
    add_product_checked,
    add_product_numpy,
    rounded_up,
)

pytestmark = pytest.mark.jit


@jit
def _compiled(
    out: Ints, matrices: Ints, j: int, first: int, vector: Ints, count: int, rows: int, shift: int
) -> None:
    add_product(out, matrices, j, first, vector, count, rows, shift)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 40), rows=st.integers(0, 80), first=st.integers(0, 9), shift=st.integers(0, 3),
    seed=st.integers(0, 99), extreme=st.booleans(), narrow=st.booleans(),
)  # fmt: skip
def test_vectors_multiply_as_numpy_does(
    height: int, rows: int, first: int, shift: int, seed: int, extreme: bool, narrow: bool
) -> None:
    generator = np.random.default_rng(seed)
    most = 2**31 if extreme else 2**15
    shape = 3, height, first + rounded_up(rows)
    matrices = generator.integers(-(2**15), 2**15, shape, dtype=np.int16)
    if not narrow:
        matrices = generator.integers(-most, most, shape, dtype=np.int32)
    vector = generator.integers(-most, most, height, dtype=np.int32)
    count = int(generator.integers(0, height + 1))
    start = generator.integers(-most, most, rounded_up(rows) + LANES, dtype=np.int32)
    out, numpy, checked = start.copy(), start.copy(), start.copy()
    _compiled(out, matrices, 1, first, vector, count, rows, shift)
    add_product_numpy(numpy, matrices, 1, first, vector, count, rows, cast(int, np.int64(shift)))
    if COMPILED:  # it counts on sums that wrap around, of which numpy warns
        add_product_checked(checked, matrices, 1, first, vector, count, rows, shift)
        assert checked.tolist() == out.tolist()
    exact = start[:rows].astype(object) + (vector[:count].astype(object) << shift) @ matrices[
        1, :count, first : first + rows
    ].astype(object)
    wrapped = [(int(x) + 2**31) % 2**32 - 2**31 for x in exact]
    assert out[:rows].tolist() == numpy[:rows].tolist() == wrapped
    assert (out[rounded_up(rows) :] == start[rounded_up(rows) :]).all()


def test_numpy_multiplies_in_32_bits() -> None:
    matrix, vector, out = np.ones((1, 2, 8), np.int32), np.ones(2, np.int32), np.zeros(8, np.int32)
    kinds = set[np.dtype]()

    class Seen(np.ndarray):
        def __matmul__(self, other: np.ndarray) -> np.ndarray:
            found = np.asarray(self) @ np.asarray(other)
            kinds.add(found.dtype)
            return found

    add_product_numpy(out, matrix, 0, 0, vector.view(Seen), 2, 8, cast(int, np.int64(3)))
    assert kinds == {np.dtype(np.int32)}
    assert out.tolist() == [16] * 8


@pytest.mark.skipif(
    not COMPILED or add_product is add_product_checked, reason="plain loops take what numba and numpy do"
)
def test_arrays_that_vectors_cannot_take_are_refused() -> None:
    good = (np.zeros(8, np.int32), np.zeros((1, 2, 8), np.int32), np.zeros(2, np.int32))
    for place, wrong in (
        (0, np.zeros(8, np.int64)),
        (1, np.zeros((1, 2, 16), np.int32)[:, :, ::2]),
        (1, np.zeros((1, 2, 8), np.int64)),
        (2, np.zeros((2, 1), np.int32)),
    ):
        out, matrices, vector = (wrong if place == k else array for k, array in enumerate(good))
        with pytest.raises(NumbaError, match="contiguous and of (16 or )?32-bit integers"):
            _compiled(out, matrices, 0, 0, vector, 2, 8, 0)
