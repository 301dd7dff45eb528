"""A reader that knows only `docs/format.md` reads what the codec reads, and refuses what was tampered with."""

from __future__ import annotations

import struct
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import ArchiveError
from data.gridfit import fit_table
from data.images import image_field
from vae.codec import archive, writer
from vae.codec.framing import checksum, put_varint
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codec.pixels import PixelPlan
from vae.codec.plan import Plan

FIXTURES = Path(__file__).parents[1] / "fixtures"
ARCHIVES = sorted(path.name for path in FIXTURES.glob("*.svae"))
SMALL = "one-hot-2000-v2.svae"


@pytest.fixture(scope="module")
def second() -> ModuleType:
    spec = spec_from_file_location("second_reader", Path(__file__).parents[1] / "second_reader.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_shares_no_code_with_the_codec(second: ModuleType) -> None:
    homes = {getattr(thing, "__module__", None) or "" for thing in vars(second).values()}
    homes |= {thing.__name__ for thing in vars(second).values() if isinstance(thing, ModuleType)}
    assert not {"vae", "data", "flows"} & {home.split(".")[0] for home in homes}


def bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats as integers: NaNs are equal just if their bits are, and 0.0 is not -0.0."""
    return column.combine_chunks().view(pa.int64()) if pa.types.is_float64(column.type) else column


@pytest.mark.parametrize("name", ARCHIVES)
def test_both_readers_read_the_same(name: str, second: ModuleType) -> None:
    table, codes = second.read(FIXTURES / name)
    with archive.open(FIXTURES / name, threads=1) as opened:
        expected, expected_codes = opened.read(), opened.dense_codes()
    table.validate(full=True)
    assert table.schema.equals(expected.schema, check_metadata=True)
    for column in expected.column_names:
        assert table[column].null_count == expected[column].null_count, column
        assert bits(table[column]).equals(bits(expected[column])), column
    assert codes.dtype == expected_codes.dtype
    assert np.array_equal(codes, expected_codes)


IMAGES: dict[str, dict[str, Any]] = {
    "grey, no code": {"height": 5, "width": 40, "channels": 1, "latents": 0, "layers": 0, "up": 8, "side": 8},
    "colour, maps twice doubled": {
        "height": 17,
        "width": 3,
        "channels": 3,
        "latents": 2,
        "maps": 2,
        "layers": 2,
    },
    "a pixel": {"height": 1, "width": 1, "channels": 4, "latents": 3, "units": 9},
    "two levels": {"height": 6, "width": 5, "channels": 1, "latents": 1, "bound": 200.0, "fraction": 4},
    "seven levels": {"height": 4, "width": 4, "channels": 3, "latents": 0, "bound": 20.0, "fraction": 10},
    "counted": {"height": 9, "width": 9, "channels": 1, "latents": 2, "counted": 4},
    "counted, seven levels": {
        "height": 6,
        "width": 7,
        "channels": 3,
        "latents": 0,
        "bound": 20.0,
        "fraction": 5,
        "counted": 2,
    },
    "counted, all bits": {"height": 9, "width": 9, "channels": 1, "latents": 1, "bound": 1.0, "counted": 7},
}
"""Plans of images; `bound` is that of the column."""


@pytest.mark.parametrize("name", IMAGES)
def test_both_readers_read_the_same_images(name: str, second: ModuleType, tmp_path: Path) -> None:
    """Of any plan, by random weights; beside them others of images in another column, stored within a bound."""
    wish, random, path = dict(IMAGES[name]), np.random.default_rng(3), tmp_path / "t.svae"
    bounds = {"a": wish.pop("bound", 0.0), "b": 3.0}
    shape = (wish["height"], wish["width"], wish["channels"])
    images = random.integers(0, 256, (7, int(np.prod(shape)))).tolist()
    fields = [image_field("a", shape), image_field("b", shape)]
    arrays = [pa.array([*images[k:], None], fields[0].type) for k in (1, 1)]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    grid = fit_table(table, bounds)
    plan = PixelPlan.model_validate({"name": "a", "levels": grid["a"].high + 1, "units": 4} | wish)
    own = Plan(latents=plan.latents, width=1, prior_width=2, columns=())

    def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        return {n: random.integers(-90, 91, shape).astype(np.int16) for n, shape in shapes.items()}

    model = ImageModel(plan, IntegerModel(own, drawn(own.shapes())), drawn(plan.shapes()))
    codes = random.integers(-3, 4, (7, plan.latents)).astype(np.int8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        archive.write(table, path, bounds=bounds, model=model, grid=grid, codes=codes, block_rows=3)
    found, found_codes = second.read(path)
    with archive.open(path, threads=1) as opened:
        assert [c.coder for c in opened.report().per_column] == ["neural", "rival"]
        assert found.equals(opened.read())
    assert np.array_equal(found_codes, codes)


def read(path: Path) -> None:
    with archive.open(path, threads=1) as opened:
        opened.read()


def refused_by_both(data: bytes, second: ModuleType, path: Path) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^[a-z]"):
        second.read(path)
    with pytest.raises(ArchiveError):
        read(path)


@pytest.mark.parametrize("where", [0, 8, 13, 20, 24, 300, 0.3, 0.6, 0.9, -30, -20, -10, -1])
def test_a_flipped_bit_is_refused(where: float, second: ModuleType, tmp_path: Path) -> None:
    """In the prelude, the header, the parts, the index and each field of the trailer."""
    data = bytearray((FIXTURES / SMALL).read_bytes())
    data[int(where * len(data)) if isinstance(where, float) else where] ^= 4
    refused_by_both(bytes(data), second, tmp_path / "t.svae")


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:20], lambda data: data + b"\0"]
)
def test_another_length_is_refused(change, second: ModuleType, tmp_path: Path) -> None:
    refused_by_both(change((FIXTURES / SMALL).read_bytes()), second, tmp_path / "t.svae")


def with_parts(data: bytes, parts: list[bytes], entries: int) -> bytes:
    """The archive with other parts in place of its own, whose index has `entries` bytes of them; all checksums hold."""
    length = struct.unpack("<I", data[12:16])[0]
    report = data[struct.unpack("<Q", data[-28:-20])[0] + entries : -28]
    body = data[: 24 + length] + b"".join(parts)
    index = b"".join(put_varint(len(p)) + (_sum(p)[:4] if p else b"") for p in parts) + report
    place = struct.pack("<QI", len(body), len(index))
    return body + index + place + _sum(data[16:24] + index + place) + data[-8:]


def _sum(data: bytes) -> bytes:
    return struct.pack("<Q", checksum(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda stream: stream[:-4],
        lambda stream: stream + bytes(4),
        lambda stream: stream[:-1],
        lambda stream: b"\2" + stream[1:],
        lambda stream: stream[:1] + bytes(4) + stream[5:],
        lambda stream: b"",
    ],
    ids=["shorter", "longer", "part of a word", "a flag", "a state", "nothing"],
)
def test_a_stream_that_does_not_end_where_it_should_is_refused(
    change, second: ModuleType, tmp_path: Path
) -> None:
    data = (FIXTURES / SMALL).read_bytes()
    parts = second.read_parts(data)[1]
    entries = sum(len(put_varint(len(part))) + 4 * bool(part) for part in parts)
    assert with_parts(data, parts, entries) == data
    refused_by_both(with_parts(data, [*parts[:-1], change(parts[-1])], entries), second, tmp_path / "t.svae")
