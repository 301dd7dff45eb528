"""Numbers, checksums and compressed bytes, as all parts of an archive use them.

A *varint* is LEB128 of an unsigned integer below 2**63, in its shortest form. *Squeezed* bytes are a method (0 stored,
1 zstd, 2 brotli), the varint of their length, and the bytes as the method makes them. Reading checks every length
against what is there, and takes no compressed bytes for more than they can honestly be.
"""

from __future__ import annotations

import json
from typing import Any, cast

import pyarrow as pa
import xxhash

from data.errors import DamagedError

METHODS = ("stored", "zstd", "brotli")


def canonical_json(content: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN.

    >>> canonical_json({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1.0}'
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def put_varint(number: int) -> bytes:
    """LEB128 of an integer >= 0.

    >>> put_varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


class Cursor:
    """A place in some bytes; every step is checked against their end."""

    def __init__(self, data: bytes | memoryview, at: int = 0) -> None:
        self.data = memoryview(data)
        self.at = at

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self.data) - self.at

    def varint(self) -> int:
        """The next varint; DamagedError if it does not end, is not below 2**63 or is padded with zeros."""
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                if byte == 0 and shift > 7:
                    raise DamagedError("a number is longer than it need be")
                break
            if shift > 56:
                raise DamagedError("a number is longer than 63 bits")
        return number

    def take(self, count: int) -> memoryview:
        """The next `count` bytes; DamagedError if there are fewer."""
        if not 0 <= count <= self.left:
            raise DamagedError(f"{count} bytes announced, {self.left} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> memoryview:
        """All bytes not yet taken."""
        return self.take(self.left)


def checksum(*parts: bytes | memoryview) -> int:
    """XXH3-64 of the concatenated parts."""
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return state.intdigest()


def squeeze(data: bytes, methods: tuple[int, ...] = (1, 2)) -> bytes:
    """Method, varint length, and `data` by the method that makes it smallest."""
    best = bytes([0]) + put_varint(len(data)) + data
    for method in methods if len(data) > 16 else ():
        packed = cast(bytes, _codec(method).compress(data, asbytes=True))
        # what a reader refuses as a decompression bomb must not be written
        if len(packed) + 6 < len(best) and 2 * len(data) <= allowance(len(packed)):
            best = bytes([method]) + put_varint(len(data)) + packed
    return best


def unsqueeze(packed: bytes | memoryview, limit: int | None = None) -> bytes:
    """The inverse of `squeeze`; DamagedError unless it gives just the length announced, at most `limit`."""
    cursor = Cursor(packed)
    method, length = cursor.take(1)[0], cursor.varint()
    if length > allowance(cursor.left) or (limit is not None and length > limit):
        raise DamagedError(f"{length} bytes announced, which {cursor.left} compressed ones do not justify")
    body = cursor.rest()
    if method == 0:
        data = bytes(body)
    elif method < len(METHODS):
        try:
            with pa.input_stream(pa.py_buffer(body), compression=METHODS[method]) as stream:
                data = stream.read(length + 1)
        except (OSError, ValueError) as error:
            raise DamagedError(f"{METHODS[method]} data is damaged: {error}") from error
    else:
        raise DamagedError(f"compression method {method} is unknown")
    if len(data) != length:
        raise DamagedError(f"{length} bytes announced, another number found")
    return data


def allowance(length: int) -> int:
    """Most bytes that a stream of `length` bytes may become: enough for any honest one, short of a bomb.

    >>> allowance(10), allowance(2**20) == 2**30
    (268435456, True)
    """
    return max(1 << 28, length << 10)


def _codec(method: int) -> Any:
    return pa.Codec(METHODS[method], compression_level=19 if method == 1 else 11)
