"""What codes cost, against closed forms and integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.latents import (
    STEP,
    Gaussian,
    Quantized,
    bounded,
    free_bits,
    gaussian_kl,
    gaussian_log_density,
    interpolated_rate,
)
from vae.settings import Family, ModelSettings
from vae.sparse import SpikeSlab, TopK, make_latents

FEW = settings(max_examples=40)
REACH = 5


@FEW
@given(mean=st.floats(-3, 3), log_variance=st.floats(-4, 2))
def test_the_kl_of_gaussians_is_its_integral(mean: float, log_variance: float) -> None:
    scale = math.exp(log_variance / 2)
    z = torch.linspace(mean - 12 * scale, mean + 12 * scale, 20_001, dtype=torch.float64)
    log_q = gaussian_log_density(z, mean, log_variance)
    integral = torch.trapezoid(log_q.exp() * (log_q - gaussian_log_density(z)), z).item()
    exact = gaussian_kl(torch.tensor(mean), torch.tensor(log_variance)).item()
    assert exact == pytest.approx(integral, abs=1e-5)


@FEW
@given(mean=st.floats(-3, 3), log_variance=st.floats(-4, 2))
def test_the_density_of_a_gaussian_integrates_to_one(mean: float, log_variance: float) -> None:
    scale = math.exp(log_variance / 2)
    z = torch.linspace(mean - 12 * scale, mean + 12 * scale, 20_001, dtype=torch.float64)
    density = gaussian_log_density(z, mean, torch.tensor(log_variance)).exp()
    assert torch.trapezoid(density, z).item() == pytest.approx(1, abs=1e-6)


@FEW
@given(soft=st.floats(-REACH, REACH), seed=st.integers(0, 999))
def test_the_rate_is_what_stochastic_rounding_costs_on_average(soft: float, seed: int) -> None:
    torch.manual_seed(seed)
    nats = -torch.randn(1, 2 * REACH + 1, 1).log_softmax(1)
    below = math.floor(soft)
    up = soft - below  # chance of rounding up
    index = below + REACH
    expected = (1 - up) * nats[0, index, 0] + (up * nats[0, index + 1, 0] if up else 0.0)
    found = interpolated_rate(nats, torch.tensor([[soft]]), REACH)
    assert found.item() == pytest.approx(float(expected), abs=1e-4)


def test_the_rate_of_an_integer_is_its_own_and_of_far_codes_that_of_the_last() -> None:
    nats = torch.arange(11.0).view(1, 11, 1).expand(2, 11, 3)
    soft = torch.tensor([[-5.0, 5.0], [0.0, 5.49], [-5.49, 1.25]])
    assert interpolated_rate(nats, soft, REACH).tolist() == [[0.0, 10.0], [5.0, 10.0], [0.0, 6.25]]


def test_the_rate_teaches_the_code_and_the_prior() -> None:
    nats = torch.arange(11.0).square().view(1, 11, 1).requires_grad_()
    soft = torch.tensor([[1.25]], requires_grad=True)
    interpolated_rate(nats, soft, REACH).sum().backward()
    assert soft.grad is not None
    assert nats.grad is not None
    assert soft.grad.item() == 49 - 36
    assert nats.grad.flatten().tolist() == [0, 0, 0, 0, 0, 0, 0.75, 0.25, 0, 0, 0]


def test_free_bits_are_a_floor_for_each_latent_s_mean() -> None:
    cost = torch.tensor([[0.1, 2.0, 0.0], [0.3, 4.0, 0.0]])
    assert free_bits(cost, 0.5).tolist() == [0.5, 3.0, 0.5]
    assert free_bits(cost, 0.0).tolist() == pytest.approx([0.2, 3.0, 0.0])
    below = torch.tensor([[0.1], [0.3]], requires_grad=True)
    free_bits(below, 0.5).sum().backward()
    assert below.grad is not None
    assert not below.grad.any()


@FEW
@given(x=st.floats(-1e4, 1e4), reach=st.integers(1, 30))
def test_bounded_codes_round_within_their_reach(x: float, reach: int) -> None:
    held = bounded(torch.tensor(x), reach)
    assert abs(held.round().item()) <= reach
    assert abs(held) <= abs(torch.tensor(x)) + 1e-6
    if abs(x) < 0.3:
        assert held.item() == pytest.approx(x, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("family", list(Family))
def test_hard_codes_are_whole_numbers_within_reach_with_exact_zeros(family: Family) -> None:
    latents = make_latents(ModelSettings(family=family), REACH, 3, (2, 4))
    parameters = 4 * torch.randn(500, 3, latents.outputs)
    parameters[:50] *= 0.01
    hard = latents.harden(parameters)
    assert hard.shape == (500, 3)
    assert torch.equal(hard, hard.round())
    assert hard.abs().max() == REACH
    gates = latents.gates(parameters)
    if gates is None:
        assert not hard[:50].any()
    else:  # what is there is never zero, however small
        assert torch.equal(hard != 0, gates > latents.get_buffer("threshold"))


def test_a_quantised_draw_is_hard_ahead_and_soft_behind() -> None:
    parameters = torch.linspace(-9, 9, 41).view(-1, 1, 1).requires_grad_()
    draw = Quantized(REACH).draw(parameters, torch.randn(41, 1, 1), progress=0.5, prior=None)
    assert draw.kl is None
    assert torch.equal(draw.code, Quantized(REACH).harden(parameters))
    assert torch.equal(draw.code, draw.soft.round())
    draw.code.sum().backward()
    through = parameters.grad
    assert through is not None
    parameters.grad = None
    again = Quantized(REACH).draw(parameters, torch.zeros(41, 1, 1), progress=0.5, prior=None)
    again.soft.sum().backward()
    assert torch.equal(through, parameters.grad)
    assert (through > 0).all()


def test_a_gaussian_draw_has_its_moments() -> None:
    family = Gaussian(REACH)
    parameters = torch.tensor([[[0.7, math.log(0.25)]]]).expand(200_000, 1, 2)
    noise = torch.randn(200_000, 1, 1, generator=torch.Generator().manual_seed(0))
    draw = family.draw(parameters, noise, progress=0.5, prior=None)
    z = draw.code * STEP
    assert z.mean().item() == pytest.approx(0.7, abs=0.01)
    assert z.std().item() == pytest.approx(0.5, abs=0.01)
    assert draw.kl is not None
    assert draw.kl[0, 0].item() == pytest.approx(0.5 * (0.49 + 0.25 - 1 - math.log(0.25)))
    assert (draw.soft * STEP)[0, 0].item() == pytest.approx(0.7)


def test_families_go_by_name() -> None:
    kinds = {
        Family.gaussian: Gaussian,
        Family.quantized: Quantized,
        Family.spike_slab: SpikeSlab,
        Family.topk: TopK,
    }
    for family in Family:
        assert isinstance(make_latents(ModelSettings(family=family), 3, 4, (2, 4)), kinds[family])
    assert np.isfinite(Gaussian(3).moments(torch.full((1, 1, 2), 1e9))[1].numpy()).all()
