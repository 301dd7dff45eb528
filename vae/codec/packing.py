"""What the bytes of models are made of, and the streams of a block as they are read."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from data.errors import DamagedError, ModelError
from vae.codec.entropy import STATE_LOW
from vae.codec.intervals import Streams

MAX_PLAN_BYTES = 2 << 20
MAX_PLAN_COMMAS = 1 << 17
"""Parsing costs time and memory by the entry; 512 columns with all that an item may hold have fewer than 90,000."""
MAX_WEIGHTS = 1 << 24
MAX_CELLS = 1 << 26
"""Most cells, latents among them, of a block: what a file may ask a reader to make room for."""

P = TypeVar("P", bound=BaseModel)


def join_pieces(pieces: Sequence[bytes]) -> bytes:
    """Pieces one after the other, each with its length before it."""
    return b"".join(struct.pack("<I", len(piece)) + piece for piece in pieces)


def split_pieces(blob: bytes, count: int) -> list[bytes]:
    """The inverse of `join_pieces`, of so many pieces."""
    pieces: list[bytes] = []
    at = 0
    for _ in range(count):
        if at + 4 > len(blob):
            raise ModelError("the model is cut short")
        (length,) = struct.unpack_from("<I", blob, at)
        if at + 4 + length > len(blob):
            raise ModelError("the model is cut short")
        pieces.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(blob):
        raise ModelError("bytes after the end of the model")
    return pieces


def pack_plan(plan: BaseModel) -> bytes:
    """A plan as canonical JSON, deflated."""
    text = json.dumps(
        plan.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"), sort_keys=True
    )
    return zlib.compress(text.encode(), 9)


def unpack_plan(packed: bytes, kind: type[P]) -> P:
    """The inverse of `pack_plan`; ModelError for what is none."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(packed, MAX_PLAN_BYTES)
        if not inflate.eof or inflate.unused_data or text.count(b",") > MAX_PLAN_COMMAS:
            raise ModelError("the model's plan is too long or cut short")
        return kind.model_validate_json(text)
    except (zlib.error, ValueError) as error:
        raise ModelError(f"the model's plan cannot be read: {_first_line(error)}") from error


def pack_weights(tensors: Sequence[npt.NDArray[np.int16]]) -> bytes:
    """Weights one tensor after the other, as one pcodec file of int16; nothing of none."""
    from pcodec import ChunkConfig, standalone  # pyright: ignore[reportAttributeAccessIssue]

    flat = np.concatenate([np.zeros(0, np.int16), *(tensor.ravel() for tensor in tensors)])
    return standalone.simple_compress(flat, ChunkConfig(compression_level=12)) if len(flat) else b""


def checked_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's weights; ModelError if they are too many for any machine."""
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    if count > MAX_WEIGHTS:
        raise ModelError(f"the model asks for {count} weights; at most {MAX_WEIGHTS} are admitted")
    return shapes


def unpack_weights(body: bytes, count: int, group: str) -> npt.NDArray[np.int16]:
    """The inverse of `pack_weights`, of so many weights of a group; ModelError for what is none."""
    from pcodec import standalone  # pyright: ignore[reportAttributeAccessIssue]

    flat = np.zeros(count, np.int16)
    if not count:
        if body:
            raise ModelError(f"the model has {group} weights that its plan does not know")
        return flat
    try:
        progress = standalone.simple_decompress_into(body, flat)
    except Exception as error:  # the library raises its own type from native code
        raise ModelError(f"the model's {group} weights cannot be read: {_first_line(error)}") from error
    if progress.n_processed != count or not progress.finished:
        raise ModelError(f"the model's {group} weights are not {count}")
    return flat


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return (str(error) or type(error).__name__).splitlines()[0]


def no_streams(columns: int) -> Streams:
    """Streams for who writes."""
    nothing = np.zeros(columns + 1, np.int64)
    return Streams(np.zeros(1, np.uint32), nothing, nothing, nothing)


def open_streams(streams: list[bytes], columns: int) -> tuple[Streams, npt.NDArray[np.bool_]]:
    """The streams' words and states, and which of the model's `columns` hold states that no training row held."""
    unseen = np.zeros(columns, bool)
    words: list[npt.NDArray[np.uint32]] = []
    for s, stream in enumerate(streams):
        if len(stream) < 9 or len(stream) % 4 != 1 or stream[0] > (s > 0):
            raise DamagedError(f"stream {s} has no sound beginning or length")
        if s:
            unseen[s - 1] = stream[0] == 1
        words.append(np.frombuffer(stream, "<u4", offset=1).astype(np.uint32))
    lengths = np.array([len(x) for x in words], np.int64)
    begins = np.cumsum(lengths) - lengths
    state = np.array([(int(x[0]) << 32) | int(x[1]) for x in words], np.uint64)
    if ((state < STATE_LOW) | (state >= np.uint64(1) << np.uint64(63))).any():
        raise DamagedError("a stream begins in a state that no writer leaves")
    return Streams(np.concatenate(words), state.astype(np.int64), begins + 2, begins + lengths), unseen


def plain(array: npt.NDArray[Any], dtype: type[Any]) -> npt.NDArray[Any]:
    """The array as the loop was compiled for: of this type, contiguous and writable."""
    return np.require(array, dtype, ["C", "W"])
