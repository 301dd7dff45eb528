"""Rival coders of plain numbers: whichever of pcodec, zstd and brotli makes an array smallest.

Packed numbers are a tag and a body; their count and type are known to the reader::

    0 constant   the bytes of the one value
    1 stored     width (1 byte), smallest value (as wide as the type), then value - smallest in `width` bytes each
    2 zstd       as stored, the last part compressed
    3 brotli     likewise
    4 pcodec     likewise, a standalone pcodec file of unsigned integers (16 bits or more)
    5 ranks      varint count, varint length of the packed distinct values, these in rising order, packed ranks (uint32)
    6 floats     a standalone pcodec file of the floats themselves

Floats enter 0 to 5 by their bits, with width and smallest value of the whole type and 0, so that nothing is lost.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pcodec import ChunkConfig, standalone

from data.errors import DamagedError
from vae.codec.budget import Budget
from vae.codec.framing import Cursor, put_varint, unsqueeze

Numbers = npt.NDArray[Any]
CONSTANT, STORED, ZSTD, BROTLI, PCODEC, RANKS, FLOATS = range(7)
SAMPLE = 1 << 15
"""Rows on which coders are compared when there are many more."""
MAX_RANKS = 1 << 16
BROTLI_GAIN = 0.93
"""What brotli makes of a byte of zstd's, when it does well."""
_CONFIG = ChunkConfig(compression_level=12)
_CODECS = {ZSTD: pa.Codec("zstd", compression_level=19), BROTLI: pa.Codec("brotli", compression_level=11)}


class _Variant(NamedTuple):
    """An array to be coded, and what stands before it."""

    head: bytes
    values: Numbers
    """Unsigned integers as narrow as they go, or the bits of floats."""
    offset: bytes
    floats: Numbers | None = None


