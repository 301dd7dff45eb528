"""What the streams of a group hold, and the tables that all groups share.

::

    cells       piece: packed states (uint8), piece: packed symbols (int64) of the rows that hold values, the node of
                the escapes, in row order; nothing if there is none
    nudges      of a column whose scale is among `data.grid.NUDGED`, before all else: piece: packed (int8), a row each
    rival       the cells of the group's rows if the column has a grid, else the node of its values
    exceptions  of a derived column: varint count, piece: packed gaps (int64) from row to row, the first from row -1,
                the cells of these rows; every escape is an exception
    escapes     of a neural column: a varint for each block, their number, then the node of all of them; of images,
                packed states (uint8), of which none is an escape, or nothing where none is null
    tables      for each column whose grid has values: varint count, piece: their node (strings or float64), or where
                the grid has `parts` the packed gaps (int64) from numerator to numerator, the first from 0;
                then for each derived column, in the table's order: varint count, piece: packed entries (int64),
                piece: packed states (uint8), empty if all are values;
                then for each column with a grid that is a dictionary array: varint count, piece: its node

A *piece*, *node* and *packed* are those of `vae.codec.columns`. What is empty has no exceptions or escapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc

from data.errors import DamagedError
from data.fractions import fractions, numerators
from data.grid import MAX_SPAN, NUDGED, SUMS, Coded, ColumnGrid, State
from vae.codec.budget import Budget
from vae.codec.columns import pack, unpack
from vae.codec.container import ColumnCoding
from vae.codec.framing import Cursor, put_varint
from vae.codec.numbers import pack_numbers, unpack_numbers
from vae.codec.structure import MAX_TABLE, Cells, Derived, Ints, States

pc = cast(Any, _pc)
Codes = npt.NDArray[np.int8]
CodesOf = Callable[[Ints, States], Codes]
"""Gives the codes of rows by the symbols and states of the model's columns, (rows, columns)."""
T = TypeVar("T")
_LONG = np.dtype("i8")
_BYTE = np.dtype("u1")
_NUDGE = np.dtype("i1")
LISTED_BYTES = 64
"""What an entry of a table takes as one of Python's objects, about."""
BOOLEANS = (False, True)
"""The one set of values that stays in the header."""


class BlockModel(Protocol):
    """What an archive asks of a model; `vae.codec.integer.IntegerModel` is one."""

    @property
    def columns(self) -> list[str]:
        """Coded columns, in coding order."""
        ...

    @property
    def latents(self) -> int:
        """Latents of a row's code."""
        ...

    @property
    def version(self) -> int:
        """The oldest version of the format that knows such a model."""
        ...

    def to_bytes(self) -> bytes:
        """The model as stored."""
        ...

    def encode_block(self, symbols: Ints, states: States, codes: Codes) -> list[bytes]:
        """The streams of a block: the codes', then one a column."""
        ...

    def decode_block(
        self, streams: list[bytes], rows: int, upto: int | None = None, until: int | None = None
    ) -> tuple[Ints, States, Codes]:
        """The inverse, for the first `upto` columns and the first `until` rows."""
        ...


def _piece(data: bytes) -> bytes:
    return put_varint(len(data)) + data


def pack_nudges(coded: Coded, *, quick: bool = False) -> bytes:
    """The nudges of a group, before what else its stream holds; nothing where the scale knows none."""
    return b"" if coded.nudges is None else _piece(pack_numbers(coded.nudges.astype(_NUDGE), quick=quick))


def split_nudges(data: bytes, grid: ColumnGrid | None, count: int) -> tuple[Ints | None, bytes]:
    """The nudges of a group of `count` rows, if its scale knows any, and the rest of the stream."""
    if grid is None or grid.scale not in NUDGED:
        return None, data
    cursor = Cursor(data)
    nudges = unpack_numbers(cursor.take(cursor.varint()), count, _NUDGE, Budget(len(data)))
    return nudges.astype(np.int64), bytes(cursor.rest())


def pack_cells(coded: Coded, *, quick: bool = False) -> bytes:
    """The cells of a column; without the slowest coders if `quick`."""
    values = coded.symbols[coded.state == State.VALUE].ravel().astype(np.int64)
    cells = _piece(pack_numbers(coded.state, quick=quick)) + _piece(pack_numbers(values, quick=quick))
    return cells + (pack(coded.escapes, quick=quick) if len(coded.escapes) else b"")


