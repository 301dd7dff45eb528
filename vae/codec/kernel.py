"""The integer model at work: one loop over rows, latents and columns, the same for writing and reading.

Activations, logits, offsets and log2 scales are integers in units of 1/256; features in units of 1/32; weights in
units of 2**-fraction. `Weights` come proved: no sum leaves 31 bits (`vae.codec.weights`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae.codec.frontend import (
    AFTER,
    BEFORE,
    CENTER,
    CONTEXTS,
    FEATURE_MAX,
    FEATURE_ONE,
    HEAD,
    HEAD_ROW,
    HIGH,
    LOW,
    MAX_FEATURES,
    MIXTURE,
    OUTPUTS,
    P1,
    P2,
    PREDICTED,
    RECALLED,
    SOFTMAX,
    STATE,
    STATES,
    TABLES,
    VALUE,
    Front,
    Memory,
    end_row,
    look_after,
    look_before,
    remember,
)
from vae.codec.intervals import (
    Streams,
    Tables,
    Tape,
    code_class,
    code_memory,
    code_mixture,
    code_state,
    memory_class,
)
from vae.codec.jit import COMPILED, jit
from vae.codec.plan import MAX_OUTPUTS, MAX_STATES

Longs = npt.NDArray[np.int64]
Weight = npt.NDArray[np.int32]

ACTIVATION_MAX = 8 * 256


class Weights(NamedTuple):
    """Weights of the integer model, padded to rectangles; shapes beside `Plan.shapes`."""

    fraction: int
    reach: int
    share_shift: int
    """Bits that the share of a mixture's component loses of its 24."""
    prior_before: Weight
    prior_after: Weight
    prior_bias: Weight
    prior_head: Weight
    prior_head_bias: Weight
    code_after: Weight
    prior_above: Weight
    prior_same: Weight
    prior_hidden: Weight
    prior_hidden_bias: Weight
    prior_stay: Weight
    before: Weight
    direct: Weight
    after: Weight
    embedding: Weight
    bias: Weight
    hidden: Weight
    hidden_bias: Weight
    head: Weight
    head_bias: Weight


@jit
def _add_rows(total: Longs, weights: Weight, features: Longs, count: int, shift: int) -> None:
    """total += features[:count] @ weights[:count] * 2**shift."""
    for k in range(count):
        feature = features[k] << shift
        if feature != 0:
            for i in range(total.shape[0]):
                total[i] += feature * weights[k, i]


@jit
def _add(total: Longs, weights: Weight, shift: int) -> None:
    """total += weights * 2**shift."""
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
def code_latents(
    reading: bool, t: int, codes: npt.NDArray[np.int8], w: Weights, exp: Longs, features: Longs, sums: Longs,
    prior_total: Longs, total: Longs, hidden: Longs, out: Longs, tape: Tape, streams: Streams,
) -> None:  # fmt: skip
    """The latents of row t: each under a softmax that sees the latents before it and its own previous row.

    Where the plan says `above` it sees the whole previous row, and a class more likely for having stood there; where it
    says `deep`, through one more layer.
    """
    reach, above, deep = w.reach, w.prior_stay.shape[0] > 0, w.prior_hidden.shape[0] > 0
    if above and t > 0:  # zeros, which are above the first row, show nothing
        for i in range(codes.shape[1]):
            latent_features(codes[t - 1, i], features)
            _add_rows(prior_total, w.prior_above[i], features, 2, 0)
    for i in range(codes.shape[1]):
        last = codes[t - 1, i] if t > 0 else 0
        latent_features(last, features)
        _add_rows(prior_total, w.prior_before[i], features, 1, 0)
        _activate(prior_total, w.prior_bias[i], 5, w.fraction - 3, hidden)
        if deep:
            _product(w.prior_hidden[i], hidden, hidden.shape[0], out)
            _activate(out, w.prior_hidden_bias[i], 8, w.fraction, hidden)
        _product(w.prior_head[i], hidden, 2 * reach + 1, out)
        half = np.int64(1) << (w.fraction - 1)
        for k in range(2 * reach + 1):
            bias = np.int64(w.prior_head_bias[i, k])
            if above and k == last + reach:
                bias += w.prior_stay[i]
            out[k] = (out[k] + (bias << 8) + half) >> w.fraction
        chosen = 0 if reading else codes[t, i] + reach
        chosen = code_class(reading, chosen, out, 2 * reach + 1, exp, sums, tape, streams, 0)
        if reading:
            codes[t, i] = chosen - reach
        latent_features(codes[t, i], features)
        _add_rows(prior_total, w.prior_after[i], features, 2, 0)
        if above and codes[t, i] == last:
            _add(prior_total, w.prior_same[i], 5)
        _add_rows(total, w.code_after[i], features, 2, 0)


