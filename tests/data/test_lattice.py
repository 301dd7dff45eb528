"""Lattices of floats, sums and differences: what is made in integers is what exact arithmetic says."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from data.errors import DamagedError
from data.grid import MAX_SPAN, NUDGED, ColumnGrid, State
from data.gridfit import fit_column
from data.lattice import (
    MAX_DIGITS,
    MAX_HALVES,
    MAX_NUDGE,
    MAX_OFFSET,
    MIN_DIGITS,
    Lattice,
    fit_lattice,
    halves,
    lattice_halves,
    lattice_symbols,
    nudges_to,
    rounded,
    unit_digits,
)
from data.sums import find_sums


def readings(offset: Fraction, step: Fraction, places: Any) -> np.ndarray:
    """What a text file holds of exact numbers: 15 significant digits."""
    return np.array([float(_fifteen(offset + step * int(k))) for k in places])


def _fifteen(x: Fraction) -> str:
    return format(Decimal(x.numerator) / Decimal(x.denominator), ".15g")


def bits(array: pa.Array) -> list[int | None]:
    """Floats as integers: NaNs are equal just if their bits are, and 0.0 is not -0.0."""
    return array.view(pa.int64()).to_pylist()


def walk(count: int, span: int, seed: int = 0) -> np.ndarray:
    return np.abs(np.cumsum(np.random.default_rng(seed).integers(-40, 41, count))) % span


# --------------------------------------------------------------------------------------------------------- numbers


@given(
    digits=st.integers(MIN_DIGITS, MAX_DIGITS),
    numbers=st.lists(st.integers(-2 * MAX_HALVES, 2 * MAX_HALVES), min_size=1),
    nudge=st.integers(-128, 127),
)
def test_rounding_is_that_of_exact_arithmetic(digits: int, numbers: list[int], nudge: int) -> None:
    made = rounded(np.array(numbers), digits, np.full(len(numbers), nudge))
    for number, value in zip(numbers, made.tolist(), strict=True):
        unit = 10 ** max(0, len(str(abs(number) // 2)) - 15)
        whole = (number + unit) // (2 * unit) + nudge
        assert value == float(Fraction(whole * unit, 10**digits))


@given(
    step=st.integers(1, 2**62),
    offset=st.integers(-MAX_OFFSET, MAX_OFFSET),
    point=st.integers(0, 30),
    symbols=st.lists(st.integers(-(2**31) + 2**22, 2**31 - 2**22), min_size=1),
)
def test_no_product_wraps(step: int, offset: int, point: int, symbols: list[int]) -> None:
    assume((step >> point) * max(1, *map(abs, symbols)) <= MAX_HALVES)
    made = lattice_halves(np.array(symbols), Lattice(offset, step, 10, point))
    assert made.tolist() == [(offset + step * k) >> point for k in symbols]
    assert max(map(abs, made.tolist())) < 2**63 - MAX_OFFSET // 2


@given(st.decimals(-9_999, 9_999, places=11) | st.decimals(-1, 1, places=14))
def test_a_decimal_of_15_digits_is_read_exactly(decimal: Decimal) -> None:
    digits = unit_digits(10_000.0)
    assert digits == 14
    exact = Fraction(decimal) * 2 * 10**digits
    found = int(halves(np.array([float(decimal)]), digits)[0])
    assert found == exact


def test_what_is_no_number_counts_as_0() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1e300, 1e14, -1e14, 3.0])
    assert halves(values, 15).tolist() == [0, 0, 0, 0, 0, 0, 6 * 10**15]


@pytest.mark.parametrize("largest", [0.0, np.inf, np.nan, 1e14, 1e300])
def test_without_decimals_there_is_no_unit(largest: float) -> None:
    assert unit_digits(largest) == 0


@given(st.floats(1e-30, 9e13))
def test_the_unit_is_as_fine_as_its_values_allow(largest: float) -> None:
    digits = unit_digits(largest)
    assert MIN_DIGITS <= digits <= MAX_DIGITS
    assert Fraction(largest) * 2 * 10**digits <= MAX_HALVES
    assert digits == MAX_DIGITS or Fraction(largest) * 20 * 10**digits > MAX_HALVES * Fraction(99, 100)


@given(st.integers(-(10**18), 10**18), st.integers(-200, 200))
def test_a_nudge_of_no_more_than_127_is_found(number: int, nudge: int) -> None:
    assume(len(str(abs(number) // 2)) == len(str(abs(number) // 2 + 10**6)))
    numbers = np.array([number])
    value = rounded(numbers, 15, np.array([nudge]))
    assert nudges_to(value, numbers, 15).tolist() == [nudge if abs(nudge) <= MAX_NUDGE else 0]


# --------------------------------------------------------------------------------------------------------- fitting


def fitted_share(step: Fraction, offset: Fraction, sign: int) -> float | None:
    """Share of readings that a fitted lattice gives without a nudge; None if none is found. All come back exactly."""
    values = sign * readings(offset, step, walk(1_000, 900))
    fitted = fit_lattice(values, np.unique(values), widest=MAX_SPAN)
    if fitted is None:
        return None
    lattice = fitted.lattice
    symbols = lattice_symbols(values, lattice).astype(np.int64)
    assert (fitted.low, fitted.high) == (symbols.min(), symbols.max())
    numbers = lattice_halves(symbols, lattice)
    nudges = nudges_to(values, numbers, lattice.digits)
    assert np.array_equal(rounded(numbers, lattice.digits, nudges), values)
    assert np.ptp(symbols) < 900
    return float(np.mean(nudges == 0))


@settings(max_examples=20)
@given(
    step=st.fractions(Fraction(1, 10**6), Fraction(1, 20), max_denominator=10**9),
    offset=st.fractions(5, 400, max_denominator=10**6),
    sign=st.sampled_from([-1, 1]),
)
def test_readings_of_a_lattice_come_back(step: Fraction, offset: Fraction, sign: int) -> None:
    share = fitted_share(step, offset, sign)
    assert share is None or share > 0.5


def test_readings_of_nearly_every_lattice_are_recognised() -> None:
    """Of 200 lattices; some few are missed, or need more nudges: the last digits are all that a fit has to go by."""
    random = np.random.default_rng(1)
    shares = list[float]()
    for _ in range(200):
        step = Fraction(10 ** random.uniform(-6, -1.3)).limit_denominator(10**9)
        offset = Fraction(random.uniform(5, 400)).limit_denominator(10**6)
        shares.append(fitted_share(step, offset, int(random.choice([-1, 1]))) or 0.0)
    assert np.mean(np.array(shares) > 0.95) >= 0.98
    assert np.mean(shares) > 0.98


def test_a_lattice_is_found_beside_strays_and_noise() -> None:
    rng = np.random.default_rng(1)
    values = readings(Fraction(27315, 100), Fraction(1, 5999), walk(5_000, 30_000))
    values[rng.choice(5_000, 40, replace=False)] += rng.random(40)
    values[rng.choice(5_000, 300, replace=False)] += 2e-12
    values = np.array([float(f"{x:.15g}") for x in values])
    grid = fit_column("t", pa.chunked_array([values]), 0.0)
    assert grid.scale == "lattice"
    coded = grid.encode(pa.array(values))
    assert coded.nudges is not None
    assert 200 <= np.count_nonzero(coded.nudges) <= 400
    assert 20 <= len(coded.escapes) <= 40
    assert np.array_equal(grid.decode(*coded).to_numpy(), values)


@pytest.mark.parametrize("stray", [-9999.0, 5000.1, 1e9, 1e14, 1e300])
def test_a_stray_far_off_does_not_hide_a_lattice(stray: float) -> None:
    values = readings(Fraction(20), Fraction(1, 77), walk(2_000, 900))
    values[1_000] = stray
    grid = fit_column("t", pa.chunked_array([values]), 0.0)
    assert grid.scale == "lattice"
    assert grid.high - grid.low < 1_000 or stray in (-9999.0, 1e9)
    coded = grid.encode(pa.array(values))
    assert len(coded.escapes) <= 1
    assert np.array_equal(grid.decode(*coded).to_numpy(), values)


@given(
    centre=st.floats(-1e3, 1e3) | st.sampled_from([0.0, 0.7, 2.01, 20.17]),
    spread=st.integers(0, 300),
    unit=st.integers(0, 16),
    strays=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    seed=st.integers(0, 99),
)
@example(centre=0.7, spread=200, unit=13, strays=[0.4, 0.9, 1.2], seed=0)
def test_nothing_that_is_fitted_raises_or_is_lost(
    centre: float, spread: int, unit: int, strays: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = centre + rng.integers(-spread, spread + 1, 2_000) * 10.0**-unit
    values[: len(strays)] = strays
    grid = fit_column("x", pa.chunked_array([values]), 0.0)
    if grid.kind != "opaque":
        assert bits(grid.decode(*grid.encode(pa.array(values)))) == bits(pa.array(values))


@pytest.mark.parametrize("top", [0.0201, 0.2011, 2.001, 2.0175, 20.1, 201.7, 2017.0])
def test_the_unit_leaves_room_for_the_place_beside_the_largest_value(top: float) -> None:
    for places in (70, 100, 400):
        step = Fraction(top) / places
        values = readings(Fraction(top) - step * (places - 1), step, np.arange(places).repeat(9))
        assert fit_column("x", pa.chunked_array([values]), 0.0).kind == "number"


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=5_000),
        np.exp(np.random.default_rng(0).normal(size=5_000)),
        np.array([1 / 3]),
        np.array([0.0, 0.0]),
        np.array([1 / 3, 2 / 3 * 1e9]),
        np.array([1e300, 1.0, 2.0]),
        readings(Fraction(0), Fraction(1, 7), [0, 1, 2, MAX_SPAN + 10]),
        np.arange(100) * 5e-324,
    ],
    ids=["normal", "lognormal", "one", "zeros", "two", "huge", "wide", "denormal"],
)
def test_what_is_no_lattice_is_none(values: np.ndarray) -> None:
    assert fit_lattice(values, np.unique(values), widest=MAX_SPAN) is None


# ----------------------------------------------------------------------------------------------------------- grids


SEVENTHS = readings(Fraction(1, 3), Fraction(1, 700), walk(3_000, 2_000))


def test_specials_on_a_lattice_come_back() -> None:
    grid = fit_column("x", pa.chunked_array([SEVENTHS]), 0.0)
    odd = [None, float("nan"), float("inf"), -0.0, 1e300, -1e300, 5e-324, 0.1, float(SEVENTHS[5])]
    array = pa.array(odd, pa.float64())
    coded = grid.encode(array)
    assert coded.state.tolist()[:3] == [State.NULL, State.NAN, State.ESCAPE]
    assert coded.state[-1] == State.VALUE
    assert coded.nudges is not None
    assert not coded.nudges[coded.state != State.VALUE].any()
    restored = grid.decode(*coded)
    assert bits(restored) == bits(array)


def test_without_nudges_the_last_digit_stays() -> None:
    grid = fit_column("x", pa.chunked_array([SEVENTHS]), 0.0)
    moved = float(np.round(SEVENTHS[0] + 3e-15, 15))
    coded = grid.encode(pa.array([moved]))
    assert coded.nudges is not None
    assert coded.nudges.tolist() == [3]
    assert grid.decode(*coded).to_pylist() == [moved]
    assert grid.decode(*coded[:3]).to_pylist() == [SEVENTHS[0]]


@pytest.mark.parametrize(
    "change",
    [
        {"digits": 3},
        {"digits": 23},
        {"point": 31},
        {"point": -1},
        {"offset": 0.5},
        {"step": 0.5},
        {"step": 0},
        {"step": 2**62},
        {"offset": MAX_OFFSET + 1},
        {"high": MAX_SPAN},
        {"low": 2**30, "high": 2**30, "step": 2**62},
        {"scale": "sum"},
        {"scale": "sum", "sources": ("a",)},
        {"scale": "sum", "sources": ("a", "b"), "high": 1},
        {"scale": "decimal"},
    ],
    ids=str,
)
def test_what_could_wrap_is_no_grid(change: dict[str, Any]) -> None:
    sound = {"name": "x", "kind": "number", "scale": "lattice", "digits": 15, "step": 2**40, "point": 20}
    ColumnGrid.model_validate(sound)
    with pytest.raises(ValueError, match=r"column 'x': |Input should be"):
        ColumnGrid.model_validate(sound | change)


# ------------------------------------------------------------------------------------------------------------ sums


def pair(count: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    first, second = (
        readings(Fraction(0), Fraction(1, 10**12), rng.integers(0, 10**15, count)) for _ in range(2)
    )
    return first, second


@pytest.mark.parametrize("scale", ["sum", "difference"])
def test_a_sum_that_was_rounded_comes_back(scale: str) -> None:
    first, second = pair()
    made = first + second if scale == "sum" else first - second
    made = np.array([float(f"{x:.15g}") for x in made])
    made[7] = 12.5
    table = pa.table({"a": first, "noise": made[::-1], "b": second, "c": made})
    grid = find_sums(table, table.column_names, ["c"])[0]
    assert (grid.scale, grid.sources) == (scale, ("a", "b"))
    assert grid.scale in NUDGED
    coded = grid.encode(table["c"], [table["a"], table["b"]])
    assert coded.escapes.to_pylist() == [12.5]
    assert coded.nudges is not None
    assert np.mean(coded.nudges == 0) > 0.8
    sources = [table["a"].combine_chunks(), table["b"].combine_chunks()]
    assert np.array_equal(grid.decode(*coded, sources).to_numpy(), made)


@given(
    st.lists(
        st.tuples(*[st.none() | st.floats() | st.integers(-(10**6), 10**6).map(lambda k: k / 7)] * 3),
        min_size=1,
    ),
    st.sampled_from(["sum", "difference"]),
    st.just(0) | st.integers(MIN_DIGITS, MAX_DIGITS),
)
def test_any_floats_come_back_from_any_sources(
    rows: list[tuple[float | None, ...]], scale: Any, digits: int
) -> None:
    grid = ColumnGrid(name="c", kind="number", scale=scale, digits=digits, sources=("a", "b"))
    first, second, made = (pa.array(column, pa.float64()) for column in zip(*rows, strict=True))
    coded = grid.encode(made, [first, second])
    restored = grid.decode(*coded, [first, second])
    assert bits(restored) == bits(made)


@pytest.mark.parametrize("scale", ["sum", "difference"])
def test_a_sum_as_float64_makes_it_needs_no_nudge(scale: str) -> None:
    first, second = np.random.default_rng(6).normal(size=(2, 500))
    made = first + second if scale == "sum" else first - second
    table = pa.table({"a": first, "b": second, "c": made})
    (grid,) = find_sums(table, ["a", "b"], ["c"])
    assert (grid.scale, grid.sources, grid.digits) == (scale, ("a", "b"), 0)
    coded = grid.encode(table["c"], [table["a"], table["b"]])
    assert coded.nudges is not None
    assert not coded.nudges.any()
    assert not len(coded.escapes)


def test_a_nan_of_a_sum_is_nobody_s(  # whose bits it has depends on the machine
) -> None:
    grid = ColumnGrid(name="c", kind="number", scale="sum", sources=("a", "b"))
    odd = np.array([-1, 0x7FFFFFFFFFFFFFFF, 0x7FF8000000000000], np.int64).view(np.float64)
    first, second = pa.array(odd), pa.array(odd[::-1].copy())
    coded = grid.encode(pa.array([0.0, 5e-324, 1.0]), [first, second])
    assert coded.state.tolist() == [State.VALUE, State.VALUE, State.ESCAPE]
    assert coded.nudges is not None
    assert coded.nudges.tolist() == [0, 1, 0]


@pytest.mark.parametrize("large", [1e12, 1e15, 1e300])
def test_a_large_column_hides_no_sum(large: float) -> None:
    rng = np.random.default_rng(7)
    table = pa.table(
        {name: rng.normal(size=500) * 1e-4 for name in "abcdef"} | {"z": rng.random(500) * large}
    )
    table = table.append_column("sum", pa.array(table["a"].to_numpy() + table["e"].to_numpy()))
    assert [grid.sources for grid in find_sums(table, table.column_names, ["sum"])] == [("a", "e")]
    assert find_sums(table, list("abcdefz"), ["b", "z"]) == []


def test_of_many_ways_few_are_told() -> None:
    rng = np.random.default_rng(7)
    same = rng.normal(size=500)
    nearly = {f"n{k}": same * (1 + 1e-15 * k) for k in range(6)}
    sparse = {f"s{k}": np.where(rng.random(500) < 0.01, 1.0, 0.0) for k in range(6)}
    table = pa.table(nearly | sparse)
    assert find_sums(table, table.column_names, ["n0"]) == []
    table = table.append_column("a", pa.array(rng.normal(size=500)))
    table = table.append_column("b", pa.array(same + table["a"].to_numpy()))
    assert 1 <= len(find_sums(table, table.column_names, ["b"])) <= 2


def test_no_sum_is_found_where_there_is_none() -> None:
    rng = np.random.default_rng(2)
    table = pa.table({name: rng.normal(size=500) for name in "abcd"})
    assert find_sums(table, list("abcd"), list("abcd")) == []
    assert find_sums(table, ["a", "b"], ["a"]) == []
    constant = pa.table({"a": [0.0] * 50, "b": [0.0] * 50, "c": [0.0] * 50})
    assert find_sums(constant, list("abc"), list("abc")) == []


def test_a_state_beside_a_sum_is_looked_at() -> None:
    grid = ColumnGrid(name="c", kind="number", scale="sum", digits=15, sources=("a", "b"))
    one = pa.array([1.0])
    with pytest.raises(DamagedError, match="do not lie on its grid"):
        grid.decode(np.array([1]), np.zeros(1, np.uint8), pa.array([], pa.float64()), None, [one, one])
