"""What the network sees of a row and of the rows above it: integer features, made alike in training and decoding.

All features are integers from -127 to 127 in units of 1/32. A number shows its magnitude and its squashed differences
(sign * 8 * log2(1 + |d|)) to the previous row, to a linear prediction from earlier columns, and to the value last seen
with the same key; a name shows whether it changed. What the block has seen so far, the values recalled by key and the
counts of identifiers, is in the `Memory` of `vae.codec.counts`.

Features are int32, all else is int64. `vae.codec.plan` keeps symbols, centers and bins within 32 bits, so a difference
of two is below 2**33; what multiplies such numbers says why it stays below 2**63.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae.codec import counts
from vae.codec.counts import Memory, enter, find_slot, tables_of
from vae.codec.jit import NONE, jit
from vae.codec.plan import HISTORY_FEATURES, MAX_CONTEXTS, MAX_LINEAR, MAX_PARENTS, Head, Plan

Longs = npt.NDArray[np.int64]
Features = npt.NDArray[np.int32]
FEATURE_ONE = 32
"""Fixed-point one of a feature."""
FEATURE_MAX = 127
SOFTMAX, MIXTURE = int(Head.softmax), int(Head.mixture)

# columns of Front.items
HEAD, LOW, HIGH, ORDERED, STATES, NULL, NAN, ESCAPE, CENTER, SPREAD, BINS, UNIT = range(12)
COMPONENTS, LINEAR, RECALL, CONTEXTS, EMBED_BEFORE, EMBED_AFTER, HEAD_ROW, OUTPUTS, BEFORE, AFTER = range(
    12, 22
)
HISTORY = 22
N_PARAMETERS = 23

# columns of Memory.row, what is known of a column while its row is coded
P1, P2, MISSING, NAME, VALUE, STATE, PREDICTED, RECALLED, KNOWN, P3, P4, OTHER, RUN, LAST_RUN = range(14)
N_KNOWN = 14
MAX_FEATURES = 3 + HISTORY_FEATURES + 1 + 2 + 2 * MAX_CONTEXTS
"""Most features of a column on one side of its coding."""


class Front(NamedTuple):
    """A plan as arrays, one row a column."""

    items: Longs
    components: Longs
    bins: Longs
    linear: Longs
    """Sources (-1 ends), weights now, weights before, then own weight and constant."""
    recall: Longs
    contexts: Longs
    squash: Longs


TABLES = MAX_CONTEXTS + 1
"""Tables a column may have: one that recalls, and its contexts."""


def front_of(plan: Plan, squash: Longs) -> Front:
    """The arrays of a plan."""
    n = len(plan.columns)
    front = Front(
        items=np.zeros((n, N_PARAMETERS), np.int64),
        components=np.zeros((n, 8), np.int64),
        bins=np.zeros((n, 63), np.int64),
        linear=np.zeros((n, 3 * MAX_LINEAR + 2), np.int64),
        recall=np.full((n, MAX_PARENTS), -1, np.int64),
        contexts=np.full((n, MAX_CONTEXTS, MAX_PARENTS), -1, np.int64),
        squash=squash,
    )
    embedded = rows = 0
    for j, item in enumerate(plan.columns):
        outputs = {state: item.states.index(state) if state in item.states else -1 for state in (1, 2, 3)}
        place_before = embedded if item.embedded_before else -1
        place_after = embedded + item.embedded_before if item.embedded_after else -1
        front.items[j] = [
            item.head, item.low, item.high, item.ordered, len(item.states), outputs[1], outputs[2], outputs[3],
            item.center, item.spread, len(item.bins), item.unit, len(item.components), item.linear is not None,
            len(item.recall), len(item.contexts), place_before, place_after, rows, item.outputs, item.before,
            item.after, item.history,
        ]  # fmt: skip
        front.components[j, : len(item.components)] = item.components
        front.bins[j, : len(item.bins)] = item.bins
        front.recall[j, : len(item.recall)] = item.recall
        for e, context in enumerate(item.contexts):
            front.contexts[j, e, : len(context)] = context
        front.linear[j, :MAX_LINEAR] = -1
        if item.linear is not None:
            k = len(item.linear.sources)
            front.linear[j, :k] = item.linear.sources
            front.linear[j, MAX_LINEAR : MAX_LINEAR + k] = item.linear.now
            front.linear[j, 2 * MAX_LINEAR : 2 * MAX_LINEAR + k] = item.linear.before
            front.linear[j, 3 * MAX_LINEAR :] = (item.linear.own, item.linear.constant)
        embedded += item.embedded_before + item.embedded_after
        rows += item.outputs
    return front


def new_memory(front: Front, rows: int) -> Memory:
    """An empty memory for a block of `rows` rows."""
    n = len(front.items)
    # columns that remember nothing share the first table's place but never touch it
    remembers = bool(front.items[:, RECALL].any() or front.items[:, CONTEXTS].any())
    tables = n * TABLES if remembers else 1
    live = np.zeros(tables, bool)
    if remembers:
        live = np.zeros((n, TABLES), bool)
        live[:, 0] = front.items[:, RECALL] > 0
        for e in range(MAX_CONTEXTS):
            live[:, e + 1] = front.items[:, CONTEXTS] > e
        live = live.ravel()
    index = np.cumsum(live) - 1
    count = max(1, int(live.sum()))
    row = np.zeros((n, N_KNOWN), np.int64)
    row[:, [P1, P2, P3, P4, OTHER]] = front.items[:, [CENTER]]
    row[:, NAME] = front.items[:, HIGH] - front.items[:, LOW] + 1
    slots = np.zeros((n, 2 * TABLES), np.int64)
    if remembers:
        slots[:, TABLES:] = index.reshape(n, TABLES)
    return Memory(row, slots, *tables_of(count, rows))


@jit
def squashed(difference: int, squash: Longs) -> int:
    """sign * round(8 * log2(1 + |difference|)), at most 127."""
    size = abs(difference)
    octaves = 0
    while size > 1023:
        size >>= 1
        octaves += 8
    result = min(squash[size] + octaves, FEATURE_MAX)
    return result if difference >= 0 else -result


@jit
def magnitude(value: int, center: int, spread: int) -> int:
    """(value - center) * spread / 2**16, clipped to a feature; below 2**32 * 2**30 before the shift."""
    return min(max(((value - center) * spread) >> 16, -FEATURE_MAX), FEATURE_MAX)


@jit
def key_of(parents: Longs, items: Longs, row: Longs) -> int:
    """A key of up to 42 bits for what the earlier columns `parents` hold; different rows may share one, harmlessly."""
    key = 0
    for k in range(parents.shape[0]):
        p = parents[k]
        if p < 0:
            break
        cell = (row[p, VALUE] - items[p, LOW] + 1) * 4 + row[
            p, STATE
        ]  # a key is below 2**42: 2**42 * 2**20 < 2**62
        key = (key * 1000003 + cell) & 0x3FFFFFFFFFF
    return key


@jit
def predict(j: int, front: Front, row: Longs) -> int:
    """The linear prediction of column j, within one span of its symbols.

    Weights are at most 2**26 and values below 2**31: 2 * 16 + 1 products of 2**57 and a constant of 2**52 stay below
    2**62.1.
    """
    linear = front.linear
    total = linear[j, 3 * MAX_LINEAR] * row[j, P1] + linear[j, 3 * MAX_LINEAR + 1]
    for k in range(MAX_LINEAR):
        s = linear[j, k]
        if s < 0:
            break
        value = row[s, VALUE] if row[s, STATE] == 0 else row[s, P1]
        total += linear[j, MAX_LINEAR + k] * value + linear[j, 2 * MAX_LINEAR + k] * row[s, P1]
    low, high = front.items[j, LOW], front.items[j, HIGH]
    span = high - low + 1
    return min(max((total + 32768) >> 16, low - span), high + span)


@jit
def look_before(j: int, front: Front, memory: Memory, features: Features) -> int:
    """Fill `features` with what is known before column j is coded; returns the embedding's row, or -1."""
    items, row, slots = front.items, memory.row, memory.slots
    at = 0
    if items[j, ORDERED]:
        features[0] = magnitude(row[j, P1], items[j, CENTER], items[j, SPREAD])
        features[1] = squashed(row[j, P1] - row[j, P2], front.squash)
        features[2] = FEATURE_ONE * row[j, MISSING]
        at = 3
        if items[j, HISTORY]:
            features[3] = squashed(row[j, P2] - row[j, P3], front.squash)
            features[4] = squashed(row[j, P3] - row[j, P4], front.squash)
            features[5] = squashed(row[j, P1] - row[j, OTHER], front.squash)
            features[6] = squashed(row[j, RUN], front.squash)
            features[7] = squashed(row[j, LAST_RUN], front.squash)
            features[8] = squashed(row[j, RUN] - row[j, LAST_RUN], front.squash)
            at = 3 + HISTORY_FEATURES
        if items[j, LINEAR]:
            row[j, PREDICTED] = predict(j, front, row)
            features[at] = squashed(row[j, PREDICTED] - row[j, P1], front.squash)
            at += 1
        if items[j, RECALL]:
            table = slots[j, TABLES]
            slot = find_slot(memory.keys[table], key_of(front.recall[j], items, row))
            slots[j, 0] = slot
            row[j, KNOWN] = 1 if memory.entries[table, slot, counts.TOTAL] > 0 else 0
            row[j, RECALLED] = memory.entries[table, slot, counts.RECALL] if row[j, KNOWN] else row[j, P1]
            features[at] = squashed(row[j, RECALLED] - row[j, P1], front.squash)
            features[at + 1] = FEATURE_ONE * row[j, KNOWN]
            at += 2
    else:
        features[0] = FEATURE_ONE * row[j, MISSING]
        at = 1
    for e in range(items[j, CONTEXTS]):
        table = slots[j, TABLES + 1 + e]
        slot = find_slot(memory.keys[table], key_of(front.contexts[j, e], items, row))
        slots[j, 1 + e] = slot
        features[at] = squashed(NONE + memory.entries[table, slot, counts.TOTAL], front.squash)
        features[at + 1] = squashed(NONE + memory.entries[table, slot, counts.DISTINCT], front.squash)
        at += 2
    if items[j, EMBED_BEFORE] < 0:
        return -1
    return items[j, EMBED_BEFORE] + row[j, NAME]


