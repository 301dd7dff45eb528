"""Latents that are there or not: their costs against Monte Carlo and closed forms, and their exact zeros."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vae.codec.plan import Plan
from vae.latents import STEP, Quantized, bounded, gaussian_kl, interpolated_rate
from vae.settings import Codes, Family, ModelSettings, Target
from vae.sparse import (
    IDLE,
    WHICH_FIRST,
    SpikeSlab,
    TopK,
    bernoulli_kl,
    make_latents,
    spike_slab_kl,
    spike_slab_log_density,
)
from vae.whole import prior_of

FEW = settings(max_examples=25)
REACH, DRAWS = 5, 400_000


def tensors(*values: float) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


@FEW
@given(
    own=st.tuples(st.floats(-4, 4), st.floats(-2, 2), st.floats(-2, 1)),
    other=st.tuples(st.floats(-4, 4), st.floats(-2, 2), st.floats(-1, 1)),
)
def test_the_kl_of_spikes_and_slabs_is_its_mean_over_draws(
    own: tuple[float, float, float], other: tuple[float, float, float]
) -> None:
    """By stratified draws of the gate: exact there, so that few draws of the slab tell."""
    logit, mean, log_variance = tensors(*own)
    normal = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    z = mean + (0.5 * log_variance).exp() * normal
    total = 0.0
    for there, share in ((True, torch.sigmoid(logit)), (False, torch.sigmoid(-logit))):
        gate = torch.full(z.shape, there)
        ratio = spike_slab_log_density(z, gate, logit, mean, log_variance) - spike_slab_log_density(
            z, gate, *tensors(*other)
        )
        total += share.item() * ratio.mean().item()
    assert spike_slab_kl(logit, mean, log_variance, *tensors(*other)).item() == pytest.approx(
        total, rel=0.01, abs=0.002
    )


@FEW
@given(p=st.floats(0.001, 0.999), q=st.floats(0.001, 0.999))
def test_the_kl_of_gates_is_positive_and_zero_for_equal_ones(p: float, q: float) -> None:
    one, other = torch.tensor([p, q])
    assert bernoulli_kl(one, other).item() >= -1e-6
    assert bernoulli_kl(one, one).item() == 0


def test_a_slab_that_is_always_there_is_a_gaussian() -> None:
    mean, log_variance = torch.tensor(0.7), torch.tensor(-1.0)
    sure, zero = torch.tensor(20.0), torch.zeros(())
    found = spike_slab_kl(sure, mean, log_variance, sure, zero, zero)
    assert found.item() == pytest.approx(gaussian_kl(mean, log_variance).item(), abs=1e-5)


def test_a_drawn_latent_is_there_as_often_as_its_gate_says() -> None:
    family = SpikeSlab(REACH, 1, 0.3, (0, 1, 1))
    parameters = torch.tensor([[[0.8, -1.0, math.log(0.2 / 0.8)]]]).expand(DRAWS, 1, 3)
    noise = torch.randn(DRAWS, 1, 2, generator=torch.Generator().manual_seed(0))
    draw = family.draw(parameters, noise, progress=1.0, prior=None)
    there = draw.code != 0
    assert there.float().mean().item() == pytest.approx(0.2, abs=0.005)
    z = draw.code[there] * STEP
    assert z.mean().item() == pytest.approx(0.8, abs=0.02)
    assert z.std().item() == pytest.approx(math.exp(-0.5), abs=0.02)
    assert draw.presence.mean().item() == pytest.approx(0.2)


def test_which_latents_are_there_is_learnt_before_what_they_say() -> None:
    family = SpikeSlab(REACH, 1, 0.3, (0, 1, 1))
    parameters = torch.tensor([[[0.8, -3.0, 0.5]]], requires_grad=True)
    noise = torch.ones(1, 1, 2)
    first = family.draw(parameters, noise, progress=0.0, prior=None)
    assert (first.code * STEP).item() == pytest.approx(1.0)  # the prior's own slab, one deviation out
    (gradient,) = torch.autograd.grad(first.code.sum() + first.kl.sum(), parameters)  # type: ignore[union-attr]
    assert gradient[..., :2].abs().max() == 0
    assert gradient[..., 2].abs().max() > 0
    last = family.draw(parameters, noise, progress=WHICH_FIRST, prior=None)
    assert (last.code * STEP).item() == pytest.approx(0.8 + math.exp(-1.5), rel=1e-5)


def test_a_row_pays_for_the_parts_that_suit_it_and_for_saying_which() -> None:
    family = SpikeSlab(REACH, 2, 0.3, (3, 1, 1))
    own = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))
    prior = torch.cat([own[2:3], torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(2))])
    draw = family.draw(own, torch.zeros(4, 2, 2), progress=1.0, prior=prior)
    each = torch.stack([
        torch.stack([
            spike_slab_kl(o[:, 2], o[:, 0], o[:, 1], p[:, 2], p[:, 0], p[:, 1]).sum() for p in prior
        ])
        for o in own
    ])  # fmt: skip
    assert draw.kl is not None
    assert torch.allclose(draw.kl.sum(1), math.log(3) - (-each).logsumexp(1), atol=1e-5)
    assert (draw.kl.sum(1) < each.min(1).values + math.log(3)).all()
    assert draw.penalty is not None
    usual = torch.sigmoid(prior[..., 2]).mean(0)
    assert draw.penalty.item() == pytest.approx(bernoulli_kl(usual, torch.tensor(0.3)).sum().item(), rel=1e-5)


def test_the_bound_of_many_draws_is_the_evidence_of_the_mixture() -> None:
    """Σ over draws of p(z)/q(z) is 1 on average, whatever the posterior."""
    family = SpikeSlab(REACH, 2, 0.3, (2, 1, 1))
    own = torch.tensor([[[0.3, 0.2, 0.4], [-0.2, 0.1, -0.5]]]).expand(DRAWS, 2, 3)
    prior = torch.tensor([[[0.1, 0.0, 0.0], [0.0, 0.0, 0.2]], [[0.5, -0.2, 0.8], [-0.4, -0.1, -0.6]]])
    noise = torch.randn(DRAWS, 2, 2, generator=torch.Generator().manual_seed(0))
    z, ratio = family.sample(own, noise, prior)
    assert z.shape == (DRAWS, 2)
    assert ratio.double().exp().mean().item() == pytest.approx(1, abs=0.03)


def test_the_largest_of_a_batch_are_kept_and_their_threshold_remembered() -> None:
    family = TopK(REACH, 6, 2)
    parameters = 3 * torch.randn(64, 6, 1, generator=torch.Generator().manual_seed(0))
    for _ in range(800):
        draw = family.draw(parameters, torch.zeros(64, 6, 1), progress=0.5, prior=None)
    assert (draw.code != 0).sum().item() == 2 * 64
    assert torch.equal(draw.code != 0, draw.presence > 0)
    assert torch.equal(family.harden(parameters), draw.code)
    smallest = parameters.abs().flatten()[(draw.code != 0).flatten()].min()
    assert (parameters.abs().flatten()[(draw.code == 0).flatten()] <= smallest).all()


def test_what_is_kept_is_priced_as_what_is_sent() -> None:
    """However small: a value that is there is sent as 1 or -1, which the prior has to pay for."""
    family = TopK(REACH, 3, 3)
    parameters = torch.tensor([[[0.3], [-0.2], [2.4]]], requires_grad=True)
    draw = family.draw(parameters, torch.zeros(1, 3, 1), progress=0.5, prior=None)
    assert draw.code.tolist() == [[1.0, -1.0, 2.0]]
    assert draw.soft.tolist() == [[1.0, -1.0, pytest.approx(bounded(torch.tensor(2.4), REACH).item())]]
    draw.soft.sum().backward()
    assert parameters.grad is not None
    assert (parameters.grad > 0).all()


@FEW
@given(there=st.floats(0.02, 0.98), falls=st.floats(0.1, 0.9))
def test_a_topk_latent_costs_its_bernoulli_mask_and_its_value(there: float, falls: float) -> None:
    """Under a prior that can be written down: there with some probability, then of geometric size, of either sign."""
    family = TopK(REACH, 4, 1.5)
    parameters = 3 * torch.randn(64, 4, 1, generator=torch.Generator().manual_seed(0))
    draw = family.draw(parameters, torch.zeros(64, 4, 1), progress=1.0, prior=None)
    prior = prior_of(Plan(latents=4, width=1, columns=(), reach=REACH))
    first = (1 - falls) / (2 * (1 - falls**REACH))  # of 1, and of -1
    size = (torch.arange(2 * REACH + 1) - REACH).abs()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.zero_()
        logs = math.log(there * first) + (size - 1) * math.log(falls)
        prior.prior_head_bias.copy_(torch.where(size == 0, math.log(1 - there), logs).expand(4, -1))
        nats = prior.prior_nats(prior.weights(quantised=False), draw.code, torch.zeros(64, 4))
    kept = draw.presence
    mask = -(kept * math.log(there) + (1 - kept) * math.log(1 - there))
    value = -kept * (math.log(first) + (draw.soft.abs().clamp(max=REACH) - 1) * math.log(falls))
    found = interpolated_rate(nats, draw.soft, REACH)
    assert kept.sum() == 1.5 * 64
    torch.testing.assert_close(found, mask + value, rtol=1e-4, atol=1e-4)


def test_latents_that_are_never_there_are_shown_what_they_would_say() -> None:
    family = TopK(REACH, 4, 1)
    parameters = torch.ones(32, 4, 1) * torch.tensor([3.0, 2.9, 0.2, 0.1]).view(1, 4, 1)
    parameters[::2, 0], parameters[1::2, 1] = 0.3, 0.3
    parameters.requires_grad_()
    assert family.draw(parameters, torch.zeros(32, 4, 1), progress=0.0, prior=None).idle is None
    for _ in range(800):
        draw = family.draw(parameters, torch.zeros(32, 4, 1), progress=0.5, prior=None)
    assert (family.often < IDLE / 4).tolist() == [False, False, True, True]
    assert draw.idle is not None
    assert draw.idle[0].tolist() == [0.0, 0.0, 1.0, 1.0]
    draw.idle.sum().backward()
    assert parameters.grad is not None
    assert (parameters.grad[..., 2:] > 0).all()
    assert not parameters.grad[:, :2].any()


@pytest.mark.parametrize("family", [Family.spike_slab, Family.topk, Family.quantized])
def test_a_threshold_decides_what_is_there(family: Family) -> None:
    latents = make_latents(ModelSettings(family=family, target="nonzeros=1"), REACH, 3, (2, 4))
    parameters = 2 * torch.randn(200, 3, latents.outputs, generator=torch.Generator().manual_seed(0))
    gates = latents.gates(parameters)
    assert gates is not None
    for share in (0.1, 0.5, 0.9):
        latents.get_buffer("threshold").copy_(gates.quantile(share))
        hard = latents.harden(parameters)
        assert torch.equal(hard != 0, gates > latents.get_buffer("threshold"))
        assert torch.equal(hard, hard.round())
        assert hard.abs().max() <= REACH


def test_a_threshold_in_the_middle_is_rounding() -> None:
    parameters = torch.linspace(-9, 9, 1_001).view(-1, 1, 1)
    plain, gated = Quantized(REACH), Quantized(REACH, gated=True)
    assert torch.equal(plain.harden(parameters), gated.harden(parameters))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonzeros", "is no target of a code"),
        ("bits=-1", "is no target of a code"),
        ("score=1.5", "between 0 and 1"),
        ("nonzeros=0", "above 0"),
    ],
)
def test_a_target_that_cannot_be_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Target.parse(text)
    with pytest.raises(ValueError, match=told):
        ModelSettings(target=text)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"codes": Codes.none}, "there is no code"),
        ({"family": Family.gaussian}, "gaussian codes are not sparse"),
        ({"latents": 2}, "2 latents at most"),
    ],
)
def test_a_target_that_a_model_cannot_have_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ModelSettings.model_validate({"target": "nonzeros=3", **changes})
