"""Columns go onto their grids and come back: exactly, or within their bound."""

from __future__ import annotations

import json
import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.bounds import effective_bound
from data.errors import BoundError, DamagedError
from data.fractions import MAX_PARTS, fractions, numerators
from data.grid import MAX_SPAN, MAX_SYMBOL, ColumnGrid, State, TableGrid
from data.gridfit import fit_column, fit_table
from data.stored import is_numeric, offenders, stored_numbers

COMMON = settings(max_examples=60)
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
TIMES = [
    pa.timestamp("s"),
    pa.timestamp("ns", "Europe/Berlin"),
    pa.timestamp("us", "UTC"),
    pa.date32(),
    pa.date64(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    pa.duration("ms"),
    pa.duration("ns"),
]
STRINGS = [
    pa.string(),
    pa.large_string(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.uint16(), pa.large_string(), ordered=True),
]
NEGATIVE_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]


def plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def bits(array: pa.Array) -> list[Any]:
    """What a column holds, value by value; floats by their bit patterns."""
    array = plain(array)
    if not is_numeric(array.type):
        return array.to_pylist()
    numbers, missing = stored_numbers(array)
    patterns = numbers.view(f"u{numbers.dtype.itemsize}").tolist()
    return [None if gone else pattern for pattern, gone in zip(patterns, missing.tolist(), strict=True)]


def there_and_back(grid: ColumnGrid, array: pa.Array) -> pa.Array:
    coded = grid.encode(array)
    assert coded.symbols.dtype == np.int64
    assert coded.state.dtype == np.uint8
    assert len(coded.escapes) == (coded.state == State.ESCAPE).sum()
    assert not coded.symbols[coded.state != State.VALUE].any()
    back = grid.decode(*coded)
    assert back.type == array.type
    return back


def array_of(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """An Arrow array of stored numbers, strings or booleans."""
    if isinstance(kind, pa.DictionaryType):
        encoded = pa.array(values, kind.value_type).dictionary_encode()
        return pa.DictionaryArray.from_arrays(
            encoded.indices.cast(kind.index_type), encoded.dictionary, ordered=kind.ordered
        )
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    if pa.types.is_float16(kind):
        return pa.array([None if v is None else np.float16(v) for v in values], kind)
    return pa.array(values, kind)


def limits(kind: pa.DataType) -> tuple[int, int]:
    """Smallest and largest stored integer of a type; times of day stay within a day."""
    if pa.types.is_time(kind):
        return 0, 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit] - 1
    if pa.types.is_temporal(kind):
        return (-(2**31), 2**31 - 1) if kind.bit_width == 32 else (-(2**63), 2**63 - 1)
    info = np.iinfo(kind.to_pandas_dtype())
    return int(info.min), int(info.max)


@st.composite
def integer_columns(draw: st.DrawFn, kinds: list[pa.DataType] = INTEGERS + TIMES) -> pa.Array:
    """Anything the type holds, or steps on a lattice, or few values; with nulls and extremes among them."""
    kind = draw(st.sampled_from(kinds))
    low, high = limits(kind)
    wild = st.integers(low, high) | st.sampled_from([low, high, low + 1, high - 1])
    offset, step = draw(wild), draw(st.sampled_from([1, 7, 60, 10**6]))
    lattice = st.integers(-40, 40).map(lambda k: min(max(offset + step * k, low), high))
    few = st.sampled_from(draw(st.lists(wild, min_size=1, max_size=3)))
    cells = draw(st.sampled_from([wild, lattice, few, lattice | few]))
    return array_of(kind, draw(st.lists(st.none() | cells, max_size=40)))


