"""The sparse VAE for tables: the whole model on one screen.

The objective is the evidence lower bound, *maximised* (Kingma & Welling 2014, eq. 3), here as nats a row to minimise::

    loss = -log P(code) - log p(row | code, rows above) + λ * (-log p(row | code alone)) + presence + weights

The first two terms are what the archive pays, and the last, a row's share of the weights' description; `presence` is a
small price on latents that are not zero. The third
asks the code to stand by itself: beside a decoder that sees the columns before and the rows above, a code that nobody
asks for anything empties itself (posterior collapse).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae import schedule
from vae.beside import Part, beside
from vae.codec.integer import IntegerModel
from vae.codec.plan import Head
from vae.codes_only import CodesOnly
from vae.features import Layout, row_view
from vae.latents import Draw, Latents, code_facts, free_bits, interpolated_rate
from vae.networks import ColumnEncoder, DenseEncoder, Hidden, RowInput
from vae.settings import CODES_SCORE, Effort, ModelSettings
from vae.sparse import make_latents
from vae.steered import Steered
from vae.stencil import Stencil, Tensors

NATS_TO_BITS = 1 / math.log(2)
ENCODER_GAIN, SERIES_ENCODER_GAIN = 8.0, 1.5
"""Factor on the encoder's last weights at the start; smaller for a series, where each step of a code from row to row is
paid for, and coarse codes say as much.
"""
PRESENCE = 0.5
"""Nats asked of a latent for not being zero: zero is then what a latent says when it has nothing to say."""
IDLE_WEIGHT = 1 / 32
"""Weight of the term that brings idle latents back (Gao et al. 2024)."""
WEIGHT_PRICE = 2.0
"""Nats of the objective for a nat of the weights' description: magnitudes alone are described, and signs cost too."""
SLACKENING = 0.2
"""How fast λ falls, and rises again: exponent a step for a score that is 1 above what is asked for, or below."""
LEARNING_RATES = {"encoder": 0.002, "decoder": 0.035}
SERIES_LEARNING_RATES = {"encoder": 0.005, "decoder": 0.012}
"""Peak learning rates; fine bounds of a series take a slow decoder, and its code a quick encoder to become cheap."""


