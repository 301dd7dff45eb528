"""The mean of the weights of the last steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vae.averaging import LONGEST, averaged, follow, share


def model(value: float = 0.0) -> nn.Linear:
    made = nn.Linear(1, 1)
    nn.init.constant_(made.weight, value)
    nn.init.constant_(made.bias, -value)
    return made


def mean_of(values: list[float]) -> float:
    mean: dict[str, Tensor] = {}
    for steps, value in enumerate(values):
        follow(mean, model(value), steps)
    assert mean["bias"].item() == pytest.approx(-mean["weight"].item())
    return mean["weight"].item()


def test_what_stands_still_is_its_own_mean() -> None:
    assert mean_of([3.0] * 200) == 3.0


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_it_is_the_sum_of_all_weights_by_their_shares(steps: int) -> None:
    values = torch.randn(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist()
    expected = 0.0
    for k, value in enumerate(values):
        left = 1.0
        for later in range(k + 1, steps):
            left *= 1 - share(later)
        expected += share(k) * left * value
    assert mean_of(values) == pytest.approx(expected, abs=1e-6)


def test_it_lags_by_a_tenth_of_the_steps_and_never_by_more_than_the_longest() -> None:
    for steps in (20, 100, 400):
        # of weights that go up by one a step
        assert 0 < steps - 1 - mean_of([float(k) for k in range(steps)]) <= steps / 10
    assert 1999 - mean_of([float(k) for k in range(2000)]) == pytest.approx(LONGEST - 1, abs=0.1)


def test_weights_swing_about_their_mean() -> None:
    far = mean_of([(-1.0) ** k for k in range(400)])
    assert abs(far) < 0.02


def test_a_model_has_its_mean_for_a_while() -> None:
    made, mean = model(2.0), {"weight": torch.tensor([[5.0]])}
    with averaged(mean, made):
        assert (made.weight.item(), made.bias.item()) == (5.0, -2.0)
    assert (made.weight.item(), made.bias.item()) == (2.0, -2.0)
    with pytest.raises(ZeroDivisionError), averaged(mean, made):
        raise ZeroDivisionError
    assert made.weight.item() == 2.0
    assert mean["weight"].item() == 5.0


def test_what_does_not_train_is_not_averaged() -> None:
    made, mean = model(1.0), dict[str, Tensor]()
    made.bias.requires_grad_(False)
    follow(mean, made, 0)
    assert list(mean) == ["weight"]
