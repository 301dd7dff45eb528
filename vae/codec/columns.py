"""Rival coders of whole columns: any Arrow array to bytes and back, without a model.

`pack` writes a *node* for the array, with nodes of its children within; the reader knows type and count::

    node      validity (unless the type has none), then the values that are there, as the type asks
    validity  0 all there | 1 all null, nothing follows | 2 piece: packed bytes 0/1 |
              3 varint count, piece: packed lengths (int64) of runs, in turn valid and null, valid first
    piece     varint length, bytes
    numbers   packed numbers (`vae.codec.numbers`); times, dates, durations as integers, booleans as bytes 0/1
    decimals  0 packed int64, if they fit; else 1, and a piece of packed uint64 a limb, low to high
    bytes     and strings: see `vae.codec.texts`
    lists     and maps: piece: packed lengths (int64), the node of all their items; of fixed size: that node alone
    structs   a piece, the node, for each field
    dictionary arrays: piece: packed indices, varint count, the node of the dictionary
    unions    piece: packed type codes, then for each child a piece, the node of its values
    run ends  varint count, piece: packed lengths (int64) of runs, the node of their values
    extension types as their storage, views as what they view; null arrays are empty
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc

from data.errors import DamagedError
from data.stored import one_array, storage_type
from vae.codec.budget import Budget
from vae.codec.framing import Cursor, put_varint
from vae.codec.numbers import Numbers, pack_numbers, unpack_numbers
from vae.codec.texts import is_bytes, pack_texts, unpack_texts

pc = cast(Any, _pc)
types = cast(Any, pa.types)
Mask = npt.NDArray[np.bool_]
_BYTE = np.dtype("u1")
_LONG = np.dtype("i8")
_LIMB = np.dtype("u8")


def pack(array: pa.Array | pa.ChunkedArray, *, quick: bool = False) -> bytes:
    """The smallest packing found of an array of any Arrow type; without the slowest coders if `quick`.

    >>> unpack(pack(pa.array([[1, 2], None, []])), pa.list_(pa.int64()), 3).to_pylist()
    [[1, 2], None, []]
    """
    return _node(one_array(array), quick)


def unpack(data: bytes | memoryview, kind: pa.DataType, count: int) -> pa.Array:
    """The array of `count` values of type `kind` that `pack` was given.

    Raises:
        DamagedError: The bytes are not such an array, or announce more than their number justifies.
    """
    try:
        cursor = Cursor(data)
        array = _read(cursor, kind, count, Budget(len(data)))
        if cursor.left:
            raise DamagedError("bytes are left over")
        array.validate(full=True)
    except (pa.ArrowException, ValueError, OverflowError, TypeError, NotImplementedError) as error:
        raise DamagedError(" ".join(str(error).split())[:200]) from error
    return array


def number_type(kind: pa.DataType) -> np.dtype[Any] | None:
    """The numpy type of the numbers by which Arrow stores values of this type, if it is a type of plain numbers."""
    if types.is_integer(kind) or types.is_floating(kind):
        return storage_type(kind)
    if types.is_date32(kind) or types.is_time32(kind) or types.is_decimal32(kind):
        return np.dtype("i4")
    if types.is_temporal(kind) and not types.is_interval(kind):
        return _LONG
    return _LONG if types.is_decimal64(kind) else None


def _limbs(kind: pa.DataType) -> int:
    return 2 if types.is_decimal128(kind) else 4 if types.is_decimal256(kind) else 0


def viewed_type(kind: Any) -> pa.DataType | None:
    """What values of a view type are stored as; None for other types."""
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    return None


def _has_validity(kind: pa.DataType) -> bool:
    return not (types.is_null(kind) or types.is_union(kind) or types.is_run_end_encoded(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind) or _is_list_view(kind))


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(types.is_list_view(kind) or types.is_large_list_view(kind))


# ------------------------------------------------------------------------------------------------------- writing


def _piece(data: bytes) -> bytes:
    return put_varint(len(data)) + data


def _node(array: Any, quick: bool) -> bytes:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _node(array.storage, quick)
    viewed = viewed_type(kind)
    if viewed is not None:
        return _node(array.cast(viewed), quick)
    if not _has_validity(kind):
        return _values(array, quick)
    if array.null_count == 0:
        return b"\0" + _values(array, quick)
    if array.null_count == len(array):
        return b"\1"
    return _validity(array.is_valid().to_numpy(zero_copy_only=False)) + _values(array.drop_null(), quick)


def _validity(valid: Mask) -> bytes:
    plain = b"\2" + _piece(pack_numbers(valid.view(np.uint8)))
    edges = np.flatnonzero(np.diff(valid, prepend=True))
    runs = np.diff(np.concatenate(([0], edges, [len(valid)])))
    return min(plain, b"\3" + put_varint(len(runs)) + _piece(pack_numbers(runs)), key=len)


def _values(array: Any, quick: bool) -> bytes:
    """The node of an array without nulls, less its validity."""
    kind = array.type
    dtype = number_type(kind)
    if dtype is not None:
        return pack_numbers(_buffer(array, dtype), quick=quick)
    if types.is_boolean(kind):
        return pack_numbers(array.to_numpy(zero_copy_only=False).view(np.uint8), quick=quick)
    if _limbs(kind):
        return _decimals(_buffer(array, _LIMB, _limbs(kind)).reshape(-1, _limbs(kind)), quick)
    if is_bytes(kind):
        return pack_texts(array, quick=quick)
    return _nested(array, quick)


def _nested(array: Any, quick: bool) -> bytes:
    kind = array.type
    if types.is_dictionary(kind):
        indices = pack_numbers(_buffer(array.indices, storage_type(kind.index_type)), quick=quick)
        return _piece(indices) + put_varint(len(array.dictionary)) + _node(array.dictionary, quick)
    if types.is_struct(kind):
        return b"".join(_piece(_node(array.field(i), quick)) for i in range(kind.num_fields))
    if types.is_fixed_size_list(kind):
        return _node(array.flatten(), quick)
    if _is_list_view(kind):
        sizes = pc.list_value_length(array).to_numpy().astype(np.int64)
        return _piece(pack_numbers(sizes, quick=quick)) + _node(array.flatten(), quick)
    if _is_list(kind):
        offsets = array.offsets.to_numpy().astype(np.int64)
        start, stop = (int(offsets[0]), int(offsets[-1])) if len(array) else (0, 0)
        items = _entries(array) if types.is_map(kind) else array.values
        return _piece(pack_numbers(np.diff(offsets), quick=quick)) + _node(
            items.slice(start, stop - start), quick
        )
    if types.is_union(kind):
        return _union(array, quick)
    if types.is_run_end_encoded(kind):
        runs = np.diff(np.minimum(_run_ends(array), len(array)), prepend=0)
        values = array.values.slice(array.find_physical_offset(), len(runs))
        return put_varint(len(runs)) + _piece(pack_numbers(runs, quick=quick)) + _node(values, quick)
    if types.is_null(kind):
        return b""
    raise NotImplementedError(f"Arrow type {kind} is unknown")


def _buffer(array: Any, dtype: np.dtype[Any], per_value: int = 1) -> Numbers:
    """The stored numbers of a fixed-width array."""
    data = array.buffers()[1]
    if len(array) == 0 or data is None:
        return np.zeros(0, dtype)
    start = array.offset * per_value
    return np.frombuffer(data, dtype, count=start + len(array) * per_value)[start:]


def _decimals(limbs: Numbers, quick: bool) -> bytes:
    low = np.ascontiguousarray(limbs[:, 0]).view(np.int64)
    if (limbs[:, 1:].view(np.int64) == (low >> 63)[:, None]).all():
        return b"\0" + pack_numbers(low, quick=quick)
    return b"\1" + b"".join(
        _piece(pack_numbers(np.ascontiguousarray(column), quick=quick)) for column in limbs.T
    )


def _entries(array: Any) -> pa.Array:
    """The keys and items of a map array as structs."""
    kind = array.type
    return pa.StructArray.from_arrays([array.keys, array.items], fields=[kind.key_field, kind.item_field])


def _union(array: Any, quick: bool) -> bytes:
    # `type_codes` and `offsets` forget the offset of a slice
    buffers, part = array.buffers(), slice(array.offset, array.offset + len(array))
    codes = np.frombuffer(buffers[1], np.int8)[part] if len(array) else np.zeros(0, np.int8)
    out = _piece(pack_numbers(codes, quick=quick))
    for place, code in enumerate(array.type.type_codes):
        rows = np.flatnonzero(codes == code)
        if array.type.mode == "dense":
            rows = np.frombuffer(buffers[2], np.int32)[part][rows] if len(array) else rows
        out += _piece(_node(array.field(place).take(pa.array(rows, pa.int64())), quick))
    return out


def _run_ends(array: Any) -> Numbers:
    """The ends of the runs of a slice, counted from its start."""
    start, count = array.find_physical_offset(), array.find_physical_length()
    return array.run_ends.to_numpy()[start : start + count].astype(np.int64) - array.offset


# ------------------------------------------------------------------------------------------------------- reading


def _read(cursor: Cursor, kind: Any, count: int, budget: Budget) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(_read(cursor, kind.storage_type, count, budget))
    viewed = viewed_type(kind)
    if viewed is not None:
        return _read(cursor, viewed, count, budget).cast(kind)
    if not _has_validity(kind):
        return _read_values(cursor, kind, count, budget)
    how = cursor.take(1)[0]
    if how == 0:
        return _read_values(cursor, kind, count, budget)
    budget.spend(max(8 * count, count * _null_bits(kind) // 8))
    if how == 1:
        return pa.nulls(count, kind)
    valid = _read_validity(cursor, how, count, budget)
    there = _read_values(cursor, kind, int(valid.sum()), budget)
    return there.take(pa.array(np.cumsum(valid) - 1, mask=~valid))


def _null_bits(kind: Any) -> int:
    """Bits that a null of this type takes: where values are of a fixed size, as many as a value."""
    if isinstance(kind, pa.BaseExtensionType):
        return _null_bits(kind.storage_type)
    if types.is_fixed_size_list(kind):
        return 1 + kind.list_size * _null_bits(kind.value_type)
    if types.is_struct(kind):
        return 1 + sum(_null_bits(field.type) for field in kind)
    if types.is_union(kind):
        return 40 + sum(_null_bits(field.type) for field in kind)
    if types.is_null(kind) or types.is_run_end_encoded(kind):
        return 0
    if viewed_type(kind) is not None:
        return 129
    try:
        return 1 + kind.bit_width
    except ValueError:  # an offset
        return 65 if "large" in str(kind) else 33


def _read_validity(cursor: Cursor, how: int, count: int, budget: Budget) -> Mask:
    if how == 2:
        return _booleans(unpack_numbers(cursor.take(cursor.varint()), count, _BYTE, budget))
    if how == 3:
        number = cursor.varint()
        runs = unpack_numbers(cursor.take(cursor.varint()), number, _LONG, budget)
        _check_lengths(runs, count)
        return np.repeat(np.arange(number) % 2 == 0, runs)
    raise DamagedError(f"validity {how} is unknown")


def _booleans(numbers: Numbers) -> Mask:
    if len(numbers) and int(numbers.max()) > 1:
        raise DamagedError("a boolean is neither 0 nor 1")
    return numbers.view(np.bool_)


def _check_lengths(lengths: Numbers, total: int | None, limit: int = 1 << 31) -> int:
    """The sum of `lengths`; DamagedError if one is negative or they do not add up to `total`."""
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) < limit:
        raise DamagedError("a length cannot be")
    found = int(lengths.sum()) if len(lengths) < 1 << 31 else -1
    if not 0 <= found < limit or (total is not None and found != total):
        raise DamagedError(f"lengths add up to {found}")
    return found


def _read_values(cursor: Cursor, kind: Any, count: int, budget: Budget) -> Any:
    dtype = number_type(kind)
    if dtype is not None:
        numbers = unpack_numbers(cursor.rest(), count, dtype, budget)
        return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(numbers)])
    if types.is_boolean(kind):
        return pa.array(_booleans(unpack_numbers(cursor.rest(), count, _BYTE, budget)))
    if _limbs(kind):
        limbs = _read_decimals(cursor, _limbs(kind), count, budget)
        return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(limbs)])
    if is_bytes(kind):
        return unpack_texts(cursor, kind, count, budget)
    return _read_nested(cursor, kind, count, budget)


def _read_nested(cursor: Cursor, kind: Any, count: int, budget: Budget) -> Any:
    budget.spend(count, 8)
    if types.is_dictionary(kind):
        indices = unpack_numbers(cursor.take(cursor.varint()), count, storage_type(kind.index_type), budget)
        dictionary = _read(cursor, kind.value_type, cursor.varint(), budget)
        return pa.DictionaryArray.from_arrays(indices, dictionary, ordered=kind.ordered)
    if types.is_struct(kind):
        fields = [_read_piece(cursor, field.type, count, budget) for field in kind]
        return pa.Array.from_buffers(kind, count, [None], children=fields)
    if types.is_fixed_size_list(kind):
        items = _read(cursor, kind.value_type, count * kind.list_size, budget)
        return pa.Array.from_buffers(kind, count, [None], children=[items])
    if _is_list(kind):
        lengths = unpack_numbers(cursor.take(cursor.varint()), count, _LONG, budget)
        wide = "i8" if types.is_large_list(kind) or types.is_large_list_view(kind) else "i4"
        total = _check_lengths(lengths, None, limit=1 << 40 if wide == "i8" else 1 << 31)
        item = pa.struct([kind.key_field, kind.item_field]) if types.is_map(kind) else kind.value_type
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(wide)
        buffers = [None, pa.py_buffer(offsets)]
        if _is_list_view(kind):
            buffers.append(pa.py_buffer(lengths.astype(wide)))
        return pa.Array.from_buffers(kind, count, buffers, children=[_read(cursor, item, total, budget)])
    if types.is_union(kind):
        return _read_union(cursor, kind, count, budget)
    if types.is_run_end_encoded(kind):
        number = cursor.varint()
        runs = unpack_numbers(cursor.take(cursor.varint()), number, _LONG, budget)
        _check_lengths(runs, count)
        ends = pa.array(np.cumsum(runs), kind.run_end_type)
        return pa.RunEndEncodedArray.from_arrays(ends, _read(cursor, kind.value_type, number, budget))
    if types.is_null(kind):
        return pa.nulls(count)
    raise NotImplementedError(f"Arrow type {kind} is unknown")


def _read_piece(cursor: Cursor, kind: Any, count: int, budget: Budget) -> Any:
    inner = Cursor(cursor.take(cursor.varint()))
    array = _read(inner, kind, count, budget)
    if inner.left:
        raise DamagedError("bytes are left over")
    return array


def _read_decimals(cursor: Cursor, limbs: int, count: int, budget: Budget) -> Numbers:
    out = np.zeros((count, limbs), _LIMB)
    if cursor.take(1)[0] == 0:
        low = unpack_numbers(cursor.rest(), count, _LONG, budget)
        out[:] = (low >> 63).view(_LIMB)[:, None]
        out[:, 0] = low.view(_LIMB)
        return out
    for place in range(limbs):
        out[:, place] = unpack_numbers(cursor.take(cursor.varint()), count, _LIMB, budget)
    return out


def _read_union(cursor: Cursor, kind: Any, count: int, budget: Budget) -> Any:
    codes = unpack_numbers(cursor.take(cursor.varint()), count, np.dtype("i1"), budget)
    if not np.isin(codes, np.array(kind.type_codes, np.int8)).all():
        raise DamagedError("a type code is unknown")
    offsets = np.zeros(count, np.int32)
    children: list[Any] = []
    for field, code in zip(kind, kind.type_codes, strict=True):
        rows = np.flatnonzero(codes == code)
        offsets[rows] = np.arange(len(rows))
        children.append(_read_piece(cursor, field.type, len(rows), budget))
        if kind.mode == "sparse":
            places = np.zeros(count, np.int64)
            places[rows] = np.arange(len(rows))
            absent = np.ones(count, bool)
            absent[rows] = False
            children[-1] = children[-1].take(pa.array(places, mask=absent))
    buffers = [None, pa.py_buffer(codes)]
    if kind.mode == "dense":
        buffers.append(pa.py_buffer(offsets))
    return pa.Array.from_buffers(kind, count, buffers, children=children)
