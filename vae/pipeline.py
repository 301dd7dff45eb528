"""From a table to a trained model, and from a model to codes and an archive: what the flows and `vae.compress` call."""

from __future__ import annotations

import functools
import gc
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data.atomic import check_writable
from data.bounds import effective_bound
from data.errors import BoundError, ModelError
from data.kinds import listed
from data.largetable import AnyTable
from data.onehot import encode_table
from data.schema import Schema
from data.split import TEST
from vae.codec import archive, blocks, columns, structure
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codes import encode_symbols
from vae.judging import Judged, alone, held_out
from vae.lesson import NothingToModelError, Split, lesson_of
from vae.settings import Codes, ModelSettings, TrainSettings
from vae.store import TrainedModel, load, new_module, save
from vae.texts import TextLayout, TextVAE, share_read

Progress = Callable[[dict[str, Any]], None]


class Score(NamedTuple):
    """What a registry's gate weighs, measured on held-out rows."""

    model_bytes: int
    """Weights as an archive holds them, and the tables of grids and functions."""
    bits_per_row: float
    """Code, columns and what the model leaves to other coders, with hard codes and the codec's weights."""
    code_score: float
    """Mean over the modelled columns of R² or accuracy above the majority share, from the code alone."""
    rows: int


def fit(
    table: AnyTable,
    schema: Schema,
    *,
    bounds: Mapping[str, float] | None = None,
    model: ModelSettings | None = None,
    training: TrainSettings | None = None,
    split: Split | None = None,
    out: Path | None = None,
    texts: bool = True,
    on_progress: Progress | None = None,
) -> TrainedModel:
    """Train a model of `table`; with `out`, save it there, and go on where a killed training was.

    Where nothing else can be modelled that is one of texts, unless `texts` is False.

    `split` (rows,): 0 train, 1 validation, 2 test; without it all rows are trained on, and nothing that is reported
    speaks of generalisation. Grids, which are the archive's format, are made from all rows. Of more rows than
    `training.rows` all else is made from so many: lookup tables and the model's shape from evenly spread runs, weights
    from rows drawn from evenly spread blocks. The record keeps the score of the code on test rows.

    Raises:
        NothingToModelError: All columns follow from others, or have no grid.
        ModelError: Training diverged.
        DataError: `out` cannot be written.
    """
    if out is not None:
        check_writable(out, folder=True)
    model, training = model or ModelSettings(), training or TrainSettings()
    lesson = lesson_of(table, bounds, model, split, training.rows, texts=texts)
    from vae import train  # Lightning takes seconds to import, and 170 MB that fitting grids may want

    layout = lesson.layout
    module, record = train.fit(
        lambda: new_module(layout, model),
        train.Rows(lesson.arrays, lesson.learn, lesson.held),
        training,
        folder=out,
        on_progress=on_progress,
    )
    grid, tested = lesson.grid, lesson.tested
    del lesson
    gc.collect()  # the trainer and its modules hold each other, and the rows with them
    record = {**record, "bounds": {name: float(width) for name, width in (bounds or {}).items()}}
    trained = TrainedModel(module=module, grid=grid, schema=schema, training=training, record=record)
    if len(tested) and layout.plan.latents:
        score = alone(trained, table.take(pa.array(tested)))
        record |= {"code_score": round(score, 4), "code_score_rows": len(tested)}
    if out is not None:
        save(trained, out)
        train.forget(out)
    return trained


def integer_model(trained: TrainedModel) -> IntegerModel | ImageModel:
    """The decoder as the codec runs it; ModelError where its sums could overflow."""
    return trained.module.integers()


def check_table(trained: TrainedModel, table: AnyTable) -> None:
    """Raises ModelError where the table's columns are not the model's."""
    have, want = table.column_names, trained.schema.names
    if have != want:
        lacking = [name for name in want if name not in have]
        extra = [name for name in have if name not in want]
        what = (
            f"lacks column {lacking[0]!r}"
            if lacking
            else f"has an unknown column {extra[0]!r}"
            if extra
            else ""
        )
        what = what or "has its columns in another order"
        raise ModelError(f"the model is for another schema: this table {what}; train a model for it")
    for mine, field in zip(trained.schema.to_arrow(), table.schema, strict=True):
        if mine.type != field.type:
            raise ModelError(
                f"the model is for another schema: column {field.name!r} is {field.type}, not {mine.type}; "
                f"train a model for it, or {_way_out(mine.type, field.type)}"
            )


def _way_out(wanted: pa.DataType, found: pa.DataType) -> str:
    if pa.types.is_integer(wanted) and pa.types.is_floating(found):
        return "write its whole numbers without a point (pandas: frame.convert_dtypes() before to_csv)"
    return "name its type in a schema file"


