"""Features: integers within 127, the same as their definitions in whole numbers of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.grid import MAX_SPAN, MAX_SYMBOL
from vae.codec.entropy import squash_table
from vae.codec.frontend import (
    FEATURE_MAX,
    N_KNOWN,
    N_PARAMETERS,
    P1,
    VALUE,
    front_of,
    key_of,
    magnitude,
    new_memory,
    predict,
    squashed,
)
from vae.codec.integer import IntegerModel
from vae.codec.plan import Plan

pytestmark = pytest.mark.jit
COMMON = settings(max_examples=100)
INT32 = st.sampled_from([-(2**31), 2**31 - 1, 0, -1]) | st.integers(-(2**31), 2**31 - 1)
SYMBOL = st.sampled_from([-MAX_SYMBOL, MAX_SYMBOL]) | st.integers(-MAX_SYMBOL, MAX_SYMBOL)


def blank(plan: Plan) -> IntegerModel:
    return IntegerModel(plan, {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()})


@COMMON
@given(difference=st.integers(-(2**34), 2**34))
@example(difference=-(2**34))
def test_differences_are_squashed_by_octaves(difference: int) -> None:
    found = squashed(difference, squash_table())
    exact = 8 * np.log2(1.0 + abs(difference))
    assert abs(abs(found) - min(exact, FEATURE_MAX)) <= 0.51 + 0.02 * (abs(difference) > 1023)
    assert found * difference >= 0


@COMMON
@given(value=INT32, center=INT32, spread=st.integers(1, 1 << 30))
@example(value=2**31 - 1, center=-(2**31), spread=1 << 30)
def test_magnitudes_are_clipped_not_wrapped(value: int, center: int, spread: int) -> None:
    whole = ((value - center) * spread) >> 16
    found = magnitude(*np.array([value, center, spread], np.int64))
    assert found == min(max(whole, -FEATURE_MAX), FEATURE_MAX)


WEIGHT = st.sampled_from([-(1 << 26), 1 << 26]) | st.integers(-(1 << 26), 1 << 26)


@COMMON
@given(data=st.data(), count=st.integers(1, 16), low=st.integers(-MAX_SYMBOL, MAX_SYMBOL - MAX_SPAN))
def test_linear_predictions_are_those_of_unbounded_integers(
    data: st.DataObject, count: int, low: int
) -> None:
    extreme = data.draw(st.booleans())  # all weights and values at one end: the largest sum there is
    weight = st.just(1 << 26) if extreme else WEIGHT
    value = st.just(MAX_SYMBOL) if extreme else SYMBOL
    draw = [data.draw(st.lists(weight, min_size=count, max_size=count)) for _ in range(2)]
    own, constant = data.draw(weight), data.draw(st.sampled_from([1 << 52, -(1 << 52), 0]))
    columns = [number_item(f"n{k}", -MAX_SYMBOL, -MAX_SYMBOL + 5) for k in range(count)]
    linear = {"sources": range(count), "now": draw[0], "before": draw[1], "own": own, "constant": constant}
    columns.append(number_item("target", low, low + MAX_SPAN - 1) | {"linear": linear, "components": (3,)})
    front = front_of(Plan.model_validate({"latents": 0, "width": 1, "columns": columns}), squash_table())
    row = new_memory(front, 1).row
    row[:, VALUE] = data.draw(st.lists(value, min_size=count + 1, max_size=count + 1))
    row[:, P1] = data.draw(st.lists(value, min_size=count + 1, max_size=count + 1))
    row[: count // 2, 5] = 1  # state: these show their previous value
    now = [int(row[k, P1] if row[k, 5] else row[k, VALUE]) for k in range(count)]
    total = own * int(row[count, P1]) + constant
    total += sum(a * b for a, b in zip(draw[0], now, strict=True))
    total += sum(a * int(b) for a, b in zip(draw[1], row[:count, P1], strict=True))
    whole = (total + 32768) >> 16
    assert predict(count, front, row) == min(max(whole, low - MAX_SPAN), low + 2 * MAX_SPAN - 1)


def number_item(name: str, low: int, high: int, **more: Any) -> dict[str, Any]:
    base = {
        "name": name,
        "head": 1,
        "low": low,
        "high": high,
        "ordered": True,
        "components": (1,),
        "center": low,
    }
    return base | more


@COMMON
@given(cells=st.lists(st.tuples(SYMBOL, st.integers(0, 3)), min_size=5, max_size=5), low=SYMBOL)
def test_keys_tell_states_and_stay_within_42_bits(cells: list[tuple[int, int]], low: int) -> None:
    items = np.full((5, N_PARAMETERS), low, np.int64)
    row = np.zeros((5, N_KNOWN), np.int64)
    row[:, VALUE], row[:, 5] = np.array(cells).T
    key = key_of(np.arange(5), items, row)
    assert 0 <= key < 2**42
    row[4, 5] ^= 1
    assert key_of(np.arange(5), items, row) != key
    assert key_of(np.full(5, -1), items, row) == 0


def mixed_plan(*, history: bool = False) -> Plan:
    linear = {"sources": (1,), "now": (1 << 17,), "before": (0,), "own": 0, "constant": 0}
    return Plan.model_validate({
        "latents": 0,
        "width": 1,
        "columns": (
            {"name": "c", "head": 0, "low": 0, "high": 2, "ordered": False},
            {"name": "n", "head": 1, "low": -5, "high": 500, "ordered": True, "components": (2,), "bins": (3, 7),
             "history": history},
            number_item("m", 0, 2000, history=history, components=(3, 4), linear=linear, recall=(0,), spread=1 << 16),
            {"name": "i", "head": 2, "low": 0, "high": 999, "ordered": False, "contexts": ((0,), ())},
        ),
    })  # fmt: skip


def test_what_the_network_is_shown_row_by_row() -> None:
    """Worked by hand from the definitions."""
    symbols = np.array([[0, 2, 4, 7], [1, 6, 12, 7], [0, 0, 9, 8], [0, 9, 18, 7]])
    states = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
    shown = blank(mixed_plan()).observe(symbols, states)
    squash = squash_table()
    # n: magnitude (spread 1/65536: nothing), step of the two rows above, missing
    assert shown["before"][:, 1, :3].tolist() == [
        [0, 0, 0],
        [0, squash[2], 0],
        [0, squash[4], 0],
        [0, squash[4], 32],
    ]
    # after: magnitude, step, same, missing; a missing one shows the value above
    assert shown["after"][:, 1, 1:4].tolist() == [
        [squash[2], 0, 0], [squash[4], 0, 0], [0, 32, 32], [squash[3], 0, 0]
    ]  # fmt: skip
    # m: predicted is twice n (the value above where n is missing), recalled the last with the same c
    assert shown["bases"][:, 2, 3].tolist() == [4, 12, 12, 18]
    assert shown["bases"][:, 2, 4].tolist() == [0, 4, 4, 9]
    assert shown["before"][:, 2, 5].tolist() == [0, 0, 32, 32]
    # bases: center, above, extrapolated within the symbols
    assert shown["bases"][:, 1, :3].tolist() == [[0, 0, 0], [0, 2, 4], [0, 6, 10], [0, 6, 10]]
    # bins of n: below 3, below 7, above, and one for missing
    first = shown["places"][0, 1, 1]
    assert (shown["places"][:, 1, 1] - first).tolist() == [0, 1, 3, 2]
    # i: class 0 knows it with this c, 1 knows it at all, 2 knows it not; then which classes are open
    assert shown["classes"][:, 3].tolist() == [[2, 0, 0, 1], [1, 0, 1, 1], [2, 1, 1, 1], [0, 1, 1, 1]]
    assert np.allclose(shown["member"][:, 3], [np.log2(1000), 0, np.log2(1000), 1])


def test_history_is_shown_row_by_row() -> None:
    """Worked by hand: a missing cell leaves everything as it was, and interrupts no run."""
    item = number_item("n", -5, 500, center=3, history=True, components=(1,))
    plan = Plan.model_validate({"latents": 0, "width": 1, "columns": (item,)})
    symbols = np.array([[7, 7, 7, 9, 9, 0, 9, 2, 40]]).T
    states = np.array([[0, 0, 0, 0, 0, 1, 0, 0, 0]], np.uint8).T
    shown = blank(plan).observe(symbols, states)["before"][:, 0, 3:9].tolist()
    squash = squash_table()
    steps = [  # p2 - p3, p3 - p4, p1 - other, run, last run, their difference
        (0, 0, 0, 0, 0, 0),  # all are the center
        (0, 0, 4, 0, 0, 0),  # 7 above, 3 the last other
        (4, 0, 4, 1, 0, 1),  # 7 7
        (0, 4, 4, 2, 0, 2),  # 7 7 7
        (0, 0, 2, 0, 2, -2),  # 7 7 7 9
        (2, 0, 2, 1, 2, -1),  # 7 7 7 9 9
        (2, 0, 2, 1, 2, -1),  # a missing one
        (0, 2, 2, 2, 2, 0),  # 7 7 7 9 9 9
        (0, 0, -7, 0, 2, -2),  # 7 7 7 9 9 9 2
    ]
    assert shown == [[int(np.sign(x) * squash[abs(x)]) for x in row] for row in steps]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 12))
def test_features_stay_within_127_and_missing_symbols_do_not_matter(seed: int, rows: int) -> None:
    random, plan = np.random.default_rng(seed), mixed_plan(history=bool(seed % 2))
    symbols = np.stack([random.integers(i.low, i.high + 1, rows) for i in plan.columns], 1)
    states = random.choice([0, 0, 1, 2, 3], symbols.shape).astype(np.uint8)
    shown = blank(plan).observe(symbols, states)
    for name in ("before", "after"):
        assert np.abs(shown[name].astype(int)).max(initial=0) <= FEATURE_MAX
    again = blank(plan).observe(np.where(states == 0, symbols, 0), states)
    assert all((shown[name] == again[name]).all() for name in shown)
