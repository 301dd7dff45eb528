"""What other tools make of an archive's blocks: scipy matrices, pandas frames, Polars queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from vae.codec.blocks import Codes
from vae.extras import needed

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import scipy.sparse as sp

EXTRA = "analysis"
"""What brings DuckDB, Polars and scipy."""
Read = Callable[[Sequence[str] | None, int | None], Iterator[pa.RecordBatch]]
"""Reads columns (None: all) of the first so many rows (None: all), block by block."""


def sparse_matrix(blocks: Iterable[Codes], latents: int) -> sp.csr_matrix:
    """The rows of all blocks, float32; what is not zero of one block after the other, never all of them dense.

    >>> sparse_matrix([np.array([[0, 2], [0, 0]], np.int8), np.array([[-1, 1]], np.int8)], 2).toarray().tolist()
    [[0.0, 2.0], [0.0, 0.0], [-1.0, 1.0]]
    """
    sparse = needed("scipy.sparse", EXTRA)
    values, places, counts = [np.zeros(0, np.float32)], [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    for codes in blocks:
        rows, latent = np.nonzero(codes)
        values.append(codes[rows, latent].astype(np.float32))
        places.append(latent.astype(np.int32))
        counts.append(np.bincount(rows, minlength=len(codes)))
    starts = np.cumsum(np.concatenate(counts))
    content = (np.concatenate(values), np.concatenate(places), starts)
    return sparse.csr_matrix(content, shape=(len(starts) - 1, latents))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A pandas frame in which no integer has become a float.

    >>> to_frame(pa.table({"n": [2**53 + 1, None]}))["n"].tolist()
    [9007199254740993, <NA>]
    """
    import pandas as pd

    lacking = {
        column.type for column in table.columns if pa.types.is_integer(column.type) and column.null_count
    }

    def dtype(kind: pa.DataType) -> Any:
        # the names of Arrow's integers and of pandas' nullable ones differ in their capitals
        name = str(kind).replace("uint", "UInt").replace("int", "Int")
        return getattr(pd, f"{name}Dtype")() if kind in lacking else None

    return table.to_pandas(types_mapper=cast(Any, dtype))


def lazy_frame(schema: pa.Schema, read: Read) -> pl.LazyFrame:
    """A Polars query that reads what it asks for: columns and first rows are handed to `read`, rows filtered here."""
    polars = needed("polars", EXTRA)
    plugins = needed("polars.io.plugins", EXTRA)

    def source(
        columns: list[str] | None, predicate: Any, rows: int | None, _batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        for batch in read(columns or None, rows):
            frame = polars.from_arrow(batch)
            yield frame if predicate is None else frame.filter(predicate)

    kinds = polars.from_arrow(schema.empty_table()).schema
    return plugins.register_io_source(source, schema=kinds, is_pure=True)
