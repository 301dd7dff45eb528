"""The evaluation of a trained model: numbers and figures, on rows that it was not trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.atomic import atomic_path
from data.grid import Coded, TableGrid
from data.onehot import with_groups
from vae import codes, metrics, mosaic, report
from vae.codec import archive
from vae.codec.container import DEFAULT_BLOCK_ROWS
from vae.codec.summary import ArchiveReport, measure_rivals
from vae.features import Layout, blank_model, block, training_arrays
from vae.images import ImageLayout, moving
from vae.judging import code_quality
from vae.model import SparseVAE
from vae.store import TrainedModel
from vae.texts import TextLayout, text_arrays

TEST = 2
CHUNK, IMAGE_CHUNK, IMAGE_CHUNK_VALUES, TEXT_CHUNK = 4_096, 128, 1 << 17, 256
IWAE_SAMPLES, IWAE_ROWS = 100, 8_192
SIZED_ROWS = 2_000_000
"""Rows above which a table is compressed by general tools only if that is asked for."""
MOST_SHOWN_NAMES = 256
SHOWN_IMAGES = 10
NUMBERS_NAME = "evaluation.json"
STAGES = ("codes", "bits", "reconstruction", "archive", "figures")
"""What is done in turn; the archive only where there is one."""

Progress = Callable[[dict[str, Any]], None]


class Evaluation(NamedTuple):
    """What was measured, and the pictures of it."""

    numbers: dict[str, Any]
    """Nested by part; every leaf is a number or None."""
    figures: tuple[Path, ...]
    """PNG files."""


def evaluate(
    trained: TrainedModel,
    table: pa.Table,
    out: str | Path,
    *,
    split: NDArray[np.uint8] | None = None,
    archive_path: str | Path | None = None,
    sizes: bool = True,
    rivals: bool = False,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Measures a model on the test rows of its table, writes `evaluation.json` and the figures into `out`.

    `split` (rows,): 0 train, 1 validation, 2 test; without test rows all rows are measured, and `rows.held_out` is 0.
    Parts: `rows`, `bits` (per row, by the model), `likelihood` (bits per row), `sparsity`, `codes_only` (from the code
    alone: quality of each column, and `score`), and with an archive `size` (bytes and ratios), `written` (bits per row
    on disk) and `restored` (quality of each column as the archive gives it back).

    `sizes` asks for the files of general tools too, which get columns of a bound on the same grid; `rivals` also for
    the slow ones, and for those of the largest tables.

    `on_progress` is told `phase` as each of the STAGES begins, and `step` of `steps`.
    """

    def begins(stage: str) -> None:
        if on_progress is not None:
            on_progress({"phase": stage, "step": STAGES.index(stage), "steps": len(STAGES)})

    target = Path(out)
    rows = np.arange(table.num_rows) if split is None else np.flatnonzero(split == TEST)
    held_out = len(rows) if split is not None else 0
    rows = rows if len(rows) else np.arange(table.num_rows)
    held = table.take(pa.array(rows))
    begins("codes")
    coded, places = coded_among(trained, table, rows)
    sparse = codes.encode_rows(trained, held)
    begins("bits")
    bits = model_bits(trained, coded, places)
    numbers: dict[str, Any] = {
        "rows": {"all": table.num_rows, "evaluated": len(rows), "held_out": held_out},
        "bits": bits,
        "likelihood": likelihood(trained, coded, places, bits["total"]),
    }
    begins("reconstruction")
    rebuilt = None
    if trained.layout.plan.latents:
        rebuilt = codes.rows_from_codes(trained, sparse).select(codes.known_columns(trained))
        quality = metrics.table_quality(held, rebuilt)
        modelled = code_quality(trained, held, sparse, rebuilt)
        numbers["sparsity"] = {"latents": sparse.shape[1], **metrics.sparsity(sparse)}
        numbers["codes_only"] = {"score": metrics.code_score(modelled), "columns": {**quality, **modelled}}
    if archive_path is not None:
        begins("archive")
        general: Mapping[str, int] = {}
        if rivals or (sizes and table.num_rows <= SIZED_ROWS):
            general = other_sizes(table, trained.grid, slow=rivals)
        numbers |= _archived(table, Path(archive_path), general)
    begins("figures")
    numbers = _finite(numbers)
    with atomic_path(target / NUMBERS_NAME) as path:
        path.write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return Evaluation(numbers, tuple(_draw(trained, held, rebuilt, sparse, numbers, target)))


