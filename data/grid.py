"""Columns as integer symbols, inside their error bounds, and back.

A column that the model can code becomes a pair of arrays: `symbols` (int64) and `state` (uint8), which says
whether the row holds a value of the grid at all. What the grid cannot give back exactly, or within the bound, is an
*escape*: the original value is kept verbatim beside the grid. Restoring uses one multiplication and one addition in
float64, or one division by a power of ten, so that every machine restores the same bits (IEEE 754).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc
from pydantic import BaseModel, ConfigDict

from data.errors import BoundError

pc = cast(Any, _pc)
Ints = npt.NDArray[np.int64]
States = npt.NDArray[np.uint8]

MAX_SPAN = 1 << 20
"""Largest number of symbols of a numeric column: the entropy coder gives each at least 2**-28."""
MAX_CATEGORIES = 20_000
"""Largest number of distinct strings kept as categories."""
MAX_RANKS = 4_096
"""Largest number of distinct floats kept as ranks of a table."""
MAX_DECIMALS = 9


class State(IntEnum):
    """What a cell holds."""

    VALUE = 0
    NULL = 1
    NAN = 2
    ESCAPE = 3


class Coded(NamedTuple):
    """A column on its grid; `symbols` are 0 where `state` is not VALUE; `escapes` in row order."""

    symbols: Ints
    state: States
    escapes: pa.Array


class ColumnGrid(BaseModel):
    """How one column maps to symbols.

    `scale` names the map from a symbol k to a value: `step` is `offset + step * k` on integers (timestamps and
    dates by their stored integers), `clock` is HHMM with k in minutes, `decimal` is `k / 10**digits`, `uniform` is
    `offset + step * k` in float64, `ranks` is `values[k]` of a sorted table, `names` is `values[k]` of a category.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["number", "category", "opaque"]
    scale: Literal["step", "clock", "decimal", "uniform", "ranks", "names", "none"] = "none"
    low: int = 0
    high: int = 0
    offset: float | int = 0
    step: float | int = 1
    digits: int = 0
    bound: float = 0.0
    values: tuple[Any, ...] = ()

    def encode(self, array: pa.Array | pa.ChunkedArray) -> Coded:
        """Symbols and states of `array`; whatever does not come back within the bound becomes an escape."""
        whole = cast(pa.Array, array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
        if self.kind == "category":
            symbols, state = self._find_names(whole)
        elif self.kind == "number":
            symbols, state = self._find_numbers(whole)
        else:
            raise ValueError(f"column {self.name!r} has no grid")
        symbols[state != State.VALUE] = 0
        return Coded(symbols, state, cast(pa.Array, cast(Any, whole).filter(pa.array(state == State.ESCAPE))))

    def decode(self, symbols: Ints, state: States, escapes: pa.Array) -> pa.Array:
        """The column back; its Arrow type is that of `escapes`.

        >>> grid = ColumnGrid(name="t", kind="number", scale="clock", low=0, high=1440)
        >>> coded = grid.encode(pa.array([5, 2359, None, 1300]))
        >>> coded.symbols.tolist(), coded.state.tolist()
        ([5, 1439, 0, 780], [0, 0, 1, 0])
        >>> grid.decode(*coded).to_pylist()
        [5, 2359, None, 1300]
        """
        kind = escapes.type
        if self.kind == "category":
            restored = self._names(kind, symbols, state)
        else:
            restored = self._numbers(kind, symbols, state)
        if len(escapes):
            restored = pc.replace_with_mask(restored, pa.array(state == State.ESCAPE), escapes)
        return restored

    def _find_names(self, array: pa.Array) -> tuple[Ints, States]:
        plain = _plain(array)
        found = pc.index_in(plain, value_set=pa.array(self.values, plain.type))
        symbols = pc.fill_null(found, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        missing = pc.is_null(plain).to_numpy(zero_copy_only=False)
        unknown = pc.is_null(found).to_numpy(zero_copy_only=False) & ~missing
        return symbols, _states(missing, None, unknown)

    def _names(self, kind: pa.DataType, symbols: Ints, state: States) -> pa.Array:
        plain = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
        names = pa.array(self.values, plain)
        indices = pa.array(symbols, mask=state != State.VALUE)
        out = cast(Any, names).take(indices)
        return pc.cast(out, kind) if isinstance(kind, pa.DictionaryType) else out

    def _find_numbers(self, array: pa.Array) -> tuple[Ints, States]:
        numbers, missing = stored_numbers(array)
        if numbers.dtype.kind == "f":
            finite = np.isfinite(numbers)
            nan = np.isnan(numbers) & ~missing
            symbols = self._float_symbols(np.where(finite & ~missing, numbers, 0.0))
        else:
            finite, nan = np.ones(len(numbers), bool), None
            symbols = self._integer_symbols(numbers)
        inside = finite & (symbols >= self.low) & (symbols <= self.high)
        symbols = np.where(inside, symbols, np.int64(self.low))
        restored = self._restore(symbols, numbers.dtype)
        wrong = ~inside | _offenders(numbers, restored, self.bound)
        return symbols, _states(missing, nan, wrong)

    def _integer_symbols(self, numbers: npt.NDArray[Any]) -> Ints:
        if self.scale == "clock":
            ok = (numbers >= 0) & (numbers <= 2400) & (numbers % 100 < 60)
            return np.where(ok, numbers // 100 * 60 + numbers % 100, -1).astype(np.int64)
        offset, step = int(self.offset), int(self.step)
        # the range test comes first: a difference of far values would wrap
        low, high = offset + step * self.low, offset + step * self.high + step - 1
        near = (numbers >= low) & (numbers <= high)
        shifted = np.where(near, numbers, offset).astype(np.int64) - offset
        return np.where(near, (shifted + step // 2) // step, self.low - 1)

    def _float_symbols(self, numbers: npt.NDArray[Any]) -> Ints:
        wide = numbers.astype(np.float64)
        if self.scale == "ranks":
            table = np.array(self.values, np.float64)
            return np.minimum(np.searchsorted(table, wide), len(table) - 1).astype(np.int64)
        if self.scale == "decimal":
            scaled = wide * float(10**self.digits)
        else:
            scaled = (wide - float(self.offset)) / float(self.step)
        near = np.abs(scaled) < 2.0**52
        return np.where(near, np.rint(np.where(near, scaled, 0.0)), self.low - 1.0).astype(np.int64)

    def _restore(self, symbols: Ints, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        if self.scale == "clock":
            return (symbols // 60 * 100 + symbols % 60).astype(dtype)
        if self.scale == "step":
            return (symbols * int(self.step) + int(self.offset)).astype(dtype)
        if self.scale == "ranks":
            return np.array(self.values, np.float64)[symbols].astype(dtype)
        if self.scale == "decimal":
            return (symbols / float(10**self.digits)).astype(dtype)
        product = symbols * float(self.step)
        return (product + float(self.offset)).astype(dtype)

    def _numbers(self, kind: pa.DataType, symbols: Ints, state: States) -> pa.Array:
        dtype = _storage(kind)
        inside = np.where(state == State.VALUE, symbols, self.low)
        values = self._restore(inside, dtype)
        if dtype.kind == "f":
            values = np.where(state == State.NAN, dtype.type(np.nan), values)
        missing = (state == State.NULL) | (state == State.ESCAPE)
        return _from_storage(values, missing, kind)


class TableGrid(BaseModel):
    """The grids of all columns of a table, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[ColumnGrid, ...]

    @classmethod
    def fit(cls, table: pa.Table, bounds: Mapping[str, float] | None = None) -> TableGrid:
        """A grid for each column; `bounds` are absolute widths, 0 or absent is exact."""
        bounds = dict(bounds or {})
        unknown = set(bounds) - set(table.column_names)
        if unknown:
            raise BoundError(f"bound for unknown column {sorted(unknown)[0]!r}; columns: {table.column_names}")
        pairs = zip(table.column_names, table.columns, strict=True)
        return cls(columns=tuple(fit_column(name, column, bounds.get(name, 0.0)) for name, column in pairs))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary without defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_json(cls, data: Any) -> TableGrid:
        """The inverse of `to_json`."""
        return cls.model_validate(data)

    def __getitem__(self, name: str) -> ColumnGrid:
        return next(c for c in self.columns if c.name == name)


def fit_column(name: str, column: pa.ChunkedArray, bound: float) -> ColumnGrid:
    """The grid of one column: of `bound` if it is above 0, else an exact one; opaque where none fits."""
    kind = column.type
    array = cast(pa.Array, column.combine_chunks())
    if isinstance(kind, pa.DictionaryType):
        kind, array = kind.value_type, _plain(array)
    opaque = ColumnGrid(name=name, kind="opaque")
    if pa.types.is_boolean(kind):
        return ColumnGrid(name=name, kind="category", scale="names", high=1, values=(False, True))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _fit_names(name, array) or opaque
    if isinstance(column.type, pa.DictionaryType) or not is_numeric(kind):
        return opaque
    numbers, missing = stored_numbers(array)
    present = numbers[~missing]
    if numbers.dtype.kind == "f":
        return _fit_floats(name, present[np.isfinite(present)].astype(np.float64), bound) or opaque
    return _fit_integers(name, present, bound, clock=pa.types.is_integer(kind)) or opaque


def _fit_names(name: str, array: pa.Array) -> ColumnGrid | None:
    distinct = pc.drop_null(pc.unique(array))
    if len(distinct) == 0 or len(distinct) > min(MAX_CATEGORIES, max(64, len(array) // 4)):
        return None
    values = tuple(sorted(distinct.to_pylist()))
    return ColumnGrid(name=name, kind="category", scale="names", high=len(values) - 1, values=values)


def _fit_integers(name: str, values: npt.NDArray[Any], bound: float, *, clock: bool) -> ColumnGrid | None:
    if len(values) == 0:
        return None
    low, high = int(values.min()), int(values.max())
    if high >= 2**62 or low <= -(2**62):
        return None
    if bound == 0 and clock and _is_clock(values, low, high):
        return ColumnGrid(name=name, kind="number", scale="clock", low=0, high=1440)
    if bound > 0:
        step = 2 * int(bound) + 1
    else:
        step = int(np.gcd.reduce(values.astype(np.int64) - low)) or 1
    top = (high - low + step // 2) // step
    if top >= MAX_SPAN:
        return None
    if bound == 0 and step == 1 and abs(low) < MAX_SPAN and abs(high) < MAX_SPAN:
        return ColumnGrid(name=name, kind="number", scale="step", low=low, high=high)
    return ColumnGrid(
        name=name, kind="number", scale="step", low=0, high=top, offset=low, step=step, bound=float(int(bound))
    )


def _is_clock(values: npt.NDArray[Any], low: int, high: int) -> bool:
    """HHMM times: none with 60 minutes or more, and enough of them for that to be no accident."""
    return bool(low >= 0 and 1200 <= high <= 2400 and (values % 100 < 60).all() and len(np.unique(values)) > 100)


def _fit_floats(name: str, values: npt.NDArray[np.float64], bound: float) -> ColumnGrid | None:
    if len(values) == 0:
        return None
    low, high = float(values.min()), float(values.max())
    if bound > 0:
        step = 2.0 * bound
        if not np.isfinite(step) or (high - low) / step >= MAX_SPAN:
            return None
        top = int(np.rint((high - low) / step))
        return ColumnGrid(name=name, kind="number", scale="uniform", high=top, offset=low, step=step, bound=bound)
    digits = _decimals(values)
    if digits is not None:
        symbols = np.rint(values * float(10**digits))
        low_k, high_k = int(symbols.min()), int(symbols.max())
        if high_k - low_k < MAX_SPAN and max(abs(low_k), abs(high_k)) < 2**31:
            return ColumnGrid(name=name, kind="number", scale="decimal", low=low_k, high=high_k, digits=digits)
    table = np.unique(values)
    if len(table) <= min(MAX_RANKS, max(16, len(values) // 8)):
        ranks = tuple(float(v) + 0.0 for v in table)
        return ColumnGrid(name=name, kind="number", scale="ranks", high=len(ranks) - 1, values=ranks)
    return None


def _decimals(values: npt.NDArray[np.float64]) -> int | None:
    """The fewest decimals that give nearly all values back exactly (the rest become escapes), or None."""
    sample = values if len(values) <= 10_000 else values[:: len(values) // 10_000]
    for digits in range(MAX_DECIMALS + 1):
        for part in (sample, values):
            scaled = np.rint(part * float(10**digits))
            if np.mean(scaled / float(10**digits) == part) < 0.999:
                break
        else:
            return digits
    return None


def is_numeric(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type are numbers in numpy's sense, times and dates included."""
    t = cast(Any, pa.types)
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_temporal(kind)) and not t.is_interval(kind)


def _storage(kind: pa.DataType) -> np.dtype[Any]:
    if pa.types.is_temporal(kind):
        return np.dtype(np.int32 if kind.bit_width == 32 else np.int64)
    return np.dtype(cast(Any, kind).to_pandas_dtype())


def stored_numbers(array: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The numbers behind a numeric Arrow array, 0 where null, and which are null."""
    missing = pc.is_null(array).to_numpy(zero_copy_only=False)
    if pa.types.is_temporal(array.type):
        array = cast(Any, array).view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    zero = pa.scalar(0, pa.int64()).cast(array.type) if not pa.types.is_floating(array.type) else pa.scalar(0.0, array.type)
    return pc.fill_null(array, zero).to_numpy(zero_copy_only=False), missing


def _from_storage(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    plain = pa.array(values, mask=missing)
    return cast(pa.Array, cast(Any, plain).view(kind) if pa.types.is_temporal(kind) else plain.cast(kind))


def _plain(array: pa.Array) -> pa.Array:
    """A dictionary-encoded array as its values."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _offenders(values: npt.NDArray[Any], restored: npt.NDArray[Any], bound: float) -> npt.NDArray[np.bool_]:
    """What the grid does not give back within `bound`: bit patterns if exact, or -0.0 would pass for 0.0."""
    if bound > 0:
        if values.dtype.kind == "f":
            return ~(np.abs(values.astype(np.float64) - restored.astype(np.float64)) <= bound)
        # unsigned differences wrap, so subtract the smaller from the larger
        gap = np.where(values > restored, values - restored, restored - values)
        return gap > int(bound)
    if values.dtype.kind == "f":
        bits = np.dtype(f"u{values.dtype.itemsize}")
        return values.view(bits) != restored.view(bits)
    return values != restored


def _states(
    missing: npt.NDArray[np.bool_], nan: npt.NDArray[np.bool_] | None, escape: npt.NDArray[np.bool_]
) -> States:
    state = np.where(escape, np.uint8(State.ESCAPE), np.uint8(State.VALUE))
    if nan is not None:
        state[nan] = State.NAN
    state[missing] = State.NULL
    return state
