"""What single latents say: a usual code in which one latent at a time takes its other values, and the rows it gives."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch

from data.largetable import AnyTable
from data.onehot import with_groups
from data.stored import is_numeric
from vae.codec.images import ImageModel
from vae.codes import Codes, encode_rows, rows_from_codes
from vae.examples import shortened
from vae.features import Layout
from vae.metrics import sparsity, usage
from vae.mosaic import columns_of_images, figure, images_in
from vae.pipeline import integer_model
from vae.sections import Figure, Section, Table
from vae.store import TrainedModel

CODED_ROWS = 8_192
"""Rows whose codes say which values latents take."""
DRAWN_ROWS = 2_048
"""Codes drawn from the prior where there are no rows."""
MOST_WALKS, MOST_VALUES, MOST_COLUMNS, MOST_LISTED = 4, 7, 4, 16


class Walk(NamedTuple):
    """One latent on its way over the values it takes, all others as in the usual code."""

    latent: int
    values: tuple[int, ...]
    """Ascending."""
    shares: tuple[float, ...]
    """Share of rows on which it has each."""
    usual: int
    """Place of the usual code's own value."""
    rows: pa.Table
    """What the code alone says at each value: the columns that change, the most changed first."""


class Latents(NamedTuple):
    """What the page says of a model's latents."""

    codes: Codes
    drawn: bool
    """Whether the codes are the prior's, and not those of rows."""
    walks: tuple[Walk, ...]
    """Of the most used latents."""


def traverse(trained: TrainedModel, table: AnyTable | None = None) -> Latents | None:
    """The most used latents of a model, as the rows of a table use them or, without one, as the model draws them.

    None where there is no code, or no row.
    """
    codes = _seen_codes(trained, table)
    return Latents(codes, table is None, tuple(walks(trained, codes))) if codes.size else None


def _seen_codes(trained: TrainedModel, table: AnyTable | None = None) -> Codes:
    if not trained.layout.plan.latents:
        return np.zeros((0, 0), np.int8)
    if table is None:
        random = np.random.Generator(np.random.Philox(key=0))
        model = integer_model(trained)
        model = model.codes if isinstance(model, ImageModel) else model  # no pixel need be drawn for a code
        return model.sample_block(DRAWN_ROWS, random)[2]
    rows = np.linspace(0, table.num_rows - 1, min(table.num_rows, CODED_ROWS)).astype(np.int64)
    return encode_rows(trained, table.take(pa.array(rows)))


def usual_code(codes: Codes) -> Codes:
    """The code that most rows have; of several, the one nearest to what is usual of each latent by itself.

    >>> usual_code(np.array([[0, 9], [1, 2], [1, 0], [1, 0], [0, 9]], np.int8)).tolist()
    [1, 0]
    """
    found, counts = np.unique(codes, axis=0, return_counts=True)
    away = np.abs(found - np.median(codes, axis=0)).sum(axis=1)
    return found[np.lexsort((away, -counts))[0]]


def walks(trained: TrainedModel, codes: Codes) -> list[Walk]:
    """The few most used latents, each over the values that it takes in `codes`; of large alphabets, over some."""
    usual, used = usual_code(codes), usage(codes)
    varied = [int(k) for k in np.argsort(-used, kind="stable") if len(np.unique(codes[:, k])) > 1]
    return [_walk(trained, codes, usual, latent) for latent in varied[:MOST_WALKS]]


def latents_section(latents: Latents | None) -> list[Section]:
    """The latents as the page shows them."""
    if latents is None:
        return []
    rows = f"{len(latents.codes):,}"
    of = f"{rows} codes drawn from the model" if latents.drawn else f"the codes of {rows} rows"
    words = [f"Taken from {of}."]
    if latents.walks:
        words = [
            f"Taken from {of}. Each table below begins with the most usual code and moves one latent over the values "
            "that it takes, the others held fast. They show what the code alone says of the columns that change most."
        ]
    pictured = [walk for walk in latents.walks if columns_of_images(walk.rows)]
    tables = [_table(walk) for walk in latents.walks if walk not in pictured]
    figures = [_figure(walk) for walk in pictured]
    return [Section("What the latents say", words, [_used(latents.codes), *tables], figures)]


