"""Rows of a table side by side on the evaluation page: as they were, from the code alone, and from the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.largetable import AnyTable
from data.split import TEST
from vae.codec.reader import Archive
from vae.codes import encode_rows, known_columns, rows_from_codes
from vae.lesson import Split
from vae.mosaic import columns_of_images, images_in
from vae.mosaic import figure as mosaic_figure
from vae.sections import Figure, Section, Table
from vae.store import TrainedModel

SHOWN_ROWS, SHOWN_COLUMNS = 6, 8
LONGEST_CELL = 160
"""Characters of a cell on the page."""


class Examples(NamedTuple):
    """Some rows, up to three times."""

    rows: Sequence[int]
    held_out: bool
    """Whether the model was not trained on them."""
    originals: pa.Table
    alone: pa.Table | None
    """From the codes alone."""
    restored: pa.Table | None
    """From the archive."""


def spread(rows: int, most: int = SHOWN_ROWS) -> list[int]:
    """A few rows of so many, evenly spread.

    >>> spread(600), spread(2)
    ([50, 150, 250, 350, 450, 550], [0, 1])
    """
    count = min(rows, most)
    return [(2 * k + 1) * rows // (2 * count) for k in range(count)]


def examples_of(
    trained: TrainedModel, table: AnyTable, split: Split | None, archive: Archive | None = None
) -> Examples | None:
    """Some held-out rows (any, if there are none) as they were, from the code alone, and from the archive."""
    held = np.zeros(0, np.int64) if split is None else np.flatnonzero(split == TEST)
    any_ = held if len(held) else np.arange(table.num_rows)
    rows = any_[spread(len(any_))].tolist()
    if not rows:
        return None
    originals = table.take(pa.array(rows))
    alone = rows_from_codes(trained, encode_rows(trained, originals)) if trained.layout.plan.latents else None
    restored = (
        None if archive is None else pa.concat_tables([archive.read(rows=slice(k, k + 1)) for k in rows])
    )
    shown = (known_columns(trained) or originals.column_names)[:SHOWN_COLUMNS]
    return Examples(rows, len(held) > 0, originals.select(shown), alone, restored)


def examples_section(examples: Examples | None) -> list[Section]:
    """The rows as the page shows them."""
    if examples is None:
        return []
    pictured = columns_of_images(examples.originals)
    names = [name for name in examples.originals.column_names if name not in pictured][:SHOWN_COLUMNS]
    kinds = [("original", examples.originals)]
    kinds += [("code alone", examples.alone)] if examples.alone is not None else []
    kinds += [("archive", examples.restored)] if examples.restored is not None else []
    rows = list[Sequence[str]]()
    ours = list[int]()
    for place, row in enumerate(examples.rows):
        for words, table in kinds:
            ours += [len(rows)] if words == "archive" else []
            cells = [_cell(table, name, place) for name in names]
            rows.append((f"{row:,}, {words}", *cells))
    caption = (
        "Rows that the model was not trained on, side by side" if examples.held_out else "Rows, side by side"
    )
    numeric = [
        k + 1
        for k, name in enumerate(names)
        if not pa.types.is_string(examples.originals.schema.field(name).type)
    ]
    tables = [Table(caption, ("row", *names), rows, numeric, (), ours)] if names else []
    figures = [_pictures(name, kinds) for name in pictured]
    return [Section("Some rows", (), tables, figures)]


def _pictures(name: str, kinds: Sequence[tuple[str, pa.Table]]) -> Figure:
    """A column of images: a row of them for each kind."""
    told = ", ".join(words for words, _ in kinds)
    rows = [images_in(table, name) for _, table in kinds if name in table.column_names]
    return mosaic_figure(
        rows, f"Some images of column {name}, in rows: {told}.", f"{name}, from top to bottom: {told}"
    )


def shortened(text: str) -> str:
    """A text of a cell, cut where it is long.

    >>> shortened("short"), len(shortened("long " * 99))
    ('short', 160)
    """
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 2] + " …"


def _cell(table: pa.Table, name: str, row: int) -> str:
    if name not in table.column_names:
        return ""
    value = table[name][row].as_py()
    return "null" if value is None else shortened(str(value))