@jit
def look_after(j: int, front: Front, memory: Memory, features: Features) -> int:
    """Fill `features` with what column j shows once coded, and remember it; returns the embedding's row, or -1."""
    items, row = front.items, memory.row
    missing = row[j, STATE] != 0
    value = row[j, P1] if missing else row[j, VALUE]
    name = items[j, HIGH] - items[j, LOW] + 1 if missing else row[j, VALUE] - items[j, LOW]
    if items[j, ORDERED]:
        features[0] = magnitude(value, items[j, CENTER], items[j, SPREAD])
        features[1] = squashed(value - row[j, P1], front.squash)
        features[2] = FEATURE_ONE if value == row[j, P1] else 0
        features[3] = FEATURE_ONE if missing else 0
        at = 4
        if items[j, LINEAR]:
            features[at] = squashed(value - row[j, PREDICTED], front.squash)
            at += 1
        if items[j, RECALL]:
            features[at] = squashed(value - row[j, RECALLED], front.squash)
    else:
        features[0] = FEATURE_ONE if name == row[j, NAME] else 0
    index = items[j, EMBED_AFTER]
    if index >= 0:
        if items[j, ORDERED] and items[j, HEAD] != SOFTMAX:
            bins = items[j, BINS]
            b = 0
            while b < bins and value >= front.bins[j, b]:
                b += 1
            index += bins + 1 if missing else b
        else:
            index += name
    return index


