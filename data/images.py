"""Columns of images: each row is one array of bytes, row by row, channels last; the shape is kept with the column."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.errors import DataError
from data.layouts import LAYOUT_KEY, ArrayLayout

SHAPE_KEY = b"svae.shape"
"""Key of an image's shape in the metadata of its Arrow field: `28x28x1` is height, width, channels."""
CHANNELS = (1, 3, 4)
"""What an image may have: grey, RGB, RGB and alpha."""
MOST_VALUES = 1 << 26
"""Of one image that is read from a file: 64 MiB."""
_SHAPE = re.compile(rb"([1-9]\d{0,8})x([1-9]\d{0,8})x([134])")

Bytes = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]
"""Height, width, channels."""


def shape_of_axes(axes: tuple[int, ...]) -> Shape | None:
    """The shape of an image that is an array of these axes; None if such an array is none.

    >>> shape_of_axes((28, 28)), shape_of_axes((32, 30, 3)), shape_of_axes((32, 30, 12))
    ((28, 28, 1), (32, 30, 3), None)
    """
    if len(axes) == 2:
        return axes[0], axes[1], 1
    return (axes[0], axes[1], axes[2]) if len(axes) == 3 and axes[2] in CHANNELS else None


def image_field(name: str, shape: Shape, *, nullable: bool = True) -> pa.Field:
    """The Arrow field of images of one shape."""
    text = "x".join(map(str, shape))
    return pa.field(name, pa.list_(pa.uint8(), math.prod(shape)), nullable, {SHAPE_KEY: text.encode()})


def image_shape(schema: pa.Schema, name: str) -> Shape | None:
    """Height, width and channels of a column's images; None if the column holds none, or there is no such column.

    >>> image_shape(pa.schema([image_field("image", (28, 28, 1))]), "image")
    (28, 28, 1)
    """
    place = schema.get_field_index(name)
    if place < 0:
        return None
    field = schema.field(place)
    type_: Any = field.type
    if not (pa.types.is_fixed_size_list(type_) and pa.types.is_uint8(type_.value_type)):
        return None
    shape = _kept_shape(field.metadata or {}) or _array_shape(schema.metadata or {}, name)
    return shape if shape is not None and math.prod(shape) == type_.list_size else None


def images_of(column: pa.ChunkedArray | pa.Array, shape: Shape) -> Bytes:
    """The images of a column: (rows, height, width, channels); DataError if one is null."""
    whole: Any = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.flatten()
    if whole.null_count or flat.null_count:
        raise DataError("an image cannot be null, nor a part of it; write .parquet instead")
    return flat.to_numpy().reshape(len(whole), *shape)


def image_array(images: Bytes) -> pa.FixedSizeListArray:
    """Inverse of `images_of`; the first axis is the rows.

    >>> image_array(np.zeros((5, 2, 2, 3), np.uint8)).type
    FixedSizeListType(fixed_size_list<item: uint8>[12])
    """
    flat = pa.array(np.ascontiguousarray(images).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, math.prod(images.shape[1:]))


def _kept_shape(metadata: Mapping[bytes, bytes]) -> Shape | None:
    match = _SHAPE.fullmatch(metadata.get(SHAPE_KEY, b""))
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _array_shape(metadata: Mapping[bytes, bytes], name: str) -> Shape | None:
    """The shape of the images of a `.npy` or `.npz`, by the layout of its arrays."""
    try:
        layouts = [ArrayLayout.from_json(plain) for plain in json.loads(metadata[LAYOUT_KEY.encode()])]
    except (KeyError, ValueError, TypeError):  # There is none, or it is not ours.
        return None
    for layout in layouts:
        if layout.columns == (name,) and layout.dtype == np.uint8:
            return shape_of_axes(layout.shape)
    return None
