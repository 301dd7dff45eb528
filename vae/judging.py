"""What a sparse code is judged by: how well the columns that a model codes come back from the code alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.grid import TableGrid
from data.onehot import with_groups
from vae import metrics
from vae.codes import encode_rows, rows_from_codes
from vae.store import TrainedModel

HELD_RUN = 128
"""Rows of a run that is held out; neighbours stay together, or a series would leak."""
HELD_SHARE = 32
"""One row in so many is held out where an archive's own model has a code."""
MOST_HELD = 16_384
"""Rows held out, at most."""


class Judged(NamedTuple):
    """What is judged: columns, and one-hot groups each as one."""

    names: tuple[str, ...]
    """Columns of the table, or groups of `grid`."""
    grid: TableGrid
    """Holds the groups."""


def judged_columns(trained: TrainedModel, rival: TrainedModel | None = None) -> Judged:
    """What a model codes; with a rival, what either of the two codes, so that neither picks its own."""
    group_of = {name: group.name for group in trained.grid.columns if group.one_hot for name in group.values}
    names = list(trained.layout.plan.names)
    for name in rival.layout.plan.names if rival else ():
        grid = rival.grid[name] if rival else None
        parts = grid.values if grid is not None and grid.one_hot else (name,)
        names += [group_of.get(part, part) for part in parts]
    return Judged(tuple(dict.fromkeys(names)), trained.grid)


def code_quality(judged: Judged, original: pa.Table, rebuilt: pa.Table) -> dict[str, dict[str, float | None]]:
    """`vae.metrics.column_quality` of what is judged, for rows that were rebuilt from their codes."""
    names = list(judged.names)
    given, back = (with_groups(table, judged.grid).select(names) for table in (original, rebuilt))
    return metrics.table_quality(given, back)


def alone(trained: TrainedModel, held: pa.Table, judged: Judged | None = None) -> float:
    """Score of a model's code on rows that it did not learn from: of `judged`, by default of what the model codes."""
    if not trained.layout.plan.latents:
        return 0.0
    rebuilt = rows_from_codes(trained, encode_rows(trained, held))
    return metrics.code_score(code_quality(judged or judged_columns(trained), held, rebuilt))


def held_out(rows: int) -> npt.NDArray[np.int64]:
    """The rows that are kept from the training of an archive's own model: evenly spread runs; none of few rows.

    >>> held_out(4_000).tolist()
    []
    >>> len(held_out(93_000)), len(held_out(10_000_000))
    (2816, 16384)
    """
    runs = min(rows // (HELD_SHARE * HELD_RUN), MOST_HELD // HELD_RUN)
    starts = (2 * np.arange(runs, dtype=np.int64) + 1) * rows // (2 * max(1, runs)) - HELD_RUN // 2
    return (starts[:, None] + np.arange(HELD_RUN)).ravel()
