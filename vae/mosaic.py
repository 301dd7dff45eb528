"""Images on the page: several side by side, as one PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.atomic import atomic_path
from data.errors import UsageError
from data.images import image_shape, images_of
from vae.sections import Figure, picture

Bytes = npt.NDArray[np.uint8]
GAP = 2
"""Pixels between images."""
PAPER = 255
SMALLEST = 56
"""Smaller images are shown enlarged by a whole number, so that none is lower than this."""


def columns_of_images(table: pa.Table) -> list[str]:
    """The columns of a table that hold images."""
    return [name for name in table.column_names if image_shape(table.schema, name)]


def images_in(table: pa.Table, name: str) -> Bytes:
    """The images of a column, (rows, height, width, channels); those that are null are dark."""
    shape = image_shape(table.schema, name)
    if shape is None:
        raise ValueError(f"column {name!r} holds no images")
    column = table[name].combine_chunks()
    there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    images = np.zeros((len(column), *shape), np.uint8)
    images[there] = images_of(column.take(pa.array(there)), shape)
    return images


def mosaic(rows: Sequence[Bytes]) -> Bytes:
    """Rows of images of one shape, each (images, height, width, channels), as one: (height, width, 3 or 4).

    >>> mosaic([np.zeros((3, 4, 5, 1), np.uint8), np.zeros((2, 4, 5, 1), np.uint8)]).shape
    (14, 23, 3)
    """
    _, height, width, channels = rows[0].shape
    across = max(len(images) for images in rows)
    size = GAP + len(rows) * (height + GAP), GAP + across * (width + GAP)
    paper = np.full((*size, 4 if channels == 4 else 3), PAPER, np.uint8)
    for down, images in enumerate(rows):
        for place, image in enumerate(images):
            top, left = GAP + down * (height + GAP), GAP + place * (width + GAP)
            paper[top : top + height, left : left + width] = image  # grey is the same in all channels
    return paper


def png(picture: Bytes, tall: int) -> bytes:
    """A picture as PNG, enlarged where its images are not `tall` enough to be seen."""
    from PIL import Image

    times = max(1, -(-SMALLEST // max(1, tall)))
    file = io.BytesIO()
    Image.fromarray(picture.repeat(times, 0).repeat(times, 1)).save(file, "png", optimize=True)
    return file.getvalue()


def write_grid(table: pa.Table, path: str | Path, *, across: int | None = None) -> Path:
    """Writes the images of a table as one PNG, atomically; by default about as high as it is wide.

    Raises:
        UsageError: The table has no column of images.
    """
    names = columns_of_images(table)
    if not names:
        raise UsageError(f"{path}: a .png holds images, and there is no column of images")
    images = images_in(table, names[0])
    step = across or max(1, math.ceil(math.sqrt(len(images))))
    rows = [images[start : start + step] for start in range(0, len(images), step)]
    with atomic_path(path) as temporary:
        temporary.write_bytes(png(mosaic(rows), images.shape[1]))
    return Path(path)


def figure(rows: Sequence[Bytes], alt: str, caption: str) -> Figure:
    """Rows of images as a figure of the page."""
    return picture(png(mosaic(rows), rows[0].shape[1]), alt, caption)
