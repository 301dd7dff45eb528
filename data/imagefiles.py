"""PNG and JPEG files as tables, a row each, and images as folders of PNG.

Columns are `file`, the name below the folder that was named, `image`, and `label`, the name of its folder, if all
images lie in folders one level deep. All have one size and are all grey, all RGB or all RGB with alpha, 8 bits a
value; palettes become RGB. Pixels are taken as they are stored: no EXIF orientation, no colour profile.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from data.batches import batch_rows
from data.distinct import text_kind
from data.errors import ExtraError, SourceError
from data.files import DataFile, joint_digest, one_line
from data.images import CHANNELS, MOST_VALUES, Bytes, Shape, image_array, image_field
from data.kinds import CATEGORY_CAP
from data.schema import Schema

_PIECE = 1 << 24
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
"""Modes that are read, and what they become; nothing is lost."""
_NAMES: dict[int, str] = dict(zip(CHANNELS, ("grey", "RGB", "RGBA"), strict=True))
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error)
"""What Pillow raises for files that are damaged."""


def pillow() -> Any:
    """The module `PIL.Image`; ExtraError if it is not installed."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ExtraError(
            "pillow is not installed; files of images need: pip install '.[pipeline]' in the project's folder"
        ) from error
    return Image


class ImageFiles:
    """Images of one shape.

    Args:
        files: The files, in order.
        wanted: A given schema, whose kinds and bounds are taken over.
    """

    def __init__(self, files: list[DataFile], wanted: Schema | None = None) -> None:
        self._files, self._names = files, relative_names(files)
        self._shape = _shape(files[0])
        for file in files[1:]:
            self._must_fit(file, _shape(file))
        self.rows = len(files)
        self.source_bytes = self.rows * int(np.prod(self._shape))
        folders = [PurePosixPath(name).parts[:-1] for name in self._names]
        self._labels = [folder[0] for folder in folders if len(folder) == 1]
        fields = [pa.field("file", pa.string()), image_field("image", self._shape)]
        if len(self._labels) == self.rows:
            fields.append(pa.field("label", pa.string()))
        else:
            self._labels = []
        found = _with_kind_of_labels(Schema.from_arrow(pa.schema(fields)), self._labels)
        self.schema = found if wanted is None else found.with_wishes(wanted, files[0].path)

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches of bounded size."""
        arrow = self.schema.to_arrow()
        step = batch_rows(arrow, _PIECE)
        for start in range(0, self.rows, step):
            span = slice(start, start + step)
            images = image_array(np.stack([self._pixels(file) for file in self._files[span]]))
            columns = [pa.array(self._names[span]), images, pa.array(self._labels[span], pa.string())]
            yield pa.RecordBatch.from_arrays(columns[: len(arrow)], schema=arrow)

    def _pixels(self, file: DataFile) -> Bytes:
        with _opened(file, check=True) as (image, shape):
            self._must_fit(file, shape)
            return np.asarray(image.convert(_MODES[image.mode]), np.uint8).reshape(shape)

    def _must_fit(self, file: DataFile, shape: Shape) -> None:
        if shape != self._shape:
            told = f"{_told(shape)}, {self._files[0].path} is {_told(self._shape)}"
            raise SourceError(f"{file.path}: is {told}; give all images one size and mode")


def relative_names(files: list[DataFile]) -> list[str]:
    """Names below the folder that was named, or that all files share."""
    root = files[0].root or os.path.commonpath([str(PurePosixPath(file.path).parent) for file in files])
    return [str(PurePosixPath(file.path).relative_to(root)) for file in files]


def named_digest(files: list[DataFile]) -> str:
    """SHA-256 of the files and of their names, which are data."""
    names = "\0".join(relative_names(files)).encode()
    return hashlib.sha256(joint_digest(files).encode() + names).hexdigest()


def _shape(file: DataFile) -> Shape:
    with _opened(file) as (_, shape):
        return shape


@contextmanager
def _opened(file: DataFile, *, check: bool = False) -> Generator[tuple[Any, Shape]]:
    """An image whose header has been read, and its shape; with `check` the sums of a PNG are, too.

    Raises:
        SourceError: It is damaged, too large, or of a kind that is not read.
    """
    Image = pillow()
    with file.open() as stream:
        try:
            image = Image.open(stream, formats=("PNG", "JPEG"))
            if check:  # Pillow does not look at the sums of what it decodes.
                image.verify()
                stream.seek(0)
                image = Image.open(stream, formats=("PNG", "JPEG"))
            shape = _shape_of(file, image)
            if check:
                image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise SourceError(f"{file.path}: {_TOO_LARGE}") from error
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SourceError(f"{file.path}: {_why(error)}; fetch it again") from error
        yield image, shape


_TOO_LARGE = f"is of more than {MOST_VALUES:,} values; make it smaller, or cut it"


def _why(error: Exception) -> str:
    if "identify" in str(error):
        return "is no PNG or JPEG, or is damaged"
    return f"is damaged or cut short: {one_line(error)}"


def _shape_of(file: DataFile, image: Any) -> Shape:
    """Height, width and channels of an image that can be had without loss."""
    if "16" in f"{image.mode} {image.tile[0][3]}":  # Pillow would make RGB of 8 bits of it in silence.
        raise SourceError(f"{file.path}: has 16 bits a value, 8 are read; save its values as .npy")
    if image.mode not in _MODES:
        way_out = "save it as grey, RGB or RGBA, 8 bits a value"
        raise SourceError(f"{file.path}: is of mode {image.mode}, which is not read; {way_out}")
    if "transparency" in image.info:
        raise SourceError(f"{file.path}: has a transparent colour, which is not read; save it as RGB or RGBA")
    if getattr(image, "is_animated", False):
        raise SourceError(f"{file.path}: has several frames; save each as a file")
    width, height = image.size
    channels = len(_MODES[image.mode])
    if width * height * channels > MOST_VALUES:
        raise SourceError(f"{file.path}: {_TOO_LARGE}")
    return height, width, channels


def _told(shape: Shape) -> str:
    """Width first, as everybody says it."""
    return f"{shape[1]} x {shape[0]} {_NAMES[shape[2]]}"


def _with_kind_of_labels(schema: Schema, labels: list[str]) -> Schema:
    """The schema; labels are categories if they repeat themselves."""
    if not labels:
        return schema
    distinct = len(set(labels))
    kind = text_kind(distinct if distinct <= CATEGORY_CAP else None, len(labels))
    columns = (
        column.model_copy(update={"kind": kind}) if column.name == "label" else column
        for column in schema.columns
    )
    return schema.model_copy(update={"columns": tuple(columns)})
