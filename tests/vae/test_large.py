"""Tables that are too large for memory, made small: the same archives, a group of rows in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import data.largetable
from data.grid import ColumnGrid
from data.ingest import ingest
from data.largetable import StoredTable
from data.schema import Schema
from data.sources import TableSource
from vae import codes, lesson, pipeline
from vae.codec import archive, choice, writer
from vae.features import blank_model, block, training_arrays
from vae.settings import Codes, ModelSettings, TrainSettings

SMALL = ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1)
QUICK = TrainSettings(steps=60, batch_rows=256, threads=1)
ROWS, BLOCK = 9_000, 1_000


def walk(rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(0)
    month = np.arange(rows) // 2_700
    level = np.cumsum(random.integers(-2, 3, rows))
    return pa.table(
        {
            "month": month,
            "level": level,
            "shop": pa.array([f"shop {k}" for k in random.integers(0, 5, rows)]),
            "price": pa.array(level * 0.5 + month, mask=random.random(rows) < 0.05),
            "note": pa.array([f"note {k}" for k in range(rows)]),
        }
    )


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return walk()


@pytest.fixture(scope="module")
def stored(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> StoredTable:
    return StoredTable(ingest(TableSource(table), tmp_path_factory.mktemp("stored") / "set"))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks and groups, as a table of ten million rows has; a model stays although it was hardly trained."""
    monkeypatch.setattr(lesson, "DEFAULT_BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(lesson, "RUN_ROWS", 200)
    monkeypatch.setattr(writer, "CLOSE_CALL", 1e9)
    monkeypatch.setattr(writer, "LARGE_GROUP_CELLS", 5 * BLOCK)
    monkeypatch.setitem(writer.write.__kwdefaults__, "block_rows", BLOCK)
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 1_000)


def test_a_table_on_disk_makes_the_archive_of_the_one_in_memory(
    table: pa.Table, stored: StoredTable, tmp_path: Path, small_blocks: None
) -> None:
    reports = [
        pipeline.compress(rows, tmp_path / name, bounds={"price": 0.5}, settings=SMALL, training=QUICK)
        for rows, name in ((table, "memory"), (stored, "disk"))
    ]
    assert reports[0].bytes.codes > 0
    # but for the report in the container: seconds, and bytes of the source
    assert reports[0].bytes.model_copy(update={"container": 0}) == reports[1].bytes.model_copy(
        update={"container": 0}
    )
    with archive.open(tmp_path / "disk") as opened:
        assert opened.header.groups > 1
        opened.verify(table)
        opened.verify(stored)
        back = opened.read()
    with archive.open(tmp_path / "memory") as opened:
        assert opened.read().equals(back)  # a dataset names its kinds in the metadata


