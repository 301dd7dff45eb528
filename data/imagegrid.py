"""Images on a grid of grey levels, and back."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc

from data.errors import DamagedError

pc = cast(Any, _pc)
Bytes = npt.NDArray[np.uint8]
Symbols = npt.NDArray[Any]
"""Of whole numbers of any width, on their grid."""
TOP = 255
"""The lightest grey."""
MAX_PIXELS = 1 << 24
"""Most values of an image."""


def levels_within(bound: float) -> tuple[int, int]:
    """How many grey levels lie on a grid that gives all 256 back within a bound, and how far apart they are.

    The darkest stays 0: what is black in an image is not to turn grey.

    >>> levels_within(0), levels_within(2), levels_within(300)
    ((256, 1), (52, 5), (2, 511))
    """
    whole = min(int(bound), TOP)
    step = 2 * whole + 1
    return max(2, (TOP + whole) // step + 1), step


def image_symbols(
    array: pa.Array, values: int, step: int, levels: int
) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Symbols (rows, values), 0 of what is null, and which images are null (rows,)."""
    whole = cast(Any, array)
    missing = pc.is_null(whole).to_numpy(zero_copy_only=False)
    flat = whole.values.slice(whole.offset * values, len(whole) * values)
    flat = flat.fill_null(0) if flat.null_count else flat  # under an image that is null
    images = flat.to_numpy(zero_copy_only=False).reshape(len(whole), values)
    if step > 1:
        images = np.minimum((images.astype(np.int16) + step // 2) // step, levels - 1).astype(np.uint8)
    if missing.any():
        images = np.where(missing[:, None], np.uint8(0), images)
    return images, missing


def image_values(symbols: Symbols, missing: npt.NDArray[np.bool_], step: int, kind: pa.DataType) -> pa.Array:
    """The inverse of `image_symbols`, of an Arrow type; DamagedError if it is none of images of this size."""
    type_ = cast(Any, kind)
    if not (
        pa.types.is_fixed_size_list(kind)
        and pa.types.is_uint8(type_.value_type)
        and type_.list_size == symbols.shape[1]
    ):
        raise DamagedError(f"images of {symbols.shape[1]} values in a column of {kind}")
    greys = np.minimum(symbols.astype(np.int32) * step, TOP) if step > 1 else symbols
    greys = greys.astype(np.uint8, copy=False)
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(greys.reshape(-1)), type=kind, mask=mask)


def holds_images(column: pa.ChunkedArray) -> bool:
    """Whether no value within an image is null; what lies under an image that is null itself does not count."""
    return all(not cast(Any, chunk).flatten().null_count for chunk in column.chunks)
