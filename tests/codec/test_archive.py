"""Archives: what is read is what was written, whole and by parts, with and without a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import ArchiveError, BoundError, DataError, ModelError, SchemaError
from data.grid import TableGrid
from data.gridfit import fit_table
from vae.codec import archive, structure, writer
from vae.codec.compare import largest_error, same
from vae.codec.integer import IntegerModel
from vae.codec.plan import Plan
from vae.planning import make_plan

RNG = np.random.default_rng(11)


def sample_table(rows: int = 3_000) -> pa.Table:
    """Numbers, categories, text, times and nulls, some of which follow from others."""
    rng = np.random.default_rng(3)
    a = rng.integers(0, 1440, rows)
    late = rng.integers(-20, 200, rows)
    city = rng.integers(0, 40, rows)
    lost = rng.random(rows) < 0.02
    return pa.table({
        "a": a // 60 * 100 + a % 60,
        "late": pa.array(late, mask=lost),
        "b": pa.array((a + late) % 1440 // 60 * 100 + (a + late) % 1440 % 60, mask=lost),
        "city": pa.array([f"city {i}" for i in city]),
        "land": pa.array(np.array(["de", "fr", "", "it"])[city % 4]),
        "x": pa.array(np.round(rng.normal(size=rows), 2), mask=rng.random(rows) < 0.1),
        "noise": rng.normal(size=rows),
        "id": pa.array([f"{i:x}-{v}" for i, v in enumerate(rng.integers(0, 10**6, rows))]),
        "at": pa.array(np.arange(rows) * 60, pa.timestamp("s", "UTC")),
        "flag": pa.array(rng.random(rows) < 0.3),
    })  # fmt: skip


def small_model(table: pa.Table, latents: int = 2, bounds: dict[str, float] | None = None) -> dict[str, Any]:
    """Arguments of `write` for an untrained model of all columns that can be coded."""
    grid = fit_table(table, bounds)
    coded = {g.name: g.encode(table[g.name]) for g in grid.columns if g.kind != "opaque"}
    derived = structure.find(grid, coded)
    names = [name for name in coded if name not in {d.name for d in derived}]
    plan = make_plan(grid, {name: coded[name] for name in names}, latents=latents, width=4)
    rng = np.random.default_rng(0)
    codes = (
        rng.integers(-2, 3, (table.num_rows, latents)) * (rng.random((table.num_rows, latents)) < 0.3)
    ).astype(np.int8)
    return {"grid": grid, "derived": derived, "model": untrained(plan), "codes": codes, "bounds": bounds}


def untrained(plan: Plan) -> IntegerModel:
    rng = np.random.default_rng(1)
    shapes = plan.shapes()
    return IntegerModel(plan, {
        name: np.zeros(shape, np.int16) if "head" in name else rng.integers(-20, 21, shape).astype(np.int16)
        for name, shape in shapes.items()
    })  # fmt: skip


def test_fractions_beside_a_model_of_version_5(tmp_path: Path, always_neural: None) -> None:
    rng = np.random.default_rng(5)
    walk, share = np.cumsum(rng.integers(-2, 3, 3_000)), np.round(rng.integers(0, 311, 3_000) / 311, 4)
    table = pa.table({"walk": walk, "share": share})
    made = small_model(table)
    assert made["model"].version == 5
    assert made["grid"]["share"].parts == 311
    archive.write(table, tmp_path / "t.svae", **made)
    assert (tmp_path / "t.svae").read_bytes()[8] == 5
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read().equals(table)
        assert opened._parts.model is not None


@pytest.fixture
def always_neural(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model is kept although its rivals are smaller."""
    monkeypatch.setattr(writer, "CLOSE_CALL", 1e9)


def assert_same(left: pa.Table, right: pa.Table) -> None:
    assert left.schema.equals(right.schema, check_metadata=True)
    assert left.num_rows == right.num_rows
    for name, a, b in zip(left.column_names, left.columns, right.columns, strict=True):
        assert same(pa.chunked_array(a).combine_chunks(), pa.chunked_array(b).combine_chunks()), name


