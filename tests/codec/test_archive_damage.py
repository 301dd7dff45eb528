"""Damage and malice: every flipped byte and every truncation is refused by name; what lies costs no memory."""

from __future__ import annotations

import errno
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import ArchiveError, DamagedError, SvaeError
from data.grid import ColumnGrid, State
from data.gridfit import fit_table
from flows.cli import run
from tests.codec.forger import forge
from tests.fuzz.parts import put_together, take_apart
from vae.codec import archive, blocks, container, structure, writer
from vae.codec.container import Container, Header
from vae.codec.framing import checksum, put_varint, squeeze
from vae.codec.integer import IntegerModel
from vae.codec.numbers import pack_numbers
from vae.codec.parts import Parts
from vae.codec.salvage import Lost
from vae.planning import make_plan

FIXTURES = Path(__file__).parents[1] / "fixtures"


def small_table() -> pa.Table:
    rng = np.random.default_rng(0)
    k = rng.integers(0, 9, 40)
    return pa.table({
        "k": k, "twice": 2 * k, "s": pa.array(["x", None, "", "yz"] * 10), "f": rng.normal(size=40),
        "l": pa.array([[1], None, [], [2, 3]] * 10),
    })  # fmt: skip


def small_model(table: pa.Table) -> dict[str, Any]:
    grid = fit_table(table)
    coded = {g.name: g.encode(table[g.name]) for g in grid.columns if g.kind != "opaque"}
    derived = structure.find(grid, coded, keep=list(coded))
    plan = make_plan(grid, coded, latents=1, width=4)
    tensors = {name: np.ones(shape, np.int16) for name, shape in plan.shapes().items()}
    return {
        "grid": grid,
        "derived": derived,
        "model": IntegerModel(plan, tensors),
        "codes": np.zeros((40, 1), np.int8),
    }


@pytest.fixture(scope="module")
def rival_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("rival") / "t.svae"
    archive.write(small_table(), path, block_rows=16)
    return path.read_bytes()


@pytest.fixture(scope="module")
def neural_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("neural") / "t.svae"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        archive.write(small_table(), path, **small_model(small_table()), block_rows=16)
    return path.read_bytes()


def read_all(path: Path) -> pa.Table:
    with archive.open(path, threads=1) as opened:
        opened.verify()
        return opened.read()


