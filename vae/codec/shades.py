"""The last bits of a symbol, one by one, each beside how often its image has had what they choose between.

Images have few shades of their own: MNIST's have a white each, and greys that come back (`vae/codec/NOTES.md`). For
writing, for reading and for learning the factors by which counts weigh.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vae.codec.entropy import TOTAL
from vae.codec.intervals import Longs, Streams, Tables, Tape, code_half, edge, put, take
from vae.codec.jit import ONE, jit

Bytes = npt.NDArray[np.uint8]

OFTEN = (1, 2, 3, 4, 5, 7, 10, 15, 25, 50, 128)
"""Counts from which on a symbol, or a group of symbols, has been seen more often: each begins a class."""
FACTOR_BITS = 12
"""Counts make a half at most 2**12 times as likely as other counts."""


def classes_of_counts() -> Longs:
    """The class of each count up to the last that begins one.

    >>> classes_of_counts()[[0, 1, 6, 7, 128]].tolist()
    [0, 1, 5, 6, 11]
    """
    return np.searchsorted(OFTEN, np.arange(OFTEN[-1] + 1), side="right").astype(np.int64)


def new_counts(channels: int, counted: int, levels: int) -> Longs:
    """Room for how often an image has had each symbol, each pair of them, each four, and so on.

    (channels, counted bits, symbols and one beside the last).
    """
    return np.zeros((channels, counted, levels + 1), np.int64)


@jit
def _below(k: int, top: int, components: int, work: Longs, tables: Tables) -> int:
    """What of `TOTAL` lies below symbol k, 0 to top + 1: each symbol has at least 1."""
    if k <= 0:
        return 0
    if k > top:
        return TOTAL
    return edge(k, components, work[0], work[1], work[2], work[3], tables.sigmoid) + k


@jit
def _group_of(
    target: int, low: int, size: int, top: int, components: int, work: Longs, tables: Tables
) -> int:
    """The first symbol of the group of `size` that holds the target; looked for from the group that begins at `low`."""
    high, stride = low + size, size
    while _below(low, top, components, work, tables) > target:
        high, low = low, max(low - stride, 0)
        stride *= 2
    stride = size
    while _below(high, top, components, work, tables) <= target:
        low, high = high, high + stride
        stride *= 2
    while high - low > size:
        middle = low + ((high - low) // size + 1) // 2 * size
        if _below(middle, top, components, work, tables) <= target:
            low = middle
        else:
            high = middle
    return int(low)


@jit
def code_counted(
    reading: bool, chosen: int, c: int, first: int, top: int, components: int, factors: Longs, often: Longs,
    counts: Longs, work: Longs, tables: Tables, tape: Tape, streams: Streams,
) -> int:  # fmt: skip
    """Write or read a symbol of channel c under the mixture in `work`: its group, then its last bits one by one.

    Of two halves, of so many parts by the mixture, one is likelier by what the image has had of each: the parts, below
    2**28, are multiplied by factors of at most 2**FACTOR_BITS. The group of `first` is the first to look at. factors:
    (channels, counted bits, classes of counts), often: `classes_of_counts`, counts: `new_counts`.
    """
    bits = factors.shape[1]
    size = int(np.int64(1) << bits)
    low = ((first if reading else chosen) >> bits) << bits
    if reading:
        low = _group_of(streams.state[ONE] & (TOTAL - 1), low, size, top, components, work, tables)
    start, stop = (
        _below(low, top, components, work, tables),
        _below(low + size, top, components, work, tables),
    )
    if reading:
        take(streams, ONE, start, stop - start)
    else:
        put(tape, ONE, start, stop - start)
    for bit in range(bits - 1, -1, -1):
        middle = low + int(np.int64(1) << bit)
        if middle > top:
            continue  # there is but one half
        between = _below(middle, top, components, work, tables)
        a = (between - start) * factors[c, bit, often[min(counts[c, bit, low >> bit], OFTEN[-1])]]
        b = (stop - between) * factors[c, bit, often[min(counts[c, bit, middle >> bit], OFTEN[-1])]]
        if code_half(reading, chosen >= middle, a, b, tape, streams, ONE):
            low, start = middle, between
        else:
            stop = between
    for bit in range(bits):
        counts[c, bit, low >> bit] += 1
    return int(low)


@jit
def seen_before(images: Bytes, channels: int, counts: Longs, often: Longs, classes: Bytes) -> None:
    """What `code_counted` finds counted: images (rows, values) -> classes (rows, values, counted bits, 2).

    The last axis: the class of the half that holds the symbol, then that of the other. counts: room for those of one
    image, as a desk has.
    """
    bits = counts.shape[1]
    for t in range(images.shape[0]):
        counts[:] = 0
        for at in range(images.shape[1]):
            c, value = at % channels, np.int64(images[t, at])
            for bit in range(bits):
                own = value >> bit
                classes[t, at, bit, 0] = often[min(counts[c, bit, own], OFTEN[-1])]
                classes[t, at, bit, 1] = often[min(counts[c, bit, own ^ 1], OFTEN[-1])]
                counts[c, bit, own] += 1