@jit
def remember(j: int, front: Front, memory: Memory) -> None:
    """Enter column j's value of this row into its tables."""
    items, row, slots = front.items, memory.row, memory.slots
    if row[j, STATE] != 0:
        return
    value = row[j, VALUE]
    if items[j, RECALL]:
        table, slot = slots[j, TABLES], slots[j, 0]
        memory.entries[table, slot, counts.RECALL] = value
        memory.entries[table, slot, counts.TOTAL] = 1
    for e in range(items[j, CONTEXTS]):
        enter(memory, slots[j, TABLES + 1 + e], slots[j, 1 + e], value)


@jit
def end_row(front: Front, memory: Memory) -> None:
    """The row becomes the previous row."""
    row, items = memory.row, front.items
    for j in range(row.shape[0]):
        if row[j, STATE] == 0:
            if row[j, VALUE] == row[j, P1]:
                row[j, RUN] += 1
            else:
                row[j, OTHER] = row[j, P1]
                row[j, LAST_RUN] = row[j, RUN]
                row[j, RUN] = 0
            row[j, P4] = row[j, P3]
            row[j, P3] = row[j, P2]
            row[j, P2] = row[j, P1]
            row[j, P1] = row[j, VALUE]
            row[j, MISSING] = 0
            row[j, NAME] = row[j, VALUE] - items[j, LOW]
        else:
            row[j, MISSING] = 1
            row[j, NAME] = items[j, HIGH] - items[j, LOW] + 1
