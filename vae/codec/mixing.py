"""Texts <-> bytes by context mixing, in integers only: no model is kept, all is learnt on the way.

Each bit of a byte is a decision, of which what surrounds it gives several predictions (`vae.codec.surroundings`). They
are mixed in the logistic domain by weights that learn online, then refined by what became of such predictions, and code
the decision in a binary arithmetic coder (the PAQ family: Mahoney 2005, "Adaptive weighing of context models for
lossless data compression"; on mixing, Mattern 2012 and 2013). After a byte 0 one more decision says whether the value
ends there, so that a value's end is a byte like others, and any byte may be in a value.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, cast

import numpy as np

from data.errors import DamagedError
from vae.codec.entropy import Longs, Short, sigmoid_table
from vae.codec.jit import NONE, ONE, jit
from vae.codec.surroundings import (
    AT,
    CODE,
    CONTEXTS,
    END,
    HIGH,
    HISTORY,
    LENGTH,
    LOW,
    MATCH,
    SLOT,
    WIDE,
    Bytes,
    Mind,
    Symbols,
    find_slots,
    look_around,
    mingled,
    move_on,
)

PIECE = 1 << 16
"""Symbols that are coded at a time: between them a call can be interrupted."""
TOO_MANY = 1 << 31
"""Symbols that no mixed text has: their places are kept in 32 bits, and the weights have room for fewer."""
STRETCHED = 2815
"""Most that a prediction is, stretched: ln(p / (1 - p)) in units of 1/256."""
SQUASHED = 3072
"""The middle of the table of `squash`."""
CAPS = (30, 30, 12, 8, 6, 5)
"""Most that a state counts of one bit, by what it counts of the other."""
INPUTS = CONTEXTS + 4
"""Of each context; of the decision alone; of the match two; and one that is always the same."""
CONFIDENCES = 64
FIRST_WEIGHT = 7_000
RATE_BITS = 17
"""A weight learns the product of its input and the error, shifted right by so much."""
ASKED_MAX = 1023
STEPS = 25
"""Places of a stretched prediction, 256 apart, at which a stage learns what became of it."""
STAGE_CONTEXTS = 1 << 16


class Fixed(NamedTuple):
    """Tables that never change."""

    squash: Short
    """2**16 / (1 + exp(-x / 256)) for x from -3072 on."""
    stretch: Short
    """The inverse, of probabilities in 2**-12."""
    following: Short
    """(states, 2): the state after a 0 or a 1."""
    shares: Short
    """By how often a chance was asked before, how much of an error it learns, in 2**-16."""


# --------------------------------------------------------------------------------------------------------- tables


State = tuple[int, int, int]
"""Zeros and ones that were counted after the like of what surrounds a byte, and which came last."""


@cache
def states() -> tuple[tuple[State, ...], tuple[tuple[int, int], ...]]:
    """All states in the order in which they are reached from none, and the next of each after a 0 and after a 1.

    >>> states()[0][:4], len(states()[0])
    (((0, 0, 0), (1, 0, 0), (0, 1, 1), (2, 0, 0)), 163)
    """
    found, places, following = [(0, 0, 0)], {(0, 0, 0): 0}, list[tuple[int, int]]()
    for state in found:  # which grows meanwhile
        for after in (_counted(state, 0), _counted(state, 1)):
            if after not in places:
                places[after] = len(found)
                found.append(after)
        following.append((places[_counted(state, 0)], places[_counted(state, 1)]))
    return tuple(found), tuple(following)


def _counted(state: State, bit: int) -> State:
    """One more of `bit`; most of what spoke for the other is forgotten: what came last is likelier to come again.

    >>> _counted((30, 0, 0), 1), _counted((0, 30, 1), 1)
    ((5, 1, 1), (0, 30, 1))
    """
    other = state[1 - bit]
    other = other if other <= 2 else other.bit_length()
    own = min(state[bit] + 1, CAPS[min(other, len(CAPS) - 1)])
    return (own, other, 0) if bit == 0 else (other, own, 1)


@cache
def fixed_tables() -> Fixed:
    """All tables, from big integers and integers alone."""
    sigmoid = sigmoid_table().astype(np.int64)
    x = np.arange(-SQUASHED, SQUASHED + 1)
    squash = np.clip((sigmoid[2048 + (x >> 1)] + sigmoid[2048 + ((x + 1) >> 1)]) >> 15, 1, 65535)
    stretch = np.clip(np.searchsorted(squash, 16 * np.arange(4096) + 8) - SQUASHED, -STRETCHED, STRETCHED)
    following = np.array(states()[1], np.int32)
    shares = (1 << 17) // (2 * np.arange(ASKED_MAX + 1) + 3)
    return Fixed(squash.astype(np.int32), stretch.astype(np.int32), following, shares.astype(np.int32))


def new_mind(symbols: Symbols) -> Mind:
    """A mind that has learnt nothing, with room in proportion to the text, within bounds."""
    bits = min(max(len(symbols).bit_length() + 1, 16), 22)
    zeros, ones, _ = np.array(states()[0], np.int64).T
    chances = ((2 * ones + 1) << 20) // (2 * (zeros + ones) + 2) << 10
    doubt = (1 << 20) // (np.arange(32) + 2)
    matched = np.stack([doubt, (1 << 20) - doubt], 1) << 10
    steps = fixed_tables().squash[:: 2 * SQUASHED // (STEPS - 1)].astype(np.uint16)
    now = np.zeros(12, np.int64)
    now[HIGH] = WIDE
    return Mind(
        symbols=symbols,
        slots=np.zeros(SLOT << bits, np.uint8),
        seen=np.zeros(1 << min(bits, 20), np.int32),
        chances=np.tile(chances.astype(np.int32), (CONTEXTS, 1)),
        alone=np.full(256, 1 << 15, np.uint16),
        matched=matched.astype(np.int32),
        weights=np.full((256 + CONFIDENCES, INPUTS), FIRST_WEIGHT, np.int32),
        stages=np.tile(steps, (2, STAGE_CONTEXTS, 1)),
        now=now,
        hashes=np.zeros((2, CONTEXTS), np.int64),
        states=np.zeros(CONTEXTS, np.int64),
        inputs=np.zeros(INPUTS, np.int32),
    )


# ----------------------------------------------------------------------------------------------------------- loop


@jit
def _code(reading: bool, bit: int, chance: int, now: Longs, body: Bytes) -> int:
    """Write or read a decision that is 1 with `chance`, in 2**-16, never 0 nor 1: carryless, 32 bits.

    Both ends of the interval differ in their first byte, so both parts of it hold a number. Past the end of a body
    zeros are read; whoever reads finds the place beyond the end.
    """
    low, high = now[LOW], now[HIGH]
    span = high - low
    middle = low + (span >> 16) * chance + (((span & 0xFFFF) * chance) >> 16)
    if reading:
        bit = 1 if now[CODE] <= middle else 0
    if bit == 1:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> 24 == 0:
        at = now[AT]
        if reading:
            more = int(np.int64(body[at])) if at < body.shape[0] else NONE
            now[CODE] = ((now[CODE] << 8) & WIDE) | more
        else:
            body[at] = high >> 24
        now[AT] = at + 1
        low = (low << 8) & WIDE
        high = ((high << 8) & WIDE) | 255
    now[LOW], now[HIGH] = low, high
    return bit


@jit
def _learnt(chance: int, bit: int, fixed: Fixed) -> int:
    """A chance, and how often it was asked, after it was asked once more."""
    asked = chance & ASKED_MAX
    p = chance >> 10
    p += (((bit << 20) - p) * int(fixed.shares[asked])) >> 16
    return (p << 10) | min(asked + 1, ASKED_MAX)


@jit
def _decide(
    reading: bool, symbol: int, left: int, place: int, node: int, mind: Mind, fixed: Fixed, body: Bytes
) -> int:  # fmt: skip
    """Write or read bit `left` of a symbol, and learn from it.

    `place` is its number among all decisions of a symbol, `node` among those of the slots. Weights are kept
    to 32 bits, in which honest texts have much room; a weighted sum is below 2**31 * 12 inputs of 2815 * 2 sets: 2**48.
    """
    bit = (symbol >> left) & 1
    now, inputs, weights, slots = mind.now, mind.inputs, mind.weights, mind.slots
    known = NONE
    for i in range(CONTEXTS):
        state = int(np.int64(slots[mind.hashes[1, i] + node]))
        mind.states[i] = state
        inputs[i] = fixed.stretch[int(mind.chances[i, state]) >> 18]
        known += min(state, 1)
    alone = int(np.int64(mind.alone[place]))
    inputs[CONTEXTS] = fixed.stretch[alone >> 4]
    length, expected, row = now[LENGTH], NONE, NONE
    inputs[CONTEXTS + 1] = 0
    inputs[CONTEXTS + 2] = 0
    if length > 0:
        coming = int(mind.symbols[now[MATCH]])
        expected = (coming >> left) & 1  # the bits before it agree, or the match would be over
        row = length if length < 16 else min(16 + ((length - 16) >> 2), 31)
        chance = int(mind.matched[row, expected]) >> 14
        inputs[CONTEXTS + 1] = fixed.stretch[chance >> 4]
        inputs[CONTEXTS + 2] = (chance - (1 << 15)) >> 5
    inputs[CONTEXTS + 3] = 256

    trust = 256 + known + 16 * (0 if length == 0 else 1 if length < 16 else 2 if length < 32 else 3)
    total = NONE
    for i in range(INPUTS):
        total += int(inputs[i]) * (int(weights[place, i]) + int(weights[trust, i]))
    x = min(max(total >> 16, -STRETCHED), STRETCHED) + SQUASHED
    mixed = int(fixed.squash[x])
    step, part = x >> 8, x & 255
    last = now[HISTORY] & 0xFF
    one = (last << 8) | place
    two = mingled(now[HISTORY] & 0xFFFF, place) & (STAGE_CONTEXTS - 1)
    stages = mind.stages
    first = (
        int(np.int64(stages[0, one, step])) * (256 - part) + int(np.int64(stages[0, one, step + 1])) * part
    ) >> 8
    second = (
        int(np.int64(stages[1, two, step])) * (256 - part) + int(np.int64(stages[1, two, step + 1])) * part
    ) >> 8
    bit = _code(reading, bit, min(max((mixed + first + 2 * second + 2) >> 2, 1), 65535), now, body)

    error = (bit << 16) - mixed
    for i in range(INPUTS):
        change = (int(inputs[i]) * error + (1 << (RATE_BITS - 1))) >> RATE_BITS
        weights[place, i] = int(weights[place, i]) + change
        weights[trust, i] = int(weights[trust, i]) + change
    for i in range(CONTEXTS):
        state, at = mind.states[i], mind.hashes[1, i] + node
        mind.chances[i, state] = _learnt(int(mind.chances[i, state]), bit, fixed)
        slots[at] = fixed.following[int(np.int64(slots[at])), bit]
    target = 65535 * bit
    mind.alone[place] = alone + ((target - alone) >> 5)
    if length > 0:
        mind.matched[row, expected] = _learnt(int(mind.matched[row, expected]), bit, fixed)
        if expected != bit:
            now[LENGTH] = 0
    near = step + (part >> 7)
    was = int(np.int64(stages[0, one, near]))
    stages[0, one, near] = was + ((target - was) >> 5)
    was = int(np.int64(stages[1, two, near]))
    stages[1, two, near] = was + ((target - was) >> 5)
    return bit


@jit
def walk(reading: bool, first: int, stop: int, mind: Mind, fixed: Fixed, body: Bytes) -> int:
    """Write symbols `first` to `stop` to `body`, or read them from it; `stop`, or the one that there is no room for."""
    symbols, now = mind.symbols, mind.now
    room = body.shape[0] if reading else body.shape[0] - 64
    if reading and first == 0:
        for k in range(4):
            now[CODE] = (now[CODE] << 8) | int(np.int64(body[k]))
        now[AT] = 4
    for k in range(first, stop):
        symbol = NONE if reading else int(symbols[k])
        look_around(mind)
        byte, node = ONE, ONE
        for left in range(7, -1, -1):
            if left & 3 == 3:  # the first or the fifth
                find_slots(mind, byte)
                node = ONE
            bit = _decide(reading, symbol, left, byte, node, mind, fixed, body)
            byte, node = 2 * byte + bit, 2 * node + bit
        if byte == END:  # all bits 0: a byte 0, or the end of a value
            find_slots(mind, byte)
            byte += _decide(reading, symbol, 8, 0, 1, mind, fixed, body) << 8
        if reading:
            symbols[k] = byte - 256
        if now[AT] > room:
            return k
        move_on(mind, k)
    return stop


# ------------------------------------------------------------------------------------------------------ interface


def justified(length: int) -> int:
    """Symbols that so many bytes of a body may become: reading takes one or two microseconds for each.

    >>> justified(4), justified(1 << 20)
    (262208, 17039360)
    """
    return (1 << 18) + 16 * length


def _walked(reading: bool, mind: Mind, body: Bytes) -> int:
    """`walk` over all symbols, piece by piece."""
    count = len(mind.symbols)
    for first in range(0, count, PIECE):
        stop = min(count, first + PIECE)
        # of one type each time: numba compiles a loop anew for another
        first_, stop_ = cast(int, np.int64(first)), cast(int, np.int64(stop))
        reached = walk(reading, first_, stop_, mind, fixed_tables(), body)
        if reached < stop:
            return reached
    return count


def mix(symbols: Symbols) -> bytes | None:
    """The symbols as bytes; None if they would be as many as the symbols, or so few that a reader refuses them.

    None, too, if there are more symbols than a mixed text may have.

    >>> unmix(mix(np.array([97, 98, 256] * 9, np.int16)), 27).tolist() == [97, 98, 256] * 9
    True
    """
    if len(symbols) >= TOO_MANY:
        return None
    body = np.empty(len(symbols) + 64, np.uint8)
    mind = new_mind(symbols)
    if _walked(False, mind, body) < len(symbols):
        return None
    low, at = int(mind.now[LOW]), int(mind.now[AT])
    packed = body[:at].tobytes() + low.to_bytes(4, "big")
    return packed if len(symbols) <= justified(len(packed)) else None


def unmix(body: bytes | memoryview, count: int) -> Symbols:
    """The inverse of `mix`, of so many symbols; DamagedError if the body is not that of as many."""
    if len(body) < 4 or count > justified(len(body)):
        raise DamagedError(f"{count} symbols announced, which {len(body)} mixed bytes do not justify")
    if count >= TOO_MANY:
        raise DamagedError(f"{count} symbols announced, more than a mixed text may have")
    mind = new_mind(np.zeros(count, np.int16))
    whole = _walked(True, mind, np.array(np.frombuffer(body, np.uint8)))
    if whole < count or mind.now[AT] != len(body) or mind.now[CODE] != mind.now[LOW]:
        raise DamagedError("a mixed text does not end where it should")
    return mind.symbols
