"""Plans are made by measurement, for any table, and look only at what is decoded before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.grid import Coded, ColumnGrid, TableGrid
from data.gridfit import fit_table
from vae import planning
from vae.codec.plan import MAX_ITEMS, MAX_TABLES, Head, Item, Plan
from vae.features import blank_model, block
from vae.planning import FEW_ROWS, MANY, MAX_GREEDY_PARENTS, MAX_RETRIED, is_series, make_plan
from vae.settings import Codes, ModelSettings, latents_of

NUMBERS = np.random.default_rng(5)


def on_grid(columns: Mapping[str, Any]) -> tuple[TableGrid, dict[str, Coded]]:
    table = pa.table(dict(columns))
    grid = fit_table(table)
    return grid, {c.name: c.encode(table[c.name]) for c in grid.columns if c.kind != "opaque"}


def plan_of(columns: Mapping[str, Any], latents: int = 2) -> Plan:
    grid, coded = on_grid(columns)
    plan = make_plan(grid, coded, latents=latents, width=4)
    assert sorted(plan.names) == sorted(coded)
    assert_looks_back(plan)
    if plan.columns:
        symbols, states = block(coded, plan.names)
        codes = np.zeros((len(symbols), plan.latents), np.int8)
        model = blank_model(plan)
        rows = min(len(symbols), 200)
        streams = model.encode_block(symbols[:rows], states[:rows], codes[:rows])
        back = model.decode_block(streams, rows)
        assert (back[0] == symbols[:rows]).all()
        assert (back[1] == states[:rows]).all()
    return plan


def assert_looks_back(plan: Plan) -> None:
    for j, item in enumerate(plan.columns):
        seen = {*item.recall, *(p for context in item.contexts for p in context)}
        seen |= set(item.linear.sources) if item.linear else set()
        assert all(0 <= source < j for source in seen)


def item_of(plan: Plan, name: str) -> Item:
    return plan.columns[plan.names.index(name)]


def bases(plan: Plan, name: str) -> set[str]:
    """Columns that column `name` looks at."""
    item = item_of(plan, name)
    seen = {*item.recall, *(p for context in item.contexts for p in context)}
    seen |= set(item.linear.sources) if item.linear else set()
    return {plan.names[s] for s in seen}


# ------------------------------------------------------------------------------------------------------ any table


def column(kind: str, rows: int, random: np.random.Generator) -> pa.Array:
    """A column of one kind, with nulls in every third."""
    made: dict[str, Any] = {
        "number": random.integers(-50, 5_000, rows),
        "huge": random.integers(0, 2**20, rows) * 10**9,
        "walk": np.cumsum(random.integers(-3, 9, rows)),
        "decimal": np.round(random.normal(size=rows), 2),
        "name": random.integers(0, 3, rows).astype(str),
        "identifier": random.integers(0, 90, rows).astype(str),
        "truth": random.random(rows) < 0.5,
        "constant": np.full(rows, 7),
        "odd": random.choice([1.5, np.nan, np.inf, 0.25], rows),
        "null": np.zeros(rows),
    }
    missing = np.ones(rows, bool) if kind == "null" else random.random(rows) < 0.1
    return pa.array(made[kind], mask=missing if random.random() < 0.4 or kind == "null" else None)


KINDS = ["number", "huge", "walk", "decimal", "name", "identifier", "truth", "constant", "odd", "null"]


@settings(max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(KINDS), max_size=7), rows=st.integers(1, 200), seed=st.integers(0, 2**32)
)
def test_any_table_has_a_plan_whose_columns_look_back_only(kinds: list[str], rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    plan_of({f"{kind}{k}": column(kind, rows, random) for k, kind in enumerate(kinds)})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 2, 500])
def test_tables_of_one_kind_have_a_plan(kind: str, rows: int) -> None:
    random = np.random.default_rng(rows)
    plan_of({f"{kind}{k}": column(kind, rows, random) for k in range(3)})


def test_columns_that_are_all_null_in_the_rows_seen_have_a_plan() -> None:
    table = pa.table({"n": [1, 900, None, None], "s": ["a", "b", None, None], "t": [5.5, 7.25, None, None]})
    grid = fit_table(table)
    coded = {c.name: c.encode(table[c.name].slice(2)) for c in grid.columns}
    plan = make_plan(grid, coded, latents=0, width=4)
    assert [item.states for item in plan.columns] == [(1,)] * 3


def test_a_wide_table_of_every_kind_has_a_plan() -> None:
    columns = {f"c{k}": column(KINDS[k % len(KINDS)], 50, NUMBERS) for k in range(200)}
    table = pa.table(columns)
    grid = fit_table(table)
    coded = {c.name: c.encode(table[c.name]) for c in grid.columns if c.kind != "opaque"}
    assert_looks_back(make_plan(grid, coded, latents=2, width=4))


def test_columns_beyond_what_a_plan_holds_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = TableGrid(columns=tuple(ColumnGrid(name=f"c{k}", kind="number") for k in range(MAX_ITEMS + 5)))
    coded = {c.name: c.encode(pa.array([0])) for c in grid.columns}
    assert make_plan(grid, coded, latents=0, width=1).names == [f"c{k}" for k in range(MAX_ITEMS)]
    monkeypatch.setattr(planning, "MAX_TABLES", 7)
    plan_small = tables_of(NUMBERS.integers(0, 80, (400, 5)))
    assert sum(item.tables for item in plan_small.columns) <= 7 < MAX_TABLES
    assert len(plan_small.columns) == 5
    monkeypatch.setattr(planning, "MAX_TABLES", 3)
    assert len(tables_of(NUMBERS.integers(0, 80, (400, 5))).columns) == 3


def test_a_number_does_without_recall_where_no_table_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    key = NUMBERS.integers(0, 40, 4_000)
    columns = {
        "key": key.astype(str),
        "value": NUMBERS.integers(0, 90_000, 40)[key] + NUMBERS.integers(0, 7, 4_000),
    }
    assert item_of(plan_of(columns), "value").tables == 1
    monkeypatch.setattr(planning, "MAX_TABLES", 0)
    item = item_of(plan_of(columns), "value")
    assert item.recall == ()
    assert item.components
    assert planning.RECALLED not in item.components


def tables_of(cells: Any) -> Plan:
    """The plan of columns of names; each but the first two follows from the ones before it."""
    cells[:, 2] = (cells[:, 0] * 7 + cells[:, 1]) % 80
    cells[:, 3] = (cells[:, 1] * 3 + 5) % 80
    cells[:, 4] = (cells[:, 3] * 3 + 5) % 80
    table = pa.table({f"c{k}": cells[:, k].astype(str) for k in range(5)})
    grid = fit_table(table)
    return make_plan(grid, {c.name: c.encode(table[c.name]) for c in grid.columns}, latents=0, width=4)


# ---------------------------------------------------------------------------------------------- what is found out


def test_few_symbols_get_an_output_each_and_many_names_a_memory() -> None:
    plan = plan_of({
        "truth": NUMBERS.random(500) < 0.5,
        "few": NUMBERS.integers(0, 60, 500),
        "many": NUMBERS.integers(0, 64, 5_00).astype(str),
        "wide": NUMBERS.integers(0, 10_000, 500),
    })  # fmt: skip
    heads = {item.name: item.head for item in plan.columns}
    assert heads == {"truth": Head.softmax, "few": Head.softmax, "many": Head.softmax, "wide": Head.mixture}


@pytest.mark.parametrize(("names", "told", "untold"), [(64, 1, 1), (65, 1, 0), (128, 1, 0), (129, 0, 0)])
def test_a_softmax_over_many_names_is_for_a_code_that_can_tell_them(
    names: int, told: bool, untold: bool
) -> None:
    """Counts have no weights to pay for, but no code moves them."""
    column = np.tile(np.arange(names), 40)
    for latents, softmax in ((2, told), (0, untold)):
        item = plan_of({"many": column.astype(str)}, latents=latents).columns[0]
        assert item.head is (Head.softmax if softmax else Head.memory)
    assert plan_of({"many": column}).columns[0].head is (Head.softmax if names <= 64 else Head.mixture)


def test_numbers_that_are_names_are_counted_and_smooth_ones_are_not() -> None:
    """Flight numbers and the like: a few that occur often among many that never do."""
    key = NUMBERS.integers(0, 30, 20_000)
    odd = np.sort(NUMBERS.choice(5_000, 240, replace=False))[8 * key + NUMBERS.integers(0, 8, 20_000)]
    smooth = 100 * key + NUMBERS.integers(0, 100, 20_000)
    plan = plan_of({"key": key.astype(str), "odd": odd, "smooth": smooth})
    assert item_of(plan, "odd").head is Head.memory
    assert item_of(plan, "smooth").head is Head.mixture


def test_roughness_is_what_a_number_has_and_its_neighbours_have_not() -> None:
    random = np.random.default_rng(0)
    facts = {
        "even": np.arange(2_000) % 500,
        "ninth": 9 * (np.arange(2_000) % 50),
        "hills": np.round(random.normal(0, 300, 20_000)).astype(int),
        "none": np.zeros(0, int),
    }
    found = {name: planning._roughness(facts_of(values)) for name, values in facts.items()}
    assert found["even"] == pytest.approx(0, abs=0.01)
    assert found["ninth"] == pytest.approx(np.log2(9), abs=0.1)
    assert found["hills"] < planning.ROUGH
    assert found["none"] == 0


def test_a_sample_of_few_of_the_grid_s_symbols_has_a_plan() -> None:
    """The middle, which is what is looked at, has none of the large ones."""
    x = NUMBERS.choice([0, 7], 80_000)
    x[:100] = 1_000
    assert item_of(plan_of({"x": x}), "x").head is not Head.softmax


def facts_of(values: Any) -> planning.Facts:
    low = int(values.min(initial=0))
    return planning.Facts(
        name="x", ordered=True, low=low, high=int(values.max(initial=0)), states=(), filled=values,
        present=np.ones(len(values), bool), cells=values - low, distinct=len(np.unique(values)),
        entropy=0.0, step_entropy=0.0,
    )  # fmt: skip


def test_numbers_whose_steps_say_something_show_their_history() -> None:
    walk, jump = np.cumsum(NUMBERS.integers(-2, 3, 3_000)), NUMBERS.integers(0, 900, 3_000)
    plan = plan_of({"walk": walk, "jump": jump, "name": (walk % 7).astype(str)})
    assert {item.name: item.history for item in plan.columns} == {"walk": True, "jump": False, "name": False}


def test_a_linear_dependence_is_found_with_its_weights() -> None:
    x = NUMBERS.integers(0, 3_000, 2_000)
    y = 2 * x + 100 + NUMBERS.integers(-2, 3, 2_000)
    plan = plan_of({"x": x, "y": y})
    later = plan.columns[1]
    assert later.linear is not None
    assert later.linear.sources == (0,)
    slope = 2.0 if later.name == "y" else 0.5
    assert later.linear.now[0] / 65536 == pytest.approx(slope, rel=0.01)
    assert later.components[0] == planning.LINEAR


def test_a_value_that_goes_with_a_key_is_recalled() -> None:
    key = NUMBERS.integers(0, 40, 4_000)
    value = NUMBERS.integers(0, 90_000, 40)[key] + NUMBERS.integers(-3, 4, 4_000)
    plan = plan_of({"key": key.astype(str), "value": value})
    item = item_of(plan, "value")
    assert item.recall == (plan.names.index("key"),)
    assert item.components[0] == planning.RECALLED


def test_an_identifier_remembers_what_it_goes_with() -> None:
    carrier = NUMBERS.integers(0, 12, 6_000)
    tail = carrier * 30 + NUMBERS.integers(0, 30, 6_000)
    plan = plan_of(
        {"carrier": carrier.astype(str), "tail": tail.astype(str), "noise": NUMBERS.integers(0, 9, 6_000)}
    )
    item = item_of(plan, "tail")
    assert item.head is Head.memory
    assert item.contexts == ((plan.names.index("carrier"),), ())


def test_a_walk_comes_before_what_jumps_and_is_centred_on_the_row_above() -> None:
    walk = np.cumsum(NUMBERS.integers(-2, 3, 3_000))
    plan = plan_of({"jump": NUMBERS.integers(0, 9, 3_000), "walk": walk})
    assert plan.names == ["walk", "jump"]
    assert planning.PREVIOUS in item_of(plan, "walk").components[:2]


def test_latents_see_the_row_above_where_rows_follow_on_from_each_other() -> None:
    jump, walk = NUMBERS.integers(0, 9, 3_000), np.cumsum(NUMBERS.integers(-2, 3, 3_000))
    assert plan_of({"jump": jump, "walk": walk}).above
    assert plan_of({"jump": jump, "walk": walk}).deep
    assert plan_of({"jump": jump, "stage": np.repeat(np.array(["a", "b", "c"]), 1_000)}).above
    assert not plan_of({"jump": jump, "other": NUMBERS.integers(0, 9, 3_000)}).above
    assert not plan_of({"jump": jump, "always": np.full(3_000, 7)}).above
    assert not plan_of({"walk": walk}, latents=0).above
    assert not plan_of({"walk": walk}, latents=0).deep
    assert not plan_of({}).above


def test_what_is_known_before_goes_past_the_shared_sum_where_rows_follow_on_from_each_other() -> None:
    jump, walk = NUMBERS.integers(0, 9, 3_000), np.cumsum(NUMBERS.integers(-2, 3, 3_000))
    assert plan_of({"jump": jump, "walk": walk}, latents=0).direct
    assert plan_of({"jump": jump, "walk": walk}).direct
    assert not plan_of({"jump": jump, "other": NUMBERS.integers(0, 9, 3_000)}).direct
    assert not plan_of({}).direct


def test_shares_are_fine_where_there_is_a_mixture() -> None:
    assert plan_of({"x": NUMBERS.integers(0, 500, 3_000)}).fine
    assert not plan_of({"x": NUMBERS.integers(0, 9, 3_000)}).fine


def test_features_of_magnitude_fill_their_range() -> None:
    values = NUMBERS.integers(-500_000, 500_000, 4_000)
    item = plan_of({"x": values}).columns[0]
    shown = (values - item.center) * item.spread >> 16
    assert 60 < np.quantile(np.abs(shown), 0.99) < 127
    shares = np.diff([0, *np.searchsorted(np.sort(values), item.bins), len(values)]) / len(values)
    assert len(shares) == planning.BIN_COUNT
    assert shares.max() < 2 / planning.BIN_COUNT


def test_the_same_table_has_the_same_plan() -> None:
    columns = {f"{kind}{k}": column(kind, 300, np.random.default_rng(k)) for k, kind in enumerate(KINDS)}
    assert plan_of(columns) == plan_of(columns)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 300))
def test_adaptive_counts_cost_what_they_are_worth(seed: int, rows: int) -> None:
    """The code length of PPM-C, by a dictionary and logarithms."""
    random = np.random.default_rng(seed)
    keys, values = random.integers(0, 3, rows), random.integers(0, 9, rows)
    distinct = len(set(values.tolist()))
    bits, seen = 0.0, dict[int, dict[int, int]]()
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        counts = seen.setdefault(key, {})
        room = sum(counts.values()) + len(counts)
        if value in counts:
            bits -= np.log2(counts[value] / room)
        else:
            bits += np.log2(max(2, distinct)) - (np.log2(len(counts) / room) if counts else 0.0)
        counts[value] = counts.get(value, 0) + 1
    assert planning._adaptive_bits(keys, values, distinct) == pytest.approx(bits)


@pytest.mark.jit
def test_what_was_last_seen_with_a_key_is_recalled() -> None:
    keys, values = np.array([0, 1, 0, 1, 0]), np.array([5, 6, 7, 8, 9])
    present = np.array([True, True, False, True, True])
    recalled = planning._last_with_key(keys, values, present, 2)
    assert recalled.tolist() == [5, 5, 5, 6, 5]
    flat = planning._ppm_bits(np.zeros(4, np.int64), np.arange(4), 1, 4, 4)
    assert flat == pytest.approx(8 + sum(np.log2(2 * k / k) for k in (1, 2, 3)))


def test_a_table_is_a_series_where_most_columns_follow_on() -> None:
    walks = {f"w{k}": np.cumsum(NUMBERS.integers(-1, 2, 5_000)) for k in range(3)}
    loose = {f"l{k}": NUMBERS.integers(0, 1_000, 5_000) for k in range(3)}
    assert is_series(*on_grid(walks))
    assert not is_series(*on_grid(loose))
    assert not is_series(*on_grid({**walks, **loose}))
    assert is_series(*on_grid({**walks, "l0": loose["l0"]}))
    assert not is_series(*on_grid({}))


def test_settings_and_the_table_say_how_many_latents_there_are() -> None:
    def latents(codes: Codes, asked: int | None = None) -> list[int]:
        settings = ModelSettings(codes=codes, latents=asked)
        return [latents_of(settings, series=series) for series in (True, False)]

    assert latents(Codes.balanced) == latents(Codes.rich) == [8, 16]
    assert latents(Codes.lean) == [4, 8]
    assert latents(Codes.lean, 5) == latents(Codes.rich, 5) == [5, 5]
    assert latents(Codes.none) == latents(Codes.none, 5) == [0, 0]


# ------------------------------------------------------------------------------------------------- many columns


@pytest.mark.parametrize("count", [20, 90])
def test_what_tells_a_column_is_found_among_however_many(count: int) -> None:
    """By what is measured: a table of the key tells the target, whose rank correlation with it is next to none."""
    random = np.random.default_rng(3)
    key = random.integers(0, 40, 2_000)
    others = {f"n{k}": random.integers(0, 20, 2_000) * (random.random(2_000) < 0.1) for k in range(count)}
    target = random.integers(0, 100_000, 40)[key] + random.integers(0, 40, 2_000)
    plan = make_plan(*on_grid({**others, "key": key, "target": target}), latents=2, width=4)
    assert_looks_back(plan)
    assert [plan.names[source] for source in item_of(plan, "target").recall] == ["key"]


def test_of_very_many_columns_a_few_are_tried_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    random, tried = np.random.default_rng(4), list[int]()
    measure = planning._recall_bits

    def counted(keys: Any, fact: Any) -> float:
        tried.append(len(keys))
        return measure(keys, fact)

    monkeypatch.setattr(planning, "_recall_bits", counted)
    count, rows = MANY + 20, 2_000
    make_plan(*on_grid({f"n{k}": random.integers(0, 900, rows) for k in range(count)}), latents=0, width=4)
    most = 1 + MANY + (MAX_GREEDY_PARENTS - 1) * MAX_RETRIED
    assert tried.count(rows) <= count * most
    assert tried.count(FEW_ROWS) == sum(range(MANY + 1, count))