@pytest.mark.parametrize("which", ["rival_bytes", "neural_bytes"])
def test_every_flipped_byte_is_refused(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole: bytes = request.getfixturevalue(which)
    path = tmp_path / "t.svae"
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        path.write_bytes(broken)
        with pytest.raises(ArchiveError) as caught:
            read_all(path)
        assert str(caught.value).startswith(f"{path}: ")
        if at >= 8:
            assert isinstance(caught.value, DamagedError)
            assert " is damaged: " in str(caught.value)


@pytest.mark.parametrize("which", ["rival_bytes", "neural_bytes"])
def test_every_truncation_is_refused(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole: bytes = request.getfixturevalue(which)
    path = tmp_path / "t.svae"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match=r"is damaged|is not an svae archive"):
            read_all(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedError, match="index is damaged"):
        read_all(path)


def test_the_message_names_part_block_and_column(neural_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.svae"
    path.write_bytes(neural_bytes)
    with archive.open(path) as opened:
        parts, header = opened._parts.container, opened.header
        places = {
            "tables": parts.tables.position,
            "model": parts.model.position,
            "header": 30,
            "index": parts.index.position,
            "stream of the codes, block 2 (rows 32 to 39)": parts.stream(
                header.stream_of_block(0, 2)
            ).position,
            f"stream of column {opened.names[header.coded[1]]!r}, block 1 (rows 16 to 31)": parts.stream(
                header.stream_of_block(0, 1) + 2
            ).position,
            "stream of column 'f' (rows 0 to 39)": parts.stream(header.stream_of_column(0, 3)).position,
        }
    for name, place in places.items():
        broken = bytearray(neural_bytes)
        broken[place] ^= 255
        path.write_bytes(broken)
        with pytest.raises(DamagedError) as caught:
            read_all(path)
        message = f"{path}: {name} is damaged: its checksum differs; restore the file from a copy"
        assert str(caught.value) == message


def test_what_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="cannot be opened: No such file"):
        archive.open(tmp_path / "missing.svae")
    for content in (b"", b"PAR1 and more", b"\x89PNG\r\n\x1a\n" + bytes(100)):
        (tmp_path / "t.svae").write_bytes(content)
        with pytest.raises(ArchiveError, match="is not an svae archive"):
            archive.open(tmp_path / "t.svae")


def test_a_newer_version_is_named(rival_bytes: bytes, tmp_path: Path) -> None:
    head = bytearray(rival_bytes)
    length = struct.unpack_from("<I", head, 12)[0]
    head[8] = container.VERSION + 1
    head[16:24] = checksum(bytes(head[:16]), bytes(head[24 : 24 + length])).to_bytes(8, "little")
    (tmp_path / "t.svae").write_bytes(head)
    with pytest.raises(ArchiveError, match=r"format version 10.0; this program reads 9.0; update it"):
        archive.open(tmp_path / "t.svae")


# -------------------------------------------------------------------------------- malice: the checksums are right


def of_version(data: bytes, version: int) -> bytes:
    """The archive, said to be of another version; all checksums hold."""
    start, end = bytearray(data[:-28]), bytearray(data[-28:])
    start[8] = version
    length = struct.unpack_from("<I", start, 12)[0]
    total = checksum(bytes(start[:16]), bytes(start[24 : 24 + length])).to_bytes(8, "little")
    start[16:24] = total
    index = bytes(start[struct.unpack_from("<Q", end)[0] :])
    end[12:20] = checksum(total, index, bytes(end[:12])).to_bytes(8, "little")
    return bytes(start + end)


def with_plan(path: Path, **change: Any) -> bytes:
    """The small archive with another plan."""
    made = small_model(small_table())
    plan = made["model"].plan.model_copy(update=change)
    tensors = {name: np.ones(shape, np.int16) for name, shape in plan.shapes().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        archive.write(small_table(), path, **made | {"model": IntegerModel(plan, tensors)}, block_rows=16)
    assert read_all(path).equals(small_table())
    return path.read_bytes()


def test_a_version_that_is_not_its_model_s_is_refused(neural_bytes: bytes, tmp_path: Path) -> None:
    """Version 3 is that of a prior which sees the row above, and of nothing else; version 5 knows all."""
    path = tmp_path / "t.svae"
    above, deep = with_plan(path, above=True), with_plan(path, above=True, deep=True)
    first = small_model(small_table())["model"].plan.columns
    told = with_plan(path, columns=tuple(item.model_copy(update={"history": True}) for item in first))
    direct, fine = with_plan(path, above=True, direct=True), with_plan(path, fine=True)
    assert [data[8] for data in (neural_bytes, above, deep, told, direct, fine)] == [1, 3, 4, 4, 5, 5]
    lies = [
        (neural_bytes, 3),
        (neural_bytes, 4),
        (above, 1),
        (above, 4),
        (deep, 3),
        (deep, 1),
        (told, 3),
        (told, 1),
        (told, 5),
        (direct, 4),
        (direct, 3),
        (fine, 1),
    ]
    for data, version in lies:
        assert of_version(data, data[8]) == data
        path.write_bytes(of_version(data, version))
        with pytest.raises(
            DamagedError, match=f"model is damaged: version {version} of the format has no such models"
        ):
            read_all(path)


@pytest.mark.parametrize(("name", "version"), [("images-60-v7.svae", 8), ("images-60-v8.svae", 7)])
def test_images_that_count_are_of_another_version_than_those_that_do_not(
    name: str, version: int, tmp_path: Path
) -> None:
    data = (FIXTURES / name).read_bytes()
    (tmp_path / "t.svae").write_bytes(of_version(data, version))
    with pytest.raises(
        DamagedError, match=f"model is damaged: version {version} of the format has no such models"
    ):
        read_all(tmp_path / "t.svae")


def test_version_4_without_a_reason_is_refused(rival_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.svae").write_bytes(of_version(rival_bytes, 4))
    with pytest.raises(DamagedError, match="version 4 of the format, and nothing that needs it"):
        archive.open(tmp_path / "t.svae")


def test_version_5_without_a_model_is_refused(rival_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.svae").write_bytes(of_version(rival_bytes, 5))
    with pytest.raises(DamagedError, match="version 5 of the format, and nothing that needs it"):
        archive.open(tmp_path / "t.svae")


def test_version_3_without_latents_is_refused(rival_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.svae").write_bytes(of_version(rival_bytes, 3))
    with pytest.raises(DamagedError, match="header is damaged: version 3 of the format, and no latents"):
        archive.open(tmp_path / "t.svae")


ONE = pa.schema([("a", pa.int64())])
REPORT = {"per_column": [{}]}
STEPS = {"name": "a", "kind": "number", "scale": "step", "high": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 1 << 60}, "rows: Input should be less than"),
        ({"rows": 1 << 47}, "streams announced"),
        ({"rows": -1}, "rows: Input should be greater"),
        ({"block_rows": 0}, "block_rows"),
        ({"block_rows": 1 << 20, "group_blocks": 2}, "a group of more than"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"columns": [{"coder": "neural", "grid": {}}]}, "the coding order does not name"),
        ({"columns": [{"coder": "derived", "grid": {}}]}, "a derived column, and no other, has a function"),
        ({"columns": [{"coder": "derived", "derived": {}}]}, "needs a grid"),
        ({"columns": []}, "its columns are not those of the schema"),
        ({"latents": 3}, "codes without a model"),
        ({"model": {"sha256": "0" * 64, "size": 5}}, "a model without them"),
        ({"columns": [{"grid": {"name": "a", "kind": "opaque"}}]}, "has no grid"),
        ({"columns": [{"grid": {"name": "b", "kind": "number", "scale": "step"}}]}, "column 0 is not 'a'"),
        (
            {"columns": [{"grid": {"name": "a", "kind": "number", "scale": "names", "values": ["x"]}}]},
            "has no grid",
        ),
        (
            {"columns": [{"grid": {**STEPS, "values": [0.0, 1.0, 2.0, 3.0]}}]},
            "has no grid",
        ),
        (
            {"columns": [{"coder": "derived", "grid": STEPS, "derived": {"name": "a", "table": [0]}}]},
            "the table of a derived column is in its header",
        ),
        (
            {"columns": [{"grid": {"name": "a", "kind": "number", "scale": "step", "high": 1 << 40}}]},
            "less than or equal",
        ),
    ],
)
def test_headers_that_lie(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    header = {"rows": 1, "block_rows": 10, "group_blocks": 1, "columns": [{}], **change}
    path = forge(tmp_path / "t.svae", header, [b"", b"", b"\0\0" + bytes(8)], ONE, REPORT)
    with pytest.raises(DamagedError, match=message):
        archive.open(path)


def test_the_forger_can_make_sound_archives_too(tmp_path: Path) -> None:
    header = {"rows": 2, "block_rows": 10, "group_blocks": 1, "columns": [{}]}
    stream = b"\0\0" + (5).to_bytes(8, "little")
    path = forge(tmp_path / "t.svae", header, [b"", b"", stream], ONE, REPORT)
    assert read_all(path).to_pydict() == {"a": [5, 5]}
    forge(path, header, [b"", b"", stream], ONE, REPORT, version=2)
    with pytest.raises(DamagedError, match="its columns are not those of the schema"):
        archive.open(path)


THIRDS = {"name": "a", "kind": "number", "scale": "ranks", "high": 2, "digits": 4, "parts": 3, "values": []}


@pytest.mark.parametrize(
    ("change", "gaps", "version", "message"),
    [
        ({}, [1, 1, 1 << 20], 4, None),
        ({}, [-(1 << 20), 1, 1], 4, None),
        ({}, [1, 1, (1 << 20) + 1], 4, "a gap between fractions is too wide"),
        ({}, [-(1 << 63), 1, 1], 4, "a gap between fractions is too wide"),
        ({}, [1, 1, 1], 3, "version 3 of the format, and no latents"),
        ({}, [1, 1, 1], 1, "version 1 of the format has no such grids"),
        ({}, [1, 1, 1], 5, "version 5 of the format, and nothing that needs it"),
        ({}, [1, 1, 1], 6, "version 6 of the format, and nothing that needs it"),
        ({"parts": (1 << 17) + 1}, [1, 1, 1], 4, "Input should be less than or equal to 131072"),
        ({"scale": "step"}, [1, 1, 1], 4, "fractions that are no ranks"),
        ({"scale": "uniform"}, [1, 1, 1], 4, "fractions that are no ranks"),
    ],
    ids=str,
)
def test_fractions_are_ranks_of_version_4_in_short_steps(
    tmp_path: Path, change: dict[str, Any], gaps: list[int], version: int, message: str | None
) -> None:
    table = pack_numbers(np.array(gaps, np.int64))
    header = {"rows": 1, "block_rows": 10, "group_blocks": 1, "columns": [{"grid": THIRDS | change}]}
    parts = [put_varint(3) + put_varint(len(table)) + table, b"", b""]
    schema = pa.schema([("a", pa.float64())])
    path = forge(tmp_path / "t.svae", header, parts, schema, REPORT, version)
    if message:
        with pytest.raises(DamagedError, match=message):
            archive.open(path)
        return
    with archive.open(path) as opened:
        grid = opened._parts.grids[0]
    assert grid is not None
    assert list(grid.values) == [float(f"{k / 3:.4f}") for k in np.cumsum(gaps)]


def test_cyclic_and_dangling_functions_are_refused(tmp_path: Path) -> None:
    grid = {"kind": "number", "scale": "step", "high": 3}
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])

    def columns(of_a: str, of_b: str) -> list[dict[str, Any]]:
        return [
            {"coder": "derived", "grid": {"name": name, **grid}, "derived": {"name": name, "keys": [source]}}
            for name, source in (("a", of_a), ("b", of_b))
        ]

    table = put_varint(1) + put_varint(9) + b"\0" + bytes(8) + b"\0"
    report = {"per_column": [{}, {}]}
    for of_a, of_b, message in (
        ("b", "a", "follow from each other"),
        ("z", "a", "'z', which has no symbols"),
    ):
        header = {"rows": 1, "block_rows": 10, "group_blocks": 1, "columns": columns(of_a, of_b)}
        with pytest.raises(DamagedError, match=message):
            archive.open(forge(tmp_path / "t.svae", header, [table * 2, b"", b"", b""], schema, report))


