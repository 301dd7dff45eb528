"""A vector times a matrix, in integers: as machine code of `LANES` products at a time, or as numpy's.

numba's own loops over a row of a matrix spend more time on beginning than on multiplying, for rows of 8 to 32 numbers
(vae/codec/NOTES.md); so this one is built of the compiler's vectors, which it lays out for any processor.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from vae.codec.jit import COMPILED, jit

Ints = npt.NDArray[np.int32]
Matrices = npt.NDArray[np.int32] | npt.NDArray[np.int16]

ABREAST = 4
"""Vectors of sums that are added to side by side, so that each number of `vector` is loaded for all of them; 2**n."""
LANES = 8
"""Numbers of 32 bits that are multiplied at once. `out` has room for `rounded_up(rows)` numbers, each row of a matrix
for `first + rounded_up(rows)`: nothing checks it when it is used (`weights.padded` and `images` see to it).
"""


def rounded_up(count: int) -> int:
    """The next multiple of `LANES`.

    >>> rounded_up(8), rounded_up(9)
    (8, 16)
    """
    return -(-count // LANES) * LANES


def add_product_numpy(
    out: Ints, matrices: Matrices, j: int, first: int, vector: Ints, count: int, rows: int, shift: int
) -> None:
    """out[:rows] += (vector[:count] << shift) @ matrices[j, :count, first:][:, :rows], of 32-bit or 16-bit matrices.

    Sums have 32 bits and wrap around. What `out` holds from `rows` to the next multiple of `LANES` is lost.
    """
    out[:rows] += (vector[:count] << int(shift)) @ matrices[j, :count, first : first + rows]


@jit
def add_product_checked(
    out: Ints, matrices: Matrices, j: int, first: int, vector: Ints, count: int, rows: int, shift: int
) -> None:
    """As the vectors do it, touching what they touch, with indices that numba checks where it is asked to."""
    for row in range(-(-rows // LANES) * LANES):
        for k in range(count):
            out[row] += (vector[k] << shift) * matrices[j, k, first + row]


def _vectors() -> Any:
    """`add_product_numpy` as a function that jitted functions may call."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.core.errors import TypingError
    from numba.extending import intrinsic

    number, place = ir.IntType(32), types.intp
    lanes, halves = ir.VectorType(number, LANES), ir.VectorType(ir.IntType(16), LANES)
    nothing = ir.Constant(lanes, ir.Undefined)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 1, 4)]
        j, first, count, rows, shift = (args[k] for k in (2, 3, 5, 6, 7))
        out, vector = arrays[0].data, arrays[2].data
        _, height, stride = cgutils.unpack_tuple(builder, arrays[1].shape, 3)
        begin = builder.add(builder.mul(builder.mul(j, height), stride), first)
        matrix = builder.gep(arrays[1].data, [begin])

        # tables' matrices, of 32 bits, have few rows: with them a vector of sums at a time is quicker
        kind, most = (lanes, 1) if signature.args[1].dtype == types.int32 else (halves, ABREAST)

        sums = [cgutils.alloca_once(builder, lanes) for _ in range(most)]

        def at(pointer: Any, index: Any, kind: Any = lanes) -> Any:
            return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())

        def add(row: Any, abreast: int) -> None:
            """The sums of `abreast` vectors of rows: each number of `vector` is loaded once for all of them."""
            places = [builder.add(row, ir.Constant(rows.type, k * LANES)) for k in range(abreast)]
            for k in range(abreast):
                builder.store(builder.load(at(out, places[k]), align=4), sums[k])
            columns = [builder.gep(matrix, [place]) for place in places]
            with cgutils.for_range(builder, count) as loop:
                value = builder.shl(builder.load(builder.gep(vector, [loop.index])), shift)
                value = builder.insert_element(nothing, value, ir.Constant(number, 0))
                value = builder.shuffle_vector(value, nothing, ir.Constant(lanes, [0] * LANES))
                line = builder.mul(loop.index, stride)
                for k in range(abreast):
                    weights = builder.load(at(columns[k], line, kind), align=4 if kind is lanes else 2)
                    if kind is halves:
                        weights = builder.sext(weights, lanes)
                    builder.store(builder.add(builder.load(sums[k]), builder.mul(value, weights)), sums[k])
            for k in range(abreast):
                builder.store(builder.load(sums[k]), at(out, places[k]), align=4)

        # as many vectors abreast as there are, then half as many, at last one by one
        place = ir.Constant(rows.type, 0)
        while most >= 1:
            step = ir.Constant(rows.type, most * LANES)
            whole = builder.mul(builder.sdiv(rows, step), step) if most > 1 else rows
            with cgutils.for_range_slice(builder, place, whole, step, rows.type) as (row, _):
                add(row, most)
            place, most = whole, most // 2
        return context.get_dummy_value()

    def typed(
        context: Any,
        out: Any,
        matrices: Any,
        j: Any,
        first: Any,
        vector: Any,
        count: Any,
        rows: Any,
        shift: Any,
    ) -> Any:
        del context, j, first, count, rows, shift
        fits = {16: types.int16, 32: types.int32}
        for array, dimensions, widths in ((out, 1, [32]), (matrices, 3, [16, 32]), (vector, 1, [32])):
            if array not in [types.Array(fits[width], dimensions, "C") for width in widths]:
                raise TypingError(
                    f"{array} is not {dimensions}-dimensional, contiguous and of {' or '.join(map(str, widths))}-bit "
                    "integers"
                )
        return types.void(out, matrices, place, place, vector, place, place, types.int32), build

    return intrinsic(typed)


if not COMPILED:
    add_product = add_product_numpy
elif os.environ.get("NUMBA_BOUNDSCHECK", "0") in ("", "0"):
    add_product = _vectors()
else:
    add_product = add_product_checked