@jit
def latent_features(value: int, features: Longs) -> None:
    """What a latent shows once coded: its value (half a unit a step, clipped) and whether it is present."""
    features[0] = min(max(16 * np.int64(value), -FEATURE_MAX), FEATURE_MAX)
    features[1] = FEATURE_ONE if value != 0 else 0


@jit
def walk(
    reading: bool, upto: int, symbols: Longs, states: npt.NDArray[np.uint8], codes: npt.NDArray[np.int8],
    unseen: npt.NDArray[np.bool_], front: Front, memory: Memory, w: Weights, tables: Tables, tape: Tape,
    streams: Streams,
) -> None:  # fmt: skip
    """Write (onto `tape`) or read (from `streams`) a block: its latents and its first `upto` columns.

    symbols, states: (rows, columns); codes: (rows, latents); filled when reading. A stream that runs dry reads
    on with a state of 0, for the caller to find out: the others show by their own ends whether they are whole.
    """
    width, items, row = w.bias.shape[1], front.items, memory.row
    total, prior_total = np.zeros(width, np.int64), np.zeros(w.prior_bias.shape[1], np.int64)
    hidden, second = np.zeros(width, np.int64), np.zeros(width, np.int64)
    prior_hidden = np.zeros(w.prior_bias.shape[1], np.int64)
    features = np.zeros(MAX_FEATURES, np.int64)
    most = MAX_OUTPUTS + MAX_STATES
    out, sums = np.zeros(max(most, len(prior_hidden)), np.int64), np.zeros(most, np.int64)
    product = np.zeros(width, np.int64)
    work = np.zeros((6, 16), np.int64)
    half, direct = np.int64(1) << (w.fraction - 1), w.direct.shape[0] > 0
    for t in range(symbols.shape[0]):
        total[:] = 0
        prior_total[:] = 0
        code_latents(
            reading, t, codes, w, tables.exp, features, sums, prior_total, total, prior_hidden, out, tape, streams
        )  # fmt: skip
        for j in range(upto):
            place = look_before(j, front, memory, features)
            _add_rows(total, w.before[j], features, items[j, BEFORE], 0)
            if place >= 0:
                _add(total, w.embedding[place], 5)
            _activate(total, w.bias[j], 5, w.fraction - 3, hidden)
            _product(w.hidden[j], hidden, width, product)
            if direct:
                _add_rows(product, w.direct[j], features, items[j, BEFORE], 3)  # from 1/32 to 1/256
            _activate(product, w.hidden_bias[j], 8, w.fraction, second)
            rows = items[j, OUTPUTS]
            _product(w.head[items[j, HEAD_ROW] :], second, rows, out)
            for k in range(rows):
                out[k] = (out[k] + (np.int64(w.head_bias[items[j, HEAD_ROW] + k]) << 8) + half) >> w.fraction
            s = j + 1
            state = code_state(
                reading, states[t, j], j, out, unseen[j], front, tables.exp, sums, work, tape, streams, s
            )
            value = np.int64(0)
            if state == 0:
                value = symbols[t, j]
                if items[j, HEAD] == SOFTMAX:
                    count = items[j, HIGH] - items[j, LOW] + 1
                    chosen = value - items[j, LOW] if count > 1 else 0
                    if count > 1:
                        for k in range(count):
                            out[k] = out[items[j, STATES] + k]
                        chosen = code_class(reading, chosen, out, count, tables.exp, sums, tape, streams, s)
                    value = items[j, LOW] + chosen
                elif items[j, HEAD] == MIXTURE:
                    value = code_mixture(
                        reading, value, j, w.share_shift, out, front, row, tables, work, tape, streams, s
                    )
                else:
                    value = code_memory(
                        reading, value, j, out, front, memory, tables.exp, sums, work, tape, streams, s
                    )
            if reading:
                states[t, j] = state
                symbols[t, j] = value
            row[j, VALUE] = value
            row[j, STATE] = state
            place = look_after(j, front, memory, features)
            _add_rows(total, w.after[j], features, items[j, AFTER], 0)
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
    features = np.zeros(MAX_FEATURES, np.int64)
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
            row[j, VALUE] = symbols[t, j] if states[t, j] == 0 else 0
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
    """What column j's value would be coded as: its class, the open classes, and the bits of its member."""
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