def pack_numbers(values: Numbers, *, quick: bool = False) -> bytes:
    """The smallest packing found of a 1-D array of integers or floats.

    Coders are compared on a sample of long arrays. Brotli, which takes longest by far, is tried where zstd comes near
    the best, and not at all if `quick`.
    """
    if len(values) == 0:
        return b""
    bits = _bits(values)
    if (bits == bits[0]).all():
        return bytes([CONSTANT]) + _stored(bits[:1])
    variants = _variants(values, bits)
    long = len(values) > 2 * SAMPLE
    tried = [_slice(variant, (len(values) - SAMPLE) // 2) for variant in variants] if long else variants
    packed = {(i, tag): _pack(variant, tag) for i, variant in enumerate(tried) for tag in _tags(variant)}
    expected = {trial: float(len(body)) for trial, body in packed.items()}
    if not quick:
        expected |= {(i, BROTLI): BROTLI_GAIN * expected[i, ZSTD] for i in range(len(tried))}
    best = min(expected.values())
    near = [
        trial for trial in sorted(expected, key=expected.__getitem__)[:2] if expected[trial] <= 1.1 * best
    ]
    if long:
        return min((_pack(variants[i], tag) for i, tag in near), key=len)
    packed |= {(i, tag): _pack(variants[i], tag) for i, tag in near if (i, tag) not in packed}
    return min(packed.values(), key=len)


def unpack_numbers(data: bytes | memoryview, count: int, dtype: np.dtype[Any], budget: Budget) -> Numbers:
    """The inverse of `pack_numbers`; DamagedError if the bytes are not `count` numbers of this type."""
    return _unpack(Cursor(data), count, np.dtype(dtype), budget, ranks=True)


def _bits(values: Numbers) -> Numbers:
    return np.ascontiguousarray(values).view(np.dtype(f"u{values.dtype.itemsize}"))


def _variants(values: Numbers, bits: Numbers) -> list[_Variant]:
    if values.dtype.kind == "f":
        direct = _Variant(b"", bits, bytes(bits.itemsize), np.ascontiguousarray(values))
        span = 1 << 62
    else:
        direct = _narrow(values, bits)
        span = int(direct.values.max())
    ranked = _ranked(bits if values.dtype.kind == "f" else direct.values, span)
    if ranked is None:
        return [direct]
    distinct, ranks = ranked
    if values.dtype.kind != "f":
        distinct = distinct.astype(bits.dtype) + np.frombuffer(direct.offset, _little(bits.dtype))
    head = pack_numbers(distinct, quick=True)
    head = bytes([RANKS]) + put_varint(len(distinct)) + put_varint(len(head)) + head
    return [direct, _Variant(head, ranks, bytes(4))]


def _narrow(values: Numbers, bits: Numbers) -> _Variant:
    low = values.min()
    away = bits - _bits(np.array([low], values.dtype))
    return _Variant(
        b"", away.astype(_width_of(int(away.max()))), _stored(_bits(np.array([low], values.dtype)))
    )


def _width_of(largest: int) -> np.dtype[Any]:
    return np.dtype(
        "u1" if largest < 1 << 8 else "u2" if largest < 1 << 16 else "u4" if largest < 1 << 32 else "u8"
    )


def _ranked(values: Numbers, span: int) -> tuple[Numbers, Numbers] | None:
    """The distinct values and each value's rank, where ranks promise to be shorter than values."""
    sample = values if len(values) <= 2 * SAMPLE else values[:: len(values) // SAMPLE]
    if len(np.unique(sample)) > min(MAX_RANKS, len(sample) // 4):
        return None
    distinct, ranks = np.unique(values, return_inverse=True)
    if len(distinct) > min(MAX_RANKS, len(values) // 4) or 4 * len(distinct) > span:
        return None
    return distinct, ranks.reshape(-1).astype(_width_of(len(distinct) - 1))


def _tags(variant: _Variant) -> tuple[int, ...]:
    return (STORED, ZSTD, FLOATS if variant.floats is not None else PCODEC)


def _slice(variant: _Variant, start: int) -> _Variant:
    part = slice(start, start + SAMPLE)
    floats = None if variant.floats is None else variant.floats[part]
    return variant._replace(values=variant.values[part], floats=floats)


def _pack(variant: _Variant, tag: int) -> bytes:
    if tag == FLOATS and variant.floats is not None:
        return bytes([FLOATS]) + cast(bytes, standalone.simple_compress(variant.floats, _CONFIG))
    values = variant.values
    head = variant.head + bytes([tag, values.itemsize]) + variant.offset
    if tag == PCODEC:
        return head + cast(
            bytes, standalone.simple_compress(values.astype(_pcodec_type(values.itemsize)), _CONFIG)
        )
    body = _stored(values)
    return head + (
        body if tag == STORED else cast(bytes, cast(Any, _CODECS[tag]).compress(body, asbytes=True))
    )


def _pcodec_type(width: int) -> np.dtype[Any]:
    return np.dtype(f"u{max(2, width)}")


def _unpack(cursor: Cursor, count: int, dtype: np.dtype[Any], budget: Budget, *, ranks: bool) -> Numbers:
    if count == 0:
        if cursor.left:
            raise DamagedError("bytes are left over")
        return np.zeros(0, dtype)
    budget.spend(count, dtype.itemsize)
    tag = cursor.take(1)[0]
    if tag == CONSTANT:
        value = np.frombuffer(_exactly(cursor, dtype.itemsize), _little(dtype))
        return np.full(count, value[0], dtype)
    if tag == FLOATS and dtype.kind == "f":
        return _pcodec(cursor.rest(), count, dtype)
    if tag == RANKS and ranks:
        distinct = cursor.varint()
        table = _unpack(Cursor(cursor.take(cursor.varint())), distinct, _unsigned(dtype), budget, ranks=False)
        places = _unpack(cursor, count, np.dtype("u4"), budget, ranks=False)
        if int(places.max()) >= distinct:
            raise DamagedError("a rank is outside its table")
        return table[places].view(dtype)
    if STORED <= tag <= PCODEC:
        return _unpack_narrow(cursor, tag, count, dtype)
    raise DamagedError(f"number coder {tag} is unknown here")


def _unpack_narrow(cursor: Cursor, tag: int, count: int, dtype: np.dtype[Any]) -> Numbers:
    width = cursor.take(1)[0]
    if width not in (1, 2, 4, 8) or width > dtype.itemsize:
        raise DamagedError(f"numbers {width} bytes wide")
    offset = np.frombuffer(cursor.take(dtype.itemsize), _little(_unsigned(dtype)))
    if tag == PCODEC:
        away = _pcodec(cursor.rest(), count, _pcodec_type(width))
    elif tag == STORED:
        away = np.frombuffer(_exactly(cursor, count * width), f"<u{width}")
    else:
        framed = bytes([tag - 1]) + put_varint(count * width)
        away = np.frombuffer(unsqueeze(framed + bytes(cursor.rest())), f"<u{width}")
    return (away.astype(_unsigned(dtype)) + offset).view(dtype)


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type as files hold it, whatever the machine's order of bytes."""
    return dtype.newbyteorder("<")


def _stored(values: Numbers) -> bytes:
    return values.astype(_little(values.dtype)).tobytes()


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _exactly(cursor: Cursor, count: int) -> memoryview:
    if cursor.left != count:
        raise DamagedError(f"{cursor.left} bytes where {count} are needed")
    return cursor.rest()


def _pcodec(data: memoryview, count: int, dtype: np.dtype[Any]) -> Numbers:
    out = np.zeros(count, dtype)
    try:
        progress = standalone.simple_decompress_into(bytes(data), out)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DamagedError(f"pcodec data is damaged: {error}") from error
    if progress.n_processed != count or not progress.finished:
        raise DamagedError(f"{progress.n_processed} numbers where {count} are needed")
    return out
