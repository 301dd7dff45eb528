"""Rival coders of strings and bytes: joined and squeezed, or indices into the distinct ones.

The node of an array without nulls (see `vae.codec.columns`)::

    0 plain    piece: packed lengths, then the joined bytes, squeezed
    1 distinct varint count, piece: the distinct values in rising order as `plain`, packed indices into them
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc

from data.errors import DamagedError
from vae.codec.budget import Budget
from vae.codec.framing import Cursor, put_varint, squeeze, unsqueeze
from vae.codec.numbers import Numbers, pack_numbers, unpack_numbers

pc = cast(Any, _pc)
types = cast(Any, pa.types)
_LONG = np.dtype("i8")
_SAMPLE_BYTES = 1 << 18
"""Bytes on which zstd and brotli are compared."""
_SAMPLE_ROWS = 1 << 16
"""Rows on which distinct values are counted."""


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes or strings, of fixed width or not (calendar intervals count as 16 bytes)."""
    names = ("string", "large_string", "binary", "large_binary", "fixed_size_binary", "interval")
    return any(getattr(types, f"is_{name}")(kind) for name in names)


def pack_texts(array: pa.Array, *, quick: bool = False) -> bytes:
    """The smaller of both packings of an array without nulls, judged by the first rows of a long one."""
    if len(array) < 4 or types.is_interval(array.type):
        return _pack_plain(array, quick)
    sample = array.slice(0, _SAMPLE_ROWS)
    if len(pc.unique(sample)) > len(sample) // 2:
        return _pack_plain(array, quick)
    short = len(sample) == len(array)
    trials = {how: how(sample, quick or not short) for how in (_pack_plain, _pack_distinct)}
    best = min(trials, key=lambda how: len(trials[how]))
    return trials[best] if short else best(array, quick)


def _pack_distinct(array: pa.Array, quick: bool) -> bytes:
    encoded = cast(Any, array).dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    distinct = _pack_plain(encoded.dictionary.take(pa.array(order)), quick)
    indices = pack_numbers(ranks[encoded.indices.to_numpy()], quick=quick)
    return b"\1" + put_varint(len(order)) + put_varint(len(distinct)) + distinct + indices


def unpack_texts(cursor: Cursor, kind: pa.DataType, count: int, budget: Budget) -> pa.Array:
    """The inverse of `pack_texts`; takes all that is left of `cursor`."""
    if cursor.take(1)[0] == 0:
        return _unpack_plain(cursor, kind, count, budget)[0]
    number = cursor.varint()
    packed = cursor.take(cursor.varint())
    if not len(packed) or packed[0] != 0:
        raise DamagedError("distinct values are not plain")
    distinct, lengths = _unpack_plain(Cursor(packed, 1), kind, number, budget)
    indices = unpack_numbers(cursor.rest(), count, _LONG, budget)
    if count and not (int(indices.min()) >= 0 and int(indices.max()) < number):
        raise DamagedError("an index is outside its table")
    _check_total(_total(lengths[indices], budget), kind)
    return cast(Any, distinct).take(pa.array(indices))


def _pack_plain(array: pa.Array, quick: bool) -> bytes:
    lengths, body = _split(array)
    packed = pack_numbers(lengths, quick=quick)
    return b"\0" + put_varint(len(packed)) + packed + _squeeze(body, quick)


def _unpack_plain(cursor: Cursor, kind: pa.DataType, count: int, budget: Budget) -> tuple[pa.Array, Numbers]:
    lengths = unpack_numbers(cursor.take(cursor.varint()), count, _LONG, budget)
    total = _total(lengths, budget)
    _check_total(total, kind)
    body = unsqueeze(cursor.rest(), total)
    if len(body) != total:
        raise DamagedError(f"{len(body)} bytes of text where {total} are needed")
    return _join(lengths, body, kind), lengths


def _total(lengths: Numbers, budget: Budget) -> int:
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) < 1 << 40:
        raise DamagedError("a length cannot be")
    total = sum(int(part.sum()) for part in np.array_split(lengths, 1 + len(lengths) // (1 << 20)))
    budget.spend(total)
    return total


def _check_total(total: int, kind: pa.DataType) -> None:
    if total >= 1 << 31 and not (types.is_large_string(kind) or types.is_large_binary(kind)):
        raise DamagedError(f"{total} bytes do not fit type {kind}")


def _split(array: pa.Array) -> tuple[Numbers, bytes]:
    """Lengths and joined bytes of an array without nulls."""
    kind, count, buffers = array.type, len(array), array.buffers()
    width = _fixed_width(kind)
    if width is not None:
        data = buffers[1].slice(array.offset * width, count * width).to_pybytes() if width and count else b""
        return np.full(count, width, np.int64), data
    if count == 0:
        return np.zeros(0, np.int64), b""
    wide = "i8" if types.is_large_string(kind) or types.is_large_binary(kind) else "i4"
    offsets = np.frombuffer(buffers[1], wide, count=array.offset + count + 1)[array.offset :]
    start, stop = int(offsets[0]), int(offsets[-1])
    body = buffers[2].slice(start, stop - start).to_pybytes() if stop > start else b""
    return np.diff(offsets).astype(np.int64), body


def _join(lengths: Numbers, body: bytes, kind: pa.DataType) -> pa.Array:
    width = _fixed_width(kind)
    data = pa.py_buffer(body)
    if width is not None:
        if (lengths != width).any():
            raise DamagedError(f"lengths that type {kind} cannot have")
        return pa.Array.from_buffers(kind, len(lengths), [None, data])
    wide = "i8" if types.is_large_string(kind) or types.is_large_binary(kind) else "i4"
    offsets = np.zeros(len(lengths) + 1, wide)
    np.cumsum(lengths, out=offsets[1:])
    return pa.Array.from_buffers(kind, len(lengths), [None, pa.py_buffer(offsets), data])


def _fixed_width(kind: pa.DataType) -> int | None:
    if types.is_interval(kind):
        return 16
    return cast(Any, kind).byte_width if types.is_fixed_size_binary(kind) else None


def _squeeze(body: bytes, quick: bool) -> bytes:
    if quick:
        return squeeze(body, (1,))
    if len(body) <= _SAMPLE_BYTES:
        return squeeze(body)
    middle = (len(body) - _SAMPLE_BYTES) // 2
    sample = body[middle : middle + _SAMPLE_BYTES]
    method = min((1, 2), key=lambda m: len(squeeze(sample, (m,))))
    return squeeze(body, (method,))