def _figure(walk: Walk) -> Figure:
    """Of images: what the code alone says at each value of a latent."""
    (name,) = columns_of_images(walk.rows)
    values = ", ".join(
        f"{value} (usual)" if place == walk.usual else str(value) for place, value in enumerate(walk.values)
    )
    return figure(
        [images_in(walk.rows, name)],
        f"The image that the code alone says, as latent {walk.latent} takes the values {values}.",
        f"Latent {walk.latent}, from left to right: {values}",
    )


def _walk(trained: TrainedModel, codes: Codes, usual: Codes, latent: int) -> Walk:
    values, counts = np.unique(codes[:, latent], return_counts=True)
    place = int(np.searchsorted(values, usual[latent]))
    some = np.unique([*np.linspace(0, len(values) - 1, min(len(values), MOST_VALUES)).astype(int), place])
    steps = np.repeat(usual[None], len(some), 0)
    steps[:, latent] = values[some]
    rows = with_groups(rows_from_codes(trained, steps), trained.grid)
    if not isinstance(trained.layout, Layout):
        ways = np.ones(1)
    else:
        ways = trained.of_columns.codes_only.ways(
            *(torch.from_numpy(code.astype(np.float32)) for code in (steps, usual))
        )
    told = [trained.layout.plan.names[k] for k in np.argsort(-ways, kind="stable")]
    changed = [name for name in told if len({str(value) for value in rows[name].to_pylist()}) > 1]
    return Walk(
        latent=latent,
        values=tuple(int(value) for value in values[some]),
        shares=tuple(float(count) / len(codes) for count in counts[some]),
        usual=int(np.searchsorted(some, place)),
        rows=rows.select(changed[:MOST_COLUMNS]),
    )


def _used(codes: Codes) -> Table:
    """The most used latents, and how many there are of which kind."""
    used, facts = usage(codes), sparsity(codes)
    order = np.argsort(-used, kind="stable")[:MOST_LISTED]
    rows = [
        (f"latent {k}", f"{used[k]:.1%}", f"{codes[:, k].min()} to {codes[:, k].max()}")
        for k in order.tolist()
    ]
    most = "" if len(rows) == codes.shape[1] else f", the {len(rows)} most used"
    caption = (
        f"{codes.shape[1]} latents{most}: {facts['active_units']:.0f} active (variance above 0.01), "
        f"{facts['dead_latents']:.0f} dead (the same on every row)"
    )
    return Table(
        caption,
        ("latent", "on in", "values"),
        rows,
        (1,),
        (100 * used[order] / max(used.max(), 1e-9)).tolist(),
    )


def _table(walk: Walk) -> Table:
    rows = [
        (
            f"{value} (usual)" if place == walk.usual else str(value),
            f"{share:.1%}",
            *(_cell(walk.rows[name][place]) for name in walk.rows.column_names),
        )
        for place, (value, share) in enumerate(zip(walk.values, walk.shares, strict=True))
    ]
    numeric = [k + 2 for k, field in enumerate(walk.rows.schema) if is_numeric(field.type)]
    changes = "" if walk.rows.num_columns else "; no column changes"
    return Table(
        f"Latent {walk.latent}, moved{changes}",
        ("value", "of rows", *walk.rows.column_names),
        rows,
        (1, *numeric),
        (),
        [walk.usual],
    )


def _cell(value: pa.Scalar) -> str:
    """A value, short: what the code alone says is a gist.

    >>> _cell(pa.scalar(0.123456)), _cell(pa.scalar(2013)), _cell(pa.scalar(None, pa.int8()))
    ('0.1235', '2013', 'null')
    """
    found = cast(Any, value).as_py()
    if found is None:
        return "null"
    return f"{found:.4g}" if isinstance(found, float) else shortened(str(found))
