"""Latent families: how a row's code is drawn, what it costs, and its hard form with exact zeros.

One interface for all. `draw` gives a training-time code in units of the archive's integer steps and its cost in nats a
row where the family itself knows it (the KL of a Gaussian); a quantised code's cost comes from the learned prior, which
the model holds. `harden` gives the integers that are stored.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vae.settings import Family


class Draw(NamedTuple):
    """A drawn code. code (batch, latents): in integer steps, differentiable; soft: where it fell before rounding."""

    code: Tensor
    soft: Tensor
    kl: Tensor | None
    """KL(q(z|x) || p(z)) of each latent, nats, (batch, latents); None if the prior prices the code."""


class Latents(Protocol):
    """A latent family."""

    outputs: int
    """Numbers that the encoder gives for each latent."""

    def draw(self, parameters: Tensor, noise: Tensor) -> Draw:
        """A code for training from the encoder's parameters (batch, latents, outputs) and standard normal noise."""
        ...

    def harden(self, parameters: Tensor) -> Tensor:
        """The code as stored: integers (batch, latents) as floats, exact zeros."""
        ...


class Gaussian:
    """The plain VAE (Kingma & Welling 2014): q = N(mean, exp(log_variance)), p = N(0, 1).

    Stored as the mean rounded to half a standard deviation of the prior.
    """

    outputs = 2
    step = 0.5

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def draw(self, parameters: Tensor, noise: Tensor) -> Draw:
        mean, log_variance = self.moments(parameters)
        z = mean + (0.5 * log_variance).exp() * noise
        return Draw(z / self.step, mean / self.step, gaussian_kl(mean, log_variance))

    def harden(self, parameters: Tensor) -> Tensor:
        mean, _ = self.moments(parameters)
        return (mean / self.step).round().clamp(-self.reach, self.reach)

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q, both (batch, latents)."""
        return parameters[..., 0], parameters[..., 1].clamp(-12, 4)


class Quantized:
    """Integer latents under a learned prior: rounded with a straight-through gradient for the decoder.

    Rounding is what the decoder sees from the start, exact zeros included (Minnen & Singh 2020 on why noise alone
    misleads it); the rate follows the position between two integers linearly, which is the expected rate of
    stochastic rounding, so its gradient is that of what the disk pays on average.
    """

    outputs = 1

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def draw(self, parameters: Tensor, noise: Tensor) -> Draw:
        del noise
        soft = bounded(parameters[..., 0], self.reach)
        return Draw(soft + (soft.round() - soft).detach(), soft, None)

    def harden(self, parameters: Tensor) -> Tensor:
        return bounded(parameters[..., 0], self.reach).round()


def make_latents(family: Family, reach: int) -> Gaussian | Quantized:
    """The family by name."""
    return Gaussian(reach) if family is Family.gaussian else Quantized(reach)


def bounded(x: Tensor, reach: int) -> Tensor:
    """x softly held within ±(reach + 0.49), nearly the identity in the middle."""
    edge = reach + 0.49
    return edge * torch.tanh(x / edge)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, elementwise (Kingma & Welling 2014, appendix B).

    >>> gaussian_kl(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def gaussian_log_density(z: Tensor, mean: Tensor | float = 0.0, log_variance: Tensor | float = 0.0) -> Tensor:
    """log N(z; mean, exp(log_variance)) in nats, elementwise."""
    log_variance = torch.as_tensor(log_variance, dtype=z.dtype, device=z.device)
    return -0.5 * (math.log(2 * math.pi) + log_variance + (z - mean).square() / log_variance.exp())


def interpolated_rate(nats: Tensor, soft: Tensor, reach: int) -> Tensor:
    """Expected cost of rounding `soft` up or down at random, from the cost of each integer.

    nats (latents, 2 * reach + 1, batch): -log p of -reach .. reach; soft (batch, latents) -> (batch, latents).
    Differentiable in both.
    """
    place = (soft.T + reach).clamp(0, 2 * reach).unsqueeze(1)
    below = place.detach().floor().clamp(0, 2 * reach - 1)
    index = below.long()
    low, high = nats.gather(1, index), nats.gather(1, index + 1)
    return (low + (place - below) * (high - low)).squeeze(1).T


def free_bits(cost: Tensor, nats: float) -> Tensor:
    """Cost of each latent, (batch, latents) -> (latents,), no less than `nats` each (Kingma et al. 2016, eq. 15)."""
    return cost.mean(0).clamp(min=nats)
