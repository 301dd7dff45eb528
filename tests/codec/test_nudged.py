"""Archives of lattices, sums and differences: by every coder, whole and by parts, and lies about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import DamagedError
from data.grid import TableGrid
from tests.codec.forger import forge
from tests.codec.test_archive import assert_same, small_model
from tests.codec.test_archive_damage import REPORT, read_all
from vae.codec import archive, choice, writer
from vae.codec.container import Container
from vae.codec.framing import put_varint
from vae.codec.numbers import pack_numbers
from vae.codec.salvage import Lost

FLOAT = pa.float64()


def fifteen(values: Any) -> np.ndarray:
    return np.array([float(f"{x:.15g}") for x in values])


def readings(rows: int = 900) -> pa.Table:
    """Two lattices of which one follows from the other, a walk of fine readings, their sum and its rest; nulls and
    values off the lattice.
    """
    rng = np.random.default_rng(8)
    places = np.abs(np.cumsum(rng.integers(-9, 10, rows)))
    warm = fifteen(273.15 + places * 0.0100005950666 / 6)
    warm[rng.choice(rows, rows // 30)] += 1e-12
    warm = fifteen(warm)
    fine = fifteen(np.cumsum(rng.normal(size=rows)))
    other = fifteen(rng.normal(size=rows))
    odd = warm.copy()
    odd[5], odd[6], odd[7] = np.nan, -0.0, np.inf
    lost = rng.random(rows) < 0.05
    return pa.table({
        "warm": pa.array(odd, mask=lost),
        "hot": fifteen(100 + places / 7),
        "fine": fine,
        "other": other,
        "both": pa.array(fifteen(fine + other), mask=lost),
        "rest": fifteen(fine - other),
        "plain": fine + 100 * other,
        "step": places,
        "large": 100 * other,
    })  # fmt: skip


SCALES = {"warm": "lattice", "hot": "lattice", "both": "sum", "rest": "difference", "plain": "sum"}


@pytest.fixture(params=["rival", "neural"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(writer, "CLOSE_CALL", 1e9)
    monkeypatch.setattr(choice, "_function_pays", lambda *_: True)
    return small_model(readings()) if request.param == "neural" else {}


def test_it_comes_back_whole_and_by_parts(tmp_path: Path, made: dict[str, Any]) -> None:
    table, path = readings(), tmp_path / "t.svae"
    report = archive.write(table, path, **made, block_rows=64)
    assert path.read_bytes()[8] == 6
    with archive.open(path) as opened:
        grids = {grid.name: grid.scale for grid in opened._parts.grids if grid and grid.name in SCALES}
        assert grids == SCALES
        assert_same(opened.read(), table)
        for names in (["rest"], ["both", "warm"], ["rest", "other"], ["hot"], ["other", "both", "fine"]):
            for start, stop in ((0, 900), (63, 65), (64, 128), (300, 301), (899, 900)):
                assert_same(opened.read(names, (start, stop)), table.select(names).slice(start, stop - start))
        assert opened.verify(table) == dict.fromkeys(table.column_names, 0.0)
    coders = {column.name: column.coder for column in report.per_column}
    assert coders["both"] == coders["rest"] == "rival"
    assert "derived" in (coders["hot"], coders["warm"], coders["step"])
    assert ("neural" in coders.values()) == bool(made)


def test_groups_have_nudges_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_GROUP_ROWS", 256)
    table = readings()
    archive.write(table, tmp_path / "t.svae", block_rows=128)
    with archive.open(tmp_path / "t.svae") as opened:
        assert [batch.num_rows for batch in opened.batches(["rest"])] == [256, 256, 256, 132]
        assert_same(opened.read(), table)
        assert_same(opened.read(["warm"], (200, 700)), table.select(["warm"]).slice(200, 500))


def test_an_addend_that_is_bounded_makes_no_sum(tmp_path: Path) -> None:
    table = readings()
    archive.write(table, tmp_path / "t.svae", bounds={"other": 0.01})
    with archive.open(tmp_path / "t.svae") as opened:
        made = {grid.name: grid.sources for grid in opened._parts.grids if grid and grid.sources}
        assert made == {"plain": ("fine", "large")}
        assert opened.verify(table)["other"] <= 0.01
        assert_same(opened.read(["both", "rest"]), table.select(["both", "rest"]))


def test_of_three_that_make_each_other_one_is_left_out(tmp_path: Path) -> None:
    table = readings().select(["fine", "both", "other"])
    archive.write(table, tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        assert sum(bool(grid.sources) for grid in opened._parts.grids if grid) == 1
        assert_same(opened.read(), table)


def test_a_sum_does_not_displace_a_lattice_that_is_smaller(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    places = np.repeat(np.arange(300), 30)
    slow = fifteen(20 + places / 7)
    fast = rng.normal(size=len(places))
    table = pa.table({"slow": slow, "fast": fast, "rest": fifteen(slow - fast)})
    archive.write(table, tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        scales = {grid.name: grid.scale for grid in opened._parts.grids if grid}
        assert scales["slow"] == "lattice"
        assert_same(opened.read(), table)


def test_as_a_stream_twice_and_of_a_damaged_addend(tmp_path: Path) -> None:
    table, path = readings(), tmp_path / "t.svae"
    archive.write(table, path, block_rows=128, rivals=True)
    with archive.open(path) as opened:
        batches = list(opened.blocks(["rest", "warm"]))
        assert_same(pa.Table.from_batches(batches), table.select(["rest", "warm"]))
        grid = TableGrid(columns=tuple(grid for grid in opened._parts.grids if grid))
        place = opened._parts.container.stream(
            opened.header.stream_of_column(0, table.column_names.index("fine"))
        ).position
    archive.write(table, path, grid=grid)  # sums among the grids are looked for anew
    assert_same(read_all(path), table)
    archive.write(table, path, block_rows=128)
    data = bytearray(path.read_bytes())
    data[place + 9] ^= 1
    path.write_bytes(data)
    lost: list[Lost] = []
    with archive.open(path) as opened:
        assert list(opened.salvage(["rest"], on_lost=lost.append)) == []
        assert [(gone.start, gone.stop) for gone in lost] == [(0, 900)]
        assert "stream of column 'fine'" in lost[0].why
        assert_same(opened.read(["warm"]), table.select(["warm"]))


@pytest.mark.parametrize("kind", ["empty", "null", "nan", "far"])
def test_a_model_of_lattices_meets_other_rows(kind: str, tmp_path: Path, made: dict[str, Any]) -> None:
    table = readings(64)
    other = {"empty": [], "null": [None] * 64, "nan": [float("nan")] * 64, "far": [1e300, -5e-324] * 32}[kind]
    if kind == "empty":
        table = table.slice(0, 0)
    for name in ("warm", "hot", "fine"):
        column = pa.array(other, FLOAT)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    if made:
        made = {**made, "codes": made["codes"][: table.num_rows]}
    archive.write(table, tmp_path / "t.svae", **made)
    assert_same(read_all(tmp_path / "t.svae"), table)


def test_a_sum_is_much_smaller_than_its_values(tmp_path: Path) -> None:
    table = readings(20_000)
    whole = archive.write(table, tmp_path / "t.svae")
    sizes = {column.name: column.bytes for column in whole.per_column}
    assert 10 * sizes["rest"] < sizes["fine"]
    assert 3 * sizes["hot"] < sizes["fine"]


LATTICE = {"name": "a", "kind": "number", "scale": "lattice", "digits": 15, "high": 3, "step": 10**12}
SUM = {"name": "c", "kind": "number", "scale": "sum", "digits": 15, "sources": ["a", "b"]}
CELLS = b"\x02\0\0" + b"\x09\0" + bytes(8)
NUDGES = b"\x02\0\0"
PLAIN = b"\0\0" + bytes(8)


def packed(*nudges: int) -> bytes:
    data = pack_numbers(np.array(nudges, np.int8))
    return put_varint(len(data)) + data


@pytest.mark.parametrize(
    ("change", "stream", "version", "message"),
    [
        ({}, NUDGES + CELLS, 6, None),
        ({}, packed(1, -128) + CELLS, 6, None),
        ({}, NUDGES + CELLS, 5, "version 5 of the format has no such grids"),
        ({}, NUDGES + CELLS, 1, "version 1 of the format has no such grids"),
        ({"scale": "decimal", "digits": 2, "step": 1}, CELLS, 6, "version 6 of the format, and nothing that needs it"),
        ({"point": 31}, NUDGES + CELLS, 6, "Input should be less than or equal to 30"),
        ({"step": 1 << 63}, NUDGES + CELLS, 6, "a lattice of 9223372036854775808 from 0"),
        ({"offset": 0.5}, NUDGES + CELLS, 6, "a lattice of 1000000000000 from 0.5"),
        ({"digits": 3}, NUDGES + CELLS, 6, "15 digits of which only 3 are decimals"),
        ({"sources": ["a", "b"]}, NUDGES + CELLS, 6, "a lattice with a binary point or sources"),
        ({"scale": "step", "digits": 0, "point": 1}, CELLS, 6, "a step with a binary point or sources"),
        ({}, packed(1, 2, 3)[:-1], 6, "6 bytes announced, 5 left"),
        ({}, packed(*range(100)) + CELLS, 6, "(rows 0 to 1) is damaged"),
        ({}, b"", 6, "(rows 0 to 1) is damaged"),
        ({}, NUDGES, 6, "(rows 0 to 1) is damaged"),
    ],
    ids=str,
)  # fmt: skip
def test_a_lattice_is_of_version_6_and_cannot_wrap(
    tmp_path: Path, change: dict[str, Any], stream: bytes, version: int, message: str | None
) -> None:
    header = {"rows": 2, "block_rows": 10, "group_blocks": 1, "columns": [{"grid": LATTICE | change}]}
    path = forge(tmp_path / "t.svae", header, [b"", b"", stream], pa.schema([("a", FLOAT)]), REPORT, version)
    if message is None:
        moves = [0, 0] if stream.startswith(NUDGES) else [1, -128]
        assert read_all(path)["a"].to_pylist() == [k / 10**15 for k in moves]
        return
    with pytest.raises(DamagedError) as refused, archive.open(path) as opened:
        opened.read()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "kinds", "message"),
    [
        ([{}, {}, {"grid": SUM}], [FLOAT] * 3, None),
        ([{}, {}, {"grid": SUM | {"sources": ["a", "a"]}}], [FLOAT] * 3, None),
        ([{}, {}, {"grid": SUM | {"sources": ["a", "c"]}}], [FLOAT] * 3, "a sum of 'c', which is no such float"),
        ([{}, {}, {"grid": SUM | {"sources": ["a", "z"]}}], [FLOAT] * 3, "a sum of 'z', which is no such float"),
        ([{}, {}, {"grid": SUM}], [FLOAT, FLOAT, pa.int64()], "column 'c' is a sum of int64"),
        ([{}, {}, {"grid": SUM}], [FLOAT, FLOAT, pa.string()], "column 'c' is a sum of string"),
        ([{}, {}, {"grid": SUM}], [FLOAT, FLOAT, pa.struct([("x", FLOAT)])], "column 'c' is a sum of struct"),
        ([{}, {}, {"grid": LATTICE | {"name": "c"}}], [FLOAT, FLOAT, pa.float32()], "is a lattice of float"),
        ([{}, {}, {"grid": SUM | {"sources": ["a"]}}], [FLOAT] * 3, "a sum of 1 columns"),
        ([{}, {}, {"grid": SUM | {"sources": []}}], [FLOAT] * 3, "a sum of 0 columns"),
        ([{}, {"grid": SUM | {"name": "b", "sources": ["a", "c"]}}, {"grid": SUM}], [FLOAT] * 3, "no such float"),
        ([{}, {}, {"grid": SUM}], [FLOAT, pa.int64(), FLOAT], "a sum of 'b', which is no such float"),
        ([{}, {}, {"grid": SUM}], [FLOAT, pa.dictionary(pa.int8(), FLOAT), FLOAT], "a sum of 'b', which is no such"),
        ([{}, {}, {"grid": SUM, "coder": "derived", "derived": {"name": "c", "terms": []}}], [FLOAT] * 3,
         "is a sum and not stored for itself"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_sum_is_made_of_are_floats_that_are_no_sums(
    tmp_path: Path, columns: list[dict[str, Any]], kinds: list[pa.DataType], message: str | None
) -> None:
    header = {"rows": 2, "block_rows": 10, "group_blocks": 1, "columns": columns}
    schema = pa.schema(list(zip("abc", kinds, strict=True)))
    tables = b"\1\x09\0" + bytes(8) + b"\0" if message and "stored for itself" in message else b""
    path = forge(tmp_path / "t.svae", header, [tables, b"", PLAIN, PLAIN, NUDGES + CELLS], schema, REPORT3, 6)
    if message is None:
        assert read_all(path)["c"].to_pylist() == [0.0, 0.0]
        return
    with pytest.raises(DamagedError) as refused:
        archive.open(path)
    assert message in str(refused.value)


REPORT3 = {"per_column": REPORT["per_column"] * 3}


def test_a_flipped_nudge_is_damage_of_its_column(tmp_path: Path) -> None:
    table, path = readings(), tmp_path / "t.svae"
    archive.write(table, path)
    parts = Container(path)
    place = parts.header.stream_of_column(0, table.column_names.index("rest"))
    position = parts.stream(place).position
    parts.close()
    data = bytearray(path.read_bytes())
    data[position + 2] ^= 1
    path.write_bytes(data)
    with archive.open(path) as opened:
        with pytest.raises(DamagedError, match=r"stream of column 'rest' \(rows 0 to 899\)"):
            opened.read()
        assert_same(opened.read(["fine", "both"]), table.select(["fine", "both"]))
