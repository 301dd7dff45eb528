"""The archive's decoder and prior in floats: what `vae.codec.kernel` computes in integers, differentiable.

p(x_j | code, x_1 .. x_{j-1}, rows above) for all columns of a batch at once: each column adds what it shows to a
running sum, as in NADE (Larochelle & Murray 2011), first what is known of it from the rows above, then its value.
Where rows follow on from each other, what is known of a column also goes straight to its own second layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae.codec.frontend import FEATURE_MAX, FEATURE_ONE
from vae.codec.plan import Head, Item
from vae.features import Layout
from vae.heads import categorical_nats, memory_nats, mixture_nats, state_nats

ACTIVATION_TOP = 8.0
"""Activations are held within 0 .. 8, in floats as in integers."""
UNSEEN_NATS = 8.0
"""Cost of a null or an escape in a column that had none in training: the codec's fixed logit."""
GRID = ("unit", "low", "high")
"""What columns of one shape may differ in."""
Tensors = dict[str, Tensor]


class Stencil(nn.Module):
    """Prior over codes and decoder of columns; parameters padded to rectangles, see `Plan.shapes` for the rest."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        plan = layout.plan
        n, w, d, v = len(plan.columns), plan.width, plan.latents, plan.prior_width
        self.feature_counts = (
            max((i.before for i in plan.columns), default=1),
            max((i.after for i in plan.columns), default=1),
        )
        outputs = max((i.outputs for i in plan.columns), default=1)
        self.alike = _alike(plan.columns)
        order = torch.tensor([j for group in self.alike for j in cast(Alike, group).which], dtype=torch.long)
        self.register_buffer("places_of", order.argsort(), persistent=False)
        embedded = sum(i.embedded_before + i.embedded_after for i in plan.columns)
        classes = 2 * plan.reach + 1

        def normal(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * std)

        self.before = normal(n, self.feature_counts[0], w, std=0.05)
        self.after = normal(n, self.feature_counts[1], w, std=0.05)
        if plan.direct:
            self.direct = normal(n, self.feature_counts[0], w, std=0.05)
        self.embedding = normal(embedded + 1, w, std=0.1)
        self.bias = nn.Parameter(torch.full((n, w), 0.5))
        self.hidden = normal(n, w, w, std=math.sqrt(2 / w))
        self.hidden_bias = nn.Parameter(torch.full((n, w), 0.1))
        self.head = normal(n, outputs, w, std=0.1 / math.sqrt(w))
        self.head_bias = nn.Parameter(self._first_bias(outputs))
        self.code_after = normal(d, 2, w, std=0.1)
        self.prior_before = normal(d, 1, v, std=0.05)
        self.prior_after = normal(d, 2, v, std=0.1)
        self.prior_bias = nn.Parameter(torch.full((d, v), 0.5))
        self.prior_head = normal(d, classes, v, std=0.1 / math.sqrt(v))
        zeros = -0.7 * (torch.arange(classes) - plan.reach).abs().float()
        self.prior_head_bias = nn.Parameter(zeros.repeat(d, 1))
        if plan.above:
            self.prior_above = normal(d, 2, v, std=0.05)
            self.prior_same = normal(d, v, std=0.1)
            self.prior_stay = nn.Parameter(torch.zeros(d))
        if plan.deep:
            self.prior_hidden = normal(d, v, v, std=math.sqrt(2 / v))
            self.prior_hidden_bias = nn.Parameter(torch.full((d, v), 0.1))

        self._empty_padding()

    @torch.no_grad()
    def _empty_padding(self) -> None:
        """What pads the rectangles is 0 and stays so: no loss depends on it, and 0 has no description."""
        for j, item in enumerate(self.layout.plan.columns):
            self.before[j, item.before :] = 0.0
            self.after[j, item.after :] = 0.0
            if self.layout.plan.direct:
                self.direct[j, item.before :] = 0.0
            self.head[j, item.outputs :] = 0.0
            self.head_bias[j, item.outputs :] = 0.0
        self.embedding[-1] = 0.0

    def _first_bias(self, outputs: int) -> Tensor:
        bias = torch.zeros(len(self.layout.plan.columns), outputs)
        for j, item in enumerate(self.layout.plan.columns):
            bias[j, : len(item.states)] = -2.0
            if item.head == Head.mixture:
                scales = len(item.states) + 2 * len(item.components)
                bias[j, scales : scales + len(item.components)] = (
                    self.layout.scales[j] - torch.arange(len(item.components)).float() * 0.5
                )
        return bias

    def weights(self, *, quantised: bool) -> Tensors:
        """All parameters by name; `quantised`: on the codec's grid, with a straight-through gradient."""
        return on_grid(self, self.layout.plan.fraction, quantised=quantised)

    def description(self) -> Tensor:
        """About what the weights cost in an archive, in nats: a log-sum penalty (Candès et al. 2008) in steps of the
        codec's grid, 0 for a weight of 0.
        """
        return described(self, self.layout.plan.fraction)

    def relabel(self, usual: Tensor) -> None:
        """Lets the prior say of `code - usual` what it said of `code`; usual (latents,) integers.

        What it says of a class for being that of the row above it goes on saying, by whatever name.
        """
        classes = self.prior_head_bias.shape[1]
        places = (torch.arange(classes, device=usual.device) + usual.unsqueeze(1)).remainder(classes)
        self.prior_head_bias.copy_(self.prior_head_bias.gather(1, places))
        self.prior_head.copy_(self.prior_head.gather(1, places.unsqueeze(-1).expand_as(self.prior_head)))

    def prior_nats(self, w: Tensors, code: Tensor, above: Tensor) -> Tensor:
        """-log P of every value of every latent: (batch, latents) twice -> (latents, 2 * reach + 1, batch)."""
        after = torch.bmm(code_features(code).permute(1, 0, 2), w["prior_after"])
        before = _code_value(above.T).unsqueeze(-1) * w["prior_before"]
        if self.layout.plan.above:
            same = (code.detach().round() == above).to(code.dtype)
            after = after + same.T.unsqueeze(-1) * w["prior_same"].unsqueeze(1)
        total = _running(before, after)
        if self.layout.plan.above:
            total = total + code_features(above).flatten(1) @ w["prior_above"].flatten(0, 1)
        hidden = activation(total + w["prior_bias"].unsqueeze(1))
        if self.layout.plan.deep:
            hidden = torch.baddbmm(w["prior_hidden_bias"].unsqueeze(1), hidden, w["prior_hidden"].mT)
            hidden = activation(hidden)
        logits = torch.baddbmm(w["prior_head_bias"].unsqueeze(-1), w["prior_head"], hidden.mT)
        if self.layout.plan.above:
            classes = torch.arange(logits.shape[1], device=code.device) - self.layout.plan.reach
            stays = classes.unsqueeze(-1) == above.T.unsqueeze(1)
            logits = logits + stays.to(code.dtype) * w["prior_stay"].view(-1, 1, 1)
        return -F.log_softmax(logits, 1)

    def activations(self, w: Tensors, batch: Tensors, code: Tensor) -> Tensor:
        """What the heads of all columns read: (columns, batch, width)."""
        own = _by_column(batch["before"])
        before = torch.bmm(own, w["before"])
        after = torch.bmm(_by_column(batch["after"]), w["after"])
        places = batch["places"].permute(2, 1, 0)
        places = torch.where(places < 0, len(w["embedding"]) - 1, places)
        table = torch.cat([w["embedding"][:-1], torch.zeros_like(w["embedding"][-1:])])
        # index_select and not embedding: its gradient is several times quicker
        known, shown = table.index_select(0, places.reshape(-1)).view(*places.shape, -1).unbind()
        total = _running(before + known, after + shown)
        if self.layout.plan.latents:
            total = total + code_features(code).flatten(1) @ w["code_after"].flatten(0, 1)
        hidden = activation(total + w["bias"].unsqueeze(1))
        added = w["hidden_bias"].unsqueeze(1)
        if self.layout.plan.direct:
            added = torch.baddbmm(added, own, w["direct"])
        return activation(torch.baddbmm(added, hidden, w["hidden"].mT))

    def column_nats(self, w: Tensors, batch: Tensors, code: Tensor) -> Tensor:
        """-log p of each cell, (batch, columns), given the code, the columns before it and the rows above."""
        if not len(self.alike):
            return code.new_zeros(len(code), 0)
        # unbind, here and above: the gradient of each part taken by its index is as large as all parts together
        seen = self.activations(w, batch, code).unbind()
        states, symbols, members = (batch[name].T.contiguous() for name in ("state", "symbol", "member"))
        bases, classes = (batch[name].permute(1, 2, 0).contiguous() for name in ("bases", "classes"))
        heads, biases = w["head"].unbind(), w["head_bias"].unbind()
        nats: list[Tensor] = []
        for group in cast(Iterable[Alike], self.alike):
            item, which, at = group.item, group.which, group.get_buffer("at")
            head, bias, shown = (torch.stack([of[j] for j in which]) for of in (heads, biases, seen))
            outputs = torch.baddbmm(bias[:, : item.outputs, None], head[:, : item.outputs], shown.mT)
            logits, values = outputs.split([len(item.states), item.outputs - len(item.states)], 1)
            state, symbol = states[at], symbols[at].unsqueeze(1)
            unit, low, high = (group.get_buffer(name) for name in GRID)
            if item.head == Head.softmax:
                cost = categorical_nats(values, (symbol - low).clamp(0, item.span - 1).squeeze(1))
            elif item.head == Head.mixture:
                centres = torch.stack(
                    [bases[j, chosen] for j, chosen in zip(which, group.bases, strict=True)]
                )
                cost = mixture_nats(values, symbol, centres, unit, low, high)
            else:
                cost = memory_nats(values, classes[at, : len(item.contexts) + 2], members[at])
            cost = cost.masked_fill(state != 0, 0.0 if item.states else UNSEEN_NATS)
            nats.append(state_nats(logits, state, item.states) + cost)
        return torch.cat(nats).index_select(0, self.get_buffer("places_of")).T

    def integers(self) -> dict[str, npt.NDArray[np.int16]]:
        """The weights on the codec's grid, by the names of `Plan.shapes`."""
        plan = self.layout.plan
        whole = whole_weights(self, plan.fraction)
        tensors: dict[str, npt.NDArray[np.int16]] = {
            name.replace("_", ".", 1): array
            for name, array in whole.items()
            if name.startswith(("prior_", "code_"))
        }
        place = 0
        for j, item in enumerate(plan.columns):
            name = f"column.{item.name}"
            tensors[f"{name}.before"] = whole["before"][j, : item.before]
            tensors[f"{name}.after"] = whole["after"][j, : item.after]
            if plan.direct:
                tensors[f"{name}.direct"] = whole["direct"][j, : item.before]
            for part, rows in (("embed_before", item.embedded_before), ("embed_after", item.embedded_after)):
                tensors[f"{name}.{part}"] = whole["embedding"][place : place + rows]
                place += rows
            tensors[f"{name}.bias"] = whole["bias"][j]
            tensors[f"{name}.hidden"], tensors[f"{name}.hidden_bias"] = (
                whole["hidden"][j],
                whole["hidden_bias"][j],
            )
            tensors[f"{name}.head"] = whole["head"][j, : item.outputs]
            tensors[f"{name}.head_bias"] = whole["head_bias"][j, : item.outputs]
        return {name: np.ascontiguousarray(tensors[name]) for name in plan.shapes()}


