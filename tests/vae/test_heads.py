"""Likelihoods sum or integrate to one, and are their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vae.heads import (
    FLOOR,
    LOG2_SCALE_HIGH,
    LOG2_SCALE_LOW,
    categorical_nats,
    counted_nats,
    log1mexp,
    logistic_nats,
    memory_nats,
    mixture_nats,
    state_nats,
)

FEW = settings(max_examples=40)
SEEDS = st.integers(0, 10_000)


def total(nats: Tensor) -> float:
    return nats.double().neg().exp().sum().item()


def random(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@FEW
@given(seed=SEEDS, classes=st.integers(1, 40))
def test_classes_sum_to_one(seed: int, classes: int) -> None:
    logits = random(seed, classes, 1).expand(classes, classes)
    nats = categorical_nats(logits, torch.arange(classes))
    assert total(nats) == pytest.approx(1, abs=1e-5)
    cross = torch.nn.functional.cross_entropy(logits.T, torch.arange(classes), reduction="none")
    assert torch.allclose(nats, cross, atol=1e-5)


@FEW
@given(seed=SEEDS, states=st.sampled_from([(1,), (2, 3), (1, 2, 3)]))
def test_states_sum_to_one_with_a_value_at_logit_zero(seed: int, states: tuple[int, ...]) -> None:
    logits = random(seed, len(states), 1)
    nats = state_nats(
        logits.expand(-1, len(states) + 1), torch.tensor([0, *states], dtype=torch.uint8), states
    )
    assert total(nats) == pytest.approx(1, abs=1e-5)
    assert nats[0].item() == pytest.approx(
        torch.logsumexp(torch.tensor([0.0, *logits[:, 0]]), 0).item(), abs=1e-5
    )


def test_a_column_without_states_pays_nothing_for_them() -> None:
    nats = state_nats(torch.zeros(0, 3), torch.tensor([0, 0, 1], dtype=torch.uint8), ())
    assert nats.tolist() == [0, 0, 0]


@settings(max_examples=100)
@given(
    seed=SEEDS,
    low=st.integers(-(2**20), 2**20),
    span=st.sampled_from([1, 2, 3, 50, 4_000]),
    components=st.integers(1, 4),
    unit=st.sampled_from([0, 3, 9]),
    log_scale=st.floats(-7, 22),
)
@example(seed=0, low=0, span=2, components=1, unit=0, log_scale=-7.0)
@example(seed=0, low=0, span=4_000, components=4, unit=9, log_scale=22.0)
def test_a_mixture_sums_to_one_over_its_symbols(
    seed: int, low: int, span: int, components: int, unit: int, log_scale: float
) -> None:
    logits, offsets = random(seed, components, 1), random(seed + 1, components, 1, scale=2 * span / 2**unit)
    outputs = torch.cat([logits, offsets, log_scale + random(seed + 2, components, 1, scale=0.5)])
    symbols = torch.arange(low, low + span, dtype=torch.int32)
    bases = (low + random(seed + 3, components, 1, scale=span)).int()
    nats = mixture_nats(
        outputs.expand(-1, span), symbols.unsqueeze(0), bases.expand(-1, span), unit, low, low + span - 1
    )
    # no symbol is less probable than the floor, which is added to all
    assert total(nats) == pytest.approx(1 + span * math.exp(FLOOR), abs=2e-3)
    assert nats.max() <= -FLOOR + 1e-4


@FEW
@given(seed=SEEDS, log_scale=st.floats(-2, 6), symbol=st.integers(-40, 40))
def test_a_symbol_has_the_mass_of_its_interval(seed: int, log_scale: float, symbol: int) -> None:
    offset = random(seed, 1).item()
    outputs = torch.tensor([[0.3], [offset], [log_scale]])
    nats = mixture_nats(outputs, torch.tensor([[symbol]]), torch.tensor([[2]]), 1, -1000, 1000)
    scale = 2.0**log_scale
    below, above = ((symbol + edge - 2 - 2 * offset) / scale for edge in (-0.5, 0.5))
    mass = 1 / (1 + math.exp(-above)) - 1 / (1 + math.exp(-below))
    assert nats.neg().exp().item() == pytest.approx(mass + math.exp(FLOOR), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("log_scale", [LOG2_SCALE_LOW, 0.0, LOG2_SCALE_HIGH])
@pytest.mark.parametrize("symbol", [-(2**19), -1, 0, 2**19 - 1])
def test_gradients_are_finite_at_every_extreme(log_scale: float, symbol: int) -> None:
    outputs = torch.tensor([[9.0], [-9.0], [0.0], [1e4], [log_scale], [log_scale]], requires_grad=True)
    bases = torch.tensor([[0], [-(2**19)]])
    nats = mixture_nats(outputs, torch.tensor([[symbol]]), bases, 10, -(2**19), 2**19 - 1)
    nats.sum().backward()
    assert torch.isfinite(nats).all()
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


def some_bases(seed: int, high: int) -> Tensor:
    return torch.randint(0, high + 1, (6, 1), generator=torch.Generator().manual_seed(seed))


def halves(table: Tensor, symbols: Tensor) -> Tensor:
    """Factors of the half that holds each symbol and of the other, by bit: what `counted_nats` takes."""
    bits = range(len(table))
    return torch.stack([torch.stack([table[k][symbols >> k], table[k][(symbols >> k) ^ 1]]) for k in bits])


@FEW
@given(
    seed=SEEDS, high=st.integers(1, 300), bits=st.integers(0, 8), strength=st.sampled_from([0.0, 0.5, 8.0])
)
def test_counted_symbols_sum_to_one_whatever_the_counts(
    seed: int, high: int, bits: int, strength: float
) -> None:
    outputs, bases, symbols = random(seed, 18, 1), some_bases(seed, high), torch.arange(high + 1)
    table = random(seed + 1, max(bits, 1), 512, scale=strength)[:bits]
    factors = halves(table, symbols) if bits else torch.zeros(0, 2, high + 1)
    nats = counted_nats(outputs.expand(-1, high + 1), symbols, bases.expand(-1, high + 1), 1, high, factors)
    assert total(nats) == pytest.approx(1, abs=1e-4)


@FEW
@given(seed=SEEDS, high=st.integers(1, 300), bits=st.integers(0, 8))
def test_equal_counts_leave_the_mixture_as_it_is(seed: int, high: int, bits: int) -> None:
    symbols = torch.arange(high + 1)
    outputs = random(seed, 18, 1).expand(-1, high + 1)
    bases = torch.randint(0, high + 1, (6, 1), generator=torch.Generator().manual_seed(seed)).expand(
        -1, high + 1
    )
    nats = counted_nats(outputs, symbols, bases, 1, high, torch.full((bits, 2, high + 1), -0.7))
    plain = mixture_nats(outputs, symbols.unsqueeze(0), bases, 1, 0, high)
    assert torch.allclose(nats.exp().reciprocal(), plain.exp().reciprocal(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("high", "bits"), [(200, 4), (84, 4), (85, 4), (200, 7), (200, 8), (255, 4)])
def test_the_least_likely_symbol_costs_the_same_counted_or_not(high: int, bits: int) -> None:
    """At the end of the range, where a half has fewer symbols than it might, and the mixture is far away."""
    outputs, base = torch.tensor([[0.0], [0.0], [-5.0]]), torch.tensor([[3]])
    counted = counted_nats(outputs, torch.tensor([high]), base, 0, high, torch.zeros(bits, 2, 1))
    assert float(counted) == pytest.approx(-FLOOR, abs=0.01)


def test_counts_weigh_the_halves_of_a_group() -> None:
    """By hand: four symbols of one broad component; the last is three times as likely as the third."""
    outputs = torch.tensor([[0.0], [0.0], [12.0]])  # so broad that all between the ends are alike
    factors = torch.zeros(2, 2, 1)
    factors[0] = torch.log(torch.tensor([[3.0], [1.0]]))
    args = (torch.tensor([503]), torch.tensor([[500]]), 0, 1_000)
    nats, plain = (counted_nats(outputs, *args, given) for given in (factors, torch.zeros_like(factors)))
    assert float(plain - nats) == pytest.approx(math.log(0.75 / 0.5), abs=1e-3)


@pytest.mark.parametrize("log_scale", [-40.0, LOG2_SCALE_LOW, 3.0, LOG2_SCALE_HIGH, 40.0])
@pytest.mark.parametrize("symbol", [0, 1, 15, 16, 100, 249, 250])
def test_gradients_of_counted_symbols_are_finite_at_every_extreme(log_scale: float, symbol: int) -> None:
    outputs = torch.tensor([[0.0], [900.0], [log_scale]], requires_grad=True)
    factors = torch.full((4, 2, 1), -8.0, requires_grad=True)
    nats = counted_nats(outputs, torch.tensor([symbol]), torch.tensor([[0]]), 4, 250, factors)
    (slopes, counted) = torch.autograd.grad(nats.sum(), (outputs, factors))
    assert torch.isfinite(nats).all()
    assert torch.isfinite(slopes).all()
    assert torch.isfinite(counted).all()
    assert 0 <= float(nats.detach()) <= 5 * 28 * math.log(2) + 4 * 8


def test_log1mexp_is_accurate_from_tiny_to_large() -> None:
    x = torch.logspace(-6, 1.5, 50, dtype=torch.float64)
    expected = np.log(-np.expm1(-x.numpy()))
    assert np.allclose(log1mexp(x).numpy(), expected, rtol=1e-10)


@FEW
@given(seed=SEEDS, contexts=st.integers(1, 4), data=st.data())
def test_open_classes_and_their_members_sum_to_one(seed: int, contexts: int, data: st.DataObject) -> None:
    opened = [*data.draw(st.lists(st.booleans(), min_size=contexts, max_size=contexts)), True]
    counts = {k: data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)) for k in range(contexts + 1)}
    # each open class codes any of its members by its count
    cells = [
        (k, math.log2(sum(counts[k]) / count))
        for k in range(contexts + 1)
        if opened[k]
        for count in counts[k]
    ]
    classes = torch.tensor([[k, *opened] for k, _ in cells]).T
    logits = random(seed, contexts + 1, 1).expand(-1, len(cells))
    nats = memory_nats(logits, classes, torch.tensor([bits for _, bits in cells]))
    assert total(nats) == pytest.approx(1, abs=1e-5)


@FEW
@given(mean=st.floats(-3, 3), log_scale=st.floats(-3.5, 2))
def test_a_logistic_integrates_to_one(mean: float, log_scale: float) -> None:
    scale = math.exp(log_scale)
    x = torch.linspace(mean - 40 * scale, mean + 40 * scale, 40_001, dtype=torch.float64)
    density = logistic_nats(torch.tensor(mean), torch.tensor(log_scale), x).neg().exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-6)
    centre = logistic_nats(torch.tensor(mean), torch.tensor(log_scale), torch.tensor(mean))
    assert centre.item() == pytest.approx(math.log(4 * scale), abs=1e-4)
