"""Small files that ask for much: each is refused in seconds of work and less than a gibibyte of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import ArchiveError
from tests.codec.forger import forge
from vae.codec import archive, writer
from vae.codec.columns import pack
from vae.codec.framing import put_varint
from vae.codec.mixing import justified
from vae.codec.numbers import pack_numbers

READ = """
import json, sys, time
from data.errors import SvaeError
from vae.codec import archive

began = time.process_time()
try:
    with archive.open(sys.argv[1], threads=2) as opened:
        opened.report()
        for batch in opened.batches() if sys.argv[2] == "batches" else [opened.read()]:
            pass
    why = "it was read"
except SvaeError as error:
    why = str(error)
seconds = time.process_time() - began
peak = next((line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), "0")
print(json.dumps({"why": why, "seconds": seconds, "peak": int(peak) * 1024}))
"""
ONE = pa.schema([("a", pa.int64())])
CONSTANT = b"\0\0" + bytes(8)
"""The stream of a column of equal numbers, however many."""
START = b'{"rows":1,"block_rows":10,"group_blocks":1,'
MANY = 1 << 24


def header(columns: int, rows: int = 1, group_blocks: int = 1) -> dict[str, Any]:
    return {
        "rows": rows, "block_rows": 1 << 15, "group_blocks": group_blocks, "columns": [{}] * columns,
    }  # fmt: skip


def report(columns: int) -> dict[str, Any]:
    return {"per_column": [{}] * columns}


def many_columns(path: Path) -> Path:
    text = START + b'"columns":[' + b"{}," * MANY + b"{}]}"
    return forge(path, text, [b"", b"", CONSTANT], ONE, report(1))


def many_coded(path: Path) -> Path:
    text = START + b'"columns":[{}],"coded":[' + b"0," * MANY + b"0]}"
    return forge(path, text, [b"", b"", CONSTANT], ONE, report(1))


def much_in_a_grid(path: Path) -> Path:
    text = START + b'"columns":[{"grid":{"x":[' + b"[]," * MANY + b"[]]}}]}"
    return forge(path, text, [b"", b"", CONSTANT], ONE, report(1))


def long_report(path: Path) -> Path:
    told = b'{"per_column":[' + b"[]," * MANY + b"{}]}"
    return forge(path, header(1), [b"", b"", CONSTANT], ONE, told)


def long_texts(path: Path) -> Path:
    stream = pack(pa.array(["a" * (120 << 20)]), quick=True)
    schema = pa.schema([(f"c{k}", pa.string()) for k in range(16)])
    return forge(path, header(16), [b"", b"", *[stream] * 16], schema, report(16))


def many_cells(path: Path) -> Path:
    schema = pa.schema([(f"c{k}", pa.int64()) for k in range(64)])
    streams = [CONSTANT] * 64 * 15
    return forge(path, header(64, 15 << 20, 32), [b"", b"", *streams], schema, report(64))


def long_tables(path: Path) -> Path:
    """As many tables as there may be columns, each of a million equal entries in some twenty bytes."""
    entries = pack_numbers(np.zeros(1 << 20, np.int64))
    table = put_varint(1 << 20) + put_varint(len(entries)) + entries + put_varint(0)
    grid = {"kind": "number", "scale": "step", "high": 3}
    names = [f"c{k}" for k in range(400)]
    columns = [
        {"coder": "derived", "grid": {"name": name, **grid}, "derived": {"name": name}} for name in names
    ]
    schema = pa.schema([(name, pa.int64()) for name in names])
    whole = header(400) | {"columns": columns}
    return forge(path, whole, [table * 400, b"", *[b""] * 400], schema, report(400))


def wide_null(path: Path) -> Path:
    schema = pa.schema([("a", pa.list_(pa.list_(pa.int64(), 1 << 15), 1 << 15))])
    return forge(path, header(1), [b"", b"", b"\1"], schema, report(1))


def wide_tensor(path: Path) -> Path:
    tensor = pa.fixed_shape_tensor(pa.int64(), [1 << 12, 1 << 12])
    schema = pa.schema([("a", pa.struct([("t", tensor)]))])
    return forge(path, header(1, rows=8), [b"", b"", b"\1"], schema, report(1))


def long_names(path: Path) -> Path:
    """Columns of one name of 1,500 bytes, which every row has."""
    name = pack(pa.array(["n" * 1_500]))
    table = put_varint(1) + put_varint(len(name)) + name
    grids = [{"name": f"c{k}", "kind": "category", "scale": "names", "values": []} for k in range(4)]
    whole = header(4, 1 << 18, 8) | {"columns": [{"grid": grid} for grid in grids]}
    states, symbols = pack_numbers(np.zeros(1 << 18, np.uint8)), pack_numbers(np.zeros(1 << 18, np.int64))
    cells = put_varint(len(states)) + states + put_varint(len(symbols)) + symbols
    schema = pa.schema([(grid["name"], pa.large_string()) for grid in grids])
    return forge(path, whole, [table * 4, b"", *[cells] * 4], schema, report(4))


def much_derived(path: Path) -> Path:
    """As many cells as a group may have, all of them functions of nothing."""
    names = [f"c{k}" for k in range(64)]
    table = put_varint(1) + put_varint(9) + pack_numbers(np.zeros(1, np.int64)) + put_varint(0)
    grid = {"kind": "number", "scale": "step", "high": 3}
    columns = [
        {"coder": "derived", "grid": {"name": name, **grid}, "derived": {"name": name}} for name in names
    ]
    whole = header(64, 1 << 20, 32) | {"columns": columns}
    schema = pa.schema([(name, pa.int64()) for name in names])
    return forge(path, whole, [table * 64, b"", *[b""] * 64], schema, report(64))


def many_symbols(path: Path) -> Path:
    """As many symbols as a mixed body may become that is as long as a file may be here."""
    body = bytes(130_000)
    stream = b"\0\2" + put_varint(justified(len(body)) - 1) + body
    schema = pa.schema([("a", pa.string())])
    return forge(path, header(1), [b"", b"", stream], schema, report(1), version=9)


@pytest.mark.parametrize("how", ["read", "batches"])
@pytest.mark.parametrize(
    ("bomb", "why"),
    [
        (many_columns, "header is damaged: 16777219 values listed, which a file of"),
        (many_coded, "header is damaged: 16777220 values listed, which a file of"),
        (much_in_a_grid, "header is damaged: 16777219 values listed, which a file of"),
        (long_report, "index is damaged: 16777216 values listed, which a file of"),
        (long_texts, "bytes become more than"),
        (many_cells, "from a file of|bytes become more than 402,653,184"),
        (long_tables, "bytes become more than 402,653,184"),
        (wide_null, "which a stream of this length does not justify"),
        (wide_tensor, "which a stream of this length does not justify"),
        (long_names, "bytes become more than 402,653,184"),
        (many_symbols, "a mixed text does not end where it should"),
        (much_derived, "from a file of|bytes become more than 402,653,184"),
    ],
)
def test_a_small_file_cannot_ask_for_much(
    bomb: Callable[[Path], Path], why: str, how: str, tmp_path: Path
) -> None:
    path = bomb(tmp_path / "t.svae")
    assert path.stat().st_size < 1 << 17
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), how], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert any(part in found["why"] for part in why.split("|")), found["why"]
    assert found["seconds"] < 5
    assert (0 if sys.platform.startswith("linux") else -1) < found["peak"] < 1 << 30


NUMBERS = (pa.int8(), pa.int64(), pa.float32(), pa.bool_(), pa.decimal128(25), pa.timestamp("us"))
NULLS = (
    pa.struct([(f"b{k}", pa.bool_()) for k in range(40)]),
    pa.list_(pa.bool_(), 64),
    pa.struct([(f"s{k}", pa.string()) for k in range(8)]),
    pa.struct([(f"i{k}", pa.int8()) for k in range(32)]),
    pa.list_(pa.string()),
    pa.string_view(),
)


def filled(kind: pa.DataType, rows: int) -> pa.Array:
    value = [True] * 64 if pa.types.is_fixed_size_list(kind) else {f"b{k}": True for k in range(40)}
    return pa.array([value] * rows, kind)


def test_honest_archives_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compresses best of all is written in groups that a reader has room for."""
    monkeypatch.setattr(writer, "HELD", 4 << 20)
    monkeypatch.setattr("vae.codec.budget.HELD", 4 << 20)
    monkeypatch.setattr("vae.codec.budget.MAX_RATIO", 1)
    rows = 40_000
    words = {f"words {k}": pa.array([b"the same long words " * 8] * rows) for k in range(6)}
    names = {f"names {k}": pa.array(["one long name " * 8] * rows) for k in range(6)}
    numbers = {f"numbers {k}": pa.array([k] * rows).cast(kind) for k, kind in enumerate(NUMBERS)}
    nothing = {f"nothing {k}": pa.nulls(rows, kind) for k, kind in enumerate(NULLS)}
    one_null = {f"one null {k}": pa.concat_arrays([pa.nulls(1, kind), filled(kind, rows - 1)])
                for k, kind in enumerate(NULLS[:2])}  # fmt: skip
    table = pa.table({**words, **names, **numbers, **nothing, **one_null})
    writer.write(table, tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.header.groups > 1
        opened.verify(table)
    nested = pa.table(one_null)
    writer.write(nested, tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        opened.verify(nested)


def test_a_group_that_becomes_too_much_can_be_read_column_by_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({f"c{k}": pa.array([b"the same long words " * 8] * 20_000) for k in range(6)})
    writer.write(table, tmp_path / "t.svae")
    monkeypatch.setattr("vae.codec.budget.HELD", 6 << 20)
    monkeypatch.setattr("vae.codec.budget.MAX_RATIO", 1)
    with archive.open(tmp_path / "t.svae") as opened:
        with pytest.raises(ArchiveError, match="read fewer columns at a time"):
            opened.read()
        for name in table.column_names:
            assert opened.read([name]).equals(table.select([name]))
