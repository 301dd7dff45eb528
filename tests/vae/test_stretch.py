"""A stretch of a series: consecutive held-out rows where most happens, as they were and as they come back."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.schema import Schema
from data.split import TEST
from vae import page, pipeline
from vae.codec import archive
from vae.codes import coded_columns, encode_rows, rows_from_codes
from vae.evaluate import model_bits
from vae.settings import ModelSettings, TrainSettings
from vae.store import TrainedModel
from vae.stretch import numbers_of, stretch_of, stretch_section

ROWS = 3_000
BITS = {"level": 3.0, "flow": 2.0}


@pytest.fixture(scope="module")
def series() -> pa.Table:
    """Two walks, still but for the rows from 2,000 on, and a name."""
    random = np.random.default_rng(0)
    moving = np.arange(ROWS) >= 2_000
    level = np.cumsum(np.where(moving | (random.random(ROWS) < 0.3), random.integers(-3, 4, ROWS), 0))
    flow = np.round(0.5 * level + np.cumsum(random.normal(size=ROWS) * 0.1), 1)
    return pa.table(
        {"level": level, "flow": pa.array(flow, mask=np.arange(ROWS) == 2_300), "kind": ["a", "b"] * 1_500}
    )


@pytest.fixture(scope="module")
def model(series: pa.Table) -> TrainedModel:
    settings = ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1)
    training = TrainSettings(steps=30, batch_rows=256, threads=1)
    bounds = {"flow": 0.2}
    return pipeline.fit(
        series, Schema.from_arrow(series.schema), bounds=bounds, model=settings, training=training
    )


def test_it_is_the_liveliest_of_the_held_out_runs(series: pa.Table, model: TrainedModel) -> None:
    split = np.zeros(ROWS, np.uint8)
    for start in (100, 2_250, 2_900):
        split[start : start + 100] = TEST
    found = stretch_of(model, series, split, BITS)
    assert found is not None
    assert found.held_out
    assert found.first in (2_250, 2_900)
    rows = series.slice(found.first, 100)
    back = rows_from_codes(model, encode_rows(model, rows))
    for name in BITS:
        np.testing.assert_array_equal(found.originals[name], numbers_of(rows[name]))
        np.testing.assert_array_equal(found.alone[name], numbers_of(back[name]))
    assert found.restored == {}


def test_the_archive_s_line_is_within_the_bound(
    series: pa.Table, model: TrainedModel, tmp_path: Path
) -> None:
    pipeline.compress(series, tmp_path / "a.svae", model=model)
    with archive.open(tmp_path / "a.svae") as opened:
        found = stretch_of(model, series, None, BITS, opened)
    assert found is not None
    assert not found.held_out
    np.testing.assert_array_equal(found.restored["level"], found.originals["level"])
    gap = np.abs(found.restored["flow"] - found.originals["flow"])
    assert 0 < np.nanmax(gap) <= 0.2
    (part,) = stretch_section(found)
    assert [row[0] for row in part.tables[0].rows] == list(BITS)
    assert part.tables[0].rows[0][-1] == "0"
    assert part.tables[0].rows[1][-1] == f"{np.nanmax(gap):.4g}"
    for picture, name in zip(part.figures, BITS, strict=True):
        assert name in picture.alt
        svg = base64.b64decode(picture.data.partition(",")[2]).decode()
        assert all(f">{words}</text>" in svg for words in ("original", "code alone", "archive"))
    target = page.write(tmp_path / "p.html", name="p", stretch=found)
    assert target.read_text().count("data:image/svg+xml;base64,") == 2


def test_a_table_whose_rows_do_not_follow_on_has_none(trained: TrainedModel, table: pa.Table) -> None:
    assert not trained.layout.series
    bits = model_bits(trained, coded_columns(trained, table), np.arange(100))["columns"]
    assert stretch_of(trained, table, None, bits) is None
    assert stretch_section(None) == []