def own_bounds(trained: TrainedModel) -> dict[str, float]:
    """The error that the model's archives keep to, of each column that need not be exact; absolute."""
    return _on_grid(trained, trained.record.get("bounds", {}))


def check_bounds(trained: TrainedModel, bounds: Mapping[str, float]) -> None:
    """Raises BoundError where the model keeps less than is asked; one that keeps more serves as well."""
    own, asked = own_bounds(trained), _on_grid(trained, bounds)
    for name, width in own.items():
        if asked.get(name, 0.0) < width:
            raise BoundError(
                f"bound {bounds.get(name, 0.0):.9g} for column {name!r}: the model keeps it within {width:.9g} only; "
                f"ask for --bound '{name}={width!r}' or more, for --bound model to take its own, "
                "or compress without --model"
            )


def kept_tighter(trained: TrainedModel, bounds: Mapping[str, float]) -> dict[str, float]:
    """Columns that the model keeps within less than is asked, and within how much."""
    own, asked = own_bounds(trained), _on_grid(trained, bounds)
    return {name: own.get(name, 0.0) for name, width in asked.items() if own.get(name, 0.0) < width}


def check_same_bounds(trained: TrainedModel, bounds: Mapping[str, float]) -> None:
    """Raises BoundError where the model is for other bounds, tighter or wider: bits a row do not compare then."""
    own, asked = own_bounds(trained), _on_grid(trained, bounds)
    for name in trained.schema.names:
        have, want = own.get(name, 0.0), asked.get(name, 0.0)
        if not math.isclose(have, want, rel_tol=1e-12):
            raise BoundError(f"bound {want:g} for column {name!r}: the model was trained with {have:g}")


def _on_grid(trained: TrainedModel, bounds: Mapping[str, float]) -> dict[str, float]:
    """Widths as the grids have them, without those that allow no error; what has no grid is exact."""
    names = trained.schema.names
    for name in bounds:
        if name not in names:
            raise BoundError(f"there is no column {name!r} to bound; {listed(names)}")
    gridded = {grid.name for grid in trained.grid.columns if grid.kind != "opaque"} & bounds.keys()
    widths = {
        name: effective_bound(bounds[name], trained.schema.column(name).type)
        for name in names
        if name in gridded
    }
    return {name: width for name, width in widths.items() if width > 0}


