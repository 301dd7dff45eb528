"""Settings of the model and of its training: frozen, documented, self-checking.

The same classes show as forms in Prefect's deployments, so every field carries its description and bounds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Family(StrEnum):
    """A family of latent variables."""

    gaussian = "gaussian"
    quantized = "quantized"
    spike_slab = "spike_slab"
    topk = "topk"


class Codes(StrEnum):
    """How much the sparse code is asked to carry by itself."""

    none = "none"
    lean = "lean"
    balanced = "balanced"
    rich = "rich"


class Effort(StrEnum):
    """How long to train; a number of optimiser steps, never a time."""

    fast = "fast"
    standard = "standard"
    max = "max"


CODES_WEIGHT = {Codes.none: 0.0, Codes.lean: 0.35, Codes.balanced: 0.6, Codes.rich: 1.0}
"""Weight λ of the term that asks the code alone to reconstruct the row, where it comes to rest; less once the code
scores what it is asked for."""
CODES_SCORE = {Codes.none: 0.0, Codes.lean: 0.52, Codes.balanced: 0.77, Codes.rich: 0.9}
"""Score that the code is asked for (`vae.metrics.code_score`), on rows of the training."""
FIRST_CODES_WEIGHT = 2.0
"""λ at the start of training: it keeps codes alive while their rate counts from the first steps on."""
CODES_WEIGHT_FALL = 0.6
"""Share of the training after which λ rests."""


def codes_weight(codes: Codes, progress: float) -> float:
    """λ when `progress` of all steps are done: a straight fall, or rise, from `FIRST_CODES_WEIGHT`.

    >>> codes_weight(Codes.lean, 0.0), codes_weight(Codes.lean, 1.0), codes_weight(Codes.none, 0.0)
    (2.0, 0.35, 0.0)
    """
    last = CODES_WEIGHT[codes]
    if codes is Codes.none:
        return last
    done = min(1.0, progress / CODES_WEIGHT_FALL)
    return FIRST_CODES_WEIGHT * (1 - done) + last * done


MOST_LATENTS = 256
What = Literal["nonzeros", "bits", "score"]
NEAR_TARGET = 0.05
"""Share of its target by which a code may be off."""
TARGET = re.compile(r"\s*(nonzeros|bits|score)\s*=\s*([0-9]*\.?[0-9]+)\s*")


@dataclass(frozen=True)
class Target:
    """What is asked of a code, as a mean over rows."""

    what: What
    value: float

    @staticmethod
    def parse(text: str) -> Target:
        """`nonzeros=12`, `bits=16` or `score=0.8`; ValueError says what it may be.

        >>> Target.parse("bits=16")
        Target(what='bits', value=16.0)
        """
        found = TARGET.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is no target of a code; write nonzeros=12, bits=16 or score=0.8")
        what, value = found[1], float(found[2])
        if value <= 0 or (what == "score" and value >= 1):
            allowed = "between 0 and 1" if what == "score" else "above 0"
            raise ValueError(f"{text!r}: the target of {what} has to be {allowed}")
        return Target(cast(What, what), value)

    def miss(self, found: float) -> float:
        """By what share a code that was `found` to be so much is off; of a score, which is a floor, what it lacks.

        >>> Target.parse("bits=8").miss(7.0), Target.parse("score=0.5").miss(0.8)
        (-0.125, 0.0)
        """
        share = found / self.value - 1
        return min(0.0, share) if self.what == "score" else share


class ModelSettings(Settings):
    """Shape of a `SparseVAE` for tables."""

    family: Family = Family.quantized
    """Latent family: `quantized` integer codes with a spike at zero; `spike_slab`, variational sparse coding; `topk`,
    the largest few of each row; or the plain `gaussian` VAE, whose codes are not sparse."""
    latents: int | None = Field(default=None, ge=1, le=MOST_LATENTS)
    """Number of latent variables; None: 16, or 8 where most columns follow from the row above, and half of that for a
    `lean` code; of images and texts 32. Ignored when `codes` is `none`."""
    codes: Codes = Codes.balanced
    """What the code is asked to score by itself (`vae.metrics.code_score`): `lean` about 0.5, `balanced` 0.75, `rich`
    0.9, as far as that is to be had cheaply; `none` is no code."""
    width: int | None = Field(default=None, ge=4, le=256)
    """Hidden width of the archive's decoder, whose weights are stored in every archive; None: 16 or 32, of
    images 16, 32 or 64, the more the more rows there are to pay for it. Of texts that of the recurrent decoder, which
    no archive holds: 128."""
    reads: int = Field(default=2, ge=0, le=4096)
    """Columns that each latent may read; 0 lets all latents see all columns through one dense network. A latent of
    images or texts sees the whole of them."""
    encoder_width: int = Field(default=128, ge=4, le=4096)
    """Hidden width of the codes-only decoder, and of the encoder (an eighth of it for each latent where `reads` is
    not 0); never stored in an archive. Of images both are convolutional, of a size that is not set; of texts the
    encoder is recurrent."""
    encoder_depth: int = Field(default=2, ge=1, le=8)
    """Hidden layers of the encoder and of the codes-only decoder."""
    activation: str = Field(default="relu", pattern="^(relu|tanh|gelu|silu|elu)$")
    """Activation of the encoder and of the codes-only decoder."""
    kl_warmup: float = Field(default=0.02, ge=0, le=1)
    """Share of the steps over which the code's rate (or KL) rises to its full weight."""
    free_bits: float = Field(default=0.0, ge=0, le=8)
    """Nats a latent may spend before its rate counts (Kingma et al. 2016)."""
    presence: float = Field(default=0.25, gt=0, lt=1)
    """Share of latents that the prior of `spike_slab` expects to be there (its α)."""
    pseudo_rows: int = Field(default=16, ge=0, le=1024)
    """Learned rows whose posteriors are the prior of `spike_slab`; 0: α N(0, 1) + (1 - α) δ(0)."""
    active: float | None = Field(default=None, gt=0, le=256)
    """Latents that `topk` keeps a row, on average; None: a quarter of them."""
    column: str | None = None
    """The column that is modelled by itself, of images or of texts; None: the first one of images, else all columns of
    numbers and names together, and where there is none, the first one of texts."""
    target: str | None = None
    """What the code is calibrated to, in place of what `codes` asks of it: `nonzeros=12` a row, `bits=16` a row as
    stored, or `score=0.8` or more by itself. Training finds the weight that gets it there."""

    @model_validator(mode="after")
    def _reachable(self) -> ModelSettings:
        """What the target asks for is to be had of this family, with a code."""
        if self.target is None:
            return self
        target = Target.parse(self.target)
        what, value = target.what, target.value
        if self.codes is Codes.none:
            raise ValueError(f"target {self.target}: there is no code where codes is none")
        if what == "nonzeros" and self.family is Family.gaussian:
            raise ValueError(
                f"target {self.target}: gaussian codes are not sparse; take bits=... or another family"
            )
        most = self.latents or MOST_LATENTS
        if what == "nonzeros" and value > most:
            raise ValueError(f"target {self.target}: there are {most} latents at most; set latents")
        return self


