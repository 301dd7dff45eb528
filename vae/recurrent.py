"""Recurrent encoders and decoders of texts: gated recurrent units (Cho et al. 2014) over pieces.

The encoder reads a text and pools its states (Conneau et al. 2017); the decoder says each piece given the code and the
pieces before it, as the first VAEs of text did (Bowman et al. 2016). Pieces are whole numbers, `END` behind a text
(`vae.pieces`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.textgrid import END

EMBEDDED = 48
"""Size of what a piece is shown by."""
PARTS = 2
"""Parts of a batch, the shorter texts and the longer ones: units run to the end of the longest text of their part.
(Packed sequences stop where each text does, and take ten times as long on the way back.)"""


def lengths_of(texts: Tensor) -> Tensor:
    """Pieces of each text, (batch,), of rows (batch, length) that `END` fills."""
    return (texts != END).sum(1)


def by_length(texts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in parts, the shorter texts first: which rows they are, and their pieces up to the longest's end."""
    lengths = lengths_of(texts)
    for rows in lengths.argsort(stable=True).chunk(PARTS):
        longest = int(lengths.index_select(0, rows).max())
        yield rows, texts.index_select(0, rows)[:, : max(1, longest)]


def in_order(rows: list[Tensor], parts: list[Tensor]) -> Tensor:
    """What was made of the parts of a batch, in the batch's order."""
    return torch.cat(parts).index_select(0, torch.cat(rows).argsort())


class RecurrentEncoder(nn.Module):
    """All latents from the states of a GRU, (batch, length) pieces -> (batch, latents, outputs).

    Of each unit the mean and the largest over the text's own pieces, and the mean of the pieces' embeddings as they
    are, by which a code knows of words before the units have learnt to: what fills the row changes nothing, and one
    text nothing of another.
    """

    def __init__(self, pieces: int, width: int, latents: int, outputs: int, *, gain: float) -> None:
        super().__init__()
        self.latents = latents
        self.embedding = nn.Parameter(torch.randn(pieces, EMBEDDED) * 0.5)
        self.gru = nn.GRU(EMBEDDED, width, batch_first=True)
        self.pooled_size = 2 * width + EMBEDDED
        self.norm = nn.LayerNorm(self.pooled_size)  # states begin small, and codes must begin alive
        self.last = nn.Linear(self.pooled_size, latents * outputs)
        with torch.no_grad():
            self.last.weight.mul_(gain)

    def shift(self, by: Tensor) -> None:
        """Adds `by` (latents,) to the first output of each latent."""
        self.last.bias.view(self.latents, -1)[:, 0].add_(by)

    def pooled(self, texts: Tensor) -> Tensor:
        """Mean and largest states, and mean embedding, (batch, `pooled_size`); zeros of an empty text."""
        embedded = _embedded(self.embedding, texts)
        states = self.gru(embedded)[0]
        inside = (texts != END).unsqueeze(2)
        count = inside.sum(1).clamp(min=1)
        mean = torch.cat([states, embedded], 2).masked_fill(~inside, 0.0).sum(1) / count
        largest = states.masked_fill(~inside, -1.0).amax(1)  # states lie within -1 and 1
        return torch.cat([mean, torch.where(inside.any(1), largest, 0.0)], 1)

    def forward(self, texts: Tensor, progress: Tensor) -> Tensor:
        del progress
        return self.told(self.pooled(texts))

    def told(self, pooled: Tensor) -> Tensor:
        """The latents' outputs, of pooled states."""
        return self.last(self.norm(pooled)).unflatten(-1, (self.latents, -1))


class RecurrentDecoder(nn.Module):
    """p(text | code), piece by piece: a GRU that begins in a state of the code's, and is shown the code at each one.

    The code also favours pieces by itself, past the units, as the topics of a TopicRNN do (Dieng et al. 2017).
    """

    def __init__(self, pieces: int, width: int, latents: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(pieces, EMBEDDED) * 0.5)
        self.coded = latents > 0
        if latents:
            self.begin = nn.Linear(2 * latents, width)
            self.shown = nn.Linear(2 * latents, EMBEDDED)
            self.favoured = nn.Linear(2 * latents, pieces, bias=False)
            with torch.no_grad():  # what a code says is noise until it has learnt to say something
                for layer in (self.begin, self.shown, self.favoured):
                    layer.weight.zero_()
        self.gru = nn.GRU(EMBEDDED, width, batch_first=True)
        self.head = nn.Linear(width, pieces)

    def nats(self, texts: Tensor, code: Tensor | None) -> Tensor:
        """-log p(text | code), its end with it unless it fills its row, (batch,).

        texts (batch, length) pieces, code (batch, 2 * latents) features.
        """
        rows, parts = list[Tensor](), list[Tensor]()
        for which, part in by_length(texts):
            # room for the end, unless the text fills its row
            whole = F.pad(part, (0, 1), value=END) if part.shape[1] < texts.shape[1] else part
            rows.append(which)
            parts.append(self._nats(whole, None if code is None else code.index_select(0, which)))
        return in_order(rows, parts)

    def _nats(self, texts: Tensor, code: Tensor | None) -> Tensor:
        targets = texts.long()
        before = F.pad(targets, (1, -1), value=END)
        inputs, first = _embedded(self.embedding, before), None
        if code is not None and self.coded:
            inputs = inputs + self.shown(code).unsqueeze(1)
            first = torch.tanh(self.begin(code)).unsqueeze(0)
        states = self.gru(inputs, first)[0]
        row, place = torch.nonzero(_said(texts), as_tuple=True)
        at = row * texts.shape[1] + place
        logits = self.head(states.flatten(0, 1).index_select(0, at))
        if code is not None and self.coded:
            logits = logits + self.favoured(code).index_select(0, row)
        nats = F.cross_entropy(logits, targets.flatten().index_select(0, at), reduction="none")
        return nats.new_zeros(len(texts)).index_add(0, row, nats)

    @torch.no_grad()
    def spoken(
        self, code: Tensor | None, rows: int, length: int, generator: torch.Generator | None
    ) -> Tensor:
        """Texts, (rows, length) pieces: drawn, or without a generator the likeliest one each time."""
        texts = torch.full((rows, length), END)
        state = torch.zeros(1, rows, self.gru.hidden_size)
        shown, favoured = torch.zeros(rows, EMBEDDED), torch.zeros(())
        if code is not None and self.coded:
            state, shown = torch.tanh(self.begin(code)).unsqueeze(0), self.shown(code)
            favoured = self.favoured(code)
        last, going = torch.full((rows,), END), torch.ones(rows, dtype=torch.bool)
        for place in range(length):
            inputs = self.embedding.index_select(0, last) + shown
            states, state = self.gru(inputs.unsqueeze(1), state)
            logits = self.head(states[:, 0]) + favoured
            if generator is None:
                last = logits.argmax(1)
            else:
                last = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]
            last = torch.where(going, last, END)
            texts[:, place] = last
            going = going & (last != END)
            if not going.any():
                break
        return texts


def _said(texts: Tensor) -> Tensor:
    """Which places of rows are a text's pieces, or the end behind them, (batch, length)."""
    return torch.arange(texts.shape[1], device=texts.device) <= lengths_of(texts).unsqueeze(1)


def _embedded(table: Tensor, texts: Tensor) -> Tensor:
    """(batch, length) pieces -> (batch, length, size); not `embedding`, whose gradient takes longer."""
    return table.index_select(0, texts.long().flatten()).view(*texts.shape, -1)