@pytest.mark.parametrize(
    "stream", [b"", b"\0", b"\5", b"\0\0", b"\1\1", b"\2\0", b"\0" + bytes([9]) * 20, bytes(10)]
)
def test_streams_that_are_not_their_column(tmp_path: Path, stream: bytes) -> None:
    header = {"rows": 3, "block_rows": 10, "group_blocks": 1, "columns": [{}]}
    path = forge(tmp_path / "t.svae", header, [b"", b"", stream], pa.schema([("a", pa.string())]), REPORT)
    with (
        archive.open(path) as opened,
        pytest.raises(DamagedError, match=r"stream of column 'a' \(rows 0 to 2\)"),
    ):
        opened.read()


def test_a_stream_of_no_exceptions_or_escapes_has_no_bytes() -> None:
    with pytest.raises(DamagedError, match="^0 exceptions among 3 rows$"):
        blocks.unpack_exceptions(bytes(4), ColumnGrid(**STEPS), pa.int64(), 3)
    with pytest.raises(DamagedError, match="^0 escapes announced, which 4 bytes do not justify$"):
        blocks.unpack_escapes(bytes(4), pa.int64(), 3)


def test_a_nan_among_integers_is_refused(tmp_path: Path) -> None:
    header = {"rows": 2, "block_rows": 10, "group_blocks": 1, "columns": [{"grid": STEPS}]}
    stream = bytes([2, 0, int(State.NAN), 0])
    path = forge(tmp_path / "t.svae", header, [b"", b"", stream], ONE, REPORT)
    with pytest.raises(DamagedError, match="a NaN among values that are no floats"):
        read_all(path)


