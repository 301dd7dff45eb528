"""A VAE of binary images on the latent families: what a family is worth where the pixels have no other way to be told.

The objective is the evidence lower bound (Kingma & Welling 2014, eq. 3), or with several samples the
importance-weighted one (Burda et al. 2016, eq. 8), as nats an image to minimise. Given the code, pixels are independent
Bernoulli variables. Grey values are probabilities: a training image is drawn anew each time it is seen (Burda et al.
2016, appendix C), or, not `redrawn`, its grey values take the pixel's place in the likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vae.convolution import ConvDecoder, ConvEncoder
from vae.latents import STEP, Draw
from vae.loop import Progress, Rows
from vae.networks import DenseEncoder, Hidden, dense
from vae.schedule import Phase
from vae.settings import Family, ModelSettings, Settings, TrainSettings
from vae.sparse import make_latents
from vae.train import run

NATS_TO_BITS = 1 / math.log(2)
ENCODER_GAIN = 1.0
"""Factor on the encoder's last weights at the start, where the family has none of its own."""
LEARNING_RATE = 0.001
IDLE_WEIGHT = 1 / 32
"""Weight of the term that brings idle latents back (Gao et al. 2024)."""
LEAST_GREY = 0.001
"""Mean grey values are held this far from black and white, where the pixels' first bias is taken from them."""


AT_ONCE = 2_000
"""Codes that are decoded at once, where a likelihood is measured."""


