"""The rival coders: what is unpacked is what was packed, for every Arrow type; damage never passes for data."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from data.errors import DamagedError
from vae.codec.budget import Budget
from vae.codec.columns import pack, unpack
from vae.codec.compare import same
from vae.codec.framing import allowance, put_varint, squeeze, unsqueeze
from vae.codec.numbers import CONSTANT, RANKS, STORED, pack_numbers, unpack_numbers

D = decimal.Decimal


def dense_union() -> pa.Array:
    kinds, offsets = pa.array([0, 1, 0, 1], pa.int8()), pa.array([0, 0, 1, 1], pa.int32())
    return pa.UnionArray.from_dense(kinds, offsets, [pa.array([1, None]), pa.array(["a", "b"])])


def sparse_union() -> pa.Array:
    kinds = pa.array([0, 1, 0], pa.int8())
    return pa.UnionArray.from_sparse(kinds, [pa.array([1, 2, 3]), pa.array(["a", None, "c"])])


ARRAYS: dict[str, pa.Array] = {
    "int8": pa.array([1, None, -128], pa.int8()),
    "uint64": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "int64": pa.array([-(2**63), 2**63 - 1, 0, None]),
    "float16": pa.array([1.5, None, float("nan"), -0.0, float("inf")], pa.float16()),
    "float32": pa.array([1.1, None, float("nan"), -0.0, float("-inf")], pa.float32()),
    "float64": pa.array([1.1, None, float("nan"), -0.0, 5e-324, 1.7e308]),
    "bool": pa.array([True, None, False] * 30),
    "decimal32": pa.array([D("1.2"), None, D("-1")], pa.decimal32(5, 1)),
    "decimal64": pa.array([D("1.2"), None, D("-1")], pa.decimal64(15, 1)),
    "decimal128": pa.array([D("1.23"), None, D("-5.00")], pa.decimal128(10, 2)),
    "decimal128 wide": pa.array([D(10**37), D("-1"), None], pa.decimal128(38, 0)),
    "decimal256": pa.array([D("-1e50"), None, D("3")], pa.decimal256(76, 0)),
    "string": pa.array(["", "a", None, "b" * 100, "äöü€😀"] * 9),
    "large_string": pa.array(["", None, "x"], pa.large_string()),
    "string_view": pa.array(["x", None, "longer than twelve bytes", ""], pa.string_view()),
    "binary": pa.array([b"", b"\xff\x00", None]),
    "large_binary": pa.array([b"", b"\xff", None], pa.large_binary()),
    "binary_view": pa.array([b"x", None, b"longer than twelve bytes"], pa.binary_view()),
    "fixed binary": pa.array([b"abc", None, b"def"], pa.binary(3)),
    "empty fixed binary": pa.array([b"", None], pa.binary(0)),
    "timestamp zoned": pa.array([0, -1, None], pa.timestamp("ns", "Europe/Berlin")),
    "timestamp": pa.array([dt.datetime(2020, 2, 29), None], pa.timestamp("us")),  # noqa: DTZ001
    "date32": pa.array([dt.date(1969, 12, 31), None], pa.date32()),
    "date64": pa.array([0, None, 86_400_000], pa.date64()),
    "time32": pa.array([1, None], pa.time32("ms")),
    "time64": pa.array([1, None], pa.time64("ns")),
    "duration": pa.array([-1, None], pa.duration("us")),
    "interval": pa.array([(1, 2, 3), None, (-1, 0, 5)], pa.month_day_nano_interval()),
    "null": pa.nulls(5),
    "list": pa.array([[1], None, [], [2, None]]),
    "large_list": pa.array([["a"], None, [], ["b", None]], pa.large_list(pa.string())),
    "fixed list": pa.array([[1, 2], None, [3, None]], pa.list_(pa.int32(), 2)),
    "list_view": pa.array([[1], None, [], [2, None]], pa.list_view(pa.int8())),
    "large_list_view": pa.array([[1], None, [2, 3]], pa.large_list_view(pa.int8())),
    "list of null": pa.array([[None, None], [], None], pa.list_(pa.null())),
    "struct": pa.array([{"a": 1, "b": [{"c": "x"}]}, None, {"a": None, "b": None}]),
    "empty struct": pa.array([{}, None, {}], pa.struct([])),
    "map": pa.array([[("a", 1), ("b", None)], None, []], pa.map_(pa.string(), pa.int32())),
    "dictionary": pa.array(["a", "b", None, "a"]).dictionary_encode(),
    "ordered dictionary": pa.DictionaryArray.from_arrays(
        pa.array([2, None, 0], pa.int8()), pa.array(["low", "unused", "high"]), ordered=True
    ),
    "dense union": dense_union(),
    "sparse union": sparse_union(),
    "run ends": pa.RunEndEncodedArray.from_arrays(pa.array([2, 5, 9], pa.int32()), pa.array([1, None, 3])),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef", None], pa.binary(16))),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int32(), [2, 2]), pa.array([[1, 2, 3, 4], None], pa.list_(pa.int32(), 4))
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("part", ["whole", "tail", "none", "one", "twice", "long"])
@pytest.mark.parametrize("quick", [False, True])
def test_unpack_undoes_pack(name: str, part: str, quick: bool) -> None:
    array = ARRAYS[name]
    twice = pa.concat_arrays([array, array])
    parts = {
        "whole": array, "tail": array.slice(1), "none": array.slice(0, 0), "one": array.slice(1, 1),
        "twice": twice.slice(1), "long": pa.concat_arrays([array] * 40),
    }  # fmt: skip
    packed = pack(parts[part], quick=quick)
    restored = unpack(packed, array.type, len(parts[part]))
    assert restored.type == array.type
    assert same(parts[part], restored)
    assert repr(restored.to_pylist()) == repr(parts[part].to_pylist())


def test_a_dictionary_keeps_its_order_and_what_it_does_not_use() -> None:
    array = ARRAYS["ordered dictionary"]
    restored: Any = unpack(pack(array), array.type, len(array))
    assert restored.dictionary.to_pylist() == ["low", "unused", "high"]
    assert restored.type.ordered


@settings(max_examples=60, deadline=None)
@given(
    nps.arrays(
        st.sampled_from(["i1", "u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8"]),
        st.integers(0, 200),
        unique=False,
        elements=None,
    )
)
def test_numbers_come_back_bit_by_bit(values: np.ndarray[Any, Any]) -> None:
    packed = pack_numbers(values)
    restored = unpack_numbers(packed, len(values), values.dtype, Budget(len(packed)))
    assert restored.dtype == values.dtype
    assert restored.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "values",
    [
        np.arange(200_000),
        np.random.default_rng(0).integers(0, 7, 100_000) * 1_000_003 - 5,
        np.round(np.random.default_rng(1).normal(size=80_000), 2),
        np.random.default_rng(2).normal(size=70_000),
        np.repeat(np.random.default_rng(3).integers(-(2**62), 2**62, 500), 200),
        np.where(np.arange(70_000) % 100 < 3, np.nan, np.arange(70_000) % 17 * 0.125),
    ],
    ids=["rising", "sparse", "decimals", "noise", "runs", "few floats"],
)
def test_long_arrays_are_chosen_on_a_sample(values: np.ndarray[Any, Any]) -> None:
    packed = pack_numbers(values)
    restored = unpack_numbers(packed, len(values), values.dtype, Budget(len(packed)))
    assert restored.tobytes() == values.tobytes()
    assert len(packed) <= values.nbytes + 32


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=20), st.sampled_from(["red", "green", ""])), max_size=80)
)
def test_strings_and_nulls_stay_apart(values: list[str | None]) -> None:
    array = pa.array(values * 3, pa.string())
    assert unpack(pack(array), array.type, len(array)).to_pylist() == values * 3


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_unsqueeze_undoes_squeeze(data: bytes, times: int) -> None:
    assert unsqueeze(squeeze(data * times)) == data * times


@pytest.mark.parametrize("name", ARRAYS)
def test_damaged_bytes_are_refused_or_read_as_sound_values(name: str) -> None:
    """Without checksums some damage must pass, but as a valid array, and nothing else than DamagedError escapes."""
    array = pa.concat_arrays([ARRAYS[name]] * 5)
    packed = pack(array)
    rng = np.random.default_rng(7)
    for trial in range(150):
        broken = bytearray(packed)
        if trial % 3 == 0:
            broken = broken[: rng.integers(0, len(broken))] if broken else bytearray(b"\x07")
        elif broken:
            broken[rng.integers(0, len(broken))] ^= 1 << int(rng.integers(0, 8))
        try:
            restored = unpack(bytes(broken), array.type, len(array))
        except DamagedError:
            continue
        assert len(restored) == len(array)
        restored.validate(full=True)


@pytest.mark.parametrize(
    ("packed", "kind", "count"),
    [
        (b"\0" + bytes([0]) + bytes(8), pa.int64(), 1 << 40),
        (b"\1", pa.int64(), 1 << 40),
        (b"\0" + bytes([RANKS]) + put_varint(1 << 50) + b"\0", pa.int64(), 4),
        (b"\0\0" + put_varint(9) + b"\0" + (1 << 38).to_bytes(8, "little") + b"\0\0", pa.string(), 2),
        (
            b"\0" + put_varint(9) + b"\0" + (1 << 30).to_bytes(8, "little") + b"\0\0" + bytes(8),
            pa.list_(pa.int64()),
            1,
        ),
        (b"\0\0" + b"\0" + b"\1" + put_varint(1 << 40) + b"\0", pa.string(), 3),
    ],
    ids=["constant", "nulls", "ranks", "strings", "lists", "squeezed"],
)
def test_lengths_that_lie_are_refused_before_they_cost_memory(
    packed: bytes, kind: pa.DataType, count: int
) -> None:
    with pytest.raises(DamagedError):
        unpack(packed, kind, count)


def test_numbers_are_stored_low_byte_first() -> None:
    assert pack(pa.array([258, 258], pa.int32())) == bytes([0, CONSTANT, 2, 1, 0, 0])
    stored = bytes([0, STORED, 2]) + bytes([2, 1, 0, 0]) + bytes([0, 0, 0, 1])
    assert pack(pa.array([258, 514], pa.int32())) == stored
    assert unpack(stored, pa.int32(), 2).to_pylist() == [258, 514]
    ranks = bytes([0, RANKS, 2, 10]) + stored[1:] + bytes([STORED, 1, 0, 0, 0, 0, 1, 0, 1])
    assert unpack(ranks, pa.int32(), 3).to_pylist() == [514, 258, 514]


def test_compressed_bombs_are_refused() -> None:
    bomb = pa.Codec("zstd").compress(bytes(1 << 29), asbytes=True)
    assert allowance(len(bomb)) < 1 << 29
    with pytest.raises(DamagedError, match="do not justify"):
        unsqueeze(b"\1" + put_varint(1 << 29) + bomb)
    with pytest.raises(DamagedError, match="another number found"):
        unsqueeze(b"\1" + put_varint(1000) + bomb)


def test_a_long_run_of_one_value_costs_a_few_bytes() -> None:
    assert len(pack(pa.array([7] * 1_000_000))) < 16
    assert len(pack(pa.array(["same"] * 100_000))) < 40
    assert len(pack(pa.nulls(100_000, pa.float64()))) == 1
