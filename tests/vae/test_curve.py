"""The rate-distortion curve: its points are archives and rivals of one grid, and the page shows the same figures."""

from __future__ import annotations

import base64
import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.dataset import Dataset
from data.gridfit import fit_table
from data.images import image_array, image_field
from data.ingest import ingest
from data.sources import TableSource
from vae import curve, page, pipeline
from vae.codec.summary import Rivals, measure_rivals
from vae.curve import Curve, Point
from vae.settings import ModelSettings, TrainSettings

SHARES = (0.0, 0.01, 0.1)
SMALL = ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1)
QUICK = TrainSettings(steps=20, batch_rows=256, threads=1)


@pytest.fixture(scope="module")
def dataset(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return ingest(TableSource(table), tmp_path_factory.mktemp("curve") / "dataset")


@pytest.fixture(scope="module")
def points(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    told: list[float] = []
    scratch = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        # A folder of its own: other tests of the same hour make and remove such files in the common one.
        patch.setattr(tempfile, "tempdir", str(scratch))
        found = curve.measure(
            dataset.table(), dataset.schema, dataset.stats, shares=SHARES, model=SMALL, training=QUICK,
            on_progress=lambda share, words: told.append(share),
        )  # fmt: skip
    assert 0 <= min(told) <= told[0] < told[-1] == max(told) == 1
    assert not list(scratch.iterdir())
    return found


def test_a_point_a_bound_and_fewer_bits_the_wider_it_is(points: list[Point]) -> None:
    assert [point.share for point in points] == list(SHARES)
    for name in (curve.OURS, *curve.TOOLS):
        bits = [point.bits[name] for point in points]
        assert bits == sorted(bits, reverse=True), name


def test_rivals_are_those_that_compress_measures(dataset: Dataset, points: list[Point]) -> None:
    rivals = measure_rivals(dataset.table())
    for name in curve.TOOLS:
        assert points[0].bits[name] == 8 * getattr(rivals, name) / dataset.rows


def test_bounds_as_one_share(dataset: Dataset) -> None:
    ranges = {
        name: float(dataset.stats[name].max) - float(dataset.stats[name].min) for name in ("size", "weight")
    }  # type: ignore[arg-type]
    bounds = {name: 0.05 * width for name, width in ranges.items()}
    assert curve.mean_share(bounds, dataset.schema, dataset.stats) == pytest.approx(0.05)
    half = {"weight": bounds["weight"]}
    of = 1 if dataset.stats["size"].distinct <= 64 else 2  # type: ignore[operator]
    assert curve.mean_share(half, dataset.schema, dataset.stats) == pytest.approx(0.05 / of)
    assert curve.mean_share({}, dataset.schema, dataset.stats) == 0


def test_a_model_s_own_point_is_what_it_writes(dataset: Dataset, tmp_path: Path) -> None:
    table, bounds = dataset.table(), {"weight": 2.0}
    model = pipeline.fit(table, dataset.schema, bounds=bounds, model=SMALL, training=QUICK)
    point = curve.point_of_model(model, table, dataset.schema, dataset.stats)
    report = pipeline.compress(table, tmp_path / "a.svae", model=model)
    size = 8 * report.archive_bytes / table.num_rows
    assert point.bits == {"archive": pytest.approx(size, rel=0.01)}  # the seconds it took are written too
    assert point.share == curve.mean_share(bounds, dataset.schema, dataset.stats) > 0


def test_bounds_of_images_are_grey_levels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1), dtype=np.uint8)
    table = pa.table({"image": image_array(noise), "label": pa.array(np.arange(60) % 3)})
    schema = pa.schema([image_field("image", (6, 6, 1)), table.schema.field("label")])
    images = ingest(TableSource(table.cast(schema)), tmp_path / "images")
    found = curve.measure(
        images.table(), images.schema, images.stats, model=SMALL, training=QUICK
    )  # without `shares`
    assert [255 * point.share for point in found] == [0, 1, 2, 4, 8, 16]
    for name in (curve.OURS, "pcodec"):
        bits = [point.bits[name] for point in found]
        # noise of 256, 86 and so many levels fewer: each step of the grid takes what it has to
        assert bits[0] > bits[1] > bits[-1], name
    assert curve.mean_share({"image": 4.0}, images.schema, images.stats) == pytest.approx(4 / 255)
    (part,) = curve.curve_section(Curve(found, images=bool(curve.images_of(images.schema))))
    assert [row[0] for row in part.tables[0].rows] == ["exact", "1", "2", "4", "8", "16"]
    assert "grey levels" in part.words[0]


def test_the_page_has_the_figures_drawn_and_as_a_table(tmp_path: Path) -> None:
    rivals = [Point(0.0, {"archive": 20.0, "pcodec": 40.0}), Point(0.1, {"archive": 5.0, "pcodec": 8.0})]
    found = Curve(rivals, Point(0.05, {"archive": 6.25}))
    (part,) = curve.curve_section(found)
    (table,), (picture,) = part.tables, part.figures
    assert table.names == ("bound", "archive", "pcodec, level 12", "archive over the best other")
    assert [list(row) for row in table.rows] == [
        ["exact", "20.0", "40.0", "0.50"],
        ["10%", "5.0", "8.0", "0.62"],
        ["5%, as given", "6.2", "", ""],
    ]
    svg = base64.b64decode(picture.data.partition(",")[2]).decode()
    assert all(
        f">{words}</text>" in svg for words in ("archive", "pcodec, level 12", "as given", "exact", "10%")
    )
    assert "20.0 (exact) to 5.0 (10%)" in picture.alt
    assert "as given" in page.write(tmp_path / "p.html", name="p", curve=found).read_text()
    assert curve.curve_section(None) == []
    (part,) = curve.curve_section(None, "svae run --curve")
    assert (part.title, part.words[0].split(": ")[1]) == ("Size by the error allowed", "svae run --curve")


def test_what_can_be_bounded(dataset: Dataset, tmp_path: Path) -> None:
    assert curve.can_be_bounded(dataset.schema, dataset.stats)
    names = ingest(TableSource(pa.table({"name": ["a", "b"] * 50})), tmp_path / "names")
    assert not curve.can_be_bounded(names.schema, names.stats)
    assert curve.shares_of(names.schema) == curve.SHARES


def test_json_has_every_point(points: list[Point]) -> None:
    rows = curve.rows_of(Curve(points, points[0]))
    assert [row["bound"] for row in rows] == [*SHARES, SHARES[0]]
    assert [row["given"] for row in rows] == [False, False, False, True]
    assert rows[1]["pcodec"] == points[1].bits["pcodec"]
    assert set(rows[0]) == {"bound", "given", "archive", *(set(Rivals.model_fields) - {"csv"})}


def test_other_tools_are_given_images_on_the_same_grid() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 6, 6, 1), dtype=np.uint8)
    there = image_array(noise).take(pa.array([*range(500), None]))
    table = pa.table({"image": there}, schema=pa.schema([image_field("image", (6, 6, 1))]))
    for bound, count in {0.0: 256, 4.0: 29}.items():
        rivals = measure_rivals(table, {"image": fit_table(table, {"image": bound})["image"]})
        # of noise that is spread evenly nothing is to be had but its entropy
        assert 8 * rivals.pcodec / noise.size == pytest.approx(math.log2(count), rel=0.05)  # type: ignore[operator]
        assert rivals.parquet_zstd19 >= rivals.pcodec / 1.05  # type: ignore[operator]
