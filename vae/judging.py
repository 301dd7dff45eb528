"""What a sparse code is judged by: how well the columns that a model codes come back from the code alone."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from data.grid import TableGrid
from data.onehot import with_groups
from vae import metrics
from vae.store import TrainedModel


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
