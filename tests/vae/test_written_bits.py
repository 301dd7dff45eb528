"""What stands on disk is what the network in floats says it takes, all but."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch

from vae import codes, evaluate
from vae.codec.container import DEFAULT_BLOCK_ROWS
from vae.codec.integer import IntegerModel
from vae.features import block
from vae.model import NATS_TO_BITS
from vae.settings import Family
from vae.store import TrainedModel

ROWS = DEFAULT_BLOCK_ROWS
"""A whole block, so that what ends its streams is as small a share as in any long table."""


class Bits(NamedTuple):
    """Of all rows: the codes, the columns."""

    code: float
    columns: float


@torch.no_grad()
def by_floats(model: TrainedModel, coded: Any, *, quantised: bool) -> Bits:
    """The cross-entropy at hard codes, in floats; of the weights as trained, or as they are stored."""
    module, found = model.of_columns, np.zeros(2)
    weights = module.stencil.weights(quantised=quantised)
    for batch in evaluate.batches(model, coded, np.arange(ROWS)):
        code = module.encode(batch).to(torch.float32)
        nats = (
            module._hard_rate(weights, batch, code),
            module.stencil.column_nats(weights, batch, code),
        )
        found += [float(part.double().sum()) * NATS_TO_BITS for part in nats]
    return Bits(*found.tolist())


@pytest.mark.parametrize("family", list(Family))
def test_written_bits_are_those_of_the_float_model(
    family: Family, mixed: Callable[..., pa.Table], settled: Callable[[Family], TrainedModel]
) -> None:
    model = settled(family)
    table = mixed(ROWS, seed=1)
    coded, hard = codes.coded_columns(model, table), codes.encode_rows(model, table)
    integer = IntegerModel(model.layout.plan, model.of_columns.stencil.integers())
    code, *columns = integer.encode_block(*block(coded, model.layout.plan.names), hard)
    floats, stored = by_floats(model, coded, quantised=False), by_floats(model, coded, quantised=True)
    written = Bits(8 * len(code), 8 * sum(map(len, columns)))
    assert written.code > 0.5 * ROWS  # or it would say nothing of them
    assert abs(written.code - stored.code) <= 0.01 * stored.code
    assert sum(written) <= 1.005 * sum(floats)
    assert sum(written) <= 1.005 * sum(stored)
