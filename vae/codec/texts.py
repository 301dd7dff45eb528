"""Rival coders of strings and bytes: joined and squeezed, or indices into the distinct ones.

The node of an array without nulls (see `vae.codec.columns`)::

    0 plain    piece: packed lengths, then the joined bytes, squeezed
    1 distinct varint count, piece: the distinct values in rising order as `plain` or `mixed`, packed indices into them
    2 mixed    varint: the bytes of all values, then values and their ends by `vae.codec.mixing`
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc

from data.errors import DamagedError
from vae.codec.budget import Budget
from vae.codec.framing import Cursor, put_varint, squeeze, unsqueeze
from vae.codec.needs import is_known, need
from vae.codec.numbers import Numbers, pack_numbers, unpack_numbers

pc = cast(Any, _pc)
types = cast(Any, pa.types)
_LONG = np.dtype("i8")
_PLAIN, _DISTINCT, _MIXED = b"\0", b"\1", b"\2"
MIXED_VERSION = 9
"""The oldest version of the format that knows mixed texts."""
MIXED_SHARE = 0.97
"""Of what the values take as plain or distinct, most that they may take mixed: they are read some hundred times as
slowly."""
_LEAST_MIXED = 1 << 12
"""Bytes from which on mixing is tried: fewer teach it little, and its tables have to be cleared."""
_MOST_MIXED = 1 << 24
"""Bytes up to which it is: one row of them takes as long to read as all, half a minute of so many."""
_SAMPLE_BYTES = 1 << 18
"""Bytes on which zstd, brotli and mixing are compared."""
_SAMPLE_ROWS = 1 << 16
"""Rows on which distinct values are counted."""


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes or strings, of fixed width or not (calendar intervals count as 16 bytes)."""
    names = ("string", "large_string", "binary", "large_binary", "fixed_size_binary", "interval")
    return any(getattr(types, f"is_{name}")(kind) for name in names)


def pack_texts(array: pa.Array, *, quick: bool = False) -> bytes:
    """The smallest packing of an array without nulls, judged by some rows of a long one; never mixed if `quick`."""
    packed = _pack_best(array, quick)
    if _is_mixed(packed):
        need(MIXED_VERSION)
    return packed


def _pack_best(array: pa.Array, quick: bool) -> bytes:
    if len(array) < 4 or types.is_interval(array.type):
        return _pack_values(array, quick)
    sample = array.slice(0, _SAMPLE_ROWS)
    if len(pc.unique(sample)) > len(sample) // 2:
        return _pack_values(array, quick)
    short = len(sample) == len(array)
    trials = {how: how(sample, quick or not short) for how in (_pack_values, _pack_distinct)}
    # all values mixed are read far more slowly than indices into the distinct ones, mixed or not
    best = min(trials, key=lambda how: len(trials[how]) / (MIXED_SHARE if trials[how][:1] == _MIXED else 1))
    return trials[best] if short else best(array, quick)


def _is_mixed(packed: bytes) -> bool:
    """Whether texts, or the distinct ones among them, are mixed."""
    cursor = Cursor(packed)
    if bytes(cursor.take(1)) == _DISTINCT:
        cursor.varint()
        cursor.varint()
        return bytes(cursor.take(1)) == _MIXED
    return packed[:1] == _MIXED


def _pack_distinct(array: pa.Array, quick: bool) -> bytes:
    encoded = cast(Any, array).dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    distinct = _pack_values(encoded.dictionary.take(pa.array(order)), quick)
    indices = pack_numbers(ranks[encoded.indices.to_numpy()], quick=quick)
    return _DISTINCT + put_varint(len(order)) + put_varint(len(distinct)) + distinct + indices


