"""The sparse VAE for images: convolutional encoder, prior, the archive's stencil, and the decoder of the code alone.

The objective is that of `vae.whole`; of the stencil's likelihood some pixels are drawn at each step, those more often
that have something to say, and weighted so that its mean is that of all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from data.grid import ColumnGrid
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codec.pixels import MAX_MAP_VALUES, PixelPlan
from vae.codec.plan import Plan
from vae.codec.structure import Derived
from vae.convolution import ConvDecoder, ConvEncoder
from vae.latents import Latents
from vae.networks import Hidden
from vae.pixels import PixelDecoder
from vae.settings import Codes, Effort, ModelSettings
from vae.sparse import make_latents
from vae.stencil import Tensors
from vae.whole import NATS_TO_BITS, CodedWhole, latents_of_wholes, prior_of

DRAWN_PIXELS = 24_576
"""Pixels of a step, of all its images together."""
BATCH_VALUES = 1 << 21
"""Values of all images of a step, about."""
MODELLED_VALUES = 1 << 18
"""Values of an image beyond which training would take more memory than there is: other coders take such."""
HELD_VALUES = 1 << 22
"""Values of all images that validate, about."""
HELD_PIXELS = 32
"""Pixels of an image that validates."""
STILL = 0.15
"""How often a pixel is drawn all around which is one colour, of 1 for others."""
NEAR = 2
"""Pixels around that decide of it."""
ENCODER_GAIN = 4.0
LEARNING_RATES = {"encoder": 0.002, "decoder": 0.006}
IMAGE_SCORE = {Codes.none: 0.0, Codes.lean: 0.45, Codes.balanced: 0.64, Codes.rich: 0.8}
"""R² of the pixels that the code is asked for."""
WEIGHT_PRICE = 2.0
USUAL_MAPS = 8
COUNTED = 4
"""Last bits of a symbol that are coded beside counts of the image's own."""
STEPS = {Effort.fast: 1_000, Effort.standard: 6_000, Effort.max: 30_000}
STATISTICS_ROWS = 10_000
FULL_ROWS = 20_000
"""Images from which on a training has its full number of steps."""
FEW_IMAGES, MANY_IMAGES = 2_000, 20_000
"""Below and above which the stencil is narrow and wide."""
WIDE_STENCIL = {"up": 5, "side": 4, "layers": 2}
"""What many images pay for, beside width: a wider look around, and a further layer."""


class ImageLayout(BaseModel):
    """Everything about the shape of the model that the images decide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: PixelPlan
    codes: Plan
    """Of the codes' prior: a plan without columns."""
    variance: float = Field(gt=0)
    """Mean variance of a pixel over the images, in shares of the range, squared."""
    rows: int = Field(default=0, ge=0)
    """Images that the weights are written beside, and share their cost; 0 lets weights cost nothing."""
    derived: tuple[Derived, ...] = ()
    """Columns of the table, beside the images, that follow from others."""


def usual_units(images: int) -> int:
    """Width of the stencil for so many images.

    >>> usual_units(500), usual_units(70_000)
    (16, 64)
    """
    return 16 if images < FEW_IMAGES else 32 if images < MANY_IMAGES else 64


