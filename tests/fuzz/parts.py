"""Archives taken apart into what an attacker changes, and put together so that every checksum and digest holds."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any, NamedTuple, cast

from data.errors import DamagedError
from vae.codec.container import END_MAGIC, MAGIC
from vae.codec.framing import Cursor, canonical_json, checksum, put_varint, squeeze, unsqueeze

LIMIT = 1 << 24
PRELUDE, TRAILER, LENGTH = struct.Struct("<8sHHI"), struct.Struct("<QI"), struct.Struct("<I")


class Parts(NamedTuple):
    """An archive without what follows from its other parts: lengths, checksums, the model's digest."""

    version: bytes
    """One byte."""
    header: bytes
    """JSON."""
    schema: bytes
    """An Arrow schema as an IPC message."""
    report: bytes
    """JSON."""
    tables: bytes
    model: tuple[bytes, ...]
    """The plan as JSON, then the groups of weights; empty if there is none."""
    streams: tuple[bytes, ...]


def take_apart(data: bytes) -> Parts:
    """The parts of a sound archive with its model, if any, inside."""
    _, version, _, length = PRELUDE.unpack_from(data)
    content = Cursor(unsqueeze(data[24 : 24 + length], LIMIT))
    header = bytes(content.take(content.varint()))
    at = 24 + length
    position, _ = TRAILER.unpack_from(data, len(data) - 28)
    index = Cursor(data[position:-28])
    parts: list[bytes] = []
    while at < position or len(parts) < 2:
        size = index.varint()
        if size:
            index.take(4)
        parts.append(data[at : at + size])
        at += size
    plain = cast(dict[str, Any], json.loads(header))
    while len(parts) < 2 + _streams(plain):  # the last ones, where they are empty
        index.varint()
        parts.append(b"")
    report = unsqueeze(index.rest(), LIMIT)
    model = _model_apart(parts[1]) if parts[1] else ()
    return Parts(bytes([version]), header, bytes(content.rest()), report, parts[0], model, tuple(parts[2:]))


def _streams(header: dict[str, Any]) -> int:
    rows, block = int(header["rows"]), int(header["block_rows"])
    groups = -(-rows // (block * int(header["group_blocks"])))
    blocks = -(-rows // block) if header.get("model") else 0
    return groups * len(header["columns"]) + blocks * (1 + len(header.get("coded", ())))


def _model_apart(blob: bytes) -> tuple[bytes, ...]:
    pieces: list[bytes] = []
    at = 0
    while at < len(blob):
        (size,) = LENGTH.unpack_from(blob, at)
        pieces.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return zlib.decompress(pieces[0]), *pieces[1:]


def put_together(parts: Parts) -> bytes:
    """The archive of these parts; every checksum, length and digest in it is right."""
    model = b""
    if parts.model:
        pieces = [zlib.compress(parts.model[0], 9), *parts.model[1:]]
        model = b"".join(LENGTH.pack(len(piece)) + piece for piece in pieces)
    header = _with_digest(parts.header, model)
    content = squeeze(put_varint(len(header)) + header + parts.schema, (1,))
    prelude = PRELUDE.pack(MAGIC, parts.version[0] if parts.version else 0, 0, len(content))
    total = checksum(prelude, content).to_bytes(8, "little")
    bodies = (parts.tables, model, *parts.streams)
    index = b"".join(
        put_varint(len(body)) + (checksum(body).to_bytes(8, "little")[:4] if body else b"") for body in bodies
    )
    index += squeeze(parts.report, (1,))
    front = prelude + total + content + b"".join(bodies)
    place = TRAILER.pack(len(front), len(index))
    return front + index + place + checksum(total, index, place).to_bytes(8, "little") + END_MAGIC


def _with_digest(header: bytes, model: bytes) -> bytes:
    """The header with the model's own length and digest, if it still is a header that has them."""
    try:
        plain: Any = json.loads(header)
        plain["model"] |= {"sha256": hashlib.sha256(model).hexdigest(), "size": len(model)}
        return canonical_json(plain)
    except (ValueError, TypeError, KeyError, RecursionError):
        return header


def flat(parts: Parts) -> bytes:
    """The parts as one input of a fuzzer."""
    model = b"".join(put_varint(len(piece)) + piece for piece in parts.model)
    pieces = [*parts[:5], model, *parts.streams]
    return b"".join(put_varint(len(piece)) + piece for piece in pieces)


def unflat(data: bytes) -> Parts | None:
    """The parts that such an input stands for; None if it stands for none."""
    try:
        pieces = _pieces(data)
        if len(pieces) < 6:
            return None
        version, header, schema, report, tables, model, *streams = pieces
        return Parts(version, header, schema, report, tables, tuple(_pieces(model)), tuple(streams))
    except DamagedError:
        return None


def _pieces(data: bytes) -> list[bytes]:
    cursor = Cursor(data)
    pieces: list[bytes] = []
    while cursor.left:
        pieces.append(bytes(cursor.take(cursor.varint())))
    return pieces
