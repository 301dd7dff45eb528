"""What the models of one column whose values are wholes have in common: images (`vae.images`), texts (`vae.texts`).

A code is drawn, priced by a prior of its own, and asked to say by itself what the value is; what its value costs beside
it is each model's own affair. The objective is that of `vae.model.SparseVAE`, in nats a value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vae import schedule
from vae.codec.plan import Plan
from vae.convolution import ConvEncoder
from vae.features import Layout
from vae.latents import Draw, code_facts, free_bits, interpolated_rate
from vae.recurrent import RecurrentEncoder
from vae.settings import MOST_LATENTS, Codes, Effort, ModelSettings, Target
from vae.steered import Steered
from vae.stencil import Stencil, Tensors

NATS_TO_BITS = 1 / math.log(2)
IDLE_WEIGHT = 1 / 32
USUAL_LATENTS = 32
PRESENCE = 0.1
"""Nats asked of a latent for not being zero."""
SLACKENING = 0.1


class CodedWhole(Steered):
    """Encoder, `prior`, and `codes_only`, which sees the code alone; a subclass says what a value is.

    A subclass sets `prior` and, where there is a code, `encoder`, `latents` and `codes_only`.
    """

    presence, slackening = PRESENCE, SLACKENING
    prior: Stencil
    encoder: ConvEncoder | RecurrentEncoder
    codes_only: nn.Module
    asked: Mapping[Codes, float]
    """Score that the code is asked for."""
    default_learning_rates: Mapping[str, float]
    """Peak learning rates, for settings that name none."""
    all_steps: Mapping[Effort, int]
    """Optimiser steps, of `full_rows` values or more."""
    full_rows: int
    thread_rows: int
    """How many values of a step a thread is worth, for settings that do not say."""
    reads: tuple[str, ...]
    """Arrays of a batch that the encoder looks at."""

    def __init__(self, codes: Plan, settings: ModelSettings) -> None:
        super().__init__(settings, codes.latents)
        self.codes = codes

    # ------------------------------------------------------------------------------------- what a value is

    def posterior(self, batch: Tensors) -> Tensor:
        """The encoder's parameters of q(code | value), (batch, latents, outputs)."""
        raise NotImplementedError

    def pseudo_posterior(self, rows: Tensor) -> Tensor:
        """The same of a learned prior's rows, (rows, latents, outputs)."""
        raise NotImplementedError

    def value_nats(
        self, batch: Tensors, code: Tensor | None, *, quantised: bool, generator: torch.Generator
    ) -> Tensor:
        """-log p(value | code), or an unbiased guess of it, mean over the batch."""
        raise NotImplementedError

    def held_nats(self, batch: Tensors, code: Tensor | None) -> Tensor:
        """The same with hard codes and stored weights, of values that validate, (batch,)."""
        raise NotImplementedError

    def missed(self, batch: Tensors, said: Tensor) -> Tensor:
        """How far off what the code alone says is, (batch,)."""
        raise NotImplementedError

    def alone(self, missed: Tensor) -> Tensor:
        """What was missed, as nats a value; of any shape."""
        raise NotImplementedError

    def score(self, batch: Tensors, said: Tensor, missed: Tensor) -> Tensor:
        """What the code alone scores on a batch, a scalar."""
        raise NotImplementedError

    def weights_price(self, like: Tensor) -> Tensor:
        """What a value pays for the weights that are stored with it, in nats."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ training

    @torch.no_grad()
    def begin(self, phase: str, batch: Tensors) -> None:
        """The middle of each latent becomes zero, before the first step."""
        if self.settle(phase, batch):
            return
        if phase == "joint":
            self.progress.fill_(0.0)
            self.look_first(batch)
            if self.codes.latents:
                self.encoder.shift(-self.posterior(batch)[..., 0].median(0).values)
        elif phase == "refit":
            self.set_threshold(batch)

    def look_first(self, batch: Tensors) -> None:
        """What is to be known of values before the first step."""

    def loss(
        self, batch: Tensors, *, progress: float, phase: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The loss and its terms in nats a value; `progress` is the share of all steps that are done."""
        self.progress.fill_(progress)
        quantised = phase == "quantise"
        if not self.codes.latents:
            value = self.value_nats(batch, None, quantised=quantised, generator=generator)
            price = self.weights_price(value)
            return {"loss": value + price, "columns": value, "weights": price}
        draw = self.draw(batch, phase, generator)
        rate = self._rate(self.prior.weights(quantised=quantised), draw)
        warmup = min(1.0, progress / self.settings.kl_warmup) if self.settings.kl_warmup > 0 else 1.0
        code = free_bits(rate, self.settings.free_bits).sum() if phase == "joint" else rate.sum(1).mean()
        value = self.value_nats(batch, draw.code, quantised=quantised, generator=generator)
        said = self.codes_only(draw.code)
        missed = self.missed(batch, said)
        alone = self.alone(missed.mean())
        presence = draw.presence.sum(1).mean()
        price = self.weights_price(value)
        loss = (
            (warmup if phase == "joint" else 1.0) * code
            + value
            + self.weight * alone
            + self.price * presence
            + price
        )
        terms = {
            "code": rate.sum(1).mean(), "columns": value, "codes_only": alone, "presence": presence, "weights": price,
            "codes_weight": value.new_tensor(self.weight),
        }  # fmt: skip
        hard = draw.code.detach()
        if draw.kl is not None:
            hard = self.encode(batch).to(torch.float32)
            terms["prior"] = self._hard_rate(self.prior.weights(quantised=quantised), hard).sum(1).mean()
            loss = loss + terms["prior"]
        if draw.penalty is not None:
            loss = loss + draw.penalty
        if draw.idle is not None:
            # only what idle latents say is taught by it: the rest of the code is given
            spare = self.missed(batch, self.codes_only(draw.code.detach() + draw.idle))
            terms["idle"] = self.alone(spare.mean())
            loss = loss + IDLE_WEIGHT * terms["idle"]
        if phase == "joint":
            self.steer(
                hard,
                score=lambda: self.score(batch, said.detach(), missed.detach()),
                bits=lambda: self._mean_bits(self.prior.weights(quantised=False), hard),
                asked=self.asked[self.settings.codes],
            )
        return {"loss": loss, **terms}

    def measured(self, batch: Tensors) -> Tensor:
        """What the code of a batch is, of what its target is about: bits a value, or its score; a scalar."""
        code = self.encode(batch).to(torch.float32)
        if self.target and self.target.what == "score":
            said = self.codes_only(code)
            return self.score(batch, said, self.missed(batch, said))
        return self._mean_bits(self.prior.weights(quantised=False), code)

    def gates(self, batch: Tensors) -> Tensor | None:
        """Of each latent of a batch what decides whether it is there, (batch, latents); None where nothing does."""
        return self.latents.gates(self.posterior(batch))

    @torch.no_grad()
    def validation_bits(self, batch: Tensors) -> dict[str, Tensor]:
        """Bits of each value with hard codes and the codec's weights by part, (batch,) each."""
        if not self.codes.latents:
            return {"column_bits": self.held_nats(batch, None) * NATS_TO_BITS}
        code = self.encode(batch).to(torch.float32)
        value = self.held_nats(batch, code) * NATS_TO_BITS
        rate = self._hard_rate(self.prior.weights(quantised=True), code).sum(1) * NATS_TO_BITS
        alone = self.alone(self.missed(batch, self.codes_only(code))) * NATS_TO_BITS
        there = (code != 0).sum(1).to(value.dtype)
        return {"code_bits": rate, "column_bits": value, "codes_only_bits": alone, "nonzeros": there}

    def objective(self, bits: Mapping[str, float]) -> float:
        """What a value costs and what is asked of its code beside, of mean `validation_bits`."""
        alone = bits.get("codes_only_bits", 0.0)
        return bits.get("code_bits", 0.0) + bits["column_bits"] + self.weight * alone

    def steps(self, rows: int, effort: Effort) -> int:
        """Optimiser steps for so many values."""
        share = min(1.0, rows / self.full_rows) ** 0.5
        return max(schedule.FEWEST_STEPS, round(self.all_steps[effort] * share))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The encoder's parameters and all others, which train at separate rates."""
        encoder = [p for n, p in self.named_parameters() if n.split(".")[0] in ("encoder", "latents")]
        ids = {id(p) for p in encoder}
        decoder = [p for p in self.parameters() if id(p) not in ids]
        return [{"name": "encoder", "params": encoder}, {"name": "decoder", "params": decoder}]

    # ------------------------------------------------------------------------------------------------ its use

    @torch.no_grad()
    def encode(self, batch: Tensors) -> Tensor:
        """Hard codes of values, int8 (batch, latents), exact zeros; reads the arrays `reads`."""
        first = batch[self.reads[0]]
        if not self.codes.latents:
            return first.new_zeros(len(first), 0, dtype=torch.int8)
        return self.latents.harden(self.posterior(batch)).to(torch.int8)

    def view(self, symbols: NDArray[Any], states: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """What the encoder reads of values on the grid, (rows, symbols of a value)."""
        del states
        return {self.reads[0]: symbols.astype(np.uint8, copy=False)}

    @torch.no_grad()
    def code_facts(self, batch: Tensors) -> dict[str, float | int | bool]:
        """What the code of a batch is like; empty without a code. See `SparseVAE.code_facts`."""
        if not self.codes.latents:
            return {}
        code = self.encode(batch)
        return code_facts(code, self.draw(batch, "joint", torch.Generator(code.device).manual_seed(0)).code)

    def draw(self, batch: Tensors, phase: str, generator: torch.Generator) -> Draw:
        """A code for training; of a phase in which the encoder is frozen, the hard one."""
        if phase != "joint":
            code = self.encode(batch).to(torch.float32)
            return Draw(code, code, None, code.abs().clamp(max=1.0))
        parameters = self.posterior(batch)
        shape = (*parameters.shape[:2], self.latents.noises)
        noise = torch.randn(shape, generator=generator, device=parameters.device)
        rows = self.latents.pseudo
        prior = None if rows is None else self.pseudo_posterior(rows)
        return self.latents.draw(parameters, noise, progress=float(self.progress), prior=prior)

    def _rate(self, w: Tensors, draw: Draw) -> Tensor:
        """Cost of each latent in nats, (batch, latents)."""
        if draw.kl is not None:
            return draw.kl
        nats = self.prior.prior_nats(w, draw.code, torch.zeros_like(draw.code))
        return interpolated_rate(nats, draw.soft, self.codes.reach)

    def _hard_rate(self, w: Tensors, code: Tensor) -> Tensor:
        nats = self.prior.prior_nats(w, code, torch.zeros_like(code))
        return nats.gather(1, (code + self.codes.reach).long().T.unsqueeze(1)).squeeze(1).T

    def _mean_bits(self, w: Tensors, code: Tensor) -> Tensor:
        return self._hard_rate(w, code).sum(1).mean() * NATS_TO_BITS


def latents_of_wholes(settings: ModelSettings) -> int:
    """Number of latents under these settings.

    >>> latents_of_wholes(ModelSettings(codes=Codes.none)), latents_of_wholes(ModelSettings(target="nonzeros=40"))
    (0, 80)
    """
    if settings.codes is Codes.none:
        return 0
    target = Target.parse(settings.target) if settings.target else None
    most = 2 * math.ceil(target.value) if target and target.what == "nonzeros" else 0
    return settings.latents or max(USUAL_LATENTS, min(MOST_LATENTS, most))


def prior_of(codes: Plan) -> Stencil:
    """A prior over codes, of a plan without columns."""
    return Stencil(Layout(plan=codes, views=(), scales=()))
