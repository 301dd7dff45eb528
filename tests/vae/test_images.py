"""The sparse VAE for images: what it learns, how its parts agree with the codec, and all that is done with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import vae
from data.errors import BoundError, ModelError
from data.grid import ColumnGrid
from data.images import image_array, image_field
from data.schema import Schema
from vae import evaluate, lesson, page, pipeline, traversal
from vae.codec.images import ImageModel
from vae.codes import encode_rows, encode_size, rows_from_codes
from vae.examples import examples_of
from vae.generate import rows_between, sample_rows
from vae.images import (
    HELD_PIXELS,
    NATS_TO_BITS,
    ImageLayout,
    ImageVAE,
    make_layout,
    moving,
)
from vae.judging import alone
from vae.settings import Codes, Family, ModelSettings, TrainSettings
from vae.store import TrainedModel, load, save
from vae.whole import latents_of_wholes

HEIGHT, WIDTH, IMAGES = 11, 9, 600
SHAPE = (HEIGHT, WIDTH, 1)
SMALL = ModelSettings(latents=4, width=8)
QUICK = TrainSettings(steps=60, threads=1, batch_rows=64)


def bars(count: int, seed: int = 0) -> np.ndarray:
    """Images of one light bar on black, standing or lying, of some brightness, with a little noise in it."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, *SHAPE), np.uint8)
    for image in images:
        lies, light = random.integers(2), int(random.integers(120, 240))
        at, size = int(random.integers(1, WIDTH - 3)), int(random.integers(1, 3))
        part = image[at : at + size] if lies else image[:, at : at + size]
        part[:] = light + random.integers(0, 8, part.shape)
    return images


def table_of(images: np.ndarray) -> pa.Table:
    labels = pa.array(np.arange(len(images)) % 3)
    schema = pa.schema([image_field("image", SHAPE), pa.field("label", labels.type)])
    return pa.table([image_array(images), labels], schema=schema)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return table_of(bars(IMAGES))


@pytest.fixture(scope="module")
def fresh() -> pa.Table:
    """Images that no model has seen."""
    return table_of(bars(IMAGES, seed=1))


@pytest.fixture(scope="module")
def split() -> np.ndarray:
    return (np.arange(IMAGES) % 10 == 0).astype(np.uint8) * 2


@pytest.fixture(scope="module")
def trained(table: pa.Table, split: np.ndarray) -> TrainedModel:
    longer = QUICK.model_copy(update={"steps": 300})
    return pipeline.fit(table, Schema.from_arrow(table.schema), model=SMALL, training=longer, split=split)


@torch.no_grad()
def code_bits(module: ImageVAE, codes: torch.Tensor) -> torch.Tensor:
    """Bits of each image's code, in floats."""
    nats = module._hard_rate(module.prior.weights(quantised=True), codes.float())
    return nats.sum(1) * NATS_TO_BITS


def module_of(trained: TrainedModel) -> ImageVAE:
    assert isinstance(trained.module, ImageVAE)
    return trained.module


def test_images_are_learnt_and_the_code_says_what_they_are(trained: TrainedModel) -> None:
    record = trained.record
    assert record["code_score"] > 0.3
    assert record["code"]["dead_latents"] < 4
    assert record["train_rows"] == IMAGES * 9 // 10
    paid = [entry["column_bits"] + entry["code_bits"] for entry in record["history"]]
    assert paid[-1] < 0.7 * paid[0]


