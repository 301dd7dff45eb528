"""Which words a text has: what a code of texts is asked to know by itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MOST_WORDS = 512
"""Words that a code is asked for."""
FEW_WORDS = 8
"""With fewer, pairs of characters stand in: scripts without spaces, identifiers."""
LEAST_SHARE = 1 / 500
"""Of all texts, those that a word has to be in."""
WORD = re.compile(r"\w+")
Packed = npt.NDArray[np.uint8]


def words_of(text: str) -> set[str]:
    """The words of a text, whatever their case.

    >>> sorted(words_of("And God said, Let there be light: and there was light."))
    ['and', 'be', 'god', 'let', 'light', 'said', 'there', 'was']
    """
    return {word.casefold() for word in WORD.findall(text)}


def pairs_of(text: str) -> set[str]:
    """Pairs of neighbouring characters, whatever their case.

    >>> sorted(pairs_of("日本語"))
    ['日本', '本語']
    """
    text = text.casefold()
    return {text[k : k + 2] for k in range(len(text) - 1)}


def told_apart(texts: Sequence[str]) -> tuple[str, ...]:
    """The words that most tell these texts apart: those that are in some and not in others, most varied first; pairs
    of characters where hardly any word is in several texts. At least one, though it be in none.

    >>> told_apart(["a b", "a c", "a c d"] * 20)[:2]
    (' b', ' c')
    """
    found = _varied(words_of(text) for text in texts)
    if len(found) < FEW_WORDS:
        found = max(found, _varied(map(pairs_of, texts)), key=len)
    return found or ("",)


def _varied(sets: Iterable[set[str]]) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    number = 0
    for each in sets:
        counts.update(each)
        number += 1
    least = max(2, number * LEAST_SHARE)
    # the variance of being there, p (1 - p), ties by name
    kept = [(-count * (number - count), word) for word, count in counts.items() if least <= count < number]
    return tuple(word for _, word in sorted(kept)[:MOST_WORDS])


def packed_words(texts: Sequence[str], words: Sequence[str]) -> Packed:
    """Which of the words are in each text, as bits: (texts, words / 8 rounded up)."""
    place = {word: k for k, word in enumerate(words)}
    pairs = bool(words) and all(len(word) == 2 for word in words)
    there = np.zeros((len(texts), len(words)), np.uint8)
    for row, text in enumerate(texts):
        seen = pairs_of(text) if pairs else words_of(text)
        there[row, [place[word] for word in seen if word in place]] = 1
    return np.packbits(there, axis=1, bitorder="little")


def unpacked(packed: Tensor, words: int) -> Tensor:
    """The bits again, as floats (texts, words)."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(2) >> shifts) & 1).flatten(1)[:, :words].to(torch.float32)
