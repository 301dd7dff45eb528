"""A trained decoder of images in exact integers: its bytes and its blocks.

A code is spread over a small map, which is doubled in size and folded with its neighbours until it is the image's; each
pixel's features are then shown to the stencil of `vae.codec.pixels` beside the pixels around it. Codes are coded as
those of rows are, by an `IntegerModel` that has no columns.

Layout of the bytes (all integers little-endian)::

    4 bytes   length of the plan
    n bytes   the plan (`PixelPlan`): canonical JSON, deflated (zlib)
    4 bytes   length of the codes' model
    n bytes   the codes' model, see `vae.codec.integer`
    4 bytes   length
    n bytes   all weights, one tensor after the other in the order of `PixelPlan.shapes`, as one pcodec file of int16

A block is the stream of the codes and one of the pixels: a byte of 0, then 32-bit words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import DamagedError, ModelError
from vae.codec.entropy import (
    EXP_RANGE,
    STATE_LOW,
    encode_ops,
    exp_table,
    scale_table,
    sigmoid_table,
    squash_table,
)
from vae.codec.frontend import COMPONENTS as COUNT
from vae.codec.frontend import FEATURE_MAX, N_KNOWN, UNIT, front_of
from vae.codec.integer import IntegerModel
from vae.codec.intervals import Streams, Tables, Tape
from vae.codec.kernel import ACTIVATION_MAX
from vae.codec.packing import (
    MAX_CELLS,
    checked_shapes,
    join_pieces,
    no_streams,
    open_streams,
    pack_plan,
    pack_weights,
    plain,
    split_pieces,
    unpack_plan,
    unpack_weights,
)
from vae.codec.pixels import (
    COMPONENTS,
    PIXEL_TOP,
    Bytes,
    Maps,
    PixelPlan,
    PixelWeights,
    double_maps,
    new_desk,
    walk_pixels,
)
from vae.codec.plan import Head, Item, Plan
from vae.codec.shades import FACTOR_BITS, OFTEN, classes_of_counts
from vae.codec.vectors import rounded_up
from vae.codec.weights import SUM_LIMIT

Codes = npt.NDArray[np.int8]
States = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Tensors = Mapping[str, npt.NDArray[np.int16]]
CHUNK = 1 << 18
"""Features that are made at a time, of an image at least."""


class ImageModel:
    """A decoder of images that gives the same probabilities on every machine. Immutable; safe to share."""

    def __init__(self, plan: PixelPlan, codes: IntegerModel, tensors: Tensors) -> None:
        """Raises ModelError where weights do not fit the plan, are too many, or a sum could leave 31 bits."""
        expected = checked_shapes(plan.shapes())
        if {name: tensor.shape for name, tensor in tensors.items()} != expected:
            raise ModelError("the model's weights do not have the shapes its plan asks for")
        if any(tensor.dtype != np.int16 for tensor in tensors.values()):
            raise ModelError("the model's weights are not 16-bit integers")
        if codes.columns or codes.latents != plan.latents:
            raise ModelError("the model's codes are not those of its images")
        self.plan, self.codes = plan, codes
        self.tensors = {name: tensors[name] for name in expected}
        _prove_sums(plan, self.tensors)
        self._tables = Tables(exp_table(), sigmoid_table(), scale_table())
        self._weights = _padded(plan, self.tensors)
        self._folds = _folds(plan, self.tensors)
        # as the mixture's coder sees it, an image is a column of one number, whose bases are set for each pixel
        item = Item(
            name=plan.name, head=Head.mixture, low=0, high=plan.levels - 1, ordered=True, components=(0,)
        )
        self._front = front_of(Plan(latents=0, width=1, columns=(item,)), squash_table())
        self._front.items[0, [COUNT, UNIT]] = len(COMPONENTS), plan.unit
        self._front.components[0, : len(COMPONENTS)] = COMPONENTS

    @property
    def version(self) -> int:
        """The oldest version of the format that knows such a model."""
        return 8 if self.plan.counted else 7

    @property
    def columns(self) -> list[str]:
        """The one column that it codes."""
        return [self.plan.name]

    @property
    def latents(self) -> int:
        """Number of latents."""
        return self.plan.latents

    @property
    def block_rows(self) -> int:
        """Most images of a block."""
        return max(1, MAX_CELLS // (self.latents + self.plan.pixels * (1 + self.plan.counted)))

    def to_bytes(self) -> bytes:
        """The model as stored in an archive; see the module's docstring."""
        weights = pack_weights([*self.tensors.values()])
        return join_pieces([pack_plan(self.plan), self.codes.to_bytes(), weights])

    @classmethod
    def from_bytes(cls, blob: bytes) -> ImageModel:
        """The inverse of `to_bytes`; ModelError for anything that is not a sound model."""
        packed, codes, body = split_pieces(blob, 3)
        plan = unpack_plan(packed, PixelPlan)
        shapes = checked_shapes(plan.shapes())
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()]).tolist()
        flat = unpack_weights(body, ends[-1], "pixel")
        parts = zip(shapes.items(), [0, *ends], ends, strict=False)
        tensors = {name: flat[start:end].reshape(shape) for (name, shape), start, end in parts}
        return cls(plan, IntegerModel.from_bytes(codes), tensors)

    def encode_block(self, symbols: npt.NDArray[Any], states: States, codes: Codes) -> list[bytes]:
        """The streams of a block: the codes', then the pixels'.

        symbols: (rows, values), states: (rows, 1), which are kept elsewhere; codes: (rows, latents). ValueError for
        other shapes, symbols off the grid or more than `block_rows`.
        """
        del states
        if symbols.size and not 0 <= int(symbols.min()) <= int(symbols.max()) < self.plan.levels:
            raise ValueError(f"symbols beyond 0 .. {self.plan.levels - 1}")
        images = plain(symbols, np.uint8)
        rows = len(images)
        if images.shape != (rows, self.plan.pixels) or rows > self.block_rows:
            raise ValueError(f"a block of {images.shape} values for images of {self.plan.pixels}")
        codes = plain(codes, np.int8)
        (coded,) = self.codes.encode_block(
            np.zeros((rows, 0), np.int64), np.zeros((rows, 0), np.uint8), codes
        )
        space = max(1, images.size * (1 + self.plan.counted))
        offsets = np.zeros(2, np.int64)
        tape = Tape(np.zeros(space, np.int64), np.zeros(space, np.int64), offsets, np.zeros(2, np.int64))
        self._walk(False, images, codes, tape, no_streams(1))
        part = slice(0, tape.used[1])
        words = np.zeros(int(tape.used[1]) + 2, np.uint32)
        begin = encode_ops(tape.starts[part], tape.widths[part], words)
        return [coded, b"\0" + words[begin:].astype("<u4").tobytes()]

    def decode_block(
        self, streams: list[bytes], rows: int, upto: int | None = None, until: int | None = None
    ) -> tuple[npt.NDArray[Any], States, Codes]:
        """The inverse of `encode_block`, of the first `until` images of `rows`; without pixels if `upto` is 0."""
        if not 0 <= rows <= self.block_rows:
            raise DamagedError(f"a block of {rows} images; this model's have at most {self.block_rows}")
        whole, wanted = until is None or until >= rows, rows if until is None else min(max(until, 0), rows)
        _, _, codes = self.codes.decode_block(streams[:1], rows, 0, until)
        if upto == 0:
            return np.zeros((wanted, 0), np.uint8), np.zeros((wanted, 0), np.uint8), codes
        if len(streams) < 2:
            raise DamagedError(f"2 streams are needed, {len(streams)} are there")
        opened, unseen = open_streams(streams[:2], 1)
        if unseen.any():
            raise DamagedError(f"the stream of {self.plan.name!r} has no sound beginning")
        images = np.zeros((wanted, self.plan.pixels), np.uint8)
        nothing = np.zeros(2, np.int64)
        self._walk(True, images, codes, Tape(nothing, nothing, nothing, nothing), opened)
        if opened.position[1] > opened.end[1]:
            raise DamagedError(f"the stream of {self.plan.name!r} ends before its images do")
        if whole and (opened.state[1] != STATE_LOW or opened.position[1] != opened.end[1]):
            raise DamagedError(f"the stream of {self.plan.name!r} does not end as it was written")
        return images, np.zeros((wanted, 1), np.uint8), codes

    def sample_block(
        self, rows: int, random: np.random.Generator, before: None = None
    ) -> tuple[npt.NDArray[Any], States, Codes]:
        """Images that the model holds likely, as `decode_block` gives them: what it reads out of noise."""
        del before  # images do not follow from those before them
        codes = self.codes.sample_block(rows, random)[2]
        return self.sample_images(codes, random), np.zeros((rows, 1), np.uint8), codes

    def sample_images(self, codes: Codes, random: np.random.Generator) -> Bytes:
        """An image for each code, drawn as likely as the model says."""
        images = np.zeros((len(codes), self.plan.pixels), np.uint8)
        words = random.integers(0, 1 << 32, max(1, images.size * (1 + self.plan.counted)), np.uint32)
        state = random.integers(STATE_LOW, (1 << 63) - 1, 2, np.int64)
        noise = Streams(words, state, np.zeros(2, np.int64), np.array([0, len(words)], np.int64))
        nothing = np.zeros(2, np.int64)
        self._walk(True, images, plain(codes, np.int8), Tape(nothing, nothing, nothing, nothing), noise)
        return images

    def features(self, codes: Codes) -> Maps:
        """What the stencil is shown of the codes: (rows, height * width, maps), in units of 1/128.

        The first map is of sums of products of integers in float64: below 2**53 they are exact in any order.
        """
        plan, rows, step = self.plan, len(codes), 2.0**-self.plan.fraction
        places = plan.height * plan.width
        if not self.latents:
            return np.zeros((rows, places, 0), np.int32)
        wide = codes.astype(np.float64)
        shown = np.stack([np.clip(16 * wide, -FEATURE_MAX, FEATURE_MAX), 32.0 * (wide != 0)], 2).reshape(
            rows, -1
        )
        height, width = plan.sizes[0]
        sums = shown @ self._float("seed") + 32 * self._float("seed_bias")
        maps = _activated(sums * (8 * step)).reshape(rows, height, width, plan.maps)
        weights, bias = self._folds
        room, total = np.zeros(9 * plan.maps, np.int32), np.zeros(rounded_up(plan.maps), np.int32)
        for k, (height, width) in enumerate(plan.sizes[1:]):
            larger = np.empty((rows, height, width, plan.maps), np.int32)
            double_maps(maps, weights, bias, k, plan.fraction, room, total, larger)
            maps = larger
        return (maps >> 1).reshape(rows, places, plan.maps)

    def _float(self, name: str) -> Floats:
        return self.tensors[name].astype(np.float64)

    def _walk(self, reading: bool, images: Bytes, codes: Codes, tape: Tape, streams: Streams) -> None:
        row, desk = np.zeros((1, N_KNOWN), np.int64), new_desk(self.plan)
        step = max(1, CHUNK // (self.plan.height * self.plan.width * self.plan.maps))
        for start in range(0, len(images), step):
            if reading and streams.position[1] > streams.end[1]:
                return  # it has run dry, for the caller to find out
            part = slice(start, start + step)
            walk_pixels(
                reading, images[part], self.features(codes[part]), self._weights, desk, self._front, row,
                self._tables, tape, streams,
            )  # fmt: skip


def _activated(sums: Floats) -> Maps:
    """The activation min(max(x, 0), 8) in units of 1/256, of exact multiples of a power of two."""
    return np.clip(np.floor(sums + 0.5), 0, ACTIVATION_MAX).astype(np.int32)


def _padded(plan: PixelPlan, tensors: Tensors) -> PixelWeights:
    """The stencil's weights as its loop takes them."""
    units, outputs, channels = rounded_up(plan.units), 3 * len(COMPONENTS), plan.channels
    stride = (plan.width + 2 * plan.side) * channels

    def placed(name: str, *shape: int, kind: type = np.int32) -> npt.NDArray[Any]:
        room = np.zeros(shape, kind)
        if name in tensors:
            tensor = tensors[name]
            tensor = tensor.reshape(shape[0], *tensor.shape[-len(shape) + 1 :])
            room[tuple(slice(size) for size in tensor.shape)] = tensor
        return room

    deltas = [dy * stride + dx * channels + c for dy, dx in plan.offsets for c in range(channels)]
    tone = np.arange(plan.levels) * PIXEL_TOP // (plan.levels - 1)
    layers = channels * plan.layers
    return PixelWeights(
        fraction=plan.fraction, height=plan.height, width=plan.width, channels=channels, top=plan.levels - 1,
        stride=stride, origin=plan.up * stride + plan.side * channels, deltas=np.array(deltas, np.int64),
        tone=tone.astype(np.int32), first=placed("first", channels, plan.inputs, units, kind=np.int16),
        first_bias=placed("first_bias", channels, units), row=placed("row", channels, plan.places[0], units),
        column=placed("column", channels, plan.places[1], units),
        hidden=placed("hidden", layers, units, units, kind=np.int16),
        hidden_bias=placed("hidden_bias", layers, units),
        head=placed("head", channels, units, rounded_up(outputs), kind=np.int16),
        head_bias=placed("head_bias", channels, outputs),
        often=classes_of_counts(), seen=_factors(plan, tensors),
    )  # fmt: skip


def _folds(plan: PixelPlan, tensors: Tensors) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int32]]:
    """Weights and biases that double maps, as `double_maps` takes them."""
    steps, m = len(plan.sizes) - 1 if "conv" in tensors else 0, plan.maps
    weights, bias = np.zeros((steps, 9 * m, rounded_up(m)), np.int16), np.zeros((steps, m), np.int32)
    if steps:
        weights[:, :, :m], bias[:] = tensors["conv"], tensors["conv_bias"]
    return weights, bias


