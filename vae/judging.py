"""What a sparse code is judged by: how well the columns that a model codes come back from the code alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from data.errors import ModelError
from data.grid import State, TableGrid
from data.onehot import with_groups
from data.textgrid import texts_of
from vae import metrics
from vae.codes import Codes, encode_rows, rows_from_codes
from vae.store import TrainedModel
from vae.texts import TextVAE, explained
from vae.words import packed_words, unpacked

HELD_RUN = 128
"""Rows of a run that is held out; neighbours stay together, or a series would leak."""
HELD_SHARE = 32
"""One row in so many is held out where an archive's own model has a code."""
MOST_HELD = 16_384
"""Rows held out, at most."""


class Judged(NamedTuple):
    """What is judged: columns, and one-hot groups each as one."""

    names: tuple[str, ...]
    """Columns of the table, or groups of `grid`."""
    grid: TableGrid
    """Holds the groups."""


def judged_columns(trained: TrainedModel, rival: TrainedModel | None = None) -> Judged:
    """What a model codes; with a rival, what either of the two codes, so that neither picks its own.

    ModelError if one of the two is of texts and the other is not of the same: bits of a model of texts are of their
    beginnings, and its score is of words.
    """
    if rival is not None:
        _check_texts(trained, rival)
    group_of = {name: group.name for group in trained.grid.columns if group.one_hot for name in group.values}
    names = list(trained.layout.plan.names)
    for name in rival.layout.plan.names if rival else ():
        grid = rival.grid[name] if rival else None
        parts = grid.values if grid is not None and grid.one_hot else (name,)
        names += [group_of.get(part, part) for part in parts]
    return Judged(tuple(dict.fromkeys(names)), trained.grid)


def _check_texts(trained: TrainedModel, rival: TrainedModel) -> None:
    mine, theirs = (
        model.module.layout.plan.name if isinstance(model.module, TextVAE) else None
        for model in (trained, rival)
    )
    if mine != theirs:
        raise ModelError(
            f"one of the two models is of the texts of {mine or theirs!r} alone, the other is not"
        )


def code_quality(
    trained: TrainedModel,
    original: pa.Table,
    codes: Codes,
    rebuilt: pa.Table,
    judged: Judged | None = None,
) -> dict[str, dict[str, float | None]]:
    """`vae.metrics.column_quality` of what is judged, for rows that were rebuilt from their codes; of texts, what their
    codes know of words.
    """
    if isinstance(trained.module, TextVAE):
        return {trained.module.layout.plan.name: _word_quality(trained, trained.module, original, codes)}
    judged = judged or judged_columns(trained)
    names = list(judged.names)
    given, back = (with_groups(table, judged.grid).select(names) for table in (original, rebuilt))
    return metrics.table_quality(given, back)


def alone(trained: TrainedModel, held: pa.Table, judged: Judged | None = None) -> float:
    """Score of a model's code on rows that it did not learn from: of `judged`, by default of what the model codes."""
    if not trained.layout.plan.latents:
        return 0.0
    codes = encode_rows(trained, held)
    # no text need be written to know which words it would have
    rebuilt = held if isinstance(trained.module, TextVAE) else rows_from_codes(trained, codes)
    return metrics.code_score(code_quality(trained, held, codes, rebuilt, judged))


def _word_quality(
    trained: TrainedModel, module: TextVAE, original: pa.Table, codes: Codes
) -> dict[str, float | None]:
    """R² of words' being there, all words together, by what the codes say of each."""
    name = module.layout.plan.name
    coded = trained.grid[name].encode(original[name])
    valued = coded.state == State.VALUE
    words = module.layout.words
    packed = packed_words(texts_of(coded.symbols[valued]), words)
    there = unpacked(torch.from_numpy(packed), len(words)).double()
    said = module.word_shares(torch.from_numpy(codes[valued].astype(np.float32))).double()
    varied = len(there) > 0 and bool((there != there[:1]).any())
    score = float(explained(there, said)) if varied else None
    found: dict[str, float | None] = dict.fromkeys(("max_error", "rmse", "r2", "accuracy", "score"))
    return {**found, "r2": score, "score": score}


def held_out(rows: int) -> npt.NDArray[np.int64]:
    """The rows that are kept from the training of an archive's own model: evenly spread runs; none of few rows.

    >>> held_out(4_000).tolist()
    []
    >>> len(held_out(93_000)), len(held_out(10_000_000))
    (2816, 16384)
    """
    runs = min(rows // (HELD_SHARE * HELD_RUN), MOST_HELD // HELD_RUN)
    starts = (2 * np.arange(runs, dtype=np.int64) + 1) * rows // (2 * max(1, runs)) - HELD_RUN // 2
    return (starts[:, None] + np.arange(HELD_RUN)).ravel()
