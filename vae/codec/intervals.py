"""What the network's outputs say of one symbol, as an interval of the entropy coder: for writing and for reading.

Outputs (logits, offsets, log2 scales, in units of 1/256) are sums below 2**31 shifted right by at least 4: below 2**28.
Tables and counts are int32, all that is made of them is int64, and every product says why it stays below 2**63.
Probabilities are in units of 2**-28, none is 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae.codec import counts
from vae.codec.counts import Memory, count_below, find_home, find_member
from vae.codec.entropy import EXP_RANGE, PRECISION, SIGMOID_RANGE, STATE_LOW, TOTAL, Short
from vae.codec.frontend import (
    CENTER,
    COMPONENTS,
    CONTEXTS,
    HIGH,
    LOW,
    NULL,
    P1,
    P2,
    PREDICTED,
    RECALLED,
    STATES,
    TABLES,
    UNIT,
    Front,
)
from vae.codec.jit import NONE, ONE, jit

Longs = npt.NDArray[np.int64]

OFFSET_MAX = 1 << 20
SCALE_LOW, SCALE_HIGH = -5 * 256, 20 * 256
UNSEEN = -8 * 256
"""Logit of a state that no training row held, in a block that holds it; VALUE has logit 0."""
T_MAX = SIGMOID_RANGE << 17


class Tables(NamedTuple):
    """The tables of `vae.codec.entropy`."""

    exp: Short
    sigmoid: Short
    scale: Longs


class Tape(NamedTuple):
    """The intervals of one block as they are written: stream s holds `starts[offsets[s]:][:used[s]]`."""

    starts: Longs
    widths: Longs
    offsets: Longs
    used: Longs


class Streams(NamedTuple):
    """The words of one block as they are read: stream s is `words[position[s]:end[s]]` in state `state[s]`."""

    words: npt.NDArray[np.uint32]
    state: Longs
    position: Longs
    end: Longs


@jit
def put(tape: Tape, stream: int, start: int, width: int) -> None:
    """Note the interval for `encode_ops`."""
    if width == TOTAL:  # certain: costs nothing, and its bound in `encode_ops` would not fit 63 bits
        return
    at = tape.offsets[stream] + tape.used[stream]
    tape.starts[at] = start
    tape.widths[at] = width
    tape.used[stream] += 1


@jit
def take(streams: Streams, stream: int, start: int, width: int) -> None:
    """Leave the interval that the state was found in; a stream that runs dry is left with a state of 0.

    A state is below 2**63, so the product is below width * 2**35 <= 2**63 (of width 2**28 it is the state again). It
    is at least 2**31, so at least 8 is left, and with the next word at least 2**35. A dry stream finds target 0,
    which every first interval holds, and stays dry.
    """
    state = streams.state[stream]
    state = width * (state >> PRECISION) + (state & (TOTAL - 1)) - start
    if state < STATE_LOW:
        at = streams.position[stream]
        if at >= streams.end[stream]:
            streams.state[stream] = 0
            streams.position[stream] = streams.end[stream] + 1
            return
        state = (state << 32) | np.int64(streams.words[at])
        streams.position[stream] = at + 1
    streams.state[stream] = state


@jit
def code_half(reading: bool, second: bool, a: int, b: int, tape: Tape, streams: Streams, s: int) -> bool:
    """Write or read whether it is the second of two halves, which are as likely as `a` is to `b`; each at least 2**-28.

    a and b are at least 1 and sum to at most 2**40. Where that is 2**34 or more, 6 bits are lost: then a is below
    2**35, and times TOTAL below 2**63.
    """
    if a + b >= np.int64(1) << 34:
        a, b = a >> 6, b >> 6
    width = 1 + a * (TOTAL - 2) // (a + b)
    if reading:
        second = (streams.state[s] & (TOTAL - 1)) >= width
    start, width = (width, TOTAL - width) if second else (NONE, width)
    if reading:
        take(streams, s, start, width)
    else:
        put(tape, s, start, width)
    return second


@jit
def code_class(
    reading: bool,
    chosen: int,
    logits: Longs,
    count: int,
    exp: Short,
    sums: Longs,
    tape: Tape,
    streams: Streams,
    s: int,
) -> int:
    """Write or read one of `count` classes with probabilities softmax(logits); each at least 2**-28.

    exp is at most 2**24, count at most 131: sums stay below 2**32, times `room` below 2**60; the top class alone gives
    2**24, so no division by zero.
    """
    top = logits[0]
    for k in range(1, count):
        top = max(top, logits[k])
    total = 0
    for k in range(count):
        total += int(exp[min(top - logits[k], EXP_RANGE - 1)])
        sums[k] = total
    room = TOTAL - count
    if reading:
        target = streams.state[s] & (TOTAL - 1)
        chosen = 0
        # while the interval ends at or below the target: sums * room // total + chosen + 1 <= target, undivided
        while chosen < count - 1 and sums[chosen] * room < (target - chosen) * total:
            chosen += 1
    start = 0
    if chosen > 0:
        start = sums[chosen - 1] * room // total + chosen
    stop = sums[chosen] * room // total + chosen + 1
    if reading:
        take(streams, s, start, stop - start)
    else:
        put(tape, s, start, stop - start)
    return chosen


@jit
def edge(k: int, count: int, share: Longs, mean: Longs, mantissa: Longs, shift: Longs, sigmoid: Short) -> int:
    """Mass of the mixture below the lower edge of symbol k, in units of 2**-28 of the room; it never falls with k.

    k and the mean lie within three spans of each other, at most 2**22 symbols: 2**30 times a mantissa of 2**15. The
    shares sum to at most 2**28, times a table of at most 2**30.
    """
    total = 0
    for c in range(count):
        t = (((k << 8) - 128 - mean[c]) * mantissa[c]) >> shift[c]
        t = min(max(t, -T_MAX), T_MAX) + T_MAX
        at = t >> 10
        value = int(sigmoid[at])
        if at < sigmoid.shape[0] - 1:
            value += ((int(sigmoid[at + 1]) - value) * (t & 1023)) >> 10
        total += share[c] * value
    return total >> 30


@jit
def set_mixture(
    j: int, share_shift: int, out: Longs, front: Front, row: Longs, tables: Tables, work: Longs
) -> int:
    """Shares, means and inverse scales of a mixture's components, for `edge`: into `work`; the symbol to look at first.

    Offsets are at most 2**20 << 20, bases below 2**33 << 8, shares 2**24 * 2**28; shifts lie between 1 and 26.
    """
    items = front.items
    count, low, high = items[j, COMPONENTS], items[j, LOW], items[j, HIGH]
    first = items[j, STATES]
    span = high - low + 1
    room = TOTAL - span
    share, mean, mantissa, shift = work[0], work[1], work[2], work[3]
    top = out[first]
    for c in range(1, count):
        top = max(top, out[first + c])
    total = 0
    for c in range(count):
        share[c] = tables.exp[min(top - out[first + c], EXP_RANGE - 1)] >> share_shift
        total += share[c]
    best = 0
    for c in range(count):
        if share[c] > share[best]:
            best = c
    for c in range(count):
        share[c] = share[c] * room // total
        base = items[j, CENTER]
        kind = front.components[j, c]
        if kind == 1:
            base = row[j, P1]
        elif kind == 2:
            base = min(max(2 * row[j, P1] - row[j, P2], low), high)
        elif kind == 3:
            base = row[j, PREDICTED]
        elif kind == 4:
            base = row[j, RECALLED]
        offset = min(max(out[first + count + c], -OFFSET_MAX), OFFSET_MAX) << items[j, UNIT]
        mean[c] = min(max((base << 8) + offset, (low - span) << 8), (high + span) << 8)
        log_scale = min(max(out[first + 2 * count + c], SCALE_LOW), SCALE_HIGH)
        mantissa[c] = tables.scale[log_scale & 255]
        shift[c] = 6 + (log_scale >> 8)
    return int(min(max((mean[best] + 128) >> 8, low), high))


@jit
def code_mixture(
    reading: bool, chosen: int, j: int, share_shift: int, out: Longs, front: Front, row: Longs, tables: Tables,
    work: Longs, tape: Tape, streams: Streams, s: int,
) -> int:  # fmt: skip
    """Write or read a number under a mixture of discretised logistics (Salimans et al. 2017), in integers."""
    count, low, high = front.items[j, COMPONENTS], front.items[j, LOW], front.items[j, HIGH]
    share, mean, mantissa, shift = work[0], work[1], work[2], work[3]
    below = set_mixture(j, share_shift, out, front, row, tables, work)
    if reading:
        target = streams.state[s] & (TOTAL - 1)
        # gallop from the mode to a bracket: start(below) <= target < start(above)
        above = below + 1
        stride = 1
        while (
            below > low
            and edge(below, count, share, mean, mantissa, shift, tables.sigmoid) + below - low > target
        ):
            above = below
            below = max(below - stride, low)
            stride *= 2
        stride = 1
        while (
            above <= high
            and edge(above, count, share, mean, mantissa, shift, tables.sigmoid) + above - low <= target
        ):
            below = above
            above = min(above + stride, high + 1)
            stride *= 2
        while above - below > 1:
            middle = (above + below) >> 1
            if edge(middle, count, share, mean, mantissa, shift, tables.sigmoid) + middle - low <= target:
                below = middle
            else:
                above = middle
        chosen = below
    start, stop = 0, TOTAL
    if chosen > low:
        start = edge(chosen, count, share, mean, mantissa, shift, tables.sigmoid) + chosen - low
    if chosen < high:
        stop = edge(chosen + 1, count, share, mean, mantissa, shift, tables.sigmoid) + chosen + 1 - low
    if reading:
        take(streams, s, start, stop - start)
    else:
        put(tape, s, start, stop - start)
    return chosen


@jit
def memory_class(j: int, value: int, front: Front, memory: Memory) -> int:
    """The first context of column j that has seen `value`; the number of contexts if none has."""
    contexts = front.items[j, CONTEXTS]
    for e in range(contexts):
        table, slot = memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e]
        if memory.homes[table, find_home(memory, table, slot, value)] != 0:
            return e
    return contexts


@jit
def code_memory(
    reading: bool, chosen: int, j: int, out: Longs, front: Front, memory: Memory, exp: Short, sums: Longs, work: Longs,
    tape: Tape, streams: Streams, s: int,
) -> int:  # fmt: skip
    """Write or read an identifier: which context knows it, then which of its members by count; or literally.

    Counts and spans are at most 2**28 (a block has fewer rows, a column fewer symbols), times TOTAL below 2**57.
    """
    items = front.items
    contexts, low = items[j, CONTEXTS], items[j, LOW]
    span = items[j, HIGH] - low + 1
    logits, which = work[4], work[5]
    open_classes, mine = NONE, NONE
    chosen_class = NONE if reading else memory_class(j, chosen, front, memory)
    for e in range(contexts + 1):
        if (
            e == contexts
            or memory.entries[memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e], counts.TOTAL] > 0
        ):
            logits[open_classes] = out[items[j, STATES] + e]
            which[open_classes] = e
            if e == chosen_class:
                mine = open_classes
            open_classes += 1
    if open_classes > 1:
        mine = code_class(reading, mine, logits, open_classes, exp, sums, tape, streams, s)
    e = which[mine]
    target = streams.state[s] & (TOTAL - 1)
    if e == contexts:
        if reading:
            chosen = low + ((target * span) >> PRECISION)
        k = chosen - low
        start, stop = (k * TOTAL + span - 1) // span, ((k + 1) * TOTAL + span - 1) // span
    else:
        table, slot = memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e]
        total = int(memory.entries[table, slot, counts.TOTAL])
        if reading:
            node, below = find_member(memory, table, slot, target)
        else:
            node = memory.homes[table, find_home(memory, table, slot, chosen)]
            below = count_below(memory, table, slot, node)
        chosen = int(memory.nodes[table, node, counts.VALUE])
        above = below + int(memory.nodes[table, node, counts.COUNT])
        start, stop = below * TOTAL // total, above * TOTAL // total
    if reading:
        take(streams, s, start, stop - start)
    else:
        put(tape, s, start, stop - start)
    return chosen


@jit
def code_state(
    reading: bool, state: int, j: int, out: Longs, unseen: bool, front: Front, exp: Short, sums: Longs, work: Longs,
    tape: Tape, streams: Streams, s: int,
) -> int:  # fmt: skip
    """Write or read whether the cell holds a value, a null, a NaN or an escape."""
    logits, which = work[4], work[5]
    logits[0], which[0] = 0, 0
    count, mine = ONE, NONE
    for k in range(3):
        output = front.items[j, NULL + k]
        if output >= 0 or unseen:
            logits[count] = out[output] if output >= 0 else UNSEEN
            which[count] = k + 1
            if state == k + 1:
                mine = count
            count += 1
    if count == 1:
        return 0
    return which[code_class(reading, mine, logits, count, exp, sums, tape, streams, s)]
