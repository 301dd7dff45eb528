"""Images and malice: headers and models whose shapes, levels or groups lie cost neither memory nor time."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import DamagedError
from data.gridfit import fit_table
from data.images import image_field
from tests.codec import forger
from tests.fuzz.parts import put_together, take_apart
from vae.codec import archive, writer
from vae.codec.framing import put_varint
from vae.codec.images import ImageModel
from vae.codec.integer import GROUPS, IntegerModel
from vae.codec.numbers import pack_numbers
from vae.codec.packing import MAX_CELLS, split_pieces
from vae.codec.pixels import PixelPlan
from vae.codec.plan import Plan

SHAPE = (4, 3, 3)
VALUES = 36


def model_of(**change: Any) -> ImageModel:
    """A model of zeros."""
    sound = {"name": "image", "height": 4, "width": 3, "channels": 3, "levels": 256, "units": 1, "latents": 1}
    plan = PixelPlan.model_validate(sound | change)
    own = Plan(latents=plan.latents, width=1, prior_width=1, columns=())
    codes = IntegerModel(own, {name: np.zeros(shape, np.int16) for name, shape in own.shapes().items()})
    return ImageModel(plan, codes, {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()})


def forge(
    path: Path, header: dict[str, Any], parts: list[bytes], schema: pa.Schema, version: int = 7
) -> Path:
    """An archive of two images whose every checksum holds, whatever its header says."""
    whole = {"rows": 2, "block_rows": 1, "group_blocks": 2} | header
    report = {"per_column": [{}] * len(header["columns"])}
    return forger.forge(path, whole, parts, schema, report, version)


def cells(rows: int, values: int, state: int = 0) -> bytes:
    """The stream of black images, or of null ones."""
    states = pack_numbers(np.full(rows, state, np.uint8))
    symbols = pack_numbers(np.zeros(0 if state else rows * values, np.int64))
    return b"".join(put_varint(len(piece)) + piece for piece in (states, symbols))


IMAGE = {"name": "a", "kind": "image", "scale": "step", "high": 255, "shape": SHAPE}
LISTS = pa.schema([pa.field("a", pa.list_(pa.uint8(), VALUES))])


def opened(path: Path) -> pa.Table:
    with archive.open(path, threads=1) as found:
        return found.read()


@contextmanager
def little_memory() -> Iterator[None]:
    """What is done within takes fewer than 40 MB."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_the_forger_can_make_sound_archives_too(tmp_path: Path) -> None:
    header = {"columns": [{"grid": IMAGE}]}
    path = forge(tmp_path / "t.svae", header, [b"", b"", cells(2, VALUES)], LISTS)
    assert opened(path).to_pydict() == {"a": [[0] * VALUES] * 2}
    path = forge(tmp_path / "t.svae", header, [b"", b"", cells(2, VALUES, 1)], LISTS)
    assert opened(path).to_pydict() == {"a": [None, None]}
    with pytest.raises(DamagedError, match="version 6 of the format has no such grids"):
        opened(forge(path, header, [b"", b"", cells(2, VALUES)], LISTS, version=6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": ()}, "images without a shape, or a shape without images"),
        ({"kind": "number"}, "images without a shape, or a shape without images"),
        ({"shape": (4, 9)}, r"images of \(4, 9\)"),
        ({"shape": (4, 3, 3, 1)}, "at most 3 items"),
        ({"shape": (0, 3, 3)}, r"images of \(0, 3, 3\)"),
        ({"shape": (-4, -3, 3)}, r"images of \(-4, -3, 3\)"),
        ({"shape": (4, 1, 9)}, r"images of \(4, 1, 9\)"),
        ({"shape": (1 << 15, 1, 1)}, r"images of \(32768, 1, 1\)"),
        ({"shape": (1 << 14, 1 << 14, 1)}, r"images of \(16384, 16384, 1\)"),
        ({"shape": (3, 4, 4)}, r"images of \(3, 4, 4\) in a column of fixed_size_list<.*>\[36\]"),
        ({"high": 254}, "images of 255 levels in steps of 1"),
        ({"high": 256}, "images of 257 levels in steps of 1"),
        ({"step": 2}, "images of 256 levels in steps of 2"),
        ({"step": 3}, "images of 256 levels in steps of 3"),
        ({"step": 513, "high": 1}, "images of 2 levels in steps of 513"),
        ({"low": 1}, "images from 1"),
        ({"low": -1}, "images from -1"),
        ({"offset": 1}, "images from 0"),
        ({"bound": 1.0}, "images from 0"),
        ({"scale": "uniform"}, "images of 256 levels in steps of 1"),
        ({"scale": "none"}, "images of 256 levels in steps of 1"),
        ({"values": [0.0] * 256}, "has no grid"),
        ({"one_hot": True}, "images from 0"),
    ],
    ids=str,
)
def test_grids_that_lie(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    header = {"columns": [{"grid": IMAGE | change}]}
    path = forge(tmp_path / "t.svae", header, [b"", b"", cells(2, VALUES)], LISTS)
    with pytest.raises(DamagedError, match=f"header is damaged: .*{message}"):
        archive.open(path)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.uint8()), pa.list_(pa.int8(), VALUES), pa.list_(pa.uint8(), 35), pa.int64()], ids=str
)
def test_a_column_that_is_none_of_images_is_refused_at_once(kind: pa.DataType, tmp_path: Path) -> None:
    header = {"columns": [{"grid": IMAGE}]}
    path = forge(tmp_path / "t.svae", header, [b"", b"", cells(2, VALUES)], pa.schema([("a", kind)]))
    with pytest.raises(DamagedError, match="header is damaged: column 'a': images of"):
        archive.open(path)