def test_what_is_written_is_what_the_float_model_says(trained: TrainedModel, table: pa.Table) -> None:
    module, model = module_of(trained), pipeline.integer_model(trained)
    assert isinstance(model, ImageModel)
    images = bars(400, seed=1).reshape(400, -1)
    batch = {"pixels": torch.from_numpy(images)}
    codes = module.encode(batch)
    streams = model.encode_block(images, np.zeros((400, 1), np.uint8), codes.numpy())
    rate = code_bits(module, codes).double().sum()
    pixels = module.cell_bits(batch).double().sum()
    assert 8 * (len(streams[0]) - 9) == pytest.approx(float(rate), rel=0.01, abs=64)
    assert 8 * (len(streams[1]) - 9) == pytest.approx(float(pixels), rel=0.005)
    back, _, again = model.decode_block(streams, 400)
    np.testing.assert_array_equal(back, images)
    np.testing.assert_array_equal(again, codes.numpy())


def test_features_of_codes_are_those_of_the_codec(trained: TrainedModel) -> None:
    module, model = module_of(trained), pipeline.integer_model(trained)
    assert isinstance(model, ImageModel)
    codes = np.random.default_rng(0).integers(-2, 3, (20, 4)).astype(np.int8)
    floats = module.pixels.features(module.pixels.weights(quantised=True), torch.from_numpy(codes).float())
    assert floats is not None
    whole = model.features(codes).reshape(20, HEIGHT, WIDTH, -1) / 128
    np.testing.assert_allclose(floats.detach().numpy(), whole, atol=0.06)


def test_drawn_pixels_stand_for_all_of_them(trained: TrainedModel) -> None:
    module = module_of(trained)
    images = bars(64, seed=2)
    batch = {"pixels": torch.from_numpy(images.reshape(64, -1)), "moving": torch.from_numpy(moving(images))}
    w = module.pixels.weights(quantised=True)
    features = module.pixels.features(w, module.encode(batch).float())
    whole = float(module.cell_bits(batch).mean()) / NATS_TO_BITS
    generator = torch.Generator().manual_seed(0)
    found = list[float]()
    with torch.no_grad():
        for _ in range(40):
            places, weights = module._places(batch, 30, generator)
            assert places.shape == weights.shape == (64, 30)
            found.append(
                float(
                    (module.pixels.nats(w, batch["pixels"].view(64, *SHAPE), features, places) * weights)
                    .sum(1)
                    .mean()
                )
            )
    assert np.mean(found) == pytest.approx(whole, rel=0.05)
    assert module._places(batch, HEIGHT * WIDTH, generator)[1].unique().tolist() == [1.0]
    assert HELD_PIXELS < 784


def test_what_moves_is_what_is_not_of_one_colour_around() -> None:
    images = np.zeros((1, 12, 12, 1), np.uint8)
    images[0, 5, 5] = 9
    expected = np.zeros((12, 12), bool)
    expected[3:8, 3:8] = True
    np.testing.assert_array_equal(moving(images).reshape(12, 12), expected)
    assert not moving(np.full((2, 5, 5, 3), 7, np.uint8)).any()


def test_a_code_is_the_same_whatever_the_batch(trained: TrainedModel, table: pa.Table) -> None:
    whole = encode_rows(trained, table)
    apart = np.concatenate([encode_rows(trained, table.slice(k, 7)) for k in range(0, 70, 7)])
    np.testing.assert_array_equal(whole[:70], apart)
    assert encode_size(trained) == 1_024
    assert (whole == 0).any()


def test_archives_are_exact_or_within_grey_levels(
    trained: TrainedModel, table: pa.Table, tmp_path: Path
) -> None:
    report = vae.compress(table, tmp_path / "exact.svae", model=trained)
    assert report.per_column[0].coder == "neural"
    assert report.codes_summary.latents == 4
    with vae.open(tmp_path / "exact.svae") as archive:
        assert archive.read().equals(table)
        assert archive.schema.equals(table.schema, check_metadata=True)
        assert archive.read(["image"], (100, 120)).equals(table.select(["image"]).slice(100, 20))
        np.testing.assert_array_equal(archive.dense_codes(), encode_rows(trained, table))
        assert archive.verify(table) == {"image": 0.0, "label": 0.0}
    near = vae.compress(table, tmp_path / "near.svae", settings=SMALL, training=QUICK, bounds={"image": 5.7})
    assert near.per_column[0].bound == 5.0
    assert near.archive_bytes < report.archive_bytes
    with vae.open(tmp_path / "near.svae") as archive:
        assert 0 < archive.verify(table)["image"] <= 5
    lesser = pipeline.fit(
        table, Schema.from_arrow(table.schema), model=SMALL, training=QUICK, bounds={"image": 5}
    )
    with pytest.raises(BoundError, match="the model keeps it within 5 only"):
        vae.compress(table, tmp_path / "no.svae", model=lesser, bounds={})