# ---------------------------------------------------------------------------------------------------- whole tables


def test_a_table_comes_back(tmp_path: Path) -> None:
    table = sample_table()
    report = archive.write(table, tmp_path / "t.svae", block_rows=512)
    with archive.open(tmp_path / "t.svae") as opened:
        assert_same(opened.read(), table)
        assert opened.rows == 3_000
        assert opened.schema == table.schema
        assert opened.report() == report
        assert opened.dense_codes().shape == (3_000, 0)
    assert report.archive_bytes == (tmp_path / "t.svae").stat().st_size
    coders = {c.name: c.coder for c in report.per_column}
    assert coders["land"] == "derived"
    assert "derived" in (coders["late"], coders["b"])
    assert coders["id"] == "rival"


@pytest.mark.jit
def test_a_table_comes_back_through_a_model(tmp_path: Path, always_neural: None) -> None:
    table = sample_table(300)
    made = small_model(table)
    report = archive.write(table, tmp_path / "t.svae", **made, block_rows=100)
    with archive.open(tmp_path / "t.svae") as opened:
        assert_same(opened.read(), table)
        assert (opened.dense_codes() == made["codes"]).all()
        assert (opened.dense_codes((150, 160)) == made["codes"][150:160]).all()
        assert opened.verify(table) == dict.fromkeys(table.column_names, 0.0)
    assert report.codes_summary.latents == 2
    assert report.codes_summary.family == "quantized"
    assert report.bytes.model == len(made["model"].to_bytes())
    assert {c.coder for c in report.per_column} == {"neural", "derived", "rival"}
    assert all((c.rival_bytes is not None) == (c.coder == "neural") for c in report.per_column)


def test_a_model_that_does_not_pay_is_left_out(tmp_path: Path) -> None:
    table = sample_table(400)
    made = small_model(table)
    alone = archive.write(table, tmp_path / "alone.svae", grid=made["grid"], derived=made["derived"])
    report = archive.write(table, tmp_path / "t.svae", **made)
    # not whole files: the container holds timings, whose text varies in length
    assert report.bytes.columns <= alone.bytes.columns
    assert (report.bytes.model, report.bytes.codes) == (0, 0)
    assert report.codes_summary.family == "none"
    with archive.open(tmp_path / "t.svae") as opened:
        assert_same(opened.read(), table)
        assert opened.model is None


def test_sizes_in_the_report_add_up(tmp_path: Path, always_neural: None) -> None:
    table = sample_table(300)
    report = archive.write(table, tmp_path / "t.svae", **small_model(table), facts={"source_bytes": 12_345})
    shares = report.bytes
    assert shares.model + shares.codes + shares.columns + shares.container == report.archive_bytes
    assert sum(c.bytes for c in report.per_column) == shares.columns
    assert report.ratio == 12_345 / report.archive_bytes
    assert report.stored_bytes == 12_345
    content = json.loads(report.model_dump_json())
    wanted = "rows columns source_bytes stored_bytes archive_bytes ratio bytes rivals per_column codes_summary seconds"
    assert set(wanted.split()) <= set(content)
    assert [c["kind"] for c in content["per_column"]][:3] == ["integer"] * 3