def test_a_bomb_of_constants_is_refused_at_once(tmp_path: Path) -> None:
    groups, rows = 3_000, 1 << 20
    header = {"rows": groups * rows, "block_rows": 1 << 15, "group_blocks": 32, "columns": [{}]}
    stream = b"\0\0" + bytes(8)
    path = forge(tmp_path / "t.svae", header, [b"", b"", *[stream] * groups], ONE, REPORT)
    with archive.open(path) as opened:
        with pytest.raises(ArchiveError, match="read fewer rows or columns at a time"):
            opened.read()
        assert opened.read(rows=(10**9, 10**9 + 3)).to_pydict() == {"a": [0, 0, 0]}


def test_path_like_names_and_odd_metadata_are_mere_names(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("../../etc/passwd", pa.int64(), metadata={b"\xff": b"\0"})])
    table = pa.table([pa.array([1])], schema=schema)
    archive.write(table, tmp_path / "t.svae")
    assert read_all(tmp_path / "t.svae").schema.equals(schema, check_metadata=True)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    header = {"rows": 0, "block_rows": 1, "group_blocks": 1, "columns": [{}]}
    odd = pa.schema([("name", pa.int64())])
    path = forge(tmp_path / "t.svae", header, [b"", b""], odd, REPORT)
    text = container.canonical_json(header)
    plain = odd.serialize().to_pybytes()
    assert plain.count(b"name") == 1
    content = squeeze(put_varint(len(text)) + text + plain.replace(b"name", b"\xff\xfe\xfd\xfc"))
    prelude = struct.pack("<8sHHI", container.MAGIC, 1, 0, len(content))
    total = checksum(prelude, content).to_bytes(8, "little")
    index = b"\0\0" + squeeze(container.canonical_json(REPORT))
    place = struct.pack("<QI", len(prelude + total + content), len(index))
    end = index + place + checksum(total, index, place).to_bytes(8, "little") + container.END_MAGIC
    path.write_bytes(prelude + total + content + end)
    with pytest.raises(DamagedError, match="header is damaged: 'utf-8' codec can't decode"):
        archive.open(path)


