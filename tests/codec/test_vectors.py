"""The product by the compiler's vectors is numpy's, to the bit that wraps around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.codec.jit import jit
from vae.codec.vectors import LANES, Ints, add_product, add_product_numpy, rounded_up

pytestmark = pytest.mark.jit


@jit
def _compiled(
    out: Ints, matrices: Ints, j: int, first: int, vector: Ints, count: int, rows: int, shift: int
) -> None:
    add_product(out, matrices, j, first, vector, count, rows, shift)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 40), rows=st.integers(0, 40), first=st.integers(0, 9), shift=st.integers(0, 3),
    seed=st.integers(0, 99), extreme=st.booleans(),
)  # fmt: skip
def test_vectors_multiply_as_numpy_does(
    height: int, rows: int, first: int, shift: int, seed: int, extreme: bool
) -> None:
    generator = np.random.default_rng(seed)
    most = 2**31 if extreme else 2**15
    matrices = generator.integers(-most, most, (3, height, first + rounded_up(rows)), dtype=np.int32)
    vector = generator.integers(-most, most, height, dtype=np.int32)
    count = int(generator.integers(0, height + 1))
    start = generator.integers(-most, most, rounded_up(rows) + LANES, dtype=np.int32)
    out, numpy = start.copy(), start.copy()
    _compiled(out, matrices, 1, first, vector, count, rows, shift)
    add_product_numpy(numpy, matrices, 1, first, vector, count, rows, shift)
    exact = start[:rows].astype(object) + (vector[:count].astype(object) << shift) @ matrices[
        1, :count, first : first + rows
    ].astype(object)
    wrapped = [(int(x) + 2**31) % 2**32 - 2**31 for x in exact]
    assert out[:rows].tolist() == numpy[:rows].tolist() == wrapped
    assert (out[rounded_up(rows) :] == start[rounded_up(rows) :]).all()
