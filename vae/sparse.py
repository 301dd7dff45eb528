"""Latent families whose latents are there or not: `spike_slab` (variational sparse coding) and `topk`.

A latent that is there is stored as an integer that is not 0, one that is not as an exact 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae.calibration import threshold_for
from vae.latents import (
    STEP,
    Draw,
    Gaussian,
    Latents,
    Quantized,
    bounded,
    gaussian_log_density,
    never_zero,
    present,
)
from vae.settings import Family, ModelSettings, Target

WHICH_FIRST = 0.1
"""Share of the steps after which the slab is the encoder's own: until then it learns which latents before how much."""
TEMPERATURE = 0.5
"""Of the relaxed gates (Maddison et al. 2017): the gradient of a gate that is drawn is that of its relaxation."""
KEEP = 0.99
"""What running averages keep at each step."""
IDLE = 0.05
"""A latent is idle if it is there less often than this share of what would be the mean of all."""
DRAWS = (-12.0, 4.0)
"""Bounds of log variances."""
LEAST, MOST = 1e-5, 1 - 1e-5
"""Bounds of probabilities of presence."""


def make_latents(settings: ModelSettings, reach: int, latents: int, row: tuple[int, int]) -> Latents:
    """The family that the settings name; row: columns, and features of a column as the encoder reads them."""
    target = Target.parse(settings.target) if settings.target else None
    nonzeros = target.value if target and target.what == "nonzeros" else None
    if settings.family is Family.gaussian:
        return Gaussian(reach)
    if settings.family is Family.quantized:
        return Quantized(reach, gated=target is not None)
    if settings.family is Family.topk:
        return TopK(reach, latents, nonzeros or settings.active or max(1.0, latents / 4))
    presence = settings.presence if nonzeros is None else min(0.9, nonzeros / max(1, latents))
    return SpikeSlab(reach, latents, presence, (settings.pseudo_rows, *row))