def test_images_follow_from_nothing_and_nothing_follows_from_them(tmp_path: Path) -> None:
    number = {"name": "b", "kind": "number", "scale": "step", "high": 3}
    schema = pa.schema([LISTS.field(0), pa.field("b", pa.int64())])
    table = b"".join(put_varint(len(p)) + p for p in (pack_numbers(np.zeros(7, np.int64)), b""))
    function = {"coder": "derived", "derived": {"name": "a", "keys": ["b"]}, "grid": IMAGE}
    parts = [put_varint(7) + table, b"", b"", b""]
    path = forge(tmp_path / "t.svae", {"columns": [function, {"grid": number}]}, parts, schema)
    with pytest.raises(DamagedError, match="column 'a': images among columns of numbers"):
        archive.open(path)
    function = {"coder": "derived", "derived": {"name": "b", "keys": ["a"]}, "grid": number}
    path = forge(tmp_path / "t.svae", {"columns": [{"grid": IMAGE}, function]}, parts, schema)
    with pytest.raises(DamagedError, match="column 'b' follows from 'a', which holds images"):
        archive.open(path)
    both = [{"coder": "neural", "grid": grid} for grid in (IMAGE, number)]
    header = {"columns": both, "coded": [0, 1], "model": {"sha256": "0" * 64, "size": 5}}
    path = forge(tmp_path / "t.svae", header, [b"", b"", *[b""] * 8], schema)
    with pytest.raises(DamagedError, match="column 'a': images among columns of numbers"):
        archive.open(path)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_group_that_asks_for_much_is_refused_before_room_is_made(columns: int, tmp_path: Path) -> None:
    """Of one row a group may be as large as the row is; of more, all images together have 2**24 values."""
    side, most = 1 << 10, (1 << 24) // (columns << 20)
    names = "abc"[:columns]
    schema = pa.schema([(name, pa.list_(pa.uint8(), side * side)) for name in names])
    grids = [{"grid": IMAGE | {"name": name, "shape": (side, side, 1)}} for name in names]
    stream = cells(1, 1, 1)
    for rows in (1, most, most + 1, 1 << 20):
        header = {"columns": grids, "rows": 1, "block_rows": rows, "group_blocks": 1}
        path = forge(tmp_path / "t.svae", header, [b"", b"", *[stream] * columns], schema)
        if rows <= most:
            assert opened(path)["a"].null_count == 1
            continue
        with (
            little_memory(),
            pytest.raises(DamagedError, match=f"groups of {rows} rows with {columns << 20} values of images"),
        ):
            archive.open(path)


def stored(states: list[int], symbols: list[int]) -> bytes:
    """The stream of images of any symbols."""
    pieces = pack_numbers(np.array(states, np.uint8)), pack_numbers(np.array(symbols, np.int64))
    return b"".join(put_varint(len(piece)) + piece for piece in pieces)


def test_a_stream_that_is_not_of_these_images_is_refused(tmp_path: Path) -> None:
    sound, path = [*range(2 * VALUES)], tmp_path / "t.svae"
    for states, symbols, more in [
        ([0, 1, 0], sound, b""),
        ([0, 0], [*sound, 5], b""),
        ([0, 0], sound[1:], b""),
        ([0, 1], sound, b""),
        ([0, 2], sound[:VALUES], b""),
        ([0, 3], sound[:VALUES], b""),
        ([0, 4], sound[:VALUES], b""),
        ([0, 0], sound, b"\0"),
        ([0, 0], [256, *sound[1:]], b""),
        ([0, 0], [*sound[1:], -1], b""),
    ]:
        forge(path, {"columns": [{"grid": IMAGE}]}, [b"", b"", stored(states, symbols) + more], LISTS)
        with pytest.raises(DamagedError, match=r"stream of column 'a' \(rows 0 to 1\) is damaged: "):
            opened(path)
    forge(path, {"columns": [{"grid": IMAGE}]}, [b"", b"", stored([0, 0], sound)], LISTS)
    assert opened(path).to_pydict() == {"a": [sound[:VALUES], sound[VALUES:]]}


# ------------------------------------------------------------------------------------------------------ models


