"""From a table to a model, an archive and a score, on a small table with structure, nulls and a free column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data.errors import BoundError, DataError, ModelError
from data.schema import Schema
from vae import codes as sparse
from vae import judging, lesson, metrics, pipeline, schedule
from vae.codec import archive, writer
from vae.judging import Judged
from vae.pipeline import NothingToModelError, check_same_bounds, compress, fit, score
from vae.settings import Codes, Effort, Family, ModelSettings, TrainSettings
from vae.store import load

QUICK = TrainSettings(steps=30, batch_rows=256, threads=1)
MOST = QUICK.rows
SMALL = ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1)


def table(rows: int = 2_000, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    shop, units = random.integers(0, 7, rows), random.integers(0, 200, rows)
    price = pa.array(np.round(units * 0.5 + shop, 2), mask=random.random(rows) < 0.05)
    return pa.table(
        {
            "shop": pa.array([f"shop {s}" for s in shop]),
            "units": units,
            "twice": 2 * units + 1,
            "price": price,
            "note": pa.array([f"free text {seed} {k}" for k in range(rows)]),
        }
    )


@pytest.fixture
def always_neural(monkeypatch):
    """A model that was hardly trained is kept although its rivals are smaller."""
    monkeypatch.setattr(writer, "CLOSE_CALL", 1e9)


@pytest.fixture(scope="module")
def split():
    return (np.arange(2_000) // 100 % 5 == 4).astype(np.uint8) * 2


@pytest.fixture(scope="module")
def trained(split):
    given = table()
    longer = QUICK.model_copy(update={"steps": 400})
    return fit(given, Schema.from_arrow(given.schema), model=SMALL, training=longer, split=split)


def test_rows_that_follow_on_from_each_other_are_written_by_a_model_that_was_saved(tmp_path, always_neural):
    random = np.random.default_rng(4)
    given = pa.table(
        {"walk": np.cumsum(random.integers(-2, 3, 2_000)), "noise": random.integers(0, 500, 2_000)}
    )
    longer = QUICK.model_copy(update={"steps": 60})
    made = fit(given, Schema.from_arrow(given.schema), model=SMALL, training=longer, out=tmp_path / "model")
    assert made.layout.plan.direct
    assert made.of_columns.stencil.direct.detach().any()
    assert load(tmp_path / "model").digest == made.digest
    report = compress(given, tmp_path / "t.svae", model=tmp_path / "model")
    assert (tmp_path / "t.svae").read_bytes()[8] == 5
    expected = score(made, given, np.full(2_000, 2, np.uint8)).bits_per_row
    written = 8 * (report.bytes.codes + report.bytes.columns) / 2_000
    assert 0 < written - expected < 0.2  # beginnings and ends of three streams
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read().equals(given)
        kept = opened._parts.model
        assert kept is not None
        assert kept.to_bytes() == pipeline.integer_model(made).to_bytes()


@pytest.mark.parametrize(
    ("serial", "latents", "rates"),
    [(True, 8, {"encoder": 0.005, "decoder": 0.012}), (False, 16, {"encoder": 0.002, "decoder": 0.035})],
)
def test_a_series_takes_fewer_latents_more_steps_and_other_rates(serial, latents, rates, monkeypatch):
    steps = np.random.default_rng(4).integers(-1, 2, (400, 3))
    values = np.cumsum(steps, 0) if serial else steps
    given = pa.table({f"v{k}": values[:, k] for k in range(3)})
    schema = Schema.from_arrow(given.schema)
    usual = SMALL.model_copy(update={"latents": None})
    made = fit(given, schema, model=usual, training=QUICK)
    assert made.layout.plan.latents == latents
    assert made.record["learning_rates"] == rates
    assert made.training.decoder_lr is None
    own = QUICK.model_copy(update={"decoder_lr": 0.01})
    asked = fit(given, schema, model=usual.model_copy(update={"latents": 3}), training=own)
    assert asked.layout.plan.latents == 3
    assert asked.record["learning_rates"] == {**rates, "decoder": 0.01}
    for name, value in {"FULL_STEPS": {Effort.fast: 20}, "FULL_ROWS": 1, "FEWEST_STEPS": 1}.items():
        monkeypatch.setattr(schedule, name, value)
    unsaid = QUICK.model_copy(update={"steps": None, "effort": Effort.fast})
    assert fit(given, schema, model=usual, training=unsaid).record["steps"] == (30 if serial else 20)


def test_columns_that_follow_from_others_are_not_modelled(trained):
    assert {d.name for d in trained.layout.derived} & {"units", "twice"}
    assert "note" not in trained.layout.plan.names


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("codes", [Codes.none, Codes.balanced])
@pytest.mark.parametrize("follows", [False, True])
def test_an_archive_of_any_family_gives_every_value_back(family, codes, follows, tmp_path, always_neural):
    given = table(300)
    if follows:
        walk = np.cumsum(np.random.default_rng(2).integers(-1, 2, 300))
        given = given.append_column("walk", pa.array(walk))
    settings = SMALL.model_copy(update={"family": family, "codes": codes})
    report = compress(given, tmp_path / "t.svae", settings=settings, training=QUICK)
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read().equals(given)
        kept = opened._parts.model
        assert kept is not None
        assert kept.plan.direct == follows
    summary = report.codes_summary
    assert summary.family == family.value
    assert summary.latents == (0 if codes is Codes.none else SMALL.latents)
    coders = {column.name: column.coder for column in report.per_column}
    assert coders["shop"] == "neural"
    assert coders["note"] == "rival"
    assert report.bytes.model > 0
    assert report.seconds.train > 0


def test_a_registered_model_serves_rows_it_never_saw(trained, tmp_path, always_neural):
    new = table(500, seed=1).to_pylist()
    new[3] |= {"shop": "a new shop", "units": 10**6, "price": -1e12}
    given = pa.Table.from_pylist(new, schema=table(1).schema)
    report = compress(given, tmp_path / "t.svae", model=trained)
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read().equals(given)
        assert (opened.dense_codes() == sparse.encode_rows(trained, given)).all()
    assert report.bytes.model == len(pipeline.integer_model(trained).to_bytes())


@pytest.fixture(scope="module")
def lossy():
    given = table(400)
    schema = Schema.from_arrow(given.schema)
    return fit(given, schema, bounds={"price": 2.0, "units": 1.7}, model=SMALL, training=QUICK)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            {"units": 1.0},
            "bound 0 for column 'price': the model keeps it within 2 only; ask for --bound 'price=2.0' or more, "
            "for --bound model to take its own, or compress without --model",
        ),
        (
            {"price": 1.5, "units": 3.0},
            "bound 1.5 for column 'price': the model keeps it within 2 only; ask for --bound 'price=2.0' or more, "
            "for --bound model to take its own, or compress without --model",
        ),
        (
            {"price": 2.0, "units": 0.7},
            "bound 0.7 for column 'units': the model keeps it within 1 only; ask for --bound 'units=1.0' or more, "
            "for --bound model to take its own, or compress without --model",
        ),
        (
            {"price": 2.0, "units": 1.0, "unit": 1.0},
            "there is no column 'unit' to bound; the columns are shop, units, twice, price, note",
        ),
    ],
)
def test_a_model_never_serves_who_asked_for_less_error_than_it_makes(lossy, bounds, message, tmp_path):
    with pytest.raises(BoundError) as refusal:
        compress(table(400), tmp_path / "t.svae", model=lossy, bounds=bounds)
    assert str(refusal.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bounds",
    [
        None,
        {"price": 2.0, "units": 1.0},
        {"price": 2.0, "units": 1.7},
        {"price": 9.0, "units": 5, "twice": 3.0},
    ],
    ids=["its own", "as on the grid", "as trained", "wider"],
)
def test_a_model_keeps_its_own_bounds_for_who_asked_for_no_less(lossy, bounds, tmp_path):
    given = table(400, seed=1)
    report = compress(given, tmp_path / "t.svae", model=lossy, bounds=bounds)
    assert {c.name: c.bound for c in report.per_column if c.bound} == {"price": 2.0, "units": 1.0}
    with archive.open(tmp_path / "t.svae") as opened:
        errors = opened.verify(given)
        restored = opened.read()
        inspected = {c.name: c.bound for c in opened.report().per_column if c.bound}
    assert inspected == {"price": 2.0, "units": 1.0}
    gaps = {
        name: max(
            abs(a - b)
            for a, b in zip(given[name].to_pylist(), restored[name].to_pylist(), strict=True)
            if a is not None
        )
        for name in ("price", "units", "twice")
    }
    assert 0 < gaps["price"] <= 2.0
    assert gaps["units"] == 1
    assert gaps["twice"] == 0
    assert errors == {c.name: c.max_error for c in report.per_column}


def test_a_bound_that_allows_no_error_is_none_to_a_model(trained, tmp_path):
    given = table(100)
    report = compress(given, tmp_path / "t.svae", model=trained, bounds={"units": 0.5})
    assert [c.bound for c in report.per_column] == [0.0] * 5
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read().equals(given)


def test_models_compare_at_the_same_bounds_only(lossy):
    check_same_bounds(lossy, {"price": 2.0, "units": 1.2, "twice": 0.5})
    for bounds, message in (
        ({"price": 2.0}, "bound 0 for column 'units': the model was trained with 1"),
        ({"price": 3.0, "units": 1.0}, "bound 3 for column 'price': the model was trained with 2"),
        (
            {"price": 2.0, "units": 1.0, "twice": 4.0},
            "bound 4 for column 'twice': the model was trained with 0",
        ),
    ):
        with pytest.raises(BoundError) as refusal:
            check_same_bounds(lossy, bounds)
        assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns(["price"]), "lacks column 'price'"),
        (lambda t: t.append_column("tax", t["units"]), "has an unknown column 'tax'"),
        (lambda t: t.select(t.column_names[::-1]), "has its columns in another order"),
        (
            lambda t: t.set_column(1, "units", t["units"].cast(pa.float64())),
            "column 'units' is double, not int64",
        ),
    ],
)
def test_a_model_for_another_schema_is_refused(trained, tmp_path, change, says):
    with pytest.raises(ModelError, match=says):
        compress(change(table(100)), tmp_path / "t.svae", model=trained)
    assert list(tmp_path.iterdir()) == []


def test_the_score_counts_what_an_archive_pays(trained, split, tmp_path, always_neural):
    """Names the model knows not, and a text that it does not code, among it."""
    given, random = table(), np.random.default_rng(3)
    odd = np.where(random.random(2_000) < 0.2, [f"shop no. {k}" for k in range(2_000)], given["shop"])
    given = given.set_column(0, "shop", pa.array(odd.astype(str)))
    assert score(trained, given, split).rows == int((split == 2).sum())
    found = score(trained, given, np.full_like(split, 2))
    report = compress(given, tmp_path / "t.svae", model=trained)
    with archive.open(tmp_path / "t.svae") as opened:
        tables = opened._parts.container.tables.length
    assert found.rows == report.rows == 2_000
    assert found.model_bytes == report.bytes.model + tables
    written = 8 * (report.bytes.codes + report.bytes.columns) / found.rows
    assert 0 < written - found.bits_per_row < 0.9  # beginnings and ends of streams, of few rows
    names = trained.layout.plan.names
    alone = sparse.rows_from_codes(trained, sparse.encode_rows(trained, given))
    quality = metrics.table_quality(given.select(names), alone.select(names))
    assert found.code_score == metrics.code_score(quality)
    assert 0 < found.code_score < 1


def test_two_models_are_scored_on_the_columns_that_either_codes(trained, split):
    names = trained.layout.plan.names
    own, derived = (
        score(trained, table(), split),
        score(trained, table(), split, Judged(("twice",), trained.grid)),
    )
    assert "twice" not in names
    assert derived.code_score > 0  # computed from a column that is coded
    both = score(trained, table(), split, Judged((*names, "twice"), trained.grid))
    assert both.code_score == pytest.approx(
        (own.code_score * len(names) + derived.code_score) / (len(names) + 1)
    )
    assert both.bits_per_row == own.bits_per_row


def test_a_relation_that_no_longer_holds_costs_its_exceptions(trained, split):
    holds = score(trained, table(), split)
    broken = table()
    twice = broken["twice"].to_numpy() + np.random.default_rng(2).integers(0, 2, 2_000)
    column = broken.column_names.index("twice")
    breaks = score(trained, broken.set_column(column, "twice", pa.array(twice)), split)
    # a coin a row, and where it falls
    assert breaks.bits_per_row > holds.bits_per_row + 0.5


def test_no_held_out_rows_no_score(trained):
    with pytest.raises(ModelError, match="no held-out rows to score a model on"):
        score(trained, table(100), np.zeros(100, np.uint8))


def test_a_table_without_anything_to_model_gets_an_archive_without_a_model(tmp_path):
    given = pa.table({"constant": [5] * 50, "blob": pa.array([bytes([k]) for k in range(50)])})
    report = compress(given, tmp_path / "t.svae", training=QUICK)
    assert report.bytes.model == 0
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read().equals(given)


def test_training_without_anything_to_model_says_what_can_be_done():
    still = pa.table({"list": [[1, 2], [3]], "still": [7, 7]})
    with pytest.raises(NothingToModelError) as caught:
        fit(still, Schema.from_arrow(still.schema), training=QUICK)
    assert str(caught.value) == (
        "no column of this table can be modelled: each is constant, follows from others or is of a kind that no model"
        " reads; train on other columns, or make an archive, which needs no model: svae compress"
    )


def test_long_tables_are_sampled_in_runs():
    rows = lesson._sample_rows(5_000_000, 3, MOST)
    assert rows is not None
    assert len(rows) == MOST // lesson.RUN_ROWS * lesson.RUN_ROWS
    assert rows[0] == 0
    assert rows[-1] == 4_999_999
    breaks = np.flatnonzero(np.diff(rows) != 1)
    assert len(breaks) == MOST // lesson.RUN_ROWS - 1
    gaps = np.diff(rows)[breaks]
    assert gaps.max() - gaps.min() <= 1
    assert lesson._sample_rows(1_000, 3, MOST) is None


@pytest.mark.parametrize("columns", [10, 100, 385, 1_000, 20_000])
def test_of_a_table_too_large_for_memory_fewer_rows_are_read_from_all_over_it(columns: int) -> None:
    rows = lesson._sample_rows(5_000_000, columns, MOST)
    assert rows is not None
    assert len(rows) <= max(lesson.RUN_ROWS, lesson.LARGE_TRAIN_CELLS // columns)
    assert len(rows) > 0.9 * max(lesson.RUN_ROWS, lesson.LARGE_TRAIN_CELLS // columns)
    assert (rows[0], rows[-1]) == (0, 4_999_999)
    assert (np.diff(rows) > 1).sum() >= lesson.FEWEST_RUNS - 1


def test_an_archive_tells_what_its_code_is_worth(trained, split, tmp_path, always_neural):
    """The score that the model's test rows gave, whatever rows are archived."""
    expected = score(trained, table(), split)
    report = compress(table(300, seed=1), tmp_path / "t.svae", model=trained)
    assert trained.record["code_score"] == round(expected.code_score, 4) > 0
    assert report.codes_summary.score == trained.record["code_score"]
    assert report.codes_summary.score_rows == expected.rows == int((split == 2).sum())
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.report().codes_summary == report.codes_summary


