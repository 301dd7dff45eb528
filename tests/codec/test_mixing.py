"""Mixed texts: what is read is what was written, by machine code or not; damage never passes for text."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from pydoc_data import topics
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DamagedError
from vae.codec import archive, texts
from vae.codec.budget import Budget
from vae.codec.columns import pack, unpack
from vae.codec.framing import Cursor, checksum
from vae.codec.jit import COMPILED
from vae.codec.mixing import CAPS, STRETCHED, TOO_MANY, fixed_tables, justified, mix, states, unmix
from vae.codec.surroundings import END, Symbols

LINES = [line for key in sorted(topics.topics) for line in topics.topics[key].split("\n")]
VALUES = st.lists(
    st.one_of(st.binary(max_size=60), st.text("ab \0", max_size=90).map(str.encode)), min_size=1
)


def symbols_of(values: list[bytes]) -> Symbols:
    return np.array([s for value in values for s in (*value, END)], np.int16)


def always_mixed() -> Any:
    """However short, and however badly it pays."""
    return mock.patch.multiple(texts, _LEAST_MIXED=0, MIXED_SHARE=1e9)


@settings(max_examples=150)
@given(VALUES)
def test_what_is_read_is_what_was_written(values: list[bytes]) -> None:
    symbols = symbols_of(values)
    body = mix(symbols)
    if body is not None:
        assert unmix(body, len(symbols)).tolist() == symbols.tolist()
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        array = pa.array([None, *values, None], kind)
        with always_mixed():
            packed = pack(array)
        assert unpack(packed, kind, len(array)).equals(array)


@pytest.mark.parametrize("how", [b"\1", b"\2"])
def test_columns_are_mixed_where_it_pays(how: bytes) -> None:
    lines = LINES[:2000] if how == b"\2" else (LINES[:300] * 9)[::-1]
    array = pa.array([None, *lines], pa.string())
    if how == b"\1":
        array = array.take(pa.array(np.random.default_rng(0).permutation(len(array))))
    packed = pack(array)
    node = packed[1:]
    assert unpack(packed, pa.string(), len(array)).equals(array)
    own = texts.pack_texts(array.drop_null())
    assert own[:1] == how
    assert texts._is_mixed(own)
    assert len(node) > len(own)
    assert not texts._is_mixed(texts.pack_texts(array.drop_null(), quick=True))


@pytest.mark.parametrize(("mixed", "how"), [(97, b"\2"), (98, b"\1")])
def test_mixing_all_values_has_to_pay_beside_the_distinct_ones_too(
    mixed: int, how: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_pack_values", lambda *_: b"\2" * mixed)
    monkeypatch.setattr(texts, "_pack_distinct", lambda *_: b"\1" * 100)
    assert texts.pack_texts(pa.array(["a", "b"] * 4))[:1] == how


def test_they_are_a_good_deal_smaller_than_brotli_makes_them() -> None:
    text = "\n".join(LINES).encode()
    array = pa.array(LINES)
    brotli = len(pa.Codec("brotli", compression_level=11).compress(text, asbytes=True))
    packed = pack(array)
    assert len(packed) < 0.87 * brotli
    assert unpack(packed, pa.string(), len(LINES)).equals(array)


def test_what_a_reader_would_refuse_is_not_written() -> None:
    same = symbols_of([b"abc" * 50_000] * 2)
    assert mix(same) is None  # to more than a reader takes so few bytes for
    assert pack(pa.array(["abc" * 50_000] * 2))[1:2] == b"\0"
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    assert mix(symbols_of([noise[k : k + 1] for k in range(5000)])) is not None
    assert mix(symbols_of([noise])) is None  # to more than it is
    assert pack(pa.array([noise]))[1:2] == b"\0"


def test_no_mixed_text_has_more_symbols_than_places_count() -> None:
    assert mix(np.broadcast_to(np.int16(97), TOO_MANY)) is None
    with pytest.raises(DamagedError, match="2147483648 symbols announced, more than a mixed text may have"):
        unmix(bytes(TOO_MANY // 16), TOO_MANY)


@pytest.mark.jit
def test_compiled_or_not_the_bytes_are_these() -> None:
    sums = [f"{k} times {k} is {k * k}".encode() for k in range(12)]
    symbols = symbols_of([*sums, b"", b"\0\0", bytes(range(256)), *sums])
    body = mix(symbols)
    assert body is not None
    found = hashlib.sha256(body).hexdigest()
    assert found == "b4317e86a64f7e9d153fa4b7c889954f95988a7e019e37990ba98b876c95ab7b"
    assert unmix(body, len(symbols)).tolist() == symbols.tolist()


def test_uncompiled_it_writes_what_it_writes_compiled() -> None:
    values = [line.encode() for line in LINES[1000:1012]]
    program = (
        "import sys, json, numpy as np\n"
        "from vae.codec.mixing import mix\n"
        "sys.stdout.buffer.write(mix(np.array(json.load(sys.stdin), np.int16)))\n"
    )
    symbols = symbols_of(values)
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(symbols.tolist()).encode(), capture_output=True, check=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    assert done.stdout == mix(symbols)


def test_states_and_tables() -> None:
    found, following = states()
    assert len(found) == len(following) == len(set(found)) == 163
    assert all(zeros <= CAPS[min(ones, 5)] or ones <= CAPS[min(zeros, 5)] for zeros, ones, _ in found)
    squash, stretch, _, shares = fixed_tables()
    assert (np.diff(squash) >= 0).all()
    assert abs(squash + squash[::-1] - 65536).max() <= 1
    assert squash[[0, 3072, 6144]].tolist() == [1, 32768, 65535]
    assert (np.diff(stretch) >= 0).all()
    assert max(abs(int(stretch[0])), int(stretch[-1])) <= STRETCHED
    assert shares[0] == 43690


def mixed_body() -> tuple[bytes, int]:
    symbols = symbols_of([line.encode() for line in LINES[: 60 if COMPILED else 12]])
    body = mix(symbols)
    assert body is not None
    return body, len(symbols)


@pytest.mark.jit
def test_a_damaged_body_is_refused() -> None:
    body, count = mixed_body()
    for cut in (0, 3, 4, len(body) // 2, len(body) - 1):
        with pytest.raises(DamagedError):
            unmix(body[:cut], count)
    with pytest.raises(DamagedError, match="does not end where it should"):
        unmix(body + b"\0", count)
    with pytest.raises(DamagedError, match="which 4 mixed bytes do not justify"):
        unmix(body[:4], justified(4) + 1)
    dice = np.random.default_rng(0)
    for _ in range(60 if COMPILED else 2):
        flipped = bytearray(body)
        flipped[dice.integers(len(body))] ^= 1 << dice.integers(8)
        with pytest.raises(DamagedError, match="does not end where it should"):
            unmix(bytes(flipped), count)


@pytest.mark.jit
@settings(max_examples=100 if COMPILED else 10)
@given(st.binary(min_size=4, max_size=300), st.integers(1, 2000))
def test_any_bytes_are_refused_or_read(body: bytes, count: int) -> None:
    try:
        symbols = unmix(body, count)
    except DamagedError:
        return
    assert symbols.min() >= 0
    assert symbols.max() <= END


def test_texts_that_lie_are_refused() -> None:
    array = pa.array(LINES[:300])
    packed = texts.pack_texts(array)
    assert packed[0] == 2
    cursor = Cursor(packed, 1)
    total, body = cursor.varint(), bytes(cursor.rest())

    def read(packed: bytes, count: int) -> pa.Array:
        return texts.unpack_texts(Cursor(packed), pa.string(), count, Budget(len(packed)))

    from vae.codec.framing import put_varint

    assert read(packed, 300).equals(array)
    for count, change, why in (
        (299, 1, "300 texts in place of 299"),
        (301, -1, "300 texts in place of 301"),
        (0, 0, "symbols announced"),
        (300, -1, "does not end where it should"),
        (300, 1 << 40, "does not justify"),
    ):
        with pytest.raises(DamagedError, match=why):
            read(b"\2" + put_varint(total + change) + body, count)
    inner = b"\1\1\0"
    with pytest.raises(DamagedError, match="texts packed by 1 are unknown, or distinct twice"):
        read(b"\1" + put_varint(1) + put_varint(len(inner)) + inner, 1)
    with pytest.raises(DamagedError, match="texts packed by 3 are unknown"):
        read(b"\3", 1)


def with_version(path: Path, version: int) -> None:
    data = bytearray(path.read_bytes())
    data[8] = version
    length = struct.unpack("<I", data[12:16])[0]
    data[16:24] = checksum(bytes(data[:16]), bytes(data[24 : 24 + length])).to_bytes(8, "little")
    place = data[-28:-16]
    index = data[int.from_bytes(place[:8], "little") : -28]
    data[-16:-8] = checksum(bytes(data[16:24]), bytes(index), bytes(place)).to_bytes(8, "little")
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["stream", "dictionary"])
def test_archives_say_that_they_hold_mixed_texts(where: str, tmp_path: Path) -> None:
    column: Any = pa.array(LINES[:400])
    if where == "dictionary":
        column = pa.array(LINES[:300] * 3).dictionary_encode()
    table = pa.table({"text": column, "k": np.arange(len(column))})
    path = tmp_path / "t.svae"
    archive.write(table, path)
    assert path.read_bytes()[8] == 9
    with archive.open(path) as opened:
        assert opened.read().equals(table)
    with_version(path, 1)
    with (
        pytest.raises(DamagedError, match="version 1 of the format has no mixed texts"),
        archive.open(path) as opened,
    ):
        opened.read()


def test_other_archives_are_of_the_versions_that_they_were(tmp_path: Path) -> None:
    table = pa.table({"name": ["a", "bc", "d"] * 50, "k": np.arange(150)})
    archive.write(table, tmp_path / "t.svae")
    assert (tmp_path / "t.svae").read_bytes()[8] == 1
