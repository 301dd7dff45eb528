"""Datasets: typed, digested, split, complete or not there at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data.batches
import data.ingest
from data.errors import DataError, SchemaError, SourceError
from data.ingest import ingest, open_dataset
from data.schema import Column, Kind, Schema
from data.sources import TableSource, open_source
from data.split import TEST, TRAIN, VALIDATION, Split, split_for
from data.statistics import content_digest, table_stats

ROWS = "".join(f"{index % 7},{index / 4},{'abc'[index % 3]},\n" for index in range(1000))
CSV = f"n,x,w,void\n{ROWS}"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    return path


def test_a_dataset_knows_all_about_itself(tmp_path, csv):
    dataset = ingest(csv, tmp_path / "out")

    manifest = dataset.manifest
    assert (manifest.rows, len(manifest.parts), dataset.reused) == (1000, 1, False)
    assert manifest.digest == content_digest(dataset.table())
    assert (manifest.source.uri, manifest.source.source_bytes) == (str(csv), len(CSV))
    assert dataset.stats["n"].model_dump(exclude_none=True) == {
        "min": 0, "max": 6, "nulls": 0, "nans": 0, "infinities": 0, "distinct": 7,
        "mean": pytest.approx(2.997), "std": pytest.approx(1.9987, abs=1e-4),
    }  # fmt: skip
    assert dataset.stats["w"].categories == ("a", "b", "c")
    assert (dataset.stats["void"].nulls, dataset.stats["void"].distinct) == (1000, 0)
    again = open_dataset(tmp_path / "out")
    assert again.manifest == manifest
    assert again.table().equals(dataset.table(), check_metadata=True)


def test_parts_are_parquet_with_zstd_statistics_and_checksums(tmp_path, csv):
    dataset = ingest(csv, tmp_path / "out")
    path = tmp_path / "out" / dataset.manifest.parts[0].path

    column = pq.ParquetFile(path).metadata.row_group(0).column(0)

    assert column.compression == "ZSTD"
    assert column.statistics.has_min_max
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match="damaged or cut short"):
        dataset.table()


def test_large_tables_have_several_parts_and_any_rows_are_read_from_them(tmp_path, monkeypatch):
    monkeypatch.setattr(data.batches, "BATCH_ROWS", 100)
    monkeypatch.setattr(data.ingest, "PART_BATCHES", 3)
    table = pa.table({"a": np.arange(1050), "b": [str(index) for index in range(1050)]})
    calls: list[tuple[int, int | None]] = []

    dataset = ingest(
        TableSource(table), tmp_path / "out", progress=lambda done, total: calls.append((done, total))
    )

    assert [part.rows for part in dataset.manifest.parts] == [300, 300, 300, 150]
    assert calls[-1] == (1050, 1050)
    assert dataset.table().equals(table)
    assert dataset.table(["b"], (250, 750)).equals(table.select(["b"]).slice(250, 500))
    assert dataset.table(rows=slice(-60, None)).equals(table.slice(990))
    assert dataset.table(rows=(5, 5)).num_rows == 0
    numbers = np.random.default_rng(0).integers(0, 1050, 500)
    assert dataset.table(rows=[700, 3, 3]).equals(table.take([700, 3, 3]))
    assert dataset.table(rows=[]).num_rows == 0
    assert dataset.table(["b", "a"], numbers).equals(table.select(["b", "a"]).take(numbers))
    assert [batch.num_rows for batch in dataset.batches(400)] == [400, 400, 250]
    dataset.verify()


@pytest.mark.parametrize(
    ("columns", "rows", "error", "message"),
    [
        (["q"], None, SchemaError, "there is no column 'q'; the columns are n, x, w, void"),
        (None, np.array([1000]), IndexError, "row numbers must lie in 0 ... 999"),
        (None, slice(0, 10, 2), ValueError, "rows slice(0, 10, 2): a step is not read; give row numbers"),
    ],
)
def test_what_is_not_there_is_not_read(tmp_path, csv, columns, rows, error, message):
    dataset = ingest(csv, tmp_path / "out")

    with pytest.raises(error) as raised:
        dataset.table(columns, rows)

    assert str(raised.value) == message


# --------------------------------------------------------------------------- the same again, and anew


def test_the_same_source_again_does_nothing(tmp_path, csv):
    first = ingest(csv, tmp_path / "out")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    again = ingest(csv, tmp_path / "out")

    assert again.reused
    assert again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == written


def test_another_schema_makes_it_anew(tmp_path, csv):
    ingest(csv, tmp_path / "out")
    schema = Schema(columns=(Column(name="n", kind=Kind.categorical),))

    dataset = ingest(csv, tmp_path / "out", schema=schema)

    assert not dataset.reused
    assert dataset.schema.column("n").kind is Kind.categorical
    assert ingest(csv, tmp_path / "out", schema=schema).reused
    assert ingest(open_source(csv, schema), tmp_path / "out").reused
    assert not ingest(csv, tmp_path / "out").reused


def test_changed_bytes_replace_the_dataset_and_leave_nothing_of_the_old(tmp_path, csv):
    old = ingest(csv, tmp_path / "out")
    csv.write_text(CSV + "1,2,c,\n")

    new = ingest(csv, tmp_path / "out")

    assert (new.reused, new.rows) == (False, 1001)
    assert new.manifest.digest != old.manifest.digest
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["manifest.json", new.manifest.parts[0].path.split("/")[0]]


@pytest.mark.parametrize("harm", ["delete", "truncate", "manifest"])
def test_a_harmed_dataset_is_refused_and_made_anew(tmp_path, csv, harm):
    first = ingest(csv, tmp_path / "out")
    part = tmp_path / "out" / first.manifest.parts[0].path
    if harm == "delete":
        part.unlink()
        message = f"{part}: is missing or cut short; ingest {csv} again"
    elif harm == "truncate":
        part.write_bytes(part.read_bytes()[:-1])
        message = f"{part}: is missing or cut short; ingest {csv} again"
    else:
        (tmp_path / "out" / "manifest.json").write_text("{}")
        message = f"{tmp_path}/out/manifest.json: is damaged or of another version; ingest the source again"

    with pytest.raises(SourceError) as error:
        open_dataset(tmp_path / "out")

    assert str(error.value) == message
    again = ingest(csv, tmp_path / "out")
    assert not again.reused
    assert again.manifest.digest == first.manifest.digest
    assert open_dataset(tmp_path / "out").table().num_rows == 1000


def test_a_dataset_of_an_older_layout_is_made_anew(tmp_path, csv):
    ingest(csv, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))

    assert not ingest(csv, tmp_path / "out").reused


def test_changed_content_is_found_by_its_digest(tmp_path, csv):
    dataset = ingest(csv, tmp_path / "out")
    path = tmp_path / "out" / dataset.manifest.parts[0].path
    table = dataset.table()
    pq.write_table(table.set_column(0, table.field(0), pa.array([9] * 1000)), path)

    with pytest.raises(SourceError) as error:
        dataset.verify()

    assert (
        str(error.value)
        == f"{tmp_path}/out: its content is not what its manifest says; ingest the source again"
    )


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path):
    with pytest.raises(SourceError) as error:
        open_dataset(tmp_path)

    way = f"make one with `svae ingest SOURCE --out {tmp_path}`"
    assert str(error.value) == f"{tmp_path}: is not a dataset (no manifest.json); {way}"


# ---------------------------------------------------------------------------------- nothing left behind


@pytest.mark.parametrize("content", ["", "a,b\n", "a,b\n1\n", "a,a\n1,2\n"])
def test_a_bad_source_leaves_nothing_behind(tmp_path, content):
    (tmp_path / "bad.csv").write_text(content)

    with pytest.raises(DataError):
        ingest(tmp_path / "bad.csv", tmp_path / "new" / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_bad_source_leaves_the_former_dataset_whole(tmp_path, csv):
    former = ingest(csv, tmp_path / "out")
    csv.write_text(CSV + "1,2\n")

    with pytest.raises(SourceError):
        ingest(csv, tmp_path / "out")

    assert open_dataset(tmp_path / "out").table().equals(former.table())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "table.csv"]


def test_nulls_where_the_schema_allows_none(tmp_path):
    table = TableSource(
        pa.table({"a": [1, None]}),
        schema=Schema(columns=(Column(name="a", kind=Kind.integer, nullable=False),)),
    )

    for read in (table.table, lambda: ingest(table, tmp_path / "out")):
        with pytest.raises(SchemaError) as error:
            read()
        told = "memory:table: column 'a' holds nulls, its schema allows none (nullable: false)"
        assert str(error.value) == told


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, csv):
    def meddle(done: int, total: int | None) -> None:
        csv.write_text(CSV + "5,5,a,\n")

    with pytest.raises(SourceError) as error:
        ingest(csv, tmp_path / "out", progress=meddle)

    assert str(error.value) == f"{csv}: changed while it was read; try again when nothing writes to it"
    assert not (tmp_path / "out").exists()


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from data.errors import DataError
from data.ingest import ingest
try:
    ingest(sys.argv[1], sys.argv[2])
except DataError as error:
    print(error)
"""


