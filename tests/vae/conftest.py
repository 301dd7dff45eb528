"""A small mixed table and a model trained on it, made once for all tests that only read them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from data.grid import TableGrid
from data.schema import Schema
from vae.codec.structure import Derived
from vae.features import blank_model, block, make_layout, training_arrays
from vae.loop import Rows
from vae.model import SparseVAE, latents_of
from vae.planning import make_plan
from vae.settings import Codes, Family, ModelSettings, TrainSettings
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
    grid = TableGrid.fit(table)
    names = [c.name for c in grid.columns if c.kind != "opaque" and c.name != "always"]
    coded = {name: grid[name].encode(table[name]) for name in names}
    plan = make_plan(grid, coded, latents=latents_of(settings), width=settings.width)
    always = Derived(name="always", table=(7,))
    layout = make_layout(plan, coded).model_copy(update={"derived": (always,)})
    arrays = training_arrays(layout, blank_model(plan), *block(coded, plan.names), 65_536)
    order = np.arange(len(table))
    train = TrainSettings(steps=steps, batch_rows=256, threads=1)
    rows = Rows(arrays, order[: len(table) * 5 // 6], order[len(table) * 5 // 6 :])
    module, record = fit(lambda: SparseVAE(layout, settings), rows, train, columns=len(names))
    return TrainedModel(module, grid, Schema.from_arrow(table.schema), train, record)


SMALL = ModelSettings(latents=6, width=8, encoder_width=32, encoder_depth=1, codes=Codes.rich)


@pytest.fixture(scope="session")
def table() -> pa.Table:
    return mixed_table()


@pytest.fixture(scope="session")
def trained(table: pa.Table) -> TrainedModel:
    return train_on(table, SMALL)


@pytest.fixture(scope="session")
def gaussian(table: pa.Table) -> TrainedModel:
    return train_on(table, SMALL.model_copy(update={"family": Family.gaussian}))


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)
