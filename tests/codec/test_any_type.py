"""Generated columns of every Arrow type come back from an archive, with their nulls, their order and their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vae.codec import archive
from vae.codec.compare import same

Values = st.SearchStrategy[Any]
ARCHIVES = settings(
    max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def whole(bits: int, *, signed: bool = True) -> Values:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high) | st.integers(0, min(high, 9)) | st.sampled_from([low, high])


def decimals(digits: int, places: int) -> Values:
    most = 10 ** (digits - places) - 1
    return st.decimals(-most, most, places=places) | st.decimals(-2, 2, places=places)


TEXT = st.sampled_from(["", "x", "yes"]) | st.text(max_size=20)
BYTES = st.sampled_from([b"", b"\0", b"\xff"]) | st.binary(max_size=20)
MEMBERS = [pa.field("n", pa.int32()), pa.field("s", pa.string())]
KINDS: dict[str, tuple[pa.DataType, Values]] = {
    **{f"int{b}": (getattr(pa, f"int{b}")(), whole(b)) for b in (8, 16, 32, 64)},
    **{f"uint{b}": (getattr(pa, f"uint{b}")(), whole(b, signed=False)) for b in (8, 16, 32, 64)},
    **{f"float{b}": (getattr(pa, f"float{b}")(), st.floats(width=b)) for b in (16, 32, 64)},
    "decimals in float64": (pa.float64(), st.integers(-500, 500).map(lambda k: k / 10)),
    "bool": (pa.bool_(), st.booleans()),
    "null": (pa.null(), st.none()),
    "decimal32": (pa.decimal32(7, 2), decimals(7, 2)),
    "decimal64": (pa.decimal64(16, 3), decimals(16, 3)),
    "decimal128": (pa.decimal128(27, 5), decimals(27, 5)),
    "decimal256": (pa.decimal256(50, 4), st.decimals(-(10**20), 10**20, places=4)),
    "string": (pa.string(), TEXT),
    "large_string": (pa.large_string(), TEXT),
    "string_view": (pa.string_view(), TEXT),
    "binary": (pa.binary(), BYTES),
    "large_binary": (pa.large_binary(), BYTES),
    "binary_view": (pa.binary_view(), BYTES),
    "fixed binary": (pa.binary(2), st.binary(min_size=2, max_size=2)),
    "date32": (pa.date32(), st.integers(-10_000, 50_000)),
    "date64": (pa.date64(), st.integers(-10_000, 50_000).map(lambda days: 86_400_000 * days)),
    "time32": (pa.time32("ms"), st.integers(0, 86_399_999)),
    "time64": (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
    **{f"timestamp {u}": (pa.timestamp(cast(Any, u)), whole(64)) for u in ("s", "ms", "us", "ns")},
    "timestamp zoned": (pa.timestamp("us", "America/New_York"), st.integers(-(2**50), 2**50)),
    "timestamp offset": (pa.timestamp("s", "+05:30"), st.integers(-(2**33), 2**33).map(lambda k: 60 * k)),
    "duration": (pa.duration("ms"), whole(64)),
    "interval": (pa.month_day_nano_interval(), st.tuples(whole(32), whole(32), whole(64))),
    "list": (pa.list_(pa.float32()), st.lists(st.none() | st.floats(width=32), max_size=4)),
    "large_list": (pa.large_list(pa.string()), st.lists(st.none() | TEXT, max_size=4)),
    "fixed list": (pa.list_(pa.int16(), 2), st.lists(st.none() | whole(16), min_size=2, max_size=2)),
    "list_view": (pa.list_view(pa.int8()), st.lists(st.none() | whole(8), max_size=4)),
    "large_list_view": (pa.large_list_view(pa.bool_()), st.lists(st.booleans(), max_size=4)),
    "struct": (
        pa.struct([("a", pa.int64()), pa.field("b", pa.list_(pa.string()), metadata={"k": "v"})]),
        st.fixed_dictionaries({"a": st.none() | whole(64), "b": st.none() | st.lists(st.none() | TEXT)}),
    ),
    "map": (
        pa.map_(pa.string(), pa.float64()),
        st.lists(st.tuples(TEXT, st.none() | st.floats()), max_size=3),
    ),
    "dictionary": (pa.dictionary(pa.int16(), pa.string()), TEXT),
    "dictionary of numbers": (pa.dictionary(pa.int32(), pa.int64()), whole(64)),
    "run ends": (pa.run_end_encoded(pa.int32(), pa.int64()), whole(64)),
    "dense union": (pa.dense_union(MEMBERS), whole(32) | TEXT),
    "sparse union": (pa.sparse_union(MEMBERS), whole(32) | TEXT),
    "uuid": (pa.uuid(), st.binary(min_size=16, max_size=16)),
    "bool8": (pa.bool8(), whole(8)),
    "json": (pa.json_(), st.sampled_from(["{}", "[1, null]", '"x"'])),
    "tensor": (
        pa.fixed_shape_tensor(pa.int32(), [2]),
        st.lists(st.none() | whole(32), min_size=2, max_size=2),
    ),
    "opaque": (pa.opaque(pa.int16(), "name", "vendor"), whole(16)),
}
"""One or more of each type of values; a type of Arrow's that is not among them fails the first test."""


