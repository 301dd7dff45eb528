"""Dense encoders and decoders."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


def dense(inputs: int, width: int, depth: int, outputs: int, activation: str) -> nn.Sequential:
    """`depth` hidden layers of `width`, then a linear layer; (batch, inputs) -> (batch, outputs)."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [nn.Linear(inputs if layer == 0 else width, width), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class RowInput(nn.Module):
    """A row as one vector: each column's magnitude and a learned embedding of its bin or name.

    value (batch, columns) float32 and entry (batch, columns) int -> (batch, columns * (size + 1)).
    """

    def __init__(self, entries: list[int], size: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(max(1, sum(entries)), size))
        starts = torch.tensor([0, *entries[:-1]]).cumsum(0) if entries else torch.zeros(0, dtype=torch.long)
        self.register_buffer("starts", starts, persistent=False)
        self.outputs = len(entries) * (size + 1)

    def forward(self, value: Tensor, entry: Tensor) -> Tensor:
        starts: Tensor = self.get_buffer("starts")
        places = (entry.long() + starts).flatten()
        embedded = self.embedding.index_select(0, places).view(len(entry), -1)
        return torch.cat([value.clamp(-6, 6), embedded], 1)