def unpack_cells(data: bytes | memoryview, grid: ColumnGrid, kind: pa.DataType, count: int) -> Coded:
    """The inverse of `pack_cells`; DamagedError if a symbol is not on the grid."""
    cursor = Cursor(data)
    budget = Budget(len(cursor.data))
    states = unpack_numbers(cursor.take(cursor.varint()), count, _BYTE, budget)
    valued = states == State.VALUE
    symbols = np.zeros((count, *_image_axes(grid)), np.int64)
    number = int(valued.sum()) * grid.values_of_image
    found = unpack_numbers(cursor.take(cursor.varint()), number, _LONG, budget)
    symbols[valued] = found.reshape(-1, *_image_axes(grid))
    check_cells(grid, Cells(symbols, states))
    number = int((states == State.ESCAPE).sum())
    if not number and cursor.left:
        raise DamagedError("bytes are left over")
    escapes = unpack(cursor.rest(), kind, number) if number else no_values(kind)
    return Coded(symbols, states, escapes)


def _image_axes(grid: ColumnGrid) -> tuple[int, ...]:
    """Of images, the values of each; of other columns, nothing."""
    return (grid.values_of_image,) if grid.shape else ()


def no_values(kind: pa.DataType) -> pa.Array:
    """An empty array."""
    return cast(pa.Array, pa.array([], kind))


def check_cells(grid: ColumnGrid, cells: Cells) -> None:
    """DamagedError if a state is unknown or a symbol is outside the grid."""
    if len(cells.states) and int(cells.states.max()) > State.ESCAPE:
        raise DamagedError("a state is unknown")
    outside = (cells.symbols < grid.low) | (cells.symbols > grid.high)
    outside = outside.any(1) if grid.shape else outside
    if (outside & (cells.states == State.VALUE)).any():
        raise DamagedError("a symbol is outside its grid")


