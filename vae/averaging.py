"""The mean of the weights of the last steps, which is what a training is judged by and what it keeps.

At a rate that learns fast, weights swing about what they are on their way to, and their mean lies nearer to it (Polyak
& Juditsky 1992, "Acceleration of stochastic approximation by averaging"). It forgets exponentially, and early steps
sooner: after `n` steps it is of about the last tenth of them, and never of more than `LONGEST`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LONGEST = 50
"""Steps that the mean is of, in the end."""
TENTH = 9.0


def share(steps: int) -> float:
    """What the weights after so many steps count in the mean.

    >>> [round(share(steps), 3) for steps in (0, 10, 100, 10_000)]
    [1.0, 0.474, 0.083, 0.02]
    """
    return max(1 / LONGEST, TENTH / (TENTH + steps))


@torch.no_grad()
def follow(mean: dict[str, Tensor], model: nn.Module, steps: int) -> None:
    """Takes the weights that train into the `mean`, empty at first, after so many steps that it knows of already."""
    for name, weights in model.named_parameters():
        if not weights.requires_grad:
            continue
        if steps == 0:
            mean[name] = weights.detach().clone()
        else:  # that of a checkpoint lies in the processor's memory, wherever the model is
            mean[name] = mean[name].to(weights.device).lerp_(weights, share(steps))


@contextmanager
def averaged(mean: dict[str, Tensor], model: nn.Module) -> Generator[None]:
    """Within, the model has the mean of its weights, where there is one; afterwards its own again."""
    own = {name: weights for name, weights in model.named_parameters() if name in mean}
    before = {name: weights.detach().clone() for name, weights in own.items()}
    _put(own, mean)
    try:
        yield
    finally:
        _put(own, before)


@torch.no_grad()
def _put(weights: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, each in weights.items():
        each.copy_(values[name])
