"""The framing: numbers, squeezed bytes, the header's arithmetic, and the order of parts."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DamagedError
from vae.codec import archive
from vae.codec.container import ColumnCoding, Container, Header, ModelReference, Writer, replace_report
from vae.codec.framing import Cursor, put_varint, squeeze, unsqueeze


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_varints_come_back(numbers: list[int]) -> None:
    cursor = Cursor(b"".join(map(put_varint, numbers)))
    assert [cursor.varint() for _ in numbers] == numbers
    assert cursor.left == 0


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 10, b"\x80" * 9 + b"\x01"])
def test_varints_that_do_not_end_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        Cursor(data).varint()


@pytest.mark.parametrize("data", [b"\x80\0", b"\xac\x82\0", b"\x80" * 8 + b"\0"])
def test_varints_longer_than_they_need_be_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedError, match="a number is longer than it need be"):
        Cursor(data).varint()


@pytest.mark.parametrize("data", [b"x", b"", b"ab" * 1000, bytes(100_000)])
def test_squeezing_never_costs_more_than_its_frame(data: bytes) -> None:
    packed = squeeze(data)
    assert len(packed) <= len(data) + 1 + len(put_varint(len(data)))
    assert unsqueeze(packed) == data
    with pytest.raises(DamagedError):
        unsqueeze(packed + b"\0")
    with pytest.raises(DamagedError):
        unsqueeze(bytes([9]) + packed[1:])


def two_columns(**how: int) -> Header:
    neural = ColumnCoding(coder="neural", grid={"name": "n"})
    reference = ModelReference(sha256="a" * 64, size=1)
    return Header(columns=(ColumnCoding(), neural), coded=(1,), latents=1, model=reference, **how)


@given(rows=st.integers(0, 300), block_rows=st.integers(1, 40), group_blocks=st.integers(1, 5))
def test_streams_are_counted_without_gaps(rows: int, block_rows: int, group_blocks: int) -> None:
    header = two_columns(rows=rows, block_rows=block_rows, group_blocks=group_blocks)
    numbers: list[int] = []
    for group in range(header.groups):
        numbers += [header.stream_of_column(group, place) for place in range(2)]
        for block in range(header.block_count(group)):
            first = header.stream_of_block(group, block)
            numbers += [first, first + 1]
    assert numbers == list(range(header.streams()))


def test_parts_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "t.svae"
    schema = pa.schema([("a", pa.int8()), ("n", pa.int8())])
    header = two_columns(rows=5, block_rows=2, group_blocks=2)
    parts = [b"tables", b"model", *(bytes([i]) * (i % 3) for i in range(header.streams()))]
    with path.open("wb") as file:
        writer = Writer(file, header, schema)
        for part in parts:
            writer.part(part)
        writer.finish({"per_column": []})
    replace_report(path, {"rows": 5, "note": "longer than before " * 20})
    read = Container(path)
    entries = [read.tables, read.model, *(read.stream(i) for i in range(header.streams()))]
    assert [read.load(entry, "part") for entry in entries] == parts
    assert read.header == header
    assert read.schema == schema
    assert read.report["rows"] == 5
    assert read.size - read.container_bytes == sum(map(len, parts))
    read.close()


@pytest.mark.parametrize(
    ("fields", "oldest", "version"), [(2, 1, 1), (1, 1, 2), (2, 3, 3), (1, 3, 3), (2, 4, 4), (1, 4, 4), (1, 5, 5)],
    ids=["plain", "a group", "above", "both", "deep", "deep and a group", "direct"],
)  # fmt: skip
def test_the_version_is_the_oldest_that_can_say_it(
    fields: int, oldest: int, version: int, tmp_path: Path
) -> None:
    path, header = tmp_path / "t.svae", two_columns(rows=0, block_rows=1, group_blocks=1)
    with path.open("wb") as file:
        writer = Writer(file, header, pa.schema([("a", pa.int8()), ("n", pa.int8())][:fields]), oldest)
        writer.part(b"")
        writer.part(b"model")
        writer.finish({})
    assert path.read_bytes()[8] == version
    read = Container(path)
    assert read.version == version
    read.close()


def test_a_writer_that_forgets_a_part_is_stopped(tmp_path: Path) -> None:
    with (tmp_path / "t").open("wb") as file:
        writer = Writer(file, two_columns(rows=0, block_rows=1, group_blocks=1), pa.schema([]))
        with pytest.raises(ValueError, match="2 parts fewer"):
            writer.finish({})


def test_the_header_is_canonical_json(tmp_path: Path) -> None:
    """Sorted keys, no spaces, UTF-8: the same table has the same header, byte by byte."""
    table = pa.table({"größe": [1, 2, 9] * 40, "a": ["x", "", None] * 40})
    archive.write(table, tmp_path / "t.svae", bounds={"größe": 1.0})
    data = (tmp_path / "t.svae").read_bytes()
    content = Cursor(unsqueeze(data[24 : 24 + int.from_bytes(data[12:16], "little")], 1 << 20))
    text = bytes(content.take(content.varint()))
    plain = json.loads(text)
    assert text.decode() == json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert [column["grid"]["name"] for column in plain["columns"]] == ["größe", "a"]
    assert plain["columns"][0]["grid"]["bound"] == 1.0
    assert pa.ipc.read_schema(pa.py_buffer(content.rest())).equals(table.schema)