def _finite(value: Any) -> Any:
    """The same numbers, None for those that are none: the square of 1e200 has no place in JSON."""
    if isinstance(value, Mapping):
        found = cast("Mapping[str, Any]", value)
        return {key: _finite(entry) for key, entry in found.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def coded_among(
    trained: TrainedModel, table: pa.Table, rows: NDArray[np.int64]
) -> tuple[dict[str, Coded], NDArray[np.int64]]:
    """What `model_bits` takes for these rows: of a table's columns all rows, for each is seen below others; images and
    texts, which stand by themselves and take many bytes each, alone.
    """
    if isinstance(trained.layout, Layout):
        return codes.coded_columns(trained, table), rows
    return codes.coded_columns(trained, table.take(pa.array(rows))), np.arange(len(rows))


def model_bits(trained: TrainedModel, coded: Mapping[str, Coded], rows: NDArray[np.int64]) -> dict[str, Any]:
    """Bits per row that the model asks for: `code`, `columns` by name, `total`, and `codes_only`, which is not paid."""
    names = trained.layout.plan.names
    cells, parts = np.zeros(len(names)), {"code_bits": 0.0, "codes_only_bits": 0.0}
    for batch in batches(trained, coded, rows):
        cells += trained.module.cell_bits(batch).double().sum(0).numpy()
        found = trained.module.validation_bits(batch)
        for name in parts:
            parts[name] += float(found[name].double().sum()) if name in found else 0.0
    share = 1 / max(1, len(rows))
    columns = {name: float(total * share) for name, total in zip(names, cells, strict=True)}
    code = parts["code_bits"] * share
    total = code + sum(columns.values())
    return {"code": code, "columns": columns, "total": total, "codes_only": parts["codes_only_bits"] * share}


def likelihood(
    trained: TrainedModel, coded: Mapping[str, Coded], rows: NDArray[np.int64], hard_bits: float
) -> dict[str, float | None]:
    """What a row costs, in bits: `hard` is -log P(code) - log p(row | code), what an archive pays.

    With a stochastic posterior also `elbo` and `iwae`, the negative bounds on log p(row) with one sample and with 100,
    measured on at most 8,192 rows.
    """
    found: dict[str, float | None] = {"hard": hard_bits, "elbo": None, "iwae": None}
    module = trained.module
    if not isinstance(module, SparseVAE) or not module.layout.plan.latents or not module.latents.stochastic:
        return found
    generator = torch.Generator().manual_seed(0)
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), IWAE_ROWS)).astype(np.int64)]
    weights = [
        module.log_weights(batch, IWAE_SAMPLES, generator).double().numpy()
        for batch in batches(trained, coded, chosen)
    ]
    elbo, iwae = metrics.evidence(np.concatenate(weights, axis=1))
    return {**found, "elbo": -elbo, "iwae": -iwae}