class BinarySettings(Settings):
    """Shape of a `BinaryVAE`."""

    family: Family = Family.gaussian
    """Latent family; those without a posterior to draw from (`topk`) have no likelihood, and are not charged for."""
    latents: int = Field(default=50, ge=1, le=4096)
    """Number of latent variables."""
    network: Literal["dense", "convolution"] = "convolution"
    """Kind of encoder and decoder."""
    width: int = Field(default=16, ge=1, le=4096)
    """Hidden width; of convolutions the channels at half the resolution."""
    depth: int = Field(default=1, ge=0, le=16)
    """Hidden layers; of convolutions the residual blocks at each resolution."""
    activation: str = Field(default="silu", pattern="^(relu|tanh|gelu|silu|elu)$")
    """Activation of encoder and decoder."""
    samples: int = Field(default=1, ge=1, le=1_000)
    """Draws of the training's bound; 1 is the evidence lower bound."""
    redrawn: bool = True
    """Whether training images are drawn by their grey values; else the grey values themselves are told."""
    kl_warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the KL rises to its full weight."""
    presence: float = Field(default=0.2, gt=0, lt=1)
    """Share of latents that the prior of `spike_slab` expects to be there (its α)."""
    pseudo_rows: int = Field(default=32, ge=0, le=1024)
    """Learned images whose posteriors are the prior of `spike_slab`; 0: α N(0, 1) + (1 - α) δ(0)."""
    active: float | None = Field(default=None, gt=0, le=4096)
    """Latents that `topk` keeps of an image, on average; None: a quarter of them."""
    reach: int = Field(default=127, ge=1, le=127)
    """Largest integer of a hard code."""

    @model_validator(mode="after")
    def _deep_enough(self) -> BinarySettings:
        """A dense network has a hidden layer."""
        if self.network == "dense" and not self.depth:
            raise ValueError("depth 0: a dense network has one hidden layer at least")
        return self


class BinaryVAE(nn.Module):
    """Encoder, latent family and decoder of images of `size` (height, width)."""

    def __init__(self, size: tuple[int, int], settings: BinarySettings) -> None:
        super().__init__()
        self.size, self.settings = size, settings
        shape = ModelSettings(
            family=settings.family, presence=settings.presence, pseudo_rows=settings.pseudo_rows,
        )  # fmt: skip
        if settings.active:
            shape = shape.model_copy(update={"active": settings.active})
        self.latents = make_latents(shape, settings.reach, settings.latents, size)
        hidden = Hidden(settings.width, settings.depth, settings.activation)
        gain = self.latents.gain or ENCODER_GAIN
        outputs, pixels = self.latents.outputs, size[0] * size[1]
        if settings.network == "dense":
            self.encoder = DenseEncoder(pixels, settings.latents, outputs, hidden=hidden, gain=gain)
            self.decoder = nn.Sequential(dense(settings.latents, *hidden[:2], pixels, hidden.activation))
        else:
            self.encoder = ConvEncoder((1, *size), settings.latents, outputs, hidden=hidden, gain=gain)
            self.decoder = ConvDecoder(settings.latents, (1, *size), hidden=hidden)
        self.bias = nn.Parameter(torch.zeros(pixels))
        self.progress: Tensor
        self.register_buffer("progress", torch.ones(()))

    def posterior(self, image: Tensor) -> Tensor:
        """The encoder's parameters for images (batch, height, width) from 0 to 1; (batch, latents, outputs)."""
        return self.encoder((2 * image - 1).unsqueeze(1), self.progress)

    def logits(self, code: Tensor) -> Tensor:
        """Log odds of each pixel, (batch, height * width), from a code in integer steps."""
        return self.decoder(code * STEP).flatten(1) + self.bias

    def pixel_nats(self, code: Tensor, image: Tensor) -> Tensor:
        """-log p(image | code) in nats, (batch,)."""
        return F.binary_cross_entropy_with_logits(self.logits(code), image.flatten(1), reduction="none").sum(
            1
        )

    @torch.no_grad()
    def begin(self, phase: str, batch: Mapping[str, Tensor]) -> None:
        """Pixels begin with their usual log odds, and the rows of the prior as images of the batch."""
        del phase
        grey = batch["image"].to(torch.float32) / 255
        self.progress.fill_(0.0)
        self.bias.copy_(grey.mean(0).clamp(LEAST_GREY, 1 - LEAST_GREY).logit().flatten())
        if self.latents.pseudo is not None:
            rows = torch.arange(len(self.latents.pseudo)) % len(grey)
            self.latents.pseudo.copy_(grey[rows])

    def loss(
        self, batch: Mapping[str, Tensor], *, progress: float, phase: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The loss and its terms in nats an image; `progress` is the share of all steps that are done."""
        del phase
        self.progress.fill_(progress)
        image = self.shown(batch["image"], generator)
        warmup = min(1.0, progress / self.settings.kl_warmup) if self.settings.kl_warmup > 0 else 1.0
        if self.settings.samples > 1:
            weights = self.log_weights(image, self.settings.samples, generator, warmup=warmup)
            bound = (weights.logsumexp(0) - math.log(len(weights))).mean()
            return {"loss": -bound}
        draw = self._draw(image, generator)
        pixels = self.pixel_nats(draw.code, image).mean()
        terms = {"pixels": pixels, "presence": draw.presence.sum(1).mean().detach()}
        loss = pixels
        if draw.kl is not None:
            terms["kl"] = draw.kl.sum(1).mean()
            loss = loss + warmup * terms["kl"]
        if draw.penalty is not None:
            terms["penalty"] = draw.penalty
            loss = loss + draw.penalty
        if draw.idle is not None:
            # only what idle latents say is taught by it: the rest of the code is given
            terms["idle"] = self.pixel_nats(draw.code.detach() + draw.idle, image).mean()
            loss = loss + IDLE_WEIGHT * terms["idle"]
        return {"loss": loss, **terms}

    def log_weights(
        self, image: Tensor, samples: int, generator: torch.Generator, *, warmup: float = 1.0
    ) -> Tensor:
        """log p(image, z) - log q(z | image) in nats for each of `samples` draws, (samples, batch).

        Their mean is the ELBO, the mean of their exponentials the IWAE bound (Burda et al. 2016, eq. 8). `warmup` is
        the weight of log p(z) - log q(z | image). TypeError where the posterior is not stochastic.
        """
        parameters = self.posterior(image).repeat(samples, 1, 1)
        z, ratio = self.latents.sample(parameters, self._noise(parameters, generator), self._prior())
        nats = self.pixel_nats(z, image.repeat(samples, 1, 1))
        return (warmup * ratio - nats).view(samples, -1)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Hard codes of images from 0 to 1, integers as floats, (batch, latents), exact zeros."""
        return self.latents.harden(self.posterior(image))

    @torch.no_grad()
    def validation_bits(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bits of each image by part, (batch,) each, with draws that are the same every time."""
        generator = torch.Generator(self.bias.device).manual_seed(0)
        image = self.shown(batch["image"], generator)
        draw = self._draw(image, generator)
        there = (self.encode(image) != 0).sum(1).to(image.dtype)
        found = {"pixel_bits": self.pixel_nats(draw.code, image) * NATS_TO_BITS, "nonzeros": there}
        if draw.kl is not None:
            found["code_bits"] = draw.kl.sum(1) * NATS_TO_BITS
        return found

    def objective(self, bits: Mapping[str, float]) -> float:
        """What an image costs, of mean `validation_bits`."""
        return bits["pixel_bits"] + bits.get("code_bits", 0.0)

    def aims(self, phase: str) -> bool:
        """Nothing is moved towards a target."""
        del phase
        return False

    def correct(self, phase: str, batch: dict[str, Tensor]) -> None:
        """Nothing to correct."""

    @property
    def default_learning_rates(self) -> Mapping[str, float]:
        """Peak learning rates, for settings that name none."""
        return {"encoder": LEARNING_RATE, "decoder": LEARNING_RATE}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The encoder's parameters and the decoder's."""
        encoder = [*self.encoder.parameters(), *self.latents.parameters()]
        return [
            {"name": "encoder", "params": encoder},
            {"name": "decoder", "params": [*self.decoder.parameters(), self.bias]},
        ]

    def shown(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Bytes (batch, height, width) as pixels of 0 and 1 drawn by their grey values, or as grey values."""
        grey = image.to(torch.float32) / 255
        if not self.settings.redrawn:
            return grey
        uniform = torch.rand(grey.shape, generator=generator, device=grey.device)
        return (uniform < grey).to(torch.float32)

    def _draw(self, image: Tensor, generator: torch.Generator) -> Draw:
        parameters = self.posterior(image)
        noise = self._noise(parameters, generator)
        return self.latents.draw(parameters, noise, progress=float(self.progress), prior=self._prior())

    def _noise(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        shape = (*parameters.shape[:2], self.latents.noises)
        return torch.randn(shape, generator=generator, device=parameters.device)

    def _prior(self) -> Tensor | None:
        """The encoder's parameters for the images of a learned prior, (rows, latents, outputs)."""
        images = self.latents.pseudo
        return None if images is None else self.posterior(images.clamp(0, 1))


def fit(
    rows: Rows, settings: BinarySettings, training: TrainSettings, *, on_progress: Progress | None = None
) -> tuple[BinaryVAE, list[dict[str, Any]]]:
    """A model of `rows.arrays["image"]`, bytes (rows, height, width), and its history, one entry a validation.

    `training.steps` says how many steps, 10,000 without it; `on_progress` is told what that of `vae.train.fit` is.
    ModelError if the training diverged.
    """
    _, height, width = rows.arrays["image"].shape
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        model = BinaryVAE((height, width), settings)
    total = training.steps or 10_000
    phases = (Phase("joint", 0, total),)
    history = run(model, rows, training, total=total, phases=phases, on_progress=on_progress)
    return model.eval(), history


@torch.no_grad()
def iwae_nats(model: BinaryVAE, image: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """-log p(image) in nats as bounded by `samples` draws, (batch,); images of 0 and 1, (batch, height, width)."""
    found: list[Tensor] = []
    for part in image.split(max(1, AT_ONCE // samples)):
        done, weights = 0, list[Tensor]()
        while done < samples:
            now = min(samples - done, AT_ONCE)
            weights.append(model.log_weights(part, now, generator))
            done += now
        found.append(math.log(samples) - torch.cat(weights).logsumexp(0))
    return torch.cat(found)