@pytest.fixture(scope="module")
def neural_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Five images, one of them null, in two blocks."""
    path = tmp_path_factory.mktemp("neural") / "t.svae"
    images = [[k * v % 256 for v in range(VALUES)] for k in range(4)]
    array = pa.array([*images, None], pa.list_(pa.uint8(), VALUES))
    table = pa.Table.from_arrays([array], schema=pa.schema([image_field("image", SHAPE)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        archive.write(
            table, path, model=model_of(), grid=fit_table(table), codes=np.ones((5, 1), np.int8), block_rows=3
        )
    assert opened(path).equals(table)
    return path.read_bytes()


def test_every_flipped_byte_is_refused(neural_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.svae"
    for at in range(8, len(neural_bytes), 3):
        broken = bytearray(neural_bytes)
        broken[at] ^= 1 << (at % 8)
        path.write_bytes(broken)
        with pytest.raises(DamagedError, match=" is damaged: "):
            opened(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 3, "width": 4}, "it is of other images"),
        ({"levels": 255}, "it is of other images"),
        ({"channels": 1, "height": 12}, "it is of other images"),
        ({"name": "other"}, "it is not one of these columns"),
        ({"latents": 2}, "it is not one of these columns"),
    ],
    ids=str,
)
def test_a_model_of_other_images_is_refused(
    change: dict[str, Any], message: str, neural_bytes: bytes, tmp_path: Path
) -> None:
    path, parts = tmp_path / "t.svae", take_apart(neural_bytes)
    path.write_bytes(put_together(parts._replace(model=pieces_of(model_of(**change)))))
    with pytest.raises(DamagedError, match=f"model is damaged: {message}"):
        opened(path)
    path.write_bytes(put_together(parts._replace(model=pieces_of(model_of()))))
    assert opened(path).num_rows == 5


def pieces_of(model: ImageModel | IntegerModel) -> tuple[bytes, ...]:
    """The pieces of a model, the plan inflated, as `tests.fuzz.parts` holds them."""
    plan, *rest = split_pieces(model.to_bytes(), 3 if isinstance(model, ImageModel) else 1 + len(GROUPS))
    return zlib.decompress(plan), *rest


def test_a_model_of_numbers_for_images_is_refused(neural_bytes: bytes, tmp_path: Path) -> None:
    parts, path = take_apart(neural_bytes), tmp_path / "t.svae"
    item = {"name": "image", "head": 1, "low": 0, "high": 255, "ordered": True, "components": (0,)}
    plan = Plan.model_validate({"latents": 1, "width": 1, "columns": (item,)})
    other = IntegerModel(plan, {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()})
    path.write_bytes(put_together(parts._replace(model=pieces_of(other))))
    with pytest.raises(DamagedError, match="model is damaged: bytes after the end of the model"):
        opened(path)


def test_a_header_with_larger_blocks_than_the_model_admits_is_refused(
    neural_bytes: bytes, tmp_path: Path
) -> None:
    parts, path = take_apart(neural_bytes), tmp_path / "t.svae"
    header = json.loads(parts.header)
    for change, message in [
        ({"block_rows": 1 << 20, "group_blocks": 1}, "values of images each"),
        ({"rows": 1 << 30}, "streams announced"),
    ]:
        lying = parts._replace(header=json.dumps(header | change).encode(), streams=parts.streams[:3])
        path.write_bytes(put_together(lying))
        with pytest.raises(DamagedError, match=message):
            archive.open(path)


def test_of_a_stream_that_runs_dry_no_more_is_read_than_a_line() -> None:
    """A few bytes that say they are a million pixels are refused as soon as they are spent."""
    model = model_of(height=1 << 10, width=1 << 10, channels=1, latents=0, units=256, layers=4)
    codes = model.encode_block(
        np.zeros((0, 1 << 20), np.uint8), np.zeros((0, 1), np.uint8), np.zeros((0, 0), np.int8)
    )
    with pytest.raises(DamagedError, match="the stream of 'image' ends before its images do"):
        model.decode_block(codes, 1)


def test_features_of_large_images_are_made_in_little_memory() -> None:
    """9 * 8 bytes a feature were 75 MB of each of these images."""
    model = model_of(height=512, width=2048, channels=1, maps=1)
    codes = np.zeros((1, 1), np.int8)
    with little_memory():
        found = model.features(codes)
    assert found.shape == (1, 1 << 20, 1)


def test_an_image_has_no_more_features_than_a_reader_has_room_for() -> None:
    PixelPlan(name="a", height=1 << 12, width=1 << 12, channels=1, levels=2, maps=1, latents=1)
    PixelPlan(name="a", height=1 << 12, width=1 << 12, channels=1, levels=2, maps=64)
    with pytest.raises(ValueError, match="2 features of each of 16777216 pixels"):
        PixelPlan(name="a", height=1 << 12, width=1 << 12, channels=1, levels=2, maps=2, latents=1)


def test_a_block_has_no_more_cells_than_one_of_numbers() -> None:
    assert model_of().block_rows == MAX_CELLS // (VALUES + 1)
    assert model_of(counted=4).block_rows == MAX_CELLS // (5 * VALUES + 1)
    assert model_of(height=4096, width=4096, channels=1, maps=1).block_rows == 3
