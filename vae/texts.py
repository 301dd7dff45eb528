"""The sparse VAE for texts: recurrent encoder, prior over codes, recurrent decoder, and which words a code knows of.

A decoder that sees what is said already does well without a code, and leaves it idle (Bowman et al. 2016, §3). So
the code is asked for the text's words by itself as well (as by Zhao et al. 2017, their bag-of-words loss), with the
weight λ that its score steers (`vae.steered`). Archives hold texts by another coder (`vae.codec.texts`): this model is
for codes, for what they rebuild, and for new texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from data.textgrid import END, MAX_LENGTH, texts_of
from vae.codec.integer import IntegerModel
from vae.codec.plan import Plan
from vae.codec.structure import Derived
from vae.latents import Latents
from vae.networks import dense
from vae.pieces import FIRST, MOST_PIECES, cut, cut_all, frequent, joined, places_of
from vae.recurrent import EMBEDDED, RecurrentDecoder, RecurrentEncoder, by_length, in_order
from vae.settings import MOST_LATENTS, Codes, Effort, ModelSettings
from vae.sparse import make_latents
from vae.stencil import Tensors, code_features
from vae.whole import NATS_TO_BITS, CodedWhole, latents_of_wholes, prior_of
from vae.words import MOST_WORDS, packed_words, told_apart, unpacked

MODELLED_LENGTH, MODELLED_PIECES = 1_024, 128
"""Bytes and pieces of a text that are modelled; of a longer one its beginning."""
USUAL_WIDTH = 128
ENCODER_GAIN = 4.0
LEARNING_RATES = {"encoder": 0.004, "decoder": 0.006}
TEXT_SCORE = {Codes.none: 0.0, Codes.lean: 0.1, Codes.balanced: 0.2, Codes.rich: 0.35}
"""Share of the variance of words' being there that the code is asked for."""
WORD_WEIGHT = 10.0
"""What a nat of a text's words counts: a word is said once, where an image says a thing in many pixels."""
STEPS = {Effort.fast: 400, Effort.standard: 2_000, Effort.max: 15_000}
FULL_ROWS = 20_000
"""Texts from which on a training has its full number of steps."""
BATCH_PIECES = 2_048
"""Pieces of all texts of a step, about."""
HELD_TEXTS = 512
"""Texts that validate."""
WORD_ROWS = 20_000
"""Texts that words are chosen from."""


class TextPlan(BaseModel):
    """The column, and what of its texts is modelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    length: int = Field(ge=1, le=MAX_LENGTH)
    """Bytes of a text."""
    pieces: int = Field(ge=1, le=MAX_LENGTH)
    """Pieces of a text."""
    latents: int = Field(ge=0, le=MOST_LATENTS)

    @property
    def names(self) -> list[str]:
        """The one column that is modelled."""
        return [self.name]


Piece = Annotated[str, Field(max_length=MODELLED_LENGTH)]
"""A word that is said at once, no longer than what is read of a text."""


class TextLayout(BaseModel):
    """Everything about the shape of the model that the texts decide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: TextPlan
    codes: Plan
    """Of the codes' prior: a plan without columns."""
    pieces: tuple[Piece, ...] = Field(max_length=MOST_PIECES)
    """Words that are said at once (`vae.pieces`)."""
    words: tuple[str, ...] = Field(max_length=MOST_WORDS)
    """Words that the code is asked for by itself (`vae.words`)."""
    mean: float = Field(ge=0)
    """Pieces of a text, on average."""

    derived: tuple[Derived, ...] = ()
    """Columns of the table, beside the texts, that follow from others."""

    @property
    def symbols(self) -> int:
        """Pieces there are."""
        return FIRST + len(self.pieces)