class Alike(nn.Module):
    """Columns whose likelihoods have one shape, so that one product and one formula serve them all."""

    def __init__(self, which: list[int], items: Sequence[Item]) -> None:
        super().__init__()
        self.which, self.item = which, items[0]
        self.bases = [list(item.components) for item in items]
        self.register_buffer("at", torch.tensor(which), persistent=False)
        for name in GRID:
            each = torch.tensor([getattr(item, name) for item in items]).view(-1, 1, 1)
            self.register_buffer(name, each, persistent=False)


def _alike(items: Sequence[Item]) -> nn.ModuleList:
    found: dict[tuple[object, ...], list[int]] = {}
    for j, item in enumerate(items):
        found.setdefault((item.head, item.states, item.outputs), []).append(j)
    return nn.ModuleList(Alike(which, [items[j] for j in which]) for which in found.values())


def on_grid(module: nn.Module, fraction: int, *, quantised: bool) -> Tensors:
    """A module's parameters by name; `quantised`: in whole units of 2**-fraction, with a straight-through gradient."""
    step = 2.0**-fraction
    found = dict(module.named_parameters())
    if not quantised:
        return dict(found)
    return {name: p + ((p / step).round() * step - p).detach() for name, p in found.items()}


def described(module: nn.Module, fraction: int) -> Tensor:
    """About what a module's weights cost in an archive, in nats; see `Stencil.description`."""
    every = torch.cat([p.flatten() for p in module.parameters()])
    return (every.abs() * 2.0**fraction).log1p().sum()


