"""Pixels of an image, one after the other, under a network that sees what is coded around them: a causal stencil.

What a pixel is predicted from are the pixels above it and to its left, its place, and features that a small decoder
makes of the image's sparse code (`vae.codec.images`); the last bits of a symbol are coded beside counts of its image's
own (`vae.codec.shades`). One loop over pixels and channels, the same for writing and reading, in integers: what it is
shown is in units of 1/128, activations and outputs are in units of 1/256, weights in units of 2**-fraction.
`PixelWeights` come proved: no sum leaves 31 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vae.codec.frontend import P1, P2, PREDICTED, RECALLED, Front
from vae.codec.intervals import Longs, Streams, Tables, Tape, code_mixture, set_mixture
from vae.codec.jit import NONE, ONE, jit
from vae.codec.kernel import ACTIVATION_MAX, Sums, Weight
from vae.codec.shades import OFTEN, code_counted, new_counts
from vae.codec.vectors import add_product, rounded_up

Bytes = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.int32]
Matrix = npt.NDArray[np.int16]
"""Weights for `add_product`, in half the room: they are not to be added or shifted as they are."""

PIXEL_ONE = 128
"""Fixed-point one of what the first layer is shown."""
PIXEL_TOP = 255
"""The lightest pixel, as it is shown: 0 is the darkest, and what lies outside."""
COMPONENTS = (1, 3, 4, 2, 0, 0)
"""Bases of the mixture's components: the pixel to the left, the one above, left + above - above left, above right (or,
of a later channel, left + what the channel before differs there), and two that start beyond both ends: the darkest and
the lightest pixel often are exactly that."""
MOST_PLACES = 32
"""Parts of the image's height, and of its width, that have weights of their own."""
SEEDS = 8
"""Largest side of the map that a code is spread on first."""
MAX_MAP_VALUES = 1 << 24
"""Most features of an image: maps of all its pixels."""


class PixelPlan(BaseModel):
    """The shape of a model of images: a format, so every default is for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Of the column."""
    height: int = Field(ge=1, le=1 << 14)
    width: int = Field(ge=1, le=1 << 14)
    channels: int = Field(ge=1, le=4)
    levels: int = Field(ge=2, le=256)
    """Symbols of a pixel: 0 to one less."""
    up: int = Field(default=4, ge=1, le=8)
    """Rows above that a pixel is predicted from."""
    side: int = Field(default=3, ge=1, le=8)
    """Columns to the left, and in rows above also to the right."""
    units: int = Field(default=32, ge=1, le=256)
    """Width of the hidden layers."""
    layers: int = Field(default=1, ge=0, le=4)
    """Hidden layers after the first."""
    maps: int = Field(default=8, ge=1, le=64)
    """Features of each pixel that are made of the code, and as many in each layer on the way; none without a code."""
    fraction: int = Field(default=8, ge=4, le=10)
    """Weights are integers in units of 2**-fraction."""
    latents: int = Field(default=0, ge=0, le=256)
    """Latents of an image's code."""
    counted: int = Field(default=0, ge=0, le=8)
    """Last bits of a symbol that are coded beside counts of the image's own symbols."""

    @model_validator(mode="after")
    def _check(self) -> PixelPlan:
        if self.counted > (self.levels - 1).bit_length():
            raise ValueError(f"{self.counted} counted bits of {self.levels} levels")
        if self.pixels > 1 << 24:
            raise ValueError(f"images of {self.pixels} values")
        if self.latents and self.height * self.width * self.maps > MAX_MAP_VALUES:
            raise ValueError(f"{self.maps} features of each of {self.height * self.width} pixels")
        return self

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return self.height * self.width * self.channels

    @property
    def names(self) -> list[str]:
        """The one column that it codes."""
        return [self.name]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(dy, dx) of the pixels around, in coding order."""
        rows = [(dy, dx) for dy in range(-self.up, 0) for dx in range(-self.side, self.side + 1)]
        return rows + [(0, dx) for dx in range(-self.side, 0)]

    @property
    def around(self) -> int:
        """Values that are shown of what is coded around a pixel: all channels there, and the pixel's earlier ones."""
        return len(self.offsets) * self.channels + self.channels - 1

    @property
    def inputs(self) -> int:
        """Inputs of the first layer."""
        return self.around + (self.maps if self.latents else 0)

    @property
    def places(self) -> tuple[int, int]:
        """Parts of height and of width that have weights of their own."""
        return min(self.height, MOST_PLACES), min(self.width, MOST_PLACES)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of the maps that a code becomes, from the first to the image's own.

        >>> PixelPlan(name="image", height=28, width=30, channels=1, levels=256).sizes
        [(7, 8), (14, 15), (28, 30)]
        """
        sizes = [(self.height, self.width)]
        while max(sizes[0]) > SEEDS:
            sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
        return sizes

    @property
    def unit(self) -> int:
        """Offsets of the mixture are in units of 2**unit symbols: an output of 8 is half the range."""
        return max(0, (self.levels - 1).bit_length() - 4)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of weights, in the order in which they are stored."""
        c, w, outputs = self.channels, self.units, 3 * len(COMPONENTS)
        shapes: dict[str, tuple[int, ...]] = {
            "first": (c, self.inputs, w),
            "first_bias": (c, w),
            "row": (c, self.places[0], w),
            "column": (c, self.places[1], w),
            "hidden": (c, self.layers, w, w),
            "hidden_bias": (c, self.layers, w),
            "head": (c, w, outputs),
            "head_bias": (c, outputs),
            "seen": (c, self.counted, len(OFTEN) + 1),
        }
        if self.latents:
            height, width = self.sizes[0]
            steps = len(self.sizes) - 1
            shapes |= {
                "seed": (2 * self.latents, height * width * self.maps),
                "seed_bias": (height * width * self.maps,),
                "conv": (steps, 9 * self.maps, self.maps),
                "conv_bias": (steps, self.maps),
            }
        return {name: shape for name, shape in shapes.items() if np.prod(shape) > 0}