@pytest.mark.parametrize("codes", [Codes.none, Codes.balanced])
def test_an_archives_own_model_leaves_rows_out_to_score_its_code(codes, tmp_path, monkeypatch, always_neural):
    monkeypatch.setattr(judging, "HELD_SHARE", 8)
    settings = SMALL.model_copy(update={"codes": codes})
    seen = []
    monkeypatch.setattr(pipeline, "fit", lambda *args, **named: seen.append(fit(*args, **named)) or seen[0])
    report = compress(table(), tmp_path / "t.svae", settings=settings, training=QUICK)
    held = 0 if codes is Codes.none else judging.HELD_RUN
    assert report.codes_summary.score_rows == held
    assert (report.codes_summary.score is None) == (held == 0)
    assert seen[0].record["train_rows"] == 2_000 - held


def test_an_archive_without_a_model_has_no_score(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CLOSE_CALL", -1.0)
    report = compress(table(30), tmp_path / "t.svae", model=trained)
    assert report.bytes.model == 0
    assert (report.codes_summary.score, report.codes_summary.score_rows) == (None, 0)


@pytest.mark.parametrize("rows", [0, 4_095, 4_096, 93_000, 3_000_000])
def test_held_out_rows_are_runs_spread_over_the_table(rows):
    held = judging.held_out(rows)
    assert len(held) == min(rows // (judging.HELD_SHARE * judging.HELD_RUN), 128) * judging.HELD_RUN
    assert (np.diff(held) > 0).all()
    assert not len(held) or (held[0] >= 0 and held[-1] < rows)


def test_where_nothing_can_be_written_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.train.fit", lambda *_args, **_settings: pytest.fail("it trained"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Not a directory"):
        compress(table(100), tmp_path / "file" / "t.svae", training=QUICK)
    with pytest.raises(DataError, match="is a file, a folder was to be written"):
        fit(table(100), Schema.from_arrow(table(100).schema), training=QUICK, out=tmp_path / "file")
