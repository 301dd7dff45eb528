"""What a decoder says of one column, and what its symbols then cost, in nats.

The same likelihoods as the codec's integer loop (`vae.codec.kernel`), in floats and differentiable. Classes and
components come before the batch, which is last, so that every sum over classes runs along contiguous rows: many times
quicker on a CPU for the few classes that columns have. Columns that are alike may be stacked before both.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = -28 * math.log(2)
"""No symbol is less probable than 2**-28 in the codec."""
LOG2_SCALE_LOW, LOG2_SCALE_HIGH = -5.0, 20.0


def categorical_nats(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax(logits)[target]; logits (..., classes, batch), target (..., batch) int -> (..., batch)."""
    return -F.log_softmax(logits, -2).gather(-2, target.long().unsqueeze(-2)).squeeze(-2)


def state_nats(logits: Tensor, state: Tensor, states: tuple[int, ...]) -> Tensor:
    """Cost of a cell's state: VALUE has logit 0, the others `logits` (..., states, batch); of no states, nothing."""
    if not states:
        return torch.zeros_like(state, dtype=logits.dtype)
    full = F.pad(logits, (0, 0, 1, 0))
    target = torch.zeros_like(state, dtype=torch.long)
    for k, code in enumerate(states):
        target = torch.where(state == code, k + 1, target)
    return categorical_nats(full, target)


def mixture_nats(
    outputs: Tensor, symbol: Tensor, bases: Tensor, unit: int | Tensor, low: int | Tensor, high: int | Tensor
) -> Tensor:
    """A mixture of discretised logistics (Salimans et al. 2017, eq. 2), each centred on a base plus an offset.

    outputs (..., 3 * components, batch): logits, offsets in units of 2**unit symbols, log2 scales; symbol
    (..., 1, batch) int; bases (..., components, batch) int; of stacked columns, unit, low and high (..., 1, 1)
    -> (..., batch) nats. The first and the last symbol take the tails.
    """
    logits, offsets, scales = outputs.chunk(3, -2)
    from_base = (symbol - bases).to(outputs.dtype) - offsets * 2.0**unit
    log_scale = scales.clamp(LOG2_SCALE_LOW, LOG2_SCALE_HIGH) * math.log(2)
    inverse = (-log_scale).exp()
    below, above = (from_base - 0.5) * inverse, (from_base + 0.5) * inverse
    is_low, is_high = symbol == low, symbol == high
    # log(σ(b) - σ(a)) = log σ(b) + log σ(-a) + log(1 - exp(a - b)), stable in both tails
    left = F.logsigmoid(above).masked_fill(is_high, 0.0)
    right = F.logsigmoid(-below).masked_fill(is_low, 0.0)
    width = log1mexp(inverse).masked_fill(is_low | is_high, 0.0)
    mass = torch.logsumexp(F.log_softmax(logits, -2) + left + right + width, -2)
    return -torch.logaddexp(mass, torch.full_like(mass, FLOOR))


def counted_nats(
    outputs: Tensor, symbol: Tensor, bases: Tensor, unit: int, high: int, factors: Tensor
) -> Tensor:
    """The same mixture, of symbols whose last bits are chosen one by one, each beside counts.

    outputs (3 * components, batch) as above, symbol (batch,) int of 0 .. high, bases (components, batch) int; factors
    (bits, 2, batch): log of what the half that holds the symbol is multiplied by, and of what the other -> (batch,).
    """
    logits, offsets, scales = outputs.chunk(3, 0)
    shares = F.softmax(logits, 0)
    mean = bases.to(outputs.dtype) + offsets * 2.0**unit
    inverse = (-scales.clamp(LOG2_SCALE_LOW, LOG2_SCALE_HIGH) * math.log(2)).exp()
    # of each component the tail that the symbol lies in: its differences are as exact as they are small
    side = torch.where(mean > symbol, 1.0, -1.0)
    steep, shares = inverse * side, shares * side
    least, most = (shares * (side < 0)).sum(0), (shares * (side > 0)).sum(0)
    least_mass = math.exp(FLOOR)

    def edge(k: Tensor) -> Tensor:
        """Mass below symbol k, up to a constant: (batch,)."""
        found = (shares * torch.sigmoid((k - 0.5 - mean) * steep)).sum(0)
        return torch.where(k <= 0, least, torch.where(k > high, most, found))

    bits = len(factors)

    def mass(start: Tensor, stop: Tensor, first: Tensor, size: int) -> Tensor:
        """Of symbols first .. first + size - 1 that there are: no less than the least of each."""
        there = (high + 1 - first).clamp(0, size)
        return (stop - start).clamp(min=0).masked_fill(there == 0, 0.0) + least_mass * there

    low = (symbol >> bits) << bits
    start, stop = edge(low), edge(low + (1 << bits))
    nats = -mass(start, stop, low, 1 << bits).log()
    for bit in reversed(range(bits)):
        middle = low + (1 << bit)
        between, second = edge(middle), symbol >= middle
        halves = torch.stack([mass(start, between, low, 1 << bit), mass(between, stop, middle, 1 << bit)])
        own, other = torch.where(second, halves.flip(0), halves)
        towards = factors[bit, 1] - factors[bit, 0]
        nats = nats + (1 + other / own * towards.exp()).log()
        low = torch.where(second, middle, low)
        start, stop = torch.where(second, between, start), torch.where(second, stop, between)
    return nats


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0 (Mächler 2012)."""
    x = x.clamp(min=1e-9)
    return torch.where(x < math.log(2), torch.log(-torch.expm1(-x)), torch.log1p(-torch.exp(-x)))


def memory_nats(logits: Tensor, classes: Tensor, member_bits: Tensor) -> Tensor:
    """Which context codes an identifier, among those that know anything, then its member by counts.

    logits (..., contexts + 1, batch); classes (..., contexts + 2, batch): target, then 1 for each open
    class; member_bits (..., batch).
    """
    masked = logits.masked_fill(classes[..., 1:, :] <= 0, -1e4)
    return categorical_nats(masked, classes[..., 0, :]) + member_bits * math.log(2)


def logistic_nats(mean: Tensor, log_scale: Tensor, value: Tensor) -> Tensor:
    """-log density of a logistic distribution at `value`, nats, elementwise; for standardised numbers."""
    z = (value - mean) * (-log_scale).exp()
    return log_scale + z + 2 * F.softplus(-z)
