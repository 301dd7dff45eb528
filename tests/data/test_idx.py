"""Files in the format of the original MNIST: images, labels, both; what is odd is refused by name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data import idxfile
from data.errors import SourceError
from data.images import image_shape, images_of
from data.ingest import ingest
from data.output import write_table
from data.sources import open_source


def idx(array: np.ndarray, code: int = 8) -> bytes:
    axes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + axes + array.tobytes()


def digits(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (rows, 5, 4), np.uint8), rng.integers(0, 10, rows, np.uint8)


def put(folder: Path, part: str, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits(rows, seed)
    folder.mkdir(exist_ok=True)
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return images, labels


@given(array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, max_side=6)), packed=st.booleans())
def test_images_come_back(tmp_path_factory, array, packed):
    if array.ndim == 4:
        array = np.concatenate([array[..., :1]] * 3, axis=3)
    folder = tmp_path_factory.mktemp("idx")
    path = folder / ("a-ubyte.gz" if packed else "a.idx")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))

    source = open_source(path)
    table = source.table()

    shape = array.shape[1:] if array.ndim == 4 else (*array.shape[1:], 1)
    assert image_shape(table.schema, "image") == shape
    assert np.array_equal(images_of(table.column("image"), shape).reshape(array.shape), array)
    assert (source.rows, source.source_bytes) == (len(array), array.nbytes)
    assert source.stored_bytes == path.stat().st_size
    write_table(table, source.schema, folder / "b.npy")
    assert np.array_equal(np.load(folder / "b.npy"), array)


@pytest.mark.parametrize(
    ("name", "shape", "column"),
    [
        ("train-labels-idx1-ubyte", (6,), pa.field("label", pa.uint8())),
        ("train.idx1-ubyte", (6,), pa.field("value", pa.uint8())),
        ("matrix.idx", (6, 3), pa.field("values", pa.list_(pa.uint8(), 3))),
        ("deep.idx", (6, 2, 3, 5), pa.field("values", pa.list_(pa.uint8(), 30))),
    ],
)
def test_other_axes_are_other_columns(tmp_path, name, shape, column):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    (tmp_path / name).write_bytes(idx(array))

    table = open_source(tmp_path / name).table()

    assert [field.name for field in table.schema] == [column.name]
    assert table.schema.field(0).type == column.type
    assert table.column(0).to_pylist() == array.reshape(6, -1).squeeze().tolist()
    assert image_shape(table.schema, column.name) is None


def test_a_folder_pairs_images_with_their_labels(tmp_path):
    first, second = put(tmp_path / "d", "t10k", 3), put(tmp_path / "d", "train", 7, seed=1)

    source = open_source(tmp_path / "d")
    dataset = ingest(source, tmp_path / "out")
    table = dataset.table()

    assert table.column_names == ["image", "label"]
    assert image_shape(table.schema, "image") == (5, 4, 1)
    assert np.array_equal(images_of(table["image"], (5, 4, 1))[..., 0], np.concatenate([first[0], second[0]]))
    assert table["label"].to_pylist() == [*first[1], *second[1]]
    assert dataset.manifest.source.source_bytes == 10 * 21


def test_a_glob_of_one_kind_is_one_column(tmp_path):
    put(tmp_path / "d", "t10k", 3)
    put(tmp_path / "d", "train", 7)

    assert open_source(tmp_path / "d" / "*images*").table().column_names == ["image"]
    assert open_source(tmp_path / "d" / "*labels*").rows == 10


def test_memory_is_bounded_by_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(idxfile, "_PIECE", 50)
    images, labels = put(tmp_path / "d", "train", 7)

    source = open_source(tmp_path / "d")

    assert [batch.num_rows for batch in source._read()] == [2, 2, 2, 1]
    assert np.array_equal(images_of(source.table()["image"], (5, 4, 1))[..., 0], images)
    assert source.table()["label"].to_pylist() == labels.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing of the kind", "is not an idx file of bytes"),
        (b"\0\0\x08", "is not an idx file of bytes"),
        (idx(np.zeros(3, ">f4"), 13), "is an idx file of floats, only bytes are read; save it as .npy"),
        (
            idx(np.zeros(3, ">i4"), 12),
            "is an idx file of 32-bit integers, only bytes are read; save it as .npy",
        ),
        (b"\0\0\x08\x03\0\0", "is cut short; fetch it again"),
        (idx(np.zeros((3, 2, 2), np.uint8))[:-1], "is cut short; fetch it again"),
        (idx(np.zeros((3, 2, 2), np.uint8)) + b"x", "holds more than its header says; fetch it again"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "rows of 4294967295 x 4294967295 are too large; cut them"),
        (b"\0\0\x08\x01" + b"\xff" * 4, "is cut short; fetch it again"),
        (b"\0\0\x08\0", "has no values"),
        (idx(np.zeros((3, 0, 2), np.uint8)), "has no values"),
        (idx(np.zeros((0, 2, 2), np.uint8)), "has no rows"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.idx").write_bytes(content)

    with pytest.raises(SourceError) as error:
        open_source(tmp_path / "a.idx").table()

    assert str(error.value) == f"{tmp_path}/a.idx: {message}"


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    def refused(**files: np.ndarray) -> str:
        folder = tmp_path / "_".join(files)
        folder.mkdir()
        for name, array in files.items():
            (folder / f"{name}.idx").write_bytes(idx(array))
        with pytest.raises(SourceError) as error:
            open_source(folder).table()
        return str(error.value).replace(f"{folder}/", "")

    images, labels = digits(4)
    assert refused(a_images=images, a_labels=labels[:3]) == (
        "a_labels.idx: has 3 rows, a_images.idx has 4; fetch them again"
    )
    assert refused(a_images=images, a_labels=labels, b_images=images) == (
        "b_images.idx: no file of labels is named like it; name one kind with a glob"
    )
    assert refused(a_images=images, a_labels=labels, c_labels=labels) == (
        "c_labels.idx: no file of images is named like it; name one kind with a glob"
    )
    assert refused(d_images=images, e_images=images[:, 1:]) == (
        "e_images.idx: holds rows of 4 x 4, those of d_images.idx are of 5 x 4; name files of one shape with a glob"
    )


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    put(tmp_path / "d", "train", 3)
    images = tmp_path / "d" / "train-images-idx3-ubyte"
    images.write_bytes(idx(digits(3)[0]))

    with pytest.raises(SourceError) as error:
        open_source(tmp_path / "d").table()

    assert str(error.value) == f"{images}.gz: is there twice, as {images}; name one with a glob"
