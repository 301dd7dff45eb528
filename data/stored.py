"""Numbers as Arrow stores them (times, dates and durations by their integers), and whether they came back."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc

pc = cast(Any, _pc)
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]
"""Numbers in the column's own type."""
QUIET_NAN = {2: 0x7E00, 4: 0x7FC00000, 8: 0x7FF8000000000000}
"""The bits of the NaN that a grid gives back, by the width of its floats; numpy's own, wherever that is IEEE 754's."""


def is_numeric(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type are numbers in numpy's sense, times and dates included."""
    t = cast(Any, pa.types)
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_temporal(kind)) and not t.is_interval(kind)


def storage_type(kind: pa.DataType) -> np.dtype[Any]:
    """The numpy type in which Arrow stores numbers of this type.

    Arrow's own `to_pandas_dtype` imports pandas for it, which takes long, and `svae inspect` needs for nothing else.

    >>> storage_type(pa.uint16()), storage_type(pa.float16()), storage_type(pa.date32())
    (dtype('uint16'), dtype('float16'), dtype('int32'))
    """
    letter = "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    return np.dtype(f"{letter}{kind.bit_width // 8}")


def stored_numbers(array: pa.Array) -> tuple[Numbers, Mask]:
    """The numbers behind a numeric Arrow array, 0 where null, and which are null."""
    missing = pc.is_null(array).to_numpy(zero_copy_only=False)
    if pa.types.is_temporal(array.type):
        array = cast(Any, array).view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    if array.null_count:
        array = pc.if_else(pc.is_null(array), pa.scalar(0, pa.int8()).cast(array.type), array)
    return array.to_numpy(zero_copy_only=False), missing


def from_stored(values: Numbers, missing: Mask, kind: pa.DataType) -> pa.Array:
    """The inverse of `stored_numbers`."""
    plain = pa.array(values, mask=missing)
    return cast(pa.Array, cast(Any, plain).view(kind) if pa.types.is_temporal(kind) else plain.cast(kind))


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array, whatever its chunks and their dictionaries."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return cast(pa.Array, column.unify_dictionaries().combine_chunks())


def plain_array(array: pa.Array) -> pa.Array:
    """A dictionary-encoded array as its values."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def dictionary_array(plain: pa.Array, kind: pa.DictionaryType) -> pa.Array:
    """The inverse of `plain_array`; the dictionary holds what occurs, in order of first occurrence."""
    encoded = cast(Any, plain).dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        encoded.indices.cast(kind.index_type), encoded.dictionary, ordered=kind.ordered
    )


def bit_patterns(values: Numbers) -> Numbers:
    """The bit patterns of floats."""
    return values.view(np.dtype(f"u{values.dtype.itemsize}"))


def offenders(values: Numbers, restored: Numbers, bound: float) -> Mask:
    """What the grid does not give back within `bound`: bit patterns if exact, or -0.0 would pass for 0.0."""
    if values.dtype.kind == "f":
        if bound > 0:
            return ~_within(values.astype(np.float64), restored.astype(np.float64), bound)
        return bit_patterns(values) != bit_patterns(restored)
    if bound > 0:
        # as unsigned numbers, differences of far signed ones do not wrap
        larger, smaller = np.maximum(values, restored), np.minimum(values, restored)
        return larger.astype(np.uint64) - smaller.astype(np.uint64) > int(bound)
    return values != restored


def _within(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], bound: float) -> Mask:
    """|a - b| <= bound for the numbers themselves, not for their rounded difference; False for NaN and infinities.

    Rounding is monotone, so it can only mislead where the rounded difference is the bound; there its error, which
    Knuth's TwoSum gives exactly, decides.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        difference = a - b
        virtual = a - difference
        error = (a - (difference + virtual)) + (virtual - b)
        tie = np.abs(difference) == bound
        return np.where(tie, error * np.sign(difference) <= 0, np.abs(difference) < bound)
