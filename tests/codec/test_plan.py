"""A plan is sound or refused: nothing looks ahead, nothing is larger than the loop was proved for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from data.grid import MAX_SPAN, MAX_SYMBOL
from vae.codec.plan import MAX_ITEMS, MAX_OUTPUTS, MAX_TABLES, Head, Item, Linear, Plan


def number(name: str = "n", **more: Any) -> dict[str, Any]:
    base = {"name": name, "head": 1, "low": 0, "high": 999, "ordered": True, "components": (0, 1, 2)}
    return base | more


def names(name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "head": 0, "low": 0, "high": 3, "ordered": False} | more


def plan(*columns: dict[str, Any], **more: Any) -> Plan:
    return Plan.model_validate({"latents": 2, "width": 4, "columns": columns} | more)


LINEAR = {"sources": (0,), "now": (65536,), "before": (-65536,), "own": 65536, "constant": 0}


def test_a_plan_survives_json() -> None:
    whole = plan(
        names("a", states=(1, 3)),
        number("b", states=(2,), bins=(10, 500), center=400, spread=7),
        number("c", linear={**LINEAR, "sources": (1,)}, recall=(0, 1), components=(3, 4, 0), unit=3),
        names("d", head=2, high=9_999, contexts=((0, 2), (0,), ())),
    )
    text = whole.model_dump_json(exclude_defaults=True)
    assert Plan.model_validate_json(text) == whole
    assert Plan.model_validate_json(whole.model_dump_json()) == whole
    assert whole.names == ["a", "b", "c", "d"]
    assert [item.tables for item in whole.columns] == [0, 0, 1, 3]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ([number("a", recall=(0,))], "column 'a' looks at a column that is not before it"),
        ([number("a"), number("b", recall=(2,))], "column 'b' looks at a column that is not before it"),
        ([number("a"), number("b", recall=(-1,))], "column 'b' looks at a column that is not before it"),
        ([number("a", linear=LINEAR)], "column 'a' looks at a column that is not before it"),
        (
            [names("a", head=2, contexts=((1,),)), names("b")],
            "column 'a' looks at a column that is not before it",
        ),
        (
            [names("a"), number("b", linear=LINEAR)],
            "column 'b': a linear prediction from a column without magnitudes",
        ),
        ([number("a"), number("a")], "a column stands twice in the model"),
        ([number("a", high=-1)], "column 'a': 0 symbols"),
        ([number("a", high=MAX_SPAN)], f"column 'a': {MAX_SPAN + 1} symbols"),
        ([names("a", high=131)], "column 'a': 132 outputs"),
        ([number("a", components=())], "column 'a': a mixture without components"),
        ([names("a", head=2)], "column 'a': a memory without contexts"),
        ([number("a", bins=(5, 5))], "column 'a': bins and states must rise"),
        ([number("a", states=(2, 1))], "column 'a': bins and states must rise"),
        ([number("a", components=(3,))], "column 'a': a component without its base"),
        ([number("a", components=(4,))], "column 'a': a component without its base"),
        (
            [names(f"m{k}", head=2, contexts=((), (), (), ())) for k in range(MAX_TABLES // 4 + 1)],
            f"{MAX_TABLES + 4} tables that remember; at most {MAX_TABLES} are admitted",
        ),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_an_unsound_plan_is_refused_with_its_reason(columns: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        plan(*columns)
    assert refusal.value.errors()[0]["msg"] == f"Value error, {complaint}"


@pytest.mark.parametrize(
    "lie",
    [
        {"low": -(1 << 31), "high": -(1 << 31)},
        {"low": MAX_SYMBOL, "high": MAX_SYMBOL + 1},
        {"center": 1 << 31},
        {"center": -(1 << 31) - 1},
        {"center": 10**30},
        {"spread": 0},
        {"spread": (1 << 30) + 1},
        {"bins": (1 << 31,)},
        {"bins": tuple(range(64))},
        {"states": (0,)},
        {"states": (4,)},
        {"components": (5,)},
        {"components": (0,) * 9},
        {"unit": 21},
        {"unit": -1},
        {"recall": (0,) * 6},
        {"contexts": ((),) * 5},
        {"contexts": ((0,) * 6,)},
        {"head": 3},
        {"ordered": 2},
        {"colour": "red"},
    ],
    ids=str,
)
def test_an_item_beyond_the_limits_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plan(number("a"), number("b", **lie))


@pytest.mark.parametrize(
    "lie",
    [
        {"now": (1 << 27,)},
        {"before": (-(1 << 27),)},
        {"own": (1 << 26) + 1},
        {"constant": (1 << 52) + 1},
        {"now": ()},
        {"before": (1, 2)},
        {"sources": (0,) * 17, "now": (0,) * 17, "before": (0,) * 17},
    ],
    ids=str,
)
def test_a_linear_prediction_beyond_the_limits_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Linear.model_validate(LINEAR | lie)


@pytest.mark.parametrize(
    "lie",
    [
        {"latents": 257},
        {"latents": -1},
        {"width": 0},
        {"width": 257},
        {"reach": 31},
        {"fraction": 3},
        {"fraction": 11},
    ],
    ids=str,
)
def test_a_plan_beyond_the_limits_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plan(number("a"), **lie)
    with pytest.raises(ValidationError):
        plan(*(number(f"n{k}") for k in range(MAX_ITEMS + 1)))


def test_weights_have_the_shapes_of_what_is_seen() -> None:
    shapes = plan(
        names("c"),
        number("n", bins=(5, 9), linear=None, recall=(0,), states=(1,)),
        number("k", high=5, head=0),
    ).shapes()
    assert shapes["prior.head"] == (2, 11, 16)
    assert shapes["column.c.embed_before"] == shapes["column.c.embed_after"] == (5, 4)
    assert shapes["column.n.before"] == (5, 4)
    assert shapes["column.n.after"] == (5, 4)
    assert shapes["column.n.embed_after"] == (4, 4)
    assert "column.n.embed_before" not in shapes
    assert shapes["column.n.head"] == (1 + 9, 4)
    assert shapes["column.k.embed_after"] == (7, 4)
    assert not any(name.startswith(("prior", "code")) for name in plan(names(), latents=0).shapes())
    old, new = plan(names()).shapes(), plan(names(), above=True, prior_width=3).shapes()
    more = {"prior.above": (2, 2, 3), "prior.same": (2, 3), "prior.stay": (2,)}
    assert {name: shape for name, shape in new.items() if name not in old} == more
    # behind what older plans have, before the columns
    assert [name for name in new if name not in more] == list(old)
    assert list(new)[6:9] == list(more)
    deepest = plan(names(), above=True, deep=True, prior_width=3).shapes()
    layer = {"prior.hidden": (2, 3, 3), "prior.hidden_bias": (2, 3)}
    assert list(deepest)[9:11] == list(layer)
    assert deepest == new | layer
    assert list(plan(names(), deep=True, prior_width=3).shapes())[6:8] == list(layer)
    direct = plan(names(), above=True, direct=True, prior_width=3).shapes()
    past = {f"column.{item.name}.direct": new[f"column.{item.name}.before"] for item in plan(names()).columns}
    assert direct == new | past
    ordered = list(direct)
    assert all(ordered[ordered.index(name) - 1] == name.replace("direct", "before") for name in past)


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        ("above", "no latents that could see those of the row above"),
        ("deep", "no latents whose prior could have one more layer"),
    ],
)
def test_a_richer_prior_is_asked_for_by_name_and_only_with_latents(wish: str, complaint: str) -> None:
    assert not getattr(plan(names()), wish)
    asked = plan(names(), **{wish: True})
    assert getattr(asked, wish)
    assert wish not in plan(names()).model_dump_json(exclude_defaults=True)
    assert Plan.model_validate_json(asked.model_dump_json(exclude_defaults=True)) == asked
    with pytest.raises(ValidationError, match=complaint):
        plan(names(), latents=0, **{wish: True})
    with pytest.raises(ValidationError):
        plan(names(), **{wish: "some"})


def test_history_is_six_more_features_of_a_number_and_none_of_a_name() -> None:
    told = plan(names("c", history=True), number("n", history=True), number("m", history=False))
    assert [item.before for item in told.columns] == [1, 9, 3]
    assert [item.after for item in told.columns] == [1, 4, 4]
    text = told.model_dump_json(exclude_defaults=True)
    assert text.count("history") == 2
    assert Plan.model_validate_json(text) == told


def test_outputs_are_at_most_128_and_one_for_each_state() -> None:
    assert plan(names(high=MAX_OUTPUTS - 1, states=(1, 2, 3))).columns[0].outputs == 131
    with pytest.raises(ValidationError, match="column 'c': 132 outputs"):
        plan(names(high=MAX_OUTPUTS, states=(1, 2, 3)))


def test_heads_are_numbered_as_files_have_them() -> None:
    assert [(head.name, head.value) for head in Head] == [("softmax", 0), ("mixture", 1), ("memory", 2)]
    assert Item.model_validate(names()).outputs == 4
