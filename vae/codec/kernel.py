"""The integer model at work: one loop over rows, latents and columns, the same for writing and reading.

Activations, logits, offsets and log2 scales are integers in units of 1/256; features in units of 1/32; weights in
units of 2**-fraction. `Weights` come proved: no sum leaves 31 bits (`vae.codec.integer`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae.codec.entropy import EXP_RANGE, PRECISION, SIGMOID_RANGE, STATE_LOW, TOTAL
from vae.codec.frontend import (
    BEFORE,
    AFTER,
    CENTER,
    COMPONENTS,
    CONTEXTS,
    ESCAPE,
    FEATURE_ONE,
    HEAD,
    HEAD_ROW,
    HIGH,
    LOW,
    NAN,
    NULL,
    OUTPUTS,
    P1,
    P2,
    PREDICTED,
    RECALLED,
    STATE,
    STATES,
    TABLES,
    UNIT,
    VALUE,
    Front,
    Memory,
    end_row,
    look_after,
    look_before,
    remember,
)
from vae.codec.jit import COMPILED, jit
from vae.codec.plan import MAX_CONTEXTS

Longs = npt.NDArray[np.int64]
Weight = npt.NDArray[np.int32]

ACTIVATION_MAX = 8 * 256
OFFSET_MAX = 1 << 20
SCALE_LOW, SCALE_HIGH = -5 * 256, 20 * 256
UNSEEN = -8 * 256
"""Logit of a state that no training row held, in a block that holds it; VALUE has logit 0."""
T_MAX = SIGMOID_RANGE << 17


class Weights(NamedTuple):
    """Weights of the integer model, padded to rectangles; shapes beside `Plan.shapes`."""

    fraction: int
    reach: int
    prior_before: Weight
    prior_after: Weight
    prior_bias: Weight
    prior_head: Weight
    prior_head_bias: Weight
    code_after: Weight
    before: Weight
    after: Weight
    embedding: Weight
    bias: Weight
    hidden: Weight
    hidden_bias: Weight
    head: Weight
    head_bias: Weight


class Tables(NamedTuple):
    """The tables of `vae.codec.entropy`."""

    exp: Longs
    sigmoid: Longs
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
def _add_rows(total: Longs, weights: Weight, features: Longs, count: int) -> None:
    """total += features[:count] @ weights[:count]."""
    for k in range(count):
        feature = features[k]
        if feature != 0:
            for i in range(total.shape[0]):
                total[i] += feature * weights[k, i]


@jit
def _add(total: Longs, weights: Weight, shift: int) -> None:
    for i in range(total.shape[0]):
        total[i] += np.int64(weights[i]) << shift


@jit
def _activate(total: Longs, bias: Weight, bias_shift: int, shift: int, out: Longs) -> None:
    """out = the activation min(max(x, 0), 8) of total + bias, in units of 1/256."""
    half = np.int64(1) << (shift - 1)
    for i in range(out.shape[0]):
        x = (total[i] + (np.int64(bias[i]) << bias_shift) + half) >> shift
        out[i] = min(max(x, 0), ACTIVATION_MAX)


@jit
def _product_loop(matrix: Weight, vector: Longs, rows: int, out: Longs) -> None:
    for r in range(rows):
        total = np.int64(0)
        for i in range(vector.shape[0]):
            total += matrix[r, i] * vector[i]
        out[r] = total


def _product_numpy(matrix: Weight, vector: Longs, rows: int, out: Longs) -> None:
    out[:rows] = matrix[:rows].astype(np.int64) @ vector


_product = _product_loop if COMPILED else _product_numpy
"""out[:rows] = matrix[:rows] @ vector: integers, so both give the same sums."""


@jit
def _put(tape: Tape, stream: int, start: int, width: int) -> None:
    if width == TOTAL:  # certain: costs nothing, and its bound in `encode_ops` would not fit 63 bits
        return
    at = tape.offsets[stream] + tape.used[stream]
    tape.starts[at] = start
    tape.widths[at] = width
    tape.used[stream] += 1


@jit
def _take(streams: Streams, stream: int, start: int, width: int) -> None:
    """Leave the interval that the state was found in; a stream that runs dry is left with a state of 0."""
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
def _code_class(
    reading: bool,
    chosen: int,
    logits: Longs,
    count: int,
    exp: Longs,
    sums: Longs,
    tape: Tape,
    streams: Streams,
    s: int,
) -> int:
    """Write or read one of `count` classes with probabilities softmax(logits); each at least 2**-28."""
    top = logits[0]
    for k in range(1, count):
        top = max(top, logits[k])
    total = np.int64(0)
    for k in range(count):
        total += exp[min(top - logits[k], EXP_RANGE - 1)]
        sums[k] = total
    room = TOTAL - count
    if reading:
        target = streams.state[s] & (TOTAL - 1)
        chosen = 0
        while chosen < count - 1 and sums[chosen] * room // total + chosen + 1 <= target:
            chosen += 1
    start = np.int64(0)
    if chosen > 0:
        start = sums[chosen - 1] * room // total + chosen
    stop = sums[chosen] * room // total + chosen + 1
    if reading:
        _take(streams, s, start, stop - start)
    else:
        _put(tape, s, start, stop - start)
    return chosen


@jit
def _edge(
    k: int, count: int, share: Longs, mean: Longs, mantissa: Longs, shift: Longs, sigmoid: Longs
) -> int:
    """Mass of the mixture below the lower edge of symbol k, in units of 2**-28 of the room."""
    total = np.int64(0)
    for c in range(count):
        t = (((k << 8) - 128 - mean[c]) * mantissa[c]) >> shift[c]
        t = min(max(t, -T_MAX), T_MAX) + T_MAX
        at = t >> 10
        value = sigmoid[at]
        if at < sigmoid.shape[0] - 1:
            value += ((sigmoid[at + 1] - value) * (t & 1023)) >> 10
        total += share[c] * value
    return total >> 30


@jit
def _code_mixture(
    reading: bool, chosen: int, j: int, out: Longs, front: Front, row: Longs, tables: Tables, work: Longs, tape: Tape,
    streams: Streams, s: int,
) -> int:  # fmt: skip
    """Write or read a number under a mixture of discretised logistics (Salimans et al. 2017), in integers."""
    items = front.items
    count, low, high = items[j, COMPONENTS], items[j, LOW], items[j, HIGH]
    first = items[j, STATES]
    span = high - low + 1
    room = TOTAL - span
    share, mean, mantissa, shift = work[0], work[1], work[2], work[3]
    top = out[first]
    for c in range(1, count):
        top = max(top, out[first + c])
    total = np.int64(0)
    for c in range(count):
        share[c] = tables.exp[min(top - out[first + c], EXP_RANGE - 1)] >> 8
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
    if reading:
        target = streams.state[s] & (TOTAL - 1)
        # gallop from the mode to a bracket: start(below) <= target < start(above)
        below = min(max((mean[best] + 128) >> 8, low), high)
        above = below + 1
        stride = 1
        while (
            below > low
            and _edge(below, count, share, mean, mantissa, shift, tables.sigmoid) + below - low > target
        ):
            above = below
            below = max(below - stride, low)
            stride *= 2
        stride = 1
        while (
            above <= high
            and _edge(above, count, share, mean, mantissa, shift, tables.sigmoid) + above - low <= target
        ):
            below = above
            above = min(above + stride, high + 1)
            stride *= 2
        while above - below > 1:
            middle = (above + below) >> 1
            if _edge(middle, count, share, mean, mantissa, shift, tables.sigmoid) + middle - low <= target:
                below = middle
            else:
                above = middle
        chosen = below
    start, stop = np.int64(0), np.int64(TOTAL)
    if chosen > low:
        start = _edge(chosen, count, share, mean, mantissa, shift, tables.sigmoid) + chosen - low
    if chosen < high:
        stop = _edge(chosen + 1, count, share, mean, mantissa, shift, tables.sigmoid) + chosen + 1 - low
    if reading:
        _take(streams, s, start, stop - start)
    else:
        _put(tape, s, start, stop - start)
    return chosen


@jit
def memory_class(j: int, value: int, front: Front, memory: Memory) -> int:
    """The first context of column j that has seen `value`; the number of contexts if none has."""
    contexts = front.items[j, CONTEXTS]
    for e in range(contexts):
        table, slot = memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e]
        node = memory.first[table, slot]
        while node >= 0:
            if memory.values[table, node] == value:
                return e
            node = memory.nexts[table, node]
    return contexts


@jit
def _code_memory(
    reading: bool, chosen: int, j: int, out: Longs, front: Front, memory: Memory, exp: Longs, sums: Longs, work: Longs,
    tape: Tape, streams: Streams, s: int,
) -> int:  # fmt: skip
    """Write or read an identifier: which context knows it, then which of its members by count; or literally."""
    items = front.items
    contexts, low = items[j, CONTEXTS], items[j, LOW]
    span = items[j, HIGH] - low + 1
    logits, which = work[4], work[5]
    open_classes = 0
    mine = 0
    chosen_class = 0 if reading else memory_class(j, chosen, front, memory)
    for e in range(contexts + 1):
        if e == contexts or memory.totals[memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e]] > 0:
            logits[open_classes] = out[items[j, STATES] + e]
            which[open_classes] = e
            if e == chosen_class:
                mine = open_classes
            open_classes += 1
    if open_classes > 1:
        mine = _code_class(reading, mine, logits, open_classes, exp, sums, tape, streams, s)
    e = which[mine]
    target = streams.state[s] & (TOTAL - 1)
    if e == contexts:
        if reading:
            chosen = low + ((target * span) >> PRECISION)
        k = chosen - low
        start, stop = (k * TOTAL + span - 1) // span, ((k + 1) * TOTAL + span - 1) // span
    else:
        table, slot = memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e]
        total = np.int64(memory.totals[table, slot])
        node = memory.first[table, slot]
        below = np.int64(0)
        while True:
            above = below + memory.counts[table, node]
            if reading:
                if memory.nexts[table, node] < 0 or target < above * TOTAL // total:
                    break
            elif memory.values[table, node] == chosen:
                break
            below = above
            node = memory.nexts[table, node]
        chosen = np.int64(memory.values[table, node])
        start, stop = below * TOTAL // total, above * TOTAL // total
    if reading:
        _take(streams, s, start, stop - start)
    else:
        _put(tape, s, start, stop - start)
    return chosen


@jit
def _code_state(
    reading: bool, state: int, j: int, out: Longs, unseen: bool, front: Front, exp: Longs, sums: Longs, work: Longs,
    tape: Tape, streams: Streams, s: int,
) -> int:  # fmt: skip
    """Write or read whether the cell holds a value, a null, a NaN or an escape."""
    logits, which = work[4], work[5]
    logits[0], which[0] = 0, 0
    count, mine = 1, 0
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
    return which[_code_class(reading, mine, logits, count, exp, sums, tape, streams, s)]


@jit
def code_latents(
    reading: bool, t: int, codes: npt.NDArray[np.int8], w: Weights, exp: Longs, features: Longs, sums: Longs,
    prior_total: Longs, total: Longs, hidden: Longs, out: Longs, tape: Tape, streams: Streams,
) -> None:  # fmt: skip
    """The latents of row t: each under a softmax that sees the latents before it and its own previous row."""
    reach = w.reach
    for i in range(codes.shape[1]):
        features[0] = 16 * codes[t - 1, i] if t > 0 else 0
        _add_rows(prior_total, w.prior_before[i], features, 1)
        _activate(prior_total, w.prior_bias[i], 5, w.fraction - 3, hidden)
        _product(w.prior_head[i], hidden, 2 * reach + 1, out)
        half = np.int64(1) << (w.fraction - 1)
        for k in range(2 * reach + 1):
            out[k] = (out[k] + (np.int64(w.prior_head_bias[i, k]) << 8) + half) >> w.fraction
        chosen = 0 if reading else codes[t, i] + reach
        chosen = _code_class(reading, chosen, out, 2 * reach + 1, exp, sums, tape, streams, 0)
        if reading:
            codes[t, i] = chosen - reach
        latent_features(codes[t, i], features)
        _add_rows(prior_total, w.prior_after[i], features, 2)
        _add_rows(total, w.code_after[i], features, 2)


@jit
def latent_features(value: int, features: Longs) -> None:
    """What a latent shows once coded: its value (half a unit a step, clipped) and whether it is present."""
    features[0] = min(max(16 * np.int64(value), -127), 127)
    features[1] = FEATURE_ONE if value != 0 else 0


@jit
def walk(
    reading: bool, upto: int, symbols: Longs, states: npt.NDArray[np.uint8], codes: npt.NDArray[np.int8],
    unseen: npt.NDArray[np.bool_], front: Front, memory: Memory, w: Weights, tables: Tables, tape: Tape, streams: Streams,
) -> None:  # fmt: skip
    """Write (onto `tape`) or read (from `streams`) a block: its latents and its first `upto` columns.

    symbols, states: (rows, columns); codes: (rows, latents); filled when reading. A stream that runs dry reads on as
    zeros, for the caller to find out.
    """
    width, items, row = w.bias.shape[1], front.items, memory.row
    total, prior_total = np.zeros(width, np.int64), np.zeros(w.prior_bias.shape[1], np.int64)
    hidden, second = np.zeros(width, np.int64), np.zeros(width, np.int64)
    prior_hidden = np.zeros(w.prior_bias.shape[1], np.int64)
    features = np.zeros(3 + 3 + 2 * MAX_CONTEXTS + 2, np.int64)
    out, sums, product = np.zeros(128, np.int64), np.zeros(128, np.int64), np.zeros(width, np.int64)
    work = np.zeros((6, 16), np.int64)
    half = np.int64(1) << (w.fraction - 1)
    for t in range(symbols.shape[0]):
        total[:] = 0
        prior_total[:] = 0
        code_latents(
            reading,
            t,
            codes,
            w,
            tables.exp,
            features,
            sums,
            prior_total,
            total,
            prior_hidden,
            out,
            tape,
            streams,
        )
        for j in range(upto):
            place = look_before(j, front, memory, features)
            _add_rows(total, w.before[j], features, items[j, BEFORE])
            if place >= 0:
                _add(total, w.embedding[place], 5)
            _activate(total, w.bias[j], 5, w.fraction - 3, hidden)
            _product(w.hidden[j], hidden, width, product)
            _activate(product, w.hidden_bias[j], 8, w.fraction, second)
            rows = items[j, OUTPUTS]
            _product(w.head[items[j, HEAD_ROW] :], second, rows, out)
            for k in range(rows):
                out[k] = (out[k] + (np.int64(w.head_bias[items[j, HEAD_ROW] + k]) << 8) + half) >> w.fraction
            s = j + 1
            state = _code_state(
                reading, states[t, j], j, out, unseen[j], front, tables.exp, sums, work, tape, streams, s
            )
            value = np.int64(0)
            if state == 0:
                value = symbols[t, j]
                if items[j, HEAD] == 0:
                    for k in range(items[j, HIGH] - items[j, LOW] + 1):
                        out[k] = out[items[j, STATES] + k]
                    count = items[j, HIGH] - items[j, LOW] + 1
                    chosen = value - items[j, LOW]
                    if count > 1:
                        chosen = _code_class(reading, chosen, out, count, tables.exp, sums, tape, streams, s)
                    else:
                        chosen = np.int64(0)
                    value = items[j, LOW] + chosen
                elif items[j, HEAD] == 1:
                    value = _code_mixture(reading, value, j, out, front, row, tables, work, tape, streams, s)
                else:
                    value = _code_memory(
                        reading, value, j, out, front, memory, tables.exp, sums, work, tape, streams, s
                    )
            if reading:
                states[t, j] = state
                symbols[t, j] = value
            row[j, VALUE] = value
            row[j, STATE] = state
            place = look_after(j, front, memory, features)
            _add_rows(total, w.after[j], features, items[j, AFTER])
            if place >= 0:
                _add(total, w.embedding[place], 5)
            remember(j, front, memory)
        end_row(front, memory)


@jit
def observe(
    symbols: Longs, states: npt.NDArray[np.uint8], front: Front, memory: Memory, before: npt.NDArray[np.int8],
    after: npt.NDArray[np.int8], places: npt.NDArray[np.int32], bases: npt.NDArray[np.int32],
    classes: npt.NDArray[np.int8], member: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    """Everything the network would be shown of a block, for training: features, embedding rows, bases, targets.

    before (rows, columns, features), after likewise, places (rows, columns, 2), bases (rows, columns, 5),
    classes (rows, columns, contexts + 2): the memory's class, then which classes are open; member: its bits.
    """
    features = np.zeros(3 + 3 + 2 * MAX_CONTEXTS + 2, np.int64)
    row, items = memory.row, front.items
    for t in range(symbols.shape[0]):
        for j in range(symbols.shape[1]):
            places[t, j, 0] = look_before(j, front, memory, features)
            for k in range(items[j, BEFORE]):
                before[t, j, k] = features[k]
            bases[t, j, 0] = items[j, CENTER]
            bases[t, j, 1] = row[j, P1]
            bases[t, j, 2] = min(max(2 * row[j, P1] - row[j, P2], items[j, LOW]), items[j, HIGH])
            bases[t, j, 3] = row[j, PREDICTED]
            bases[t, j, 4] = row[j, RECALLED]
            contexts = items[j, CONTEXTS]
            if contexts > 0 and states[t, j] == 0:
                _observe_memory(t, j, symbols[t, j], front, memory, classes, member)
            row[j, VALUE] = symbols[t, j]
            row[j, STATE] = states[t, j]
            places[t, j, 1] = look_after(j, front, memory, features)
            for k in range(items[j, AFTER]):
                after[t, j, k] = features[k]
            remember(j, front, memory)
        end_row(front, memory)


@jit
def _observe_memory(
    t: int, j: int, value: int, front: Front, memory: Memory, classes: npt.NDArray[np.int8],
    member: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    contexts = front.items[j, CONTEXTS]
    e = memory_class(j, value, front, memory)
    classes[t, j, 0] = e
    classes[t, j, 1 + contexts] = 1
    for k in range(contexts):
        classes[t, j, 1 + k] = memory.totals[memory.slots[j, TABLES + 1 + k], memory.slots[j, 1 + k]] > 0
    if e == contexts:
        member[t, j] = np.log2(np.float64(front.items[j, HIGH] - front.items[j, LOW] + 1))
        return
    table, slot = memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e]
    node = memory.first[table, slot]
    while memory.values[table, node] != value:
        node = memory.nexts[table, node]
    member[t, j] = np.log2(memory.totals[table, slot] / memory.counts[table, node])