def unpack_texts(cursor: Cursor, kind: pa.DataType, count: int, budget: Budget) -> pa.Array:
    """The inverse of `pack_texts`; takes all that is left of `cursor`."""
    if bytes(cursor.data[cursor.at : cursor.at + 1]) != _DISTINCT:
        return _unpack_values(cursor, kind, count, budget)[0]
    cursor.take(1)
    number = cursor.varint()
    packed = cursor.take(cursor.varint())
    distinct, lengths = _unpack_values(Cursor(packed), kind, number, budget)
    indices = unpack_numbers(cursor.rest(), count, _LONG, budget)
    if count and not (int(indices.min()) >= 0 and int(indices.max()) < number):
        raise DamagedError("an index is outside its table")
    _check_total(_total(lengths[indices], budget), kind)
    return cast(Any, distinct).take(pa.array(indices))


def _pack_values(array: pa.Array, quick: bool) -> bytes:
    """Plain, or mixed where that pays: judged by rows in the middle of a long text."""
    lengths, body = _split(array)
    fits = _LEAST_MIXED <= len(body) <= _MOST_MIXED and is_known(MIXED_VERSION)
    if quick or not fits or _fixed_width(array.type) is not None:
        return _pack_plain(array, quick)
    rows = len(array)
    if len(body) > _SAMPLE_BYTES:
        ends = np.cumsum(lengths)
        start = int(np.searchsorted(ends, (len(body) - _SAMPLE_BYTES) // 2))
        rows = 1 + int(np.searchsorted(ends, ends[start] + _SAMPLE_BYTES)) - start
        sample = array.slice(start, rows)
    else:
        sample = array
    plain, mixed = _pack_plain(sample, quick), _pack_mixed(sample)
    whole = len(sample) == len(array)
    if mixed is not None and len(mixed) <= MIXED_SHARE * len(plain):
        mixed = mixed if whole else _pack_mixed(array)
        if mixed is not None:
            return mixed
    return plain if whole else _pack_plain(array, quick)


def _unpack_values(cursor: Cursor, kind: pa.DataType, count: int, budget: Budget) -> tuple[pa.Array, Numbers]:
    """Values that are plain or mixed, and their lengths."""
    how = bytes(cursor.take(1))
    if how == _PLAIN:
        return _unpack_plain(cursor, kind, count, budget)
    if how == _MIXED:
        return _unpack_mixed(cursor, kind, count, budget)
    raise DamagedError(f"texts packed by {how[0]} are unknown, or distinct twice")


def _pack_mixed(array: pa.Array) -> bytes | None:
    """None if mixing would not make it smaller, or smaller than a reader believes."""
    from vae.codec.mixing import END, mix  # with numba, which takes long, and `inspect` seldom needs

    lengths, body = _split(array)
    ends = np.cumsum(lengths + 1) - 1
    symbols = np.empty(len(body) + len(lengths), np.int16)
    inner = np.ones(len(symbols), np.bool_)
    inner[ends] = False
    symbols[inner] = np.frombuffer(body, np.uint8)
    symbols[ends] = END
    mixed = mix(symbols)
    return None if mixed is None else _MIXED + put_varint(len(body)) + mixed


def _unpack_mixed(cursor: Cursor, kind: pa.DataType, count: int, budget: Budget) -> tuple[pa.Array, Numbers]:
    from vae.codec.mixing import END, justified, unmix

    budget.need(MIXED_VERSION, "mixed texts")
    total = cursor.varint()
    budget.spend(count, _LONG.itemsize)
    budget.spend(total)
    _check_total(total, kind)
    body = cursor.rest()
    if not 0 < count <= total + count <= justified(len(body)):
        raise DamagedError(f"{total + count} symbols announced, which {len(body)} mixed bytes do not justify")
    symbols = unmix(body, total + count)
    ends = np.flatnonzero(symbols == END)
    if len(ends) != count or ends[-1] != len(symbols) - 1:
        raise DamagedError(f"{len(ends)} texts in place of {count}, or one that does not end")
    lengths = np.diff(ends, prepend=-1) - 1
    return _join(lengths, symbols[symbols != END].astype(np.uint8).tobytes(), kind), lengths


def _pack_plain(array: pa.Array, quick: bool) -> bytes:
    lengths, body = _split(array)
    packed = pack_numbers(lengths, quick=quick)
    return _PLAIN + put_varint(len(packed)) + packed + _squeeze(body, quick)


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