@pytest.mark.parametrize("with_model", [False, True])
def test_parts_are_slices_of_the_whole(tmp_path: Path, with_model: bool, always_neural: None) -> None:
    table = sample_table(700)
    made = small_model(table) if with_model else {}
    path = tmp_path / "t.svae"
    archive.write(table, path, **made, block_rows=64)
    rng = np.random.default_rng(2)
    with archive.open(path) as opened:
        for start, stop in [
            (0, 0),
            (0, 1),
            (63, 65),
            (64, 128),
            (699, 700),
            (300, 290),
            (500, 9_999),
            (-5, None),
        ]:
            whole = table.slice(*_span(start, stop, 700))
            assert_same(opened.read(rows=(start, stop)), whole)
        for _ in range(6):
            start, stop = sorted(rng.integers(0, 701, 2).tolist())
            names = rng.permutation(table.column_names)[: rng.integers(1, 5)].tolist()
            assert_same(
                opened.read(names, slice(start, stop)), table.select(names).slice(start, stop - start)
            )
        assert opened.read([], (0, 5)).num_columns == 0
        assert_same(opened.read(["x"], range(10, 20)), table.select(["x"]).slice(10, 10))


def _span(start: int, stop: int | None, rows: int) -> tuple[int, int]:
    first, last, _ = slice(start, stop).indices(rows)
    return first, max(0, last - first)


def test_groups_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_GROUP_ROWS", 256)
    table = sample_table(1_000)
    archive.write(table, tmp_path / "t.svae", block_rows=128)
    with archive.open(tmp_path / "t.svae") as opened:
        assert [batch.num_rows for batch in opened.batches()] == [256, 256, 256, 232]
        assert [batch.num_rows for batch in opened.batches(["x"], (250, 515))] == [6, 256, 3]
        assert_same(opened.read(rows=(100, 900)), table.slice(100, 800))
        assert_same(opened.read(), table)


def test_streams_that_a_column_does_not_depend_on_are_not_touched(
    tmp_path: Path, always_neural: None
) -> None:
    table = sample_table(300)
    made = small_model(table)
    path = tmp_path / "t.svae"
    archive.write(table, path, **made, block_rows=100)
    first, last = made["model"].columns[0], made["model"].columns[-1]
    with archive.open(path) as opened:
        container = opened._parts.container
        entry = container.stream(opened.header.stream_of_block(0, 1) + len(made["model"].columns))
    broken = bytearray(path.read_bytes())
    broken[entry.position] ^= 1
    path.write_bytes(broken)
    with archive.open(path) as opened:
        assert_same(opened.read([first]), table.select([first]))
        assert_same(opened.read([last], (0, 100)), table.select([last]).slice(0, 100))
        with pytest.raises(ArchiveError, match=rf"column '{last}', block 1 \(rows 100 to 199\) is damaged"):
            opened.read([last])


