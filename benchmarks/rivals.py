"""What the tools that a user would pick make of a table, each at its best: bytes, or None where one cannot hold it.

Every tool picks the smallest form of each column (`benchmarks.forms`) and the best of its settings for it; null masks,
dictionaries, tables of values and column names count, and what was counted has been read back.
"""

from __future__ import annotations

import functools
import hashlib
import io
import lzma
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.coders import BoundCoder, NumberCoder, blosc, openzl, pcodec, squeezed_size, sz3, zfp
from benchmarks.forms import Bounds, Column, Numbers, columns_of, narrow

Rival = Callable[[pa.Table, Bounds], int | None]

# ----------------------------------------------------------------------------------------------- column by column


def by_column(coder: NumberCoder) -> Rival:
    """A coder of numbers for each column, whatever else there is to a column by general coders."""

    def size(table: pa.Table, bounds: Bounds) -> int:
        return _names(table) + sum(column_size(column, coder) for column in columns_of(table, bounds))

    return size


def column_size(column: Column, coder: NumberCoder) -> int:
    """Bytes of one column in its smallest form: the mask of its nulls, its table or dictionary, its numbers.

    Nulls may also be one more word of a dictionary, in place of a mask.
    """
    masked = _mask(column)
    sizes: list[int] = []
    for form in column.forms:
        side = squeezed_size(form.side)
        sizes.append(masked + side + _coded_size(form.numbers, coder))
        if column.valid is not None and pa.types.is_string(column.values.type) and len(form.numbers):
            whole = np.zeros(len(column.valid), np.int64)
            whole[column.valid] = form.numbers.astype(np.int64) + 1
            sizes.append(side + _coded_size(narrow(whole), coder))
    return min(sizes)


KNOWN: dict[tuple[str, ...], int] = {}
"""Sizes by coder and numbers: the same columns come with other bounds, merged groups and coders beside."""


def _coded_size(numbers: Numbers, coder: NumberCoder) -> int:
    if not len(numbers):
        return 0
    key = (coder.__name__, numbers.dtype.str, hashlib.sha256(numbers.tobytes()).hexdigest())
    if key not in KNOWN:
        KNOWN[key] = len(coder(numbers))
    return KNOWN[key]


def _names(table: pa.Table) -> int:
    return squeezed_size("\n".join(table.column_names).encode())


def _mask(column: Column) -> int:
    """Bytes of the mask, as bits by a general coder or as numbers by pcodec."""
    if column.valid is None:
        return 0
    return min(
        squeezed_size(np.packbits(column.valid).tobytes()), _coded_size(column.valid.astype(np.uint8), pcodec)
    )


def lossy(coder: BoundCoder) -> Rival:
    """A coder of floats for the bounded columns where it is smaller, pcodec for the rest; None without a bound."""

    def size(table: pa.Table, bounds: Bounds) -> int | None:
        if not any(bounds.get(name, 0) > 0 for name in table.column_names):
            return None
        return _names(table) + sum(_lossy_size(column, coder) for column in columns_of(table, bounds))

    return size


def _lossy_size(column: Column, coder: BoundCoder) -> int:
    plain = column_size(column, pcodec)
    if column.bound == 0 or not len(column.values) or pa.types.is_temporal(column.values.type):
        return plain
    whole = pa.types.is_integer(column.values.type)
    # what comes back of integers is rounded: an error below half a unit more than the bound allows changes nothing
    bound = int(column.bound) + 0.499 if whole else column.bound
    packed = coder(column.values.to_numpy(zero_copy_only=False).astype(np.float64), bound)
    return plain if packed is None else min(plain, _mask(column) + len(packed))


# ------------------------------------------------------------------------------------------------------- Parquet


class Encoded(NamedTuple):
    """A column as Parquet is given it, and the encoding asked for."""

    array: pa.Array
    encoding: str
    """DICTIONARY, or the name of an encoding without dictionary."""
    side: int
    """Bytes that turn its values back."""


TRIAL_LEVELS = {"zstd": 9, "brotli": 6}
"""At which the encodings of a column are compared; the file itself is written at the level asked for."""


