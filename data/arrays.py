"""NumPy arrays (`.npy`, `.npz`) as tables, and tables as arrays.

The first axis is the rows. A vector is one column; the fields of a structured array, and the columns of a matrix of
at most 512, are columns; what is wider or deeper (images, say) is one column of fixed-size arrays. The layout is kept
in the schema's metadata, so that the same arrays can be written again.
"""

from __future__ import annotations

import itertools
import json
import math
import zipfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from data.batches import BATCH_ROWS
from data.distinct import with_categories
from data.errors import SourceError
from data.files import DataFile, explained, one_line
from data.images import image_shape
from data.layouts import LAYOUT_KEY, Array, ArrayLayout, numpy_of
from data.schema import Schema

_MOST_COLUMNS = 512
_BATCH_BYTES = 1 << 24
_KINDS = "biufMmUS"


class ArrayFile:
    """The arrays of one `.npy` or `.npz` file as one table.

    Args:
        file: The file.
        wanted: A given schema, whose kinds and bounds are taken over.
    """

    def __init__(self, file: DataFile, wanted: Schema | None = None) -> None:
        self.file = file
        with _open_arrays(file) as arrays:
            if not arrays:
                raise SourceError(f"{file.path}: holds no arrays")
            first = next(iter(arrays.values()))
            for name, stream in arrays.items():
                _check(file.path, name, stream, first)
            self.layouts = [_layout(name, stream.dtype, stream.shape[1:]) for name, stream in arrays.items()]
            self.rows = first.shape[0]
            self.source_bytes = sum(
                math.prod(stream.shape) * stream.dtype.itemsize for stream in arrays.values()
            )
        empty = [layout.to_arrow(np.empty((0, *layout.shape), layout.dtype)) for layout in self.layouts]
        names = [name for layout in self.layouts for name in layout.columns]
        fields = [
            pa.field(name, array.type) for name, array in zip(names, itertools.chain(*empty), strict=True)
        ]
        metadata = {LAYOUT_KEY: json.dumps([layout.to_json() for layout in self.layouts])}
        found = Schema.from_arrow(pa.schema(fields, cast(Any, metadata)))
        self.schema = found
        self.schema = with_categories(found, self.read())
        if wanted is not None:
            self.schema = self.schema.with_wishes(wanted, file.path)

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches of bounded size."""
        arrow = self.schema.to_arrow()
        with _open_arrays(self.file) as arrays:
            width = sum(stream.row_bytes for stream in arrays.values())
            step = max(1, min(BATCH_ROWS, _BATCH_BYTES // max(width, 1)))
            for start in range(0, self.rows, step):
                count = min(step, self.rows - start)
                columns: list[pa.Array] = []
                for layout, stream in zip(self.layouts, arrays.values(), strict=True):
                    columns += layout.to_arrow(stream.read(count))
                yield pa.RecordBatch.from_arrays(columns, schema=arrow)


def write_arrays(table: pa.Table, schema: Schema, path: Path, file: BinaryIO) -> None:
    """Write a table as `.npy` (one array) or `.npz` (by the ending of `path`).

    Raises:
        DataError: Values that an array of the column's type cannot hold, such as nulls among integers.
    """
    layouts = _layouts_of(schema)
    if path.suffix.lower() == ".npz":
        chosen = layouts or [_own_layout(table, name) for name in table.column_names]
        named = {layout.name or layout.columns[0]: _gather(table, layout) for layout in chosen}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, array in named.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        return
    if layouts is not None and len(layouts) == 1:
        array = _gather(table, layouts[0])
    elif table.num_columns == 1:
        array = _gather(table, _own_layout(table, table.column_names[0]))
    else:
        array = _structured(table)
    np.lib.format.write_array(file, array, allow_pickle=False)


class _ArrayStream:
    """One array, read forward some rows at a time."""

    def __init__(self, stream: BinaryIO, place: str) -> None:
        self._stream = stream
        self._place = place
        try:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            self.shape, self._fortran, self.dtype = cast(Any, read_header)(stream)
        except ValueError as error:
            raise SourceError(f"{place}: is not an array: {one_line(error)}") from error
        self._whole: Array | None = None
        self._done = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, rows: int) -> Array:
        """The next rows."""
        if self._fortran and len(self.shape) > 1:
            if self._whole is None:  # Columns lie one after another: only the whole has rows.
                self._whole = self._take(math.prod(self.shape)).reshape(self.shape[::-1]).T
            piece = self._whole[self._done : self._done + rows]
        else:
            piece = self._take(rows * math.prod(self.shape[1:])).reshape(rows, *self.shape[1:])
        self._done += rows
        return piece

    def _take(self, count: int) -> Array:
        size = count * self.dtype.itemsize
        data = bytearray()
        while len(data) < size and (block := self._stream.read(min(size - len(data), 1 << 24))):
            data += block
        if len(data) < size:
            raise SourceError(f"{self._place}: is cut short; fetch it again")
        return np.frombuffer(data, self.dtype, count)


@contextmanager
def _open_arrays(file: DataFile) -> Generator[dict[str, _ArrayStream]]:
    """The file's arrays by name, each at its first row."""
    with ExitStack() as stack:
        stack.enter_context(explained(file.path))
        raw = stack.enter_context(file.open_stored())
        if file.format == "npy":
            yield {"": _ArrayStream(raw, file.path)}
            return
        archive = stack.enter_context(zipfile.ZipFile(raw))
        streams: dict[str, _ArrayStream] = {}
        for member in archive.namelist():
            name = str(PurePosixPath(member).with_suffix(""))
            # Each member has its own handle, so that they can be read side by side.
            own = stack.enter_context(zipfile.ZipFile(stack.enter_context(file.open_stored())))
            streams[name] = _ArrayStream(
                cast(BinaryIO, stack.enter_context(own.open(member))), f"{file.path}, array {name!r}"
            )
        yield streams


