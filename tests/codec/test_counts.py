"""Lists of counts are what plain lists would be: order of first occurrence, sums, members by their share."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vae.codec.counts import (
    COUNT,
    DISTINCT,
    GROUP,
    TOTAL,
    VALUE,
    WHOLE,
    Memory,
    count_below,
    enter,
    find_home,
    find_member,
    find_slot,
    tables_of,
)

COMMON = settings(deadline=None, max_examples=60)
pytestmark = pytest.mark.jit


def empty(rows: int, tables: int = 1) -> Memory:
    nothing = np.zeros((1, 1), np.int64)
    return Memory(nothing, nothing, *tables_of(tables, rows))


@COMMON
@given(keys=st.lists(st.integers(0, 2**42 - 1) | st.integers(0, 40), max_size=64))
@example(keys=[k << 15 for k in range(64)])
def test_every_key_keeps_a_slot_of_its_own(keys: list[int]) -> None:
    table = np.zeros(128, np.int64)
    slots = [find_slot(table, key) for key in keys]
    assert [int(table[slot]) - 1 for slot in slots] == keys
    assert [find_slot(table, key) for key in keys] == slots
    assert len(set(slots)) == len(set(keys))


VALUES = st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(0, 200)


@COMMON
@given(entered=st.lists(st.tuples(st.integers(0, 2), VALUES), min_size=1, max_size=300))
@example(entered=[(0, k) for k in range(3 * GROUP)] + [(1, 5)] + [(0, k * k % GROUP) for k in range(99)])
@example(entered=[(0, k << 15) for k in range(2 * GROUP)])
def test_lists_are_those_of_a_dictionary(entered: list[tuple[int, int]]) -> None:
    memory = empty(len(entered), tables=2)
    lists = dict[int, dict[int, int]]()  # by slot: the count of each value, in order of first occurrence
    for key, value in entered:
        slot = find_slot(memory.keys[1], key)
        counted = lists.setdefault(slot, {})
        assert bool(memory.homes[1, find_home(memory, 1, slot, value)]) is (value in counted)
        enter(memory, 1, slot, value)
        counted[value] = counted.get(value, 0) + 1
    for slot, counted in lists.items():
        total = sum(counted.values())
        assert memory.entries[1, slot, [TOTAL, DISTINCT]].tolist() == [total, len(counted)]
        below = 0
        for value, count in counted.items():
            node = memory.homes[1, find_home(memory, 1, slot, value)]
            assert memory.nodes[1, node, [VALUE, COUNT]].tolist() == [value, count]
            assert count_below(memory, 1, slot, node) == below
            first, last = below * WHOLE // total, (below + count) * WHOLE // total - 1
            for target in (first, last, (first + last) // 2):
                assert find_member(memory, 1, slot, target) == (node, below)
            below += count
    assert not memory.entries[0].any()
    assert not memory.homes[0].any()


def test_a_member_holds_its_share_to_the_last_unit() -> None:
    memory = empty(9)
    for value in (7, 7, 7, 8, 9, 9, 9):
        enter(memory, 0, 3, value)
    edges = [int(Fraction(above, 7) * WHOLE) for above in (3, 4)]
    found = [find_member(memory, 0, 3, target) for target in (0, edges[0] - 1, *edges, WHOLE - 1)]
    assert [(int(memory.nodes[0, node, VALUE]), int(below)) for node, below in found] == [
        (7, 0), (7, 0), (8, 3), (9, 4), (9, 4),
    ]  # fmt: skip
