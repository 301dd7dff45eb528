"""The tables that are measured, and their one-hot groups as one column each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.sources import Source, open_source

DATA = Path(os.environ.get("SVAE_BENCHMARK_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Folder of the sets that no package carries; by default beside the project."""
SETS = {
    "flights": "sample:flights",
    "weather": "sample:weather",
    "solar": "sample:solar",
    "adult": "sample:adult",
    "covertype": str(DATA / "covertype-92962.csv.gz"),
}
FEWEST_TOGETHER = 3
"""Columns of the smallest one-hot group."""


def source(name: str) -> Source:
    """The source of a set; SourceError if it is not there."""
    return open_source(SETS[name])


def merge_one_hot(table: pa.Table) -> pa.Table:
    """Runs of columns of which each row has a single 1 and else 0, as one column of the place of the 1.

    >>> table = pa.table({"a": [1, 0], "x": [0, 1], "y": [1, 0], "z": [0, 0]})
    >>> merge_one_hot(table).to_pydict()
    {'a': [1, 0], 'x': [0, 1], 'y': [1, 0], 'z': [0, 0]}
    >>> table = pa.table({"x": [0, 1, 0], "y": [1, 0, 0], "z": [0, 0, 1], "b": [5, 6, 7]})
    >>> merge_one_hot(table).to_pydict()
    {'x': [1, 0, 2], 'b': [5, 6, 7]}
    """
    names, merged, at = table.column_names, list[tuple[str, pa.Array | pa.ChunkedArray]](), 0
    while at < len(names):
        stop = at + _group(table, at)
        if stop - at >= FEWEST_TOGETHER:
            ones = np.stack([table[name].to_numpy() for name in names[at:stop]], 1)
            merged.append((names[at], pa.array(ones.argmax(1).astype(np.int64))))
            at = stop
        else:
            merged.append((names[at], table[at]))
            at += 1
    return pa.table(dict(merged))


def _group(table: pa.Table, start: int) -> int:
    """Columns from `start` on that together are one-hot; 1 if there is no such group."""
    total = np.zeros(table.num_rows, np.int64)
    for at in range(start, table.num_columns):
        column = table[at]
        if not pa.types.is_integer(column.type) or column.null_count:
            break
        values = column.to_numpy()
        if ((values != 0) & (values != 1)).any():
            break
        total += values
        if (total > 1).any():
            break
        if (total == 1).all():
            return at - start + 1
    return 1
