"""Distinct values, and which columns of text are categories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute

from data.kinds import CATEGORY_CAP, Kind
from data.schema import Schema

pc: Any = pyarrow.compute


class DistinctValues:
    """The distinct values of a column, exact up to `CATEGORY_CAP`; nulls are not counted."""

    def __init__(self) -> None:
        self.values: pa.Array | None = None
        """The values in order of appearance; None above the cap, or before the first."""
        self.is_full = False
        """Whether there are more than the cap."""

    def add(self, values: pa.Array) -> None:
        """Count more values (distinct among themselves or not)."""
        if self.is_full:
            return
        new = pc.drop_null(pc.unique(values))
        merged = new if self.values is None else pc.unique(pa.concat_arrays([self.values, new]))
        self.is_full = len(merged) > CATEGORY_CAP
        self.values = None if self.is_full else merged

    @property
    def count(self) -> int | None:
        """How many; None above the cap."""
        return None if self.is_full else 0 if self.values is None else len(self.values)


def text_kind(distinct: int | None, cells: int) -> Kind:
    """Categories repeat themselves, text does not."""
    return Kind.categorical if distinct is not None and distinct * 2 < cells else Kind.text


def with_categories(schema: Schema, batches: Iterable[pa.RecordBatch]) -> Schema:
    """The schema with its text columns told apart into text and categories.

    Args:
        schema: Kinds as Arrow's types alone tell them.
        batches: All rows of (at least) the text columns; reading stops as soon as no column can be a category.
    """
    counters = {column.name: DistinctValues() for column in schema.columns if column.kind is Kind.text}
    cells = 0
    for batch in batches if counters else ():
        cells += batch.num_rows
        for name, counter in counters.items():
            values = batch.column(name)
            counter.add(pc.cast(values, pa.string()) if pa.types.is_string_view(values.type) else values)
        if all(counter.is_full for counter in counters.values()):
            break
    kinds = {name: text_kind(counter.count, cells) for name, counter in counters.items()}
    columns = (
        column.model_copy(update={"kind": kinds.get(column.name, column.kind)}) for column in schema.columns
    )
    return schema.model_copy(update={"columns": tuple(columns)})
