"""The controller that gives a code what is asked of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae.calibration import GAIN, LEAST_WEIGHT, MOST_WEIGHT, moved, threshold_for


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
    assert found == min(rows * latents, round(asked * rows))
