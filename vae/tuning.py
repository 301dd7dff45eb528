"""What a table's model should be, by cross-validation: folds, what a trial may choose, and what is scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.schema import Schema
from data.split import TEST, TRAIN
from vae import pipeline
from vae.codes import encode_rows
from vae.judging import HELD_RUN, MOST_HELD
from vae.metrics import probe
from vae.settings import MOST_LATENTS, Codes, ModelSettings, Target, TrainSettings

LATENTS = (4, 8, 12, 16, 24, 32)
WIDTHS = (8, 16, 24, 32, 48, 64)
SPARSITIES = (Codes.lean, Codes.balanced, Codes.rich)
PROBE_ROWS = MOST_HELD
"""Rows that a probe learns from, at most."""

Split = npt.NDArray[np.uint8]


class Chooser(Protocol):
    """Who chooses: a trial of Optuna."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of `choices`."""
        ...


class Fold(NamedTuple):
    """What a model that was trained without a fold makes of it."""

    total_bytes: float
    """Of the whole table, at the held-out rows' bits a row, the model counted."""
    model_bytes: int
    bits_per_row: float
    code_score: float
    mean_nonzero: float
    probe: float | None
    """How well a linear model reads a column off the codes, on held-out rows; None without such a column."""


def chosen(trial: Chooser, base: ModelSettings) -> ModelSettings:
    """The settings of a trial: latents, how much the code is asked for (unless `base` has a target for it), and width;
    all else as in `base`.
    """
    target = Target.parse(base.target) if base.target else None
    fewest = target.value if target and target.what == "nonzeros" else 0
    offered = [count for count in LATENTS if count >= fewest] or [MOST_LATENTS]
    wanted = {
        "latents": trial.suggest_categorical("latents", offered),
        "width": trial.suggest_categorical("width", WIDTHS),
    }
    if target is None:
        wanted["codes"] = trial.suggest_categorical("codes", [kind.value for kind in SPARSITIES])
    return ModelSettings.model_validate({**base.model_dump(mode="json"), **wanted})


def folds(rows: int, count: int) -> list[Split]:
    """For each of `count` folds which rows train, and which are held out; each row is held out once.

    Runs of `HELD_RUN` neighbours stay together, or a series would tell its held-out rows; of a table with fewer runs
    than folds, rows go one by one.

    >>> [fold.tolist() for fold in folds(4, 2)]
    [[2, 0, 2, 0], [0, 2, 0, 2]]
    """
    run = HELD_RUN if rows >= count * HELD_RUN else 1
    owner = np.arange(rows) // run % count
    return [np.where(owner == fold, TEST, TRAIN).astype(np.uint8) for fold in range(count)]


def measure(
    table: pa.Table,
    split: Split,
    *,
    bounds: Mapping[str, float],
    model: ModelSettings,
    training: TrainSettings,
    probed: str | None = None,
) -> Fold:
    """Train on a fold's training rows and score on those that are held out.

    The column `probed` is kept from the model, so that what a probe reads off the codes was learnt from the others.
    """
    seen = table if probed is None else table.drop_columns([probed])
    kept = {name: width for name, width in bounds.items() if name != probed}
    schema = Schema.from_arrow(seen.schema)
    trained = pipeline.fit(seen, schema, bounds=kept, model=model, training=training, split=split)
    found = pipeline.score(trained, seen, split)
    told = None
    if probed is not None:
        learn, held = np.flatnonzero(split == TRAIN), np.flatnonzero(split == TEST)
        learn = learn[:: -(-len(learn) // PROBE_ROWS) or 1]
        parts = [table.take(pa.array(rows)) for rows in (learn, held)]
        inputs = [encode_rows(trained, part.drop_columns([probed])) for part in parts]
        told = probe(inputs[0], parts[0][probed], inputs[1], parts[1][probed])
    return Fold(
        total_bytes=found.model_bytes + found.bits_per_row * table.num_rows / 8,
        model_bytes=found.model_bytes,
        bits_per_row=found.bits_per_row,
        code_score=found.code_score,
        mean_nonzero=float(trained.record["code"].get("mean_nonzero", 0.0)),
        probe=told,
    )
