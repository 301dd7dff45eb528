"""New rows from a trained model: drawn from its prior, and on the way from one row to another."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from data.errors import ModelError
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codec.plan import Head
from vae.codec.structure import Cells
from vae.codes import Codes, Progress, cells_of, encode_rows, rows_from_codes, table_of_cells
from vae.pipeline import integer_model
from vae.store import TrainedModel
from vae.texts import TextVAE

SAMPLED_IMAGES, SAMPLED_VALUES = 256, 1 << 22
"""Images or texts that are drawn at a time, and images' values, if it is more than one."""
SEEN_ROWS = 8_192
"""Rows that columns of identifiers have seen before the first one that is given out."""


def sample_rows(
    trained: TrainedModel, rows: int, *, seed: int = 0, on_progress: Progress | None = None
) -> pa.Table:
    """Rows drawn from the model: a code from its prior, columns given the code and each other, row after row.

    They have the table's types and keep to its ranges and names. Columns that follow from others do so here too; those
    that the model leaves to other coders are null (see `vae.codes.known_columns`). Where rows follow on from each
    other, these do too, block by block.

    Raises:
        ModelError: A column is coded by what was seen of it, and there is no code to begin with.
    """
    model, random = integer_model(trained), np.random.Generator(np.random.Philox(key=seed))
    if isinstance(trained.module, TextVAE):
        return _sampled_texts(trained, trained.module, rows, random, on_progress)
    if isinstance(model, ImageModel):
        return _sampled_images(trained, model, rows, random, on_progress)
    names = trained.layout.plan.names
    symbols = np.zeros((rows, len(names)), np.int64)
    states = np.zeros((rows, len(names)), np.uint8)
    seen = min(SEEN_ROWS, model.block_rows // 2)
    room = model.block_rows - seen
    for start in range(0, rows, room):
        part = slice(start, min(rows, start + room))
        before = _seen(trained, model, random, seen)
        symbols[part], states[part], _ = model.sample_block(part.stop - part.start, random, before)
        if on_progress is not None:
            on_progress(part.stop, rows)
    cells = {name: Cells(symbols[:, j], states[:, j]) for j, name in enumerate(names)}
    return table_of_cells(trained, cells, rows)


def _sampled_images(
    trained: TrainedModel,
    model: ImageModel,
    rows: int,
    random: np.random.Generator,
    on_progress: Progress | None,
) -> pa.Table:
    images = np.zeros((rows, model.plan.pixels), np.uint8)
    step = max(1, min(SAMPLED_IMAGES, model.block_rows, SAMPLED_VALUES // model.plan.pixels))
    for start in range(0, rows, step):
        part = slice(start, min(rows, start + step))
        images[part], _, _ = model.sample_block(part.stop - part.start, random)
        if on_progress is not None:
            on_progress(part.stop, rows)
    cells = {model.plan.name: Cells(cast(Any, images), np.zeros(rows, np.uint8))}
    return table_of_cells(trained, cells, rows)


def _sampled_texts(
    trained: TrainedModel,
    module: TextVAE,
    rows: int,
    random: np.random.Generator,
    on_progress: Progress | None,
) -> pa.Table:
    """Texts: a code from the prior, and piece after piece given the code."""
    texts = np.zeros((rows, module.layout.plan.length), np.uint8)
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    prior = module.integers()
    for start in range(0, rows, SAMPLED_IMAGES):
        part = slice(start, min(rows, start + SAMPLED_IMAGES))
        codes = prior.sample_block(part.stop - part.start, random)[2]
        texts[part] = module.speak(torch.from_numpy(codes.astype(np.float32)), generator).numpy()
        if on_progress is not None:
            on_progress(part.stop, rows)
    cells = {module.layout.plan.name: Cells(cast(Any, texts), np.zeros(rows, np.uint8))}
    return table_of_cells(trained, cells, rows)


def _seen(
    trained: TrainedModel, model: IntegerModel, random: np.random.Generator, rows: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], Codes] | None:
    """Rows for the columns that remember, for which an empty memory has no values to begin with: codes from the prior,
    and what the code alone says of them.
    """
    module = trained.of_columns
    plan = module.layout.plan
    remembering = [item.name for item in plan.columns if item.head is Head.memory]
    if not remembering:
        return None
    if not plan.latents:
        raise ModelError(
            f"the model knows of {', '.join(remembering)} only what it has seen, and has no code to begin with; train "
            "one with codes: balanced"
        )
    _, _, codes = model.sample_block(rows, random)
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    guess = module.codes_only.draw(torch.from_numpy(codes.astype(np.float32)), generator)
    return *cells_of(plan, guess), codes


def rows_between(trained: TrainedModel, pair: pa.Table, steps: int) -> pa.Table:
    """`steps` rows from the first of two to the second, as codes see them, both ends included.

    Codes are on the straight way between those of the two rows, and rows the most probable for them; where a code says
    little, so do they.

    Raises:
        ModelError: The model has no code.
    """
    if not trained.layout.plan.latents:
        raise ModelError(
            "the model has no sparse codes (it was trained with codes: none); train one with codes: balanced"
        )
    first, last = encode_rows(trained, pair).astype(np.float32)
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return rows_from_codes(trained, (1 - share) * first + share * last)