def test_unknown_columns_and_steps_are_refused(tmp_path: Path) -> None:
    archive.write(pa.table({"a": [1, 2], "b": [3, 4]}), tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        with pytest.raises(SchemaError, match="there is no column 'c'; the columns are a, b"):
            opened.read(["c"])
        with pytest.raises(ValueError, match="in steps of 2"):
            opened.read(rows=slice(0, 2, 2))


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("with_model", [False, True])
def test_few_rows(tmp_path: Path, rows: int, with_model: bool, always_neural: None) -> None:
    whole = sample_table(300)
    table = whole.slice(0, rows)
    made: dict[str, Any] = small_model(whole) if with_model else {}
    if with_model:
        made["codes"] = np.zeros((rows, 2), np.int8)
    archive.write(table, tmp_path / "t.svae", **made)
    with archive.open(tmp_path / "t.svae") as opened:
        assert_same(opened.read(), table)
        assert opened.dense_codes().shape == (rows, 2 if with_model else 0)


def test_tables_without_columns(tmp_path: Path) -> None:
    archive.write(pa.table({}), tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.read().num_columns == 0


def test_metadata_nullability_and_dictionaries_are_kept(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("a", pa.int64(), nullable=False, metadata={b"unit": b"m\xff"}),
            pa.field("size", pa.dictionary(pa.int8(), pa.string(), ordered=True)),
        ],
        metadata={b"pandas": b"{}", b"k": b"v"},
    )
    sizes = pa.DictionaryArray.from_arrays(
        pa.array([2, 0, None] * 50, pa.int8()), pa.array(["s", "m", "l"]), ordered=True
    )
    table = pa.table([pa.array(range(150)), sizes], schema=schema)
    archive.write(table, tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        restored = opened.read()
    assert restored.schema.equals(schema, check_metadata=True)
    assert restored["size"].chunk(0).dictionary.to_pylist() == ["s", "m", "l"]
    assert restored.equals(table)


def test_dictionary_columns_through_a_model(tmp_path: Path, always_neural: None) -> None:
    names = pa.array(["n", "s", "e", None, "w"] * 60).dictionary_encode()
    table = pa.table(
        {"side": pa.chunked_array([names, names.slice(3)]), "n": pa.array(range(597)).cast(pa.int32())}
    )
    made = small_model(table)
    assert "side" in made["model"].columns
    archive.write(table, tmp_path / "t.svae", **made)
    with archive.open(tmp_path / "t.svae") as opened:
        assert_same(opened.read(), table.unify_dictionaries())


# ---------------------------------------------------------------------------------------- any type, any table

SCALARS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int64(), st.one_of(st.integers(0, 30), st.integers(-(2**63), 2**63 - 1))),
    (pa.float16(), st.floats(width=16)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.one_of(st.floats(), st.integers(-50, 50).map(lambda k: k / 10))),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.one_of(st.sampled_from(["", "x", "yes"]), st.text(max_size=12))),
    (pa.large_string(), st.text(max_size=6)),
    (pa.binary(), st.binary(max_size=9)),
    (pa.binary(2), st.binary(min_size=2, max_size=2)),
    (pa.decimal128(20, 3), st.decimals(-(10**16), 10**16, places=3)),
    (pa.timestamp("us", "America/New_York"), st.integers(-(2**50), 2**50)),
    (pa.date32(), st.integers(-10_000, 50_000)),
    (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
    (pa.duration("ms"), st.integers(-(2**60), 2**60)),
]


Kinds = st.SearchStrategy[tuple[pa.DataType, st.SearchStrategy[Any]]]


def nested(inner: Kinds) -> Kinds:
    def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(st.none(), values)

    def struct(parts: list[tuple[pa.DataType, st.SearchStrategy[Any]]]) -> Any:
        fields = {str(i): optional(values) for i, (_, values) in enumerate(parts)}
        return pa.struct([(str(i), kind) for i, (kind, _) in enumerate(parts)]), st.fixed_dictionaries(fields)

    return st.one_of(
        inner.map(lambda kv: (pa.list_(kv[0]), st.lists(optional(kv[1]), max_size=4))),
        inner.map(lambda kv: (pa.list_(kv[0], 2), st.lists(optional(kv[1]), min_size=2, max_size=2))),
        st.lists(inner, min_size=1, max_size=3).map(struct),
    )


FLAT: Kinds = st.sampled_from(SCALARS)
KINDS: Kinds = st.one_of(FLAT, FLAT, nested(FLAT), nested(st.one_of(FLAT, nested(FLAT))))


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 40))
    repeats = draw(st.sampled_from([1, 1, 5]))
    columns: dict[str, pa.ChunkedArray] = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True)):
        kind, values = draw(KINDS)
        cells = draw(st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows))
        array = pa.array(cells, kind)
        columns[name] = pa.chunked_array([array] * repeats, kind)
    return pa.table(columns)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(table=tables(), data=st.data())
def test_any_table_comes_back_whole_and_by_parts(
    tmp_path: Path, table: pa.Table, data: st.DataObject
) -> None:
    path = tmp_path / "t.svae"
    archive.write(table, path, block_rows=data.draw(st.sampled_from([1, 7, 1000])), threads=1)
    start = data.draw(st.integers(0, table.num_rows))
    stop = data.draw(st.integers(start, table.num_rows))
    with archive.open(path, threads=1) as opened:
        assert_same(opened.read(), table)
        assert_same(opened.read(rows=(start, stop)), table.slice(start, stop - start))