def test_models_of_images_are_saved_and_read_back(trained: TrainedModel, tmp_path: Path) -> None:
    again = load(save(trained, tmp_path / "model"))
    assert again.digest == trained.digest
    assert isinstance(again.layout, ImageLayout)
    images = {"pixels": torch.from_numpy(bars(5).reshape(5, -1))}
    assert torch.equal(module_of(again).encode(images), module_of(trained).encode(images))
    with pytest.raises(ModelError, match="a model of images"):
        _ = again.of_columns


def test_a_model_of_other_images_is_refused(trained: TrainedModel, tmp_path: Path) -> None:
    other = pa.table({"image": image_array(np.zeros((5, 4, 4, 1), np.uint8)), "label": pa.array([0] * 5)})
    with pytest.raises(ModelError, match="another schema"):
        vae.compress(other, tmp_path / "no.svae", model=trained)
    assert not list(tmp_path.iterdir())


def test_images_are_drawn_and_walked_between(trained: TrainedModel, table: pa.Table) -> None:
    drawn = sample_rows(trained, 300, seed=1)
    assert drawn.schema.field("image").type == table.schema.field("image").type
    assert drawn["label"].null_count == 300
    model = pipeline.integer_model(trained)
    assert isinstance(model, ImageModel)
    codes = encode_rows(trained, table)
    noise = np.random.default_rng(0)
    likely = model.sample_images(codes, noise)
    other = noise.permuted(likely, axis=1)
    sizes = [len(model.encode_block(x, np.zeros((IMAGES, 1), np.uint8), codes)[1]) for x in (likely, other)]
    assert sizes[0] < sizes[1]  # what is drawn is what the model holds likely
    assert sample_rows(trained, 3, seed=1).equals(sample_rows(trained, 3, seed=1))
    way = rows_between(trained, table.take([3, 4]), 5)
    assert way.num_rows == 5
    ends = rows_from_codes(trained, encode_rows(trained, table.take([3, 4])))
    assert way.take([0, 4])["image"].equals(ends["image"])


def test_an_evaluation_and_its_page_show_images(
    trained: TrainedModel, table: pa.Table, split: np.ndarray, tmp_path: Path
) -> None:
    report = vae.compress(table, tmp_path / "bars.svae", model=trained)
    found = evaluate.evaluate(
        trained, table, tmp_path / "report", split=split, archive_path=tmp_path / "bars.svae"
    )
    numbers = found.numbers
    assert numbers["codes_only"]["score"] == pytest.approx(trained.record["code_score"], abs=0.01)
    assert numbers["restored"]["columns"]["image"]["max_error"] == 0
    assert numbers["bits"]["total"] == pytest.approx(
        numbers["bits"]["code"] + numbers["bits"]["columns"]["image"]
    )
    assert json.loads((tmp_path / "report" / evaluate.NUMBERS_NAME).read_text())["rows"]["held_out"] == 60
    assert {path.name for path in found.figures} == {"training.png", "bits.png", "codes.png", "originals.png"}
    with vae.open(tmp_path / "bars.svae") as archive:
        examples = examples_of(trained, table, split, archive)
    walked = traversal.latents_section(traversal.traverse(trained, table))
    assert 1 <= len(walked[0].figures) <= traversal.MOST_WALKS
    page.write(tmp_path / "page.html", name="bars", report=report, numbers=numbers, examples=examples)
    text = (tmp_path / "page.html").read_text()
    assert "image, from top to bottom: original, code alone, archive" in text
    assert text.count("data:image/png") == 1


