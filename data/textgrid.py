"""Texts as rows of bytes, and back: what a model of texts reads and writes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.errors import DamagedError
from data.kinds import is_text
from data.stored import dictionary_array, plain_array

Bytes = npt.NDArray[np.uint8]
END = 255
"""Follows a text, and fills its row: no UTF-8 holds it."""
MAX_LENGTH = 1 << 16
"""Most bytes of a text."""
PART_ROWS = 1 << 12


def as_large(array: pa.Array) -> Any:
    """Texts of any layout, a dictionary's too, as one of offsets of eight bytes."""
    return cast(Any, plain_array(array)).cast(pa.large_string())


def text_symbols(array: pa.Array, length: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """The first bytes of texts, (rows, length), `END` behind and under what is null; and which are null, (rows,).

    >>> text_symbols(pa.array(["né", None]), 4)[0].tolist()
    [[110, 195, 169, 255], [255, 255, 255, 255]]
    """
    whole = as_large(array)
    missing = whole.is_null().to_numpy(zero_copy_only=False)
    symbols = np.full((len(whole), length), END, np.uint8)
    if not len(whole):
        return symbols, missing
    _, offsets, values = whole.buffers()
    edges = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    body = np.frombuffer(values, np.uint8) if values is not None else np.zeros(0, np.uint8)
    for start in range(0, len(whole), PART_ROWS):
        part = slice(start, min(len(whole), start + PART_ROWS))
        first, kept = edges[part], np.minimum(np.diff(edges[part.start : part.stop + 1]), length)
        kept = np.where(missing[part], 0, kept)
        inside = np.arange(length) < kept[:, None]
        places = (first[:, None] + np.arange(length))[inside]
        symbols[part][inside] = body[places]
    return symbols, missing


def text_values(symbols: npt.NDArray[Any], missing: npt.NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """The inverse of `text_symbols`, of an Arrow type; bytes that are no UTF-8, half a character say, are left out.

    DamagedError if the type is none of texts.
    """
    plain = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    if not is_text(plain):
        raise DamagedError(f"texts in a column of {kind}")
    texts = [
        None if absent else row.tobytes().split(b"\xff", 1)[0].decode("utf-8", "ignore")
        for row, absent in zip(symbols.astype(np.uint8, copy=False), missing, strict=True)
    ]
    found = cast(pa.Array, pa.array(texts, plain))
    return dictionary_array(found, kind) if isinstance(kind, pa.DictionaryType) else found


def texts_of(symbols: npt.NDArray[Any]) -> list[str]:
    """Rows of bytes as Python's texts."""
    return text_values(symbols, np.zeros(len(symbols), bool), pa.large_string()).to_pylist()
