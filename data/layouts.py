"""How NumPy arrays lie in the columns of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data.errors import DataError

LAYOUT_KEY = "svae.arrays"
"""Key of the layout in `Schema.metadata`."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ArrayLayout:
    """One array and the columns that hold it."""

    name: str
    """Name in the `.npz`; empty in a `.npy`."""
    dtype: np.dtype[Any]
    """Type, byte order included."""
    shape: tuple[int, ...]
    """Shape of one row: empty for a vector."""
    columns: tuple[str, ...]
    """One name, or one for each field or matrix column."""

    @property
    def is_matrix(self) -> bool:
        """Whether each column of a matrix is a column of the table."""
        return len(self.shape) == 1 and len(self.columns) == self.shape[0]

    def to_arrow(self, rows: Array) -> list[pa.Array]:
        """The columns of some rows."""
        if self.dtype.names is not None:
            return [_vector(rows[field]) for field in self.dtype.names]
        if not self.shape:
            return [_vector(rows)]
        if self.is_matrix:
            return [_vector(column) for column in rows.T]
        return [pa.FixedSizeListArray.from_arrays(_vector(rows.reshape(-1)), math.prod(self.shape))]

    def from_arrow(self, columns: list[pa.Array]) -> Array:
        """Inverse of `to_arrow`."""
        if self.dtype.names is not None:
            array = np.empty(len(columns[0]), self.dtype)
            for field, column in zip(self.dtype.names, columns, strict=True):
                array[field] = numpy_of(column, field)
            return array
        parts = [numpy_of(column, name) for name, column in zip(self.columns, columns, strict=True)]
        array = np.stack(parts, axis=1) if self.is_matrix else parts[0]
        return array.reshape(-1, *self.shape).astype(self.dtype, copy=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        descr = np.lib.format.dtype_to_descr(self.dtype)
        return {"name": self.name, "dtype": descr, "shape": self.shape, "columns": self.columns}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> ArrayLayout:
        """Inverse of `to_json`."""
        descr = plain["dtype"]
        dtype = np.dtype(descr if isinstance(descr, str) else [tuple(field) for field in descr])
        return cls(plain["name"], dtype, tuple(plain["shape"]), tuple(plain["columns"]))


def numpy_of(column: pa.Array | pa.ChunkedArray, name: str) -> Array:
    """A column as NumPy holds it: nulls become NaN or NaT, and are an error where there is neither."""
    whole: Any = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    type_ = whole.type
    if pa.types.is_fixed_size_list(type_):
        if whole.null_count:
            raise DataError(f"column {name!r}: an array cannot hold its nulls; write .parquet instead")
        return numpy_of(whole.flatten(), name).reshape(len(whole), type_.list_size)
    if pa.types.is_dictionary(type_):
        return numpy_of(whole.cast(type_.value_type), name)
    temporal = pa.types.is_timestamp(type_) or pa.types.is_date(type_) or pa.types.is_duration(type_)
    if whole.null_count and not (temporal or pa.types.is_floating(type_)):
        raise DataError(
            f"column {name!r}: an array of {type_} cannot hold its nulls; write .parquet or .csv instead"
        )
    array = whole.to_numpy(zero_copy_only=False)
    if array.dtype != object:
        return array
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return array.astype(np.str_)
    if pa.types.is_binary(type_):
        return array.astype(np.bytes_)
    raise DataError(f"column {name!r}: an array cannot hold {type_}; write .parquet instead")


def _vector(values: Array) -> pa.Array:
    """A one-dimensional array as Arrow holds it; NaN stays NaN, NaT is null."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.array(np.ascontiguousarray(native), from_pandas=False)