class SpikeSlab(Latents):
    """Variational sparse coding (Tonolini et al. 2019): q = γ N(mean, σ²) + (1 - γ) δ(0), presence γ by latent and row.

    The prior is a mixture, of equal parts, of the posteriors of a few learned rows (the paper's eq. 9; without such
    rows, α N(0, 1) + (1 - α) δ(0)). The paper's classifier chooses a row's part; here parts share a row by what it
    costs under each, and the price of saying which is how far the shares are from equal ones: so the bound holds
    (Hershey & Olsen 2007, §8), and parts that suit no row best learn as well. The mean presence of each latent in these
    rows is held at α (the paper's J · KL(γ̄ ‖ α) has one mean for all, which a few latents that are always there
    satisfy, and all others dead). While training begins, slabs are N(0, 1) and come to be the encoder's bit by bit (the
    paper's λ): which latents are there is learnt before what they say.
    """

    outputs = 3
    noises = 2
    gain = 1.5
    priced = False
    stochastic = True

    def __init__(self, reach: int, latents: int, presence: float, rows: tuple[int, int, int]) -> None:
        super().__init__(reach)
        self.alpha = presence
        self.threshold: Tensor
        self.register_buffer("threshold", torch.zeros(()))
        self.pseudo = nn.Parameter(torch.randn(rows)) if rows[0] else None
        self.latents = latents

    def draw(self, parameters: Tensor, noise: Tensor, *, progress: float, prior: Tensor | None) -> Draw:
        logit, mean, log_variance = _spike_slab(parameters)
        warm = min(1.0, progress / WHICH_FIRST)
        mean, log_variance = _warmed(mean, log_variance, warm)
        slab = mean + (0.5 * log_variance).exp() * noise[..., 0]
        relaxed = torch.sigmoid((logit + _logistic(noise[..., 1])) / TEMPERATURE)
        gate = relaxed + ((relaxed > 0.5).to(relaxed.dtype) - relaxed).detach()
        presence = torch.sigmoid(logit)
        kl, penalty = self._kl((logit, mean, log_variance), prior, warm)
        return Draw(gate * slab / STEP, presence * mean / STEP, kl, presence, penalty)

    def harden(self, parameters: Tensor) -> Tensor:
        logit, mean, _ = _spike_slab(parameters)
        return present(logit > self.threshold, mean / STEP, self.reach)

    def gates(self, parameters: Tensor) -> Tensor | None:
        return _spike_slab(parameters)[0]

    def sample(self, parameters: Tensor, noise: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor]:
        own = _spike_slab(parameters)
        logit, mean, log_variance = own
        there = logit + _logistic(noise[..., 1]) > 0
        z = torch.where(there, mean + (0.5 * log_variance).exp() * noise[..., 0], 0.0)
        facts = _facts(there.to(z.dtype), z, torch.zeros_like(z))
        parts = -_in_all(facts, _costs(*self._parts(prior, mean)))
        log_prior = (parts.logsumexp(1) - math.log(parts.shape[1])).to(z.dtype)
        log_prior = log_prior - 0.5 * math.log(2 * math.pi) * there.sum(1)
        return z / STEP, log_prior - spike_slab_log_density(z, there, *own).sum(1)

    def _parts(self, prior: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gate logit, mean and log variance of each part of the prior, (parts, latents)."""
        if prior is None:
            zero = like.new_zeros(1, like.shape[1])
            return zero + math.log(self.alpha / (1 - self.alpha)), zero, zero
        return _spike_slab(prior)

    def _kl(
        self, own: tuple[Tensor, Tensor, Tensor], prior: Tensor | None, warm: float
    ) -> tuple[Tensor, Tensor | None]:
        """The cost of each latent under the prior, parts by how well they suit the row, and the price of γ̄."""
        if prior is None:
            return spike_slab_kl(*own, *self._parts(None, own[1])), None
        logit, mean, log_variance = _spike_slab(prior)
        costs = _costs(logit, *_warmed(mean, log_variance, warm))
        gate, mean, log_variance = own
        there = torch.sigmoid(gate).clamp(LEAST, MOST)
        facts = _facts(there, mean, log_variance.exp())
        entropy = there * there.log() + (1 - there) * (1 - there).log() - 0.5 * there * (log_variance + 1)
        share = torch.log_softmax(-_in_all(facts, costs), 1)
        which = (share.exp() * share).sum(1, keepdim=True) + math.log(len(prior))
        shared = torch.einsum("bp,pfj->bfj", share.exp(), costs)
        kl = entropy + ((facts * shared).sum(1) + which / self.latents).to(entropy.dtype)
        usual = torch.sigmoid(logit).mean(0)
        penalty = bernoulli_kl(usual, usual.new_tensor(self.alpha)).sum()
        return kl, penalty


class TopK(Latents):
    """The `active` largest latents a row, on average over a batch (Bussmann et al. 2024), as quantised values.

    In training those of a batch are kept that are largest; what they are above, averaged over steps, is the threshold
    that decides afterwards, for each row by itself. Its rate under the learned prior is that of a Bernoulli mask and of
    the values of what is there. `idle`: what latents that are hardly ever there would say, for a term that brings them
    back (Gao et al. 2024, §A.2).
    """

    outputs = 1

    def __init__(self, reach: int, latents: int, active: float) -> None:
        super().__init__(reach)
        self.active = min(active, float(latents))
        self.threshold: Tensor
        self.register_buffer("threshold", torch.tensor(0.5))
        self.often: Tensor
        self.register_buffer("often", torch.full((latents,), self.active / latents))

    def draw(self, parameters: Tensor, noise: Tensor, *, progress: float, prior: Tensor | None) -> Draw:
        del noise, progress, prior
        soft = bounded(parameters[..., 0], self.reach)
        size = soft.detach().abs()
        edge = threshold_for(size, self.active)
        there = size > edge
        if self.training:
            with torch.no_grad():
                self.threshold.lerp_(edge, 1 - KEEP)
                self.often.lerp_(there.to(soft.dtype).mean(0), 1 - KEEP)
        idle = self.often < IDLE * self.active / soft.shape[1]
        at_least = torch.where(
            soft < 0, soft.clamp(max=-1.0), soft.clamp(min=1.0)
        )  # as it is rounded: never to 0
        kept = torch.where(there, soft + (at_least - soft).detach(), 0.0)
        presence = there.to(soft.dtype)
        spare = _straight(soft, self.reach) * idle if bool(idle.any()) else None
        return Draw(_straight(soft, self.reach) * presence, kept, None, presence, None, spare)

    def harden(self, parameters: Tensor) -> Tensor:
        soft = bounded(parameters[..., 0], self.reach)
        return present(soft.abs() > self.threshold, soft, self.reach)

    def gates(self, parameters: Tensor) -> Tensor | None:
        return bounded(parameters[..., 0], self.reach).abs()


def spike_slab_kl(
    logit: Tensor, mean: Tensor, log_variance: Tensor, logit_0: Tensor, mean_0: Tensor, log_variance_0: Tensor
) -> Tensor:
    """KL(γ N(mean, σ²) + (1-γ) δ ‖ γ₀ N(mean₀, σ₀²) + (1-γ₀) δ) in nats, elementwise; γ as logits.

    Between spike and slab only the Bernoulli part counts, for no point is common to both (Tonolini et al. 2019, eq. 7).

    >>> zero = torch.zeros(())
    >>> spike_slab_kl(zero, torch.ones(()), zero, zero, zero, zero).item()
    0.25
    """
    there = torch.sigmoid(logit)
    slab = 0.5 * (
        log_variance_0
        - log_variance
        + (log_variance.exp() + (mean - mean_0).square()) / log_variance_0.exp()
        - 1.0
    )
    return bernoulli_kl(there, torch.sigmoid(logit_0)) + there * slab


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(Bernoulli(p) ‖ Bernoulli(q)) in nats, elementwise; probabilities held within `LEAST` and `MOST`.

    >>> round(bernoulli_kl(torch.tensor(0.5), torch.tensor(0.25)).item(), 4)  # ln 2 - ln 3 / 2
    0.1438
    """
    p, q = p.clamp(LEAST, MOST), q.clamp(LEAST, MOST)
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def _facts(there: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """What the cross entropy under any spike and slab is linear in, (batch, 4, latents): see `_costs`.

    In double precision: between `_facts` and `_costs` large numbers cancel.
    """
    facts = there, 1 - there, there * (variance + mean.square()), there * mean
    return torch.stack(facts, 1).double()


def _costs(logit: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """What each of `_facts` costs under each part, in nats but for log(2π)/2 of a slab, (parts, 4, latents)."""
    there = torch.sigmoid(logit).clamp(LEAST, MOST)
    mean, precision = mean.double(), (-log_variance.double()).exp()
    slab = 0.5 * (log_variance + mean.square() * precision)
    costs = slab - there.log(), -(1 - there).log(), 0.5 * precision, -mean * precision
    return torch.stack([cost.double() for cost in costs], 1)


def _in_all(facts: Tensor, costs: Tensor) -> Tensor:
    """The sum over facts and latents, (batch, parts)."""
    return facts.flatten(1) @ costs.flatten(1).T


def spike_slab_log_density(
    z: Tensor, there: Tensor, logit: Tensor, mean: Tensor, log_variance: Tensor
) -> Tensor:
    """log q of z and of whether it is there, in nats, elementwise: a density beside a probability."""
    slab = F.logsigmoid(logit) + gaussian_log_density(z, mean, log_variance)
    return torch.where(there, slab, F.logsigmoid(-logit))


def _spike_slab(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gate logit, mean and log variance, each of the shape of parameters without its last axis."""
    return parameters[..., 2], parameters[..., 0], parameters[..., 1].clamp(*DRAWS)


def _warmed(mean: Tensor, log_variance: Tensor, warm: float) -> tuple[Tensor, Tensor]:
    """Mean and log variance on the way from N(0, 1), at 0, to what they are, at 1."""
    return warm * mean, (warm * log_variance.exp() + (1 - warm)).log()


def _logistic(normal: Tensor) -> Tensor:
    """A standard logistic number from a standard normal one."""
    uniform = torch.special.ndtr(normal).clamp(1e-6, 1 - 1e-6)
    return uniform.log() - torch.log1p(-uniform)


def _straight(soft: Tensor, reach: int) -> Tensor:
    """`never_zero` with the gradient of its argument."""
    return soft + (never_zero(soft, reach) - soft).detach()