def array_of(kind: pa.DataType, cells: list[Any]) -> Any:
    """An Arrow array of these cells, whatever its type."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array_of(kind.storage_type, cells))
    if isinstance(kind, pa.DictionaryType):
        encoded = pa.array(cells, kind.value_type).dictionary_encode()
        return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), encoded.dictionary)
    if isinstance(kind, pa.RunEndEncodedType):
        ends = pa.array(range(1, len(cells) + 1), kind.run_end_type)
        return pa.RunEndEncodedArray.from_arrays(ends, pa.array(cells, kind.value_type))
    if isinstance(kind, pa.UnionType):
        return union_of(kind, cells)
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return pa.array(cells, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    return pa.array(cells, kind)


def union_of(kind: pa.UnionType, cells: list[Any]) -> Any:
    texts = [isinstance(cell, str) for cell in cells]
    codes = pa.array(texts, pa.bool_()).cast(pa.int8())
    names = [field.name for field in kind]
    types: list[pa.DataType] = [field.type for field in kind]
    if kind.mode == "sparse":
        children = [
            pa.array([c if is_text is bool(k) else None for c, is_text in zip(cells, texts, strict=True)], t)
            for k, t in enumerate(types)
        ]
        return pa.UnionArray.from_sparse(codes, children, names)
    seen, offsets = [0, 0], list[int]()
    for is_text in texts:
        offsets.append(seen[is_text])
        seen[is_text] += 1
    children = [
        pa.array([c for c, is_text in zip(cells, texts, strict=True) if is_text is bool(k)], t)
        for k, t in enumerate(types)
    ]
    return pa.UnionArray.from_dense(codes, pa.array(offsets, pa.int32()), children, names)


def arrow_types() -> set[int]:
    """The numbers of all types that this Arrow can make arrays of."""
    lib = cast(Any, pa.lib)
    names = [name for name in dir(lib) if name.startswith("Type_")]
    # intervals of months, and of days and times, have no type in Python; extensions have several numbers in one
    absent = {"Type_INTERVAL_MONTHS", "Type_INTERVAL_DAY_TIME", "Type_MAX_ID"}
    return {getattr(lib, name) for name in names if name not in absent}


def test_every_type_of_arrow_is_generated() -> None:
    assert {kind.id for kind, _ in KINDS.values()} >= arrow_types()


def assert_same(left: pa.Table, right: pa.Table) -> None:
    assert left.schema.equals(right.schema, check_metadata=True)
    for name, a, b in zip(left.column_names, left.columns, right.columns, strict=True):
        assert same(pa.concat_arrays(a.chunks), pa.concat_arrays(b.chunks)), name


@pytest.mark.parametrize("name", KINDS)
@ARCHIVES
@given(data=st.data())
def test_a_column_of_any_type_comes_back(name: str, data: st.DataObject, tmp_path: Path) -> None:
    kind, values = KINDS[name]
    cells = data.draw(st.lists(st.none() | values, min_size=1, max_size=30))
    copies = data.draw(st.sampled_from([1, 1, 40]))  # long enough for a grid, for runs and for general coders
    field = pa.field("the column", kind, metadata={b"unit": b"m\xff"})
    schema = pa.schema([field, pa.field("row", pa.int64(), nullable=False)], {b"pandas": b'{"index": "row"}'})
    column = array_of(kind, cells * copies)
    table = pa.table([column, pa.array(range(len(column)))], schema=schema)
    path = tmp_path / "t.svae"
    archive.write(table, path, block_rows=data.draw(st.sampled_from([1, 7, 1_000])), threads=1)
    start = data.draw(st.integers(0, len(column) - 1))
    stop = data.draw(st.integers(start + 1, len(column)))
    with archive.open(path, threads=1) as opened:
        back = opened.read()
        back.validate(full=True)
        assert_same(back, table)
        assert_same(opened.read(rows=(start, stop)), table.slice(start, stop - start))


def test_pandas_finds_its_frame_again(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "size": pd.Categorical(["s", "l", None, "s"], categories=["s", "m", "l"], ordered=True),
            "when": pd.Series(["2020-02-29", None, "1969-12-31", "2024-03-10"], dtype="datetime64[us]"),
            "count": pd.array([1, None, 3, 4], dtype="Int16"),
        },
        index=pd.Index([7, 5, 5, 1], name="key"),
    )
    archive.write(pa.Table.from_pandas(frame), tmp_path / "t.svae")
    with archive.open(tmp_path / "t.svae") as opened:
        pd.testing.assert_frame_equal(opened.read().to_pandas(), frame)