def test_the_score_that_the_gate_weighs(trained: TrainedModel, table: pa.Table, split: np.ndarray) -> None:
    score = pipeline.score(trained, table, split)
    assert score.rows == 60
    assert score.code_score == pytest.approx(trained.record["code_score"], abs=1e-4)
    module = module_of(trained)
    held = {"pixels": torch.from_numpy(bars(IMAGES)[split == 2].reshape(60, -1))}
    expected = float((module.cell_bits(held)[:, 0] + code_bits(module, module.encode(held))).mean())
    assert expected < score.bits_per_row < expected + 5  # and the labels, by other coders


@pytest.mark.parametrize("family", list(Family))
def test_all_families_code_images_from_settings_alone(
    family: Family, table: pa.Table, tmp_path: Path
) -> None:
    model = SMALL.model_copy(update={"family": family, "pseudo_rows": 3})
    made = pipeline.fit(table, Schema.from_arrow(table.schema), model=model, training=QUICK)
    assert encode_rows(made, table).shape == (IMAGES, 4)
    if family in (
        Family.quantized,
        Family.topk,
    ):  # small images give a drawn posterior little to be worth its KL for
        assert not made.record["code"]["collapsed"]
    vae.compress(table, tmp_path / "bars.svae", model=made)
    with vae.open(tmp_path / "bars.svae") as archive:
        assert archive.report().codes_summary.family in (family.value, "none")
        assert archive.read().equals(table)


def aimed(table: pa.Table, target: str, steps: int) -> TrainedModel:
    model = SMALL.model_copy(update={"target": target, "latents": 6})
    training = QUICK.model_copy(update={"steps": steps})
    return pipeline.fit(table, Schema.from_arrow(table.schema), model=model, training=training)


def test_a_code_of_images_has_as_many_latents_on_as_are_asked_for(table: pa.Table, fresh: pa.Table) -> None:
    codes = encode_rows(aimed(table, "nonzeros=2", 150), fresh)
    assert (codes != 0).sum(1).mean() == pytest.approx(2, rel=0.05)


def test_a_code_of_images_has_the_bits_and_the_score_that_are_asked_for(
    table: pa.Table, fresh: pa.Table
) -> None:
    of_bits = aimed(table, "bits=10", 300)
    found = evaluate.model_bits(of_bits, *evaluate.coded_among(of_bits, fresh, np.arange(IMAGES)))
    assert found["code"] == pytest.approx(10, rel=0.05)
    assert alone(aimed(table, "score=0.3", 150), fresh) >= 0.95 * 0.3


def test_without_a_code_there_is_no_encoder(table: pa.Table, tmp_path: Path) -> None:
    model = SMALL.model_copy(update={"codes": Codes.none})
    made = pipeline.fit(table, Schema.from_arrow(table.schema), model=model, training=QUICK)
    assert "encoder" not in made.record["learning_rates"]
    assert encode_rows(made, table).shape == (IMAGES, 0)
    vae.compress(table, tmp_path / "plain.svae", model=made)
    with vae.open(tmp_path / "plain.svae") as archive:
        assert archive.latents == 0
        assert archive.read().equals(table)


def test_colour_and_null_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    slope = np.add.outer(np.arange(8), 3 * np.arange(8))[None, :, :, None]
    images = (random.integers(0, 180, (900, 1, 1, 3)) + slope + random.integers(0, 9, (900, 8, 8, 3))).astype(
        np.uint8
    )
    column = image_array(images).to_pylist()
    column[7] = column[8] = None
    schema = pa.schema([image_field("image", (8, 8, 3))])
    given = pa.table([pa.array(column, schema.field(0).type)], schema=schema)
    longer = QUICK.model_copy(update={"steps": 100})  # after 60 the mean of the weights lies behind them
    vae.compress(given, tmp_path / "colour.svae", settings=SMALL, training=longer)
    with vae.open(tmp_path / "colour.svae") as archive:
        assert archive.report().per_column[0].coder == "neural"
        assert archive.read().equals(given)


