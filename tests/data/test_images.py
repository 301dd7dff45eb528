"""Columns of images: their shape stays with them through ingestion, Parquet and archives."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.batches import batch_rows
from data.bounds import resolve_bounds
from data.errors import DataError
from data.images import SHAPE_KEY, image_array, image_field, image_shape, images_of, shape_of_axes
from data.ingest import ingest, open_dataset
from data.output import write_table
from data.schema import ColumnStats, Schema
from data.sources import TableSource, open_source
from vae.codec import archive, writer

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]))


def pixels(rows: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), np.uint8)


def image_table(images: np.ndarray, **others: list) -> pa.Table:
    fields = [image_field("image", images.shape[1:])]
    columns = [image_array(images), *map(pa.array, others.values())]
    fields += [pa.field(name, column.type) for name, column in zip(others, columns[1:], strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


@given(shape=SHAPES, rows=st.integers(0, 5))
def test_images_of_undoes_image_array(shape, rows):
    images = pixels(rows, shape)
    table = image_table(images)

    assert image_shape(table.schema, "image") == shape
    assert np.array_equal(images_of(table.column("image"), shape), images)
    assert np.array_equal(images_of(image_array(images).slice(1), shape), images[1:])


def test_the_shape_survives_schema_ingestion_and_parquet(tmp_path):
    table = image_table(pixels(7, (4, 6, 3)), label=list(range(7)))

    dataset = ingest(TableSource(table), tmp_path / "d")
    write_table(dataset.batches(), dataset.schema, tmp_path / "a.parquet")

    schema = Schema.from_arrow(table.schema)
    found = [
        schema.to_arrow(),
        Schema.from_json(schema.to_json()).select(["image"]).to_arrow(),
        open_dataset(tmp_path / "d").schema.to_arrow(),
        open_dataset(tmp_path / "d").table(["image"], (2, 4)).schema,
        open_source(tmp_path / "a.parquet").table().schema,
    ]
    assert [image_shape(each, "image") for each in found] == [(4, 6, 3)] * 5
    stored = pq.read_schema(next((tmp_path / "d").rglob("*.parquet"))).field("image")
    assert stored.metadata[SHAPE_KEY] == b"4x6x3"
    assert Schema.from_arrow(schema.to_arrow()) == schema


def test_the_shape_survives_an_archive(tmp_path):
    images = pixels(9, (4, 6, 1))
    writer.write(image_table(images), tmp_path / "a.svae")

    with archive.open(tmp_path / "a.svae") as opened:
        known = Schema.from_arrow(opened.schema).to_arrow()
        table = opened.read()

    assert image_shape(known, "image") == image_shape(table.schema, "image") == (4, 6, 1)
    assert np.array_equal(images_of(table.column("image"), (4, 6, 1)), images)


@pytest.mark.parametrize(
    ("axes", "dtype", "shape"),
    [
        ((5, 7), np.uint8, (5, 7, 1)),
        ((5, 7, 1), np.uint8, (5, 7, 1)),
        ((5, 7, 3), np.uint8, (5, 7, 3)),
        ((5, 7, 4), np.uint8, (5, 7, 4)),
        ((5, 7, 2), np.uint8, None),
        ((5, 7), np.int8, None),
        ((600,), np.uint8, None),
        ((5, 7, 3, 1), np.uint8, None),
    ],
)
def test_arrays_of_bytes_are_images_by_their_axes(tmp_path, axes, dtype, shape):
    np.save(tmp_path / "a.npy", np.zeros((3, *axes), dtype))
    np.savez(tmp_path / "b.npz", x=np.zeros((3, *axes), dtype), y=np.zeros(3))

    assert image_shape(open_source(tmp_path / "a.npy").schema.to_arrow(), "values") == shape
    arrow = open_source(tmp_path / "b.npz").schema.to_arrow()
    assert [image_shape(arrow, name) for name in ("x", "y", "z")] == [shape, None, None]


def test_columns_of_a_matrix_are_no_images(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.uint8))

    assert image_shape(open_source(tmp_path / "a.npy").schema.to_arrow(), "c0") is None


@pytest.mark.parametrize(
    "text", [b"", b"2x2", b"2x3x3", b"0x12x1", b"-2x-6x1", b"2x6x1 ", b"2x2x3x1", b"6x1x2"]
)
def test_a_shape_that_does_not_fit_is_none(text):
    field = image_field("image", (2, 6, 1)).with_metadata({SHAPE_KEY: text})

    assert image_shape(pa.schema([field]), "image") is None


@pytest.mark.parametrize("layout", [b"", b"{}", b"[1]", b'[{"name": ""}]', json.dumps([{}]).encode()])
def test_a_foreign_layout_is_none(layout):
    field = pa.field("image", pa.list_(pa.uint8(), 12))

    assert image_shape(pa.schema([field], {b"svae.arrays": layout}), "image") is None


def test_null_images_are_refused():
    column = pa.array([[1, 2], None], pa.list_(pa.uint8(), 2))
    with pytest.raises(DataError) as error:
        images_of(column, (1, 2, 1))
    assert str(error.value) == "an image cannot be null, nor a part of it; write .parquet instead"
    with pytest.raises(DataError):
        images_of(pa.array([[1, None]], pa.list_(pa.uint8(), 2)), (1, 2, 1))


def test_shape_of_axes():
    assert [shape_of_axes(axes) for axes in ((), (3,), (3, 4), (3, 4, 5))] == [None, None, (3, 4, 1), None]


@pytest.mark.parametrize(("shape", "axes"), [((4, 6, 1), (4, 6)), ((4, 6, 3), (4, 6, 3))])
def test_images_are_written_as_arrays_of_their_shape(tmp_path, shape, axes):
    images, labels = pixels(5, shape), [3, 1, 4, 1, 5]
    table = image_table(images, label=labels)
    schema = Schema.from_arrow(table.schema)

    write_table(table, schema, tmp_path / "a.npz")
    write_table(table.select(["image"]), schema.select(["image"]), tmp_path / "a.npy")
    write_table(table, schema, tmp_path / "b.npy")

    found = np.load(tmp_path / "a.npz")
    assert found["image"].shape == (5, *axes)
    assert found["label"].tolist() == labels
    for array in (found["image"], np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")["image"]):
        assert np.array_equal(array, images.reshape(5, *axes))


def test_row_groups_of_wide_rows_are_short(tmp_path, monkeypatch):
    for module in ("sources", "dataset", "ingest"):
        monkeypatch.setattr(f"data.{module}.batch_rows", lambda schema: batch_rows(schema, 50))
    images = pixels(70, (4, 5, 1))

    dataset = ingest(TableSource(image_table(images)), tmp_path / "d")

    parts = sorted((tmp_path / "d").rglob("*.parquet"))
    assert [pq.ParquetFile(part).num_row_groups for part in parts] == [16, 16, 3]
    assert np.array_equal(images_of(dataset.table()["image"], (4, 5, 1)), images)
    assert np.array_equal(images_of(dataset.table(rows=[69, 0, 33])["image"], (4, 5, 1)), images[[69, 0, 33]])
    assert [batch.num_rows for batch in dataset.batches()] == [2] * 35


@pytest.mark.parametrize(("spec", "width"), [("image=3", 3.0), ("image=2%", 5.1), ("image=0", None)])
def test_images_take_a_bound_in_grey_levels(spec: str, width: float | None) -> None:
    table = pa.table(
        [image_array(np.zeros((2, 3, 3, 1), np.uint8))], pa.schema([image_field("image", (3, 3, 1))])
    )
    schema = Schema.from_arrow(table.schema)
    found = resolve_bounds([spec], schema, {"image": ColumnStats(nulls=0)})
    assert found == ({} if width is None else {"image": pytest.approx(width)})
