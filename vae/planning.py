"""From a table on its grid to the shape of its model: order of columns, heads, what each may look at.

All choices are made on a sample of consecutive rows by measured code length or residuals, never by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.grid import Coded, State, TableGrid
from vae.codec.frontend import FEATURE_MAX
from vae.codec.jit import jit_with_arrays
from vae.codec.plan import (
    FEW_OUTPUTS,
    MAX_ITEMS,
    MAX_LINEAR,
    MAX_OUTPUTS,
    MAX_TABLES,
    Head,
    Item,
    Linear,
    Plan,
)

Longs = npt.NDArray[np.int64]

SAMPLE_ROWS = 65_536
SAMPLE_WORK = SAMPLE_ROWS * 32**2
"""Rows of the sample times columns squared: every column is tried beside every other, of up to `MANY`."""
FEWEST_ROWS = 2_048
"""Rows of the sample of however wide a table."""
BIN_COUNT = 16
MAX_GREEDY_PARENTS = 4
MANY = 64
"""Columns that are tried beside one on all of the sample: of more those that are best on a few of its rows."""
FEW_ROWS = 512
"""How many."""
MAX_RETRIED = 16
"""Columns that are tried again beside those already chosen: the best of the first round."""
MAX_IDENTIFIERS = 20_000
FRACTION = 5
"""Bits of a weight after the point: two fewer than 7 cost 0.03 bits a row and save a quarter of the model's bytes."""
MEMORY_MARGIN = 0.5
"""Bits by which counts must beat the crude estimate for a smooth head, which sees much that the estimate does not."""
ROUGH = 0.25
"""Bits that a number costs more by its neighbours' counts than by its own, from which on numbers are names: counts in
contexts are for these. Elsewhere a smooth head comes to know more than they, in half the weights."""
NEIGHBOURS = 4
CENTER, PREVIOUS, EXTRAPOLATED, LINEAR, RECALLED = range(5)


class Facts(NamedTuple):
    """What the sample says of one column; `filled` carries the last value over missing ones."""

    name: str
    ordered: bool
    low: int
    high: int
    states: tuple[int, ...]
    filled: Longs
    present: npt.NDArray[np.bool_]
    cells: Longs
    distinct: int
    entropy: float
    step_entropy: float

    @property
    def stepping(self) -> bool:
        """Whether the previous row says most of what there is to say."""
        return self.step_entropy < 0.6 * self.entropy


_Measure = Callable[[Longs, Facts], float]


def usual_width(rows: int) -> int:
    """Hidden width of a decoder for a table of so many rows.

    >>> usual_width(32_561), usual_width(92_962)
    (16, 32)
    """
    return 16 if rows < 50_000 else 32


def is_series(grid: TableGrid, coded: Mapping[str, Coded]) -> bool:
    """Whether most columns follow from the row above: telemetry and the like, which asks for another training."""
    facts = [_facts(grid, name, column, _sample_rows(len(coded))) for name, column in coded.items()]
    return 2 * sum(fact.stepping for fact in facts) > len(facts)


def make_plan(grid: TableGrid, coded: Mapping[str, Coded], *, latents: int, width: int) -> Plan:
    """The plan for the columns in `coded`: all of them on their grids, in row order. No latents are no code.

    Columns beyond what a plan may hold (`MAX_ITEMS`; `MAX_TABLES` that remember) are left out, for other coders.
    """
    facts = [_facts(grid, name, column, _sample_rows(len(coded))) for name, column in coded.items()]
    facts.sort(key=lambda f: (not f.stepping, f.distinct))
    items, chosen, tables = list[Item](), list[Facts](), MAX_TABLES
    for fact in facts[:MAX_ITEMS]:
        item = _within(_item(fact, chosen, told=latents > 0), tables)
        if item is not None:
            items.append(item)
            chosen.append(fact)
            tables -= item.tables
    # where rows do not follow on from each other, the row above is no news, and weights for it are bytes in vain
    stepping = any(fact.stepping for fact in chosen)
    above = latents > 0 and stepping
    return Plan(
        latents=latents, width=width, fraction=FRACTION, above=above, deep=above, direct=stepping,
        fine=any(item.head is Head.mixture for item in items), columns=tuple(items),
    )  # fmt: skip