class PixelWeights(NamedTuple):
    """Weights of the stencil, padded to whole vectors with units of weight 0."""

    fraction: int
    height: int
    width: int
    channels: int
    top: int
    """The largest symbol."""
    stride: int
    origin: int
    """Where the image begins in the padded plane of one image, and how long a line of it is."""
    deltas: Longs
    """Where the values around lie there, relative to a pixel."""
    tone: Sums
    """How a symbol is shown."""
    first: Matrix
    first_bias: Weight
    row: Weight
    column: Weight
    hidden: Matrix
    """(channels * layers, units, units)"""
    hidden_bias: Weight
    head: Matrix
    head_bias: Weight
    often: Longs
    """The class of a count, of all that are told apart."""
    seen: Longs
    """(channels, counted bits, classes): what counts multiply by, 1 to 2**FACTOR_BITS."""


class PixelDesk(NamedTuple):
    """Room for one image and one pixel: compiled functions make no arrays."""

    plane: Sums
    """What is shown of each pixel, with a border of zeros: rows above, columns on both sides."""
    shown: Sums
    total: Sums
    hidden: Sums
    product: Sums
    out: Longs
    work: Longs
    counts: Longs
    """How often the image has had each symbol, each pair of them, each four, and so on."""


def new_desk(plan: PixelPlan) -> PixelDesk:
    """A desk for a block."""
    units, outputs = rounded_up(plan.units), rounded_up(3 * len(COMPONENTS))
    plane = (plan.height + plan.up) * (plan.width + 2 * plan.side) * plan.channels
    return PixelDesk(
        plane=np.zeros(plane, np.int32), shown=np.zeros(plan.inputs, np.int32), total=np.zeros(units, np.int32),
        hidden=np.zeros(units, np.int32), product=np.zeros(max(units, outputs), np.int32),
        out=np.zeros(outputs, np.int64), work=np.zeros((6, 16), np.int64),
        counts=new_counts(plan.channels, plan.counted, plan.levels),
    )  # fmt: skip


@jit
def _activated(sums: Sums, shift: int, out: Sums) -> None:
    """out = the activation min(max(x, 0), 8) of sums, in units of 1/256."""
    half = np.int64(1) << (shift - 1)
    for i in range(out.shape[0]):
        out[i] = min(max((sums[i] + half) >> shift, 0), ACTIVATION_MAX)


@jit
def _bases(image: Bytes, y: int, x: int, c: int, w: PixelWeights, row: Longs) -> None:
    """What the mixture's components are centred on, for `code_mixture`; outside the image, the nearest pixel known."""
    line, step = w.width * w.channels, w.channels
    at = (y * w.width + x) * step + c
    left = np.int64(0)
    if x > 0:
        left = np.int64(image[at - step])
    elif y > 0:
        left = np.int64(image[at - line])
    above, corner = left, left
    if y > 0:
        above = np.int64(image[at - line])
        corner = np.int64(image[at - line - step]) if x > 0 else above
    other = np.int64(image[at - line + step]) if y > 0 and x + 1 < w.width else above
    if c > 0:
        before = np.int64(image[at - 1 - step]) if x > 0 else np.int64(0)
        other = left + np.int64(image[at - 1]) - before
    row[0, P1] = left
    row[0, P2] = 2 * left - other  # 2 * P1 - P2 is what the component asks for, and holds within the symbols
    row[0, PREDICTED] = above
    row[0, RECALLED] = min(max(left + above - corner, 0), w.top)