def parquet(codec: str, level: int) -> Rival:
    """Parquet at this codec's level, with the smallest encoding of each column, read back."""

    def size(table: pa.Table, bounds: Bounds) -> int:
        chosen: dict[str, Encoded] = {}
        for column in columns_of(table, bounds):
            choices = list(_encodings(column))
            trial = TRIAL_LEVELS[codec]
            sizes = [one.side + len(_parquet({column.name: one}, codec, trial)) for one in choices]
            chosen[column.name] = choices[int(np.argmin(sizes))]
        content = _parquet(chosen, codec, level)
        back = pyarrow.parquet.read_table(io.BytesIO(content))
        if not all(_same(back[name].combine_chunks(), one.array) for name, one in chosen.items()):
            raise AssertionError("Parquet did not give its columns back")
        return len(content) + sum(one.side for one in chosen.values())

    return size


def _same(back: pa.Array, given: pa.Array) -> bool:
    """Whether two arrays are equal, NaN being equal to itself."""
    if not pa.types.is_floating(given.type):
        return back.equals(given)
    alike = back.fill_null(0).to_numpy().tobytes() == given.fill_null(0).to_numpy().tobytes()
    return alike and back.is_null().equals(given.is_null())


def _encodings(column: Column) -> Iterator[Encoded]:
    """Texts as they are; numbers in their exact or bounded forms, in every encoding that Parquet has for them."""
    if pa.types.is_string(column.values.type):
        for encoding in ("DICTIONARY", "PLAIN", "DELTA_BYTE_ARRAY"):
            yield Encoded(_with_nulls(column.values, column.valid), encoding, 0)
        return
    for form in column.forms:
        array = _with_nulls(pa.array(_signed(form.numbers)), column.valid)
        encodings = ["DICTIONARY", "PLAIN", "BYTE_STREAM_SPLIT"]
        if pa.types.is_integer(array.type):
            encodings.append("DELTA_BINARY_PACKED")
        for encoding in encodings:
            yield Encoded(array, encoding, squeezed_size(form.side))


def _signed(numbers: Numbers) -> Numbers:
    """Parquet's own integers have 32 or 64 bits."""
    if numbers.dtype.kind == "f":
        return numbers
    return numbers.astype(np.int32 if not len(numbers) or int(numbers.max()) < 1 << 31 else np.int64)


def _with_nulls(values: pa.Array, valid: Numbers | None) -> pa.Array:
    if valid is None:
        return values
    places = np.cumsum(valid) - 1
    return values.take(pa.array(places, mask=~valid))


def _parquet(columns: dict[str, Encoded], codec: str, level: int) -> bytes:
    table = pa.table({name: one.array for name, one in columns.items()})
    encoded = {name: one.encoding for name, one in columns.items() if one.encoding != "DICTIONARY"}
    sink = io.BytesIO()
    write: Any = pyarrow.parquet.write_table
    write(
        table,
        sink,
        compression=codec,
        compression_level=level,
        store_schema=False,
        write_statistics=False,
        use_dictionary=[name for name in columns if name not in encoded],
        column_encoding=encoded or None,
        dictionary_pagesize_limit=1 << 26,
        data_page_size=1 << 26,
        max_rows_per_page=1 << 30,
        row_group_size=1 << 26,
    )
    return sink.getvalue()


# ------------------------------------------------------------------------------------------------------------ xz


def xz(table: pa.Table, bounds: Bounds) -> int:
    """`xz -9` of the CSV text, on the grid where there is a bound, in that of its phases which a quick try prefers."""
    bounded = any(bounds.get(name, 0) > 0 for name in table.column_names)
    texts = [_csv(table, bounds, phase) for phase in range(3 if bounded else 1)]
    return len(lzma.compress(min(texts, key=lambda text: len(lzma.compress(text, preset=0))), preset=9))


def _csv(table: pa.Table, bounds: Bounds, phase: int) -> bytes:
    on_grid = table.select([name for name in table.column_names if bounds.get(name, 0) > 0])
    for column in columns_of(on_grid, bounds):
        form = column.forms[min(phase, len(column.forms) - 1)]
        symbols = _with_nulls(pa.array(form.numbers), column.valid)
        table = table.set_column(table.column_names.index(column.name), column.name, symbols)
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


RIVALS: dict[str, Rival] = {
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


def smallest(rival: Rival, variants: Iterable[pa.Table], bounds: Bounds) -> int | None:
    """Bytes of the variant of a table (as it is, its one-hot groups merged) of which the rival makes least."""
    sizes = [rival(variant, bounds) for variant in variants]
    return min((size for size in sizes if size is not None), default=None)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the rivals."""
    from importlib.metadata import version

    return {name: version(name) for name in ("pyarrow", "pcodec", "openzl", "blosc2", "pysz", "zfpy")}
