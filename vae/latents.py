"""Latent families: how a row's code is drawn, what it costs, and its hard form with exact zeros.

One interface for all. `draw` gives a training-time code in units of the archive's integer steps and its cost in nats a
row where the family itself knows it (the KL of a stochastic posterior); a quantised code's cost comes from the learned
prior, which the model holds. `harden` gives the integers that are stored. Families whose latents are there or not are
in `vae.sparse`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

STEP = 0.5
"""Step of the stored integers of a stochastic posterior's mean, in standard deviations of the prior."""


class Draw(NamedTuple):
    """A drawn code. code (batch, latents): in integer steps, differentiable; soft: where it fell before rounding."""

    code: Tensor
    soft: Tensor
    kl: Tensor | None
    """KL(q(z|x) || p(z)) of each latent, nats, (batch, latents); None if the prior prices the code."""
    presence: Tensor
    """How much each latent is there, 0 to 1, differentiable, (batch, latents)."""
    penalty: Tensor | None = None
    """A term of the family's own, nats a row, scalar."""
    idle: Tensor | None = None
    """What latents that are never there would say, (batch, latents), in integer steps; None if all are used."""


class Latents(nn.Module):
    """A latent family."""

    outputs: int
    """Numbers that the encoder gives for each latent."""
    noises = 1
    """Standard normal numbers that a draw takes for each latent."""
    refits = True
    """Whether prior and decoder are refitted on hard codes at the end."""
    relabels = False
    """Whether zero may be made to mean what most rows say; where zero means that a latent is not there, it may not."""
    stochastic = False
    """Whether the posterior is one that can be drawn from, so that `sample` gives bounds on the likelihood."""
    gain: float | None = None
    """Factor on the encoder's last weights at the start; None: the model's own."""
    priced = True
    """Whether the model asks a price for presence; a prior of the family's own may ask it already."""
    pseudo: nn.Parameter | None
    """Rows that the encoder is shown for the prior, (rows, columns, features of a column)."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.pseudo = None

    def draw(self, parameters: Tensor, noise: Tensor, *, progress: float, prior: Tensor | None) -> Draw:
        """A code for training.

        parameters (batch, latents, outputs): the encoder's; noise (batch, latents, noises): standard normal;
        progress: the share of all steps that are done; prior (rows, latents, outputs): the encoder's for `pseudo`.
        """
        raise NotImplementedError

    def harden(self, parameters: Tensor) -> Tensor:
        """The code as stored: integers (batch, latents) as floats, exact zeros."""
        raise NotImplementedError

    def sample(self, parameters: Tensor, noise: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor]:
        """z ~ q(z | row) in integer steps, (batch, latents), and log p(z) - log q(z | row) in nats, (batch,).

        TypeError where the posterior is not stochastic.
        """
        del parameters, noise, prior
        raise TypeError("the posterior of this latent family is not stochastic")

    def gates(self, parameters: Tensor) -> Tensor | None:
        """What decides whether a latent is there, which it is above `threshold`; (batch, latents)."""
        del parameters
        return None


class Gaussian(Latents):
    """The plain VAE (Kingma & Welling 2014): q = N(mean, exp(log_variance)), p = N(0, 1).

    Stored as the mean rounded to `STEP` standard deviations of the prior.
    """

    outputs = 2
    refits = False
    stochastic = True

    def draw(self, parameters: Tensor, noise: Tensor, *, progress: float, prior: Tensor | None) -> Draw:
        del progress, prior
        mean, log_variance = self.moments(parameters)
        z = mean + (0.5 * log_variance).exp() * noise[..., 0]
        soft = mean / STEP
        return Draw(z / STEP, soft, gaussian_kl(mean, log_variance), soft.abs().clamp(max=1.0))

    def harden(self, parameters: Tensor) -> Tensor:
        mean, _ = self.moments(parameters)
        return (mean / STEP).round().clamp(-self.reach, self.reach)

    def sample(self, parameters: Tensor, noise: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor]:
        del prior
        mean, log_variance = self.moments(parameters)
        z = mean + (0.5 * log_variance).exp() * noise[..., 0]
        ratio = gaussian_log_density(z) - gaussian_log_density(z, mean, log_variance)
        return z / STEP, ratio.sum(1)

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q, both (batch, latents)."""
        return parameters[..., 0], parameters[..., 1].clamp(-12, 4)


class Quantized(Latents):
    """Integer latents under a learned prior: rounded with a straight-through gradient for the decoder.

    Rounding is what the decoder sees from the start, exact zeros included (Minnen & Singh 2020 on why noise alone
    misleads it); the rate follows the position between two integers linearly, which is the expected rate of
    stochastic rounding, so its gradient is that of what the disk pays on average.
    """

    outputs = 1

    def __init__(self, reach: int, *, gated: bool = False) -> None:
        """`gated`: what counts as zero is a threshold that can be moved, 0.5 by itself."""
        super().__init__(reach)
        self.gated, self.relabels = gated, not gated
        if gated:
            self.register_buffer("threshold", torch.tensor(0.5))

    def draw(self, parameters: Tensor, noise: Tensor, *, progress: float, prior: Tensor | None) -> Draw:
        del noise, progress, prior
        soft = bounded(parameters[..., 0], self.reach)
        return Draw(soft + (soft.round() - soft).detach(), soft, None, soft.abs().clamp(max=1.0))

    def harden(self, parameters: Tensor) -> Tensor:
        soft = bounded(parameters[..., 0], self.reach)
        if not self.gated:
            return soft.round()
        return present(soft.abs() > self.get_buffer("threshold"), soft, self.reach)

    def gates(self, parameters: Tensor) -> Tensor | None:
        return bounded(parameters[..., 0], self.reach).abs() if self.gated else None


def present(there: Tensor, value: Tensor, reach: int) -> Tensor:
    """Integers that are 0 just where a latent is not there."""
    return torch.where(there, never_zero(value, reach), 0.0)


def never_zero(value: Tensor, reach: int) -> Tensor:
    """The nearest integers within the reach that are not 0: what is there says so."""
    size = value.abs().round().clamp(1, reach)
    return torch.where(value < 0, -size, size)


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


def code_facts(hard: Tensor, drawn: Tensor) -> dict[str, float | int | bool]:
    """What a code is like: the hard one of some rows, and one that training drew of them, both (batch, latents).

    `mean_nonzero` a row, of the hard code, and `drawn_nonzero`, of the drawn one: their difference is what hard gates
    change. `dead_latents`, which never vary, and whether the code has `collapsed`: whether all are dead, so that it
    says nothing of a row.

    >>> code_facts(torch.tensor([[1, 0], [0, 0]]), torch.tensor([[1.0, 0.5], [0.0, 0.0]]))
    {'mean_nonzero': 0.5, 'drawn_nonzero': 1.0, 'dead_latents': 1, 'collapsed': False}
    """
    dead = int((hard == hard[:1]).all(0).sum())
    here, there = (round(float((code != 0).sum(1).float().mean()), 4) for code in (hard, drawn))
    return {
        "mean_nonzero": here,
        "drawn_nonzero": there,
        "dead_latents": dead,
        "collapsed": len(hard) > 1 and dead == hard.shape[1],
    }


def free_bits(cost: Tensor, nats: float) -> Tensor:
    """Cost of each latent, (batch, latents) -> (latents,), no less than `nats` each (Kingma et al. 2016, eq. 15)."""
    return cost.mean(0).clamp(min=nats)