def _factors(plan: PixelPlan, tensors: Tensors) -> npt.NDArray[np.int64]:
    """exp of the weights of counts, which are logits; the largest of each bit is 2**FACTOR_BITS, none is below 1."""
    if not plan.counted:
        return np.zeros((plan.channels, 0, len(OFTEN) + 1), np.int64)
    half = 1 << (plan.fraction - 1)
    logits = ((tensors["seen"].astype(np.int64) << 8) + half) >> plan.fraction
    behind = logits.max(2, keepdims=True) - logits
    return np.maximum(
        exp_table()[np.minimum(behind, EXP_RANGE - 1)].astype(np.int64) >> (24 - FACTOR_BITS), 1
    )


def _prove_sums(plan: PixelPlan, tensors: Tensors) -> None:
    """ModelError where a largest possible |sum| of a layer, by its weights Σ|w| max|a| + |b|, leaves 31 bits."""
    size = {name: np.abs(tensor.astype(np.int64)) for name, tensor in tensors.items()}

    def layer(name: str, top: int, bias: int) -> npt.NDArray[np.int64]:
        return size[name].sum(-2) * top + (size[f"{name}_bias"] << bias)

    places = size["first_bias"] + size["row"].max(1) + size["column"].max(1)
    known = size["first"][:, : plan.around].sum(1) * PIXEL_TOP
    told = size["first"][:, plan.around :].sum(1) * (ACTIVATION_MAX >> 1)
    sums = {"first": known + told + (places << 7), "head": layer("head", ACTIVATION_MAX, 8)}
    if "hidden" in size:
        sums["hidden"] = layer("hidden", ACTIVATION_MAX, 8)
    if plan.latents:
        sums["seed"] = layer("seed", FEATURE_MAX, 5)
    if "conv" in size:
        sums["conv"] = layer("conv", ACTIVATION_MAX, 8)
    for name, found in sums.items():
        if int(found.max(initial=0)) >= SUM_LIMIT:
            raise ModelError(f"the model's {name} layer could overflow: its weights are too large")