def decode_cells(
    grid: ColumnGrid, coded: Coded, kind: pa.DataType, sources: Sequence[pa.Array] = ()
) -> pa.Array:
    """The values of a column; DamagedError if its grid or its states are not those of its type."""
    if (coded.state == State.NAN).any() and not pa.types.is_floating(kind):
        raise DamagedError("a NaN among values that are no floats")
    try:
        array = grid.decode(*coded, sources)
        array = cast(Any, array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
    except (
        pa.ArrowException,
        ValueError,
        TypeError,
        LookupError,
        OverflowError,
        NotImplementedError,
    ) as error:
        raise DamagedError(f"its grid does not fit it: {' '.join(str(error).split())[:200]}") from error
    if array.type != kind or len(array) != len(coded.symbols):
        raise DamagedError("its grid does not fit its type")
    return array


def decoded_bytes(grid: ColumnGrid, coded: Coded) -> int:
    """Bytes of the values that `decode_cells` gives, about; of names as many as they have."""
    rows = len(coded.symbols)
    if grid.scale != "names" or grid.values == BOOLEANS:
        return 8 * rows
    lengths = pc.binary_length(pa.array(grid.values, pa.string())).to_numpy()
    return 8 * rows + int(lengths[np.clip(coded.symbols, 0, len(lengths) - 1)].sum(dtype=np.int64))


def undress(array: pa.Array) -> pa.Array:
    """What a grid codes of a column: of a dictionary array its values."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def dress(plain: pa.Array, kind: pa.DataType, dictionary: pa.Array | None) -> pa.Array:
    """The inverse of `undress`."""
    if dictionary is None or not isinstance(kind, pa.DictionaryType):
        return plain
    indices = pc.index_in(plain, value_set=dictionary, skip_nulls=dictionary.null_count == 0)
    if indices.null_count > plain.null_count:
        raise DamagedError("a value is not in its dictionary")
    return pa.DictionaryArray.from_arrays(indices.cast(kind.index_type), dictionary, ordered=kind.ordered)


def pack_exceptions(actual: Coded, predicted: Cells) -> bytes:
    """Where a function is wrong, and what is there instead."""
    wrong = (actual.state != predicted.states) | (actual.state == State.ESCAPE)
    wrong |= (actual.state == State.VALUE) & (actual.symbols != predicted.symbols)
    rows = np.flatnonzero(wrong)
    if not len(rows):
        return b""
    gaps = np.diff(rows, prepend=-1)
    cells = Coded(actual.symbols[rows], actual.state[rows], actual.escapes)
    return put_varint(len(rows)) + _piece(pack_numbers(gaps.astype(np.int64))) + pack_cells(cells)


def unpack_exceptions(data: bytes, grid: ColumnGrid, kind: pa.DataType, count: int) -> tuple[Ints, Coded]:
    """Rows and cells of the exceptions among `count` rows."""
    if not data:
        return np.zeros(0, np.int64), Coded(np.zeros(0, np.int64), np.zeros(0, np.uint8), no_values(kind))
    cursor = Cursor(data)
    number = cursor.varint()
    if not 1 <= number <= count:
        raise DamagedError(f"{number} exceptions among {count} rows")
    gaps = unpack_numbers(cursor.take(cursor.varint()), number, _LONG, Budget(len(data)))
    if not 1 <= int(gaps.min()) <= int(gaps.max()) <= count:
        raise DamagedError("the rows of exceptions do not rise")
    rows = np.cumsum(gaps) - 1
    if int(rows[-1]) >= count:
        raise DamagedError("an exception is outside its group")
    return rows, unpack_cells(cursor.rest(), grid, kind, number)


def pack_escapes(counts: Sequence[int], escapes: pa.Array) -> bytes:
    """The escapes of a neural column, with their number a block."""
    if not len(escapes):
        return b""
    return b"".join(put_varint(count) for count in counts) + pack(escapes)


def unpack_escapes(data: bytes, kind: pa.DataType, blocks: int) -> tuple[Ints, pa.Array]:
    """Numbers a block, and all escapes of a group."""
    if not data:
        return np.zeros(blocks, np.int64), no_values(kind)
    cursor = Cursor(data)
    counts = [cursor.varint() for _ in range(blocks)]
    if not 1 <= sum(counts) <= len(data) << 20:
        raise DamagedError(f"{sum(counts)} escapes announced, which {len(data)} bytes do not justify")
    return np.array(counts, np.int64), unpack(cursor.rest(), kind, sum(counts))


def pack_states(states: States) -> bytes:
    """Which of a group's images are null; nothing if none is."""
    return pack_numbers(states) if states.any() else b""


def unpack_states(data: bytes, count: int) -> States:
    """The inverse of `pack_states`, of so many images."""
    states = unpack_numbers(data, count, _BYTE, Budget(len(data))) if data else np.zeros(count, np.uint8)
    if (states > State.NULL).any():
        raise DamagedError("a state is not one of images")
    return states


def window(coded: Coded, start: int, stop: int) -> Coded:
    """Rows `start` to `stop` of a column."""
    before = int((coded.state[:start] == State.ESCAPE).sum())
    inside = int((coded.state[start:stop] == State.ESCAPE).sum())
    escapes = coded.escapes.slice(before, inside)
    nudges = None if coded.nudges is None else coded.nudges[start:stop]
    return Coded(coded.symbols[start:stop], coded.state[start:stop], escapes, nudges)


# -------------------------------------------------------------------------------------------------------- tables


def grid_version(grid: ColumnGrid) -> int:
    """The oldest version of the format that knows such a grid."""
    return 7 if grid.shape else 6 if grid.scale in NUDGED else 4 if grid.parts else 1


def has_table(grid: ColumnGrid | None) -> bool:
    """Whether the values of a grid are in the tables."""
    return grid is not None and bool(grid.values) and grid.values != BOOLEANS


def pack_tables(
    grids: Sequence[ColumnGrid | None],
    derived: Sequence[Derived | None],
    dictionaries: Sequence[pa.Array | None],
) -> tuple[bytes, list[int]]:
    """The tables of all columns, and the bytes of each column's."""
    parts, sizes = list[bytes](), [0] * len(grids)

    def add(place: int, count: int, *pieces: bytes) -> None:
        parts.append(put_varint(count) + b"".join(_piece(piece) for piece in pieces))
        sizes[place] += len(parts[-1])

    for place, grid in enumerate(grids):
        if grid is not None and has_table(grid):
            add(place, len(grid.values), _pack_values(grid))
    for place, function in enumerate(derived):
        if function is not None:
            states = pack_numbers(np.array(function.states, np.uint8))
            add(place, len(function.table), pack_numbers(np.array(function.table, np.int64)), states)
    for place, dictionary in enumerate(dictionaries):
        if dictionary is not None:
            add(place, len(dictionary), pack(dictionary))
    return b"".join(parts), sizes


def _pack_values(grid: ColumnGrid) -> bytes:
    if grid.kind == "category":
        return pack(pa.array(grid.values, pa.string()))
    if grid.parts:
        return pack_numbers(np.diff(numerators(np.array(grid.values), grid.parts), prepend=0))
    return pack(pa.array(grid.values, pa.float64()))


def _unpack_values(data: memoryview, count: int, plain: dict[str, Any]) -> list[Any]:
    if not 0 < count <= MAX_SPAN:
        raise DamagedError(f"{count} values of a grid announced; at most {MAX_SPAN} are admitted")
    Budget(len(data)).spend(count, LISTED_BYTES)
    if plain.get("kind") == "category":
        return unpack(data, pa.string(), count).to_pylist()
    if not plain.get("parts"):
        return unpack(data, pa.float64(), count).to_pylist()
    gaps = unpack_numbers(data, count, _LONG, Budget(len(data)))
    if gaps.min(initial=0) < -MAX_SPAN or gaps.max(initial=0) > MAX_SPAN:
        raise DamagedError("a gap between fractions is too wide")
    grid = ColumnGrid.model_validate({**plain, "values": ()})
    return fractions(np.cumsum(gaps), grid.parts, grid.digits).tolist()


class Filled(NamedTuple):
    """What the header and the tables say of each column."""

    grids: list[ColumnGrid | None]
    derived: list[Derived | None]
    dictionaries: list[pa.Array | None]
    sizes: list[int]
    """Bytes of the tables that are its own."""


def unpack_tables(data: bytes, columns: Sequence[ColumnCoding], kinds: Sequence[pa.DataType]) -> Filled:
    """Grids, functions and dictionaries, whole again; ValueError or DamagedError if they cannot be."""
    cursor, at, sizes = Cursor(data), 0, [0] * len(columns)

    def counted(place: int, table: T) -> T:
        nonlocal at
        sizes[place] += cursor.at - at
        at = cursor.at
        return table

    grids = [
        None if column.grid is None else counted(place, _fill_grid(cursor, column.grid))
        for place, column in enumerate(columns)
    ]
    derived = [
        None if column.derived is None else counted(place, _fill_derived(cursor, column.derived))
        for place, column in enumerate(columns)
    ]
    dictionaries: list[pa.Array | None] = [None] * len(columns)
    for place, kind in enumerate(kinds):
        if grids[place] is not None and isinstance(kind, pa.DictionaryType):
            count = cursor.varint()
            table = unpack(cursor.take(cursor.varint()), kind.value_type, count)
            dictionaries[place] = counted(place, table)
    if cursor.left:
        raise DamagedError("bytes are left over")
    return Filled(grids, derived, dictionaries, sizes)


def _fill_grid(cursor: Cursor, plain: dict[str, Any]) -> ColumnGrid:
    if plain.get("values") == []:
        count = cursor.varint()
        plain = {**plain, "values": _unpack_values(cursor.take(cursor.varint()), count, plain)}
    grid = ColumnGrid.model_validate(plain)
    listed = grid.scale in ("names", "ranks")
    named = (grid.kind == "category") == (grid.scale == "names")
    filled = bool(grid.values) == listed and ("values" in plain) == listed
    if grid.parts and grid.scale != "ranks":
        raise ValueError(f"column {grid.name!r}: fractions that are no ranks")
    if (grid.point and grid.scale != "lattice") or bool(grid.sources) != (grid.scale in SUMS):
        raise ValueError(f"column {grid.name!r}: a {grid.scale} with a binary point or sources")
    if grid.kind == "opaque" or grid.scale == "none" or not named or not filled:
        raise ValueError(f"column {grid.name!r} has no grid")
    if not 0 <= grid.high - grid.low < 1 << 21 or (
        listed and (grid.low, grid.high) != (0, len(grid.values) - 1)
    ):
        raise ValueError(f"column {grid.name!r}: a grid from {grid.low} to {grid.high}")
    return grid


def _fill_derived(cursor: Cursor, plain: dict[str, Any]) -> Derived:
    if {"table", "states"} & set(plain):
        raise ValueError("the table of a derived column is in its header")
    count = cursor.varint()
    if count > MAX_TABLE:
        raise DamagedError(f"a table of {count} entries announced; at most {MAX_TABLE} are admitted")
    budget = Budget(cursor.left)
    budget.spend(count, LISTED_BYTES)
    entries = unpack_numbers(cursor.take(cursor.varint()), count, _LONG, budget)
    packed = cursor.take(cursor.varint())
    states = unpack_numbers(packed, count, _BYTE, budget) if len(packed) else np.zeros(0, np.uint8)
    return Derived.model_validate({**plain, "table": entries.tolist(), "states": states.tolist()})


def strip_grid(grid: ColumnGrid) -> dict[str, Any]:
    """A grid as the header holds it: its values are in the tables."""
    plain = grid.model_dump(mode="json", exclude_defaults=True)
    return {**plain, "values": []} if has_table(grid) else plain


def strip_derived(function: Derived) -> dict[str, Any]:
    """A function as the header holds it: its table is in the tables."""
    return function.model_dump(mode="json", exclude_defaults=True, exclude={"table", "states"})
