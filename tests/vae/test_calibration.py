"""The controller that gives a code what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.schema import Schema
from data.split import TRAIN, VALIDATION
from vae import pipeline
from vae.calibration import GAIN, LEAST_WEIGHT, MOST_WEIGHT, moved, threshold_for
from vae.model import SparseVAE
from vae.settings import Family, ModelSettings, TrainSettings
from vae.store import TrainedModel, load


@given(target=st.floats(0.1, 100), power=st.floats(0.2, 1.5), start=st.floats(0.01, 10))
def test_what_follows_the_weight_comes_to_its_target(target: float, power: float, start: float) -> None:
    """A code that grows as a power of λ, and could reach the target within λ's bounds."""
    weight, at_one = torch.tensor(start), target * 0.8
    for _ in range(3_000):
        weight = moved(weight, at_one * weight**power, target)
    assert (at_one * weight**power).item() == pytest.approx(target, rel=0.01)


def test_a_code_out_of_reach_stops_at_the_bounds() -> None:
    low = high = torch.tensor(1.0)
    for _ in range(2_000):
        low, high = moved(low, torch.tensor(5.0), 1.0), moved(high, torch.tensor(0.0), 1.0)
    assert low.item() == pytest.approx(LEAST_WEIGHT)
    assert high.item() == pytest.approx(MOST_WEIGHT)
    assert moved(torch.tensor(1.0), torch.tensor(0.0), 1.0).log().item() == pytest.approx(GAIN, rel=1e-4)


@given(rows=st.integers(1, 50), latents=st.integers(1, 8), share=st.floats(0, 1))
def test_the_threshold_lets_through_what_is_asked_for(rows: int, latents: int, share: float) -> None:
    gates = torch.rand(rows, latents, generator=torch.Generator().manual_seed(0))
    asked = share * latents
    found = (gates > threshold_for(gates, asked)).sum().item()
    assert abs(found - asked * rows) <= 0.5 + 1e-6


# ------------------------------------------------------------------------------------------------- in a training


def fitted(table: pa.Table, target: str, family: Family = Family.quantized, **more: Any) -> TrainedModel:
    shape = ModelSettings(family=family, latents=6, width=8, encoder_width=32, encoder_depth=1, target=target)
    training = TrainSettings(steps=300, batch_rows=256, threads=1)
    split = np.where(np.arange(table.num_rows) % 6 == 0, VALIDATION, TRAIN).astype(np.uint8)
    schema = Schema.from_arrow(table.schema)
    return pipeline.fit(table, schema, model=shape, training=training, split=split, **more)


@pytest.mark.parametrize("family", [Family.quantized, Family.spike_slab, Family.topk])
def test_a_code_has_as_many_latents_on_as_are_asked_for(table: pa.Table, family: Family) -> None:
    trained = fitted(table, "nonzeros=2", family)
    assert trained.record["code"]["mean_nonzero"] == pytest.approx(2, rel=0.15)  # gates of names are alike


def test_a_code_follows_its_target(table: pa.Table) -> None:
    """What is asked for decides, as near as four groups of rows, which are alike, let it be."""
    few, many = (fitted(table, f"bits={bits}").record["history"][-1]["code_bits"] for bits in (0.3, 5))
    assert few < 1
    assert 3 < many < 8


@pytest.mark.parametrize("step", [140, 175])  # the encoder held fast; let go again
def test_a_calibrated_training_that_was_stopped_goes_on_to_the_same_weights(
    table: pa.Table, tmp_path: Path, step: int
) -> None:
    def stop(state: dict[str, Any]) -> None:
        if state["step"] >= step:
            raise KeyboardInterrupt

    whole = fitted(table, "score=0.5")
    assert {"settle", "joint"} <= {entry["phase"] for entry in whole.record["history"]}
    with pytest.raises(KeyboardInterrupt):
        fitted(table, "score=0.5", out=tmp_path / "m", on_progress=stop)
    resumed = fitted(table, "score=0.5", out=tmp_path / "m")
    assert resumed.digest == whole.digest == load(tmp_path / "m").digest


def test_a_code_that_says_nothing_when_it_is_held_fast_is_not_begun_anew(trained: TrainedModel) -> None:
    settings = trained.settings.model_copy(update={"target": "score=0.5"})
    model = SparseVAE(trained.layout, settings)
    model.found.fill_(0.0)
    model.progress.fill_(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = {
        "value": torch.zeros(4, len(trained.layout.views)),
        "entry": torch.zeros(4, len(trained.layout.views)),
    }
    model.begin("joint", batch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