def make_layout(name: str, seen: NDArray[np.uint8], settings: ModelSettings) -> TextLayout:
    """The layout for a column of texts; `seen` (rows, length) are those that training may see."""
    latents = latents_of_wholes(settings)
    some = texts_of(seen[:: max(1, len(seen) // WORD_ROWS)])
    pieces = frequent(some)
    place = places_of(pieces)
    lengths = [len(cut(text, place)) for text in some] or [1]
    return TextLayout(
        plan=TextPlan(
            name=name,
            length=seen.shape[1],
            pieces=max(1, min(MODELLED_PIECES, max(lengths))),
            latents=latents,
        ),
        codes=Plan(latents=latents, width=1, columns=()),
        pieces=pieces,
        words=told_apart(some) if latents else (),
        mean=float(np.minimum(lengths, MODELLED_PIECES).mean()),
    )


def text_arrays(texts: NDArray[np.uint8], layout: TextLayout) -> dict[str, NDArray[Any]]:
    """What `TextVAE` reads of texts, rows of bytes: their pieces, and which words they have."""
    told = texts_of(texts)
    return {
        "texts": cut_all(told, layout.pieces, layout.plan.pieces),
        "words": packed_words(told, layout.words),
    }


def share_read(texts: Sequence[str | None], layout: TextLayout) -> float:
    """What share of texts, in bytes, their ends among them, a model reads: what its vocabulary makes of 128 pieces."""
    there = [text for text in texts if text is not None]
    read = joined(cut_all(there, layout.pieces, layout.plan.pieces), layout.pieces, layout.plan.length)
    whole = sum(len(text.encode()) for text in there) + len(there)
    return (int((read != END).sum()) + len(there)) / max(1, whole)


class TextVAE(CodedWhole):
    """Encoder, prior, decoder (`speaker`) and what the code alone knows of words."""

    asked = TEXT_SCORE
    thread_rows = 64
    default_learning_rates = LEARNING_RATES
    all_steps = STEPS
    full_rows = FULL_ROWS
    reads = ("texts",)

    def __init__(self, layout: TextLayout, settings: ModelSettings) -> None:
        super().__init__(layout.codes, settings)
        self.layout = layout
        plan = layout.plan
        self.prior = prior_of(layout.codes)
        self.speaker = RecurrentDecoder(layout.symbols, settings.width or USUAL_WIDTH, plan.latents)
        if plan.latents:
            width = settings.encoder_width
            # rows of a learned prior are what the encoder pools of texts
            family: Latents = make_latents(
                settings, layout.codes.reach, plan.latents, (2 * width + EMBEDDED, 1)
            )
            self.latents = family
            gain = family.gain or ENCODER_GAIN
            self.encoder = RecurrentEncoder(layout.symbols, width, plan.latents, family.outputs, gain=gain)
            self.codes_only = dense(
                plan.latents, width, settings.encoder_depth, len(layout.words), settings.activation
            )
            self.usual: Tensor
            self.register_buffer("usual", torch.zeros(len(layout.words)))

    @property
    def batch_rows(self) -> int:
        """Texts of a step, for settings that do not say: fewer of long ones."""
        return max(8, min(256, round(BATCH_PIECES / (1 + self.layout.mean))))

    # ------------------------------------------------------------------------------------------------ its use

    @torch.no_grad()
    def encode(self, batch: Tensors) -> Tensor:
        """As `CodedWhole.encode`; of rows of one length whatever the texts, so that a code depends on its own alone."""
        if not self.codes.latents:
            return super().encode(batch)
        return self.latents.harden(self.encoder(batch["texts"], self.progress)).to(torch.int8)

    @torch.no_grad()
    def cell_bits(self, batch: Tensors) -> Tensor:
        """Bits of each text with hard codes, (batch, 1)."""
        code = self.encode(batch).to(torch.float32) if self.codes.latents else None
        return self.held_nats(batch, code).unsqueeze(1) * NATS_TO_BITS

    def guess(self, code: Tensor) -> Tensor:
        """A text of each code, (batch, length) bytes: at each place the likeliest piece."""
        return self.speak(code, None)

    def speak(self, code: Tensor, generator: torch.Generator | None) -> Tensor:
        """A text for each code, (batch, length) bytes, drawn as the model says; a guess without a generator."""
        shown = code_features(code).flatten(1) if self.codes.latents else None
        plan = self.layout.plan
        pieces = self.speaker.spoken(shown, len(code), plan.pieces, generator)
        return torch.from_numpy(joined(pieces.numpy(), self.layout.pieces, plan.length))

    def view(self, symbols: NDArray[Any], states: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """What the encoder reads of texts on their grid, (rows, bytes)."""
        del states
        return {"texts": cut_all(texts_of(symbols), self.layout.pieces, self.layout.plan.pieces)}

    @torch.no_grad()
    def word_shares(self, code: Tensor) -> Tensor:
        """How likely each word is by the code alone, (batch, words)."""
        return torch.sigmoid(self.codes_only(code) + self.usual)

    def integers(self) -> IntegerModel:
        """The prior of the codes as the codec runs it: all that an archive could hold of the model."""
        return IntegerModel(self.layout.codes, self.prior.integers())

    # ------------------------------------------------------------------------------------------------ a text

    @torch.no_grad()
    def look_first(self, batch: Tensors) -> None:
        if self.codes.latents:
            share = self._words(batch).mean(0).clamp(1e-3, 1 - 1e-3)
            self.usual.copy_(torch.logit(share))

    def posterior(self, batch: Tensors) -> Tensor:
        rows, parts = zip(*by_length(batch["texts"]), strict=True)
        return in_order(list(rows), [self.encoder(part, self.progress) for part in parts])

    def pseudo_posterior(self, rows: Tensor) -> Tensor:
        return cast(RecurrentEncoder, self.encoder).told(rows.flatten(1))

    def value_nats(
        self, batch: Tensors, code: Tensor | None, *, quantised: bool, generator: torch.Generator
    ) -> Tensor:
        del quantised, generator
        return self._nats(batch, code).mean()

    def held_nats(self, batch: Tensors, code: Tensor | None) -> Tensor:
        return self._nats(batch, code)

    def _nats(self, batch: Tensors, code: Tensor | None) -> Tensor:
        return self.speaker.nats(batch["texts"], None if code is None else code_features(code).flatten(1))

    def missed(self, batch: Tensors, said: Tensor) -> Tensor:
        """Cross-entropy of each text's words, nats."""
        told = said + self.usual
        return F.binary_cross_entropy_with_logits(told, self._words(batch), reduction="none").sum(1)

    def alone(self, missed: Tensor) -> Tensor:
        return WORD_WEIGHT * missed

    def score(self, batch: Tensors, said: Tensor, missed: Tensor) -> Tensor:
        """Share of the variance of words' being there, of all words together."""
        del missed
        there = self._words(batch)
        return explained(there, torch.sigmoid(said + self.usual))

    def weights_price(self, like: Tensor) -> Tensor:
        """Nothing: no archive holds them."""
        return like.new_zeros(())

    def _words(self, batch: Tensors) -> Tensor:
        return unpacked(batch["words"], len(self.layout.words))


def explained(there: Tensor, said: Tensor) -> Tensor:
    """R² of what was said of each word, all words together, 0 at least, a scalar; both (texts, words)."""
    spread = (there - there.mean(0)).square().sum()
    return (1 - (there - said).square().sum() / spread.clamp(min=1e-6)).clamp(min=0)
