"""Tables on disk: what Arrow says of the same rows in memory, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import data.largetable
from data.errors import SchemaError, SourceError
from data.ingest import ingest
from data.largetable import StoredTable, column_bytes, part_of, rows_of, stats_of, table_of
from data.sources import TableSource, open_source

ROWS = 150_000
"""More than two row groups."""


def in_memory() -> pa.Table:
    number = np.arange(ROWS)
    return pa.table(
        {
            "n": pa.array(number, mask=number % 7 == 0),
            "word": pa.array(["ab", "c", None, "défg"] * (ROWS // 4) + ["z"] * (ROWS % 4)),
            "kind": pa.array(np.array(["x", "y"])[number % 2]).dictionary_encode(),
            "at": pa.array(1_700_000_000 + number, pa.timestamp("s")),
            "yes": pa.array(number % 3 == 0),
            "list": pa.array([[1, 2], None] * (ROWS // 2)),
        },
        metadata={"made by": "hand"},
    )


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return in_memory()


@pytest.fixture(scope="module")
def stored(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> StoredTable:
    return StoredTable(ingest(TableSource(table), tmp_path_factory.mktemp("stored") / "set"))


def plain(table: pa.Table) -> list[dict[str, object]]:
    return table.to_pylist()


def test_it_has_the_names_types_and_size_of_the_table(table: pa.Table, stored: StoredTable) -> None:
    assert (stored.num_rows, stored.num_columns) == (table.num_rows, table.num_columns)
    assert stored.column_names == table.column_names
    assert stored.schema.types == table.schema.types
    assert stored.schema.metadata[b"made by"] == b"hand"
    for name in ("n", "at", "yes", "word"):
        assert column_bytes(stored, name) == pytest.approx(column_bytes(table, name), rel=0.2), name
    assert stored.nbytes == pytest.approx(table.nbytes, rel=0.2)


@pytest.mark.parametrize("name", ["n", "word", "kind", "at", "yes", "list"])
def test_columns_are_those_of_the_table(name: str, table: pa.Table, stored: StoredTable) -> None:
    assert stored.column(name).type == table.column(name).type
    assert stored[name].to_pylist() == table[name].to_pylist()


@pytest.mark.parametrize("span", [(0, 3), (65_530, 12), (131_000, 10**9), (ROWS, 5), (7, 0)])
def test_runs_of_rows_are_those_of_the_table(
    span: tuple[int, int], table: pa.Table, stored: StoredTable
) -> None:
    run = stored.slice(*span)
    assert run.schema == stored.schema
    assert plain(run) == plain(table.slice(*span))
    assert stored.slice(*span) is run  # kept until another is asked for


def test_the_whole_is_a_run_too(table: pa.Table, stored: StoredTable) -> None:
    assert stored.slice().num_rows == ROWS
    assert plain(stored.slice(ROWS - 2)) == plain(table.slice(ROWS - 2))


def test_rows_are_taken_in_the_order_asked_for(table: pa.Table, stored: StoredTable) -> None:
    rows = pa.array([149_999, 3, 3, 70_000])
    assert plain(stored.take(rows)) == plain(table.take(rows))


def test_statistics_are_those_of_the_table(table: pa.Table, stored: StoredTable) -> None:
    assert stats_of(stored)["n"].max == stats_of(table)["n"].max == ROWS - 1


def test_few_cells_are_held_in_memory(
    stored: StoredTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(table_of(stored.dataset), pa.Table)
    with rows_of(open_source(stored.dataset.path), tmp_path / "out" / "a") as rows:
        assert isinstance(rows, pa.Table)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 1_000)
    assert isinstance(table_of(stored.dataset), StoredTable)


def test_a_dataset_is_used_as_it_lies(
    stored: StoredTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 1_000)
    with rows_of(open_source(stored.dataset.path), tmp_path / "a") as rows:
        assert isinstance(rows, StoredTable)
        assert rows.dataset.path == stored.dataset.path
        assert not list(tmp_path.iterdir())


def csv(path: Path, rows: int = 2_000) -> Path:
    path.write_text("a,b\n" + "".join(f"{k},{k % 3}\n" for k in range(rows)))
    return path


def test_other_rows_lie_beside_the_target_for_the_time_being(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 1_000)
    source, told = csv(tmp_path / "t.csv"), list[int]()
    folder = tmp_path / "out"
    with rows_of(open_source(source), folder / "a.svae", lambda done, _: told.append(done)) as rows:
        assert isinstance(rows, StoredTable)
        assert rows.slice(1_999, 1).to_pylist() == [{"a": 1_999, "b": 1}]
        assert rows.schema == open_source(source).schema.to_arrow()
        (hidden,) = folder.iterdir()
        assert hidden.name.startswith(".a.svae.")
    assert told[-1] == 2_000
    assert not list(folder.iterdir())


def test_nothing_stays_of_rows_whose_work_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 1_000)
    source = csv(tmp_path / "t.csv")
    with (
        pytest.raises(RuntimeError, match="midway"),
        rows_of(open_source(source), tmp_path / "new" / "a.svae"),
    ):
        raise RuntimeError("midway")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_null_that_may_not_be_is_refused_on_disk_as_in_memory(
    stored: StoredTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = stored.dataset.schema.columns
    strict = stored.dataset.schema.model_copy(
        update={"columns": tuple(c.model_copy(update={"nullable": False}) for c in columns)}
    )
    message = "column 'n' holds nulls, its schema allows none"
    with pytest.raises(SchemaError, match=message):
        open_source(stored.dataset.path, strict).table()
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 1_000)
    with (
        pytest.raises(SchemaError, match=message),
        rows_of(open_source(stored.dataset.path, strict), tmp_path / "a"),
    ):
        pass


def test_parts_hold_some_columns(table: pa.Table, stored: StoredTable) -> None:
    for rows in (table, stored):
        assert part_of(rows, ["yes", "n"], 70_000, 2).to_pylist() == [
            {"yes": False, "n": None},
            {"yes": False, "n": 70_001},
        ]


def test_long_texts_are_large_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.largetable, "LARGE_BYTES", 1_000)
    with rows_of(open_source(csv(tmp_path / "t.csv")), tmp_path / "a") as rows:
        assert isinstance(rows, StoredTable)


def test_a_source_that_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 1_000)
    source = open_source(csv(tmp_path / "t.csv"))
    assert source.rows == 2_000
    monkeypatch.setattr(type(source), "is_unchanged", lambda _: False)
    with pytest.raises(SourceError, match="changed while it was read"), rows_of(source, tmp_path / "a"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
