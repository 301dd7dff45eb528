"""Symbols <-> words: a range variant of asymmetric numeral systems (rANS; Duda 2013), in integers only.

State x in [2**31, 2**63), words of 32 bits, probabilities in units of 2**-28. Everything fits int64, which every
machine computes alike; nothing here is a float. The tables are made from big integers, so that no mathematical
library decides a bit of them.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import cache
from math import isqrt

import numpy as np
import numpy.typing as npt

from vae.codec.jit import jit

Longs = npt.NDArray[np.int64]
Short = npt.NDArray[np.int32]
"""Tables that are looked into all the time: half the room in the processor's cache."""

PRECISION = 28
"""Bits of a probability."""
TOTAL = 1 << PRECISION
STATE_LOW = 1 << 31
"""Smallest state, and the one a stream begins and must end with."""
EXP_STEPS = 256
"""Steps a nat in the table of exp; also the resolution of all outputs of the network."""
EXP_RANGE = 16 * EXP_STEPS
SIGMOID_STEPS = 128
SIGMOID_RANGE = 16
UNIT = 256
"""Fixed-point one of activations, logits, offsets and log2 scales."""


@cache
def exp_table() -> Short:
    """round(2**24 * exp(-i / 256)) for i in 0 .. 4095.

    >>> exp_table()[[0, 256, 4095]].tolist()
    [16777216, 6171993, 2]
    """
    return np.array([(p + (1 << 175)) >> 176 for p in _exp_powers(EXP_STEPS, EXP_RANGE)], np.int32)


@cache
def sigmoid_table() -> Short:
    """round(2**30 / (1 + exp(-t))) for t = -16 .. 16 in steps of 1/128, with 0 and 2**30 at the ends.

    >>> sigmoid_table()[[0, 2048, 4096]].tolist()
    [0, 536870912, 1073741824]
    """
    one = 1 << 200
    powers = _exp_powers(SIGMOID_STEPS, SIGMOID_RANGE * SIGMOID_STEPS + 1)
    upper = [((1 << 31) * one + one + p) // (2 * (one + p)) for p in powers]
    lower = [(1 << 30) - u for u in upper[:0:-1]]
    table = np.array(lower + upper, np.int32)
    table[0], table[-1] = 0, 1 << 30
    return table


@cache
def scale_table() -> Longs:
    """round(2**15 * 2**(-i / 256)) for i in 0 .. 255: mantissas of inverse scales."""
    root = 2 << 512
    for _ in range(8):
        root = isqrt(root << 512)  # after eight roots: 2**(1/256) in units of 2**-512
    inverse, power, table = (1 << 1024) // root, 1 << 512, list[int]()
    for _ in range(256):
        table.append((power + (1 << 496)) >> 497)
        power = (power * inverse) >> 512
    return np.array(table, np.int64)


@cache
def squash_table() -> Longs:
    """round(8 * log2(1 + d)) for d in 0 .. 1023, found by comparing integer powers.

    >>> squash_table()[[0, 1, 2, 3, 1023]].tolist()
    [0, 8, 13, 16, 80]
    """
    table, m = list[int](), 0
    for d in range(1024):
        while (1 + d) ** 16 >= 2 ** (2 * m + 1):
            m += 1
        table.append(m)
    return np.array(table, np.int64)


def _exp_powers(steps: int, count: int) -> list[int]:
    """2**200 * exp(-i / steps) for i < count."""
    # a context of its own: the caller's may trap what is inexact, or round another way
    with localcontext(Context(prec=90, rounding=ROUND_HALF_EVEN, traps=[])):
        ratio = int((Decimal(-1) / steps).exp() * (1 << 260))
    powers, power = list[int](), 1 << 200
    for _ in range(count):
        powers.append(power)
        power = (power * ratio) >> 260
    return powers


@jit
def encode_ops(starts: Longs, widths: Longs, words: npt.NDArray[np.uint32]) -> int:
    """Write the intervals [start, start + width) of a stream, last first, to the end of `words`.

    0 <= start, 1 <= width < 2**28, start + width <= 2**28; `words` has room for a word an interval and two more.
    Returns the index of the first word used; the stream is `words[index:]`, its first two words the state.

    No step leaves 63 bits: width << 35 < 2**63; below it, x // width < 2**35, so the new state stays below 2**63; and
    where a word was written, x // width >= 8, so the new state is at least 2**31 and one word is always enough.
    """
    x = np.int64(STATE_LOW)
    position = words.shape[0]
    for k in range(starts.shape[0] - 1, -1, -1):
        width = widths[k]
        if x >= (width << (63 - PRECISION)):
            position -= 1
            words[position] = x & 0xFFFFFFFF
            x = x >> 32
        x = ((x // width) << PRECISION) + (x % width) + starts[k]
    words[position - 1] = x & 0xFFFFFFFF
    words[position - 2] = x >> 32
    return position - 2
