"""What the float model is shown of a table: a `Layout`, and arrays with one row a table row.

The archive's decoder is shown exactly the integers that the codec will show it (`IntegerModel.observe`). The encoder
has its own, freer view of a row: each number's magnitude and bin, each category by name, no other row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data.grid import Coded, TableGrid
from vae.codec.integer import IntegerModel
from vae.codec.plan import Plan
from vae.codec.structure import Derived

Arrays = dict[str, npt.NDArray[Any]]

MAX_NAMES = 512
"""Categories beyond this many share one entry of the encoder's table, the rarest first."""
NUMBER_BINS = 32
GIST = 1.5
"""Nats that the code may win by rebuilding one column, about what it can by a number: else names of thousands rule.

They are shared by all of its names, also by those that the code cannot tell apart: a column of identifiers is hardly
asked for at all."""


class View(BaseModel):
    """How the encoder sees one column, and how the codes-only decoder rebuilds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ordered: bool
    mean: float = 0.0
    scale: float = 1.0
    bins: tuple[int, ...] = ()
    names: tuple[int, ...] = ()
    """Symbols with an entry of their own, the most frequent first; of a number, empty."""
    share: float = 1.0
    """Weight of the column among those that the code is asked to rebuild."""

    @property
    def entries(self) -> int:
        """Entries of the encoder's table: bins or names, one for all others, one for missing."""
        return (len(self.bins) + 1 if self.ordered else len(self.names) + 1) + 1


class Layout(BaseModel):
    """Everything about the shape of the model that the table decides: the plan and the encoder's views."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan
    views: tuple[View, ...]
    """One a column of the plan, in its order."""
    scales: tuple[float, ...]
    """log2 of the typical residual of each column in symbols: where the mixtures' scales begin."""
    derived: tuple[Derived, ...] = ()
    """Columns of the table that follow from others: neither the code nor the decoder spends anything on them."""
    rows: int = Field(default=0, ge=0)
    """Rows of the table that the weights are written beside, and share their cost; 0 lets weights cost nothing."""
    series: bool = False
    """Whether most columns follow from the row above (`vae.planning.is_series`). Only training asks: for the encoder's
    gain and the learning rates. Models that were saved before there was this say no, whatever they are of."""


def block(coded: dict[str, Coded], names: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """symbols and states (rows, columns) of the named columns; of images (rows, values) and (rows, 1)."""
    if len(names) == 1 and coded[names[0]].symbols.ndim > 1:
        return coded[names[0]].symbols, coded[names[0]].state[:, None]
    symbols = np.stack([coded[name].symbols for name in names], 1)
    return symbols, np.stack([coded[name].state for name in names], 1)


def read_grid(grid: TableGrid, names: Sequence[str]) -> TableGrid:
    """The grids that the columns and one-hot groups `names` are read by: theirs, and those of the groups' members."""
    read = [grid[name] for name in names]
    members = [grid[name] for group in read if group.one_hot for name in group.values]
    return TableGrid(columns=tuple({g.name: g for g in (*members, *read)}.values()))


def make_layout(plan: Plan, coded: dict[str, Coded]) -> Layout:
    """The layout for `plan`, its statistics taken from `coded` (the rows that training may see)."""
    views, scales = list[View](), list[float]()
    for item in plan.columns:
        column = coded[item.name]
        present = column.symbols[column.state == 0]
        if not len(present):
            present = np.array([item.low])
        if item.ordered:
            center, spread = float(present.mean()), float(present.std()) or 1.0
            edges = np.quantile(present, np.arange(1, NUMBER_BINS) / NUMBER_BINS, method="nearest")
            bins = tuple(sorted({int(e) for e in edges}))
            views.append(View(name=item.name, ordered=True, mean=center, scale=spread, bins=bins))
        else:
            found, counts = np.unique(present, return_counts=True)
            order = np.lexsort((found, -counts))[:MAX_NAMES]
            share = counts / counts.sum()
            nats = float(-(share * np.log(share)).sum())
            views.append(
                View(
                    name=item.name,
                    ordered=False,
                    names=tuple(int(n) for n in found[order]),
                    share=min(1.0, GIST / max(nats, GIST)),
                )
            )
        scales.append(float(np.log2(np.abs(np.diff(present)).mean() + 1.0)) if len(present) > 1 else 0.0)
    return Layout(plan=plan, views=tuple(views), scales=tuple(scales))


def row_view(layout: Layout, symbols: npt.NDArray[np.int64], states: npt.NDArray[np.uint8]) -> Arrays:
    """The encoder's inputs: value (rows, columns) float32 standardised, entry (rows, columns) int32."""
    value = np.zeros(symbols.shape, np.float32)
    entry = np.zeros(symbols.shape, np.int32)
    for j, view in enumerate(layout.views):
        missing = states[:, j] != 0
        if view.ordered:
            value[:, j] = np.where(missing, 0.0, (symbols[:, j] - view.mean) / view.scale)
            entry[:, j] = np.searchsorted(np.array(view.bins, np.int64), symbols[:, j], side="right")
        else:
            entry[:, j] = _entries(view, symbols[:, j])
        entry[missing, j] = view.entries - 1
    return {"value": value, "entry": entry}


def _entries(view: View, symbols: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    names = np.array(view.names, np.int64)
    order = np.argsort(names)
    at = np.minimum(np.searchsorted(names[order], symbols), len(names) - 1)
    found = names[order][at] == symbols
    return np.where(found, order[at], len(names))


def training_arrays(
    layout: Layout,
    model: IntegerModel,
    symbols: npt.NDArray[np.int64],
    states: npt.NDArray[np.uint8],
    block_rows: int,
) -> Arrays:
    """All that `SparseVAE.loss` reads, in the archive's blocks of `block_rows`, one row a table row."""
    rows = len(symbols)
    arrays: Arrays = {}
    for start in range(0, rows, block_rows):
        inside = slice(start, min(rows, start + block_rows))
        seen = model.observe(np.ascontiguousarray(symbols[inside]), np.ascontiguousarray(states[inside]))
        fill(arrays, seen, rows, inside)
    view = row_view(layout, symbols, states)
    above = {f"{name}_above": np.concatenate([array[:1], array[:-1]]) for name, array in view.items()}
    return (
        arrays
        | view
        | above
        | {
            "symbol": symbols.astype(np.int32),
            "state": states.astype(np.uint8),
            "first": np.arange(rows) % block_rows == 0,
        }
    )


def fill(arrays: Arrays, part: Arrays, rows: int, inside: slice) -> None:
    """Put a part's rows into their place in arrays of `rows` rows, which are made if there are none yet.

    Parts that are kept and joined at the end take twice the memory.
    """
    for name, array in part.items():
        if name not in arrays:
            arrays[name] = np.empty((rows, *array.shape[1:]), array.dtype)
        arrays[name][inside] = array


def blank_model(plan: Plan) -> IntegerModel:
    """An integer model of this plan with all weights 0: it can observe, and its probabilities are flat."""
    return IntegerModel(plan, {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()})