def batches(
    trained: TrainedModel, coded: Mapping[str, Coded], rows: NDArray[np.int64]
) -> Iterator[dict[str, Tensor]]:
    """What the model reads of these rows, each with the rows above it in its block; one block in memory at a time."""
    layout = trained.layout
    symbols, states = block(dict(coded), layout.plan.names)
    if isinstance(layout, TextLayout):
        for first in range(0, len(rows), TEXT_CHUNK):
            part = symbols[rows[first : first + TEXT_CHUNK]].astype(np.uint8)
            yield {k: torch.from_numpy(v) for k, v in text_arrays(part, layout).items()}
        return
    if isinstance(layout, ImageLayout):
        size = max(1, min(IMAGE_CHUNK, IMAGE_CHUNK_VALUES // layout.plan.pixels))
        for first in range(0, len(rows), size):
            part = symbols[rows[first : first + size]].astype(np.uint8)
            moved = moving(part.reshape(-1, layout.plan.height, layout.plan.width, layout.plan.channels))
            yield {"pixels": torch.from_numpy(part), "moving": torch.from_numpy(moved)}
        return
    blank = blank_model(layout.plan)
    for start in range(0, len(symbols), DEFAULT_BLOCK_ROWS):
        stop = min(len(symbols), start + DEFAULT_BLOCK_ROWS)
        inside = rows[(rows >= start) & (rows < stop)] - start
        if not len(inside):
            continue
        arrays = training_arrays(layout, blank, symbols[start:stop], states[start:stop], DEFAULT_BLOCK_ROWS)
        for first in range(0, len(inside), CHUNK):
            part = inside[first : first + CHUNK]
            yield {name: torch.from_numpy(array[part]) for name, array in arrays.items()}


def flat(numbers: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The leaves that are numbers, named by their path, as a tracking server takes them.

    >>> flat({"bits": {"code": 1.5, "columns": {"a b": 2.0}}, "likelihood": {"elbo": None}})
    {'bits/code': 1.5, 'bits/columns/a b': 2.0}
    """
    found: dict[str, float] = {}
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif value is not None:
            found[f"{prefix}{name}"] = float(value)
    return found


def main_columns(trained: TrainedModel, bits: Mapping[str, float]) -> list[str]:
    """The columns with most bits: numbers, and categories of at most 256 names (more are identifiers)."""
    grids = {name: trained.grid[name] for name in bits}
    shown = [
        name
        for name, grid in grids.items()
        if grid.kind == "number" or grid.high - grid.low < MOST_SHOWN_NAMES
    ]
    return sorted(shown, key=lambda name: -bits[name])[: report.MOST_PANELS]


def other_sizes(table: pa.Table, grid: TableGrid, *, slow: bool = False) -> dict[str, int]:
    """Bytes of the table by general tools; those that are rivals get columns of a bound on the same grid."""
    rivals = measure_rivals(table, {column.name: column for column in grid.columns}, slow=slow).model_dump()
    return {**metrics.general_sizes(table), **{name: size for name, size in rivals.items() if size}}


def _archived(table: pa.Table, path: Path, general: Mapping[str, int]) -> dict[str, Any]:
    """What is written, beside the sizes of others, and how it comes back."""
    with archive.open(path) as opened:
        summary, restored = opened.report(), opened.read()
    rows = max(1, summary.rows)
    return {
        "size": _sizes(summary, general),
        "written": {
            "code": 8 * summary.bytes.codes / rows,
            "columns": {column.name: column.bits_per_value for column in summary.per_column},
            "total": 8 * (summary.bytes.codes + summary.bytes.columns) / rows,
        },
        "restored": {"columns": metrics.table_quality(table, restored)},
    }


def _sizes(summary: ArchiveReport, general: Mapping[str, int]) -> dict[str, float | None]:
    """Bytes, and how many times smaller the archive is than each, its model counted and not counted."""
    others: dict[str, int] = {"source": summary.source_bytes, **general}
    found: dict[str, float | None] = {"archive": summary.archive_bytes, "model": summary.bytes.model}
    without = summary.archive_bytes - summary.bytes.model
    for name, size in others.items():
        found[name] = size
        found[f"ratio_to_{name}"] = size / summary.archive_bytes
        found[f"ratio_to_{name}_without_model"] = size / without
    return found


def _draw(
    trained: TrainedModel,
    held: pa.Table,
    rebuilt: pa.Table | None,
    sparse: codes.Codes,
    numbers: Mapping[str, Any],
    out: Path,
) -> Iterator[Path]:
    history = trained.record.get("history")
    if history:
        yield report.save(report.training_curves(history), out / "training.png")
    shown = numbers.get("written", numbers["bits"])
    code = shown["code"] if trained.layout.plan.latents else None
    where = "on disk" if "written" in numbers else "by the model"
    title = f"{shown['total']:,.1f} bits per row {where}, by column"
    yield report.save(report.bits_by_column(shown["columns"], code, title=title), out / "bits.png")
    if rebuilt is not None:
        yield report.save(report.code_usage(sparse), out / "codes.png")
        given, back = with_groups(held, trained.grid), with_groups(rebuilt, trained.grid)
        if isinstance(trained.layout, ImageLayout):
            yield _save_images(trained.layout.plan.name, held, rebuilt, out / "originals.png")
            return
        if isinstance(trained.layout, TextLayout):
            return
        columns = main_columns(trained, numbers["bits"]["columns"])
        yield report.save(report.originals_and_codes(given, back, columns), out / "originals.png")


def _save_images(name: str, held: pa.Table, rebuilt: pa.Table, path: Path) -> Path:
    """Some images over what their codes alone give back."""
    rows = [mosaic.images_in(table.slice(0, SHOWN_IMAGES), name) for table in (held, rebuilt)]
    with atomic_path(path) as temporary:
        temporary.write_bytes(mosaic.png(mosaic.mosaic(rows), rows[0].shape[1]))
    return path
