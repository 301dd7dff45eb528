"""The tables that are measured, and their one-hot groups as one column each."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.grid import State
from data.gridfit import fit_table
from data.onehot import encode_table, find_groups, group_cells
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


def source(name: str) -> Source:
    """The source of a set; SourceError if it is not there."""
    return open_source(SETS[name])


@functools.cache
def variants(name: str) -> tuple[pa.Table, ...]:
    """A set as it is and, if it has one-hot groups, with these merged."""
    table = source(name).table()
    merged = merge_one_hot(table)
    return (table,) if merged.num_columns == table.num_columns else (table, merged)


def merge_one_hot(table: pa.Table) -> pa.Table:
    r"""Groups of columns of which each row has one set, as one column of its place, under all of their names.

    >>> rows = {"x": [0, 1, 0] * 9, "y": [1, 0, 0] * 9, "z": [0, 0, 1] * 9, "b": [5, 6, 7] * 9}
    >>> merge_one_hot(pa.table(rows))[:3].to_pydict()
    {'x\ny\nz': [1, 0, 2], 'b': [5, 6, 7]}
    """
    grid = fit_table(table)
    coded = encode_table(grid, table.column)
    for group in find_groups(grid, coded):
        cells = group_cells(group, grid.columns, coded)
        if (cells.state != State.VALUE).any():
            continue  # rows with none or several set: what they have would be lost
        place = table.column_names.index(group.values[0])
        table = table.drop_columns(list(group.values))
        table = table.add_column(place, "\n".join(group.values), pa.array(cells.symbols))
    return table


@functools.cache
def digest(name: str) -> str:
    """SHA-256 of what the rivals are given of a set, in all its variants."""
    state = hashlib.sha256()
    for table in variants(name):
        whole = table.combine_chunks().replace_schema_metadata(None)
        with pa.ipc.new_stream(pa.PythonFile(_Hashed(state), "w"), whole.schema) as stream:
            stream.write_table(whole)
    return state.hexdigest()


class _Hashed:
    """A file that only feeds a hash."""

    closed = False

    def __init__(self, state: Any) -> None:
        self._state, self._at = state, 0

    def write(self, content: Any) -> int:
        self._state.update(content)
        self._at += len(memoryview(content).cast("B"))
        return len(memoryview(content).cast("B"))

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
