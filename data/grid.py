"""Columns as integer symbols, inside their error bounds, and back.

A column that the model can code becomes a pair of arrays: `symbols` (int64) and `state` (uint8), which says
whether the row holds a value of the grid at all. What the grid cannot give back exactly, or within the bound, is an
*escape*: the original value is kept verbatim beside the grid. Restoring uses integers and single operations of
float64, a multiplication and an addition or a division by a power of ten, so that every machine restores the same bits
(IEEE 754).

Exact means equal bit patterns: -0.0 beside 0.0 is an escape, and so is a NaN other than `QUIET_NAN`. Within a bound
means |x - restored| <= bound in real arithmetic, of what is restored in the column's own type; there a NaN is a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.errors import DamagedError
from data.fractions import MAX_PARTS
from data.imagegrid import MAX_PIXELS, image_symbols, image_values, levels_within
from data.lattice import (
    MAX_DIGITS,
    MAX_HALVES,
    MAX_OFFSET,
    MAX_POINT,
    MAX_STEP,
    MIN_DIGITS,
    Lattice,
    halves,
    lattice_halves,
    lattice_symbols,
    moved,
    nudges_to,
    places_to,
    rounded,
)
from data.stored import (
    QUIET_NAN,
    Mask,
    Numbers,
    bit_patterns,
    dictionary_array,
    from_stored,
    offenders,
    one_array,
    plain_array,
    storage_type,
    stored_numbers,
)
from data.textgrid import MAX_LENGTH, text_symbols, text_values

pc = cast(Any, _pc)
Ints = npt.NDArray[np.int64]
States = npt.NDArray[np.uint8]

MAX_SPAN = 1 << 20
"""Largest number of symbols of a numeric column: the entropy coder gives each at least 2**-28."""
MAX_SYMBOL = (1 << 31) - (1 << 22)
"""Largest magnitude of a symbol: a few spans further still fit 32 bits."""
MAX_STORED = 1 << 62
"""Integers at least this large are left to other coders."""
MAX_RANGE = 1 << 60
"""Largest difference of integers on a grid, and its largest step: no sum on the way leaves 63 bits."""
MAX_DECIMALS = 9
MAX_SIDE = 1 << 14
"""Largest height and width of an image."""
SUMS = ("sum", "difference")
"""Scales whose values are made of those of two other columns."""
NUDGED = ("lattice", *SUMS)
"""Scales whose values a cell's nudge moves: by so many of the last of 15 digits, or of a float's last places."""


class State(IntEnum):
    """What a cell holds."""

    VALUE = 0
    NULL = 1
    NAN = 2
    ESCAPE = 3


class Coded(NamedTuple):
    """A column on its grid; `symbols` are 0 where `state` is not VALUE; `escapes` in row order.

    `nudges` are what to add to the last digit or place of each value; None where the scale knows none.
    """

    symbols: Ints
    state: States
    escapes: pa.Array
    nudges: Ints | None = None


class ColumnGrid(BaseModel):
    """How one column maps to symbols.

    `scale` names the map from a symbol k to a value: `step` is `offset + step * k` on integers (timestamps and
    dates by their stored integers), `clock` is HHMM with k in minutes, `decimal` is `k / 10**digits`, `uniform` is
    `offset + step * k` in float64, `ranks` is `values[k]` of a sorted table, `names` is `values[k]` of a category,
    `lattice` is `offset + step * k` in integers, rounded to 15 digits (`data.lattice`). Symbols are `low` .. `high`;
    `bound` is absolute, in the stored unit. `values` may be kept elsewhere and put back. `sum` and `difference` are of
    the values of two other columns, `sources`, rounded likewise or, if `digits` is 0, as float64 does it; their one
    symbol is 0. Images are grey levels `step * k`, at most 255, of all their values. Texts are their first `length`
    bytes, for a model that rebuilds no more than their gist; archives know no such grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["number", "category", "image", "text", "opaque"]
    scale: Literal[
        "step", "clock", "decimal", "uniform", "ranks", "names", "lattice", "sum", "difference", "none"
    ] = "none"
    low: int = Field(default=0, ge=-MAX_SYMBOL, le=MAX_SYMBOL)
    high: int = Field(default=0, ge=-MAX_SYMBOL, le=MAX_SYMBOL)
    offset: float | int = Field(default=0, allow_inf_nan=False)
    step: float | int = Field(default=1, gt=0, allow_inf_nan=False)
    digits: int = Field(default=0, ge=0, le=MAX_DIGITS)
    point: int = Field(default=0, ge=0, le=MAX_POINT)
    """Bits of `offset` and `step` after the binary point; of `lattice`."""
    bound: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    values: tuple[Any, ...] = ()
    parts: int = Field(default=0, ge=0, le=MAX_PARTS)
    """Of ranks: if not 0, all values are multiples of 1 / parts rounded to `digits` decimals; for who stores them."""
    sources: tuple[str, ...] = ()
    shape: tuple[int, ...] = Field(default=(), max_length=3)
    """Of images: height, width and channels; their symbols are (rows, values), in uint8."""
    length: int = Field(default=0, ge=0, le=MAX_LENGTH)
    """Of texts: bytes that are read of each."""
    one_hot: bool = False
    """Whether this is no column of the table but a group of its columns, by name in `values` (`data.onehot`)."""

    @model_validator(mode="after")
    def _check(self) -> ColumnGrid:
        """What a file says may be anything: nothing that follows may overflow or run out of a table."""
        if not 0 <= self.high - self.low < MAX_SPAN:
            raise ValueError(f"column {self.name!r}: symbols {self.low} .. {self.high}")
        if self.scale == "step":
            whole = isinstance(self.offset, int) and isinstance(self.step, int)
            farthest = self.step * max(1, abs(self.low), abs(self.high))
            if not whole or abs(self.offset) >= MAX_STORED or farthest > 2 * MAX_RANGE:
                raise ValueError(f"column {self.name!r}: steps of {self.step} from {self.offset}")
        if self.digits > MAX_DECIMALS and self.scale not in NUDGED:
            raise ValueError(f"column {self.name!r}: {self.digits} decimals")
        if self.scale in NUDGED:
            self._check_nudged()
        if (self.kind == "image") != bool(self.shape):
            raise ValueError(f"column {self.name!r}: images without a shape, or a shape without images")
        if self.shape:
            self._check_image()
        if (self.kind == "text") != bool(self.length) or (self.length and self.scale != "none"):
            raise ValueError(f"column {self.name!r}: texts without a length, or a length without texts")
        if self.values and (self.low, self.high) != (0, len(self.values) - 1):
            raise ValueError(f"column {self.name!r}: {len(self.values)} values for another range of symbols")
        return self

    def _check_image(self) -> None:
        fits = (
            len(self.shape) == 3
            and min(self.shape) >= 1
            and max(self.shape) <= MAX_SIDE
            and self.shape[2] <= 4
        )
        if not fits or self.values_of_image > MAX_PIXELS:
            raise ValueError(f"column {self.name!r}: images of {self.shape}")
        if self.scale != "step" or (self.high + 1, self.step) != levels_within((int(self.step) - 1) // 2):
            raise ValueError(
                f"column {self.name!r}: images of {self.high + 1} levels in steps of {self.step}"
            )
        if self.low or self.offset or self.one_hot or self.bound > self.step // 2:
            raise ValueError(f"column {self.name!r}: images from {self.low}")

    @property
    def values_of_image(self) -> int:
        """Values of an image; 1 of other columns."""
        return math.prod(self.shape)

    def _check_nudged(self) -> None:
        """Of `data.lattice`: no sum on the way leaves 63 bits."""
        if self.digits < MIN_DIGITS and (self.digits or self.scale == "lattice"):
            raise ValueError(f"column {self.name!r}: 15 digits of which only {self.digits} are decimals")
        if self.scale != "lattice":
            if len(self.sources) != 2 or (self.low, self.high) != (0, 0):
                raise ValueError(f"column {self.name!r}: a {self.scale} of {len(self.sources)} columns")
            return
        whole = isinstance(self.offset, int) and isinstance(self.step, int)
        farthest = (int(self.step) >> self.point) * max(1, abs(self.low), abs(self.high))
        if not whole or self.step >= MAX_STEP or abs(self.offset) > MAX_OFFSET or farthest > MAX_HALVES:
            raise ValueError(f"column {self.name!r}: a lattice of {self.step} from {self.offset}")

    def encode(
        self, array: pa.Array | pa.ChunkedArray, sources: Sequence[pa.Array | pa.ChunkedArray] = ()
    ) -> Coded:
        """Symbols and states of `array`; whatever does not come back within the bound becomes an escape.

        `sources` are the columns that this one is the sum or difference of.
        """
        whole = one_array(array)
        if self.kind == "image":
            images, missing = image_symbols(whole, self.values_of_image, int(self.step), self.high + 1)
            return Coded(
                cast(Ints, images), _states(missing, None, np.zeros_like(missing)), pa.array([], whole.type)
            )
        if self.kind == "text":
            texts, missing = text_symbols(whole, self.length)
            states = _states(missing, None, np.zeros_like(missing))
            return Coded(cast(Ints, texts), states, pa.array([], whole.type))
        nudges = None
        if self.kind == "category":
            symbols, state = self._find_names(whole)
        elif self.kind == "number":
            symbols, state, nudges = self._find_numbers(whole, sources)
        else:
            raise ValueError(f"column {self.name!r} has no grid")
        symbols[state != State.VALUE] = 0
        escapes = cast(pa.Array, cast(Any, whole).filter(pa.array(state == State.ESCAPE)))
        return Coded(symbols, state, escapes, nudges)

    def decode(
        self,
        symbols: Ints,
        state: States,
        escapes: pa.Array,
        nudges: Ints | None = None,
        sources: Sequence[pa.Array] = (),
    ) -> pa.Array:
        """The column back; its Arrow type is that of `escapes`. Without `nudges`, none is moved.

        DamagedError where a symbol is not on the grid, or there are more or fewer escapes than their states say.

        >>> grid = ColumnGrid(name="t", kind="number", scale="clock", low=0, high=1440)
        >>> coded = grid.encode(pa.array([5, 2359, None, 1300]))
        >>> coded.symbols.tolist(), coded.state.tolist()
        ([5, 1439, 0, 780], [0, 0, 1, 0])
        >>> grid.decode(*coded).to_pylist()
        [5, 2359, None, 1300]
        """
        valued, escaped = state == State.VALUE, state == State.ESCAPE
        if self.kind == "image":
            if (symbols > self.high).any() or (state > State.NULL).any():
                raise DamagedError(f"column {self.name!r}: its cells do not lie on its grid")
            missing = cast(Mask, ~valued)
            return image_values(cast(Any, symbols), missing, int(self.step), escapes.type)
        if self.kind == "text":
            return text_values(symbols, cast(Mask, ~valued), escapes.type)
        symbols = np.where(valued, symbols, self.low)
        outside = (symbols < self.low) | (symbols > self.high) | (state > State.ESCAPE)
        if outside.any() or int(escaped.sum()) != len(escapes):
            raise DamagedError(f"column {self.name!r}: its cells do not lie on its grid")
        kind, verbatim = escapes.type, plain_array(escapes)
        if self.kind == "category":
            restored = self._names(verbatim.type, symbols, valued)
        else:
            restored = self._numbers(verbatim.type, symbols, state, nudges, sources)
        if len(escapes):
            # row numbers, not `replace_with_mask`, which knows neither dictionaries nor half floats
            rows = np.arange(len(symbols))
            rows[escaped] = len(symbols) + np.arange(len(escapes))
            restored = cast(Any, pa.concat_arrays([restored, verbatim])).take(pa.array(rows))
        return dictionary_array(restored, kind) if isinstance(kind, pa.DictionaryType) else restored

    def _find_names(self, array: pa.Array) -> tuple[Ints, States]:
        plain = plain_array(array)
        found = pc.index_in(plain, value_set=pa.array(self.values, plain.type))
        symbols = pc.fill_null(found, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        missing = pc.is_null(plain).to_numpy(zero_copy_only=False)
        unknown = pc.is_null(found).to_numpy(zero_copy_only=False) & ~missing
        return symbols, _states(missing, None, unknown)

    def _names(self, kind: pa.DataType, symbols: Ints, valued: Mask) -> pa.Array:
        names = cast(Any, pa.array(self.values, kind))
        return names.take(pa.array(symbols, mask=~valued))

    def _find_numbers(
        self, array: pa.Array, sources: Sequence[pa.Array | pa.ChunkedArray]
    ) -> tuple[Ints, States, Ints | None]:
        numbers, missing = stored_numbers(array)
        nan = None
        if numbers.dtype.kind == "f":
            finite = np.isfinite(numbers)
            nan = (
                np.isnan(numbers)
                if self.bound > 0
                else bit_patterns(numbers) == QUIET_NAN[numbers.dtype.itemsize]
            )
            symbols = self._float_symbols(np.where(finite, numbers, numbers.dtype.type(0)))
        else:
            finite = np.ones(len(numbers), bool)
            symbols = self._integer_symbols(numbers)
        inside = finite & (symbols >= self.low) & (symbols <= self.high)
        symbols = np.where(inside, symbols, np.int64(self.low))
        nudges = None
        if self.scale in NUDGED:
            made = self._made(symbols, sources)
            wanted = np.where(finite, numbers, 0).astype(np.float64)
            nudges = nudges_to(wanted, made, self.digits) if self.digits else places_to(wanted, made)
            restored = self._nudged(made, nudges).astype(numbers.dtype)
        else:
            restored = self._restore(symbols, numbers.dtype)
        state = _states(missing, nan, ~inside | offenders(numbers, restored, self.bound))
        if nudges is not None:
            nudges[state != State.VALUE] = 0
        return symbols, state, nudges

    def _made(self, symbols: Ints, sources: Sequence[pa.Array | pa.ChunkedArray]) -> Numbers:
        """What symbols, or sources, stand for before a nudge: halves of a unit, or floats if `digits` is 0."""
        if self.scale == "lattice":
            return lattice_halves(symbols, self._lattice)
        first, second = (stored_numbers(one_array(source))[0].astype(np.float64) for source in sources)
        if self.digits:
            first, second = halves(first, self.digits), halves(second, self.digits)
        with np.errstate(over="ignore", invalid="ignore"):
            made = first + second if self.scale == "sum" else first - second
        return made if self.digits else np.where(np.isnan(made), 0.0, made)  # machines differ in a NaN's bits

    def _nudged(self, made: Numbers, nudges: Ints) -> Numbers:
        return rounded(made, self.digits, nudges) if self.digits else moved(made, nudges)

    @property
    def _lattice(self) -> Lattice:
        return Lattice(int(self.offset), int(self.step), self.digits, self.point)

    def _integer_symbols(self, numbers: Numbers) -> Ints:
        """The nearest symbol of each integer; one below `low` for what is far off the grid."""
        symbols = np.full(len(numbers), self.low - 1, np.int64)
        if self.scale == "clock":
            near = (numbers >= 0) & (numbers <= 2400) & (numbers % 100 < 60)
            hours, minutes = np.divmod(numbers[near].astype(np.int64), 100)
            symbols[near] = 60 * hours + minutes
            return symbols
        offset, step = int(self.offset), int(self.step)
        # the range test comes first, on Python's integers: a difference of far values would wrap
        near = (numbers >= offset + step * self.low - step) & (numbers <= offset + step * self.high + step)
        quotient, rest = np.divmod(numbers[near].astype(np.int64) - offset, step)
        symbols[near] = quotient + (rest > step // 2)
        return symbols

    def _float_symbols(self, numbers: Numbers) -> Ints:
        """The nearest symbol of each finite float; one below `low` for what is far off the grid."""
        wide = numbers.astype(np.float64)
        if self.sources:
            return np.zeros(len(wide), np.int64)
        if self.scale == "ranks":
            table = np.array(self.values, np.float64)
            return np.minimum(np.searchsorted(table, wide), len(table) - 1).astype(np.int64)
        with np.errstate(over="ignore"):  # what overflows is far off the grid
            if self.scale == "decimal":
                scaled = wide * float(10**self.digits)
            elif self.scale == "lattice":
                scaled = lattice_symbols(wide, self._lattice)
            else:
                scaled = (wide - float(self.offset)) / float(self.step)
        near = np.abs(scaled) < 2.0**52
        return np.where(near, np.rint(np.where(near, scaled, 0.0)), self.low - 1.0).astype(np.int64)

    def _restore(self, symbols: Ints, dtype: np.dtype[Any]) -> Numbers:
        if self.scale == "clock":
            return (symbols // 60 * 100 + symbols % 60).astype(dtype)
        if self.scale == "step":
            return (symbols * int(self.step) + int(self.offset)).astype(dtype)
        with np.errstate(over="ignore"):  # beyond the column's type: `_offenders` finds it
            if self.scale == "ranks":
                return np.array(self.values, np.float64)[symbols].astype(dtype)
            if self.scale == "decimal":
                return (symbols / float(10**self.digits)).astype(dtype)
            product = symbols * float(self.step)
            return (product + float(self.offset)).astype(dtype)

    def _numbers(
        self,
        kind: pa.DataType,
        symbols: Ints,
        state: States,
        nudges: Ints | None,
        sources: Sequence[pa.Array],
    ) -> pa.Array:
        if self.scale in NUDGED:
            nudges = np.zeros(len(symbols), np.int64) if nudges is None else nudges
            values = self._nudged(self._made(symbols, sources), nudges).astype(storage_type(kind))
        else:
            values = self._restore(symbols, storage_type(kind))
        if values.dtype.kind == "f":
            bit_patterns(values)[state == State.NAN] = QUIET_NAN[values.dtype.itemsize]
        return from_stored(values, (state == State.NULL) | (state == State.ESCAPE), kind)


class TableGrid(BaseModel):
    """The grids of all columns of a table, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[ColumnGrid, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary without defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_json(cls, data: Any) -> TableGrid:
        """The inverse of `to_json`."""
        return cls.model_validate(data)

    def __getitem__(self, name: str) -> ColumnGrid:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def _states(missing: Mask, nan: Mask | None, escape: Mask) -> States:
    state = np.where(escape, np.uint8(State.ESCAPE), np.uint8(State.VALUE))
    if nan is not None:
        state[nan] = State.NAN
    state[missing] = State.NULL
    return state
