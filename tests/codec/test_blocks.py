"""Archives read block by block, by hand and by DuckDB, Polars, pandas and scipy: nothing before it is asked for."""

from __future__ import annotations

import re
import sys
import weakref
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import polars.testing
import pyarrow as pa
import pytest

import vae
from data.errors import ArchiveError, DamagedError, ExtraError, SchemaError
from data.gridfit import fit_table
from vae.codec import archive, structure, writer
from vae.codec.container import Container
from vae.codec.integer import IntegerModel
from vae.planning import make_plan

ROWS, BLOCK, GROUP = 1_000, 50, 300
LATENTS = 3


def table() -> pa.Table:
    """Columns by the model, one that follows from them with exceptions, and two by general coders."""
    random = np.random.default_rng(5)
    late, city = random.integers(-20, 200, ROWS), random.integers(0, 40, ROWS)
    names = np.array([f"city {k}" for k in city])
    land = np.array(["de", "fr", "", "it"])[city % 4]
    land[[3, 120, 777]] = "it"
    return pa.table({
        "late": pa.array(late, mask=random.random(ROWS) < 0.02),
        "city": pa.array(names).dictionary_encode(),
        "land": land,
        "flag": random.random(ROWS) < 0.3,
        "noise": random.normal(size=ROWS),
        "id": [f"{k:x}-{v}" for k, v in enumerate(random.integers(0, 10**6, ROWS))],
    })  # fmt: skip


def codes() -> np.ndarray[Any, np.dtype[np.int8]]:
    random = np.random.default_rng(6)
    return (random.integers(-2, 3, (ROWS, LATENTS)) * (random.random((ROWS, LATENTS)) < 0.4)).astype(np.int8)


@pytest.fixture(scope="module")
def given() -> pa.Table:
    """What is written: some of it is unknown to the model, and escapes."""
    known = table()
    late = known["late"].to_pylist()
    late[40:60], late[900] = [10**9] * 20, -(10**12)
    return known.set_column(0, "late", pa.array(late, pa.int64()))


