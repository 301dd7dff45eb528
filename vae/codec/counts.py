"""What a block has seen so far: the value last seen with a key, and how often each value was seen with it.

Tables are open-addressed by key; a *slot* is a key's place in its table. The values seen with a key form a list in
order of first occurrence, in groups of `GROUP` members that know the sum of their counts: what comes before a member,
or which member a count falls to, is found by stepping over groups. Which member holds a value is found by hash.

Nodes and groups are numbered from 1; 0 is none. All begins as zeros, of which the system hands out what is touched.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae.codec.entropy import TOTAL as WHOLE
from vae.codec.jit import jit

Longs = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]

GROUP = 32
"""Members of a group; the last of a list may have fewer."""

# columns of Memory.entries, one entry a slot; a table that recalls has the value last seen in place of a list
TOTAL, DISTINCT, FIRST, LAST = range(4)
RECALL = FIRST
# columns of Memory.nodes and Memory.groups
VALUE, COUNT, SLOT, NEXT, HOME = range(5)
SUM, FOLLOWING, HEAD, TAIL = range(4)


class Memory(NamedTuple):
    """What is known of each column while its row is coded, the slots it looks at, and the tables behind them."""

    row: Longs
    slots: Longs
    """By column, for each of its tables: the slot of this row's key, then the table's index."""
    keys: Longs
    """By table and slot: the key plus 1; 0 where there is none."""
    entries: Counts
    homes: Counts
    """By table and the hash of slot and value: the node."""
    nodes: Counts
    groups: Counts
    used: Counts
    """By table: nodes, then groups, that are in use."""


def tables_of(count: int, rows: int) -> tuple[Longs, Counts, Counts, Counts, Counts, Counts]:
    """Room for `count` tables of a block of `rows` rows, each of which enters one value: see `Memory`.

    A slot takes 28 bytes, and there are two to four a row; nodes and groups take 36 a row.
    """
    capacity = 16
    while capacity < 2 * rows:
        capacity *= 2
    return (
        np.zeros((count, capacity), np.int64),
        np.zeros((count, capacity, 4), np.int32),
        np.zeros((count, capacity), np.int32),
        np.zeros((count, rows + 1, 5), np.int32),
        np.zeros((count, rows + 1, 4), np.int32),
        np.zeros((count, 2), np.int32),
    )


@jit
def find_slot(keys: Longs, key: int) -> int:
    """The slot of `key`, claimed if it is new; `keys` is never more than half full: each row claims one slot."""
    mask = keys.shape[0] - 1  # below, 2**30 * 2**32 < 2**62
    slot = ((((key ^ (key >> 20)) & 0x3FFFFFFF) * 0x9E3779B1) >> 15) & mask
    while keys[slot] != key + 1:
        if keys[slot] == 0:
            keys[slot] = key + 1
            break
        slot = (slot + 1) & mask
    return slot


@jit
def find_home(memory: Memory, table: int, slot: int, value: int) -> int:
    """Where `homes` has the node of `value` in the list of `slot`, or where it would have it."""
    homes, nodes = memory.homes, memory.nodes
    mask = homes.shape[1] - 1
    mixed = slot * 1000003 + value  # below 2**20 * 2**26 in size
    home = ((((mixed ^ (mixed >> 20)) & 0x3FFFFFFF) * 0x9E3779B1) >> 15) & mask
    while True:
        node = homes[table, home]
        if node == 0 or (nodes[table, node, VALUE] == value and nodes[table, node, SLOT] == slot):
            return home
        home = (home + 1) & mask


@jit
def enter(memory: Memory, table: int, slot: int, value: int) -> None:
    """Count `value` in the list of `slot`."""
    nodes, groups = memory.nodes, memory.groups
    home = find_home(memory, table, slot, value)
    node = memory.homes[table, home]
    if node == 0:
        memory.used[table, 0] += 1
        node = memory.used[table, 0]
        memory.homes[table, home] = node
        nodes[table, node, VALUE] = value
        nodes[table, node, SLOT] = slot
        nodes[table, node, HOME] = _append(memory, table, slot, node)
        memory.entries[table, slot, DISTINCT] += 1
    nodes[table, node, COUNT] += 1
    groups[table, nodes[table, node, HOME], SUM] += 1
    memory.entries[table, slot, TOTAL] += 1


@jit
def _append(memory: Memory, table: int, slot: int, node: int) -> int:
    """Make `node` the last of the list of `slot`; returns its group."""
    groups, entries = memory.groups, memory.entries
    group = entries[table, slot, LAST]
    if entries[table, slot, DISTINCT] % GROUP != 0:
        memory.nodes[table, groups[table, group, TAIL], NEXT] = node
        groups[table, group, TAIL] = node
        return group
    memory.used[table, 1] += 1
    fresh = memory.used[table, 1]
    groups[table, fresh, HEAD] = node
    groups[table, fresh, TAIL] = node
    if group == 0:
        entries[table, slot, FIRST] = fresh
    else:
        groups[table, group, FOLLOWING] = fresh
    entries[table, slot, LAST] = fresh
    return fresh


@jit
def count_below(memory: Memory, table: int, slot: int, node: int) -> int:
    """The counts of the members before `node` in the list of `slot`."""
    nodes, groups = memory.nodes, memory.groups
    below = 0
    group = memory.entries[table, slot, FIRST]
    while group != nodes[table, node, HOME]:
        below += int(groups[table, group, SUM])
        group = groups[table, group, FOLLOWING]
    other = groups[table, group, HEAD]
    while other != node:
        below += int(nodes[table, other, COUNT])
        other = nodes[table, other, NEXT]
    return below


@jit
def find_member(memory: Memory, table: int, slot: int, target: int) -> tuple[int, int]:
    """The member of the list of `slot` that holds `target`, of `WHOLE` shared out by count; and the counts before it.

    Members hold up to `above * WHOLE // total`; undivided, and the last one whatever is left.
    """
    nodes, groups = memory.nodes, memory.groups
    total = int(memory.entries[table, slot, TOTAL])
    below = 0
    group = memory.entries[table, slot, FIRST]
    while groups[table, group, FOLLOWING] != 0:
        above = below + int(groups[table, group, SUM])
        if (target + 1) * total <= above * WHOLE:
            break
        below = above
        group = groups[table, group, FOLLOWING]
    node = groups[table, group, HEAD]
    while nodes[table, node, NEXT] != 0:
        above = below + int(nodes[table, node, COUNT])
        if (target + 1) * total <= above * WHOLE:
            break
        below = above
        node = nodes[table, node, NEXT]
    return node, below
