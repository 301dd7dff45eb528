"""What the tools that a user would pick make of a table, each at its best: bytes, or None where one cannot hold it.

Every column is given as it is and, within a bound, as integers on the grid of that bound; null masks, dictionaries and
column names count. What is not on a grid (an offender of the bound) is left out: the rivals get it for nothing.
"""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from data.grid import fit_column
from vae.codec.summary import on_grid

Bounds = Mapping[str, float]
Numbers = np.ndarray[Any, Any]
NumberCoder = Callable[[Numbers], int]
"""A 1-D array of 8 bytes or fewer each -> the bytes that it takes."""


def gridded(table: pa.Table, bounds: Bounds) -> pa.Table:
    """The table with its bounded columns as integers within the bound."""
    wanted = {name: width for name, width in bounds.items() if width > 0 and name in table.column_names}
    grids = {name: fit_column(name, table[name], width) for name, width in wanted.items()}
    return on_grid(table, {name: grid for name, grid in grids.items() if grid.kind == "number"})


# ------------------------------------------------------------------------------------------------ whole tables


def parquet(codec: str, level: int) -> Callable[[pa.Table, Bounds], int]:
    """Parquet at this codec's level."""

    def size(table: pa.Table, bounds: Bounds) -> int:
        sink = io.BytesIO()
        pyarrow.parquet.write_table(
            gridded(table, bounds), sink, compression=codec, compression_level=level, store_schema=False
        )
        return sink.tell()

    return size