@st.composite
def float_columns(draw: st.DrawFn, kinds: list[pa.DataType] = FLOATS) -> pa.Array:
    """Anything the type holds, or decimals, or few values; with nulls, NaN, infinities and both zeros among them."""
    kind = draw(st.sampled_from(kinds))
    width = kind.bit_width
    wild = st.floats(width=width)
    digits, offset = draw(st.integers(0, 6)), draw(st.integers(-1000, 1000))
    decimals = st.integers(-3000, 3000).map(lambda k: (offset + k) / 10**digits)
    near = st.floats(-50, 50, width=width)
    odd = st.sampled_from([0.0, -0.0, math.nan, NEGATIVE_NAN, math.inf, -math.inf])
    few = st.sampled_from(draw(st.lists(wild, min_size=1, max_size=3)))
    cells = draw(st.sampled_from([wild, decimals, near, few, decimals | odd, few | odd]))
    values = draw(st.lists(st.none() | cells, max_size=40)) * draw(st.sampled_from([1, 1, 8]))
    numbers = np.array([0.0 if v is None else v for v in values], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = numbers.astype(kind.to_pandas_dtype())
    return pa.array(numbers, kind, mask=np.array([v is None for v in values], bool))


@st.composite
def name_columns(draw: st.DrawFn) -> pa.Array:
    """Strings and booleans, plain or as dictionaries."""
    kind = draw(st.sampled_from([*STRINGS, pa.bool_(), pa.dictionary(pa.int8(), pa.bool_())]))
    values = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    cells = st.booleans() if values == pa.bool_() else st.text(max_size=4)
    return array_of(kind, draw(st.lists(st.none() | cells, max_size=30)))


COLUMNS = integer_columns() | float_columns() | name_columns()


# ---------------------------------------------------------------------------------------------------- exact columns


@COMMON
@given(array=COLUMNS)
@example(array=pa.array([2**63 - 1, -(2**63), 0, None], pa.int64()))
@example(array=pa.array([2**64 - 1, 0, None], pa.uint64()))
@example(array=pa.array([1e308, -1e308, 5e-324, math.nan, NEGATIVE_NAN], pa.float64()))
@example(array=pa.array([0.0, -0.0] * 20, pa.float32()))
def test_an_exact_column_comes_back_bit_for_bit(array: pa.Array) -> None:
    grid = fit_column("x", pa.chunked_array([array]), 0.0)
    if grid.kind != "opaque":
        assert bits(there_and_back(grid, array)) == bits(array)


@COMMON
@given(fitted=COLUMNS, data=st.data())
def test_new_data_comes_back_exactly_on_a_fitted_grid(fitted: pa.Array, data: st.DataObject) -> None:
    grid = fit_column("x", pa.chunked_array([fitted]), 0.0)
    if grid.kind == "opaque":
        return
    same_kind = [integer_columns([fitted.type])] if is_numeric(fitted.type) else [name_columns()]
    if pa.types.is_floating(fitted.type):
        same_kind = [float_columns([fitted.type])]
    new = data.draw(st.one_of(same_kind))
    if plain(new).type == plain(fitted).type:
        assert bits(there_and_back(grid, new)) == bits(new)


@pytest.mark.parametrize("kind", [*INTEGERS[1:4], *INTEGERS[5:], *FLOATS[1:]], ids=str)
def test_a_thousand_times_the_range_goes_through_escapes(kind: pa.DataType) -> None:
    grid = fit_column("x", pa.chunked_array([array_of(kind, list(range(30)))]), 0.0)
    new = array_of(kind, [0, 29, 30, 30_000, None])
    coded = grid.encode(new)
    assert coded.state.tolist() == [0, 0, 3, 3, 1]
    assert bits(grid.decode(*coded)) == bits(new)


def test_new_categories_go_through_escapes() -> None:
    grid = fit_column("x", pa.chunked_array([["a", "b", None]]), 0.0)
    new = pa.array(["b", "ä new one", None, ""])
    coded = grid.encode(new)
    assert coded.state.tolist() == [0, 3, 1, 3]
    assert coded.escapes.to_pylist() == ["ä new one", ""]
    assert grid.decode(*coded).equals(new)


def test_chunks_with_different_dictionaries_are_one_column() -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", None, "b"]).dictionary_encode()]
    column = pa.chunked_array(chunks)
    grid = fit_column("x", column, 0.0)
    assert grid.values == ("a", "b", "c")
    assert grid.decode(*grid.encode(column)).to_pylist() == ["a", "b", "c", None, "b"]


@pytest.mark.parametrize(
    ("column", "scale", "span"),
    [
        (pa.array([3, 5, 9]), "step", 4),
        (pa.array([3, 4, 9]), "step", 7),
        (pa.array([10**12, 10**12 + 3600 * 5, 10**12 + 3600]), "step", 6),
        (pa.array([0, 86_400, 86_400 * 9], pa.timestamp("s", "UTC")), "step", 10),
        (pa.array([h // 60 * 100 + h % 60 for h in range(0, 1440, 7)]), "clock", 1441),
        (
            pa.array([h // 60 * 100 + h % 60 for h in range(0, 1440, 7)], pa.uint16()),
            "clock",
            1441,
        ),
        (pa.array([0.25, 0.5, 1.0]), "ranks", 3),
        (pa.array([0.25, 0.3, 0.27]), "decimal", 6),
        (pa.array([0.1, 0.2, 0.7], pa.float32()), "decimal", 7),
        (pa.array([1e300, 2e300, math.pi] * 100), "ranks", 3),
        (pa.array(["b", "a", None]), "names", 2),
        (pa.array([True, None]), "names", 2),
    ],
    ids=lambda p: str(p) if isinstance(p, str) else "",
)
def test_the_scale_that_a_column_is_given(column: pa.Array, scale: str, span: int) -> None:
    grid = fit_column("x", pa.chunked_array([column]), 0.0)
    assert (grid.scale, grid.high - grid.low + 1) == (scale, span)
    coded = grid.encode(column)
    assert not (coded.state == State.ESCAPE).any()
    assert bits(grid.decode(*coded)) == bits(column)


def test_clock_times_that_are_none_are_escapes_in_every_type() -> None:
    times = [h // 60 * 100 + h % 60 for h in range(0, 1440, 7)]
    for kind in (pa.int16(), pa.uint16(), pa.int64(), pa.uint64()):
        grid = fit_column("x", pa.chunked_array([pa.array(times, kind)]), 0.0)
        assert grid.scale == "clock"
        new = pa.array([1260, 2401, limits(kind)[0], limits(kind)[1], 2400], kind)
        assert bits(there_and_back(grid, new)) == bits(new)


@pytest.mark.parametrize(("kind", "pattern"), [*zip(FLOATS, [0x7E00, 0x7FC00000, 0x7FF8 << 48], strict=True)])
def test_a_nan_that_comes_back_has_the_bits_of_the_format(kind: pa.DataType, pattern: int) -> None:
    grid = ColumnGrid(name="x", kind="number", scale="decimal")
    states = np.array([State.NAN, State.VALUE], np.uint8)
    assert bits(grid.decode(np.zeros(2, np.int64), states, pa.array([], kind))) == [pattern, 0]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, None], pa.null()),
        pa.array([None, None], pa.int64()),
        pa.array([math.nan, math.inf, None]),
        pa.array([None], pa.string()),
        pa.array([[1], None]),
        pa.array([b"x"]),
        pa.array([str(i) for i in range(1000)]),
        pa.array([2**63 - 1]),
        pa.array([-(2**61), 2**61]),
        pa.array(np.random.default_rng(0).normal(size=1000)),
        pa.array([1, 2, None]).dictionary_encode(),
        pa.array([], pa.float64()),
    ],
    ids=lambda a: f"{a.type}-{len(a)}",
)
def test_columns_without_a_grid_are_opaque(column: pa.Array) -> None:
    grid = fit_column("x", pa.chunked_array([column]), 0.0)
    assert grid.kind == "opaque"
    with pytest.raises(ValueError, match="column 'x' has no grid"):
        grid.encode(column)


def test_a_constant_column_needs_one_symbol() -> None:
    for column in ([7, 7, None], [2.5, 2.5], ["a", "a"], [10**15] * 3):
        grid = fit_column("x", pa.chunked_array([column]), 0.0)
        assert grid.low == grid.high


# -------------------------------------------------------------------------------------------------- bounded columns


def assert_within(array: pa.Array, back: pa.Array, bound: float) -> None:
    """|x - restored| <= bound as rational numbers; what is no number comes back as it was."""
    for before, after in zip(numbers_of(array), numbers_of(back), strict=True):
        if isinstance(before, Fraction):
            assert isinstance(after, Fraction)
            assert abs(before - after) <= Fraction(bound)
        else:
            assert before == after


def numbers_of(array: pa.Array) -> list[Any]:
    numbers, missing = stored_numbers(array)
    found: list[Any] = []
    for number, gone in zip(numbers.tolist(), missing.tolist(), strict=True):
        if gone:
            found.append(None)
        else:
            found.append(Fraction(number) if math.isfinite(number) else repr(number))
    return found


BOUNDS = (
    st.sampled_from([0.5, 1.0, 3.5, 1e-9, 1e-3, 0.1, 1e300, 5e-324, 2.0**61])
    | st.floats(1e-6, 1e6)
    | st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False)
)


@settings(max_examples=150)
@given(array=integer_columns(INTEGERS) | float_columns(), bound=BOUNDS)
@example(array=pa.array([-100, 127, 5], pa.int8()), bound=5.0)  # 127 lies nearest to a symbol beyond int8
@example(array=pa.array([0.1, 0.3, 0.6999999999999998]), bound=0.1)  # ties that rounding moves either way
@example(array=pa.array([16_777_216.0, 3.0, 0.0], pa.float32()), bound=0.3)
@example(array=pa.array([65_504.0, -65_504.0, 1.0], pa.float16()), bound=40.0)
def test_a_bounded_column_comes_back_within_its_bound(array: pa.Array, bound: float) -> None:
    grid = fit_column("x", pa.chunked_array([array]), bound)
    if grid.kind != "opaque":
        assert_within(array, there_and_back(grid, array), bound)


@COMMON
@given(fitted=float_columns(), new=float_columns(), bound=BOUNDS)
def test_new_data_comes_back_within_the_bound(fitted: pa.Array, new: pa.Array, bound: float) -> None:
    grid = fit_column("x", pa.chunked_array([fitted]), bound)
    if grid.kind != "opaque" and fitted.type == new.type:
        assert_within(new, there_and_back(grid, new), bound)


def test_ties_of_the_grid_need_no_escapes() -> None:
    halves = pa.array(np.arange(0, 50, 0.5))
    coded = fit_column("x", pa.chunked_array([halves]), 0.5).encode(halves)
    assert not coded.state.any()


@given(x=st.floats(-1e3, 1e3), gap=st.floats(-2, 2), bound=st.sampled_from([0.1, 0.5, 0.7, 1e-3]))
def test_offenders_are_those_of_real_arithmetic(x: float, gap: float, bound: float) -> None:
    for other in (
        x + gap,
        x + bound,
        x - bound,
        math.nextafter(x + bound, 9e9),
        math.nextafter(x - bound, 9e9),
    ):
        beyond = abs(Fraction(x) - Fraction(other)) > Fraction(bound)
        assert offenders(np.array([x]), np.array([other]), bound).tolist() == [beyond]


def test_whole_numbers_stay_whole_within_a_fractional_bound() -> None:
    grid = fit_column("x", pa.chunked_array([[0, 10, 20, 1000]]), 3.5)
    assert (grid.step, grid.bound) == (7, 3.0)
    values = pa.array([0, 3, 4, 1000])
    coded = grid.encode(values)
    back = grid.decode(*coded)
    assert back.type == pa.int64()
    assert not coded.state.any()
    assert np.abs(back.to_numpy() - values.to_numpy()).max() <= 3


@pytest.mark.parametrize("values", [np.arange(0, 1.001, 0.001), np.arange(990)], ids=["floats", "integers"])
def test_bins_are_no_more_than_the_range_needs(values: np.ndarray) -> None:
    shuffled = np.random.default_rng(0).permutation(values)
    grid = fit_column("x", pa.chunked_array([shuffled]), 0.05 * np.ptp(values))
    assert grid.high - grid.low + 1 == 10


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_the_smallest_value_is_never_an_escape(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.normal(size=200).astype(kind) * np.array(rng.choice([0.01, 1, 100]), kind)
        values[:100] = values.min()
        coded = fit_column("x", pa.chunked_array([values]), 0.05 * float(np.ptp(values))).encode(
            pa.array(values)
        )
        assert not coded.state[:100].any()


def test_bins_begin_where_the_column_rests() -> None:
    values = np.tile([4.9, 5.1], 500)  # 0 .. 10 in bins of 5: one border lies between the two
    values = np.concatenate([values, [0.0, 10.0]])
    grid = fit_column("x", pa.chunked_array([values]), 2.5)
    assert len(np.unique(grid.encode(pa.array(values)).symbols[:1000])) == 1


@pytest.mark.parametrize(
    "values",
    [[0, 10, 20, 1000], [h * 100 + m for h in range(24) for m in range(0, 60, 5)], [5]],
    ids=["tens", "clock", "one"],
)
def test_a_bound_below_one_leaves_whole_numbers_the_grid_of_exact_ones(values: list[int]) -> None:
    column = pa.chunked_array([values])
    assert fit_column("x", column, 0.99) == fit_column("x", column, 0.0)


def test_no_bound_is_too_wide_for_whole_numbers() -> None:
    grid = fit_column("x", pa.chunked_array([[0, 10]]), 1e300)
    assert grid.bound == effective_bound(1e300, pa.int64()) == 2.0**62


def test_spans_stay_within_what_the_coder_can_give_a_share() -> None:
    for top in (MAX_SPAN - 2, MAX_SPAN - 1.4, MAX_SPAN - 0.6, MAX_SPAN - 0.4, MAX_SPAN, MAX_SPAN + 1.0):
        grid = fit_column("x", pa.chunked_array([[0.0, top]]), 0.5)
        assert grid.high - grid.low < MAX_SPAN
    exact = fit_column("x", pa.chunked_array([[0, MAX_SPAN - 1, 1]]), 0.0)
    assert exact.high == MAX_SPAN - 1
    assert fit_column("x", pa.chunked_array([[0, MAX_SPAN, 1]]), 0.0).kind == "opaque"


# ---------------------------------------------------------------------------------------------------- grids as JSON


@COMMON
@given(array=COLUMNS, bound=st.sampled_from([0.0, 0.25, 3.0]))
def test_a_grid_survives_json(array: pa.Array, bound: float) -> None:
    grid = fit_table(pa.table({"x": array, "y": array}), {"y": bound})
    again = TableGrid.from_json(json.loads(json.dumps(grid.to_json())))
    assert again == grid
    for column in again.columns:
        if column.kind != "opaque":
            assert bits(there_and_back(column, array)) == bits(there_and_back(grid[column.name], array))


def test_a_table_is_fitted_column_by_column_in_its_order() -> None:
    table = pa.table({"b": [1, 2], "a": ["x", "y"], "c": [[1], [2]]})
    grid = fit_table(table)
    assert [(c.name, c.kind) for c in grid.columns] == [("b", "number"), ("a", "category"), ("c", "opaque")]
    assert grid["a"] is grid.columns[1]
    with pytest.raises(KeyError):
        grid["z"]


def test_a_bound_for_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(BoundError) as refusal:
        fit_table(pa.table({"a": [1], "b": [2]}), {"z": 1.0, "x": 1.0, "a": 2.0})
    assert str(refusal.value) == "bound for unknown column 'x'; columns: ['a', 'b']"


@pytest.mark.parametrize(
    "lie",
    [
        {"scale": "step", "high": 1, "step": 10**30},
        {"scale": "step", "high": 1, "offset": 2**63},
        {"scale": "step", "high": 1, "step": 0.5},
        {"scale": "step", "low": MAX_SYMBOL - 1, "high": MAX_SYMBOL, "step": 2**40},
        {"scale": "uniform", "step": math.inf},
        {"scale": "uniform", "step": 0.0},
        {"scale": "uniform", "offset": math.nan},
        {"scale": "decimal", "digits": 400},
        {"scale": "decimal", "low": 5, "high": 4},
        {"scale": "decimal", "high": MAX_SPAN},
        {"scale": "decimal", "low": -(2**40), "high": -(2**40)},
        {"scale": "ranks", "high": 2, "values": (1.0, 2.0)},
        {"scale": "step", "bound": -1.0},
        {"scale": "wild"},
        {"scale": "step", "colour": "red"},
    ],
    ids=str,
)
def test_a_grid_that_no_fit_makes_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TableGrid.from_json({"columns": [{"name": "x", "kind": "number", **lie}]})


@pytest.mark.parametrize(
    ("symbols", "state", "escapes"),
    [([5], [0], []), ([-1], [0], []), ([0], [4], []), ([0], [3], []), ([0], [0], ["z"]), ([2**62], [0], [])],
)
def test_cells_that_are_not_on_the_grid_are_damage(
    symbols: list[int], state: list[int], escapes: list[str]
) -> None:
    grid = fit_column("x", pa.chunked_array([["a", "b"]]), 0.0)
    with pytest.raises(DamagedError) as damage:
        grid.decode(np.array(symbols), np.array(state, np.uint8), pa.array(escapes, pa.string()))
    assert str(damage.value) == "column 'x': its cells do not lie on its grid"


# ------------------------------------------------------------------------------------------------ rounded fractions


@COMMON
@given(parts=st.integers(2, MAX_PARTS), data=st.data())
@example(parts=MAX_PARTS, data=None)
@example(parts=3, data=None)
def test_a_fraction_is_the_nearest_decimal_and_its_numerator_comes_back(parts: int, data: Any) -> None:
    """As long as the decimals tell neighbouring fractions apart; against Python's exact rounding."""
    digits = data.draw(st.integers(len(str(parts)), 9)) if data else 6
    few = st.lists(st.integers(-3 * parts, 3 * parts), min_size=1, max_size=20)
    whole = np.array(data.draw(few) if data else [-1, 0, 1, parts - 1, parts])
    found = fractions(whole, parts, digits)
    for p, value in zip(whole.tolist(), found.tolist(), strict=True):
        exact = Fraction(p, parts)
        assert abs(Fraction(value) - exact) <= Fraction(1, 2 * 10**digits) + Fraction(1, 10**14)
        assert value == float(f"{value:.{digits}f}")
        assert math.copysign(1, value) == (-1 if value < 0 else 1)
    assert numerators(found, parts).tolist() == whole.tolist()


@pytest.mark.parametrize(("parts", "digits"), [(311, 4), (3, 2), (4_001, 6), (131_000, 7), (7, 9)])
def test_rounded_fractions_are_recognised_by_their_smallest_denominator(parts: int, digits: int) -> None:
    whole = np.unique(np.random.default_rng(0).integers(0, 40 * parts, 600))
    whole = np.append(whole, whole[-1] + 1)  # neighbours: no smaller denominator has both
    table = fractions(whole, parts, digits)
    grid = fit_column("a", pa.array(np.tile(table, 8)), 0.0)
    assert (grid.scale, grid.parts, grid.digits, grid.values) == (
        "ranks",
        parts,
        digits,
        tuple(table.tolist()),
    )
    spoilt = table.copy()
    spoilt[len(table) // 2 + 1] = round(table[len(table) // 2] + 1 / (math.pi * parts), digits)
    assert fit_column("a", pa.array(np.tile(spoilt, 8)), 0.0).parts != parts


RANDOM = np.random.default_rng(0)
THIRDS = fractions(np.arange(200), 3, 4)
HALVES = np.arange(2_000) / 2


@pytest.mark.parametrize(
    "table",
    [
        THIRDS[:50],
        RANDOM.normal(size=300).round(6),
        THIRDS + 4e9,
        fractions(np.arange(200) * (1 << 21), 3, 4),
        np.append(THIRDS, 1e19),
        np.append(THIRDS, 1e250),
        np.sort(np.append(HALVES, RANDOM.random(40).round(9))),
    ],
    ids=["few", "noise", "far from 0", "far apart", "a giant", "a monster", "odd ones outside the sample"],
)
def test_what_is_no_fraction_has_no_parts(table: Any) -> None:
    grid = fit_column("a", pa.array(np.tile(table, 40)), 0.0)
    assert (grid.scale, grid.parts) == ("ranks", 0)


def test_fractions_as_far_apart_as_files_have_them_are_fractions() -> None:
    whole = np.arange(200) * MAX_SPAN
    assert fit_column("a", pa.array(np.tile(fractions(whole, 3, 4), 40)), 0.0).parts == 3
    assert fit_column("a", pa.array(np.tile(fractions(whole - MAX_SPAN, 3, 4), 40)), 0.0).parts == 3
    assert fit_column("a", pa.array(np.tile(fractions(whole[1:] + 1, 3, 4), 40)), 0.0).parts == 0