def test_a_device_without_space_is_named_and_nothing_stays(tmp_path):
    source = tmp_path / "big.csv"
    numbers = np.random.default_rng(0).integers(0, 2**40, 20_000)
    source.write_text("a\n" + "\n".join(map(str, numbers.tolist())) + "\n")

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, source, tmp_path / "out"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip

    told = "the file would exceed the allowed size; raise the limit or choose another folder"
    assert done.stdout == f"{tmp_path}/out: cannot be written: {told}\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["big.csv"]


def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path, csv):
    dead = subprocess.run([sys.executable, "-c", "import os, socket; print(os.getpid(), socket.gethostname())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    pid, host = dead.stdout.split()
    left = tmp_path / f".out.{host}.{pid}.0011aabb.tmp"
    (left / "parts").mkdir(parents=True)
    busy = tmp_path / f".out.{host}.{os.getpid()}.0011aabb.tmp"
    busy.mkdir()

    ingest(csv, tmp_path / "out")

    assert not left.exists()
    assert busy.exists()


def test_two_at_once_leave_one_whole_dataset(tmp_path, csv):
    other = tmp_path / "other.csv"
    other.write_text("a\n1\n2\n")
    threads = [
        threading.Thread(target=ingest, args=(source, tmp_path / "out"))
        for source in (csv, other, csv, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    dataset = open_dataset(tmp_path / "out")

    dataset.verify()
    assert len(list((tmp_path / "out").iterdir())) == 2


# -------------------------------------------------------------------------------- digest and statistics


@given(cuts=st.lists(st.integers(0, 60), max_size=5))
def test_the_digest_does_not_depend_on_cuts(cuts):
    table = pa.table(
        {
            "n": pa.array([None, 1, 2] * 20),
            "w": pa.array(["ä", None, ""] * 20),
            "l": pa.array([[1], None, []] * 20),
            "b": pa.array([True, None, False] * 20),
            "x": pa.array([0.0, None, float("nan")] * 20),
        }
    )
    bounds = [0, *sorted(cuts), 60]

    pieces = [table.slice(start, stop - start) for start, stop in pairwise(bounds)]

    assert content_digest(pa.concat_tables(pieces)) == content_digest(table)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": [1]}, {"a": [2]}),
        ({"a": [1]}, {"b": [1]}),
        ({"a": [None, 0]}, {"a": [0, None]}),
        ({"a": ["ab", "c"]}, {"a": ["a", "bc"]}),
        ({"a": [""]}, {"a": [None]}),
        ({"a": [0.0]}, {"a": [-0.0]}),
        ({"a": [[1], []]}, {"a": [[], [1]]}),
        ({"a": [1], "b": [2]}, {"b": [2], "a": [1]}),
        ({"a": [1.0]}, {"a": [1]}),
    ],
)
def test_the_digest_tells_tables_apart(one, other):
    assert content_digest(pa.table(one)) != content_digest(pa.table(other))


def test_the_digest_of_a_source_does_not_depend_on_its_files(tmp_path, csv):
    folder = tmp_path / "many"
    folder.mkdir()
    lines = ROWS.splitlines(keepends=True)
    for index in range(4):
        (folder / f"{index}.csv").write_text("n,x,w,void\n" + "".join(lines[index * 250 : (index + 1) * 250]))

    assert ingest(folder, tmp_path / "a").manifest.digest == ingest(csv, tmp_path / "b").manifest.digest


@given(
    values=st.lists(
        st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan")), st.just(float("inf"))), min_size=1
    )
)
def test_statistics_are_numpys(values):
    array = np.array([value for value in values if value is not None], float)
    finite = array[np.isfinite(array)]
    halves = [pa.array(values[:2], pa.float64()), pa.array(values[2:], pa.float64())]

    stats = table_stats(pa.table({"x": pa.chunked_array(halves)}))["x"]

    assert stats.nulls == len(values) - len(array)
    assert stats.nans == np.isnan(array).sum()
    assert stats.infinities == np.isinf(array).sum()
    assert stats.min == (None if not len(finite) else finite.min())
    assert stats.mean == (None if not len(finite) else pytest.approx(finite.mean(), abs=1e-6))
    assert stats.std == (None if not len(finite) else pytest.approx(finite.std(), abs=1e-4))


def test_statistics_of_extremes():
    table = pa.table(
        {
            "u": pa.array([2**64 - 1, 0], pa.uint64()),
            "i": [-(2**63), 2**63 - 1],
            "x": [1.7e308, -1.7e308],
            "t": pa.array([5, None], pa.timestamp("ms")),
            "many": pa.array([1, 2]),
        }
    )

    stats = table_stats(table)

    assert (stats["u"].min, stats["u"].max) == (0, 2**64 - 1)
    assert (stats["i"].min, stats["i"].max) == (-(2**63), 2**63 - 1)
    assert stats["x"].std is None  # Beyond the largest float.
    assert (stats["t"].min, stats["t"].max, stats["t"].nulls) == (5, 5, 1)


def test_distinct_values_are_counted_up_to_a_cap():
    assert table_stats(pa.table({"a": np.arange(10_000)}))["a"].distinct == 10_000
    assert table_stats(pa.table({"a": np.arange(10_001)}))["a"].distinct is None


# ----------------------------------------------------------------------------------------------- split


@given(rows=st.integers(1, 400_000), more=st.integers(0, 100_000), seed=st.integers(0, 3))
def test_appending_moves_no_complete_run(rows, more, seed):
    split = split_for(rows, seed)

    old, new = (split.of(np.arange(count)) for count in (rows, rows + more))

    assert np.array_equal(old, new[:rows])


@given(rows=st.integers(3, 300_000), seed=st.integers(0, 9))
def test_every_split_has_rows_where_there_are_three(rows, seed):
    counts = np.bincount(split_for(rows, seed).of(np.arange(rows)), minlength=3)

    assert counts.min() > 0
    if rows > 1000:
        assert 0.7 < counts[TRAIN] / rows < 0.9
        assert 0.05 < counts[VALIDATION] / rows < 0.2
        assert 0.05 < counts[TEST] / rows < 0.2


def test_neighbours_stay_together():
    split = split_for(1_000_000)
    of = split.of(np.arange(1_000_000))

    assert split.run_rows == 4096
    assert all(len(set(of[start : start + 4096])) == 1 for start in range(0, 1_000_000, 4096))
    assert (np.diff(of[::4096]) != 0).sum() > 40


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, [TRAIN]), (2, [TRAIN, VALIDATION]), (3, [TRAIN, VALIDATION, TEST])]
)
def test_the_smallest_tables(rows, expected):
    assert sorted(split_for(rows).of(np.arange(rows)).tolist()) == expected


def test_the_split_of_a_seed_never_changes():
    assert Split(run_rows=1, seed=0).of(np.arange(40)).tolist() == [
        0, 1, 2, 0, 0, 0, 0, 0, 0, 0,
        0, 1, 0, 2, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 1, 0, 0, 0, 2, 0, 0,
        0, 0, 0, 0, 2, 0, 0, 1, 0, 0,
    ]  # fmt: skip


def test_a_source_that_grows_keeps_its_runs(tmp_path, csv):
    small = ingest(csv, tmp_path / "out")
    before = small.split_of(np.arange(1000))
    csv.write_text(CSV + ROWS * 9)

    grown = ingest(csv, tmp_path / "out")

    whole = 1000 // small.manifest.split.run_rows * small.manifest.split.run_rows
    assert np.array_equal(grown.split_of(np.arange(whole)), before[:whole])
    assert ingest(csv, tmp_path / "fresh").manifest.split.run_rows > small.manifest.split.run_rows