# ------------------------------------------------------------------------------------------------------ bounds

NUMBERS: list[tuple[pa.DataType, st.SearchStrategy[Any], float]] = [
    (pa.float64(), st.floats(), 0.25),
    (pa.float64(), st.integers(-40, 40).map(lambda k: k * 0.5), 0.25),
    (pa.float64(), st.floats(-1e-3, 1e-3), 1e-5),
    (pa.float32(), st.floats(width=32), 0.1),
    (pa.float32(), st.floats(-100, 100, width=32), 0.1),
    (pa.float16(), st.floats(-100, 100, width=16), 0.5),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1), 3.7),
    (pa.int8(), st.integers(-128, 127), 2.0),
    (pa.uint8(), st.integers(0, 255), 10.0),
    (pa.uint64(), st.integers(0, 2**64 - 1), 1e6),
    (pa.timestamp("s"), st.integers(0, 2**33), 30.0),
]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.sampled_from(NUMBERS), data=st.data())
def test_every_value_is_within_its_bound(tmp_path: Path, which: Any, data: st.DataObject) -> None:
    kind, values, bound = which
    cells = data.draw(st.lists(st.one_of(st.none(), values), min_size=1, max_size=80))
    table = pa.table({"x": pa.array(cells, kind), "y": pa.array(range(len(cells)))})
    path = tmp_path / "t.svae"
    report = archive.write(table, path, bounds={"x": bound}, threads=1)
    with archive.open(path, threads=1) as opened:
        restored = opened.read()
    error = largest_error(table["x"].combine_chunks(), restored["x"].combine_chunks(), bound)
    assert error is not None
    assert error <= bound
    assert report.per_column[0].max_error == error
    assert report.per_column[0].bound in (0.0, bound, float(int(bound)))
    assert restored["y"].equals(table["y"])


def test_a_bound_makes_a_smaller_archive_with_and_without_model(tmp_path: Path, always_neural: None) -> None:
    table = pa.table({"x": np.cumsum(RNG.normal(size=2_000)), "k": RNG.integers(0, 10**5, 2_000)})
    exact = archive.write(table, tmp_path / "exact.svae")
    bounds = {"x": 0.5, "k": 500.0}
    for name, made in {"rival": {"bounds": bounds}, "neural": small_model(table, 0, bounds)}.items():
        report = archive.write(table, tmp_path / f"{name}.svae", **made)
        assert report.archive_bytes < 0.7 * exact.archive_bytes
        assert [c.bound for c in report.per_column] == [0.5, 500.0]
        assert all(0 < c.max_error <= c.bound for c in report.per_column)


def test_bounds_that_cannot_be_are_refused(tmp_path: Path) -> None:
    table = sample_table(300)
    with pytest.raises(BoundError, match="there is no column 'zzz' to bound"):
        archive.write(table, tmp_path / "t.svae", bounds={"zzz": 1.0})
    made: dict[str, Any] = {**small_model(table), "bounds": {"x": 0.5}}
    with pytest.raises(BoundError, match="column 'x': bound 0.5, but the grid of the model is of 0"):
        archive.write(table, tmp_path / "t.svae", **made)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- the rivals


@pytest.mark.parametrize("rows", [1, 10, 300, 5_000])
def test_never_much_larger_than_the_best_rival(tmp_path: Path, rows: int) -> None:
    table = sample_table(rows)
    report = archive.write(table, tmp_path / "t.svae", rivals=True)
    assert report.rivals is not None
    assert report.rivals.csv is not None
    # what a file must say of itself costs Parquet a few hundred bytes; pcodec's sum has no names at all
    parquet = min(report.rivals.parquet_zstd19 or 0, report.rivals.parquet_brotli11 or 0)
    assert report.archive_bytes <= 1.01 * parquet
    assert report.archive_bytes <= 1.01 * (report.rivals.pcodec or 0) + 1_500
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.report().rivals == report.rivals


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(table=tables())
def test_small_tables_are_never_larger_than_parquet(tmp_path: Path, table: pa.Table) -> None:
    report = archive.write(table, tmp_path / "t.svae", rivals=True, threads=1)
    assert report.rivals is not None
    sizes = [report.rivals.parquet_zstd19, report.rivals.parquet_brotli11]
    assert report.archive_bytes <= 1.01 * min(size for size in sizes if size is not None)


