"""The whole model: what is trained when, what a row costs, and bounds that hold."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vae import train
from vae.codec.integer import IntegerModel
from vae.codes_only import CodesOnly
from vae.features import row_view
from vae.latents import STEP, gaussian_kl, gaussian_log_density
from vae.loop import Rows
from vae.model import (
    ENCODER_GAIN,
    IDLE_WEIGHT,
    LEARNING_RATES,
    PRESENCE,
    SERIES_ENCODER_GAIN,
    SERIES_LEARNING_RATES,
    SLACKENING,
    WEIGHT_PRICE,
    SparseVAE,
)
from vae.settings import (
    CODES_SCORE,
    CODES_WEIGHT,
    FIRST_CODES_WEIGHT,
    Codes,
    Family,
    ModelSettings,
    TrainSettings,
    codes_weight,
)
from vae.sparse import TopK
from vae.steered import LEAST_SLACK
from vae.train import fit

Prepare = Callable[..., Any]
ROWS = 600
SMALL = ModelSettings(latents=4, width=8, encoder_width=32, encoder_depth=1)
GAUSSIAN = SMALL.model_copy(update={"family": Family.gaussian})
LN2 = math.log(2)


@pytest.fixture(scope="module")
def made(prepare: Prepare, varied: Any) -> Any:
    return prepare(varied(ROWS), block_rows=250)


def model_of(made: Any, settings: ModelSettings = SMALL, seed: int = 0) -> SparseVAE:
    torch.manual_seed(seed)
    return SparseVAE(made.layout, settings)


def rows(batch: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    return {name: array[start:stop] for name, array in batch.items()}


def price(model: SparseVAE) -> float:
    """What a row pays for the weights."""
    return WEIGHT_PRICE * model.stencil.description().item() / ROWS


def losses(
    model: SparseVAE, batch: dict[str, Tensor], phase: str = "joint", progress: float = 1.0
) -> dict[str, Tensor]:
    return model.loss(batch, progress=progress, phase=phase, generator=torch.Generator().manual_seed(3))


def gradients(model: SparseVAE) -> dict[str, float]:
    """Sum of all gradients of each part."""
    found: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        found[part] = found.get(part, 0.0) + (
            0.0 if parameter.grad is None else parameter.grad.abs().sum().item()
        )
    return found


# --------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("settings", [SMALL, GAUSSIAN], ids=["quantized", "gaussian"])
def test_all_parts_learn_together(made: Any, settings: ModelSettings) -> None:
    model = model_of(made, settings)
    losses(model, made.batch)["loss"].backward()
    found = gradients(model)
    assert set(found) == {"row", "encoder", "stencil", "codes_only"}
    assert all(size > 0 and math.isfinite(size) for size in found.values())
    for name, parameter in model.stencil.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("term", ["code", "columns", "codes_only", "presence"])
def test_each_term_teaches_the_encoder(made: Any, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all other terms silenced."""
    model = model_of(made)
    silenced: dict[str, Callable[[], None]] = {
        "code": lambda: monkeypatch.setattr(model, "_cost", lambda rate, _phase: rate.new_zeros(())),
        "columns": lambda: monkeypatch.setattr(
            model.stencil, "column_nats", lambda _w, _batch, code: code.new_zeros(len(code), 1)
        ),
        "codes_only": lambda: monkeypatch.setattr(SparseVAE, "weight", 0.0),
        "presence": lambda: monkeypatch.setattr(SparseVAE, "price", 0.0),
    }
    for other, silence in silenced.items():
        if other != term:
            silence()
    losses(model, made.batch)["loss"].backward()
    assert gradients(model)["encoder"] > 0
    silenced[term]()
    model.zero_grad()
    losses(model, made.batch)["loss"].backward()
    assert gradients(model)["encoder"] == 0


