"""A model whose code is asked to be something, and what is moved while it trains until the code is that.

Without a target it is a score: λ, what the code alone is asked to rebuild, falls once the code scores more than its
`codes` ask for. With one (`vae.calibration`) it is λ, or the price of presence, that a controller moves. Halfway the
encoder is held fast for a while (`vae.schedule`), to see what becomes of the code while prior and decoder go on
learning; half of that is put against what is measured from then on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae.calibration import entropy, moved, moved_price, threshold_for
from vae.latents import Latents
from vae.settings import FIRST_CODES_WEIGHT, ModelSettings, Target, codes_weight
from vae.stencil import Tensors

LEAST_SLACK = 0.001
HALVINGS = 12
"""Steps in which the threshold is found that gives a code so many bits."""
MOST_GROWTH = 1.5
"""Factor on the bits of a code, at most, by a threshold that lets more through: a code that is further off has little
to say.
"""


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

    @property
    def calibrated(self) -> bool:
        """Whether the code has a target."""
        return self.target is not None

    @torch.no_grad()
    def settle(self, phase: str, batch: Tensors) -> bool:
        """Before the encoder is held fast, and when it is let go; False at any other beginning."""
        if self.target and phase == "settle":
            self.found.copy_(self.measured(batch))
        elif self.target and phase == "joint" and self.found >= 0:
            if self.found > 0:
                # half of it, in logarithms: by the end of the joint steps there is less left to settle
                self.settling.copy_((self.measured(batch) / self.found).clamp(0.5, 2.0).sqrt())
        else:
            return False
        return True

    @torch.no_grad()
    def set_threshold(self, batch: Tensors) -> None:
        """Before the encoder is frozen: how many latents are on, where the target asks for it, or the code is too much
        or, in bits, too little.

        What the prior, or the decoder, says of codes that it was not trained on tells nothing. So bits are taken to go
        with the entropies of the latents, for those that go first cost less than others; a score with how many are on.
        """
        gates = self.gates(batch) if self.target else None
        if gates is None or self.target is None:
            return
        wanted, threshold = self.target.value, self.latents.get_buffer("threshold")
        if self.target.what == "nonzeros":
            threshold.copy_(threshold_for(gates, wanted))
            return
        excess = max(float(self.measured(batch) * self.settling) / wanted, 1 / MOST_GROWTH)
        code = self.encode(batch)
        there = float((code != 0).sum(1).float().mean())
        if self.target.what == "bits" and there > 0:
            self._give_bits(batch, gates, there, float(entropy(code)) / excess)
        elif excess > 1:
            threshold.copy_(threshold_for(gates, there / excess))

    def _give_bits(self, batch: Tensors, gates: Tensor, there: float, asked: float) -> None:
        """The threshold with which a code of which so many latents are `there` has the entropy that is `asked`, or as
        much as it can have: what is nearly always on says little again.
        """

        def bits(on: float) -> float:
            self.latents.get_buffer("threshold").copy_(threshold_for(gates, on))
            return float(entropy(self.encode(batch)))

        low, high = 0.0, there
        if bits(there) < asked:
            most = float(gates.shape[1])
            low, high = (
                there,
                max((there + (most - there) * k / HALVINGS for k in range(HALVINGS + 1)), key=bits),
            )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if bits(middle) > asked else (middle, high)

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
            found = (score() if self.target.what == "score" else bits()) * self.settling
            self.dial.copy_(moved(self.dial, found, self.target.value))
