"""What surrounds the next byte of joined texts, as numbers to look up what followed the like of it before.

Symbols are bytes, and 256 where a value ends; that counts as byte 0 in what is made of bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae.codec.entropy import Longs, Short
from vae.codec.jit import NONE, jit

Bytes = npt.NDArray[np.uint8]
Symbols = npt.NDArray[np.int16]

END = 256
"""The symbol after the last byte of a value."""
CONTEXTS = 8
"""Numbers that stand for what surrounds a byte: the 1, 2, 3, 4 and 6 bytes before it; the word it may go on; that and
the word before; the two symbols in the value above below which it stands, and the byte before it."""
WIDE = (1 << 32) - 1
SLOT = 16
"""Bytes of a slot: a check, then the states of 15 decisions."""
MIN_MATCH, SEEN_MATCH = 6, 32
"""Symbols that must agree, and at most are compared, for what followed them to be expected again."""
MAX_MATCH = 1 << 16
REACH = 32
"""Symbols of the value above among which the byte that separates two fields is looked for."""

HISTORY, WORD, BEFORE, START, ABOVE, STOP, MATCH, LENGTH, LOW, HIGH, CODE, AT = range(12)
"""Places in `Mind.now`: the last 6 bytes; hashes of the word, 0 between words, and of the one before; where the value
begins; the place in the value above and its end; the expected symbol and how many before it agree; the coder's
interval, the number found in it, and the place in the body."""


class Mind(NamedTuple):
    """All that is learnt of the text on the way, and where on the way it is."""

    symbols: Symbols
    slots: Bytes
    seen: Short
    """Where symbols last followed the six of each hash."""
    chances: Short
    """(contexts, states): how likely a 1 is after each state, in 2**-20, times 2**10, and how often it was asked."""
    alone: npt.NDArray[np.uint16]
    """(decisions): how likely a 1 is, whatever surrounds it, in 2**-16."""
    matched: Short
    """(lengths, bits): as `chances`, where a match of such a length expects such a bit."""
    weights: Short
    """(decisions and confidences, inputs), in 2**-16."""
    stages: npt.NDArray[np.uint16]
    """(2, contexts, steps): what became of mixed predictions, in 2**-16."""
    now: Longs
    hashes: Longs
    """(2, contexts): of what surrounds the byte; where their slots begin."""
    states: Longs
    inputs: Short


@jit
def mingled(a: int, b: int) -> int:
    """A hash of two numbers below 2**32: the products are below 2**62."""
    h = ((a * 0x2F0B4C47) & WIDE) ^ ((b * 0x1E35A7BD) & WIDE)
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & WIDE
    return h ^ (h >> 13)


@jit
def is_inner(c: int) -> bool:
    """Whether a byte is of a word or a number: a letter, a digit, or no ASCII."""
    return c >= 128 or 97 <= (c | 32) <= 122 or 48 <= c <= 57


@jit
def look_around(mind: Mind) -> None:
    """Set the hashes of what surrounds the next byte."""
    now, hashes = mind.now, mind.hashes
    history, word = now[HISTORY], now[WORD]
    below = NONE
    if now[ABOVE] < now[STOP]:
        at = now[ABOVE]
        below = int(mind.symbols[at]) | (int(mind.symbols[at + 1]) << 9)
    hashes[0, 0] = mingled(history & 0xFF, 1)
    hashes[0, 1] = mingled(history & 0xFFFF, 2)
    hashes[0, 2] = mingled(history & 0xFFFFFF, 3)
    hashes[0, 3] = mingled(history & WIDE, 4)
    hashes[0, 4] = mingled(history & WIDE, 5 + ((history >> 32) << 8))
    hashes[0, 5] = mingled(word, 6 + ((history & 0xFF) << 8))
    hashes[0, 6] = mingled(word, now[BEFORE])
    hashes[0, 7] = mingled(below | ((history & 0xFF) << 18), 8)


@jit
def find_slots(mind: Mind, node: int) -> None:
    """The slots of all contexts for the decisions that follow `node`; slots that others had are emptied.

    One of three neighbours: the one with the right check, else the one whose first decision has been seen least.
    """
    slots = mind.slots
    mask = slots.shape[0] // SLOT - 1
    for i in range(CONTEXTS):
        h = mingled(mind.hashes[0, i], node + (i << 9))
        mind.hashes[1, i] = h
        mind.states[i] = slots[
            (h & mask) * SLOT
        ]  # all asked for at once: memory is slow to answer, but not to each
    for i in range(CONTEXTS):
        h = mind.hashes[1, i]
        check = h >> 24
        best, least, found = h & mask, 256, False
        for d in range(3):
            slot = (h & mask) ^ d
            first = int(np.int64(slots[slot * SLOT + 1]))
            if not found and first != 0 and int(np.int64(slots[slot * SLOT])) == check:
                best, found = slot, True
            elif not found and first < least:
                best, least = slot, first
        best = best * SLOT
        if not found:
            slots[best] = check
            for t in range(1, SLOT):
                slots[best + t] = 0
        mind.hashes[1, i] = best


@jit
def move_on(mind: Mind, k: int) -> None:
    """Go past symbol k: words, the place in the value above, and where the like of it was before."""
    symbols, now = mind.symbols, mind.now
    symbol = int(symbols[k])
    c = symbol & 255
    now[HISTORY] = ((now[HISTORY] << 8) | c) & 0xFFFFFFFFFFFF
    inner = is_inner(c)
    if inner:
        lower = c | 32 if 65 <= c <= 90 else c
        now[WORD] = ((now[WORD] + lower + 1) * 0x2F0B4C47) & WIDE
    elif now[WORD] != 0:
        now[BEFORE] = now[WORD]
        now[WORD] = 0
    if symbol == END:
        now[ABOVE], now[STOP], now[START] = now[START], k, k + 1
    elif now[ABOVE] < now[STOP]:
        _move_above(mind, c, inner)
    _match(mind, k)


@jit
def _move_above(mind: Mind, c: int, inner: bool) -> None:
    """Within a field a byte further, at most to its end; behind a separator to behind the same one."""
    symbols, now = mind.symbols, mind.now
    if inner:
        if is_inner(int(symbols[now[ABOVE]])):
            now[ABOVE] += 1
        return
    at, stop = now[ABOVE], min(now[STOP], now[ABOVE] + REACH)
    while at < stop and int(symbols[at]) != c:
        at += 1
    now[ABOVE] = at + 1 if at < stop else now[ABOVE] + 1


@jit
def _match(mind: Mind, k: int) -> None:
    """Follow the match, or look for another: where the last six bytes were before."""
    symbols, seen, now = mind.symbols, mind.seen, mind.now
    h = mingled(now[HISTORY] & WIDE, now[HISTORY] >> 32) & (seen.shape[0] - 1)
    if now[LENGTH] > 0:
        now[LENGTH] = min(now[LENGTH] + 1, MAX_MATCH)
        now[MATCH] += 1
    else:
        at, length = int(seen[h]), NONE
        while length < SEEN_MATCH and at > length and symbols[at - 1 - length] == symbols[k - length]:
            length += 1
        if length >= MIN_MATCH:
            now[MATCH], now[LENGTH] = at, length
    seen[h] = k + 1
