"""A small mixed table and a model trained on it, made once for all tests that only read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from data.gridfit import fit_table
from data.schema import Schema
from vae.codec.structure import Derived
from vae.features import Layout, blank_model, block, make_layout, training_arrays
from vae.loop import Rows
from vae.model import SparseVAE
from vae.planning import make_plan
from vae.settings import Codes, Family, ModelSettings, TrainSettings, latents_of
from vae.store import TrainedModel
from vae.train import fit

ROWS = 1_500


def mixed_table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Four groups of rows that show in every column; nulls, a category, a boolean, a number that follows."""
    random = np.random.default_rng(seed)
    group = random.integers(0, 4, rows)
    size = 40 * group + random.integers(0, 12, rows)
    color = np.array(["red", "green", "blue", "grey"])[np.where(random.random(rows) < 0.9, group, 0)]
    return pa.table({
        "size": pa.array(size, mask=random.random(rows) < 0.05),
        "weight": np.round(3.5 * size + random.normal(size=rows), 1),
        "color": color,
        "large": size > 60,
        "id": pa.array([f"{i:05d}" for i in random.permutation(rows)]),
        "always": np.full(rows, 7),
    })  # fmt: skip


def train_on(table: pa.Table, settings: ModelSettings, steps: int = 240) -> TrainedModel:
    """A model of the table; its last sixth validates."""
    grid = fit_table(table)
    names = [c.name for c in grid.columns if c.kind != "opaque" and c.name != "always"]
    coded = {name: grid[name].encode(table[name]) for name in names}
    plan = make_plan(grid, coded, latents=latents_of(settings, series=False), width=settings.width)
    always = Derived(name="always", table=(7,))
    layout = make_layout(plan, coded).model_copy(update={"derived": (always,)})
    arrays = training_arrays(layout, blank_model(plan), *block(coded, plan.names), 65_536)
    order = np.arange(len(table))
    train = TrainSettings(steps=steps, batch_rows=256, threads=1)
    rows = Rows(arrays, order[: len(table) * 5 // 6], order[len(table) * 5 // 6 :])
    module, record = fit(lambda: SparseVAE(layout, settings), rows, train)
    return TrainedModel(module, grid, Schema.from_arrow(table.schema), train, record)


SMALL = ModelSettings(latents=6, width=8, encoder_width=32, encoder_depth=1, codes=Codes.rich)


@pytest.fixture(scope="session")
def table() -> pa.Table:
    return mixed_table()


@pytest.fixture(scope="session")
def mixed() -> Callable[..., pa.Table]:
    return mixed_table


@pytest.fixture(scope="session")
def trained(table: pa.Table) -> TrainedModel:
    return train_on(table, SMALL)


@pytest.fixture(scope="session")
def gaussian(table: pa.Table) -> TrainedModel:
    return train_on(table, SMALL.model_copy(update={"family": Family.gaussian}))


@pytest.fixture(scope="session")
def settled(table: pa.Table) -> Callable[[Family], TrainedModel]:
    """Trained for twice as long: its last phase has steps enough to fit weights to the codec's grid."""
    return lambda family: train_on(table, SMALL.model_copy(update={"family": family}), steps=480)


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


class Prepared(NamedTuple):
    """A table as the model is shown it."""

    layout: Layout
    symbols: npt.NDArray[np.int64]
    states: npt.NDArray[np.uint8]
    batch: dict[str, torch.Tensor]


Prepare = Callable[..., Prepared]


def varied_table(rows: int, seed: int = 0) -> pa.Table:
    """Every head and every base: walks, sums, keys with values, identifiers; nulls, NaN and an escape."""
    random = np.random.default_rng(seed)
    walk, key = np.cumsum(random.integers(-4, 6, rows)), random.integers(0, 70, rows)
    price = np.where(random.random(rows) < 0.02, np.nan, np.round(random.gamma(2, 30, rows), 2))
    price[rows // 2] = -0.0
    return pa.table({
        "walk": walk,
        "sum": 2 * walk + key + random.integers(-2, 3, rows),
        "key": np.array([f"k{k:02d}" for k in range(70)])[key],
        "value": pa.array(37 * key % 4_001 + random.integers(0, 4, rows), mask=random.random(rows) < 0.05),
        "price": pa.array(price, mask=random.random(rows) < 0.05),
        "flag": pa.array(random.random(rows) < 0.2 + 0.6 * (key > 35), mask=random.random(rows) < 0.1),
        "day": random.integers(1, 32, rows),
        "tail": (5 * key + random.integers(0, 5, rows)).astype(str),
        "same": np.full(rows, 3),
    })  # fmt: skip


@pytest.fixture(scope="session")
def varied() -> Callable[..., pa.Table]:
    return varied_table


@pytest.fixture(scope="session")
def prepare() -> Prepare:
    """Makes a table ready for a model; columns that have no grid are left out."""

    def prepared(
        table: pa.Table, latents: int = 4, width: int = 8, block_rows: int = 32_768, **plan: Any
    ) -> Prepared:
        grid = fit_table(table)
        coded = {c.name: c.encode(table[c.name]) for c in grid.columns if c.kind != "opaque"}
        shape = make_plan(grid, coded, latents=latents, width=width)
        if "history" in plan:
            told = {"history": plan.pop("history")}
            plan["columns"] = tuple(i.model_copy(update=told if i.ordered else {}) for i in shape.columns)
        shape = shape.model_copy(
            update={"above": False, "deep": False, "direct": False, "fine": False} | plan
        )
        layout = make_layout(shape, coded).model_copy(update={"rows": table.num_rows})
        symbols, states = block(coded, shape.names)
        arrays = training_arrays(layout, blank_model(shape), symbols, states, block_rows)
        return Prepared(layout, symbols, states, {name: torch.from_numpy(a) for name, a in arrays.items()})

    return prepared