@pytest.mark.parametrize(
    "settings",
    [
        SMALL.model_copy(update={"family": family, "target": target})
        for family, target in (
            (Family.quantized, None),
            (Family.quantized, "bits=6"),
            (Family.gaussian, "score=0.6"),
            (Family.spike_slab, None),
            (Family.topk, "nonzeros=2"),
        )
    ],
    ids=lambda settings: f"{settings.family}-{settings.target}",
)
def test_a_training_ends_in_the_same_weights_on_any_number_of_cores(
    made: Any, settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set[str]()
    asked = CodesOnly.asked

    def noted(self: CodesOnly, *given: Any) -> Tensor:
        names.add(threading.current_thread().name.split("_")[0])
        return asked(self, *given)

    monkeypatch.setattr(CodesOnly, "asked", noted)
    order = np.arange(ROWS)
    arrays = Rows({name: value.numpy() for name, value in made.batch.items()}, order, order)
    found: list[dict[str, Tensor]] = []
    for cores in (1, 2):
        names.clear()
        monkeypatch.setattr(train, "cores", lambda cores=cores: cores)
        training = TrainSettings(steps=40, batch_rows=64)
        model, record = fit(lambda: SparseVAE(made.layout, settings), arrays, training)
        found.append(model.state_dict())
        assert record["threads"] == 1
        assert ("part" in names) == (cores == 2)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("phase", ["refit", "quantise"])
def test_the_encoder_rests_while_the_decoder_is_refitted(made: Any, phase: str) -> None:
    model = model_of(made)
    losses(model, made.batch, phase)["loss"].backward()
    found = gradients(model)
    assert found["row"] == found["encoder"] == 0
    assert found["stencil"] > 0
    assert found["codes_only"] > 0


def test_the_last_phase_trains_the_weights_that_are_written(made: Any) -> None:
    model, same = model_of(made), model_of(made)
    step = 2.0**-made.layout.plan.fraction
    with torch.no_grad():
        for ours, other in zip(model.stencil.parameters(), same.stencil.parameters(), strict=True):
            other.copy_((ours / step).round() * step)
            ours.copy_(other + step / 4)  # rounding takes it back
    assert losses(model, made.batch, "quantise")["columns"] == losses(same, made.batch, "quantise")["columns"]
    assert losses(model, made.batch, "refit")["columns"] != losses(same, made.batch, "refit")["columns"]


def test_a_series_begins_with_coarser_codes_and_other_learning_rates(made: Any) -> None:
    """Of one seed, so that nothing but the gain differs."""
    usual = model_of(made)
    layout = made.layout.model_copy(update={"series": True})
    torch.manual_seed(0)
    series = SparseVAE(layout, SMALL)
    finer, coarser = (model.get_parameter("encoder.outer") for model in (usual, series))
    assert torch.allclose(finer * (SERIES_ENCODER_GAIN / ENCODER_GAIN), coarser)
    assert usual.default_learning_rates == LEARNING_RATES
    assert series.default_learning_rates == SERIES_LEARNING_RATES


def test_parameter_groups_are_the_encoder_and_all_else(made: Any) -> None:
    model = model_of(made)
    encoder, decoder = model.parameter_groups()
    assert (encoder["name"], decoder["name"]) == ("encoder", "decoder")
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in encoder["params"]} == {"row", "encoder"}
    assert {names[id(p)].split(".")[0] for p in decoder["params"]} == {"stencil", "codes_only"}
    assert len(encoder["params"]) + len(decoder["params"]) == len(names)


# -------------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("phase", ["joint", "refit", "quantise"])
def test_the_loss_is_its_named_terms(made: Any, phase: str) -> None:
    model = model_of(made)
    terms = losses(model, made.batch, phase)
    whole = terms["code"] + terms["columns"] + CODES_WEIGHT[SMALL.codes] * terms["codes_only"]
    whole = whole + PRESENCE * terms["presence"] + price(model)
    assert terms["loss"].item() == pytest.approx(whole.item(), rel=1e-6)


def test_the_gaussian_s_loss_has_the_archive_s_prior_beside_it(made: Any) -> None:
    model = model_of(made, GAUSSIAN)
    terms = losses(model, made.batch)
    whole = (
        terms["code"] + terms["columns"] + terms["prior"] + CODES_WEIGHT[SMALL.codes] * terms["codes_only"]
    )
    whole = whole + PRESENCE * terms["presence"] + price(model)
    assert terms["loss"].item() == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize("phase", ["joint", "refit", "quantise"])