def compress(
    table: AnyTable,
    path: str | Path,
    *,
    bounds: Mapping[str, float] | None = None,
    model: TrainedModel | str | Path | None = None,
    settings: ModelSettings | None = None,
    training: TrainSettings | None = None,
    rivals: bool = False,
    embed_model: bool = True,
    facts: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> archive.ArchiveReport:
    """Write the verified archive of a table; without `model`, train one for this very table, of all its rows but a few
    on which its code is scored.

    Args:
        table: Any Arrow table, or one on disk (`data.largetable`).
        path: Where to; a file of that name is replaced when the new one has been read back and compared.
        bounds: Largest |x - restored| of columns, absolute, in the column's unit; 0 or absent is exact. None takes
            those of `model`, which keeps its own where they are tighter than asked.
        model: A trained model, or the folder that holds one (`svae train`, `vae.pipeline.fit`).
        settings: Of the model that is trained, if none is given.
        training: How it is trained, if none is given.
        rivals: Measure also what CSV, Parquet and pcodec make of the table.
        embed_model: Or refer to it by its digest; the archive then opens with the model beside it only.
        facts: For the report: `source_bytes` (of the source as handed over) and `stored_bytes` (on disk).
        on_progress: Called with a dictionary now and then, in training and writing.

    The model is left out where the archive is smaller without it.

    Raises:
        ModelError: The model cannot be loaded, or is for another schema.
        BoundError: The model keeps a column less exactly than asked.
        DataError: `path` cannot be written.

    >>> import pyarrow as pa, vae
    >>> from vae.settings import TrainSettings
    >>> table = pa.table({"at": [k / 8 for k in range(1_000)], "shop": ["north", "south"] * 500})
    >>> report = vae.compress(table, "sales.svae", bounds={"at": 0.5}, training=TrainSettings(steps=20))
    >>> with vae.open("sales.svae") as sales:
    ...     sales.verify(table)
    {'at': 0.5, 'shop': 0.0}
    """
    check_writable(path)  # a training may take minutes
    began, fitted = time.perf_counter(), model is None
    if model is None:
        model = _fit_or_none(table, bounds, settings, training, on_progress)
        facts = {"train_seconds": time.perf_counter() - began, **(facts or {})}
    else:
        model = model if isinstance(model, TrainedModel) else load(model)
        check_table(model, table)
        if bounds is not None:
            check_bounds(model, bounds)

    if model is None or isinstance(model.module, TextVAE):  # texts are left to other coders
        bounds = own_bounds(model) if model is not None and bounds is None else bounds
        why = "nothing to model" if model is None else "texts"
        report = archive.write(table, path, bounds=bounds, rivals=rivals, facts=facts, progress=on_progress)
        return report.model_copy(update={"without_model": why})
    known = {key: model.record[key] for key in ("code_score", "code_score_rows") if key in model.record}
    report = archive.write(
        table,
        path,
        bounds=own_bounds(model),
        grid=model.grid,
        derived=model.layout.derived,
        model=integer_model(model),
        codes=functools.partial(encode_symbols, model),
        family=model.settings.family.value,
        embed_model=embed_model,
        rivals=rivals,
        facts={**known, **(facts or {})},
        progress=on_progress,
        fitted=fitted,
    )
    return report if report.model_sha256 else report.model_copy(update={"without_model": "smaller without"})


def score(trained: TrainedModel, table: pa.Table, split: Split, judged: Judged | None = None) -> Score:
    """What the gate weighs, on the rows that `split` says are test rows; ModelError where there are none.

    The code is scored on `judged`, by default on what this model codes; two models are compared on the same.
    """
    from vae.evaluate import coded_among, model_bits

    check_table(trained, table)
    rows = np.flatnonzero(split == TEST)
    if not len(rows):
        raise ModelError("no held-out rows to score a model on; give a larger table")
    found = model_bits(trained, *coded_among(trained, table, rows))
    bits = float(found["total"])
    held = table.take(pa.array(rows))
    if isinstance(trained.layout, TextLayout):
        # else who reads less of a text would pay less for it
        share = share_read(held[trained.layout.plan.name].to_pylist(), trained.layout)
        bits = float(found["code"]) + (bits - float(found["code"])) / share
    bits += 8 * _bytes_beside(trained, held) / len(rows)
    return Score(_format_bytes(trained), bits, alone(trained, held, judged), len(rows))


def _bytes_beside(trained: TrainedModel, table: pa.Table) -> int:
    """What an archive of these rows holds beside code and modelled columns: exceptions, escapes, other coders'."""
    coded = encode_table(trained.grid, table.column)
    grids = {c.name: c for c in trained.grid.columns}
    derived = {d.name: d for d in trained.layout.derived}

    def cells(name: str) -> structure.Cells:
        return structure.Cells(coded[name].symbols, coded[name].state)

    total = 0
    for name, grid in grids.items():
        if name in trained.layout.plan.names:
            total += len(blocks.pack_nudges(coded[name]))
            total += len(columns.pack(coded[name].escapes)) if len(coded[name].escapes) else 0
        elif name in derived:
            predicted = derived[name].evaluate(grids, cells, table.num_rows)
            total += len(blocks.pack_nudges(coded[name])) + len(
                blocks.pack_exceptions(coded[name], predicted)
            )
        else:
            total += len(blocks.pack_cells(coded[name]) if grid.one_hot else columns.pack(table[name]))
    return total


def _format_bytes(trained: TrainedModel) -> int:
    """Bytes that every archive of this model pays: its weights, and the tables of its grids and functions."""
    derived = {d.name: d for d in trained.layout.derived}
    kept = {*trained.layout.plan.names, *derived}
    grids = [c if c.name in kept else None for c in trained.grid.columns]
    tables, _ = blocks.pack_tables(grids, [derived.get(c.name) for c in trained.grid.columns], [])
    return len(integer_model(trained).to_bytes()) + len(tables)


def _fit_or_none(
    table: AnyTable,
    bounds: Mapping[str, float] | None,
    settings: ModelSettings | None,
    training: TrainSettings | None,
    on_progress: Progress | None,
) -> TrainedModel | None:
    """A model for this very table, trained on all rows but those on which its code is scored; None where nothing can
    be modelled.
    """
    if table.num_rows == 0:
        return None
    schema = Schema.from_arrow(table.schema)
    split = np.zeros(table.num_rows, np.uint8)
    if settings is None or settings.codes is not Codes.none:
        split[held_out(table.num_rows)] = TEST
    try:
        return fit(
            table,
            schema,
            bounds=bounds,
            model=settings,
            training=training,
            split=split if split.any() else None,
            texts=False,
            on_progress=on_progress,
        )
    except NothingToModelError:
        return None