# ------------------------------------------------------------------------------------------------ what may not be


def test_a_model_may_be_elsewhere(tmp_path: Path, always_neural: None) -> None:
    table = sample_table(300)
    made = small_model(table)
    model = made["model"]
    report = archive.write(table, tmp_path / "t.svae", **made, embed_model=False)
    digest = hashlib.sha256(model.to_bytes()).hexdigest()
    assert report.bytes.model == 0
    assert report.model_sha256 == digest
    with archive.open(tmp_path / "t.svae", model) as opened:
        assert_same(opened.read(), table)
    with pytest.raises(ModelError, match=digest):
        archive.open(tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae", inspect=True) as opened:
        assert opened.report() == report
        with pytest.raises(ModelError, match=digest):
            opened.read()
    other = small_model(table, latents=3)["model"]
    with (
        archive.open(tmp_path / "t.svae", other) as opened,
        pytest.raises(ModelError, match="got another one"),
    ):
        opened.read()


def test_a_model_meets_what_it_never_saw(tmp_path: Path, always_neural: None) -> None:
    table = sample_table(300)
    made = small_model(table)
    new = table.slice(0, 200).to_pydict()
    new["city"][7:9] = ["never seen", None]
    new["late"][3:6] = [10**9, -(10**12), None]
    new["x"][1:5] = [float("nan"), float("inf"), -0.0, 1 / 3]
    new["a"][0] = 2460
    changed = pa.table(new, schema=table.schema)
    archive.write(changed, tmp_path / "t.svae", **(made | {"codes": made["codes"][:200]}), block_rows=50)
    with archive.open(tmp_path / "t.svae") as opened:
        assert_same(opened.read(), changed)
        assert_same(opened.read(["x", "late"], (2, 60)), changed.select(["x", "late"]).slice(2, 58))
    reordered = changed.select(table.column_names[::-1]).append_column("more", pa.array(range(200)))
    archive.write(reordered, tmp_path / "r.svae", **(made | {"codes": made["codes"][:200]}))
    with archive.open(tmp_path / "r.svae") as opened:
        assert_same(opened.read(), reordered)
    with pytest.raises(SchemaError, match="the model codes column 'late', which the table lacks"):
        archive.write(
            changed.drop_columns(["late"]), tmp_path / "d.svae", **(made | {"codes": made["codes"][:200]})
        )


def test_duplicate_names_and_missing_codes_are_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(SchemaError, match="column name 'a' occurs twice"):
        archive.write(twice, tmp_path / "t.svae")
    table = sample_table(300)
    made = small_model(table)
    with pytest.raises(ValueError, match=r"codes: none; the model asks for \(300, 2\)"):
        archive.write(table, tmp_path / "t.svae", **dict[str, Any](made, codes=None))
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_read_back_never_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"a": [1, 2, 3]})
    path = tmp_path / "t.svae"
    path.write_bytes(b"the old file")
    monkeypatch.setattr(writer, "pack", lambda array, quick=False: b"\0\0" + bytes(8))
    with pytest.raises(
        ArchiveError,
        match="not written: it would not have read back: column 'a' of row 0 is not the original: 0, not 1",
    ):
        archive.write(table, path, grid=TableGrid(columns=()))
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.svae"
    archive.write(pa.table({"a": [1]}), path)
    before = path.read_bytes()

    def interrupt(event: dict[str, Any]) -> None:
        if event["phase"] == "verify":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.write(sample_table(100), path, progress=interrupt)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        archive.write(pa.table({"a": [1]}), tmp_path / "f" / "t.svae")