def test_terms_are_nats_per_row_whatever_the_batch(made: Any, phase: str) -> None:
    model = model_of(made)
    whole = losses(model, made.batch, phase)
    halves = [losses(model, rows(made.batch, k, k + ROWS // 2), phase) for k in (0, ROWS // 2)]
    twice = losses(model, {name: torch.cat([array, array]) for name, array in made.batch.items()}, phase)
    for name, value in whole.items():
        assert value.shape == ()
        assert value.item() == pytest.approx(np.mean([half[name].item() for half in halves]), rel=1e-4)
        assert twice[name].item() == pytest.approx(value.item(), rel=1e-4)


def test_the_rate_warms_up_and_only_while_all_learn_together(made: Any) -> None:
    model = model_of(made, SMALL.model_copy(update={"kl_warmup": 0.4}))
    for phase, progress, share in [
        ("joint", 0.0, 0.0), ("joint", 0.1, 0.25), ("joint", 0.4, 1.0), ("joint", 0.9, 1.0), ("refit", 0.1, 1.0)
    ]:  # fmt: skip
        terms = losses(model, made.batch, phase, progress=progress)
        asked = codes_weight(SMALL.codes, progress) * terms["codes_only"]
        expected = (
            share * terms["code"] + terms["columns"] + asked + PRESENCE * terms["presence"] + price(model)
        )
        assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    cold = model_of(made, SMALL.model_copy(update={"kl_warmup": 0.0}))
    terms = losses(cold, made.batch, progress=0.0)
    asked = codes_weight(SMALL.codes, 0.0) * terms["codes_only"]
    expected = terms["code"] + terms["columns"] + asked + PRESENCE * terms["presence"] + price(cold)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_lambda_falls_from_its_start_and_rests() -> None:
    for codes in (Codes.lean, Codes.balanced, Codes.rich):
        path = [codes_weight(codes, p) for p in np.linspace(0, 1, 11)]
        assert path[0] == FIRST_CODES_WEIGHT
        assert path == sorted(path, reverse=True)
        assert path[6:] == [pytest.approx(CODES_WEIGHT[codes])] * 5
    assert {codes_weight(Codes.none, p) for p in (0.0, 0.3, 1.0)} == {0.0}


def test_lambda_falls_while_the_code_scores_more_than_asked_and_rises_again(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = model_of(made), CODES_SCORE[SMALL.codes]
    expected = 1.0
    for score in (0.0, asked, 1.0, 1.0, 0.9, 0.2, *[1.0] * 500, *[0.0] * 200):
        monkeypatch.setattr(model.codes_only, "score", lambda *_, score=score: torch.tensor(score))
        losses(model, rows(made.batch, 0, 8))
        expected = min(1.0, max(LEAST_SLACK, expected * math.exp(-SLACKENING * (score - asked))))
        assert model.slack.item() == pytest.approx(expected, rel=1e-3)
        assert model.weight == pytest.approx(expected * CODES_WEIGHT[SMALL.codes], rel=1e-3)
    assert expected == 1.0


@pytest.mark.parametrize("phase", ["refit", "quantise"])
def test_lambda_rests_when_the_encoder_does(made: Any, phase: str) -> None:
    model = model_of(made)
    model.slack.fill_(0.5)
    losses(model, made.batch, phase)
    model.validation_bits(made.batch)
    assert model.slack == 0.5


def test_weights_are_paid_for_by_all_rows_together(made: Any) -> None:
    """Of a table twice as long each row pays half; a layout that does not say how long it is asks for nothing."""
    for count, share in ((ROWS, 1.0), (2 * ROWS, 0.5), (0, 0.0)):
        torch.manual_seed(0)
        model = SparseVAE(made.layout.model_copy(update={"rows": count}), SMALL)
        assert losses(model, made.batch)["weights"].item() == pytest.approx(share * price(model), rel=1e-5)


def test_the_state_of_a_model_holds_how_far_its_training_is(made: Any) -> None:
    model, other = model_of(made), model_of(made, seed=1)
    losses(model, made.batch, progress=0.1)
    other.load_state_dict(model.state_dict())
    assert other.weight == pytest.approx(codes_weight(SMALL.codes, 0.1)) != CODES_WEIGHT[SMALL.codes]
    assert torch.equal(other.encode(made.batch), model.encode(made.batch))
    model.progress.fill_(1.0)
    assert not torch.equal(other.posterior(made.batch["value"], made.batch["entry"]),
                           model.posterior(made.batch["value"], made.batch["entry"]))  # fmt: skip


def test_free_bits_are_a_floor_of_the_loss_and_not_of_the_report(made: Any) -> None:
    plain, free = model_of(made), model_of(made, SMALL.model_copy(update={"free_bits": 8.0}))
    a, b = losses(plain, made.batch), losses(free, made.batch)
    assert a["code"] == b["code"]
    assert b["loss"].item() == pytest.approx(
        (a["loss"] - a["code"]).item() + 8 * plain.layout.plan.latents, rel=1e-4
    )


def test_the_noise_of_a_draw_is_the_generator_s(made: Any) -> None:
    model = model_of(made, GAUSSIAN)
    first, again = (losses(model, made.batch)["loss"] for _ in range(2))
    other = model.loss(made.batch, progress=1.0, phase="joint", generator=torch.Generator().manual_seed(4))[
        "loss"
    ]
    assert first == again != other


def test_training_brings_the_loss_down(made: Any) -> None:
    model = model_of(made)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    began = losses(model, made.batch)["loss"].item()
    for _ in range(25):
        optimiser.zero_grad()
        losses(model, made.batch)["loss"].backward()
        optimiser.step()
    assert losses(model, made.batch)["loss"].item() < 0.9 * began


# ------------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("settings", [SMALL, GAUSSIAN], ids=["quantized", "gaussian"])
def test_codes_are_small_whole_numbers_with_exact_zeros(made: Any, settings: ModelSettings) -> None:
    codes = model_of(made, settings).encode(made.batch)
    assert codes.dtype == torch.int8
    assert codes.shape == (ROWS, 4)
    assert codes.abs().max() <= made.layout.plan.reach
    assert 0 < (codes == 0).float().mean() < 1


def test_a_row_has_the_same_code_in_any_company(made: Any) -> None:
    model = model_of(made)
    whole = model.encode(made.batch)
    for size in (1, 7, 256):
        parts = [model.encode(rows(made.batch, k, k + size)) for k in range(0, 300, size)]
        assert torch.equal(torch.cat(parts)[:300], whole[:300])
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode({name: array[order] for name, array in made.batch.items()}), whole[order])


def test_a_code_needs_the_row_s_view_and_nothing_else(made: Any) -> None:
    model = model_of(made)
    view = {name: torch.from_numpy(a) for name, a in row_view(made.layout, made.symbols, made.states).items()}
    assert torch.equal(model.encode(view), model.encode(made.batch))
    none = SparseVAE(made.layout.model_copy(update={"plan": no_latents(made)}), SMALL)
    assert none.encode(view).shape == (ROWS, 0)


def no_latents(made: Any) -> Any:
    return made.layout.plan.model_copy(update={"latents": 0})


def test_without_codes_there_is_no_encoder(prepare: Prepare, varied: Any) -> None:
    settings = SMALL.model_copy(update={"codes": Codes.none})
    made = prepare(varied(80), latents=0)
    model = model_of(made, settings)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"stencil"}
    assert model.parameter_groups()[0]["params"] == []
    terms = losses(model, made.batch)
    assert set(terms) == {"loss", "columns", "weights"}
    terms["loss"].backward()
    bits = model.validation_bits(made.batch)
    assert set(bits) == {"column_bits"}
    assert model.objective({"column_bits": 7.0}) == 7.0
    assert model.encode(made.batch).shape == (80, 0)


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("latents", [0, 3])
@pytest.mark.parametrize("columns", [None, ["walk"], ["key"], ["flag"], ["same"]], ids=str)
def test_one_row_and_one_column_are_enough(
    prepare: Prepare, varied: Any, family: Family, latents: int, columns: list[str] | None
) -> None:
    for size in (1, 30):
        table = varied(size) if columns is None else varied(size).select(columns)
        made = prepare(table, latents=latents)
        model = model_of(made, SMALL.model_copy(update={"family": family}))
        for phase in ("joint", "quantise"):
            terms = losses(model, made.batch, phase)
            assert all(math.isfinite(value.item()) for value in terms.values())
            terms["loss"].backward()
        assert model.validation_bits(made.batch)["column_bits"].shape == (size,)
        assert model.cell_bits(made.batch).shape == (size, len(made.layout.views))


# -------------------------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("settings", [SMALL, GAUSSIAN], ids=["quantized", "gaussian"])
def test_validation_bits_are_the_bits_that_are_written(made: Any, settings: ModelSettings) -> None:
    model = model_of(made, settings)
    bits = model.validation_bits(made.batch)
    integer = IntegerModel(made.layout.plan, model.stencil.integers())
    codes = model.encode(made.batch).numpy()
    written = np.zeros(2)
    for start in range(0, ROWS, 250):  # the blocks that the batch was made in
        part = slice(start, start + 250)
        streams = integer.encode_block(made.symbols[part], made.states[part], codes[part])
        written += [8 * len(streams[0]) - 56, sum(8 * len(stream) - 56 for stream in streams[1:])]
    assert written[0] == pytest.approx(bits["code_bits"].sum().item(), rel=0.01, abs=3 * 16)
    assert written[1] == pytest.approx(bits["column_bits"].sum().item(), rel=0.01, abs=3 * 16)
    assert torch.equal(bits["nonzeros"], torch.from_numpy((codes != 0).sum(1)).float())
    parts = {"code_bits": 3.0, "column_bits": 40.0, "codes_only_bits": 10.0, "nonzeros": 2.0}
    assert set(parts) == set(bits)
    assert model.objective(parts) == pytest.approx(43 + 10 * model.weight)
    assert torch.allclose(model.cell_bits(made.batch).sum(1), bits["column_bits"], rtol=1e-4)


def test_the_last_phase_s_loss_is_the_validation_s_bits(made: Any) -> None:
    model = model_of(made)
    terms, bits = losses(model, made.batch, "quantise"), model.validation_bits(made.batch)
    for term, name in [("code", "code_bits"), ("columns", "column_bits"), ("codes_only", "codes_only_bits")]:
        assert terms[term].item() / LN2 == pytest.approx(bits[name].mean().item(), rel=1e-5)


# -------------------------------------------------------------------------------------------------- ELBO and IWAE


class Toy(SparseVAE):
    """x = slope z + noise in one dimension, in place of a table: everything about it is known in closed form."""

    slope, spread = 1.5, 0.7
    mean, log_variance = 0.0, 0.0

    def posterior(self, value: Tensor, entry: Tensor) -> Tensor:
        del entry
        parameters = torch.tensor([self.mean, self.log_variance]) * torch.ones(len(value), 1, 2)
        return parameters + torch.tensor([1.0, 0.0]) * self.gain * value[:, :1].unsqueeze(-1)

    gain = 0.0


def toy(made: Any) -> Toy:
    model = Toy(
        made.layout.model_copy(update={"plan": made.layout.plan.model_copy(update={"latents": 1})}), GAUSSIAN
    )

    def nats(weights: Any, batch: dict[str, Tensor], code: Tensor) -> Tensor:
        del weights
        z = code * STEP
        return -gaussian_log_density(batch["x"], model.slope * z, 2 * math.log(model.spread))

    object.__setattr__(model.stencil, "column_nats", nats)
    return model


def toy_batch(x: list[float]) -> dict[str, Tensor]:
    values = torch.tensor(x).unsqueeze(1)
    return {"x": values, "value": values, "entry": torch.zeros(len(x), 1, dtype=torch.int32)}


def test_with_the_true_posterior_every_weight_is_the_evidence(made: Any) -> None:
    model = toy(made)
    variance = model.slope**2 + model.spread**2
    model.gain, model.log_variance = model.slope / variance, math.log(model.spread**2 / variance)
    batch = toy_batch([-2.0, 0.0, 0.3, 4.0])
    found = model.log_weights(batch, 5, torch.Generator().manual_seed(0))
    evidence = gaussian_log_density(batch["x"], 0.0, math.log(variance)).flatten()
    assert found.shape == (5, 4)
    assert torch.allclose(found, evidence.expand(5, 4), atol=1e-5)


def test_elbo_iwae_and_evidence_stand_in_their_order(made: Any) -> None:
    model = toy(made)
    variance = model.slope**2 + model.spread**2
    true_variance = model.spread**2 / variance
    model.gain, model.mean, model.log_variance = 0.2, 0.1, math.log(0.5)
    batch = toy_batch([-1.0, 0.5, 1.5])
    found = model.log_weights(batch, 4_000, torch.Generator().manual_seed(0)).double()
    evidence = gaussian_log_density(batch["x"], 0.0, math.log(variance)).flatten()
    gap = (model.gain * batch["x"] + model.mean - model.slope / variance * batch["x"]).flatten()
    # KL between the posteriors, by shifting and scaling both to make the true one standard
    kl = gaussian_kl(gap / math.sqrt(true_variance), torch.log(torch.tensor(0.5 / true_variance)))
    elbo = found.mean(0)
    assert torch.allclose(elbo.float(), evidence - kl, atol=0.08)
    groups = found.view(40, 100, 3)
    iwae = (groups.logsumexp(1) - math.log(100)).mean(0)
    assert (elbo < iwae).all()
    assert (iwae < evidence + 0.03).all()
    assert torch.allclose((found.logsumexp(0) - math.log(4_000)).float(), evidence, atol=0.05)


def test_the_bounds_hold_for_a_table(made: Any) -> None:
    model = model_of(made, GAUSSIAN)
    batch = rows(made.batch, 0, 50)
    found = model.log_weights(batch, 64, torch.Generator().manual_seed(0))
    assert found.shape == (64, 50)
    iwae = found.logsumexp(0) - math.log(64)
    assert (found.mean(0) <= iwae + 1e-4).all()
    terms = losses(model, batch)
    # the mean of the weights is the ELBO that training descends, up to the noise of the draws
    assert -found.mean().item() == pytest.approx((terms["code"] + terms["columns"]).item(), rel=0.1)


def test_codes_that_are_not_drawn_have_no_weights(made: Any) -> None:
    with pytest.raises(TypeError, match="^the posterior of this latent family is not stochastic$"):
        model_of(made).log_weights(made.batch, 1, torch.Generator())


# --------------------------------------------------------------------------------------------------- what a code is


def test_what_training_draws_of_rounded_codes_is_what_is_stored(prepare: Prepare, varied: Any) -> None:
    """With zero moved to what most rows say, as well."""
    made = prepare(varied(ROWS), block_rows=250)
    model = model_of(made)
    with torch.no_grad():
        model.encoder.shift(torch.tensor([3.0, -5.0, 20.0, 0.0]))
    model.begin("refit", made.batch)
    facts = model.code_facts(made.batch)
    assert model.origin.any()
    assert facts["drawn_nonzero"] == facts["mean_nonzero"] < 4


def test_what_training_draws_is_counted_before_a_threshold_decides(made: Any) -> None:
    model = model_of(made, SMALL.model_copy(update={"target": "nonzeros=1"}))
    gates = model.gates(made.batch)
    assert gates is not None
    model.latents.get_buffer("threshold").fill_(2.0)
    facts = model.code_facts(made.batch)
    assert facts["drawn_nonzero"] == pytest.approx((gates > 0.5).sum(1).float().mean().item(), abs=1e-4)
    assert facts["mean_nonzero"] == pytest.approx((gates > 2).sum(1).float().mean().item(), abs=1e-4)
    assert facts["mean_nonzero"] < facts["drawn_nonzero"]


def test_a_gaussian_draw_is_never_zero(made: Any) -> None:
    facts = model_of(made, GAUSSIAN).code_facts(made.batch)
    assert facts["drawn_nonzero"] == 4 > facts["mean_nonzero"]


def test_topk_draws_as_many_as_it_keeps(made: Any) -> None:
    settings = SMALL.model_copy(update={"family": Family.topk, "active": 1.5, "reads": 0})
    assert model_of(made, settings).eval().code_facts(made.batch)["drawn_nonzero"] == 1.5


def test_spikes_and_slabs_are_drawn_as_often_as_gates_say(made: Any) -> None:
    model = model_of(made, SMALL.model_copy(update={"family": Family.spike_slab}))
    gates = model.gates(made.batch)
    assert gates is not None
    chance = torch.sigmoid(gates.detach())
    deviation = (chance * (1 - chance)).sum().sqrt().item() / ROWS
    expected = chance.sum(1).mean().item()
    assert model.code_facts(made.batch)["drawn_nonzero"] == pytest.approx(expected, abs=4 * deviation)


@pytest.mark.parametrize("family", list(Family))
def test_a_code_that_says_the_same_of_all_rows_has_collapsed(made: Any, family: Family) -> None:
    model = model_of(made, SMALL.model_copy(update={"family": family})).eval()
    assert model.code_facts(made.batch)["collapsed"] is False
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    facts = model.code_facts(made.batch)
    assert (facts["dead_latents"], facts["collapsed"]) == (4, True)
    assert model.code_facts(rows(made.batch, 0, 1))["collapsed"] is False  # of one row nothing can be said


@pytest.mark.parametrize("weight", [IDLE_WEIGHT, 0.0])
def test_dead_latents_come_back_by_the_term_of_idle_ones_alone(
    made: Any, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae.model.IDLE_WEIGHT", weight)
    model = model_of(made, SMALL.model_copy(update={"family": Family.topk, "active": 1.5})).train()
    batch = rows(made.batch, 0, 256)
    model.begin("joint", batch)
    assert isinstance(model.latents, TopK)
    with torch.no_grad():  # two of four say next to nothing, and have not been there for long
        model.encoder.get_parameter("outer")[2:] *= 0.001
        model.encoder.get_parameter("outer_bias")[2:] = 0.0
        model.latents.often[2:] = 0.0
    assert (model.encode(batch) != 0).any(0).tolist() == [True, True, False, False]
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(200):
        optimiser.zero_grad()
        losses(model, batch, progress=0.0)["loss"].backward()
        optimiser.step()
    back = weight > 0
    there = (model.eval().encode(batch) != 0).float().mean(0)
    assert (there > 0.1).tolist() == [True, True, back, back]
    assert model.code_facts(batch)["dead_latents"] == (0 if back else 2)


# -------------------------------------------------------------------------------------------------------- beginnings


@pytest.mark.parametrize("settings", [SMALL, GAUSSIAN], ids=["quantized", "gaussian"])
@pytest.mark.parametrize("reads", [0, 2])
def test_training_begins_with_the_middle_of_each_latent_at_zero(
    made: Any, settings: ModelSettings, reads: int
) -> None:
    model = model_of(made, settings.model_copy(update={"reads": reads}))
    model.begin("joint", made.batch)
    middle = model.posterior(made.batch["value"], made.batch["entry"])[..., 0].median(0).values
    assert middle.abs().max() < 1e-4


@pytest.mark.parametrize("above", [False, True])
def test_zero_becomes_what_most_rows_say_and_nothing_else_changes(
    prepare: Prepare, varied: Any, above: bool
) -> None:
    made = prepare(varied(ROWS), block_rows=250, above=above)
    model = model_of(made)
    with torch.no_grad():
        model.encoder.shift(torch.tensor([3.0, -5.0, 20.0, 0.0]))
        for name in ("prior_head", "prior_head_bias", *(("prior_same", "prior_stay") if above else ())):
            parameter = getattr(model.stencil, name)
            parameter.copy_(torch.randn_like(parameter))
        model.stencil.prior_before.zero_()  # the prior as a function of nothing but the latent: renamed exactly
        model.stencil.prior_after.zero_()
        if above:
            model.stencil.prior_above.zero_()
    before, priced = model.encode(made.batch), model.validation_bits(made.batch)["code_bits"]
    assert (before.mode(0).values != 0).any()
    model.begin("refit", made.batch)
    after = model.encode(made.batch)
    assert (after.mode(0).values == 0).all()
    assert after.abs().max() <= made.layout.plan.reach
    for old, new in zip(before.T, after.T, strict=True):
        pairs = set(zip(old.tolist(), new.tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    # above a block's first row stand zeros, which no renaming reaches: there, to stay is to be another class
    alike = ~made.batch["first"] if above else slice(None)
    assert torch.allclose(model.validation_bits(made.batch)["code_bits"][alike], priced[alike], rtol=1e-4)
    model.begin("quantise", made.batch)
    assert torch.equal(model.encode(made.batch), after)


def test_a_model_without_a_code_has_nothing_to_begin(prepare: Prepare, varied: Any) -> None:
    made = prepare(varied(50), latents=0)
    model = model_of(made, SMALL.model_copy(update={"codes": Codes.none}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for phase in ("joint", "refit"):
        model.begin(phase, made.batch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
