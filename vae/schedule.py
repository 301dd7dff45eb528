"""When training does what: steps, phases, learning rate, batch order, as pure functions of step and seed.

Nothing here looks at a clock or keeps a state, so a training that was killed knows where it was from its step
alone.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vae.settings import Effort

PhaseName = Literal["joint", "settle", "refit", "quantise"]

FULL_COLUMNS = 20
"""Coded columns up to which a table gets the full number of steps; `flights` has 12, `solar` 17."""
FULL_STEPS = {Effort.fast: 2_000, Effort.standard: 8_000, Effort.max: 30_000}
"""Steps for a large table: 40 s, 3 and 10 minutes on `flights` at 20 ms a step, twice that on slower cores."""
SERIES_STEPS = 1.5
"""A series, whose decoder learns more slowly, goes on for so many times as long."""
FULL_ROWS = 65_000
"""Rows from which on a table gets the full number of steps."""
FEWEST_STEPS = 200
QUANTISE_SHARE = 0.1
WARMUP_SHARE, WARMUP_STEPS = 0.05, 100
FLOOR = 0.02
PHASE_PEAK: dict[PhaseName, float] = {"joint": 1.0, "settle": 0.5, "refit": 0.5, "quantise": 0.25}
SETTLE_SHARES = (0.6, 0.75)
"""Of the joint steps of a code that is calibrated, those at which it is held fast for a while and at which it is let go
again: what prior and decoder make of a code that stands still is what it will be at the end."""


class Phase(NamedTuple):
    """A stretch of training, from step `start` up to but without step `stop`."""

    name: PhaseName
    start: int
    stop: int


def steps(rows: int, columns: int, effort: Effort, *, series: bool = False) -> int:
    """Optimiser steps for a table: fewer where a step is dear (many columns) or the rows are few, more for a series.

    >>> steps(336_776, 12, Effort.fast) == FULL_STEPS[Effort.fast]
    True
    >>> [steps(200_000, columns, Effort.standard) for columns in (5, 20, 40)]
    [8000, 8000, 4000]
    >>> steps(1, 1, Effort.max), steps(525_600, 17, Effort.standard, series=True)
    (200, 12000)
    """
    by_width = min(1.0, max(1 / 8, FULL_COLUMNS / max(columns, 1)))
    by_rows = math.sqrt(min(1.0, rows / FULL_ROWS))
    full = FULL_STEPS[effort] * (SERIES_STEPS if series else 1.0)
    return max(FEWEST_STEPS, round(full * by_width * by_rows))


def phases(
    total: int, refit_share: float, *, latent: bool = True, quantised: bool = True, settle: bool = False
) -> tuple[Phase, ...]:
    """The phases of `total` steps; without a latent code there is no encoder to freeze and nothing to refit.

    `settle`: the encoder is held fast in between, once, to see what comes of its code.

    >>> phases(1000, 0.3)
    (Phase(name='joint', start=0, stop=700), Phase(name='refit', start=700, stop=900), \
Phase(name='quantise', start=900, stop=1000))
    >>> [tuple(phase) for phase in phases(1000, 0.3, settle=True)][:3]
    [('joint', 0, 420), ('settle', 420, 525), ('joint', 525, 700)]
    >>> phases(1000, 0.3, quantised=False)
    (Phase(name='joint', start=0, stop=1000),)
    """
    if not quantised:
        return (Phase("joint", 0, total),)
    quantise = round(total * (1 - QUANTISE_SHARE))
    refit = min(quantise, round(total * (1 - refit_share))) if latent else quantise
    begin, end = (round(share * refit) for share in SETTLE_SHARES)
    joint = [Phase("joint", 0, begin), Phase("settle", begin, end), Phase("joint", end, refit)]
    bounds: list[Phase] = [
        *(joint if settle and latent else [Phase("joint", 0, refit)]),
        Phase("refit", refit, quantise),
        Phase("quantise", quantise, total),
    ]
    return tuple(phase for phase in bounds if phase.stop > phase.start)


def learning_rate(step: int, phase: Phase) -> float:
    """Share of the peak learning rate: linear warm-up, then linear decay to 2% at the phase's end.

    >>> joint = Phase("joint", 0, 10_101)
    >>> [round(learning_rate(step, joint), 3) for step in (49, 99, 100, 5_100, 10_100)]
    [0.5, 1.0, 1.0, 0.51, 0.02]
    """
    length, position = phase.stop - phase.start, step - phase.start
    rise = max(1, min(WARMUP_STEPS, round(length * WARMUP_SHARE)))
    if position < rise:
        shape = (position + 1) / rise
    else:
        fall = (position - rise) / max(1, length - 1 - rise)
        shape = FLOOR + (1 - FLOOR) * (1 - min(1.0, fall))
    return PHASE_PEAK[phase.name] * shape


def interval(total: int) -> int:
    """Steps between two validations, each of which also writes a checkpoint.

    >>> interval(200), interval(6_000), interval(60_000)
    (20, 100, 500)
    """
    return max(20, min(500, total // 60))


def batch_order(rows: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The training rows as epoch `epoch` visits them."""
    bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    return np.random.Generator(bits).permutation(rows)


def noise_seed(seed: int, step: int) -> int:
    """Seed of the noise of one step, mixed so that neighbouring steps and seeds share nothing.

    >>> noise_seed(0, 1) == noise_seed(0, 1), noise_seed(0, 1) == noise_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
