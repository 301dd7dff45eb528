"""What the encoder sees of a row, and what training is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.grid import Coded
from vae.codec.plan import Plan
from vae.features import MAX_NAMES, NUMBER_BINS, Layout, blank_model, make_layout, row_view, training_arrays

Prepare = Callable[..., Any]


def layout_of(columns: dict[str, list[int]], *, ordered: bool = True, high: int = 5_000) -> Layout:
    items = [
        {"name": n, "head": 2, "low": 0, "high": high, "ordered": ordered, "contexts": ((),)} for n in columns
    ]
    plan = Plan.model_validate({"latents": 2, "width": 4, "columns": items})
    empty = pa.array([], pa.int64())
    coded = {
        name: Coded(
            np.maximum(np.array(values, np.int64), 0),
            np.where(np.array(values) < 0, 1, 0).astype(np.uint8),
            empty,
        )
        for name, values in columns.items()
    }
    return make_layout(plan, coded)


def view_of(layout: Layout, cells: list[list[int]]) -> dict[str, Any]:
    """Symbols below 0 are nulls."""
    symbols = np.array(cells, np.int64)
    return row_view(layout, np.maximum(symbols, 0), (symbols < 0).astype(np.uint8))


def test_numbers_are_standardised_and_binned_over_what_is_present() -> None:
    layout = layout_of({"n": [*range(100), -1, -1]})
    view = layout.views[0]
    assert (view.mean, view.scale) == (49.5, np.arange(100).std())
    assert len(view.bins) == NUMBER_BINS - 1
    shown = view_of(layout, [[0], [99], [5_000], [-1]])
    assert shown["value"].dtype == np.float32
    assert shown["value"][:2, 0].tolist() == [-np.float32(49.5 / view.scale), np.float32(49.5 / view.scale)]
    assert shown["value"][3, 0] == 0
    assert shown["entry"][:, 0].tolist() == [0, NUMBER_BINS - 1, NUMBER_BINS - 1, NUMBER_BINS]
    assert view.entries == NUMBER_BINS + 1


def test_names_have_entries_by_frequency_and_share_one_beyond_the_most_frequent() -> None:
    layout = layout_of({"c": [7, 7, 7, 3, 3, 9, -1]}, ordered=False)
    assert layout.views[0].names == (7, 3, 9)
    assert view_of(layout, [[7], [3], [9], [8], [4_999], [-1]])["entry"][:, 0].tolist() == [0, 1, 2, 3, 3, 4]
    many = layout_of({"c": [*range(700), *range(600)]}, ordered=False)
    assert many.views[0].names == tuple(range(MAX_NAMES))
    assert view_of(many, [[0], [511], [512], [699]])["entry"][:, 0].tolist() == [0, 511, 512, 512]


@settings(max_examples=40)
@given(
    seen=st.lists(st.integers(-1, 60), min_size=1, max_size=50),
    asked=st.integers(-1, 5_000),
    ordered=st.booleans(),
)
def test_every_cell_has_an_entry_of_its_column(seen: list[int], asked: int, ordered: bool) -> None:
    layout = layout_of({"a": seen}, ordered=ordered)
    shown = view_of(layout, [[asked]])
    assert 0 <= shown["entry"][0, 0] < layout.views[0].entries
    assert (shown["entry"][0, 0] == layout.views[0].entries - 1) == (asked < 0)
    assert np.isfinite(shown["value"]).all()
    assert np.isfinite(layout.scales[0])


def test_columns_that_are_missing_throughout_have_a_view() -> None:
    for ordered in (True, False):
        layout = layout_of({"a": [-1, -1]}, ordered=ordered)
        assert view_of(layout, [[-1], [4]])["entry"].shape == (2, 1)


def test_a_layout_survives_json() -> None:
    layout = layout_of({"a": [1, 5, 9], "b": [3, 3, 3]})
    assert Layout.model_validate_json(layout.model_dump_json()) == layout


def test_scales_are_the_typical_step_in_octaves() -> None:
    assert layout_of({"a": [0, 7, 0, 7, 0]}).scales == (3.0,)
    assert layout_of({"a": [4, 4, 4]}).scales == (0.0,)
    assert layout_of({"a": [4]}).scales == (0.0,)


def test_training_is_given_each_block_as_the_codec_will_see_it(prepare: Prepare, varied: Any) -> None:
    made = prepare(varied(250), block_rows=100)
    model = blank_model(made.layout.plan)
    for start in (0, 100, 200):
        rows = slice(start, min(start + 100, 250))
        alone = model.observe(made.symbols[rows], made.states[rows])
        for name, array in alone.items():
            assert torch.equal(made.batch[name][rows], torch.from_numpy(array)), name
    assert made.batch["first"].nonzero().flatten().tolist() == [0, 100, 200]
    assert {name: len(array) for name, array in made.batch.items()} == dict.fromkeys(made.batch, 250)
    for name in ("value", "entry"):
        assert torch.equal(made.batch[f"{name}_above"][1:], made.batch[name][:-1])
    assert made.batch["symbol"].numpy().tolist() == made.symbols.tolist()
    assert made.batch["state"].numpy().tolist() == made.states.tolist()


def test_the_rows_of_a_block_do_not_depend_on_what_follows(prepare: Prepare, varied: Any) -> None:
    made = prepare(varied(200))
    changed = made.symbols.copy()
    changed[150:] = changed[:50]
    again = training_arrays(made.layout, blank_model(made.layout.plan), changed, made.states, 32_768)
    for name, array in again.items():
        assert torch.equal(made.batch[name][:150], torch.from_numpy(array)[:150]), name