def _sample_rows(columns: int) -> int:
    return max(FEWEST_ROWS, min(SAMPLE_ROWS, SAMPLE_WORK // max(1, columns) ** 2))


def _within(item: Item, tables: int) -> Item | None:
    """The item with no more tables than are left; None if it cannot do without."""
    if item.tables <= tables:
        return item
    if item.head is Head.memory:
        return item.model_copy(update={"contexts": item.contexts[-tables:]}) if tables else None
    components = tuple(c for c in item.components if c != RECALLED)
    return item.model_copy(update={"recall": (), "components": components})


def _facts(grid: TableGrid, name: str, column: Coded, rows: int) -> Facts:
    spec = grid[name]
    states = tuple(s for s in (1, 2, 3) if (column.state == s).any())
    symbols = _middle(column.symbols, rows)
    present = _middle(column.state, rows) == State.VALUE
    index = np.maximum.accumulate(np.where(present, np.arange(len(symbols)), -1))
    start = int(symbols[present][0]) if present.any() else spec.low
    filled = np.where(index >= 0, symbols[np.maximum(index, 0)], start)
    cells = np.where(present, filled - spec.low + 1, 0)
    steps = np.diff(filled) if spec.kind == "number" else (np.diff(filled) != 0) * filled[1:]
    return Facts(
        name=name, ordered=spec.kind == "number", low=spec.low, high=spec.high, states=states, filled=filled,
        present=present, cells=cells, distinct=len(np.unique(cells)), entropy=_entropy(cells),
        step_entropy=_entropy(steps),
    )  # fmt: skip


def _middle(array: npt.NDArray[np.generic], rows: int) -> Longs:
    """A run of consecutive rows from the middle: the ends of a table are often unlike the rest."""
    start = max(0, (len(array) - rows) // 2)
    return array[start : start + rows].astype(np.int64)


def _entropy(values: Longs) -> float:
    if len(values) == 0:
        return 0.0
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _item(fact: Facts, earlier: list[Facts], *, told: bool) -> Item:
    """What the model may look at for one column, and how it speaks of it; `told` where it has a code of the row."""
    base: dict[str, Any] = {
        "name": fact.name, "low": fact.low, "high": fact.high, "ordered": fact.ordered, "states": fact.states
    }  # fmt: skip
    span = fact.high - fact.low + 1
    if fact.ordered:
        base |= _magnitude(fact) | {"history": fact.step_entropy < fact.entropy}
    # counts of names cost no weights, but a code of the row tells them nothing: only a softmax is moved by it
    most = MAX_OUTPUTS if told and not fact.ordered else FEW_OUTPUTS
    if span + len(fact.states) <= most:
        return Item.model_validate(base | {"head": Head.softmax})
    parents, memory_bits = _greedy(fact, earlier, _context_bits)
    contexts = _backed_off(parents)
    if not fact.ordered:
        return Item.model_validate(base | {"head": Head.memory, "contexts": contexts})
    linear = _linear(fact, earlier)
    residuals = {CENTER: fact.filled - base["center"], PREVIOUS: _shifted(fact.filled, fact.filled)}
    if linear is not None:
        residuals[LINEAR] = fact.filled - _predict(linear, fact, earlier)
    recall, recall_bits = _greedy(fact, earlier, _recall_bits)
    if recall and recall_bits < _octave_bits(residuals[PREVIOUS][fact.present]) - 0.2:
        residuals[RECALLED] = fact.filled - _recalled(_keys(recall, earlier), fact.filled, fact.present)
    else:
        recall = ()
    best = min(_octave_bits(r[fact.present]) for r in residuals.values())
    if (
        fact.distinct <= MAX_IDENTIFIERS
        and len(fact.filled) > 4 * fact.distinct
        and memory_bits + MEMORY_MARGIN < best
        and _roughness(fact) > ROUGH
    ):
        return Item.model_validate(base | {"head": Head.memory, "contexts": contexts})
    if fact.stepping:
        twice = 2 * np.roll(fact.filled, 1) - np.roll(fact.filled, 2)
        residuals[EXTRAPOLATED] = np.concatenate([[0, 0], (fact.filled - twice)[2:]])[: len(fact.filled)]
    ranked = sorted(residuals, key=lambda kind: _octave_bits(residuals[kind][fact.present]))
    components = tuple([*ranked, ranked[0], ranked[0]][: max(3, min(4, len(ranked)))])
    size = float(np.median(np.abs(residuals[ranked[0]]))) + 1 if len(fact.filled) else 1.0
    return Item.model_validate(
        base
        | {
            "head": Head.mixture,
            "bins": _bins(fact),
            "linear": linear,
            "recall": recall,
            "components": components,
            "unit": max(0, min(20, round(np.log2(size)) - 1)),
        }
    )


def _magnitude(fact: Facts) -> dict[str, int]:
    """Center and spread of the feature that shows the magnitude: nearly all values within three quarters of it."""
    values = fact.filled[fact.present] if fact.present.any() else np.array([fact.low])
    low, center, high = (int(q) for q in np.quantile(values, [0.005, 0.5, 0.995], method="nearest"))
    half = max(high - center, center - low, 1)
    return {"center": center, "spread": max(1, min(1 << 30, (FEATURE_MAX * 3 // 4 << 16) // half))}


def _bins(fact: Facts) -> tuple[int, ...]:
    """Thresholds of bins that hold about as many rows each."""
    values = fact.filled[fact.present] if fact.present.any() else np.array([fact.low])
    edges = np.quantile(values, np.arange(1, BIN_COUNT) / BIN_COUNT, method="nearest")
    return tuple(sorted({int(e) for e in edges} - {fact.low}))


def _shifted(values: Longs, like: Longs) -> Longs:
    """values minus the previous row's values."""
    return np.concatenate([[0], values[1:] - like[:-1]])[: len(values)]


def _octave_bits(residual: Longs) -> float:
    """Code length of a residual whose octave and sign are coded by frequency and the rest uniformly."""
    if len(residual) == 0:
        return 0.0
    octave = np.ceil(np.log2(1 + np.abs(residual))).astype(np.int64)
    return _entropy(octave * np.where(residual < 0, -1, 1)) + float(np.maximum(octave - 1, 0).mean())


def _roughness(fact: Facts) -> float:
    """Bits a value that its frequency in the column says more than the mean frequency of the numbers around it.

    0 of what is uniform, log2(9) of what is uniform on each ninth number.
    """
    values = fact.filled[fact.present] - fact.low
    if len(values) == 0:
        return 0.0
    counts = np.bincount(values, minlength=fact.high - fact.low + 1).astype(np.float64)
    window = np.ones(2 * NEIGHBOURS + 1)
    around = np.convolve(counts, window, "same") / np.convolve(np.ones(len(counts)), window, "same")
    held = counts > 0
    return float((counts[held] * np.log2(counts[held] / around[held])).sum() / len(values))


def _linear(fact: Facts, earlier: list[Facts]) -> Linear | None:
    """Least squares on earlier numbers, now and before, and on the own previous value; outliers dropped twice."""
    numbers = [(i, f) for i, f in enumerate(earlier) if f.ordered and f.high - f.low + 1 > 8][-MAX_LINEAR:]
    if not numbers or len(fact.filled) < 64:
        return None
    now = [f.filled[1:] for _, f in numbers]
    before = [f.filled[:-1] for _, f in numbers]
    design = np.stack([*now, *before, fact.filled[:-1]], 1).astype(np.float64)
    center, spread = design.mean(0), design.std(0) + 1e-9
    scaled = np.concatenate([(design - center) / spread, np.ones((len(design), 1))], 1)
    target = fact.filled[1:].astype(np.float64)
    keep = fact.present[1:].copy()
    weights = np.zeros(scaled.shape[1])
    for _ in range(3):
        if keep.sum() < 32:
            return None
        part = scaled[keep]
        ridge = 1e-4 * len(part) * np.eye(part.shape[1])
        weights = np.linalg.solve(part.T @ part + ridge, part.T @ target[keep])
        error = np.abs(target - scaled @ weights)
        keep = fact.present[1:] & (error <= 4 * np.median(error[fact.present[1:]]) + 1)
    raw = weights[:-1] / spread
    fixed = np.rint(raw * 65536).astype(np.int64)
    constant = int(np.rint((weights[-1] - (raw * center).sum()) * 65536))
    if np.abs(fixed).max() > 1 << 26 or abs(constant) > 1 << 52:
        return None
    k = len(numbers)
    return Linear(
        sources=tuple(i for i, _ in numbers),
        now=tuple(fixed[:k].tolist()),
        before=tuple(fixed[k : 2 * k].tolist()),
        own=int(fixed[2 * k]),
        constant=constant,
    )


def _predict(linear: Linear, fact: Facts, earlier: list[Facts]) -> Longs:
    """What the codec's loop will predict, row by row (`vae.codec.frontend.predict`)."""
    previous = np.concatenate([fact.filled[:1], fact.filled[:-1]])
    total = linear.own * previous + linear.constant
    for source, now, before in zip(linear.sources, linear.now, linear.before, strict=True):
        values = earlier[source].filled
        total = total + now * values + before * np.concatenate([values[:1], values[:-1]])
    return (total + 32768) >> 16


def _greedy(fact: Facts, earlier: list[Facts], bits: _Measure) -> tuple[tuple[int, ...], float]:
    """Earlier columns that, taken together, shorten the code most; added while each saves 2%."""
    chosen: tuple[int, ...] = ()
    best = bits(np.zeros(len(fact.filled), np.int64), fact)
    candidates = _promising(fact, earlier, bits)
    while len(chosen) < MAX_GREEDY_PARENTS:
        tried = sorted((bits(_keys((*chosen, i), earlier), fact), i) for i in candidates)
        if not tried or tried[0][0] > 0.98 * best:
            break
        best, added = tried[0]
        chosen = (*chosen, added)
        candidates = [i for _, i in tried[1 : MAX_RETRIED + 1]]
    return chosen, best


def _promising(fact: Facts, earlier: list[Facts], bits: _Measure) -> list[int]:
    """The earlier columns that vary; of very many those that alone shorten the code most on the first rows."""
    varied = [i for i, f in enumerate(earlier) if f.distinct > 1]
    if len(varied) <= MANY:
        return varied
    own, others = _first_rows(fact), [_first_rows(f) for f in earlier]
    ranked = sorted((bits(_keys((i,), others), own), i) for i in varied)
    return sorted(i for _, i in ranked[:MANY])


def _first_rows(fact: Facts) -> Facts:
    return fact._replace(
        filled=fact.filled[:FEW_ROWS], present=fact.present[:FEW_ROWS], cells=fact.cells[:FEW_ROWS]
    )


def _backed_off(parents: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The full context, then shorter ones, then all rows."""
    lengths = sorted({len(parents), len(parents) - 1, 1} & set(range(1, len(parents) + 1)), reverse=True)
    return (*(parents[:k] for k in lengths), ())


def _keys(parents: tuple[int, ...], earlier: list[Facts]) -> Longs:
    """Dense numbers for the combinations of what the parents hold."""
    keys = np.zeros(len(earlier[0].cells) if earlier else 0, np.int64)
    for p in parents:
        cells = earlier[p].cells
        keys = np.unique(keys * (int(cells.max(initial=0)) + 1) + cells, return_inverse=True)[1].astype(
            np.int64
        )
    return keys


def _context_bits(keys: Longs, fact: Facts) -> float:
    values = np.unique(fact.cells, return_inverse=True)[1].astype(np.int64)
    return _adaptive_bits(keys, values, fact.distinct) / max(1, len(values))


def _recall_bits(keys: Longs, fact: Facts) -> float:
    recalled = _recalled(keys, fact.filled, fact.present)
    return _octave_bits((fact.filled - recalled)[fact.present])


def _recalled(keys: Longs, values: Longs, present: npt.NDArray[np.bool_]) -> Longs:
    return _last_with_key(keys, values, present, int(keys.max(initial=0)) + 1)


@jit_with_arrays
def _last_with_key(keys: Longs, values: Longs, present: npt.NDArray[np.bool_], count: int) -> Longs:
    """The last value seen with the same key; the previous row's where there is none."""
    last = np.zeros(count, np.int64)
    known = np.zeros(count, np.bool_)
    out = np.zeros(values.shape[0], np.int64)
    for t in range(values.shape[0]):
        key = keys[t]
        out[t] = last[key] if known[key] else values[max(t - 1, 0)]
        if present[t]:
            last[key] = values[t]
            known[key] = True
    return out


def _adaptive_bits(keys: Longs, values: Longs, distinct: int) -> float:
    """Code length in bits under adaptive counts with escapes (PPM, method C; Moffat 1990), order-0 uniform."""
    pairs = keys * (int(values.max(initial=0)) + 1) + values
    dense = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
    return float(
        _ppm_bits(keys, dense, int(keys.max(initial=0)) + 1, int(dense.max(initial=0)) + 1, max(2, distinct))
    )


@jit_with_arrays
def _ppm_bits(keys: Longs, pairs: Longs, n_keys: int, n_pairs: int, distinct: int) -> float:
    """Bits of all rows; `keys` and `pairs` (a key with its value) number densely what occurs."""
    totals, kinds = np.zeros(n_keys, np.int64), np.zeros(n_keys, np.int64)
    counts = np.zeros(n_pairs, np.int64)
    bits = 0.0
    literal = math.log2(distinct)
    for t in range(keys.shape[0]):
        k, p = keys[t], pairs[t]
        room = totals[k] + kinds[k]
        if counts[p] > 0:
            bits += math.log2(room / counts[p])
        else:
            bits += literal + (math.log2(room / kinds[k]) if kinds[k] > 0 else 0.0)
            kinds[k] += 1
        counts[p] += 1
        totals[k] += 1
    return bits