def whole_weights(module: nn.Module, fraction: int) -> dict[str, npt.NDArray[np.int16]]:
    """A module's parameters by name, in whole units of 2**-fraction."""
    limit = 2**15 - 1
    return {
        name: (p.detach().double() * 2**fraction).round().clamp(-limit, limit).to(torch.int16).cpu().numpy()
        for name, p in module.named_parameters()
    }


def activation(x: Tensor) -> Tensor:
    """x held within 0 .. `ACTIVATION_TOP`; not `clamp`, whose gradient takes three passes."""
    return F.hardtanh(x, 0.0, ACTIVATION_TOP)


def _by_column(features: Tensor) -> Tensor:
    """(batch, columns, features) integers -> (columns, batch, features) floats."""
    return features.transpose(0, 1).to(torch.float32) * (1 / FEATURE_ONE)


def _running(before: Tensor, after: Tensor) -> Tensor:
    """Σ before[0..j] + Σ after[0..j-1] for each item j: (items, batch, width) twice; as products, not a scan."""
    items = len(before)
    upto = torch.ones(items, items, dtype=before.dtype, device=before.device).tril()
    sums = upto @ before.flatten(1) + upto.tril(-1) @ after.flatten(1)
    return sums.view_as(before)


def code_features(code: Tensor) -> Tensor:
    """What latents show: value and presence, (batch, latents) -> (batch, latents, 2)."""
    return torch.stack([_code_value(code), (code.detach() != 0).to(code.dtype)], -1)


def _code_value(code: Tensor) -> Tensor:
    """Half a unit a step, within what a feature holds."""
    return (code * (16 / FEATURE_ONE)).clamp(-FEATURE_MAX / FEATURE_ONE, FEATURE_MAX / FEATURE_ONE)
