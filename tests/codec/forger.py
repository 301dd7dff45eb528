"""Archives that lie, with checksums that hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa

from vae.codec import container
from vae.codec.framing import checksum, put_varint, squeeze


def forge(
    path: Path, header: Any, parts: list[bytes], schema: pa.Schema, report: Any = None, version: int = 1
) -> Path:
    """An archive whose every checksum holds, whatever it says; header and report as content, or as bytes of JSON."""
    text = json_bytes(header)
    content = squeezed(put_varint(len(text)) + text + schema.serialize().to_pybytes())
    prelude = struct.pack("<8sHHI", container.MAGIC, version, 0, len(content))
    total = checksum(prelude, content).to_bytes(8, "little")
    index = b"".join(
        put_varint(len(p)) + (checksum(p).to_bytes(8, "little")[:4] if p else b"") for p in parts
    )
    index += squeezed(json_bytes({} if report is None else report))
    body = prelude + total + content + b"".join(parts)
    place = struct.pack("<QI", len(body), len(index))
    path.write_bytes(
        body + index + place + checksum(total, index, place).to_bytes(8, "little") + container.END_MAGIC
    )
    return path


def json_bytes(content: Any) -> bytes:
    """Canonical JSON, or what is bytes already."""
    return content if isinstance(content, bytes) else container.canonical_json(content)


def squeezed(data: bytes) -> bytes:
    """Large bytes by zstd alone: Brotli takes a minute for what a bomb is made of."""
    return squeeze(data, (1,) if len(data) > 1 << 20 else (1, 2))
