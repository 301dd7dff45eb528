"""A model whose code is asked to be something, and what is moved while it trains until the code is that.

Without a target it is a score: λ, what the code alone is asked to rebuild, falls once the code scores more than its
`codes` ask for. With one (`vae.calibration`) it is λ, or the price of presence, that a controller moves. Halfway the
encoder is held fast for a while (`vae.schedule`), to see what becomes of the code while prior and decoder go on
learning, and that is put against what is measured from then on; of a score, which is a floor, only what it loses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae.calibration import FLOOR_FALL, moved, moved_price, nearer, threshold_for
from vae.latents import Latents
from vae.settings import FIRST_CODES_WEIGHT, ModelSettings, Target, codes_weight
from vae.stencil import Tensors

LEAST_SLACK = 0.001
MOST_GROWTH = 1.5
"""Factor on the latents that are on, at most, by a threshold that lets more through."""


class Steered(nn.Module):
    """What the models of tables, images and texts have in common. A subclass sets `latents`, where there are any."""

    presence: float
    """Nats asked of a latent for not being zero."""
    slackening: float
    """How fast λ falls, and rises again: exponent a step for a score that is 1 above what is asked for, or below."""
    latents: Latents
    progress: Tensor
    slack: Tensor
    dial: Tensor
    """With a target: λ, or the price of presence."""
    found: Tensor
    """What the code was when the encoder was held fast; below 0 before."""
    settling: Tensor
    """What becomes of it, as a factor."""
    lowest: Tensor
    """The threshold that lets most through, when the code is frozen."""

    def __init__(self, settings: ModelSettings, latents: int) -> None:
        super().__init__()
        self.settings, self.coded = settings, latents > 0
        # part of the state: hard codes of a training that is under way depend on it, and so does what is judged best
        self.register_buffer("progress", torch.ones(()))
        self.register_buffer("slack", torch.ones(()))
        self.target = Target.parse(settings.target) if settings.target and latents else None
        if self.target:
            first = self.presence if self.target.what == "nonzeros" else FIRST_CODES_WEIGHT
            self.register_buffer("dial", torch.tensor(first))
            self.register_buffer("found", torch.tensor(-1.0))
            self.register_buffer("settling", torch.ones(()))
            self.register_buffer("lowest", torch.tensor(-torch.inf))

    def measured(self, batch: Tensors) -> Tensor:
        """What the code of a batch is, of what its target is about: bits a row, or its score; a scalar."""
        raise NotImplementedError

    def gates(self, batch: Tensors) -> Tensor | None:
        """Of each latent of a batch what decides whether it is there, (batch, latents); None where nothing does."""
        raise NotImplementedError

    def encode(self, batch: Tensors) -> Tensor:
        """Hard codes of rows, int8 (batch, latents), exact zeros."""
        raise NotImplementedError

    @property
    def weight(self) -> float:
        """λ of the term that asks the code alone to rebuild the row, at this point of the training.

        It is the multiplier of a constraint, that the code's score be what is asked for (Rezende & Viola 2018), up to a
        largest weight: what cannot be said in few bits is not asked for at any price.
        """
        if not self.coded:
            return 0.0
        if self.target and self.target.what != "nonzeros":
            return float(self.dial)
        return codes_weight(self.settings.codes, float(self.progress)) * float(self.slack)

    @property
    def price(self) -> float:
        """Nats asked of a latent for being there, at this point of the training."""
        if self.target and self.target.what == "nonzeros":
            return float(self.dial)
        return self.presence if self.latents.priced else 0.0

    @torch.no_grad()
    def came_to(self, batch: Tensors) -> float:
        """What the code of a batch is, of what its target is about."""
        if self.target is not None and self.target.what == "nonzeros":
            return float((self.encode(batch) != 0).sum(1).float().mean())
        return float(self.measured(batch))

    def aims(self, phase: str) -> bool:
        """Whether in this phase the code is moved towards its target."""
        if self.target is None:
            return False
        return phase == "joint" or (phase == "refit" and self.target.what == "bits")

    @torch.no_grad()
    def settle(self, phase: str, batch: Tensors) -> bool:
        """Before the encoder is held fast, and when it is let go; False at any other beginning."""
        if self.target and phase == "settle":
            self.found.copy_(self.measured(batch))
        elif self.target and phase == "joint" and self.found >= 0:
            if self.found > 0:
                told = (self.measured(batch) / self.found).clamp(0.5, 2.0)
                # what a score gains is no reason to ask for less: it does not always gain as much again
                self.settling.copy_(told.clamp(max=1.0) if self.target.what == "score" else told)
        else:
            return False
        return True

    @torch.no_grad()
    def set_threshold(self, batch: Tensors) -> None:
        """Before the encoder is frozen: how many latents are on, where that or less of the code is asked for."""
        gates = self.gates(batch) if self.target else None
        if gates is None or self.target is None:
            return
        there = self.target.value
        if self.target.what != "nonzeros":
            on = float((gates > self._threshold).sum(1).float().mean())
            # a code that is so little has little to say, whatever the threshold
            self.lowest.copy_(torch.minimum(self._threshold, threshold_for(gates, MOST_GROWTH * on)))
            excess = float(self.measured(batch) * self.settling) / self.target.value
            if excess <= 1:
                return
            there = on / excess
        self._threshold.copy_(threshold_for(gates, there))

    @torch.no_grad()
    def correct(self, phase: str, batch: Tensors) -> None:
        """While a frozen encoder's code is refitted to: the threshold, a little, towards the bits that are asked for.

        What a code costs that the prior does not know tells nothing, so it goes in small steps, one a validation.
        """
        gates = self.gates(batch) if phase == "refit" and self.aims(phase) else None
        if gates is not None and self.target is not None:
            threshold = nearer(gates, self._threshold, self.measured(batch), self.target.value)
            self._threshold.copy_(torch.maximum(threshold, self.lowest))

    @property
    def _threshold(self) -> Tensor:
        return self.latents.get_buffer("threshold")

    @torch.no_grad()
    def steer(
        self, hard: Tensor, score: Callable[[], Tensor], bits: Callable[[], Tensor], asked: float
    ) -> None:
        """Moves λ, or the price of presence, by what the hard code of a batch is and what it is asked to be.

        score, bits: what gives these of the batch, scalars; asked: the score that its `codes` ask for.
        """
        if self.target is None:
            # down where the code scores more than it is asked for, and up again where it scores less
            excess = score() - asked
            self.slack.copy_((self.slack * torch.exp(-self.slackening * excess)).clamp(LEAST_SLACK, 1.0))
        elif self.target.what == "nonzeros":
            there = (hard != 0).sum(1).to(hard.dtype).mean()
            self.dial.copy_(moved_price(self.dial, there, self.target.value))
        else:
            floor = self.target.what == "score"
            found = (score() if floor else bits()) * self.settling
            fall = FLOOR_FALL if floor else 1.0
            self.dial.copy_(moved(self.dial, found, self.target.value, fall))
