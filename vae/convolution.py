"""Convolutional encoders and decoders of images of any height and width.

Convolutions never run at the full resolution: the first one halves the image, and the last one makes its pixels from
features of half the resolution (Shi et al. 2016), which on a CPU is most of the time saved. Residual blocks are
without batch normalisation, so that a row's code depends on no other row; they begin near the identity
(Zhang et al. 2019).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from vae.networks import ACTIVATIONS, Hidden

SMALLEST = 7
"""Pixels an axis may have without being halved once more."""
BLOCK_GAIN = 0.1
"""Factor on the last weights of a residual block at the start."""

Size = tuple[int, int]


def sizes(size: Size) -> list[Size]:
    """Heights and widths from an image down to the smallest map: an axis is halved, rounded up, while above `SMALLEST`.

    >>> sizes((28, 28)), sizes((3, 17))
    ([(28, 28), (14, 14), (7, 7)], [(3, 17), (3, 9), (3, 5)])
    """
    found = [size]
    while max(found[-1]) > SMALLEST:
        height, width = (-(-axis // 2) if axis > SMALLEST else axis for axis in found[-1])
        found.append((height, width))
    return found


def channels_at(width: int, level: int) -> int:
    """Channels when the image has been halved `level` times more than once: twice as many each time, at first.

    >>> [channels_at(16, level) for level in range(6)]
    [16, 32, 64, 128, 128, 128]
    """
    return width << min(level, 3)


def strides(large: Size, small: Size) -> Size:
    """How many pixels an axis, of each of both, one pixel of the smaller map stands for."""
    return -(-large[0] // small[0]), -(-large[1] // small[1])


class Residual(nn.Module):
    """x + convolution(activation(convolution(activation(x)))), (batch, channels, height, width)."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            last.weight.mul_(BLOCK_GAIN)
        act = ACTIVATIONS[activation]
        self.layers = nn.Sequential(act(), nn.Conv2d(channels, channels, 3, padding=1), act(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Enlarge(nn.Module):
    """Several pixels of each, cut to `size`; (batch, inputs, *small) -> (batch, outputs, *size)."""

    def __init__(self, inputs: int, outputs: int, small: Size, size: Size) -> None:
        super().__init__()
        self.size, self.strides = size, strides(size, small)
        self.layer = nn.Conv2d(inputs, outputs * self.strides[0] * self.strides[1], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        down, right = self.strides
        parts = self.layer(x).unflatten(1, (-1, down, right))
        # (batch, outputs, height, down, width, right)
        pixels = parts.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        return pixels[:, :, : self.size[0], : self.size[1]]


class ConvEncoder(nn.Module):
    """All latents from strided convolutions, (batch, channels, height, width) -> (batch, latents, outputs).

    The image is a float from -1 to 1. `hidden.width` are the channels at half the resolution, twice as many at each
    further one; `hidden.depth` the residual blocks at each.
    """

    def __init__(
        self, shape: tuple[int, int, int], latents: int, outputs: int, *, hidden: Hidden, gain: float
    ) -> None:
        super().__init__()
        self.latents = latents
        channels, *image = shape
        found = sizes((image[0], image[1]))
        layers: list[nn.Module] = []
        if len(found) == 1:
            layers.append(nn.Conv2d(channels, hidden.width, 3, padding=1))
            channels = hidden.width
            layers += [Residual(channels, hidden.activation) for _ in range(hidden.depth)]
        for level, (large, small) in enumerate(pairwise(found)):
            kernel = 3 if level else 5
            inputs, channels = channels, channels_at(hidden.width, level)
            layers.append(nn.Conv2d(inputs, channels, kernel, strides(large, small), kernel // 2))
            layers += [Residual(channels, hidden.activation) for _ in range(hidden.depth)]
        layers += [ACTIVATIONS[hidden.activation](), nn.Flatten()]
        last = nn.Linear(channels * found[-1][0] * found[-1][1], latents * outputs)
        with torch.no_grad():
            last.weight.mul_(gain)
        self.layers = nn.Sequential(*layers, last)

    def shift(self, by: Tensor) -> None:
        """Adds `by` (latents,) to the first output of each latent."""
        bias = cast(nn.Linear, self.layers[-1]).bias
        bias.view(self.latents, -1)[:, 0].add_(by)

    def forward(self, image: Tensor, progress: Tensor) -> Tensor:
        del progress
        return self.layers(image).unflatten(-1, (self.latents, -1))


class ConvDecoder(nn.Module):
    """An image from a code, (batch, latents) -> (batch, channels, height, width), unbounded.

    A linear layer, then at each resolution residual blocks and a convolution that doubles it; widths as `ConvEncoder`.
    """

    def __init__(self, latents: int, shape: tuple[int, int, int], *, hidden: Hidden) -> None:
        super().__init__()
        outputs, *image = shape
        found = sizes((image[0], image[1]))
        levels = max(1, len(found) - 1)
        channels = channels_at(hidden.width, levels - 1)
        self.start = channels, *found[-1]
        self.first = nn.Linear(latents, channels * found[-1][0] * found[-1][1])
        activation = ACTIVATIONS[hidden.activation]
        layers: list[nn.Module] = []
        if len(found) == 1:
            layers += [Residual(channels, hidden.activation) for _ in range(hidden.depth)]
            layers += [activation(), nn.Conv2d(channels, outputs, 3, padding=1)]
        for level in range(len(found) - 1, 0, -1):
            layers += [Residual(channels, hidden.activation) for _ in range(hidden.depth)]
            inputs, channels = channels, channels_at(hidden.width, level - 2) if level > 1 else outputs
            layers += [activation(), Enlarge(inputs, channels, found[level], found[level - 1])]
        self.layers = nn.Sequential(*layers)

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(self.first(code).unflatten(-1, self.start))
