"""The integer model at work: one loop over rows, latents and columns, the same for writing and reading.

Activations, logits, offsets and log2 scales are integers in units of 1/256; features in units of 1/32; weights in
units of 2**-fraction. `Weights` come proved: no sum leaves 31 bits (`vae.codec.weights`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae.codec import counts
from vae.codec.counts import Memory, find_home
from vae.codec.entropy import Short
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
from vae.codec.jit import EIGHT, FIVE, NONE, ONE, THREE, TWO, jit
from vae.codec.plan import MAX_OUTPUTS, MAX_STATES
from vae.codec.vectors import add_product, rounded_up

Longs = npt.NDArray[np.int64]
Weight = npt.NDArray[np.int32]
Sums = npt.NDArray[np.int32]
"""Sums of products: proved to stay within 31 bits, in whatever order they are added."""

ACTIVATION_MAX = 8 * 256


class Weights(NamedTuple):
    """Weights of the integer model, padded to rectangles; shapes as in `Plan.shapes`, but matrices that multiply
    activations (`hidden`, `head`, `prior_hidden`, `prior_head`) are transposed, inputs first. Widths are rounded up
    to a multiple of `LANES` with units of weight 0, and rows of `head` and `prior_head` have room for as many more
    outputs: `add_product` reads them, unchecked.
    """

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


class Desk(NamedTuple):
    """Room for what is made of one cell: compiled functions make no arrays."""

    total: Sums
    prior_total: Sums
    hidden: Sums
    second: Sums
    prior_hidden: Sums
    product: Sums
    inner: Sums
    """The first `width` of `product`."""
    features: Sums
    out: Longs
    sums: Longs
    work: Longs


def new_desk(w: Weights) -> Desk:
    """A desk for a block."""
    width, prior_width, most = w.bias.shape[1], w.prior_bias.shape[1], MAX_OUTPUTS + MAX_STATES
    product = np.zeros(rounded_up(max(most, width, prior_width)), np.int32)
    return Desk(
        total=np.zeros(width, np.int32), prior_total=np.zeros(prior_width, np.int32),
        hidden=np.zeros(width, np.int32), second=np.zeros(width, np.int32),
        prior_hidden=np.zeros(prior_width, np.int32), product=product, inner=product[:width],
        features=np.zeros(MAX_FEATURES, np.int32), out=np.zeros(most, np.int64), sums=np.zeros(most, np.int64),
        work=np.zeros((6, 16), np.int64),
    )  # fmt: skip


@jit
def _add(total: Sums, weights: Weight, j: int, shift: int) -> None:
    """total += weights[j] * 2**shift."""
    for i in range(total.shape[0]):
        total[i] += weights[j, i] << shift


@jit
def _activate(total: Sums, bias: Weight, j: int, bias_shift: int, shift: int, out: Sums) -> None:
    """out = the activation min(max(x, 0), 8) of total + bias[j], in units of 1/256."""
    half = np.int64(1) << (shift - 1)  # with which a sum may have 32 bits
    for i in range(out.shape[0]):
        x = (total[i] + (np.int64(bias[j, i]) << bias_shift) + half) >> shift
        out[i] = min(max(x, 0), ACTIVATION_MAX)


@jit
def _multiply(matrices: Weight, j: int, first: int, vector: Sums, rows: int, out: Sums) -> None:
    """out[:rows] = vector @ matrices[j, :, first:][:, :rows]."""
    out[:rows] = 0
    add_product(out, matrices, j, first, vector, vector.shape[0], rows, 0)


@jit
def _add_rows(total: Sums, weights: Weight, j: int, features: Sums, count: int, shift: int) -> None:
    """total += features[:count] @ weights[j, :count] * 2**shift."""
    add_product(total, weights, j, 0, features, count, total.shape[0], shift)


@jit
def code_latents(
    reading: bool, t: int, codes: npt.NDArray[np.int8], w: Weights, exp: Short, features: Sums, sums: Longs,
    prior_total: Sums, total: Sums, hidden: Sums, product: Sums, out: Longs, tape: Tape, streams: Streams,
) -> None:  # fmt: skip
    """The latents of row t: each under a softmax that sees the latents before it and its own previous row.

    Where the plan says `above` it sees the whole previous row, and a class more likely for having stood there; where it
    says `deep`, through one more layer.
    """
    reach, above, deep = w.reach, w.prior_stay.shape[0] > 0, w.prior_hidden.shape[0] > 0
    if above and t > 0:  # zeros, which are above the first row, show nothing
        for i in range(codes.shape[1]):
            latent_features(NONE + codes[t - 1, i], features)
            _add_rows(prior_total, w.prior_above, i, features, TWO, NONE)
    for i in range(codes.shape[1]):
        last = NONE + codes[t - 1, i] if t > 0 else NONE
        latent_features(last, features)
        _add_rows(prior_total, w.prior_before, i, features, ONE, NONE)
        _activate(prior_total, w.prior_bias, i, FIVE, w.fraction - 3, hidden)
        if deep:
            _multiply(w.prior_hidden, i, NONE, hidden, hidden.shape[0], product)
            _activate(product, w.prior_hidden_bias, i, EIGHT, w.fraction, hidden)
        _multiply(w.prior_head, i, NONE, hidden, 2 * reach + 1, product)
        half = np.int64(1) << (w.fraction - 1)
        for k in range(2 * reach + 1):
            bias = np.int64(w.prior_head_bias[i, k])
            if above and k == last + reach:
                bias += w.prior_stay[i]
            out[k] = (product[k] + (bias << 8) + half) >> w.fraction
        chosen = NONE if reading else codes[t, i] + reach
        chosen = code_class(reading, chosen, out, 2 * reach + 1, exp, sums, tape, streams, NONE)
        if reading:
            codes[t, i] = chosen - reach
        latent_features(NONE + codes[t, i], features)
        _add_rows(prior_total, w.prior_after, i, features, TWO, NONE)
        if above and codes[t, i] == last:
            _add(prior_total, w.prior_same, i, FIVE)
        _add_rows(total, w.code_after, i, features, TWO, NONE)


@jit
def latent_features(value: int, features: Sums) -> None:
    """What a latent shows once coded: its value (half a unit a step, clipped) and whether it is present."""
    features[0] = min(max(16 * np.int64(value), -FEATURE_MAX), FEATURE_MAX)
    features[1] = FEATURE_ONE if value != 0 else 0


@jit
def walk(
    reading: bool, upto: int, symbols: Longs, states: npt.NDArray[np.uint8], codes: npt.NDArray[np.int8],
    unseen: npt.NDArray[np.bool_], front: Front, memory: Memory, w: Weights, tables: Tables, desk: Desk, tape: Tape,
    streams: Streams,
) -> None:  # fmt: skip
    """Write (onto `tape`) or read (from `streams`) a block: its latents and its first `upto` columns.

    symbols, states: (rows, columns); codes: (rows, latents); filled when reading. A stream that runs dry reads
    on with a state of 0, for the caller to find out: the others show by their own ends whether they are whole.
    """
    width, items, row = w.bias.shape[1], front.items, memory.row
    total, prior_total, hidden, second = desk.total, desk.prior_total, desk.hidden, desk.second
    prior_hidden, product, inner = desk.prior_hidden, desk.product, desk.inner
    features, out, sums, work = desk.features, desk.out, desk.sums, desk.work
    half, direct = np.int64(1) << (w.fraction - 1), w.direct.shape[0] > 0
    for t in range(symbols.shape[0]):
        total[:] = 0
        prior_total[:] = 0
        code_latents(
            reading, t, codes, w, tables.exp, features, sums, prior_total, total, prior_hidden, product, out, tape,
            streams,
        )  # fmt: skip
        for j in range(upto):
            place = look_before(j, front, memory, features)
            _add_rows(total, w.before, j, features, items[j, BEFORE], NONE)
            if place >= 0:
                _add(total, w.embedding, place, FIVE)
            _activate(total, w.bias, j, FIVE, w.fraction - 3, hidden)
            _multiply(w.hidden, j, NONE, hidden, width, inner)
            if direct:
                _add_rows(inner, w.direct, j, features, items[j, BEFORE], THREE)  # from 1/32 to 1/256
            _activate(inner, w.hidden_bias, j, EIGHT, w.fraction, second)
            rows, first = items[j, OUTPUTS], items[j, HEAD_ROW]
            _multiply(w.head, NONE, first, second, rows, product)
            for k in range(rows):
                out[k] = (product[k] + (np.int64(w.head_bias[first + k]) << 8) + half) >> w.fraction
            s = j + 1
            state = code_state(
                reading, states[t, j], j, out, unseen[j], front, tables.exp, sums, work, tape, streams, s
            )
            value = np.int64(0)
            if state == 0:
                value = symbols[t, j]
                if items[j, HEAD] == SOFTMAX:
                    count = items[j, HIGH] - items[j, LOW] + 1
                    chosen = value - items[j, LOW] if count > 1 else NONE
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
            _add_rows(total, w.after, j, features, items[j, AFTER], NONE)
            if place >= 0:
                _add(total, w.embedding, place, FIVE)
            remember(j, front, memory)
        end_row(front, memory)


@jit
def observe(
    symbols: Longs, states: npt.NDArray[np.uint8], front: Front, memory: Memory, features: Sums,
    before: npt.NDArray[np.int8], after: npt.NDArray[np.int8], places: npt.NDArray[np.int32],
    bases: npt.NDArray[np.int32], classes: npt.NDArray[np.int8], member: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    """Everything the network would be shown of a block, for training: features, embedding rows, bases, targets.

    before (rows, columns, features), after likewise, places (rows, columns, 2), bases (rows, columns, 5),
    classes (rows, columns, contexts + 2): the memory's class, then which classes are open; member: its bits.
    """
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
        classes[t, j, 1 + k] = (
            memory.entries[memory.slots[j, TABLES + 1 + k], memory.slots[j, 1 + k], counts.TOTAL] > 0
        )
    if e == contexts:
        member[t, j] = np.log2(np.float64(front.items[j, HIGH] - front.items[j, LOW] + 1))
        return
    table, slot = memory.slots[j, TABLES + 1 + e], memory.slots[j, 1 + e]
    node = memory.homes[table, find_home(memory, table, slot, value)]
    member[t, j] = np.log2(
        memory.entries[table, slot, counts.TOTAL] / memory.nodes[table, node, counts.COUNT]
    )
