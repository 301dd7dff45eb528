"""What a code is asked to be: so many non-zeros a row, so many bits, such a score; and the controller that gets there.

Nobody has to find the weight that gives a code of the wanted size: while encoder and decoder learn together, a weight
moves by how far the code is from what is asked for, as the multiplier of a constraint (Rezende & Viola 2018). For bits
and score it is λ, what the code alone is asked to rebuild; for non-zeros the price of a latent's presence, which may be
a reward. Where latents are there or not, the threshold that decides it does the rest, on rows of the validation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GAIN = 0.06
"""How fast log λ moves: a step for each unit by which the logarithm of what is measured misses its target."""
PRICE_GAIN, MOST_PRICE = 0.04, 8.0
"""How fast the price of presence moves, nats a step for the same unit; and the largest price, or reward."""
MOST_MISS = 1.0
"""Units of that miss that count at most: a code that is empty at first is no reason to leap."""
FLOOR_FALL = 0.75
"""How fast λ falls where a score is asked for, of how fast it rises: a score is a floor, which few steps undercut.
Chosen on covertype, flights and adult, 1,000 steps."""
LEAST_WEIGHT, MOST_WEIGHT = 1e-3, 50.0
SHARE, MOST_CHANGE, NEAR = 0.7, 1.15, 0.02
"""Of what bits miss by (in logarithms), what the number of latents that are on makes good at a time, for the prior has
to follow; the factor on that number, at most; and the miss that is left as it is, for gates may lie in heaps."""


@torch.no_grad()
def moved(weight: Tensor, found: Tensor, target: float, fall: float = 1.0) -> Tensor:
    """λ after a step in which the code was `found` to be so much; elementwise. It falls `fall` times as fast.

    >>> moved(torch.tensor(1.0), torch.tensor(8.0), 8.0).item()
    1.0
    >>> [round(moved(torch.tensor(1.0), torch.tensor(found), 8.0, 0.5).item(), 2) for found in (4.0, 16.0)]
    [1.04, 0.98]
    """
    miss = _miss(found, target)
    step = GAIN * torch.where(miss < 0, fall * miss, miss)
    return (weight * torch.exp(step)).clamp(LEAST_WEIGHT, MOST_WEIGHT)


@torch.no_grad()
def moved_price(price: Tensor, found: Tensor, target: float) -> Tensor:
    """The price of presence, nats a latent, after a step in which so many latents of a row were `found` on.

    >>> moved_price(torch.tensor(0.5), torch.tensor(8.0), 8.0).item()
    0.5
    """
    return (price - PRICE_GAIN * _miss(found, target)).clamp(-MOST_PRICE, MOST_PRICE)


def _miss(found: Tensor, target: float) -> Tensor:
    return (math.log(target) - found.clamp(min=1e-6).log()).clamp(-MOST_MISS, MOST_MISS)


@torch.no_grad()
def threshold_for(gates: Tensor, nonzeros: float) -> Tensor:
    """The threshold above which so many of a row's gates lie, on average; gates (rows, latents), scalar.

    Gates that are alike, as those of latents that read names are, go through together: the nearest number counts.

    >>> threshold_for(torch.tensor([[0.1, 0.9], [0.4, 0.2]]), 1.0)
    tensor(0.3000)
    """
    device, gates = gates.device, gates.cpu()  # not every accelerator has doubles
    levels, counts = gates.flatten().unique(return_counts=True)
    # how many are at each level or above it, and none above the last
    above = torch.cat([counts.flip(0).cumsum(0).flip(0), counts.new_zeros(1)])
    place = int((above.double() - nonzeros * len(gates)).abs().argmin())
    edges = torch.cat([levels[:1] - 1, (levels[1:] + levels[:-1]) / 2, levels[-1:] + 1])
    return edges[place].to(device)


@torch.no_grad()
def nearer(gates: Tensor, threshold: Tensor, found: Tensor, target: float) -> Tensor:
    """The threshold that lets more through, or less, so that a code that was `found` so much comes nearer to a target.

    >>> gates = torch.linspace(0, 1, 101).unsqueeze(1)
    >>> [round(nearer(gates, torch.tensor(0.5), torch.tensor(8.0), target).item(), 3) for target in (8.1, 8.8, 80.0)]
    [0.5, 0.475, 0.435]
    """
    miss = math.log(target / max(float(found), 1e-6))
    if abs(miss) < NEAR:
        return threshold
    most = math.log(MOST_CHANGE)
    there = float((gates > threshold).sum()) / len(gates)
    return threshold_for(gates, there * math.exp(min(most, max(-most, SHARE * miss))))
