"""Texts as pieces: a frequent word is one, with the space before it; all else is told byte by byte.

A model that says a text piece by piece has half as many steps to go as one that says bytes, and less to learn by heart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from data.textgrid import END

MOST_PIECES = 1_024
"""Words that are pieces."""
LEAST_OFTEN = 1 / 20_000
"""Of all words, how many have to be the same for a piece to be made of them."""
FIRST = 256
"""The first piece that is a word; those below are bytes, and `END`, which no UTF-8 holds."""
PART = re.compile(r" ?\w+|.", re.DOTALL)
Pieces = npt.NDArray[np.int16]


def frequent(texts: Sequence[str]) -> tuple[str, ...]:
    """The words, each with the space before it, that save most bytes as pieces of their own.

    >>> frequent(["the king and the queen", "the king"] * 9)
    (' king', ' queen', 'the', ' and', ' the')
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(PART.findall(text))
    least = max(2, counts.total() * LEAST_OFTEN)
    saved = {word: count * (len(word.encode()) - 1) for word, count in counts.items() if count >= least}
    kept = sorted((-bytes_, word) for word, bytes_ in saved.items() if bytes_)
    return tuple(word for _, word in kept[:MOST_PIECES])


def places_of(words: Sequence[str]) -> dict[str, int]:
    """The piece of each word."""
    return {word: FIRST + k for k, word in enumerate(words)}


def cut(text: str, place: Mapping[str, int]) -> list[int]:
    """The pieces of a text.

    >>> cut("the king's", {"the": 256, " king": 257})
    [256, 257, 39, 115]
    """
    pieces: list[int] = []
    for part in PART.findall(text):
        if part in place:
            pieces.append(place[part])
        else:
            pieces.extend(part.encode())
    return pieces


def cut_all(texts: Sequence[str], words: Sequence[str], length: int) -> Pieces:
    """The first pieces of texts, (texts, length), `END` behind them."""
    place, found = places_of(words), np.full((len(texts), length), END, np.int16)
    for row, text in enumerate(texts):
        pieces = cut(text, place)[:length]
        found[row, : len(pieces)] = pieces
    return found


def joined(pieces: npt.NDArray[np.integer], words: Sequence[str], length: int) -> npt.NDArray[np.uint8]:
    """The inverse: rows of bytes (texts, length), `END` behind them; what is longer is cut."""
    spelled = [bytes([k]) for k in range(FIRST)] + [word.encode() for word in words]
    found = np.full((len(pieces), length), END, np.uint8)
    for row, line in enumerate(pieces.tolist()):
        body = b"".join(spelled[piece] for piece in line[: line.index(END) if END in line else None])[:length]
        found[row, : len(body)] = np.frombuffer(body, np.uint8)
    return found
