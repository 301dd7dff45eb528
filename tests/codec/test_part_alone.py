"""A part is read without the rest: what a read of some rows and columns loads, decodes and may find damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from data.errors import DamagedError
from data.gridfit import fit_table
from vae.codec import archive, writer
from vae.codec.archive import Archive
from vae.codec.container import Container
from vae.codec.integer import IntegerModel
from vae.planning import make_plan

FLIGHTS = Path(__file__).parents[1] / "fixtures" / "flights-2000-v1.svae"
ROWS, BLOCK, GROUP = 4_800, 100, 2_400


class Written(NamedTuple):
    """An archive of two groups of 24 blocks, of four columns by a model and one of text."""

    path: Path
    table: pa.Table
    order: list[str]
    """The columns that are coded by the model, in coding order."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    random = np.random.default_rng(8)
    walk, key = np.cumsum(random.integers(-4, 6, ROWS)), random.integers(0, 40, ROWS)
    table = pa.table({
        "walk": pa.array(walk, mask=random.random(ROWS) < 0.02),
        "key": [f"k{k}" for k in key],
        "value": 37 * key % 4_001 + random.integers(0, 4, ROWS),
        "day": random.integers(1, 32, ROWS),
        "note": [f"note {k}" for k in random.permutation(ROWS)],
    })  # fmt: skip
    rare = table.slice(0, 900)  # the rest brings values that the grids do not know: escapes in most blocks
    grid = fit_table(rare)
    coded = {g.name: g.encode(rare[g.name]) for g in grid.columns if g.kind != "opaque"}
    plan = make_plan(grid, coded, latents=2, width=4)
    model = IntegerModel(plan, {
        name: random.integers(-30, 31, shape).astype(np.int16) for name, shape in plan.shapes().items()
    })  # fmt: skip
    codes = random.integers(-1, 2, (ROWS, 2)).astype(np.int8)
    path = tmp_path_factory.mktemp("parts") / "t.svae"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        patch.setattr(writer, "MAX_GROUP_ROWS", GROUP)
        archive.write(table, path, grid=grid, derived=[], model=model, codes=codes, block_rows=BLOCK)
    with archive.open(path) as opened:
        assert (opened.header.groups, opened.header.block_count(1)) == (2, GROUP // BLOCK)
        assert opened.header.stream_of_column(0, 0) == 0
        assert set(model.columns) == {"walk", "key", "value", "day"}
        assert opened._parts.container.stream(0).length  # escapes of "walk"
    return Written(path, table, model.columns)


class Work(NamedTuple):
    """What reads cost, counted."""

    loaded: set[int]
    """Positions of the parts that were loaded."""
    cells: list[int]
    """Cells of each block that was decoded."""


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    counted = Work(set(), [])
    load, decode = Container.load, IntegerModel.decode_block

    def counting_load(self: Container, entry: Any, what: str) -> bytes:
        counted.loaded.add(entry.position)
        return load(self, entry, what)

    def counting_decode(self: IntegerModel, *arguments: Any) -> Any:
        found = decode(self, *arguments)
        counted.cells.append(found[0].size)
        return found

    monkeypatch.setattr(Container, "load", counting_load)
    monkeypatch.setattr(IntegerModel, "decode_block", counting_decode)
    return counted


def damage(written: Written, path: Path, spared: Callable[[Archive], set[int]]) -> None:
    """A copy in which every stream that is not spared has a flipped bit."""
    data = bytearray(written.path.read_bytes())
    with archive.open(written.path) as opened:
        keep = spared(opened)
        for number in set(range(opened.header.streams())) - keep:
            entry = opened._parts.container.stream(number)
            if entry.length:
                data[entry.position + entry.length // 2] ^= 1
    path.write_bytes(data)


def columns_of(opened: Archive, group: int) -> set[int]:
    """The streams of a group that belong to all its blocks."""
    first = opened.header.stream_of_column(group, 0)
    return set(range(first, first + len(opened.names)))


@pytest.mark.parametrize(
    ("rows", "group", "blocks"),
    [
        ((2_400, 2_401), 1, [0]),
        ((1_150, 1_250), 0, [11, 12]),
        ((4_799, 4_800), 1, [23]),
        ((99, 101), 0, [0, 1]),
    ],
)
def test_rows_need_the_streams_of_their_blocks(
    rows: tuple[int, int], group: int, blocks: list[int], written: Written, tmp_path: Path
) -> None:
    def spared(opened: Archive) -> set[int]:
        firsts = [opened.header.stream_of_block(group, block) for block in blocks]
        return columns_of(opened, group) | {first + k for first in firsts for k in range(5)}

    damage(written, tmp_path / "t.svae", spared)
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read(rows=rows).equals(written.table.slice(rows[0], rows[1] - rows[0]))
        for start, stop in [(max(0, rows[0] - BLOCK), rows[1] + BLOCK), (0, ROWS)]:
            with pytest.raises(DamagedError, match="is damaged: its checksum differs"):
                opened.read(rows=(start, stop))


@pytest.mark.parametrize("depth", range(1, 5))
def test_a_column_needs_those_coded_before_it_and_no_others(
    depth: int, written: Written, tmp_path: Path
) -> None:
    name = written.order[depth - 1]

    def spared(opened: Archive) -> set[int]:
        firsts = [opened.header.stream_of_block(g, b) for g in range(2) for b in range(GROUP // BLOCK)]
        place = opened.names.index(name)
        escapes = {opened.header.stream_of_column(group, place) for group in range(2)}
        return escapes | {first + k for first in firsts for k in range(depth + 1)}

    damage(written, tmp_path / "t.svae", spared)
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read([name]).equals(written.table.select([name]))
        with pytest.raises(DamagedError, match="is damaged: its checksum differs"):
            opened.read()


def test_a_column_of_no_model_needs_its_own_streams_alone(written: Written, tmp_path: Path) -> None:
    place = written.table.column_names.index("note")
    damage(written, tmp_path / "t.svae", lambda o: {o.header.stream_of_column(g, place) for g in range(2)})
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read(["note"]).equals(written.table.select(["note"]))


def test_codes_need_their_own_streams_alone(written: Written, tmp_path: Path) -> None:
    with archive.open(written.path) as opened:
        whole = opened.dense_codes()
    damage(written, tmp_path / "t.svae", lambda o: {o.header.stream_of_block(0, 3)})
    with archive.open(tmp_path / "t.svae") as opened:
        assert (opened.dense_codes((310, 390)) == whole[310:390]).all()


def test_a_fiftieth_of_the_rows_is_less_than_a_tenth_of_the_work(written: Written, work: Work) -> None:
    """Rows from the middle, as many of all as a thousand of the flights are."""
    middle = (ROWS // 2 - 50 - BLOCK, ROWS // 2 + 46 - BLOCK)
    with archive.open(written.path) as opened:
        opened.read(rows=middle)
        part = Work(set(work.loaded), list(work.cells))
        work.loaded.clear()
        work.cells.clear()
        opened.read()
    assert sum(work.cells) == 4 * ROWS
    assert 10 * sum(part.cells) <= sum(work.cells)
    assert 10 * (len(part.loaded) - 5) <= len(work.loaded)  # five: the streams of a group


def test_rows_behind_the_last_one_asked_for_are_not_decoded(work: Work) -> None:
    """Where one block holds all, as in the frozen archives."""
    with archive.open(FLIGHTS) as opened:
        columns = len(opened.header.coded)
        whole = opened.read()
        work.cells.clear()
        for start, stop in [(0, 1), (10, 60), (0, 1_999), (1_999, 2_000)]:
            assert opened.read(rows=(start, stop)).equals(whole.slice(start, stop - start))
        assert work.cells == [columns, 60 * columns, 1_999 * columns, 2_000 * columns]


def test_what_the_format_costs_is_under_half_a_percent_of_the_flights() -> None:
    """Header, index, checksums, report: a fixed part, and a length and a checksum for each stream."""
    with archive.open(FLIGHTS) as opened:
        fixed = opened.report().bytes.container
        columns, coded = len(opened.names), len(opened.header.coded)
    blocks = -(-336_776 // archive.BLOCK_ROWS)
    streams = columns + blocks * (1 + coded)
    a_stream = 3 + 4  # a varint of up to 2 MB, the checksum
    assert fixed + a_stream * streams < 0.005 * 1_700_000
