"""The tables are what they are defined to be, everywhere, and rANS gives every interval back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from decimal import ROUND_UP, Context, Inexact, Rounded, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vae.codec.entropy import (
    PRECISION,
    STATE_LOW,
    TOTAL,
    encode_ops,
    exp_table,
    scale_table,
    sigmoid_table,
    squash_table,
)
from vae.codec.intervals import Streams, take


def defined_exp() -> npt.NDArray[np.float64]:
    return 2.0**24 * np.exp(-np.arange(4096) / 256)


def defined_sigmoid() -> npt.NDArray[np.float64]:
    exact = 2.0**30 / (1 + np.exp(-(np.arange(4097) - 2048) / 128))
    exact[0], exact[-1] = 0, 2.0**30
    return exact


def defined_scale() -> npt.NDArray[np.float64]:
    return 2.0**15 * 2.0 ** (-np.arange(256) / 256)


def defined_squash() -> npt.NDArray[np.float64]:
    return 8 * np.log2(1.0 + np.arange(1024))


@pytest.mark.parametrize(
    ("table", "defined", "digest"),
    [
        (exp_table, defined_exp, "530993c673053cd9fd46d44f4504c3fbdbb0fe83ebfcadebfc2c56914ca0e39c"),
        (sigmoid_table, defined_sigmoid, "440ab0e0ff26d28343a3c9199aa9e584c95085f71e558080b269b97c25c6a734"),
        (scale_table, defined_scale, "d0abdadd43ce3963dd152b4a5f7d9647993448ad51d5ed72a0f1902258d2e0ae"),
        (squash_table, defined_squash, "e0a524d7ac85c244a174f853773d10226cff6cca6d20d8244c7dd4faac8e763b"),
    ],
    ids=["exp", "sigmoid", "scale", "squash"],
)
def test_tables_are_rounded_definitions_and_never_change(
    table: Callable[[], npt.NDArray[Any]], defined: Callable[[], npt.NDArray[np.float64]], digest: str
) -> None:
    found, exact = table(), defined()
    assert found.dtype == (np.int32 if table in (exp_table, sigmoid_table) else np.int64)
    assert found.shape == exact.shape
    # float64 is off by a few units in the last place of numbers up to 2**30
    assert np.abs(found - exact).max() <= 0.5 + 1e-6
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest() == digest


def test_tables_do_not_depend_on_the_callers_decimals() -> None:
    tables = (exp_table, sigmoid_table)
    with localcontext(Context(prec=5, rounding=ROUND_UP, traps=[Inexact, Rounded])):
        made = [table.__wrapped__() for table in tables]
    for table, expected in zip(made, tables, strict=True):
        assert (table == expected()).all()


def test_the_sigmoid_is_symmetric_and_never_falls() -> None:
    table = sigmoid_table()
    assert (table + table[::-1] == 1 << 30).all()
    assert (np.diff(table) >= 0).all()


def written(intervals: list[tuple[int, int]]) -> npt.NDArray[np.uint32]:
    words = np.zeros(len(intervals) + 2, np.uint32)
    starts, widths = (np.array([pair[k] for pair in intervals], np.int64) for k in (0, 1))
    return words[encode_ops(starts, widths, words) :]


def read(words: npt.NDArray[np.uint32], intervals: list[tuple[int, int]]) -> Streams:
    """Reads the stream back; each state must be found in the interval that was written."""
    whole = [[int(words[0]) << 32 | int(words[1])], [2], [len(words)]]
    streams = Streams(words, *(np.array(column, np.int64) for column in whole))
    for start, width in intervals:
        assert start <= streams.state[0] % TOTAL < start + width
        take(streams, 0, start, width)
    return streams


@st.composite
def interval_lists(draw: st.DrawFn) -> list[tuple[int, int]]:
    widths = st.sampled_from([1, 2, TOTAL // 2, TOTAL - 2, TOTAL - 1]) | st.integers(1, TOTAL - 1)
    found: list[tuple[int, int]] = []
    for width in draw(st.lists(widths, max_size=60)):
        start = draw(st.sampled_from([0, TOTAL - width]) | st.integers(0, TOTAL - width))
        found.append((start, width))
    return found


@pytest.mark.jit
@settings(max_examples=150)
@given(intervals=interval_lists())
@example(intervals=[])
@example(intervals=[(TOTAL - 1, 1)] * 100)
@example(intervals=[(1, TOTAL - 1)] * 100)
@example(intervals=[(0, TOTAL - 1), (0, 1)] * 50)
def test_every_interval_comes_back_and_the_state_ends_where_it_began(
    intervals: list[tuple[int, int]],
) -> None:
    words = written(intervals)
    streams = read(words, intervals)
    assert streams.state[0] == STATE_LOW
    assert streams.position[0] == len(words)
    bits = sum(PRECISION - math.log2(width) for _, width in intervals)
    assert 32 * len(words) <= bits + 64 + 32 + 1e-3 * len(intervals)


@pytest.mark.jit
def test_a_stream_that_runs_dry_stays_dry() -> None:
    words = written([(5, 1)] * 20)
    streams = read(words[:6], [(5, 1)] * 5)
    for _ in range(10):
        take(streams, 0, 0, 1)
    assert streams.state[0] == 0
    assert streams.position[0] > streams.end[0]


@pytest.mark.jit
@given(state=st.integers(STATE_LOW, 2**63 - 1), width=st.integers(1, TOTAL), data=st.data())
def test_reading_stays_within_63_bits_whatever_the_state(state: int, width: int, data: st.DataObject) -> None:
    target = state % TOTAL
    start = data.draw(st.integers(max(0, target - width + 1), min(target, TOTAL - width)))
    word = 0xFFFFFFFF
    streams = Streams(
        np.array([word], np.uint32), np.array([state]), np.zeros(1, np.int64), np.ones(1, np.int64)
    )
    take(streams, 0, start, width)
    expected = width * (state >> PRECISION) + target - start
    expected = expected if expected >= STATE_LOW else expected << 32 | word
    assert streams.state[0] == expected
    assert STATE_LOW <= expected < 2**63