def latents_of(settings: ModelSettings, *, series: bool) -> int:
    """Number of latents under these settings: without a code none, of a lean code half as many as of a richer one, and
    twice as many at least as the target says shall be on.

    >>> [latents_of(ModelSettings(codes=codes), series=True) for codes in (Codes.none, Codes.lean, Codes.balanced)]
    [0, 4, 8]
    """
    if settings.codes is Codes.none:
        return 0
    usual = 8 if series else 16
    target = Target.parse(settings.target) if settings.target else None
    if target and target.what == "nonzeros":
        usual = max(usual, min(MOST_LATENTS, math.ceil(2 * target.value)))
    elif settings.codes is Codes.lean:
        usual //= 2
    return settings.latents or usual


class TrainSettings(Settings):
    """How a model is trained."""

    effort: Effort = Effort.standard
    """Number of optimiser steps: on `flights` `fast` takes 40 seconds, `standard` 3 minutes, `max` 10; on slow
    cores twice as long."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Number of optimiser steps, in place of the one that `effort` stands for."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of weights, batch order and noise."""
    batch_rows: int | None = Field(default=None, ge=1, le=1_000_000)
    """Rows a step; None: 512, of images 128, of texts about 2,000 pieces. Many steps on few rows make a better
    model than few steps on many."""
    rows: int = Field(default=1_000_000, ge=1_000, le=100_000_000)
    """Rows that training reads at most; of a table with more of them, a sample from all over it."""
    encoder_lr: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of the encoder; None: 0.005 where most columns follow from the row above, else 0.002."""
    decoder_lr: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of the decoder and the prior; None: 0.012 where most columns follow from the row above, else
    0.035."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    refit_share: float = Field(default=0.35, ge=0, lt=1)
    """Last share of the steps, in which the encoder is frozen and prior and decoder are refitted on hard codes."""
    patience: int = Field(default=8, ge=1)
    """Validations without improvement after which a phase ends early, unless it moves a code to its target."""
    threads: int = Field(default=0, ge=0, le=256)
    """Threads that share an operation; 0: one for each 1,024 rows of a batch (64 of images), at least one, at most the
    machine's, and where one is left, it computes what a code of a table says meanwhile."""
