"""Images as a folder of PNG: there and back exactly, whole or not at all, and never outside of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data import pngfolder
from data.errors import DataError, UsageError
from data.images import image_array, image_field, images_of
from data.ingest import ingest
from data.output import check_output, write_table
from data.schema import Schema
from data.sources import open_source

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4]))
WAY_OUT = "leave the column out (--columns), and files are named by row number"


def pixels(rows: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, *shape), np.uint8)


def image_table(images: np.ndarray, **others: list) -> pa.Table:
    columns = {name: pa.array(values) for name, values in others.items()}
    fields = [image_field("image", images.shape[1:]), *(pa.field(n, c.type) for n, c in columns.items())]
    return pa.Table.from_arrays([image_array(images), *columns.values()], schema=pa.schema(fields))


def write(table: pa.Table, path: Path) -> None:
    write_table(table.to_batches(max_chunksize=2), Schema.from_arrow(table.schema), path)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(table: pa.Table, path: Path) -> str:
    before = tree(path.parent)
    with pytest.raises((DataError, UsageError)) as error:
        write(table, path)
    assert tree(path.parent) == before
    assert list(path.parent.glob(".*")) == []
    return str(error.value)


@settings(max_examples=25)
@given(shape=SHAPES, rows=st.integers(1, 5), depth=st.integers(0, 2))
def test_a_folder_comes_back_through_ingestion(tmp_path_factory, shape, rows, depth):
    base, images = tmp_path_factory.mktemp("there"), pixels(rows, shape)
    names = ["/".join([*["a", "b"][:depth], f"{row}.png"]) for row in range(rows)]
    for name, image in zip(names, images, strict=True):
        (base / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if shape[2] == 1 else image).save(base / "d" / name)

    dataset = ingest(base / "d", base / "dataset")
    write_table(dataset.batches(), dataset.schema, base / "again")

    assert tree(base / "again") == tree(base / "d") == names
    for name in names:
        with Image.open(base / "d" / name) as first, Image.open(base / "again" / name) as second:
            assert first.mode == second.mode
            assert np.array_equal(np.asarray(first), np.asarray(second))
    assert open_source(base / "again").table().equals(dataset.table(), check_metadata=True)


def test_rows_without_names_are_named_by_number_in_folders_of_their_labels(tmp_path):
    images, labels = pixels(5, (3, 4, 1)), [3, 1, 3, 1, 5]
    table = image_table(images, label=labels)

    write(table, tmp_path / "d")
    write(table.select(["image"]), tmp_path / "bare")

    assert tree(tmp_path / "d") == [
        "1/00000001.png", "1/00000003.png", "3/00000000.png", "3/00000002.png", "5/00000004.png"
    ]  # fmt: skip
    assert tree(tmp_path / "bare") == [f"0000000{row}.png" for row in range(5)]
    again = open_source(tmp_path / "d").table()
    order = [1, 3, 0, 2, 4]
    assert again["label"].to_pylist() == [str(labels[row]) for row in order]
    assert np.array_equal(images_of(again["image"], (3, 4, 1)), images[order])


def test_a_name_that_is_null_is_the_number(tmp_path):
    write(
        image_table(pixels(3, (2, 2, 3)), file=["a.jpg", None, "b"], label=["x", "y", None]), tmp_path / "d"
    )

    assert tree(tmp_path / "d") == ["a.png", "b.png", "y/00000001.png"]


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "/etc/a.png",
        "a/../../b.png",
        "a//b.png",
        "a/",
        ".",
        "",
        "..",
        ".hidden.png",
        "a/.git/b.png",
        "a\\b.png",
        "c:a.png",
        "a\0b.png",
        "a\nb.png",
        "x" * 300,
        "é" * 200,
        "/".join("a" * 20),
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    table = image_table(pixels(2, (2, 2, 1)), file=["fine.png", name])
    shown = pngfolder._with_ending(name)

    assert refused(table, tmp_path / "in" / "d") == (
        f"row 1: {shown!r} is not a name for a file in the folder; {WAY_OUT}"
    )
    assert not (tmp_path / "in").exists()


@settings(max_examples=100)
@given(name=st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.text("./\\a", max_size=8))
def test_whatever_the_name_nothing_lies_outside(tmp_path_factory, name):
    base = tmp_path_factory.mktemp("in")
    table = image_table(pixels(1, (2, 2, 1)), file=[name])
    try:
        write(table, base / "d")
    except DataError:
        assert list(base.iterdir()) == []
    else:
        assert [path.name for path in base.iterdir()] == ["d"]
        assert len(tree(base / "d")) == 1


@pytest.mark.parametrize("label", ["..", "a/../..", "", "/etc", ".x"])
def test_labels_are_hostile_too(tmp_path, label):
    message = refused(image_table(pixels(1, (2, 2, 1)), label=[label]), tmp_path / "d")

    assert message == f"row 0: '{label}/00000000.png' is not a name for a file in the folder; {WAY_OUT}"


@pytest.mark.parametrize("names", [["a.png", "a.png"], ["a.jpg", "a.png"], ["a.png", "a.png/b.png"]])
def test_one_name_for_two_rows_is_refused(tmp_path, names):
    message = refused(image_table(pixels(2, (2, 2, 1)), file=names), tmp_path / "d")

    assert message == f"row 1: {names[1]!r} is the name of another row's file, too; {WAY_OUT}"


def test_what_is_there_is_not_replaced(tmp_path):
    table = image_table(pixels(2, (2, 2, 1)))
    for name in ("full", "empty"):
        (tmp_path / name).mkdir()
    for name in ("full/keep.txt", "file"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("empty")

    for name in ("full", "file", "link"):
        assert refused(table, tmp_path / name) == (
            f"{tmp_path}/{name}: is there and not an empty folder; name a new one"
        )
    write(table, tmp_path / "empty")
    assert len(tree(tmp_path / "empty")) == 2


def test_an_interruption_leaves_nothing(tmp_path):
    table = image_table(pixels(4, (2, 2, 1)))

    def broken():
        yield table.to_batches()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(broken(), Schema.from_arrow(table.schema), tmp_path / "new" / "d")
    assert list(tmp_path.iterdir()) == []


def test_null_images_are_refused(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array([[1], None], pa.list_(pa.uint8(), 1))], schema=pa.schema([image_field("image", (1, 1, 1))])
    )

    assert refused(table, tmp_path / "d") == (
        "an image cannot be null, nor a part of it; write .parquet instead"
    )


KNOWN = (
    "the name must end in one of .parquet, .csv, .npy, .npz, .jsonl, .txt, "
    "or have no ending for a folder of PNG images"
)


def test_a_folder_is_for_images_alone(tmp_path):
    images = pixels(2, (2, 2, 1))
    other = image_table(images).rename_columns(["other"])
    two = image_table(images).append_column(other.schema.field(0), other.column(0))

    assert refused(pa.table({"a": [1]}), tmp_path / "d") == (
        f"{tmp_path}/d: {KNOWN}: a folder is for images, and there is no column of images; the columns are a"
    )
    assert refused(two, tmp_path / "d") == (
        f"{tmp_path}/d: {KNOWN}: a folder is for images, and there are several columns of images; "
        "the columns are image, other"
    )
    assert refused(image_table(images, depth=[1, 2]), tmp_path / "d") == (
        f"{tmp_path}/d: {KNOWN}: a folder of images has no place for column 'depth'; leave it out (--columns)"
    )
    assert check_output(tmp_path / "d") == ""
