"""Arrow types, fields and metadata as text that JSON can hold, and back."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import pyarrow as pa

from data.errors import SchemaError

_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")
_FIXED_LIST = re.compile(r"fixed_size_list<(\w+): ([^<>]+)>\[(\d+)\]")
_LIST = re.compile(r"list<(\w+): ([^<>]+)>")
_DECIMAL = re.compile(r"decimal128\((\d+), (-?\d+)\)")
_BASE64 = "base64:"


def parse_type(text: str, column: str) -> pa.DataType:
    """The Arrow type of this printed name; SchemaError, which names the column, if there is none.

    >>> parse_type("timestamp[s, tz=UTC]", "when")
    TimestampType(timestamp[s, tz=UTC])
    """
    if match := _ZONED.fullmatch(text):
        return pa.timestamp(match[1], tz=match[2])
    if match := _FIXED_LIST.fullmatch(text):
        return pa.list_(pa.field(match[1], parse_type(match[2], column)), int(match[3]))
    if match := _LIST.fullmatch(text):
        return pa.list_(pa.field(match[1], parse_type(match[2], column)))
    if match := _DECIMAL.fullmatch(text):
        return pa.decimal128(int(match[1]), int(match[2]))
    try:
        return pa.type_for_alias(text)
    except ValueError:
        raise SchemaError(
            f"column {column!r}: {text!r} is not an Arrow type; use one such as int64, double, string"
        ) from None


def encode_field(field: pa.Field) -> str | None:
    """The field as base64 of Arrow's own serialisation; None if name, printed type and nullability say it all."""
    if not field.metadata:
        try:
            if parse_type(str(field.type), field.name) == field.type:
                return None
        except SchemaError:
            pass
    return base64.b64encode(pa.schema([field]).serialize().to_pybytes()).decode()


def decode_field(text: str, column: str) -> pa.Field:
    """Inverse of `encode_field`; SchemaError if the text is damaged."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text, validate=True))).field(0)
    except (ValueError, pa.ArrowException, OSError, IndexError) as error:
        raise SchemaError(f"column {column!r}: its Arrow type is damaged") from error


def encode_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """Arrow metadata as text: UTF-8 as it is, other bytes as base64."""
    return {_to_text(key): _to_text(value) for key, value in metadata.items()}


def decode_metadata(metadata: Mapping[str, str]) -> dict[bytes, bytes]:
    """Inverse of `encode_metadata`."""
    return {_to_bytes(key): _to_bytes(value) for key, value in metadata.items()}


def _to_text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = _BASE64
    return _BASE64 + base64.b64encode(value).decode() if text.startswith(_BASE64) else text


def _to_bytes(text: str) -> bytes:
    return base64.b64decode(text.removeprefix(_BASE64)) if text.startswith(_BASE64) else text.encode()