def test_random_headers_raise_nothing_but_our_errors(rival_bytes: bytes, tmp_path: Path) -> None:
    """Damage behind right checksums: the decompressed header changed at random."""
    path = tmp_path / "t.svae"
    path.write_bytes(rival_bytes)
    inner = Container(path)
    text = bytearray(container.canonical_json(inner.header.model_dump(mode="json", exclude_defaults=True)))
    schema, report = inner.schema, inner.report
    parts = [
        inner.load(e, "part")
        for e in [inner.tables, inner.model, *map(inner.stream, range(inner.header.streams()))]
    ]
    inner.close()
    rng = np.random.default_rng(4)
    forged = tmp_path / "f.svae"
    outcomes: Counter[str] = Counter()
    while sum(outcomes.values()) < 300:
        broken = bytearray(text)
        for _ in range(rng.integers(1, 3)):
            broken[rng.integers(0, len(broken))] = rng.choice(list(b'0123456789-"{}[],:azn'))
        try:
            header = Header.model_validate_json(bytes(broken)).model_dump(mode="json")
        except ValueError:
            continue
        kept = rng.choice([0.9, 1.0])
        shuffled = [
            parts[i] if rng.random() < kept else parts[rng.integers(0, len(parts))] for i in range(len(parts))
        ]
        forge(forged, header, shuffled, schema, report)
        message = ""
        try:
            read_all(forged)
        except SvaeError as error:
            message = str(error)
        outcomes["refused" if message else "read"] += 1
        assert not message or message.startswith(f"{forged}: ")
    assert min(outcomes["refused"], outcomes["read"]) >= 5  # neither side of it went unseen


# -------------------------------------------------------------------------------------------------- what is whole