def test_a_column_or_a_group_of_rows_is_in_memory_and_no_more(
    stored: StoredTable, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, asked = list[int](), list[str]()
    whole_column, some_rows = StoredTable.column, StoredTable.slice

    def column(self: StoredTable, name: str) -> pa.ChunkedArray:
        asked.append(name)
        return whole_column(self, name)

    def run(self: StoredTable, offset: int = 0, length: int | None = None) -> pa.Table:
        rows = some_rows(self, offset, length)
        runs.append(rows.num_rows)
        return rows

    encoded = list[int]()
    encode = ColumnGrid.encode

    def watched(self: ColumnGrid, array: Any, *more: Any) -> Any:
        encoded.append(len(array))
        return encode(self, array, *more)

    monkeypatch.setattr(StoredTable, "column", column)
    monkeypatch.setattr(StoredTable, "slice", run)
    monkeypatch.setattr(ColumnGrid, "encode", watched)
    monkeypatch.setattr("vae.codec.choice.DEFAULT_BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(lesson, "LARGE_TRAIN_CELLS", 15_000)
    pipeline.compress(stored, tmp_path / "a.svae", settings=SMALL, training=QUICK)
    assert max(runs) <= BLOCK
    assert max(encoded) <= 15_000 // stored.num_columns
    assert set(asked) == set(stored.column_names)
    with archive.open(tmp_path / "a.svae") as opened:
        assert opened.header.group_rows <= BLOCK


def test_training_rows_of_a_large_table_are_seen_in_their_blocks(
    stored: StoredTable, table: pa.Table, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "LARGE_TRAIN_CELLS", 15_000)
    split = (np.arange(ROWS) % 10).astype(np.uint8) // 8 * 2  # 0 or 2
    found = lesson.lesson_of(stored, None, SMALL, split)
    rows = lesson._training_rows(ROWS, len(lesson._sample_rows(ROWS, 5, QUICK.rows)), split)
    assert 2_900 < len(found.learn) == len(rows) <= 3_000
    assert not len(found.held)
    assert (split[rows] == 0).all()
    assert (split[found.tested] == 2).all()
    assert {row // BLOCK for row in rows.tolist()} == set(range(9))
    names = found.layout.plan.names
    coded = {name: found.grid[name].encode(table[name]) for name in names}
    whole = training_arrays(found.layout, blank_model(found.layout.plan), *block(coded, names), BLOCK)
    inside = ~whole["first"][rows]  # the row above a block's first is not looked at
    assert inside.sum() >= len(rows) - 9
    for name, array in found.arrays.items():
        assert np.array_equal(array[inside], whole[name][rows][inside]), name


def test_without_a_model_no_more_is_in_memory(
    stored: StoredTable, table: pa.Table, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "LARGE_SEARCH_CELLS", 1_000)
    runs = list[int]()
    some_rows = StoredTable.slice

    def run(self: StoredTable, offset: int = 0, length: int | None = None) -> pa.Table:
        rows = some_rows(self, offset, length)
        runs.append(rows.num_rows)
        return rows

    monkeypatch.setattr(StoredTable, "slice", run)
    monkeypatch.setattr(choice, "DEFAULT_BLOCK_ROWS", BLOCK)
    archive.write(stored, tmp_path / "a.svae")
    assert max(runs) <= BLOCK
    with archive.open(tmp_path / "a.svae") as opened:
        assert opened.read().equals(table)


def test_rivals_see_the_whole_table(stored: StoredTable, table: pa.Table, tmp_path: Path) -> None:
    found = [archive.write(rows, tmp_path / "a", rivals=True).rivals for rows in (stored, table)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].csv == found[1].csv


def test_rows_to_test_on_are_spread_and_not_too_many() -> None:
    rows = np.arange(100_000)
    spread = lesson._spread(rows)
    assert len(spread) <= lesson.MOST_HELD
    assert spread[-1] > 99_000
    assert lesson._spread(rows[:5]).tolist() == [0, 1, 2, 3, 4]
    assert len(lesson._spread(rows[:0])) == 0


def test_codes_are_made_part_by_part(
    table: pa.Table, stored: StoredTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = pipeline.fit(table, Schema.from_arrow(table.schema), model=SMALL, training=QUICK)
    whole = codes.encode_rows(trained, table)
    told = list[tuple[int, int]]()
    monkeypatch.setattr(codes, "PART_ROWS", 2_500)
    assert np.array_equal(codes.encode_rows(trained, stored, lambda *done: told.append(done)), whole)
    assert told[-1] == (ROWS, ROWS)
    assert told == sorted(told)


def test_codes_that_are_not_the_models_are_refused(table: pa.Table, tmp_path: Path) -> None:
    trained = pipeline.fit(
        table, Schema.from_arrow(table.schema), model=ModelSettings(codes=Codes.none), training=QUICK
    )
    with pytest.raises(ValueError, match=r"codes: \(9000, 3\)"):
        archive.write(
            table,
            tmp_path / "a",
            model=pipeline.integer_model(trained),
            grid=trained.grid,
            derived=trained.layout.derived,
            codes=lambda symbols, _: np.zeros((len(symbols), 3), np.int8),
        )
    assert not list(tmp_path.iterdir())
