"""What single latents say: walks over values that there are, from the usual code, as the code alone decodes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from data.schema import Schema
from vae import pipeline
from vae.codes import encode_rows, rows_from_codes
from vae.metrics import sparsity
from vae.settings import Codes, ModelSettings, TrainSettings
from vae.store import TrainedModel
from vae.traversal import MOST_COLUMNS, MOST_VALUES, MOST_WALKS, latents_section, traverse, usual_code


@pytest.fixture(params=["trained", "gaussian"])
def model(request: pytest.FixtureRequest) -> TrainedModel:
    return request.getfixturevalue(request.param)


def test_a_walk_is_what_the_code_alone_says_of_each_value(model: TrainedModel, table: pa.Table) -> None:
    found = traverse(model, table)
    assert found is not None
    codes = encode_rows(model, table)
    np.testing.assert_array_equal(found.codes, codes)  # fewer rows than are taken
    assert 0 < len(found.walks) <= MOST_WALKS
    for walk in found.walks:
        steps = np.repeat(usual_code(codes)[None], len(walk.values), 0)
        assert walk.values[walk.usual] == steps[0, walk.latent]
        steps[:, walk.latent] = walk.values
        assert walk.rows.equals(rows_from_codes(model, steps).select(walk.rows.column_names))
        assert walk.rows.num_columns <= MOST_COLUMNS
        assert all(len(set(column.to_pylist())) > 1 for column in walk.rows.columns)
        assert list(walk.values) == sorted(set(walk.values))
        assert len(walk.values) <= MOST_VALUES + 1
        shares = [(codes[:, walk.latent] == value).mean() for value in walk.values]
        assert list(walk.shares) == pytest.approx(shares)
    assert any(walk.rows.num_columns for walk in found.walks)


def test_the_most_used_latents_come_first(trained: TrainedModel, table: pa.Table) -> None:
    found = traverse(trained, table)
    assert found is not None
    used = [(found.codes[:, walk.latent] != 0).mean() for walk in found.walks]
    assert used == sorted(used, reverse=True)


def test_without_rows_codes_come_from_the_model_itself(trained: TrainedModel) -> None:
    found = traverse(trained)
    assert found is not None
    assert found.drawn
    assert "codes drawn from the model" in latents_section(found)[0].words[0]
    np.testing.assert_array_equal(found.codes, traverse(trained).codes)  # type: ignore[union-attr]


def test_the_page_counts_active_and_dead_latents(trained: TrainedModel, table: pa.Table) -> None:
    found = traverse(trained, table)
    assert found is not None
    (part,) = latents_section(found)
    facts = sparsity(found.codes)
    assert part.tables[0].caption == (
        f"6 latents: {facts['active_units']:.0f} active (variance above 0.01), "
        f"{facts['dead_latents']:.0f} dead (the same on every row)"
    )
    assert len(part.tables) == 1 + len(found.walks)
    for walk, shown in zip(found.walks, part.tables[1:], strict=True):
        assert [row[0].removesuffix(" (usual)") for row in shown.rows] == [str(v) for v in walk.values]
        assert shown.rows[walk.usual][0].endswith(" (usual)")


def test_ways_are_shares_and_none_from_a_code_to_itself(trained: TrainedModel, table: pa.Table) -> None:
    codes = torch.from_numpy(encode_rows(trained, table)[:200].astype(np.float32))
    decoder = trained.of_columns.codes_only
    assert decoder.ways(codes[:1], codes[0]).tolist() == [0.0] * len(trained.layout.views)
    ways = decoder.ways(codes, codes[0])
    assert (ways >= 0).all()
    assert (ways <= 1).all()
    assert ways.max() > 0.2
    each = np.stack([decoder.ways(code[None], codes[0]) for code in codes])
    np.testing.assert_allclose(each.max(0), ways, atol=1e-5)


def test_no_code_has_no_latents_to_tell_of(table: pa.Table) -> None:
    settings = ModelSettings(width=8, codes=Codes.none)
    training = TrainSettings(steps=3, threads=1)
    model = pipeline.fit(table, Schema.from_arrow(table.schema), model=settings, training=training)
    assert traverse(model, table) is None
    assert latents_section(None) == []
