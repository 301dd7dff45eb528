"""One-hot groups through training, codes and archive; and what codes of two models are judged by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data.schema import Schema
from vae import codes, metrics
from vae.codec import archive
from vae.judging import code_quality, judged_columns
from vae.pipeline import compress, fit
from vae.settings import ModelSettings, TrainSettings
from vae.store import TrainedModel, load, save

ROWS = 1_500
SOILS = [f"soil_{k}" for k in range(5)]
QUICK = TrainSettings(steps=60, batch_rows=256, threads=1)


def table(broken: tuple[int, ...] = ()) -> pa.Table:
    """A height, and the soil that it makes likely as five indicators; rows of `broken` have all of them."""
    random = np.random.default_rng(0)
    height = random.integers(0, 500, ROWS)
    soil = np.clip(height // 100 + (random.random(ROWS) < 0.2), 0, 4)
    columns = {name: (soil == k).astype(np.int64) for k, name in enumerate(SOILS)}
    for indicator in columns.values():
        indicator[list(broken)] = 1
    return pa.table({"height": height, **columns})


def trained_on(given: pa.Table) -> TrainedModel:
    return fit(given, Schema.from_arrow(given.schema), model=ModelSettings(latents=4), training=QUICK)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return trained_on(table())


@pytest.fixture(scope="module")
def apart() -> TrainedModel:
    """A model of the same columns that saw no group among them."""
    loose = table(tuple(range(0, ROWS, 20)))
    model = trained_on(loose)
    assert set(SOILS) & set(model.layout.plan.names)
    return model


def test_a_group_is_coded_in_place_of_its_members(trained, tmp_path):
    assert set(trained.layout.plan.names) == {"height", "soil_*"}
    save(trained, tmp_path / "model")
    assert load(tmp_path / "model").grid == trained.grid


@pytest.mark.parametrize("broken", [(), (3, 700)], ids=["whole", "broken"])
def test_its_archive_gives_the_members_back(trained, tmp_path, broken):
    given = table(broken)
    report = compress(given, tmp_path / "t.svae", model=trained, embed_model=False)
    coders = {c.name: c.coder for c in report.per_column}
    if report.model_sha256:
        assert coders == {"height": "neural", **dict.fromkeys(SOILS, "derived"), "soil_*": "neural"}
        assert codes.encode_rows(trained, given).shape == (ROWS, 4)
    with archive.open(tmp_path / "t.svae", _integer(trained) if report.model_sha256 else None) as opened:
        assert opened.read().equals(given)
        assert opened.names == given.column_names


def _integer(trained: TrainedModel):
    from vae.pipeline import integer_model

    return integer_model(trained)


def test_rows_rebuilt_from_codes_have_one_member_at_most(trained):
    dense = codes.encode_rows(trained, table())
    rebuilt = codes.rows_from_codes(trained, dense)
    assert rebuilt.column_names == table().column_names
    assert codes.known_columns(trained) == table().column_names
    assert np.stack([rebuilt[name].to_numpy() for name in SOILS]).sum(0).max() <= 1


def test_a_group_is_judged_as_one_column(trained):
    coded = codes.encode_rows(trained, table())
    rebuilt = codes.rows_from_codes(trained, coded)
    quality = code_quality(trained, table(), coded, rebuilt)
    assert set(quality) == {"height", "soil_*"}
    given = np.stack([table()[name].to_numpy() for name in SOILS]).argmax(0)
    guessed = np.stack([rebuilt[name].to_numpy() for name in SOILS])
    right = float(((guessed.argmax(0) == given) & (guessed.max(0) == 1)).mean())
    most = float(np.bincount(given).max() / ROWS)
    assert quality["soil_*"]["accuracy"] == pytest.approx(right)
    assert quality["soil_*"]["score"] == pytest.approx(max(0.0, (right - most) / (1 - most)))


def test_two_models_are_judged_on_the_same_whichever_sees_the_group(trained, apart):
    assert set(judged_columns(trained, apart).names) == {"height", "soil_*"}
    coded = set(apart.layout.plan.names)
    assert set(judged_columns(apart, trained).names) == {"height", *SOILS}
    assert coded <= {"height", *SOILS}  # some follow from others
    judged = judged_columns(trained, apart)
    dense = codes.encode_rows(apart, table())
    rebuilt = codes.rows_from_codes(apart, dense)
    assert 0 <= metrics.code_score(code_quality(apart, table(), dense, rebuilt, judged)) <= 1