def salvaged(path: Path, columns: list[str] | None = None, rows: Any = None) -> tuple[pa.Table, list[Lost]]:
    lost: list[Lost] = []
    with archive.open(path, threads=2) as opened:
        names = opened.names if columns is None else columns
        schema = pa.schema([opened.schema.field(name) for name in names], opened.schema.metadata)
        batches = list(opened.salvage(columns, rows, on_lost=lost.append))
    return pa.Table.from_batches(batches, schema), lost


def flipped(data: bytes, path: Path, *numbers: int) -> None:
    """The archive with a wrong byte in some streams."""
    path.write_bytes(data)
    with archive.open(path) as opened:
        entries = [opened._parts.container.stream(number) for number in numbers]
    broken = bytearray(data)
    for entry in entries:
        assert entry.length
        broken[entry.position + entry.length // 2] ^= 1
    path.write_bytes(broken)


def test_the_blocks_that_are_whole_are_saved(neural_bytes: bytes, tmp_path: Path) -> None:
    path, whole = tmp_path / "t.svae", small_table()
    path.write_bytes(neural_bytes)
    with archive.open(path) as opened:
        header, names = opened.header, opened.names
    assert salvaged(path)[1] == []
    assert salvaged(path)[0].equals(whole)

    flipped(neural_bytes, path, header.stream_of_block(0, 1))
    saved, lost = salvaged(path)
    assert saved.equals(pa.concat_tables([whole[:16], whole[32:]]))
    why = f"{path}: stream of the codes, block 1 (rows 16 to 31) is damaged: its checksum differs"
    assert lost == [Lost(16, 32, why + "; restore the file from a copy")]
    assert salvaged(path, rows=(20, 34)) == (whole[32:34], [Lost(20, 32, lost[0].why)])
    assert salvaged(path, rows=(0, 16)) == (whole[:16], [])

    # a column that others do not need is lost alone
    last = len(header.coded)
    flipped(neural_bytes, path, header.stream_of_block(0, 2) + last)
    saved, lost = salvaged(path)
    assert saved.equals(whole[:32])
    assert [(gone.start, gone.stop) for gone in lost] == [(32, 40)]
    others = [names[place] for place in header.coded[: last - 1]]
    assert salvaged(path, others) == (whole.select(others), [])

    # what a general coder stores has one stream for all blocks, and is lost in one piece
    stored = next(k for k, column in enumerate(header.columns) if column.coder == "rival")
    flipped(neural_bytes, path, header.stream_of_column(0, stored))
    saved, lost = salvaged(path)
    assert len(saved) == 0
    assert [(gone.start, gone.stop) for gone in lost] == [(0, 40)]
    assert f"stream of column {names[stored]!r} (rows 0 to 39)" in lost[0].why
    rest = [name for name in names if name != names[stored]]
    assert salvaged(path, rest) == (whole.select(rest), [])

    flipped(neural_bytes, path, header.stream_of_block(0, 0), header.stream_of_block(0, 1))
    saved, lost = salvaged(path)
    assert saved.equals(whole[32:])
    assert [(gone.start, gone.stop) for gone in lost] == [(0, 16), (16, 32)]


def test_a_stream_of_many_blocks_is_found_damaged_once(
    neural_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.svae"
    path.write_bytes(neural_bytes)
    with archive.open(path) as opened:
        header = opened.header
    number = next(k for k, column in enumerate(header.columns) if column.coder == "rival")
    flipped(neural_bytes, path, header.stream_of_column(0, number))
    loads, load = Counter[int](), Parts._load

    def counted(self: Parts, number: int) -> bytes:
        loads[number] += 1
        return load(self, number)

    monkeypatch.setattr(Parts, "_load", counted)
    assert [(gone.start, gone.stop) for gone in salvaged(path)[1]] == [(0, 40)]
    assert loads[header.stream_of_column(0, number)] == 1


def test_of_any_flipped_byte_what_is_saved_is_true(neural_bytes: bytes, tmp_path: Path) -> None:
    """Rows saved and rows lost are all rows, and those saved are as they were."""
    path, whole = tmp_path / "t.svae", small_table()
    path.write_bytes(neural_bytes)
    with archive.open(path) as opened:
        first, last = opened._parts.container.stream(0).position, opened._parts.container.index.position
    some_saved = 0
    for at in range(first, last):
        broken = bytearray(neural_bytes)
        broken[at] ^= 1 << (at % 8)
        path.write_bytes(broken)
        saved, lost = salvaged(path)
        gone = {row for part in lost for row in range(part.start, part.stop)}
        assert gone
        assert saved.equals(
            whole.take(pa.array([row for row in range(len(whole)) if row not in gone], pa.int64()))
        )
        some_saved += len(saved) > 0
    assert some_saved


def test_a_stream_that_is_too_short_is_refused_however_little_is_read(
    neural_bytes: bytes, tmp_path: Path
) -> None:
    """Its checksums are right: what is read of it would be made up."""
    path = tmp_path / "t.svae"
    parts = take_apart(neural_bytes)
    path.write_bytes(neural_bytes)
    with archive.open(path) as opened:
        first, names = opened.header.stream_of_block(0, 0), opened.names
        coded = [names[place] for place in opened.header.coded]
    streams = [s[:9] if first <= k <= first + len(coded) else s for k, s in enumerate(parts.streams)]
    assert streams != list(parts.streams)
    path.write_bytes(put_together(parts._replace(streams=tuple(streams))))
    with archive.open(path) as opened:
        for rows in ((0, 12), (0, 16), (3, 15)):
            with pytest.raises(DamagedError, match="block 0 .* ends before its rows do"):
                opened.read(coded, rows)
    assert [(gone.start, gone.stop) for gone in salvaged(path, coded, (0, 12))[1]] == [(0, 12)]


def test_what_cannot_be_read_is_damage(
    neural_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.svae"
    path.write_bytes(neural_bytes)
    with archive.open(path) as opened:
        bad = opened._parts.container.stream(opened.header.stream_of_block(0, 1)).position
    read = Container._read

    def sector(self: Container, position: int, length: int) -> bytes:
        if position == bad:
            raise OSError(errno.EIO, "Input/output error")
        return read(self, position, length)

    monkeypatch.setattr(Container, "_read", sector)
    saved, lost = salvaged(path)
    whole = small_table()
    assert saved.equals(pa.concat_tables([whole[:16], whole[32:]]))
    assert [(gone.start, gone.stop) for gone in lost] == [(16, 32)]
    assert "is damaged: it cannot be read: Input/output error" in lost[0].why


def test_the_command_line_saves_and_lists_what_is_lost(
    neural_bytes: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "t.svae", tmp_path / "t.jsonl"
    path.write_bytes(neural_bytes)
    with archive.open(path) as opened:
        header, names = opened.header, opened.names
    stored = next(k for k, column in enumerate(header.columns) if column.coder == "rival")
    call = ["decompress", str(path), "-o", str(out)]

    flipped(neural_bytes, path, header.stream_of_block(0, 1))
    assert run(call) == 1
    assert not out.exists()
    assert run([*call, "--salvage", "--json"]) == 0
    shown = capfd.readouterr()
    found = json.loads(shown.out)
    assert (found["rows"], found["columns"]) == (24, 5)
    assert [(gone["start"], gone["stop"]) for gone in found["lost"]] == [(16, 32)]
    assert "rows 16 to 31 are lost: " in shown.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["k"] for row in rows] == small_table()["k"].to_pylist()[:16] + small_table()["k"].to_pylist()[
        32:
    ]

    out.unlink()
    flipped(neural_bytes, path, header.stream_of_column(0, stored))
    assert run([*call, "--salvage"]) == 1
    assert not out.exists()
    assert (
        "no row can be saved of these columns (others may be whole: --columns): "
        f"{path}: stream of column {names[stored]!r}" in capfd.readouterr().err
    )
    others = ",".join(name for name in names if name != names[stored])
    assert run([*call, "--salvage", "--columns", others]) == 0
    assert len(out.read_text().splitlines()) == 40
    assert "lost" not in capfd.readouterr().err
    path.write_bytes(neural_bytes)
    assert run([*call, "--salvage", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["lost"] == []
