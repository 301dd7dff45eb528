"""Dense encoders and decoders, and encoders of which each latent reads few columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}

COOL = 0.3
"""Share of the training after which the choice of columns is fixed."""
COLD = 0.1
"""Temperature of that choice at its end; it begins at 1."""
HOME = 2.0
"""Head start of one column for each latent, so that all columns find a reader."""


class Hidden(NamedTuple):
    """The hidden layers of a network, or of each of a bundle of networks."""

    width: int
    depth: int
    activation: str


def dense(inputs: int, width: int, depth: int, outputs: int, activation: str) -> nn.Sequential:
    """`depth` hidden layers of `width`, then a linear layer; (batch, inputs) -> (batch, outputs)."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [nn.Linear(inputs if layer == 0 else width, width), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class RowInput(nn.Module):
    """A row as one vector: each column's magnitude and a learned embedding of its bin or name.

    value (batch, columns) float32 and entry (batch, columns) int -> (batch, columns, size + 1).
    """

    def __init__(self, entries: list[int], size: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(max(1, sum(entries)), size))
        starts = torch.tensor([0, *entries[:-1]]).cumsum(0) if entries else torch.zeros(0, dtype=torch.long)
        self.register_buffer("starts", starts, persistent=False)
        self.features = size + 1

    def forward(self, value: Tensor, entry: Tensor) -> Tensor:
        starts: Tensor = self.get_buffer("starts")
        places = (entry.long() + starts).flatten()
        embedded = self.embedding.index_select(0, places).view(*entry.shape, self.embedding.shape[1])
        return torch.cat([value.clamp(-6, 6).unsqueeze(-1), embedded], -1)


class DenseEncoder(nn.Module):
    """All latents from one network that sees all columns; (batch, columns, features) -> (batch, latents, outputs)."""

    def __init__(self, inputs: int, latents: int, outputs: int, *, hidden: Hidden, gain: float) -> None:
        super().__init__()
        self.latents = latents
        self.layers = dense(inputs, hidden.width, hidden.depth, latents * outputs, hidden.activation)
        with torch.no_grad():
            cast(nn.Linear, self.layers[-1]).weight.mul_(gain)

    def shift(self, by: Tensor) -> None:
        """Adds `by` (latents,) to the first output of each latent."""
        bias = cast(nn.Linear, self.layers[-1]).bias
        bias.view(self.latents, -1)[:, 0].add_(by)

    def forward(self, row: Tensor, progress: Tensor) -> Tensor:
        del progress
        return self.layers(row.flatten(1)).unflatten(-1, (self.latents, -1))


class ColumnEncoder(nn.Module):
    """A small network a latent, and each reads few columns; (batch, columns, features) -> (batch, latents, outputs).

    What a code says of a row the decoder has to take back out of its own bill: it must learn which rows a code rules
    out. Of a latent that depends on all columns it hardly can; of one that depends on two it can, and a person
    can read it as well. Which columns a latent reads is learned: a softmax over columns that hardens while it cools
    (Jang et al. 2017 without the noise), of which the `reads` largest are left from `COOL` of the training on. Columns
    that are not `readable` no latent reads, unless there are no others.
    """

    def __init__(
        self,
        readable: Sequence[bool],
        features: int,
        latents: int,
        outputs: int,
        *,
        reads: int,
        hidden: Hidden,
        gain: float,
    ) -> None:
        super().__init__()
        columns, width, depth = len(readable), hidden.width, hidden.depth
        homes = [j for j, open_ in enumerate(readable) if open_] or list(range(columns))
        self.reads = min(reads, len(homes))

        def normal(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * std)

        home = torch.eye(columns)[homes][torch.arange(latents) % len(homes)]
        shut = torch.ones(columns, dtype=torch.bool).index_fill(0, torch.tensor(homes), False)
        self.register_buffer("shut", shut, persistent=False)
        self.gate = nn.Parameter(HOME * home + 0.1 * torch.randn(latents, columns))
        self.inner = normal(columns * features, latents * width, std=1.0)
        self.bias = nn.Parameter(torch.zeros(latents, 1, width))
        self.hidden = normal(depth - 1, latents, width, width, std=math.sqrt(2 / width))
        self.hidden_bias = nn.Parameter(torch.zeros(depth - 1, latents, 1, width))
        self.outer = normal(latents, width, outputs, std=gain / math.sqrt(3 * width))
        self.outer_bias = nn.Parameter(torch.zeros(latents, 1, outputs))
        self.activation = ACTIVATIONS[hidden.activation]()
        self.features = features

    def gates(self, progress: Tensor) -> Tensor:
        """How much of each column a latent sees, 0 to 1, (latents, columns); exact zeros once they have cooled."""
        cooled = (progress / COOL).clamp(max=1.0)
        gate = self.gate.masked_fill(self.get_buffer("shut"), -torch.inf)
        share = torch.softmax(gate * (1 / COLD) ** cooled, 1)
        share = share / share.amax(1, keepdim=True)
        kept = torch.zeros_like(share).scatter(1, share.topk(self.reads, 1).indices, 1.0)
        return share * torch.where(cooled < 1, torch.ones_like(kept), kept)

    def shift(self, by: Tensor) -> None:
        """Adds `by` (latents,) to the first output of each latent."""
        self.outer_bias[:, 0, 0].add_(by)

    def forward(self, row: Tensor, progress: Tensor) -> Tensor:
        latents, _, width = self.bias.shape
        columns = self.gate.shape[1]
        gates = self.gates(progress).T.reshape(columns, 1, latents, 1)
        inner = self.inner.view(columns, self.features, latents, width)
        # of one size whatever the column, so that the gates alone say what counts
        inner = inner * (gates * math.sqrt(2 * width) / inner.norm(dim=(1, 3), keepdim=True))
        inner = inner.flatten(2).flatten(0, 1)
        hidden = (row.flatten(1) @ inner).view(-1, latents, width).transpose(0, 1)
        hidden = self.activation(hidden + self.bias)
        for weight, bias in zip(self.hidden, self.hidden_bias, strict=True):
            hidden = self.activation(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(self.outer_bias, hidden, self.outer).transpose(0, 1)