@pytest.fixture(scope="module")
def path(given: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    known = table()
    grid = fit_table(known)
    coded = {g.name: g.encode(known[g.name]) for g in grid.columns if g.kind != "opaque"}
    derived = structure.find(grid, coded)
    names = [name for name in coded if name not in {d.name for d in derived}]
    plan = make_plan(grid, {name: coded[name] for name in names}, latents=LATENTS, width=4)
    zeros = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    made = {"grid": grid, "derived": derived, "model": IntegerModel(plan, zeros), "codes": codes()}
    path = tmp_path_factory.mktemp("blocks") / "t.svae"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        patch.setattr(writer, "MAX_GROUP_ROWS", GROUP)
        report = archive.write(given, path, **made, block_rows=BLOCK)
    assert {c.coder for c in report.per_column} == {"neural", "derived", "rival"}
    return path


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were read from the file, by name."""
    seen, load = list[str](), Container.load

    def listed(self: Container, entry: Any, what: str) -> bytes:
        seen.append(what)
        return load(self, entry, what)

    monkeypatch.setattr(Container, "load", listed)
    return seen


def blocks(streams: list[str]) -> list[int]:
    """The blocks that were decoded, counted within the archive: each begins with its codes."""
    return [int(number) for what in streams for number in re.findall(r"of the codes, block (\d+)", what)]


def columns(streams: list[str]) -> set[str]:
    return {name for what in streams for name in re.findall(r"column '(\w+)'", what)}


# -------------------------------------------------------------------------------------------------------- by hand


def test_blocks_are_slices_of_the_whole(path: Path, given: pa.Table) -> None:
    sizes = [BLOCK] * (ROWS // BLOCK)
    with vae.open(path) as opened:
        assert [batch.num_rows for batch in opened] == sizes
        assert pa.Table.from_batches(list(opened)).equals(given)
        assert [batch.num_rows for batch in opened.blocks(["id"], (270, 420))] == [30, 50, 50, 20]
        for start, stop in [(0, 0), (49, 51), (270, 333), (5, 905), (999, None)]:
            part = opened.reader(["land", "late", "noise"], (start, stop)).read_all()
            assert part.equals(given.select(["land", "late", "noise"])[start:stop])
        assert opened.reader().schema.equals(opened.schema, check_metadata=True)


def test_nothing_is_decoded_before_it_is_asked_for(path: Path, streams: list[str]) -> None:
    with vae.open(path) as opened:
        streams.clear()
        reader = opened.reader()
        by_hand = opened.blocks()
        assert streams == []
        for asked in range(8):
            reader.read_next_batch()
            assert blocks(streams) == list(range(asked + 1))
        streams.clear()
        next(by_hand)
        assert blocks(streams) == [0]
        streams.clear()
        next(opened.blocks(rows=(620, 700)))
        assert blocks(streams) == [12]


def test_every_stream_is_read_once(path: Path, streams: list[str]) -> None:
    with vae.open(path) as opened:
        streams.clear()
        for _ in opened:
            pass
        assert len(streams) == len(set(streams)) == opened.header.streams() + 1  # and the model


def test_no_block_outlives_the_next(path: Path) -> None:
    with vae.open(path) as opened:
        alive = list[weakref.ref[pa.RecordBatch]]()
        for batch in opened.reader():
            alive.append(weakref.ref(batch))
            assert sum(reference() is not None for reference in alive) <= 2
    assert len(alive) == ROWS // BLOCK


def test_an_unknown_column_is_named_at_once(path: Path) -> None:
    with vae.open(path) as opened:
        for read in (opened.reader, opened.blocks):
            with pytest.raises(SchemaError, match="there is no column 'zzz'"):
                read(["zzz"])
        with pytest.raises(ValueError, match="in steps of 2"):
            opened.to_polars(slice(0, 10, 2))


def test_a_name_is_no_list_and_a_number_no_span(path: Path) -> None:
    with vae.open(path) as opened:
        with pytest.raises(
            TypeError, match=re.escape("columns='noise': give a list of names, such as ['noise']")
        ):
            opened.read("noise")
        for rows in (0, 5):
            with pytest.raises(
                TypeError, match=rf"rows={rows}: give a slice, a range or a pair \(start, stop\)"
            ):
                opened.read(rows=rows)  # pyright: ignore[reportArgumentType]


def test_a_closed_archive_says_so(path: Path) -> None:
    with vae.open(path) as opened:
        reader = opened.reader(["noise"])
    message = re.escape(f"{path}: has been closed; read it while it is open")
    with pytest.raises(ArchiveError, match=message):
        reader.read_all()


def test_damage_is_named_when_it_is_reached(path: Path, tmp_path: Path) -> None:
    with vae.open(path) as opened:
        container, header = opened._parts.container, opened.header
        entry = container.stream(header.stream_of_block(2, 1) + 1)
    broken = bytearray(path.read_bytes())
    broken[entry.position] ^= 1
    (tmp_path / "t.svae").write_bytes(broken)
    with vae.open(tmp_path / "t.svae") as opened:
        reader = opened.reader()
        for _ in range(13):
            reader.read_next_batch()
        with pytest.raises(DamagedError, match=r"block 13 \(rows 650 to 699\) is damaged"):
            reader.read_next_batch()
        with pytest.raises(duckdb.Error, match=r"block 13 \(rows 650 to 699\) is damaged"):
            asked("select count(*) from t", opened.reader())


# ----------------------------------------------------------------------------------------------------- by engines


def asked(sql: str, t: pa.Table | pa.RecordBatchReader) -> list[tuple[Any, ...]]:
    """What DuckDB answers; the query calls the table `t`."""
    with duckdb.connect() as connection:
        connection.register("t", t)
        return connection.execute(sql).fetchall()


def test_duckdb_queries_a_reader(path: Path, given: pa.Table, streams: list[str]) -> None:
    sql = (
        "select city, count(*) n, max(late) most, sum(noise) s from t where flag group by city order by city"
    )
    with vae.open(path) as opened:
        found = asked(sql, opened.reader(["city", "late", "noise", "flag"]))
    expected = asked(sql, given)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert np.allclose([row[3] for row in found], [row[3] for row in expected])
    assert len(found) == 40
    assert sorted(blocks(streams)) == list(range(ROWS // BLOCK))


def test_a_limited_query_of_duckdb_leaves_blocks_alone(
    path: Path, given: pa.Table, streams: list[str]
) -> None:
    with vae.open(path) as opened:
        first = [given[name][:10].to_pylist() for name in ("late", "id")]
        assert asked("select late, id from t limit 10", opened.reader()) == list(zip(*first, strict=True))
    found = blocks(streams)
    assert 1 <= len(found) < ROWS // BLOCK // 2
    assert found == list(range(len(found)))


def test_a_reader_decodes_the_columns_that_it_was_asked_for(path: Path, streams: list[str]) -> None:
    with vae.open(path) as opened:
        streams.clear()
        assert asked("select count(noise) n from t", opened.reader(["noise"])) == [(ROWS,)]
    assert columns(streams) == {"noise"}


def test_polars_queries_an_archive(path: Path, given: pa.Table) -> None:
    expected = pl.from_arrow(given)
    assert isinstance(expected, pl.DataFrame)
    late = pl.col("late") > 100
    with vae.open(path) as opened:
        scan = opened.to_polars()
        polars.testing.assert_frame_equal(scan.collect(), expected)
        polars.testing.assert_frame_equal(scan.filter(late).collect(), expected.filter(late))
        query = scan.filter(late, pl.col("flag")).select("id", "land").slice(3, 40)
        wanted = expected.filter(late, pl.col("flag")).select("id", "land").slice(3, 40)
        polars.testing.assert_frame_equal(query.collect(), wanted)
        polars.testing.assert_frame_equal(query.collect(), wanted)  # as often as you like
        # the first rows, then those of them that are late
        few = scan.head(120).filter(late).select("id")
        polars.testing.assert_frame_equal(few.collect(), expected.head(120).filter(late).select("id"))
        assert scan.select(pl.len()).collect().item() == ROWS
        sums = scan.group_by("land").agg(pl.col("late").sum()).sort("land").collect()
        polars.testing.assert_frame_equal(
            sums, expected.group_by("land").agg(pl.col("late").sum()).sort("land")
        )
        polars.testing.assert_frame_equal(
            opened.to_polars((130, 180)).head(20).collect(), expected.slice(130, 20)
        )


def test_polars_decodes_what_its_query_names(path: Path, streams: list[str]) -> None:
    with vae.open(path) as opened:
        streams.clear()
        scan = opened.to_polars()
        query = scan.select("noise", "id").head(10)
        assert streams == []
        assert query.collect().height == 10
        assert blocks(streams) == []
        assert columns(streams) == {"noise", "id"}
        assert scan.head(10).collect().height == 10
        assert blocks(streams) == [0]


def test_an_empty_table_is_queried(tmp_path: Path) -> None:
    empty = pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())})
    archive.write(empty, tmp_path / "t.svae")
    with vae.open(tmp_path / "t.svae") as opened:
        assert list(opened) == []
        assert opened.reader().read_all().equals(empty)
        assert opened.to_polars().select("b").collect().schema == {"b": pl.String}
        assert opened.codes().shape == (0, 0)


def test_integers_stay_integers_in_pandas(tmp_path: Path) -> None:
    large = 2**53 + 1
    given = pa.table({
        "some": pa.array([large, None, 3]),
        "all": pa.array([1, 2, 3], pa.int16()),
        "byte": pa.array([None, 255, 0], pa.uint8()),
        "x": [0.5, None, float("nan")],
        "word": ["a", None, ""],
    })  # fmt: skip
    archive.write(given, tmp_path / "t.svae")
    with vae.open(tmp_path / "t.svae") as opened:
        frame = opened.to_pandas()
        assert opened.to_pandas(["all"], (1, 3))["all"].tolist() == [2, 3]
    assert [str(dtype) for dtype in frame.dtypes] == ["Int64", "int16", "UInt8", "float64", "str"]
    assert frame["some"][0] == large
    assert pa.Table.from_pandas(frame[["some", "all", "byte"]], preserve_index=False).equals(
        given.select(["some", "all", "byte"]).replace_schema_metadata(None)
    )


# ------------------------------------------------------------------------------------------------- the sparse codes


def test_codes_are_a_sparse_matrix_and_no_column_is_decoded(path: Path, streams: list[str]) -> None:
    with vae.open(path) as opened:
        streams.clear()
        found = opened.codes()
        assert columns(streams) == set()
        part = opened.codes((270, 555))
        assert (opened.dense_codes((270, 555)) == codes()[270:555]).all()
    assert (found.format, found.dtype, found.shape) == ("csr", np.float32, (ROWS, LATENTS))
    assert found.nnz == np.count_nonzero(codes())
    assert found.has_canonical_format
    assert (found.toarray() == codes()).all()
    assert (part.toarray() == codes()[270:555]).all()


def test_codes_of_an_archive_without_a_model(tmp_path: Path) -> None:
    archive.write(pa.table({"a": [1, 2, 3]}), tmp_path / "t.svae")
    with vae.open(tmp_path / "t.svae") as opened:
        assert opened.codes().shape == opened.dense_codes().shape == (3, 0)


@pytest.mark.parametrize(("package", "call"), [("scipy", "codes"), ("polars", "to_polars")])
def test_a_missing_package_is_named_with_its_extra(
    path: Path, monkeypatch: pytest.MonkeyPatch, package: str, call: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = (
        f"{package} is not installed; this call needs: pip install '.[analysis]' in the project's folder"
    )
    with vae.open(path) as opened:
        with pytest.raises(ExtraError, match=f"^{re.escape(message)}$"):
            getattr(opened, call)()
        assert opened.dense_codes().shape == (ROWS, LATENTS)