def make_layout(grid: ColumnGrid, seen: NDArray[np.uint8], settings: ModelSettings, rows: int) -> ImageLayout:
    """The layout for a grid of images, its statistics taken from those that training may see; `rows` are all."""
    height, width, channels = grid.shape
    latents = latents_of_wholes(settings)
    plan = PixelPlan(
        name=grid.name, height=height, width=width, channels=channels, levels=grid.high + 1,
        units=settings.width or usual_units(rows), latents=latents,
        maps=min(USUAL_MAPS, MAX_MAP_VALUES // (height * width)), counted=min(COUNTED, grid.high.bit_length()),
        **(WIDE_STENCIL if rows >= MANY_IMAGES else {}),
    )  # fmt: skip
    some = seen[:: max(1, len(seen) // STATISTICS_ROWS)].astype(np.float32) / grid.high
    variance = float(some.var(0).mean()) if len(some) else 0.0
    return ImageLayout(
        plan=plan, codes=Plan(latents=latents, width=1, columns=()), variance=max(variance, 1e-4), rows=rows
    )


def moving(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where images are not of one colour all around: (rows, height, width, channels) -> (rows, height * width)."""
    from scipy import ndimage

    around = (1, 2 * NEAR + 1, 2 * NEAR + 1, 1)
    found = ndimage.maximum_filter(images, around) > ndimage.minimum_filter(images, around)
    return found.any(3).reshape(len(images), -1)


class ImageVAE(CodedWhole):
    """Encoder, prior (`prior`), the archive's decoder (`pixels`) and the decoder that sees the code alone."""

    asked = IMAGE_SCORE
    thread_rows = 64
    default_learning_rates = LEARNING_RATES
    all_steps = STEPS
    full_rows = FULL_ROWS
    reads = ("pixels",)

    def __init__(self, layout: ImageLayout, settings: ModelSettings) -> None:
        super().__init__(layout.codes, settings)
        self.layout = layout
        plan = layout.plan
        self.pixels = PixelDecoder(plan)
        self.prior = prior_of(layout.codes)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(plan.channels, plan.height, plan.width))
        if plan.latents:
            shape = plan.channels, plan.height, plan.width
            hidden = Hidden(16, 1, settings.activation)
            # rows of a learned prior are images to the encoder
            family: Latents = make_latents(settings, layout.codes.reach, plan.latents, (plan.pixels, 1))
            self.latents = family
            self.encoder = ConvEncoder(
                shape,
                plan.latents,
                family.outputs,
                hidden=hidden,
                gain=family.gain or ENCODER_GAIN,
            )
            self.codes_only = ConvDecoder(plan.latents, shape, hidden=hidden)

    @property
    def batch_rows(self) -> int:
        """Images of a step, for settings that do not say: fewer of large ones."""
        return max(4, min(128, BATCH_VALUES // self.layout.plan.pixels))

    # ------------------------------------------------------------------------------------------------ its use

    @torch.no_grad()
    def cell_bits(self, batch: Tensors) -> Tensor:
        """Bits of each image with hard codes, of all its pixels: (batch, 1)."""
        w = self.pixels.weights(quantised=True)
        images = self._images(batch)
        features = self.pixels.features(w, self.encode(batch).to(torch.float32))
        each = self._every_place(images)
        return self.pixels.nats(w, images, features, each).sum(1, keepdim=True) * NATS_TO_BITS

    @torch.no_grad()
    def pictures(self, code: Tensor) -> Tensor:
        """What the code alone says: (batch, height, width, channels), in symbols, not rounded."""
        shares = (self.mean + self.codes_only(code)).permute(0, 2, 3, 1)
        return ((shares + 1) / 2).clamp(0, 1) * (self.layout.plan.levels - 1)

    def guess(self, code: Tensor) -> Tensor:
        """The same as symbols, (batch, values) in uint8."""
        return self.pictures(code).round().to(torch.uint8).flatten(1)

    def integers(self) -> ImageModel:
        """The decoder as the codec runs it; ModelError where its sums could overflow."""
        codes = IntegerModel(self.layout.codes, self.prior.integers())
        return ImageModel(self.layout.plan, codes, self.pixels.integers())

    # ------------------------------------------------------------------------------------------------ an image

    def look_first(self, batch: Tensors) -> None:
        self.mean.copy_(self._shown(batch).mean(0))

    def posterior(self, batch: Tensors) -> Tensor:
        return self.encoder(self._shown(batch) - self.mean, self.progress)

    def pseudo_posterior(self, rows: Tensor) -> Tensor:
        return self.encoder(rows.view(-1, *self.mean.shape), self.progress)

    def value_nats(
        self, batch: Tensors, code: Tensor | None, *, quantised: bool, generator: torch.Generator
    ) -> Tensor:
        w = self.pixels.weights(quantised=quantised)
        features = None if code is None else self.pixels.features(w, code)
        count = max(1, DRAWN_PIXELS // len(batch["pixels"]))
        places, weights = self._places(batch, count, generator)
        return (self.pixels.nats(w, self._images(batch), features, places) * weights).sum(1).mean()

    def held_nats(self, batch: Tensors, code: Tensor | None) -> Tensor:
        w = self.pixels.weights(quantised=True)
        images = self._images(batch)
        generator = torch.Generator(images.device).manual_seed(0)
        features = None if code is None else self.pixels.features(w, code)
        places, weights = self._places(batch, HELD_PIXELS, generator)
        return (self.pixels.nats(w, images, features, places) * weights).sum(1)

    def missed(self, batch: Tensors, said: Tensor) -> Tensor:
        """Squared error of each image, in shares of the range."""
        return (self._shown(batch) - self.mean - said).square().flatten(1).sum(1) / 4

    def alone(self, missed: Tensor) -> Tensor:
        return missed / (2 * self.layout.variance)

    def score(self, batch: Tensors, said: Tensor, missed: Tensor) -> Tensor:
        """R² of the pixels of a batch, a scalar."""
        del said
        shown = self._shown(batch)
        spread = (shown - shown.mean(0)).square().sum() / 4
        return (1 - missed.sum() / spread.clamp(min=1e-6)).clamp(min=0)

    def weights_price(self, like: Tensor) -> Tensor:
        rows = self.layout.rows
        if not rows:
            return like.new_zeros(())
        return WEIGHT_PRICE / rows * (self.pixels.description() + self.prior.description())

    def _images(self, batch: Tensors) -> Tensor:
        plan = self.layout.plan
        return batch["pixels"].view(-1, plan.height, plan.width, plan.channels)

    def _shown(self, batch: Tensors) -> Tensor:
        """Images as the encoder sees them: (batch, channels, height, width), -1 to 1."""
        images = self._images(batch).permute(0, 3, 1, 2).to(torch.float32)
        return images * (2 / (self.layout.plan.levels - 1)) - 1

    def _every_place(self, images: Tensor) -> Tensor:
        """All pixels of each image, (batch, height * width)."""
        places = self.layout.plan.height * self.layout.plan.width
        return torch.arange(places, device=images.device).repeat(len(images), 1)

    def _places(self, batch: Tensors, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pixels drawn of each image, and what each stands for: (batch, count) both; all, if there are no more."""
        plan = self.layout.plan
        places = plan.height * plan.width
        if count >= places:
            each = self._every_place(batch["pixels"])
            return each, torch.ones(each.shape, device=each.device)
        chance = torch.where(batch["moving"] != 0, 1.0, STILL)
        chance = chance / chance.sum(1, keepdim=True)
        drawn = torch.multinomial(chance, count, replacement=True, generator=generator)
        return drawn, 1 / (count * chance.gather(1, drawn))
