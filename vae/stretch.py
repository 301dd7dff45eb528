"""A stretch of a series as lines on the evaluation page: as it was, from the code alone, and from the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.largetable import AnyTable
from data.split import TEST
from data.stored import is_numeric, stored_numbers
from vae.charts import BLUE, INK, ORANGE, Line, figure, line_chart
from vae.codec.reader import Archive
from vae.codes import encode_rows, rows_from_codes
from vae.evaluate import main_columns
from vae.examples import spread
from vae.features import Layout
from vae.lesson import Split
from vae.metrics import plain
from vae.sections import Figure, Section, Table
from vae.store import TrainedModel

STRETCH_ROWS, MOST_RUNS = 240, 32

Floats = npt.NDArray[np.float64]


class Stretch(NamedTuple):
    """Consecutive rows of some columns of numbers, each as (rows,) floats, NaN where a number is missing."""

    first: int
    """Number of the first row."""
    held_out: bool
    """Whether the model was not trained on them."""
    originals: Mapping[str, Floats]
    alone: Mapping[str, Floats]
    """From the codes alone; empty where there is no code."""
    restored: Mapping[str, Floats]
    """From the archive; empty where there is none."""


def stretch_of(
    trained: TrainedModel,
    table: AnyTable,
    split: Split | None,
    bits: Mapping[str, float],
    archive: Archive | None = None,
) -> Stretch | None:
    """The liveliest of some evenly spread stretches of held-out rows (any, if there are none), of the dearest columns.

    `bits` of each modelled column; None where the table is no series.
    """
    names = [
        name
        for name in main_columns(trained, bits)
        if name in table.column_names and _is_number(table.schema.field(name).type)
    ]
    if not isinstance(trained.layout, Layout) or not trained.layout.series or not names:
        return None
    runs = _runs(table.num_rows, split)
    held_out = bool(runs)
    runs = runs or [(start, start + STRETCH_ROWS) for start in range(0, table.num_rows, STRETCH_ROWS)]
    some = [runs[k] for k in spread(len(runs), MOST_RUNS)]
    first, rows = max(
        ((start, table.slice(start, stop - start)) for start, stop in some),
        key=lambda run: sum(_changes(numbers_of(run[1][name])) for name in names),
    )
    alone = rows_from_codes(trained, encode_rows(trained, rows)) if trained.layout.plan.latents else None
    restored = (
        None if archive is None else archive.read(columns=names, rows=slice(first, first + rows.num_rows))
    )
    originals, back, kept = (
        {} if t is None else {n: numbers_of(t[n]) for n in names} for t in (rows, alone, restored)
    )
    return Stretch(first, held_out, originals, back, kept)


def stretch_section(stretch: Stretch | None) -> list[Section]:
    """The stretch as the page shows it: a chart a column, and how far what came back is off."""
    if stretch is None:
        return []
    kind = "that the model was not trained on" if stretch.held_out else "of the training"
    count = len(next(iter(stretch.originals.values())))
    where = f"rows {stretch.first:,} to {stretch.first + count - 1:,}"
    words = [f"In this table a row follows from the one above. These are {where}, {kind}."]
    columns = [(name, *_off(stretch, name)) for name in stretch.originals]
    heads = ("column", "from", "to", "code alone, mean error", "archive, largest error")
    told = [k for k, there in enumerate((True, True, True, stretch.alone, stretch.restored)) if there]
    rows = [[cells[k] for k in told] for cells in columns]
    table = Table("How far what comes back is off", [heads[k] for k in told], rows, range(1, len(told)))
    charts = [_chart(stretch, name, where) for name in stretch.originals]
    return [Section("Some rows as lines", words, [table], charts)]


def numbers_of(column: pa.ChunkedArray) -> Floats:
    """A column as floats, NaN where a number is missing.

    >>> numbers_of(pa.chunked_array([[1, None]])).tolist()
    [1.0, nan]
    """
    numbers, missing = stored_numbers(plain(column))
    return np.where(missing, np.nan, numbers.astype(np.float64))


def _is_number(kind: pa.DataType) -> bool:
    return is_numeric(kind) and not pa.types.is_temporal(kind)


def _runs(rows: int, split: Split | None) -> list[tuple[int, int]]:
    """Runs of consecutive held-out rows, of `STRETCH_ROWS` at most: first row, and the one after the last."""
    if split is None:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], split == TEST, [False]]).astype(np.int8)))
    return [(int(a), min(int(b), int(a) + STRETCH_ROWS, rows)) for a, b in edges.reshape(-1, 2)]


def _changes(values: Floats) -> int:
    """How often a number is another than the one before."""
    known = values[~np.isnan(values)]
    return int((known[1:] != known[:-1]).sum())


def _off(stretch: Stretch, name: str) -> Sequence[str]:
    """Least and largest original; mean error of the code alone, largest of the archive."""
    given = stretch.originals[name]
    known = given[np.isfinite(given)]
    span = (f"{known.min():.6g}", f"{known.max():.6g}") if len(known) else ("", "")
    errors = []
    for values, of in ((stretch.alone, np.mean), (stretch.restored, np.max)):
        gap = np.abs(values[name] - given) if name in values else np.zeros(0)
        gap = gap[np.isfinite(gap)]
        errors.append(f"{of(gap):.4g}" if len(gap) else "")
    return *span, *errors


def _chart(stretch: Stretch, name: str, where: str) -> Figure:
    kinds = (
        ("original", stretch.originals, INK, ""),
        ("code alone", stretch.alone, ORANGE, "7 3"),
        ("archive", stretch.restored, BLUE, "2 4"),
    )
    x = range(stretch.first, stretch.first + len(stretch.originals[name]))
    lines = [
        Line(words, x, values[name].tolist(), color, dash)
        for words, values, color, dash in kinds
        if name in values
    ]
    low, high, alone, restored = _off(stretch, name)
    alt = f"Lines of {name} over {where}: the original between {low} and {high}"
    alt += f", the code alone {alone} off on average" if alone else ""
    alt += f", the archive {restored} off at most" if restored else ""
    return figure(line_chart(lines, "row"), f"{alt}.", name)