def test_layouts_follow_from_images_and_settings(table: pa.Table) -> None:
    from data.gridfit import fit_table

    grid = fit_table(table, {"image": 2})["image"]
    seen = bars(50).reshape(50, -1)
    layout = make_layout(grid, seen // 5, ModelSettings(), rows=50_000)
    assert (layout.plan.height, layout.plan.width, layout.plan.channels) == SHAPE
    assert (layout.plan.levels, layout.plan.units, layout.plan.latents) == (52, 64, 32)
    assert layout.plan.counted == 4
    two = fit_table(table, {"image": 200})["image"]
    assert make_layout(two, seen // 200, ModelSettings(), rows=50).plan.counted == 1
    assert layout.variance > 0
    assert latents_of_wholes(ModelSettings(latents=7)) == 7


def test_what_follows_from_other_columns_follows_beside_images_too(table: pa.Table, tmp_path: Path) -> None:
    numbers = pa.array(np.random.default_rng(0).integers(0, 1_000, IMAGES))
    given = table.append_column("one", numbers).append_column("other", pa.array(3 * numbers.to_numpy() + 7))
    made = pipeline.fit(given, Schema.from_arrow(given.schema), model=SMALL, training=QUICK)
    assert [derived.name for derived in made.layout.derived][-1:] in (["one"], ["other"])
    again = load(save(made, tmp_path / "model"))
    report = vae.compress(given, tmp_path / "beside.svae", model=again)
    coders = {column.name: column.coder for column in report.per_column}
    assert "derived" in (coders["one"], coders["other"])
    with vae.open(tmp_path / "beside.svae") as archive:
        assert archive.read().equals(given)


@pytest.mark.parametrize("what", ["null", "alike", "large"])
def test_images_that_tell_nothing_leave_the_model_to_the_numbers(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = bars(400)
    if what == "large":
        monkeypatch.setattr(lesson, "MODELLED_VALUES", HEIGHT * WIDTH - 1)
    else:
        images[:] = images[0]
    column = image_array(images)
    if what == "null":
        column = pa.nulls(400, column.type)
    random = np.random.default_rng(0)
    schema = pa.schema([image_field("image", SHAPE), pa.field("x", pa.int64()), pa.field("y", pa.int64())])
    x = random.integers(0, 50, 400)
    given = pa.table([column, pa.array(x), pa.array(x + random.integers(0, 3, 400))], schema=schema)
    made = pipeline.fit(given, Schema.from_arrow(given.schema), model=SMALL, training=QUICK)
    assert sorted(made.layout.plan.names) == ["x", "y"]
    vae.compress(given, tmp_path / "numbers.svae", model=made)
    with vae.open(tmp_path / "numbers.svae") as archive:
        assert archive.read().equals(given)
    alone = given.select(["image"])
    with pytest.raises(lesson.NothingToModelError):
        pipeline.fit(alone, Schema.from_arrow(alone.schema), model=SMALL, training=QUICK)


def test_few_images_of_many_validate_and_steps_have_fewer_of_large_ones(table: pa.Table) -> None:
    assert lesson.spread_evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert lesson.spread_evenly(0, 9).tolist() == []
    assert len(lesson.spread_evenly(1_000, 64)) == 64
    grid = ColumnGrid(name="image", kind="image", scale="step", high=255, shape=(256, 256, 3))
    layout = make_layout(grid, np.zeros((3, 256 * 256 * 3), np.uint8), SMALL, rows=3)
    with torch.device("meta"):
        assert ImageVAE(layout, SMALL).batch_rows == 10