def _check(path: str, name: str, stream: _ArrayStream, first: _ArrayStream) -> None:
    """SourceError for an array that is not rows of plain values."""
    place = f"{path}, array {name!r}" if name else path
    parts = (
        [stream.dtype]
        if stream.dtype.names is None
        else [stream.dtype[field] for field in stream.dtype.names]
    )
    if any(
        part.kind not in _KINDS or part.subdtype is not None or (part.itemsize > 8 and part.kind == "f")
        for part in parts
    ):
        raise SourceError(f"{place}: values of type {stream.dtype} are not read; save numbers, text or times")
    if any(
        part.kind in "mM" and np.datetime_data(part)[0] not in ("D", "s", "ms", "us", "ns") for part in parts
    ):
        raise SourceError(
            f"{place}: times of type {stream.dtype} are not read; save them as datetime64[s] or finer"
        )
    if stream.dtype.names is not None and len(stream.shape) > 1:
        raise SourceError(f"{place}: is structured and has {len(stream.shape)} axes; save one axis, the rows")
    if not stream.shape:
        raise SourceError(f"{place}: is a single value; save an array whose first axis is the rows")
    if stream.shape[0] != first.shape[0]:
        raise SourceError(
            f"{place}: has {stream.shape[0]} rows, others have {first.shape[0]}; save arrays of one length"
        )
    if min(stream.shape) < 1:
        raise SourceError(f"{place}: has no rows")


def _layout(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> ArrayLayout:
    if dtype.names is not None:
        prefix = f"{name}_" if name else ""
        return ArrayLayout(name, dtype, shape, tuple(f"{prefix}{field}" for field in dtype.names))
    if len(shape) == 1 and shape[0] <= _MOST_COLUMNS:
        columns = tuple(f"{name}_{index}" if name else f"c{index}" for index in range(shape[0]))
    else:
        columns = (name or ("values" if shape else "value"),)
    return ArrayLayout(name, dtype, shape, columns)


def _layouts_of(schema: Schema) -> list[ArrayLayout] | None:
    """The arrays that a schema came from, if it still has all of their columns."""
    text = schema.metadata.get(LAYOUT_KEY)
    if text is None:
        return None
    layouts = [ArrayLayout.from_json(plain) for plain in json.loads(text)]
    names = [name for layout in layouts for name in layout.columns]
    return layouts if names == schema.names else None


def _own_layout(table: pa.Table, name: str) -> ArrayLayout:
    array = numpy_of(table.column(name).slice(0, 0), name)
    return ArrayLayout(name, array.dtype, _axes(table.schema, name) or array.shape[1:], (name,))


def _axes(schema: pa.Schema, name: str) -> tuple[int, ...] | None:
    """The axes of one image of a column of images: channels are one only where there are several."""
    shape = image_shape(schema, name)
    return None if shape is None else shape[:2] if shape[2] == 1 else shape


def _gather(table: pa.Table, layout: ArrayLayout) -> Array:
    if layout.dtype.kind in "US":  # The longest text decides the width, which is not known before.
        return numpy_of(table.column(layout.columns[0]), layout.columns[0])
    return layout.from_arrow([table.column(name).combine_chunks() for name in layout.columns])


def _structured(table: pa.Table) -> Array:
    """Columns of several types as one array of records."""
    columns = {name: numpy_of(table.column(name), name) for name in table.column_names}
    for name, column in columns.items():
        axes = _axes(table.schema, name)
        columns[name] = column if axes is None else column.reshape(-1, *axes)
    array = np.empty(
        table.num_rows, [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    )
    for name, column in columns.items():
        array[name] = column
    return array
