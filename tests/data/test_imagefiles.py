"""PNG and JPEG files: pixels come back exactly, names are data, what is odd is refused by name."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data import imagefiles
from data.errors import ExtraError, SourceError
from data.images import image_shape, images_of
from data.ingest import ingest
from data.sources import open_source

SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 3, 4]))


def pixels(rows: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), np.uint8)


def save(path: Path, image: np.ndarray | Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    image.save(path, **options)
    return path


def refused(source: Path) -> str:
    with pytest.raises(SourceError) as error:
        open_source(source).table()
    return str(error.value).replace(f"{source.parent}/", "")


@settings(max_examples=30)
@given(shape=SHAPES, rows=st.integers(1, 5))
def test_a_folder_of_png_comes_back_through_parquet(tmp_path_factory, shape, rows):
    folder, images = tmp_path_factory.mktemp("png"), pixels(rows, shape)
    for row, image in enumerate(images):
        save(folder / f"{row}.png", image)

    source = open_source(folder)
    dataset = ingest(source, folder.with_name(f"{folder.name}-out"))
    table = dataset.table()

    assert table.column_names == ["file", "image"]
    assert table["file"].to_pylist() == [f"{row}.png" for row in range(rows)]
    assert image_shape(table.schema, "image") == shape
    assert np.array_equal(images_of(table["image"], shape), images)
    assert (source.rows, source.source_bytes) == (rows, images.nbytes)
    assert source.stored_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_folders_one_level_deep_are_labels(tmp_path):
    images = pixels(6, (3, 2, 1))
    for row, image in enumerate(images):
        save(tmp_path / "d" / ("cat" if row < 4 else "dog") / f"{row}.png", image)

    source = open_source(tmp_path / "d")

    assert source.schema.names == ["file", "image", "label"]
    kinds = [column.kind.value for column in source.schema.columns]
    assert kinds == ["text", "array", "categorical"]
    assert source.table()["label"].to_pylist() == ["cat"] * 4 + ["dog"] * 2
    assert source.table()["file"].to_pylist()[3:5] == ["cat/3.png", "dog/4.png"]
    save(tmp_path / "d" / "on its own.png", images[0])
    assert open_source(tmp_path / "d").schema.names == ["file", "image"]
    glob = open_source(tmp_path / "d" / "*" / "*.png")
    assert glob.table()["label"].to_pylist() == ["cat"] * 4 + ["dog"] * 2


def test_one_file_is_one_row(tmp_path):
    path = save(tmp_path / "a.PNG", pixels(1, (3, 2, 3))[0])

    assert open_source(path).table()["file"].to_pylist() == ["a.PNG"]


def test_jpeg_gives_the_pixels_that_pillow_decodes(tmp_path):
    path = save(tmp_path / "a.jpeg", pixels(1, (9, 7, 3))[0], quality=90)
    with Image.open(path) as image:
        decoded = np.asarray(image)

    table = open_source(path).table()

    assert np.array_equal(images_of(table["image"], (9, 7, 3))[0], decoded)


def test_orientation_is_left_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", pixels(1, (9, 7, 1))[0], exif=exif)

    assert image_shape(open_source(path).schema.to_arrow(), "image") == (9, 7, 1)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("P", 3)], ids=["two values become grey", "a palette becomes RGB"]
)
def test_modes_that_convert_without_loss_are_read(tmp_path, mode, channels):
    image = Image.fromarray(pixels(1, (8, 8))[0]).convert("RGB").convert(mode)
    wanted = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(8, 8, channels)

    table = open_source(save(tmp_path / "a.png", image)).table()

    assert np.array_equal(images_of(table["image"], (8, 8, channels))[0], wanted)


def deep_png(color: int, channels: int) -> bytes:
    """A PNG of 2 x 1 with 16 bits a value, which Pillow reads but does not write in all modes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 1, 16, color, 0, 0, 0)
    rows = zlib.compress(b"\0" + bytes(range(4 * channels)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_a_value_are_refused(tmp_path, color, channels):
    (tmp_path / "a.png").write_bytes(deep_png(color, channels))

    assert refused(tmp_path / "a.png") == "a.png: has 16 bits a value, 8 are read; save its values as .npy"


@pytest.mark.parametrize("mode", ["LA", "CMYK"])
def test_other_modes_are_refused(tmp_path, mode):
    path = save(tmp_path / ("a.png" if mode == "LA" else "a.jpg"), Image.new(mode, (3, 3)))

    assert refused(path) == (
        f"{path.name}: is of mode {mode}, which is not read; save it as grey, RGB or RGBA, 8 bits a value"
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_is_refused(tmp_path, mode):
    transparent = (0, 0, 0) if mode == "RGB" else 0
    path = save(tmp_path / "a.png", Image.new(mode, (3, 3)), transparency=transparent)

    assert refused(path) == ("a.png: has a transparent colour, which is not read; save it as RGB or RGBA")


def test_frames_are_refused(tmp_path):
    frames = [Image.new("L", (3, 3), shade) for shade in (0, 90)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])

    assert refused(tmp_path / "a.png") == "a.png: has several frames; save each as a file"


@pytest.mark.parametrize(
    ("shape", "told"), [((4, 6, 3), "6 x 4 RGB"), ((4, 5, 1), "5 x 4 grey"), ((4, 6, 4), "6 x 4 RGBA")]
)
def test_the_first_odd_image_is_named(tmp_path, shape, told):
    for row in range(3):
        save(tmp_path / "d" / f"{row}.png", pixels(1, (4, 6, 1))[0])
    save(tmp_path / "d" / "1.png", pixels(1, shape)[0])

    assert refused(tmp_path / "d") == (
        f"d/1.png: is {told}, {tmp_path}/d/0.png is 6 x 4 grey; give all images one size and mode"
    ).replace(f"{tmp_path}/", "")


def test_an_image_that_changes_while_it_is_read_is_refused(tmp_path):
    save(tmp_path / "d" / "0.png", pixels(1, (4, 6, 1))[0])
    path = save(tmp_path / "d" / "1.png", pixels(1, (4, 6, 1))[0])
    source = open_source(tmp_path / "d")
    assert source.rows == 2
    save(path, pixels(1, (6, 4, 1))[0])

    with pytest.raises(SourceError, match=r"1\.png: is 4 x 6 grey, .*0\.png is 6 x 4 grey; give all"):
        source.table()


def test_large_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(imagefiles, "MOST_VALUES", 100)
    path = save(tmp_path / "a.png", Image.new("RGB", (6, 6)))

    assert refused(path).endswith("values; make it smaller, or cut it")


@pytest.mark.parametrize("pixels", [100, 20], ids=["warned of", "refused by Pillow"])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, pixels):
    path = save(tmp_path / "a.png", Image.new("L", (10, 12)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)

    assert refused(path) == "a.png: is of more than 67,108,864 values; make it smaller, or cut it"


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_files_cut_short_are_refused_wherever_the_cut_is(tmp_path, ending):
    content = save(tmp_path / f"whole.{ending}", pixels(1, (9, 8, 3))[0]).read_bytes()
    path = tmp_path / f"a.{ending}"
    ends = (
        4 if ending == "png" else 2
    )  # The sum of the last chunk, which holds nothing, and the mark of the end.
    for length in range(1, len(content) - ends):
        path.write_bytes(content[:length])

        with pytest.raises(SourceError, match=rf"a\.{ending}: is (no PNG or JPEG, or is )?damaged"):
            open_source(path).table()


@settings(max_examples=150)
@given(data=st.data())
def test_a_png_with_a_changed_byte_is_refused_or_gives_the_same(tmp_path_factory, data):
    images = pixels(1, (6, 5, 3))
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "png")
    content = bytearray(buffer.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("bit") / "a.png"
    path.write_bytes(content)

    with contextlib.suppress(SourceError):
        assert np.array_equal(images_of(open_source(path).table()["image"], (6, 5, 3)), images)


@pytest.mark.parametrize("content", [b"text", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(30), b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)

    assert refused(tmp_path / "a.png") == "a.png: is no PNG or JPEG, or is damaged; fetch it again"


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.png").touch()

    assert refused(tmp_path / "a.png") == "a.png: is empty"


def test_names_are_part_of_the_digest(tmp_path):
    path = save(tmp_path / "d" / "a.png", pixels(1, (3, 3, 1))[0])
    before = open_source(tmp_path / "d").digest()
    path.rename(tmp_path / "d" / "b.png")

    assert open_source(tmp_path / "d").digest() != before
    assert not ingest(tmp_path / "d", tmp_path / "out").reused
    assert ingest(tmp_path / "d", tmp_path / "out").reused


def test_a_name_that_is_not_unicode_is_refused(tmp_path):
    save(tmp_path / "d" / "a.png", pixels(1, (3, 3, 1))[0]).rename(Path(str(tmp_path / "d") + "/\udcff.png"))

    assert refused(tmp_path / "d") == "d: holds a name that is not UTF-8; give the file another"
    assert refused(tmp_path / "d" / "*.png") == "*.png: holds a name that is not UTF-8; give the file another"


def test_memory_is_bounded_by_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(imagefiles, "_PIECE", 50)
    images = pixels(5, (4, 5, 1))
    for row, image in enumerate(images):
        save(tmp_path / "d" / f"{row}.png", image)

    source = open_source(tmp_path / "d")

    assert [batch.num_rows for batch in source._read()] == [2, 2, 1]
    assert np.array_equal(images_of(source.table()["image"], (4, 5, 1)), images)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", pixels(1, (3, 3, 1))[0])
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(ExtraError) as error:
        _ = open_source(path).rows

    assert str(error.value) == (
        "pillow is not installed; files of images need: pip install '.[pipeline]' in the project's folder"
    )


def test_a_schema_gives_kinds(tmp_path):
    save(tmp_path / "d" / "a.png", pixels(1, (3, 3, 1))[0])
    known = open_source(tmp_path / "d").schema

    assert open_source(tmp_path / "d", known).table().schema.field("file").type == pa.string()
