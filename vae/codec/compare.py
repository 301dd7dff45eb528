"""Whether what came back is what went in: value by value, bit patterns where a column is exact."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc

from data.stored import stored_numbers
from vae.codec.columns import number_type, viewed_type

pc = cast(Any, _pc)
types = cast(Any, pa.types)
Mask = npt.NDArray[np.bool_]


def largest_error(original: pa.Array, restored: pa.Array, bound: float) -> float | None:
    """Largest |x - restored| of a column of numbers, in its (stored) unit; None if a value is not within `bound`.

    Nulls, NaN and infinities must come back as they were. Differences are in float64, of integers exact. A bound of 0
    asks for equal bit patterns, whatever the type; all NaN are one.
    """
    if bound <= 0 or original.type != restored.type or len(original) != len(restored):
        return 0.0 if same(original, restored) else None
    if types.is_fixed_size_list(original.type):
        if not original.is_valid().equals(restored.is_valid()):
            return None
        return largest_error(original.flatten(), restored.flatten(), bound)  # of what is not null
    before, missing = stored_numbers(original)
    after, missing_after = stored_numbers(restored)
    if (missing != missing_after).any():
        return None
    if before.dtype.kind == "f":
        wide, wide_after = before.astype(np.float64), after.astype(np.float64)
        finite = np.isfinite(wide) & ~missing
        odd = ~finite & ~missing
        if not _same_floats(before[odd], after[odd]) or not np.isfinite(wide_after[finite]).all():
            return None
        error = float(np.abs(wide[finite] - wide_after[finite]).max(initial=0.0))
        return error if error <= bound else None
    larger, smaller = np.maximum(before, after)[~missing], np.minimum(before, after)[~missing]
    # as unsigned numbers, differences of far signed ones do not wrap
    gap = larger.astype(np.uint64) - smaller.astype(np.uint64)
    error = int(gap.max(initial=0))
    return float(error) if error <= bound else None


def first_difference(original: pa.Array, restored: pa.Array, bound: float) -> int:
    """The first place at which two arrays of one length, of which `largest_error` says None, are not within `bound`.

    >>> first_difference(pa.array([1, 2, 3, 4]), pa.array([1, 2, 0, 0]), 0.0)
    2
    """
    low, high = 0, len(original)
    while high - low > 1:
        half = (low + high) // 2
        before, after = original.slice(low, half - low), restored.slice(low, half - low)
        low, high = (low, half) if largest_error(before, after, bound) is None else (half, high)
    return low


def same(a: Any, b: Any) -> bool:
    """Whether two arrays hold the same values in the same places; floats by their bits, but all NaN are one.

    >>> same(pa.array([0.0, None]), pa.array([0.0, None])), same(pa.array([0.0]), pa.array([-0.0]))
    (True, False)
    """
    kind = a.type
    if kind != b.type or len(a) != len(b):
        return False
    if isinstance(kind, pa.BaseExtensionType):
        return same(a.storage, b.storage)
    viewed = viewed_type(kind)
    if viewed is not None:
        return same(a.cast(viewed), b.cast(viewed))
    if types.is_union(kind) or types.is_run_end_encoded(kind) or types.is_null(kind):
        return _same_unmasked(a, b)
    if a.null_count != b.null_count or not a.is_valid().equals(b.is_valid()):
        return False
    return _same_values(a.drop_null(), b.drop_null()) if a.null_count else _same_values(a, b)


def _same_values(a: Any, b: Any) -> bool:
    """`same` for arrays without nulls."""
    kind = a.type
    if types.is_floating(kind):
        return _same_floats(a.to_numpy(zero_copy_only=False), b.to_numpy(zero_copy_only=False))
    if number_type(kind) is not None or not types.is_nested(kind):
        return _same_dictionaries(a, b) if types.is_dictionary(kind) else bool(a.equals(b))
    if types.is_struct(kind):
        return all(same(a.field(i), b.field(i)) for i in range(kind.num_fields))
    if types.is_fixed_size_list(kind):
        return same(a.flatten(), b.flatten())
    if types.is_map(kind):
        lengths, lengths_after = np.diff(a.offsets.to_numpy()), np.diff(b.offsets.to_numpy())
        if len(a) and not np.array_equal(lengths, lengths_after):
            return False
        return same(_items(a, a.keys), _items(b, b.keys)) and same(_items(a, a.items), _items(b, b.items))
    if not pc.list_value_length(a).equals(pc.list_value_length(b)):
        return False
    return same(a.flatten(), b.flatten())


def _items(array: Any, all_items: Any) -> Any:
    """The keys or items that a slice of maps holds."""
    if not len(array):
        return all_items.slice(0, 0)
    start, stop = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
    return all_items.slice(start, stop - start)


def _same_floats(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    bits = np.dtype(f"u{a.dtype.itemsize}")
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return bool((equal | (np.isnan(a) & np.isnan(b))).all())


def _same_dictionaries(a: Any, b: Any) -> bool:
    if a.dictionary.equals(b.dictionary) and a.indices.equals(b.indices):
        return True
    return same(a.dictionary.take(a.indices), b.dictionary.take(b.indices))


def _same_unmasked(a: Any, b: Any) -> bool:
    """`same` for types without validity of their own."""
    kind = a.type
    if types.is_null(kind):
        return True
    if types.is_run_end_encoded(kind):
        return same(pc.run_end_decode(a), pc.run_end_decode(b))
    codes, codes_after = _codes(a), _codes(b)
    if not (codes == codes_after).all():
        return False
    for place, code in enumerate(kind.type_codes):
        rows = np.flatnonzero(codes == code)
        if not same(_child(a, place, rows), _child(b, place, rows)):
            return False
    return True


def _codes(array: Any) -> npt.NDArray[np.int8]:
    if not len(array):
        return np.zeros(0, np.int8)
    return np.frombuffer(array.buffers()[1], np.int8)[array.offset : array.offset + len(array)]


def _child(array: Any, place: int, rows: npt.NDArray[np.intp]) -> Any:
    if array.type.mode == "dense" and len(array):
        offsets = np.frombuffer(array.buffers()[2], np.int32)[array.offset : array.offset + len(array)]
        rows = offsets[rows].astype(np.intp)
    return array.field(place).take(pa.array(rows, pa.int64()))