@jit
def _show(image: Bytes, at: int, place: int, c: int, w: PixelWeights, desk: PixelDesk) -> None:
    """What is coded around a pixel, and of the pixel itself before channel c: into `desk.shown`."""
    plane, shown, deltas = desk.plane, desk.shown, w.deltas
    for k in range(deltas.shape[0]):
        shown[k] = plane[place + deltas[k]]
    for k in range(w.channels - 1):
        shown[deltas.shape[0] + k] = w.tone[image[at + k]] if k < c else 0


@jit
def double_maps(
    maps: Maps, weights: Matrix, bias: Weight, k: int, fraction: int, shown: Sums, total: Sums, out: Maps
) -> None:
    """Maps twice as large, each pixel folded with those around it, in units of 1/256.

    maps (rows, height, width, m) -> out (rows, up to twice the height, up to twice the width, m); weights (steps, 9 m,
    m and padding), bias (steps, m); shown has room for 9 m numbers, total for m and padding.
    """
    rows, height, width, m = out.shape
    half = np.int64(1) << (fraction - 1)
    for t in range(rows):
        for y in range(height):
            for x in range(width):
                at = 0
                for down in range(y - 1, y + 2):
                    for across in range(x - 1, x + 2):
                        inside = 0 <= down < height and 0 <= across < width
                        for i in range(m):
                            shown[at + i] = maps[t, down >> 1, across >> 1, i] if inside else 0
                        at += m
                for i in range(m):
                    total[i] = bias[k, i] << 8
                add_product(total, weights, k, NONE, shown, at, m, NONE)
                for i in range(m):
                    out[t, y, x, i] = min(max((total[i] + half) >> fraction, 0), ACTIVATION_MAX)


@jit
def walk_pixels(
    reading: bool, images: Bytes, maps: Maps, w: PixelWeights, desk: PixelDesk, front: Front, row: Longs,
    tables: Tables, tape: Tape, streams: Streams,
) -> None:  # fmt: skip
    """Write (onto stream 1 of `tape`) or read (from stream 1 of `streams`) the pixels of images.

    images (rows, values): filled when reading; maps (rows, height * width, features): what the codes say, in units of
    1/128.
    """
    features, layers, outputs = maps.shape[2], w.hidden.shape[0] // w.channels, w.head_bias.shape[1]
    known = desk.shown.shape[0] - features
    total, hidden, product, out = desk.total, desk.hidden, desk.product, desk.out
    half, units = np.int64(1) << (w.fraction - 1), total.shape[0]
    for t in range(images.shape[0]):
        image = images[t]
        desk.counts[:] = 0
        for y in range(w.height):
            if streams.position[ONE] > streams.end[ONE]:  # it has run dry, as none does that is written
                return
            for x in range(w.width):
                at = (y * w.width + x) * w.channels
                place = w.origin + y * w.stride + x * w.channels
                for k in range(features):
                    desk.shown[known + k] = maps[t, y * w.width + x, k]
                for c in range(w.channels):
                    _show(image, at, place, c, w, desk)
                    total[:] = 0
                    add_product(total, w.first, c, NONE, desk.shown, desk.shown.shape[0], units, NONE)
                    down, across = y * w.row.shape[1] // w.height, x * w.column.shape[1] // w.width
                    for i in range(units):
                        total[i] += (w.first_bias[c, i] + w.row[c, down, i] + w.column[c, across, i]) << 7
                    _activated(total, w.fraction - 1, hidden)
                    for k in range(layers):
                        j = c * layers + k
                        for i in range(units):
                            total[i] = w.hidden_bias[j, i] << 8
                        add_product(total, w.hidden, j, NONE, hidden, units, units, NONE)
                        _activated(total, w.fraction, hidden)
                    product[:] = 0
                    add_product(product, w.head, c, NONE, hidden, units, outputs, NONE)
                    for k in range(outputs):
                        out[k] = (product[k] + (np.int64(w.head_bias[c, k]) << 8) + half) >> w.fraction
                    _bases(image, y, x, c, w, row)
                    value = int(np.int64(image[at + c]))
                    if w.seen.shape[1]:
                        first = set_mixture(NONE, NONE, out, front, row, tables, desk.work)
                        chosen = code_counted(
                            reading, value, c, first, w.top, outputs // 3, w.seen, w.often, desk.counts, desk.work,
                            tables, tape, streams,
                        )  # fmt: skip
                    else:
                        chosen = code_mixture(
                            reading, value, NONE, NONE, out, front, row, tables, desk.work, tape, streams, ONE,
                        )  # fmt: skip
                    if reading:
                        image[at + c] = chosen
                # shown to later pixels with all its channels
                for c in range(w.channels):
                    desk.plane[place + c] = w.tone[image[at + c]]
