"""What an archive says of itself, and what general tools make of the same table."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from data.grid import ColumnGrid, State
from data.stored import one_array
from vae.codec.blocks import undress
from vae.codec.columns import number_type, pack, viewed_type
from vae.codec.needs import known
from vae.codec.texts import MIXED_VERSION


class Record(BaseModel):
    """Base of the parts of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ByteShares(Record):
    """Bytes of an archive by what they are for."""

    model: int = 0
    """The integer model, if it is embedded."""
    codes: int = 0
    """The sparse codes."""
    columns: int = 0
    """The columns: their streams, categories and tables."""
    container: int = 0
    """Header, index and checksums."""


class Rivals(Record):
    """Bytes of the same table by general tools; None where a tool cannot hold it."""

    csv: int | None = None
    """As CSV text, uncompressed, as Arrow writes it."""
    parquet_zstd19: int | None = None
    """As Parquet with zstd at level 19."""
    parquet_brotli11: int | None = None
    """As Parquet with brotli at level 11."""
    pcodec: int | None = None
    """Numbers and dictionary indices by pcodec at level 12, the rest by zstd at level 19."""

    @property
    def best(self) -> int | None:
        """The fewest bytes of a compressor."""
        sizes = [
            size for size in (self.parquet_zstd19, self.parquet_brotli11, self.pcodec) if size is not None
        ]
        return min(sizes, default=None)


class ColumnReport(Record):
    """One column of an archive."""

    name: str
    """Name."""
    kind: str
    """Kind, as in `data.schema.Kind`, or `one_hot`."""
    coder: str
    """neural, derived or rival."""
    bound: float = 0.0
    """Largest error asked for, in the column's unit; 0 is exact."""
    max_error: float = 0.0
    """Largest error there is."""
    bytes: int = 0
    """Bytes of its streams and tables."""
    bits_per_value: float = 0.0
    """The same, a row, in bits."""
    rival_bytes: int | None = None
    """Of a neural column: what the rival coders need for it, estimated from a block."""


class CodesSummary(Record):
    """The sparse codes of an archive."""

    family: str = "none"
    """Latent family."""
    latents: int = 0
    """Latents of a row."""
    mean_nonzero: float = 0.0
    """Non-zero latents of a row, on average."""
    bits_per_row: float = 0.0
    """Bits of a row's code, as written."""
    score: float | None = None
    """What the code alone says of rows held out from training: over the modelled columns, the mean of R² or accuracy
    above the majority share. None where no row was held out."""
    score_rows: int = 0
    """Rows held out."""


class Seconds(Record):
    """How long it took, in seconds."""

    train: float = 0.0
    """Training of the model; 0 if it was there before."""
    encode: float = 0.0
    """Encoding and writing."""
    verify: float = 0.0
    """Decoding and comparing."""


WithoutModel = Literal["nothing to model", "smaller without", "texts"]


class ArchiveReport(Record):
    """What `svae compress` and `svae inspect` print; see `model_dump(mode="json")`."""

    rows: int
    """Rows of the table."""
    columns: int
    """Columns of the table."""
    source_bytes: int
    """Bytes of the source as handed over, decompressed."""
    stored_bytes: int
    """Bytes of the source on disk."""
    archive_bytes: int
    """Bytes of the archive."""
    ratio: float
    """source_bytes / archive_bytes."""
    bytes: ByteShares
    """Bytes by what they are for."""
    rivals: Rivals | None = None
    """What general tools make of the table, if it was measured."""
    per_column: tuple[ColumnReport, ...]
    """Each column, in the table's order, then its one-hot groups (kind `one_hot`), from which their members follow."""
    codes_summary: CodesSummary
    """The sparse codes."""
    model_sha256: str | None = None
    """Digest of the model that reads the archive."""
    without_model: WithoutModel | None = None
    """Why there is none, as whoever wrote the archive knows; it is not stored."""
    seconds: Seconds
    """How long it took."""


class StoredColumn(Record):
    """What is stored of a column's report; sizes are counted anew."""

    kind: str = "other"
    """Kind."""
    bound: float = Field(default=0.0, ge=0)
    """Largest error asked for."""
    max_error: float = Field(default=0.0, ge=0)
    """Largest error there is."""
    rival_bytes: int | None = None
    """Estimate for a neural column."""