def xz(table: pa.Table, bounds: Bounds) -> int:
    """`xz -9e` of the CSV text, on the grid where there is a bound."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(gridded(table, bounds), sink)
    return len(lzma.compress(sink.getvalue(), preset=9 | lzma.PRESET_EXTREME))


# ----------------------------------------------------------------------------------------------- column by column


def by_column(numbers: NumberCoder) -> Callable[[pa.Table, Bounds], int]:
    """A coder of numbers for each column of the gridded table; masks and texts by zstd at level 19."""

    def size(table: pa.Table, bounds: Bounds) -> int:
        given = gridded(table, bounds)
        return sum(_smaller(name, given[name], numbers) for name in given.column_names)

    return size


def _smaller(name: str, column: pa.ChunkedArray, numbers: NumberCoder) -> int:
    """Bytes of a column as it is or, of exact numbers, on the grid that they stand on, its table counted; the less."""
    plain = column_size(name, column, numbers)
    grid = fit_column(name, column, 0.0)
    if grid.kind != "number":
        return plain
    table = text_size(np.array(grid.values, np.float64).tobytes()) if grid.values else 0
    symbols = on_grid(pa.table({name: column}), {name: grid})[name]
    return min(plain, table + column_size(name, symbols, numbers))


def column_size(name: str, column: pa.ChunkedArray, numbers: NumberCoder) -> int:
    """Bytes of one column: its name, the mask of its nulls, its dictionary, its numbers."""
    array = column.combine_chunks()
    size = len(name.encode()) + 1
    if array.null_count:
        size += text_size(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
        array = array.drop_null()
    if pa.types.is_string(array.type):
        coded = array.dictionary_encode()
        size += text_size("\n".join(coded.dictionary.to_pylist()).encode())
        array = coded.indices
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    return size + (numbers(narrow(array.to_numpy())) if len(array) else 0)


def narrow(values: Numbers) -> Numbers:
    """Integers from 0 on, as narrow as they go; floats as they are."""
    if values.dtype.kind == "f":
        return np.ascontiguousarray(values)
    away = values.astype(np.int64) - int(values.min())
    span = int(away.max())
    width = "u1" if span < 1 << 8 else "u2" if span < 1 << 16 else "u4" if span < 1 << 32 else "u8"
    return np.ascontiguousarray(away.astype(width))


def text_size(content: bytes) -> int:
    """Bytes by zstd at level 19."""
    return len(pa.Codec("zstd", compression_level=19).compress(content, asbytes=True))


def pcodec(values: Numbers) -> int:
    """Pcodec at level 12."""
    from pcodec import ChunkConfig, standalone

    wide = values.astype(np.uint16) if values.dtype.itemsize == 1 else values
    return len(standalone.simple_compress(wide, ChunkConfig(compression_level=12)))


def blosc(values: Numbers) -> int:
    """Blosc2 with zstd at level 9, over its filters."""
    import blosc2

    tool: Any = blosc2

    filters = (tool.Filter.NOFILTER, tool.Filter.SHUFFLE, tool.Filter.BITSHUFFLE)
    return min(
        len(tool.compress2(values, codec=tool.Codec.ZSTD, clevel=9, filters=[one], typesize=values.itemsize))
        for one in filters
    )


def openzl(values: Numbers) -> int:
    """OpenZL: the smallest of its graphs for columns: entropy coders and field-wise LZ of the numbers, packed, of
    their differences and of their ranks.
    """
    whole = values.view(f"u{values.dtype.itemsize}")
    sizes = [_openzl(whole, graph) for graph in _openzl_graphs()]
    return min(size for size in sizes if size is not None)


def _openzl(values: Numbers, graph: Callable[[Any], Any]) -> int | None:
    """Bytes of one graph; None where it is not made for such numbers."""
    import openzl.ext as zl

    compressor, context = zl.Compressor(), zl.CCtx()
    compressor.select_starting_graph(graph(compressor))
    context.ref_compressor(compressor)
    context.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
    try:
        return len(context.compress([zl.Input(zl.Type.Numeric, values)]))
    except RuntimeError:
        return None


def _openzl_graphs() -> list[Callable[[Any], Any]]:
    import openzl.ext as zl

    graphs, nodes = zl.graphs, zl.nodes
    ends: list[Callable[[Any], Any]] = [
        graphs.Compress(),
        graphs.Entropy(),
        graphs.FieldLz(compression_level=9),
        lambda c: nodes.ConvertNumToSerialLE()(c, graphs.Zstd(compression_level=19)(c)),
    ]

    def before(node: Any, end: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda c: node(c, end(c))

    packed = [before(nodes.RangePack(), end) for end in ends]
    differences = [before(nodes.DeltaInt(), before(nodes.Zigzag(), end)) for end in packed]
    alphabet = before(nodes.DeltaInt(), before(nodes.RangePack(), ends[2]))

    def tokens(end: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda c: nodes.TokenizeNumeric(sort=True)(c, alphabet(c), end(c))

    return [*ends, *packed, *differences, *(tokens(end) for end in packed)]


# --------------------------------------------------------------------------------- coders of floats within a bound


def lossy(floats: Callable[[Numbers, float], int | None]) -> Callable[[pa.Table, Bounds], int | None]:
    """A coder of floats for the bounded float columns, pcodec for the rest; None without a bound on any."""

    def size(table: pa.Table, bounds: Bounds) -> int | None:
        mine = [n for n in table.column_names if bounds.get(n, 0) > 0 and pa.types.is_floating(table[n].type)]
        if not mine:
            return None
        rest = by_column(pcodec)(table.drop_columns(mine), bounds)
        return rest + sum(_float_size(name, table[name], bounds[name], floats) for name in mine)

    return size


def _float_size(
    name: str, column: pa.ChunkedArray, bound: float, floats: Callable[[Numbers, float], int | None]
) -> int:
    """Bytes of one float column, its nulls left out and its mask counted; of the grid by pcodec where that is less."""
    size: int | None = None

    def numbers(values: Numbers) -> int:
        nonlocal size
        size = floats(values.astype(np.float64), bound)
        return 0

    masks = column_size(name, column, numbers)
    other = by_column(pcodec)(pa.table({name: column}), {name: bound})
    return other if size is None else min(other, masks + size)


def sz3(values: Numbers, bound: float) -> int | None:
    """SZ3: the smallest of its predictors; None where none keeps the bound."""
    from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

    sizes: list[int] = []
    for algorithm in (
        szAlgorithm.INTERP_LORENZO,
        szAlgorithm.LORENZO_REG,
        szAlgorithm.INTERP,
        szAlgorithm.NOPRED,
    ):
        config = szConfig(values.shape)
        config.errorBoundMode, config.absErrorBound, config.cmprAlgo = szErrorBoundMode.ABS, bound, algorithm
        packed, _ = sz.compress(values, config)
        restored, _ = sz.decompress(packed, values.dtype, values.shape)
        if (np.abs(restored - values) <= bound * (1 + 1e-9)).all():
            sizes.append(len(packed))
    return min(sizes, default=None)


def zfp(values: Numbers, bound: float) -> int | None:
    """Zfp within a tolerance; None where it does not keep it."""
    import zfpy

    packed = zfpy.compress_numpy(values, tolerance=bound)
    return len(packed) if (np.abs(zfpy.decompress_numpy(packed) - values) <= bound).all() else None


RIVALS: dict[str, Callable[[pa.Table, Bounds], int | None]] = {
    "parquet_zstd19": parquet("zstd", 19),
    "parquet_brotli11": parquet("brotli", 11),
    "pcodec": by_column(pcodec),
    "openzl": by_column(openzl),
    "blosc2": by_column(blosc),
    "sz3_pcodec": lossy(sz3),
    "zfp_pcodec": lossy(zfp),
    "xz": xz,
}
"""Name -> bytes of a table within bounds."""