def test_verify_against_another_table(tmp_path: Path) -> None:
    table = sample_table(200)
    archive.write(table, tmp_path / "t.svae", bounds={"x": 0.1})
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.verify(table)["x"] <= 0.1
        assert opened.verify() == opened.verify(table)
        bad = table.set_column(5, "x", pa.array(np.arange(200.0)))
        with pytest.raises(
            ArchiveError, match=r"column 'x' of row \d+ is not within 0.1 of the original: \S+, not \S+$"
        ):
            opened.verify(bad)
        cities = table["city"].to_pylist()
        cities[137] = "elsewhere"
        cities[150] = None
        bad = table.set_column(3, "city", pa.array(cities))
        was = repr(table["city"][137].as_py())
        with pytest.raises(
            ArchiveError, match=f"column 'city' of row 137 is not the original: {was}, not 'elsewhere'$"
        ):
            opened.verify(bad)
        with pytest.raises(ArchiveError, match="holds 200 rows, the other table 199"):
            opened.verify(table.slice(1))
        with pytest.raises(ArchiveError, match="holds columns"):
            opened.verify(table.drop_columns(["x"]))
        with pytest.raises(ArchiveError, match="column 'noise' is double, in the other table float"):
            opened.verify(table.set_column(6, "noise", table["noise"].cast(pa.float32())))


def test_threads_do_not_change_a_byte_nor_a_value(tmp_path: Path, always_neural: None) -> None:
    table = sample_table(400)
    made = small_model(table)
    one = archive.write(table, tmp_path / "1.svae", **made, block_rows=50, threads=1)
    archive.write(table, tmp_path / "2.svae", **made, block_rows=50, threads=2)
    end = one.archive_bytes - 400  # the report at the end holds times
    assert (tmp_path / "1.svae").read_bytes()[:end] == (tmp_path / "2.svae").read_bytes()[:end]
    for threads in (1, 2):
        with archive.open(tmp_path / "1.svae", threads=threads) as opened:
            assert_same(opened.read(), table)


def one_hot_table(rows: int = 6_000) -> pa.Table:
    """Two groups, one with a few rows that break it, beside a column that tells of both."""
    random = np.random.default_rng(3)
    soil, area = random.integers(0, 12, rows), random.integers(0, 4, rows)
    columns = {"depth": pa.array(soil * 10 + area)}
    columns |= {f"soil_{k}": pa.array((soil == k).astype(np.int8)) for k in range(12)}
    columns |= {f"area_{k}": pa.array(area == k) for k in range(4)}
    broken = columns["soil_3"].to_numpy().copy()
    broken[[7, 4_000]] = 1
    return pa.table({**columns, "soil_3": pa.array(broken, mask=np.arange(rows) == 99)})


def test_one_hot_groups_come_back_with_what_breaks_them(tmp_path):
    given = one_hot_table()
    report = archive.write(given, tmp_path / "t.svae")
    kinds = {c.name: c.kind for c in report.per_column}
    assert report.columns == 17
    assert kinds["soil_*"] == kinds["area_*"] == "one_hot"
    coders = {c.name: c.coder for c in report.per_column}
    assert {coders[f"soil_{k}"] for k in range(12)} == {"derived"}
    with archive.open(tmp_path / "t.svae") as opened:
        assert opened.names == given.column_names
        assert opened.read().equals(given)
        assert opened.read(["soil_3", "area_1"], slice(5, 12)).equals(
            given.select(["soil_3", "area_1"]).slice(5, 7)
        )
        with pytest.raises(SchemaError, match=r"there is no column 'soil_\*'"):
            opened.read(["soil_*"])
        assert opened.verify(given) == opened.verify() == dict.fromkeys(given.column_names, 0.0)