class StoredReport(Record):
    """What is stored of a report."""

    source_bytes: int = 0
    """Bytes of the source."""
    stored_bytes: int = 0
    """Bytes on disk."""
    rivals: Rivals | None = None
    """Measured rivals."""
    per_column: tuple[StoredColumn, ...] = ()
    """In the table's order."""
    family: str = "none"
    """Latent family."""
    mean_nonzero: float = 0.0
    """Non-zero latents of a row."""
    code_score: float | None = Field(default=None, ge=0, le=1)
    """Score of the code on rows held out from training, to 4 decimals."""
    code_score_rows: int = Field(default=0, ge=0)
    """Rows held out."""
    seconds: Seconds = Seconds()
    """How long it took."""


# -------------------------------------------------------------------------------------------------------- rivals


QUICK_BYTES = 1 << 20
"""Of values that pcodec does not code, in memory: more take long."""


def measure_rivals(
    table: pa.Table, grids: Mapping[str, ColumnGrid] | None = None, *, slow: bool = True
) -> Rivals:
    """What general tools make of `table`; columns with a bound above 0 in `grids` are given to them as grid symbols.

    Without `slow` is left out what takes longer than all others together: brotli, and pcodec of a table with more than
    `QUICK_BYTES` of values that it does not code (images, say).
    """
    bounded = {name: grid for name, grid in (grids or {}).items() if grid.bound > 0}
    rounded = on_grid(table, bounded)
    return Rivals(
        csv=_csv_size(table),
        parquet_zstd19=_parquet_size(rounded, "zstd", 19),
        parquet_brotli11=_parquet_size(rounded, "brotli", 11) if slow else None,
        pcodec=_pcodec_size(rounded) if slow or _foreign(rounded) <= QUICK_BYTES else None,
    )


def on_grid(table: pa.Table, grids: Mapping[str, ColumnGrid]) -> pa.Table:
    """The table with the columns of `grids` as symbols (whatever is not on the grid as null: rivals get that free)."""
    for name, grid in grids.items():
        coded = grid.encode(undress(one_array(table[name])))
        gone = coded.state != State.VALUE
        if coded.symbols.ndim > 1:  # images, whose levels are bytes on any grid
            levels = pa.array(coded.symbols.astype(np.uint8).reshape(-1))
            symbols = pa.FixedSizeListArray.from_arrays(
                levels, coded.symbols.shape[1], mask=pa.array(gone.reshape(-1))
            )
        else:
            symbols = pa.array(coded.symbols, mask=gone)
        table = table.set_column(table.schema.get_field_index(name), name, symbols)
    return table


class Count(io.RawIOBase):
    """A file that keeps nothing but its length, `size`."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        length = memoryview(data).nbytes
        self.size += length
        return length


def _csv_size(table: pa.Table) -> int | None:
    import pyarrow.csv

    sink = Count()
    try:
        cast(Any, pyarrow.csv).write_csv(table, sink)
    except pa.ArrowException:
        return None
    return sink.size


def _parquet_size(table: pa.Table, codec: str, level: int) -> int | None:
    import pyarrow.parquet

    sink = Count()
    try:
        cast(Any, pyarrow.parquet).write_table(table, sink, compression=codec, compression_level=level)
    except (pa.ArrowException, NotImplementedError):
        return None
    return sink.size


def _foreign(table: pa.Table) -> int:
    """Bytes in memory of the columns that are neither numbers nor text nor a dictionary."""
    kinds = pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary, number_type
    return sum(
        column.nbytes
        for column in table.columns
        if not any(kind(viewed_type(column.type) or column.type) for kind in kinds)
    )


def _pcodec_size(table: pa.Table) -> int:
    return sum(_pcodec_column(one_array(column)) for column in table.columns)


def _pcodec_column(array: Any) -> int:
    from pcodec import ChunkConfig, standalone

    zstd = cast(Any, pa.Codec("zstd", compression_level=19))
    config = ChunkConfig(compression_level=12)
    size = 0
    viewed = viewed_type(array.type)
    array = array if viewed is None else array.cast(viewed)
    if array.null_count:
        size += len(zstd.compress(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes()))
        array = array.drop_null()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.dictionary_encode()
    if isinstance(array, pa.DictionaryArray):
        size += len(zstd.compress("\n".join(map(str, array.dictionary.to_pylist())).encode()))
        array = array.indices
    dtype = number_type(array.type)
    if dtype is None:
        with known(MIXED_VERSION - 1):  # no rival mixes texts
            return size + len(pack(array))
    if len(array) == 0:
        return size
    numbers = np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]
    numbers = numbers.astype("i2") if dtype.itemsize == 1 else np.ascontiguousarray(numbers)
    return size + len(cast(bytes, standalone.simple_compress(numbers, config)))
