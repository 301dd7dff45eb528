"""Columns that follow from others: found, exact with their exceptions, and never in a circle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DamagedError
from data.grid import Coded, TableGrid
from data.gridfit import fit_table
from vae.codec import blocks, structure
from vae.codec.structure import Cells, Derived, Term
from vae.codec.sum_search import EXHAUSTIVE, _hashed, sums

ROWS = 4_000
RNG = np.random.default_rng(5)


def code(table: pa.Table) -> tuple[TableGrid, dict[str, Coded]]:
    grid = fit_table(table)
    return grid, {g.name: g.encode(table[g.name]) for g in grid.columns if g.kind != "opaque"}


def found(columns: dict[str, Any], **how: Any) -> dict[str, Derived]:
    return {d.name: d for d in structure.find(*code(pa.table(columns)), **how)}


def check(columns: dict[str, Any], **how: Any) -> dict[str, Derived]:
    """What is found, each function right but for its stored exceptions."""
    grid, coded = code(pa.table(columns))
    grids = {g.name: g for g in grid.columns}
    derived = structure.find(grid, coded, **how)
    cells = {name: Cells(c.symbols, c.state) for name, c in coded.items()}
    rows = len(next(iter(cells.values())).symbols)
    known = set(coded) - {d.name for d in derived}
    for d in derived:
        assert set(d.sources) <= known, "a function of what is not known yet"
        known.add(d.name)
        result = d.evaluate(grids, cells.__getitem__, rows)
        packed = blocks.pack_exceptions(coded[d.name], result)
        places, wrong = blocks.unpack_exceptions(packed, grids[d.name], pa.table(columns)[d.name].type, rows)
        result.symbols[places], result.states[places] = wrong.symbols, wrong.state
        assert (result.symbols == coded[d.name].symbols).all()
        assert (result.states == coded[d.name].state).all()
        assert Derived.model_validate_json(d.model_dump_json()) == d
    return {d.name: d for d in derived}


def clock(minutes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return minutes // 60 * 100 + minutes % 60


def test_a_constant_needs_no_source() -> None:
    derived = check({"a": np.full(ROWS, 7), "b": RNG.integers(0, 1000, ROWS)})
    assert derived["a"].sources == ()
    assert "b" not in derived


def test_an_all_null_column_does_no_harm() -> None:
    assert "b" not in check({"a": pa.nulls(ROWS, pa.int64()), "b": RNG.integers(0, 1000, ROWS)})


def test_a_lookup_by_one_column_many_to_one() -> None:
    city = RNG.integers(0, 300, ROWS)
    country = np.array([f"country {i}" for i in RNG.integers(0, 20, 300)])[city]
    derived = check({"country": country, "city": city})
    assert derived["country"].keys == ("city",)
    assert "city" not in derived


def test_a_lookup_by_two_columns() -> None:
    a, b = RNG.integers(0, 3, ROWS), RNG.integers(0, 100, ROWS)
    distance = RNG.integers(0, 5000, (3, 100))[a, b]
    assert set(check({"a": a, "b": b, "distance": distance})["distance"].keys) == {"a", "b"}


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_sums_and_differences(signs: tuple[int, int]) -> None:
    a, b = RNG.integers(0, 100_000, ROWS), RNG.integers(0, 100_000, ROWS)
    derived = check({"a": a, "b": b, "c": signs[0] * a + signs[1] * b + 3})
    assert len(derived) == 1
    ((_, function),) = derived.items()
    assert len(function.terms) == 2
    assert function.modulus == 0


def test_sums_among_a_hundred_columns() -> None:
    numbers = {f"n{k}": RNG.integers(0, 100_000, ROWS) for k in range(97)}
    total = numbers["n3"] + numbers["n80"] + 3
    total[RNG.integers(0, ROWS, 20)] += 1
    added = {
        "total": total,
        "less": 99 - numbers["n5"],
        "twice": numbers["n7"] - numbers["n60"],
        "rest": 99 - numbers["n9"] - numbers["n90"],
    }
    assert len(numbers | added) > EXHAUSTIVE
    derived = check(numbers | added)
    related = {frozenset({name, *function.sources}) for name, function in derived.items()}
    assert related == {
        frozenset({"total", "n3", "n80"}),
        frozenset({"less", "n5"}),
        frozenset({"twice", "n7", "n60"}),
        frozenset({"rest", "n9", "n90"}),
    }


@pytest.mark.parametrize("kinds", [12, 300])
def test_a_table_beside_a_column_among_a_hundred(kinds: int) -> None:
    random = np.random.default_rng(kinds)
    numbers = {f"n{k}": random.integers(0, 100_000, ROWS) for k in range(98)}
    kind = random.integers(0, kinds, ROWS)
    numbers["n50"][: ROWS // 20] = 7
    columns = numbers | {"kind": kind, "moved": numbers["n50"] + random.integers(0, 10**5, kinds)[kind]}
    derived = check(columns, keep=["kind", *numbers])
    assert derived["moved"].terms == (Term(column="n50", factor=1),)
    assert derived["moved"].keys == ("kind",)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(EXHAUSTIVE + 1, 90),
    nulls=st.sampled_from([0.01, 0.5, 0.9]),
    zeros=st.sampled_from([0.0, 0.5, 0.9]),
    wrapped=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)  # none of 1,080 was missed, but one may be
def test_sums_of_many_columns_are_those_of_a_few(
    seed: int, count: int, nulls: float, zeros: float, wrapped: bool
) -> None:
    """What is found among many columns is found among the few that take part, and the other way round."""
    random = np.random.default_rng(seed)
    symbols = random.integers(0, 1_000, (4_000, count))
    symbols[:, 3] *= random.random(4_000) >= zeros
    symbols[:, 4] *= random.random(4_000) >= zeros
    symbols[:, 9] = symbols[:, 3] - symbols[:, 4]
    symbols[:, 8] = symbols[:, 5] + symbols[:, 6]
    symbols[:, 12] = 999 - symbols[:, 10] - symbols[:, 11]
    symbols[:, 8] %= 1_700 if wrapped and nulls < 0.1 else 10_000
    valued = random.random(symbols.shape) < 0.99
    valued[:, [5, 6, 8]] &= random.random((4_000, 1)) >= nulls
    assert related(symbols, valued, range(count)) == related(symbols, valued, range(3, 13))


def related(symbols: Any, valued: Any, numbers: Sequence[int]) -> set[tuple[int, frozenset[int]]]:
    """Columns and those that they are sums of: of columns that are mostly 0 signs are not told apart on a sample."""
    return {(s.target, frozenset(u for u, _ in s.terms)) for s in sums(symbols, valued, numbers)}


def test_hundreds_of_columns_of_small_numbers_are_few_sums() -> None:
    """By chance nearly every sum of such columns is another one on a handful of rows; few of these are looked at."""
    symbols = RNG.integers(0, 3, (4_000, 300)) * (RNG.random((4_000, 300)) < 0.2)
    tried = list(_hashed(symbols, np.ones(symbols.shape, bool), range(300)))
    assert len(tried) < 10 * 300


def test_clock_times_wrap_at_midnight() -> None:
    planned = RNG.integers(0, 1440, ROWS)
    delay = np.minimum(RNG.exponential(20, ROWS).astype(int), 700) - 15
    actual = (planned + delay) % 1440
    columns = {"planned": clock(planned), "actual": clock(actual), "delay": delay}
    derived = check(columns)
    assert len(derived) == 1
    assert next(iter(derived.values())).modulus == 1440
    assert list(check(columns, keep=["planned", "actual"])) == ["delay"]


def test_nulls_of_another_column_are_followed() -> None:
    a, b = RNG.integers(0, 50_000, ROWS), RNG.integers(0, 50_000, ROWS)
    lost = RNG.random(ROWS) < 0.015
    columns = {
        "a": a,
        "b": b,
        "c": pa.array(a - b, mask=lost),
        "d": pa.array(RNG.integers(0, 99, ROWS), mask=lost),
    }
    derived = check(columns, keep=["a", "b", "d"])
    assert derived["c"].follows == "d"
    assert {term.column for term in derived["c"].terms} == {"a", "b"}


def test_of_many_columns_with_its_nulls_the_one_with_no_others_is_followed() -> None:
    a, b = RNG.integers(0, 50_000, ROWS), RNG.integers(0, 50_000, ROWS)
    lost = RNG.random(ROWS) < 0.015
    more = {
        f"m{k}": pa.array(RNG.integers(0, 99, ROWS), mask=lost | (RNG.random(ROWS) < 0.3)) for k in range(6)
    }
    columns = {"a": a, "b": b, **more, "c": pa.array(a - b, mask=lost)}
    columns["same"] = pa.array(RNG.integers(0, 99, ROWS), mask=lost)
    assert check(columns, keep=["a", "b", "same", *more])["c"].follows == "same"


def test_a_column_plus_a_table_of_two_others() -> None:
    month, day, hour = RNG.integers(1, 13, ROWS), RNG.integers(1, 29, ROWS), RNG.integers(0, 24, ROWS)
    offset = RNG.integers(0, 10**5, (13, 29))[month, day]
    columns = {"month": month, "day": day, "hour": hour, "at": offset + hour}
    derived = check(columns, keep=["month", "day", "hour"])
    assert derived["at"].terms == (Term(column="hour", factor=1),)
    assert set(derived["at"].keys) == {"month", "day"}


def test_a_few_exceptions_are_stored_and_many_are_no_function() -> None:
    a, b = RNG.integers(0, 10_000, ROWS), RNG.integers(0, 10_000, ROWS)
    few, many = a + b, a + b
    few[RNG.integers(0, ROWS, 20)] += 1
    many = np.where(RNG.random(ROWS) < 0.2, RNG.integers(0, 20_000, ROWS), many)
    assert len(check({"a": a, "b": b, "c": few})) == 1
    assert check({"a": a, "b": b, "c": many}) == {}


def test_columns_that_determine_each_other_are_not_both_derived() -> None:
    hour, minute = RNG.integers(0, 24, ROWS), RNG.integers(0, 60, ROWS)
    derived = check({"hour": hour, "minute": minute, "time": hour * 60 + minute, "copy": hour * 60 + minute})
    assert sorted(derived) in (["copy", "hour", "minute"], ["hour", "minute", "time"])


def test_copies_and_shifts() -> None:
    a = RNG.integers(0, 500_000, ROWS)
    assert len(check({"a": a, "b": a, "c": 1000 - a})) == 2


def test_identifiers_are_no_keys() -> None:
    plane = RNG.integers(0, 3000, ROWS)
    airline = (plane * 7919 % 13).astype(str)
    columns = {"plane": np.char.add("N", plane.astype(str)), "airline": airline}
    assert found(columns) == {}


def test_noise_follows_from_nothing() -> None:
    assert found({name: RNG.integers(0, 50, ROWS) for name in "abcdefgh"}) == {}


def test_few_rows_and_none() -> None:
    assert found({"a": [1, 2, 3], "b": [2, 4, 6]}) == {}
    assert found({"a": pa.array([], pa.int64())}) == {}


def test_a_table_of_the_wrong_length_is_damage() -> None:
    grid, coded = code(pa.table({"a": [1, 2, 3], "b": [1, 2, 3]}))
    cells = {name: Cells(c.symbols, c.state) for name, c in coded.items()}
    function = Derived(name="b", keys=("a",), table=(1, 2))
    with pytest.raises(DamagedError, match="'b' has 2 entries where its keys ask 6"):
        function.evaluate({g.name: g for g in grid.columns}, cells.__getitem__, 3)


def test_circles_are_refused() -> None:
    circle = [Derived(name="a", keys=("b",)), Derived(name="b", keys=("a",))]
    with pytest.raises(ValueError, match="follow from each other"):
        structure.order(circle)


def test_results_outside_the_grid_are_nulls() -> None:
    grid, coded = code(pa.table({"a": [1, 2, 3], "b": [1, 2, 3]}))
    cells = {name: Cells(c.symbols, c.state) for name, c in coded.items()}
    function = Derived(name="b", terms=(Term(column="a", factor=5),))
    result = function.evaluate({g.name: g for g in grid.columns}, cells.__getitem__, 3)
    assert result.states.tolist() == [1, 1, 1]
    assert result.symbols.tolist() == [0, 0, 0]
