"""Files in the format of the original MNIST (`train-images-idx3-ubyte`) as tables.

Of three axes or more the rows are images, of one axis they are labels. Files of images and files of labels whose
names differ in nothing else are columns side by side; several such pairs follow on from each other.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.batches import batch_rows
from data.errors import SourceError
from data.files import DataFile
from data.images import MOST_VALUES, image_array, image_field, shape_of_axes
from data.schema import Schema

Bytes = npt.NDArray[np.uint8]

_TYPES = {9: "signed bytes", 11: "16-bit integers", 12: "32-bit integers", 13: "floats", 14: "doubles"}
_PIECE = 1 << 24
_ROLE = re.compile(r"images?|labels?|idx\d")


@dataclass(frozen=True)
class IdxFile:
    """One file, as its header tells."""

    file: DataFile
    shape: tuple[int, ...]
    """All axes; the first is the rows."""

    @property
    def has_images(self) -> bool:
        """Whether a row is more than one value."""
        return len(self.shape) > 1

    @property
    def pair(self) -> str:
        """What the names of files that belong together have in common."""
        return _ROLE.sub("", re.sub(r"\.(gz|zip)$", "", self.file.path.lower()))

    @property
    def field(self) -> pa.Field:
        """The column."""
        axes = self.shape[1:]
        if not axes:
            labels = "label" in PurePosixPath(self.file.path).name.lower()
            return pa.field("label" if labels else "value", pa.uint8())
        shape = shape_of_axes(axes)
        return (
            pa.field("values", pa.list_(pa.uint8(), math.prod(axes)))
            if shape is None
            else image_field("image", shape)
        )

    def read(self, stream: BinaryIO, rows: int) -> pa.Array:
        """The next rows of a stream that stands behind the header, or behind former rows."""
        data = _take(self.file, stream, rows * math.prod(self.shape[1:]))
        return image_array(data.reshape(rows, -1)) if self.has_images else pa.array(data)


class IdxFiles:
    """Images, labels, or both, as one table.

    Args:
        files: The files, in order.
        wanted: A given schema, whose kinds and bounds are taken over.
    """

    def __init__(self, files: list[DataFile], wanted: Schema | None = None) -> None:
        self._groups = paired([idx_file(file) for file in files])
        first = self._groups[0]
        for group in self._groups:
            for part, known in zip(group, first, strict=True):
                if part.shape[1:] != known.shape[1:]:
                    told = f"rows of {_shown(part)}, those of {known.file.path} are of {_shown(known)}"
                    raise SourceError(f"{part.file.path}: holds {told}; name files of one shape with a glob")
        self.rows = sum(group[0].shape[0] for group in self._groups)
        if not self.rows:
            raise SourceError(f"{files[0].path}: has no rows")
        self.source_bytes = sum(math.prod(part.shape) for group in self._groups for part in group)
        found = Schema.from_arrow(pa.schema([part.field for part in first]))
        self.schema = found if wanted is None else found.with_wishes(wanted, files[0].path)

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches of bounded size."""
        arrow = self.schema.to_arrow()
        step = batch_rows(arrow, _PIECE)
        for group in self._groups:
            with ExitStack() as stack:
                streams = [stack.enter_context(_opened(part.file)) for part in group]
                rows = group[0].shape[0]
                for start in range(0, rows, step):
                    count = min(step, rows - start)
                    columns = [
                        part.read(stream, count) for part, (stream, _) in zip(group, streams, strict=True)
                    ]
                    yield pa.RecordBatch.from_arrays(columns, schema=arrow)
                for part, (stream, _) in zip(group, streams, strict=True):
                    _must_end(part.file, stream)


def paired(parts: list[IdxFile]) -> list[list[IdxFile]]:
    """Files of images, each with its labels if there are any.

    Raises:
        SourceError: A file has no partner, or has not as many rows.
    """
    images = _by_pair([part for part in parts if part.has_images])
    labels = _by_pair([part for part in parts if not part.has_images])
    if not images or not labels:
        return [[part] for part in parts]
    for kind, found, others in (("labels", images, labels), ("images", labels, images)):
        lonely = next((part for pair, part in found.items() if pair not in others), None)
        if lonely is not None:
            raise SourceError(
                f"{lonely.file.path}: no file of {kind} is named like it; name one kind with a glob"
            )
    for pair, part in images.items():
        own = labels[pair]
        if own.shape[0] != part.shape[0]:
            told = f"has {own.shape[0]} rows, {part.file.path} has {part.shape[0]}"
            raise SourceError(f"{own.file.path}: {told}; fetch them again")
    return [[part, labels[pair]] for pair, part in images.items()]


def _by_pair(parts: list[IdxFile]) -> dict[str, IdxFile]:
    found: dict[str, IdxFile] = {}
    for part in parts:
        other = found.setdefault(part.pair, part)
        if other is not part:
            raise SourceError(f"{part.file.path}: is there twice, as {other.file.path}; name one with a glob")
    return found


def idx_file(file: DataFile) -> IdxFile:
    """What the header says; SourceError if it is another format's, or of other values than bytes."""
    with _opened(file) as (_, shape):
        part = IdxFile(file, shape)
    if math.prod(shape[1:]) > MOST_VALUES:
        raise SourceError(f"{file.path}: rows of {_shown(part)} are too large; cut them")
    if not shape or min(shape[1:], default=1) < 1:
        raise SourceError(f"{file.path}: has no values")
    return part


def read_idx(file: DataFile) -> Bytes:
    """The array of one file.

    Raises:
        SourceError: The file is of another format or cut short.
    """
    with _opened(file) as (stream, shape):
        data = _take(file, stream, math.prod(shape))
        _must_end(file, stream)
    return data.reshape(shape)


@contextmanager
def _opened(file: DataFile) -> Generator[tuple[BinaryIO, tuple[int, ...]]]:
    """The content behind the header, and the axes that the header tells."""
    with file.open() as stream:
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in {8, *_TYPES}:
            raise SourceError(f"{file.path}: is not an idx file of bytes")
        if head[2] != 8:
            raise SourceError(
                f"{file.path}: is an idx file of {_TYPES[head[2]]}, only bytes are read; save it as .npy"
            )
        yield stream, struct.unpack(f">{head[3]}I", _take(file, stream, 4 * head[3]).tobytes())


def _take(file: DataFile, stream: BinaryIO, size: int) -> Bytes:
    """So many bytes; memory grows with what is there, not with what a header promises."""
    data = bytearray()
    while len(data) < size and (block := stream.read(min(size - len(data), _PIECE))):
        data += block
    if len(data) < size:
        raise SourceError(f"{file.path}: is cut short; fetch it again")
    return np.frombuffer(data, np.uint8)


def _must_end(file: DataFile, stream: BinaryIO) -> None:
    if stream.read(1):
        raise SourceError(f"{file.path}: holds more than its header says; fetch it again")


def _shown(part: IdxFile) -> str:
    return " x ".join(map(str, part.shape[1:])) or "one value"