class SparseVAE(Steered):
    """Encoder, prior, the archive's decoder (`stencil`) and the decoder that sees the code alone (`codes_only`)."""

    presence, slackening = PRESENCE, SLACKENING

    def __init__(self, layout: Layout, settings: ModelSettings) -> None:
        super().__init__(settings, layout.plan.latents)
        self.layout = layout
        plan = layout.plan
        self.stencil = Stencil(layout)
        self.origin: Tensor
        self.register_buffer("origin", torch.zeros(plan.latents))
        if plan.latents:
            size, depth = settings.encoder_width, settings.encoder_depth
            self.row = RowInput([view.entries for view in layout.views])
            inputs = len(layout.views), self.row.features
            self.latents = make_latents(settings, plan.reach, plan.latents, inputs)
            self.encoder = _encoder(layout, self.row.features, self.latents, settings)
            self.codes_only = CodesOnly(layout, size, depth, settings.activation)

    def posterior(self, value: Tensor, entry: Tensor) -> Tensor:
        """The encoder's parameters of q(code | row): (batch, latents, outputs)."""
        return self.encoder(self.row(value, entry), self.progress)

    batch_rows, thread_rows = 512, 1_024
    """Rows of a step, and how many of them a thread is worth, for settings that do not say."""
    reads = ("value", "entry")
    """Arrays of a batch that the encoder looks at."""

    @torch.no_grad()
    def begin(self, phase: str, batch: Tensors) -> None:
        """Makes zero what most rows say: before the first step, and again of the hard codes that are refitted to."""
        if not self.layout.plan.latents:
            return
        if self.settle(phase, batch):
            return
        if phase == "joint":
            self.progress.fill_(0.0)
            middle = self.posterior(batch["value"], batch["entry"])[..., 0].median(0).values
            self.encoder.shift(-middle)
        elif phase == "refit":
            self.set_threshold(batch)
            if self.latents.relabels:
                usual = self.encode(batch).mode(0).values
                self.origin.copy_(self._relabelled(self.origin + usual))
                self.stencil.relabel(usual.long())

    def loss(
        self, batch: Tensors, *, progress: float, phase: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The loss and its terms in nats a row; `progress` is the share of all steps that are done."""
        self.progress.fill_(progress)
        if not self.layout.plan.latents:
            nothing = self._no_code(batch)
            loss, terms = self._archive_part(batch, phase).of(nothing, nothing)
            return {"loss": loss, **terms}
        draw = self._draw(batch, phase, generator)
        presence = draw.presence.sum(1).mean()
        parts = [self._archive_part(batch, phase), self._code_part(batch, draw, phase)]
        loss, [paid, (said, heads, hard)] = beside(parts, [draw.code, draw.soft])
        loss = loss + self.price * presence
        terms = {**paid, **said, "presence": presence, "codes_weight": presence.new_tensor(self.weight)}
        if draw.kl is not None:
            loss = loss + self._cost(draw.kl, phase)
            terms["code"] = draw.kl.mean(0).sum()
        if draw.penalty is not None:
            terms["penalty"] = draw.penalty
            loss = loss + draw.penalty
        if draw.idle is not None:
            # only what idle latents say is taught by it: the rest of the code is given
            spare = self.codes_only.heads(draw.code.detach() + draw.idle)
            terms["idle"] = self.codes_only.asked(batch, spare).mean()
            loss = loss + IDLE_WEIGHT * terms["idle"]
        if phase == "joint":
            self.steer(
                hard,
                score=lambda: self.codes_only.score(batch, heads),
                bits=lambda: self._mean_bits(self.stencil.weights(quantised=False), batch, hard),
                asked=CODES_SCORE[self.settings.codes],
            )
        return {"loss": loss, **terms}

    def _archive_part(self, batch: Tensors, phase: str) -> Part:
        """Columns and weights, as an archive pays for them, given the code."""

        def of(code: Tensor, _soft: Tensor) -> tuple[Tensor, Tensors]:
            weights = self.stencil.weights(quantised=phase == "quantise")
            columns = self.stencil.column_nats(weights, batch, code).sum(1).mean()
            price = self._price(columns)
            return columns + price, {"columns": columns.detach(), "weights": price.detach()}

        return Part(of, list(self.stencil.parameters()))

    def _code_part(self, batch: Tensors, draw: Draw, phase: str) -> Part:
        """What the code says by itself, and what it costs; for `steer`, heads and hard code are told with the terms."""

        def of(code: Tensor, soft: Tensor) -> tuple[Tensor, tuple[Tensors, list[Tensor], Tensor]]:
            weights = self.stencil.weights(quantised=phase == "quantise")
            heads = self.codes_only.heads(code)
            alone = self.codes_only.asked(batch, heads).mean()
            known = {"codes_only": alone.detach()}
            if draw.kl is None:
                hard, rate = code.detach(), self._rate(weights, batch, code, soft)
                cost = self._cost(rate, phase)
                known["code"] = rate.detach().mean(0).sum()
            else:
                # the archive's prior over rounded codes learns beside the KL, and teaches the encoder nothing
                hard = self.encode(batch).to(torch.float32)
                heads = self.codes_only.heads(hard) if phase == "joint" else heads
                cost = self._hard_rate(weights, batch, hard).sum(1).mean()
                known["prior"] = cost.detach()
            return self.weight * alone + cost, (known, [each.detach() for each in heads], hard)

        return Part(of, [*self.stencil.parameters(), *self.codes_only.parameters()])

    def _cost(self, rate: Tensor, phase: str) -> Tensor:
        """What the loss counts of each latent's cost in nats, (batch, latents): less of it while training begins."""
        if phase != "joint":
            return rate.mean(0).sum()
        warmup = self.settings.kl_warmup
        warm = min(1.0, float(self.progress) / warmup) if warmup > 0 else 1.0
        return warm * free_bits(rate, self.settings.free_bits).sum()

    @torch.no_grad()
    def validation_bits(self, batch: Tensors) -> dict[str, Tensor]:
        """Bits of each row with hard codes and the codec's weights by part, (batch,) each."""
        weights = self.stencil.weights(quantised=True)
        code = self.encode(batch).to(torch.float32) if self.layout.plan.latents else self._no_code(batch)
        columns = self.stencil.column_nats(weights, batch, code).sum(1) * NATS_TO_BITS
        if not self.layout.plan.latents:
            return {"column_bits": columns}
        rate = self._hard_rate(weights, batch, code).sum(1) * NATS_TO_BITS
        there = (code != 0).sum(1).to(columns.dtype)
        alone = self.codes_only.asked(batch, self.codes_only.heads(code)) * NATS_TO_BITS
        return {"code_bits": rate, "column_bits": columns, "codes_only_bits": alone, "nonzeros": there}

    def objective(self, bits: Mapping[str, float]) -> float:
        """What a row costs and what is asked of its code beside, of mean `validation_bits`, with λ as it is now."""
        alone = bits.get("codes_only_bits", 0.0)
        return bits.get("code_bits", 0.0) + bits["column_bits"] + self.weight * alone

    @torch.no_grad()
    def encode(self, batch: Tensors) -> Tensor:
        """Hard codes of rows, int8 (batch, latents), exact zeros; reads `value` and `entry`."""
        if not self.layout.plan.latents:
            return self._no_code(batch).to(torch.int8)
        return self._hard(batch["value"], batch["entry"]).to(torch.int8)

    @torch.no_grad()
    def code_facts(self, batch: Tensors) -> dict[str, float | int | bool]:
        """What the code of a batch is like, hard and as training draws it; empty without a code. See `code_facts`."""
        if not self.layout.plan.latents:
            return {}
        drawn = self._draw(batch, "joint", torch.Generator(self.origin.device).manual_seed(0)).code
        if self.latents.relabels:
            drawn = self._relabelled(drawn.round() - self.origin)  # zero is by now what most rows say
        return code_facts(self.encode(batch), drawn)

    @torch.no_grad()
    def cell_bits(self, batch: Tensors) -> Tensor:
        """Bits of each cell with hard codes, (batch, columns)."""
        return (
            self.stencil.column_nats(
                self.stencil.weights(quantised=True), batch, self.encode(batch).to(torch.float32)
            )
            * NATS_TO_BITS
        )

    @torch.no_grad()
    def log_weights(self, batch: Tensors, samples: int, generator: torch.Generator) -> Tensor:
        """log p(row, z) - log q(z | row) in nats for each of `samples` draws, (samples, batch).

        Their mean is the ELBO, the mean of their exponentials the IWAE bound (Burda et al. 2016, eq. 8).
        TypeError where the posterior is not stochastic.
        """
        parameters = self.posterior(batch["value"], batch["entry"])
        prior = self._prior_rows()
        weights = self.stencil.weights(quantised=False)
        found: list[Tensor] = []
        for _ in range(samples):
            noise = self._noise(parameters, generator)
            z, ratio = self.latents.sample(parameters, noise, prior)
            found.append(ratio - self.stencil.column_nats(weights, batch, z).sum(1))
        return torch.stack(found)

    def steps(self, rows: int, effort: Effort) -> int:
        """Optimiser steps for so many rows."""
        return schedule.steps(rows, len(self.layout.plan.columns), effort, series=self.layout.series)

    def integers(self) -> IntegerModel:
        """The decoder as the codec runs it; ModelError where its sums could overflow."""
        return IntegerModel(self.layout.plan, self.stencil.integers())

    def view(
        self, symbols: npt.NDArray[np.int64], states: npt.NDArray[np.uint8]
    ) -> dict[str, npt.NDArray[Any]]:
        """What the encoder reads of rows on the grid, (rows, columns) both."""
        return row_view(self.layout, symbols, states)

    @property
    def default_learning_rates(self) -> Mapping[str, float]:
        """Peak learning rates, for settings that name none."""
        return SERIES_LEARNING_RATES if self.layout.series else LEARNING_RATES

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The encoder's parameters and all others, which train at separate rates."""
        encoder = [p for n, p in self.named_parameters() if n.split(".")[0] in ("row", "encoder", "latents")]
        ids = {id(p) for p in encoder}
        decoder = [p for p in self.parameters() if id(p) not in ids]
        return [{"name": "encoder", "params": encoder}, {"name": "decoder", "params": decoder}]

    def measured(self, batch: Tensors) -> Tensor:
        """What the code of a batch is, of what its target is about: bits a row, or its score; a scalar."""
        code = self.encode(batch).to(torch.float32)
        if self.target and self.target.what == "score":
            return self.codes_only.score(batch, self.codes_only.heads(code))
        return self._mean_bits(self.stencil.weights(quantised=False), batch, code)

    def gates(self, batch: Tensors) -> Tensor | None:
        """Of each latent of a batch what decides whether it is there, (batch, latents); None where nothing does."""
        return self.latents.gates(self.posterior(batch["value"], batch["entry"]))

    def _mean_bits(self, weights: Tensors, batch: Tensors, hard: Tensor) -> Tensor:
        return self._hard_rate(weights, batch, hard).sum(1).mean() * NATS_TO_BITS

    def _price(self, like: Tensor) -> Tensor:
        """What a row pays for the weights, in nats."""
        rows = self.layout.rows
        return WEIGHT_PRICE / rows * self.stencil.description() if rows else like.new_zeros(())

    def _draw(self, batch: Tensors, phase: str, generator: torch.Generator) -> Draw:
        if phase != "joint":
            code = self.encode(batch).to(torch.float32)
            return Draw(code, code, None, code.abs().clamp(max=1.0))
        parameters = self.posterior(batch["value"], batch["entry"])
        noise = self._noise(parameters, generator)
        return self.latents.draw(parameters, noise, progress=float(self.progress), prior=self._prior_rows())

    def _noise(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal numbers for a draw of these posteriors, (batch, latents, noises)."""
        shape = (*parameters.shape[:2], self.latents.noises)
        return torch.randn(shape, generator=generator, device=parameters.device)

    def _prior_rows(self) -> Tensor | None:
        """The encoder's parameters for the rows of a learned prior, (rows, latents, outputs)."""
        rows = self.latents.pseudo
        return None if rows is None else self.encoder(rows, self.progress)

    def _hard(self, value: Tensor, entry: Tensor) -> Tensor:
        return self._relabelled(self.latents.harden(self.posterior(value, entry)) - self.origin)

    def _relabelled(self, code: Tensor) -> Tensor:
        """Integers beyond the reach come in again at the other end: another name, and nothing lost."""
        reach = self.layout.plan.reach
        return (code + reach).remainder(2 * reach + 1) - reach

    def _rate(self, weights: Tensors, batch: Tensors, code: Tensor, soft: Tensor) -> Tensor:
        """Expected cost of each latent under the prior in nats, (batch, latents)."""
        nats = self.stencil.prior_nats(weights, code, self._above(batch))
        return interpolated_rate(nats, soft, self.layout.plan.reach)

    def _hard_rate(self, weights: Tensors, batch: Tensors, code: Tensor) -> Tensor:
        nats = self.stencil.prior_nats(weights, code, self._above(batch))
        return nats.gather(1, (code + self.layout.plan.reach).long().T.unsqueeze(1)).squeeze(1).T

    @torch.no_grad()
    def _above(self, batch: Tensors) -> Tensor:
        """Hard codes of the rows above, 0 above a block's first row."""
        above = self._hard(batch["value_above"], batch["entry_above"])
        return above.masked_fill(batch["first"].unsqueeze(1), 0.0)

    def _no_code(self, batch: Tensors) -> Tensor:
        return batch["value"].new_zeros(len(batch["value"]), self.layout.plan.latents)


def _encoder(
    layout: Layout, features: int, family: Latents, settings: ModelSettings
) -> ColumnEncoder | DenseEncoder:
    columns, latents, outputs = len(layout.views), layout.plan.latents, family.outputs
    hidden = Hidden(settings.encoder_width, settings.encoder_depth, settings.activation)
    # codes must begin alive: an encoder whose every answer rounds to zero is shown nothing to improve
    gain = family.gain or (SERIES_ENCODER_GAIN if layout.series else ENCODER_GAIN)
    if not settings.reads:
        return DenseEncoder(columns * features, latents, outputs, hidden=hidden, gain=gain)
    hidden = hidden._replace(width=max(4, settings.encoder_width // 8))
    # counts in contexts of other columns have no use for a code, so what it said of theirs would be paid twice
    readable = [item.head is not Head.memory for item in layout.plan.columns]
    return ColumnEncoder(readable, features, latents, outputs, reads=settings.reads, hidden=hidden, gain=gain)
