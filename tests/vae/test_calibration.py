"""The controller that gives a code what is asked of it."""

from __future__ import annotations

import math
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
from vae.calibration import FLOOR_FALL, GAIN, LEAST_WEIGHT, MOST_CHANGE, MOST_WEIGHT, moved, threshold_for
from vae.codes import encode_rows
from vae.evaluate import coded_among, model_bits
from vae.judging import alone
from vae.latents import Quantized
from vae.model import SparseVAE
from vae.settings import FIRST_CODES_WEIGHT, Family, ModelSettings, TrainSettings
from vae.steered import MOST_GROWTH, Steered
from vae.store import TrainedModel, load


@pytest.mark.parametrize("target", [0.1, 8.0, 100.0])
def test_what_follows_the_weight_comes_to_its_target(target: float) -> None:
    """Codes that grow as a power of λ, and could reach the target within λ's bounds: of all powers, from any start."""
    power = torch.linspace(0.2, 1.5, 27)
    weight, at_one = torch.tensor([0.01, 0.1, 1.0, 10.0]).view(-1, 1).expand(-1, 27), target * 0.8
    for _ in range(700):
        weight = moved(weight, at_one * weight**power, target)
    np.testing.assert_allclose(at_one * weight**power, target, rtol=0.001)


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


class Rounded(Steered):
    """Latents that are numbers of a batch, rounded, under a prior that knows how often each integer is there."""

    latents: Quantized
    presence = 0.5

    def __init__(self, target: str) -> None:
        super().__init__(ModelSettings(target=target), 8)
        self.latents = Quantized(5, gated=True)

    def measured(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        code = self.encode(batch)
        shares = [code[:, k].unique(return_counts=True)[1].double() / len(code) for k in range(code.shape[1])]
        return -sum((share * share.log2()).sum() for share in shares)  # pyright: ignore[reportReturnType]

    def gates(self, batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
        return self.latents.gates(batch["x"])

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.latents.harden(batch["x"]).to(torch.int8)


@pytest.mark.parametrize("share", [0.2, 0.9, 1.0, 1.2])
def test_a_frozen_code_comes_to_the_bits_that_are_asked_for(share: float) -> None:
    batch = {"x": 0.4 * torch.randn(2_000, 8, 1, generator=torch.Generator().manual_seed(0))}
    rounded = float(Rounded("bits=1").measured(batch))
    model = Rounded(f"bits={share * rounded:.6f}")
    there = float((model.encode(batch) != 0).sum())
    model.set_threshold(batch)
    assert float((model.encode(batch) != 0).sum()) == pytest.approx(min(1, share) * there, rel=0.01)
    for _ in range(12):
        before = float((model.encode(batch) != 0).sum())
        model.correct("refit", batch)
        after = float((model.encode(batch) != 0).sum())
        assert before / MOST_CHANGE - 1 <= after <= before * MOST_CHANGE + 1
    assert model.measured(batch).item() == pytest.approx(share * rounded, rel=0.02)


@pytest.mark.parametrize(
    ("what", "phases"),
    [
        ("bits=3", ("joint", "settle", "quantise")),
        ("score=0.5", ("joint", "settle", "refit", "quantise")),
        ("nonzeros=2", ("joint", "refit", "quantise")),
    ],
)
def test_no_threshold_follows_anything_but_the_bits_of_a_code_that_is_refitted_to(
    what: str, phases: tuple[str, ...]
) -> None:
    batch = {"x": 0.4 * torch.randn(200, 8, 1, generator=torch.Generator().manual_seed(0))}
    model = Rounded(what)
    for phase in phases:
        model.correct(phase, batch)
        assert model.aims(phase) == (phase == "joint")
    assert model.latents.get_buffer("threshold").item() == 0.5


@pytest.mark.parametrize("target", ["bits=3", "score=0.5"])
def test_what_a_pause_brings_counts_from_then_on(target: str) -> None:
    def of(share: float) -> dict[str, torch.Tensor]:
        return {"x": (torch.arange(1_000) < share * 1_000).float().view(-1, 1, 1).repeat(1, 8, 1)}

    model = Rounded(target)
    before, after = of(0.5), of(0.2)
    assert model.settle("settle", before)
    assert model.settle("joint", after)
    told = model.measured(after) / model.measured(before)
    assert model.settling.item() == pytest.approx(told.item(), rel=1e-5)
    assert told < 0.9
    found = model.target.value / told if model.target else None
    assert isinstance(found, torch.Tensor)
    model.steer(torch.zeros(1), lambda: found, lambda: found, asked=0.0)
    # what it will be is what is asked for
    assert model.dial.item() == pytest.approx(FIRST_CODES_WEIGHT, rel=1e-5)
    # and what it gains, unless it was asked for as a floor
    model.found.copy_(model.measured(after))
    model.settle("joint", before)
    gained = 1.0 if target.startswith("score") else (1 / told).item()
    assert model.settling.item() == pytest.approx(gained, rel=1e-5)


@pytest.mark.parametrize(("target", "fall"), [("bits=3", 1.0), ("score=0.3", FLOOR_FALL)])
def test_what_is_asked_as_a_floor_is_come_down_to_more_slowly(target: str, fall: float) -> None:
    model, steps = Rounded(target), list[float]()
    assert model.target is not None
    for factor in (0.5, 2.0):  # too little, too much
        before, found = model.dial.item(), torch.tensor(factor * model.target.value)
        model.steer(torch.zeros(1), lambda found=found: found, lambda found=found: found, asked=0.0)
        steps.append(math.log(model.dial.item() / before))
    assert steps == pytest.approx([GAIN * math.log(2), -fall * GAIN * math.log(2)], rel=1e-3)


@pytest.mark.parametrize("target", ["nonzeros=2", "bits=3", "score=0.3"])
def test_what_a_target_is_about_is_what_it_came_to(target: str) -> None:
    model, batch = Rounded(target), {"x": torch.randn(50, 8, 1, generator=torch.Generator().manual_seed(0))}
    there = (model.encode(batch) != 0).sum(1).float().mean()
    expected = there if target.startswith("nonzeros") else model.measured(batch)
    assert model.came_to(batch) == pytest.approx(expected.item())


def test_a_code_that_says_too_little_is_not_made_to_say_just_anything() -> None:
    batch = {"x": 0.3 * torch.randn(2_000, 8, 1, generator=torch.Generator().manual_seed(0))}
    model = Rounded("bits=200")
    on = float((model.encode(batch) != 0).sum())
    model.set_threshold(batch)
    for _ in range(20):
        model.correct("refit", batch)
    assert float((model.encode(batch) != 0).sum()) == pytest.approx(MOST_GROWTH * on, rel=0.01)
    nothing = {"x": torch.zeros(2_000, 8, 1)}
    model.set_threshold(nothing)
    model.correct("refit", nothing)
    assert not model.encode(nothing).any()


# ------------------------------------------------------------------------------------------------- in a training


def plane(rows: int, seed: int) -> pa.Table:
    """Numbers that two others lie behind, with some noise: codes of any size say something of them."""
    random = np.random.default_rng(seed)
    one, other = random.normal(size=(2, rows))
    return pa.table({
        f"x{k}": np.rint(20 * (np.cos(k) * one + np.sin(k) * other) + 2 * random.normal(size=rows)).astype(int)
        for k in range(6)
    })  # fmt: skip


@pytest.fixture(scope="module")
def learnt() -> pa.Table:
    return plane(4_000, seed=0)


@pytest.fixture(scope="module")
def fresh() -> pa.Table:
    return plane(4_000, seed=1)


def fitted(
    table: pa.Table, target: str, family: Family = Family.quantized, steps: int = 240, **more: Any
) -> TrainedModel:
    shape = ModelSettings(family=family, latents=6, width=8, encoder_width=32, encoder_depth=1, target=target)
    training = TrainSettings(steps=steps, batch_rows=256, threads=1)
    split = np.where(np.arange(table.num_rows) % 4 == 0, VALIDATION, TRAIN).astype(np.uint8)
    schema = Schema.from_arrow(table.schema)
    return pipeline.fit(table, schema, model=shape, training=training, split=split, **more)


@pytest.mark.parametrize("family", [Family.quantized, Family.spike_slab, Family.topk])
def test_a_code_has_as_many_latents_on_as_are_asked_for(
    learnt: pa.Table, fresh: pa.Table, family: Family
) -> None:
    codes = encode_rows(fitted(learnt, "nonzeros=2", family), fresh)
    assert (codes != 0).sum(1).mean() == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("bits", [8, 12])
def test_a_code_has_as_many_bits_as_are_asked_for(learnt: pa.Table, fresh: pa.Table, bits: int) -> None:
    trained = fitted(learnt, f"bits={bits}")
    found = model_bits(trained, *coded_among(trained, fresh, np.arange(fresh.num_rows)))
    assert found["code"] == pytest.approx(bits, rel=0.05)


def test_a_code_scores_what_is_asked_for_or_more(learnt: pa.Table, fresh: pa.Table) -> None:
    assert alone(fitted(learnt, "score=0.6"), fresh) >= 0.95 * 0.6


@pytest.mark.parametrize("target", ["score=0.5", "bits=4"])
def test_a_calibrated_training_that_was_stopped_goes_on_to_the_same_weights(
    target: str, table: pa.Table, tmp_path: Path
) -> None:
    def stop(state: dict[str, Any]) -> None:
        if state["step"] >= step:
            raise KeyboardInterrupt

    whole = fitted(table, target, steps=150)
    phases = {entry["step"]: entry["phase"] for entry in whole.record["history"]}
    assert [phases[step] for step in (40, 60, 80, 120)] == ["joint", "settle", "joint", "refit"]
    for step in (65, 85, 125):  # the encoder held fast; let go again; frozen
        out = tmp_path / str(step)
        with pytest.raises(KeyboardInterrupt):
            fitted(table, target, steps=150, out=out, on_progress=stop)
        resumed = fitted(table, target, steps=150, out=out)
        assert resumed.digest == whole.digest == load(out).digest


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
