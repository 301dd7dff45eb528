"""The decoder that sees the sparse code and nothing else: rows rebuilt from codes, and the term that makes codes rich.

It is no part of an archive, so its size costs no bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vae.features import Layout
from vae.heads import categorical_nats, logistic_nats
from vae.networks import dense

LOG_SCALE_LOW, LOG_SCALE_HIGH = -1.5, 3.0
"""Standardised numbers are described no finer than 22% of a standard deviation: a code is a gist, not a copy."""
MOST_WAY = 3.3
"""Standard deviations from the 5th to the 95th percentile of a normal distribution: as far as numbers usually go."""
TINY = 1e-6
"""Below this, there is nothing to tell."""


class Guess(NamedTuple):
    """What the code says of a table: symbols (rows, columns) float for numbers, and which cells are missing."""

    symbols: npt.NDArray[np.float64]
    missing: npt.NDArray[np.bool_]


class CodesOnly(nn.Module):
    """p(row | code) with the columns independent given the code."""

    def __init__(self, layout: Layout, width: int, depth: int, activation: str) -> None:
        super().__init__()
        self.layout = layout
        self.sizes = [3 if view.ordered else view.entries for view in layout.views]
        self.numbers = [j for j, view in enumerate(layout.views) if view.ordered]
        self.names = [j for j, view in enumerate(layout.views) if not view.ordered]
        for name, of in (
            ("shares", torch.tensor([view.share for view in layout.views])),
            ("which_numbers", torch.tensor(self.numbers, dtype=torch.long)),
            ("places_of", torch.tensor([*self.numbers, *self.names], dtype=torch.long).argsort()),
        ):
            self.register_buffer(name, of, persistent=False)
        self.network = dense(layout.plan.latents, width, depth, sum(self.sizes), activation)

    def heads(self, code: Tensor) -> tuple[Tensor, ...]:
        """Each column's (outputs, batch): a number's mean, log scale and logit of missing; a category's logits."""
        last = cast(nn.Linear, self.network[-1])
        hidden = self.network[:-1](code)
        # the classes of a column side by side for the whole batch, as `vae.heads` wants them
        return torch.addmm(last.bias.unsqueeze(1), last.weight, hidden.T).split(self.sizes)

    def nats(self, batch: dict[str, Tensor], heads: Sequence[Tensor]) -> Tensor:
        """-log p of each cell given the code alone, nats (of standardised units for numbers), (batch, columns)."""
        costs: list[Tensor] = []
        if self.numbers:
            # all at once: a step is as long as its operations are many
            mean, scale, gone = torch.stack([heads[j] for j in self.numbers]).unbind(1)
            value, there = self._numbers(batch, mean.dtype)
            known = logistic_nats(mean, scale.clamp(LOG_SCALE_LOW, LOG_SCALE_HIGH), value.clamp(-6, 6))
            state = nn.functional.binary_cross_entropy_with_logits(gone, 1 - there, reduction="none")
            costs.append(state + there * known)
        entries = batch["entry"].T
        costs += [categorical_nats(heads[j], entries[j]).unsqueeze(0) for j in self.names]
        return torch.cat(costs).index_select(0, self.get_buffer("places_of")).T

    def _numbers(self, batch: dict[str, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Values of the columns of numbers, and 1 where there is one, 0 where it is missing; (columns, batch) both."""
        which = self.get_buffer("which_numbers")
        value = batch["value"].index_select(1, which).T.contiguous()
        return value, (batch["state"].index_select(1, which).T == 0).to(dtype)

    def asked(self, batch: dict[str, Tensor], heads: Sequence[Tensor]) -> Tensor:
        """What the code is asked to keep small, (batch,): `nats` of all columns, each by its share."""
        return self.nats(batch, heads) @ self.get_buffer("shares")

    @torch.no_grad()
    def score(self, batch: dict[str, Tensor], heads: Sequence[Tensor]) -> Tensor:
        """About `vae.metrics.code_score` of a batch, a scalar: of columns that are not constant in it."""
        missed, spread = list[Tensor](), list[Tensor]()
        if self.numbers:
            guess = torch.stack([heads[j][0] for j in self.numbers])
            value, there = self._numbers(batch, guess.dtype)
            mean = (there * value).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
            missed += (there * (value - guess).square()).sum(1).unbind()
            spread += (there * (value - mean).square()).sum(1).unbind()
        entries = batch["entry"].T.long()
        for j in self.names:
            view, out, entry = self.layout.views[j], heads[j], entries[j]
            # "all others" is no answer, see `guess`, and never right; not argmax, which is several times slower
            others = len(view.names)
            best = torch.maximum(out[:others].amax(0), out[-1])
            given = out.gather(0, entry.unsqueeze(0)).squeeze(0)
            missed.append(((given < best) | (entry == others)).sum().to(out.dtype))
            counts = torch.bincount(entry, minlength=view.entries)
            counts[others] = 0
            spread.append((len(entry) - counts.max()).to(out.dtype))
        left, whole = torch.stack(missed), torch.stack(spread)
        told = whole > TINY
        return ((1 - left / whole.clamp(min=TINY)).clamp(min=0) * told).sum() / told.sum().clamp(min=1)

    @torch.no_grad()
    def draw(self, code: Tensor, generator: torch.Generator) -> Guess:
        """A row for each code, drawn from p(row | code), in symbols of the grid; columns independent given the code."""
        symbols, missing = list[npt.NDArray[np.float64]](), list[npt.NDArray[np.bool_]]()
        for j, (view, out) in enumerate(zip(self.layout.views, self.heads(code), strict=True)):
            chance = torch.rand(len(code), generator=generator)
            if view.ordered:
                item = self.layout.plan.columns[j]
                spread = out[1].clamp(LOG_SCALE_LOW, LOG_SCALE_HIGH).exp()
                value = (
                    out[0] + spread * torch.logit(chance, eps=1e-6)
                ).double().numpy() * view.scale + view.mean
                symbols.append(np.clip(value, item.low, item.high))
                missing.append((torch.rand(len(code), generator=generator) < torch.sigmoid(out[2])).numpy())
            else:
                shares = torch.softmax(torch.cat([out[: len(view.names)], out[-1:]]), 0).T
                drawn = torch.multinomial(shares, 1, generator=generator).squeeze(1).numpy()
                symbols.append(np.array([*view.names, view.names[0]], np.float64)[drawn])
                missing.append(drawn == len(view.names))
        return Guess(np.stack(symbols, 1), np.stack(missing, 1))

    @torch.no_grad()
    def guess(self, code: Tensor) -> Guess:
        """The most probable row for each code, in symbols of the grid."""
        symbols, missing = list[npt.NDArray[np.float64]](), list[npt.NDArray[np.bool_]]()
        for j, (view, out) in enumerate(zip(self.layout.views, self.heads(code), strict=True)):
            if view.ordered:
                item = self.layout.plan.columns[j]
                value = out[0].double().numpy() * view.scale + view.mean
                symbols.append(np.clip(value, item.low, item.high))
                missing.append((out[2] > 0).numpy())
            else:
                # "all others" is no symbol: the likeliest of those with a name, or missing
                likely = torch.cat([out[: len(view.names)], out[-1:]]).argmax(0).numpy()
                symbols.append(np.array([*view.names, view.names[0]], np.float64)[likely])
                missing.append(likely == len(view.names))
        return Guess(np.stack(symbols, 1), np.stack(missing, 1))

    @torch.no_grad()
    def ways(self, code: Tensor, start: Tensor) -> npt.NDArray[np.float64]:
        """How far what is said of each column gets from what one code, `start` (latents,), says; (columns,), 0 to 1.

        Of numbers, the way of the mean over `MOST_WAY`; of names, the total variation distance; of what is missing, the
        difference of its probability.
        """
        found: list[float] = []
        for view, out in zip(
            self.layout.views, self.heads(torch.cat([start.unsqueeze(0), code])), strict=True
        ):
            if view.ordered:
                mean, absent = out[0] / MOST_WAY, torch.sigmoid(out[2])
                way = torch.maximum((mean - mean[0]).abs(), (absent - absent[0]).abs())
            else:
                shares = torch.softmax(torch.cat([out[: len(view.names)], out[-1:]]), 0)
                way = (shares - shares[:, :1]).abs().sum(0) / 2
            found.append(float(way.max().clamp(max=1)))
        return np.array(found)
