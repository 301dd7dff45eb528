"""A trained decoder in exact integers: its bytes and its blocks.

Layout of the bytes (all integers little-endian)::

    4 bytes   length of the plan
    n bytes   the plan: canonical JSON, deflated (zlib)
    per group of tensors, in the order of GROUPS:
        4 bytes   length
        n bytes   the group's weights, one tensor after the other in the order of `Plan.shapes`, as one pcodec file
                  of int16

A block is one stream for the code and one a column: a byte that says whether states occur that no training row held
(1) or not (0), then 32-bit words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from data.errors import DamagedError, ModelError
from data.grid import State
from vae.codec.counts import Memory
from vae.codec.entropy import STATE_LOW, encode_ops, exp_table, scale_table, sigmoid_table, squash_table
from vae.codec.frontend import MAX_FEATURES, front_of, new_memory
from vae.codec.intervals import Streams, Tables, Tape
from vae.codec.kernel import Desk, new_desk, observe, walk
from vae.codec.packing import (
    MAX_CELLS,
    checked_shapes,
    join_pieces,
    no_streams,
    open_streams,
    pack_plan,
    pack_weights,
    plain,
    split_pieces,
    unpack_plan,
    unpack_weights,
)
from vae.codec.plan import FEW_OUTPUTS, MAX_STATES, Head, Plan
from vae.codec.weights import padded, prove_sums

GROUPS = ("before", "after", "embed", "bias", "hidden", "head", "prior")
MAX_REMEMBERED = 1 << 24
"""Most rows of a block times tables that remember: 92 bytes each at 65,536 rows, at most 148 (`counts.tables_of`)."""

Longs = npt.NDArray[np.int64]
States = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int8]
Tensors = Mapping[str, npt.NDArray[np.int16]]


class IntegerModel:
    """A decoder that gives the same probabilities on every machine. Immutable; safe to share between threads."""

    def __init__(self, plan: Plan, tensors: Tensors) -> None:
        """Raises ModelError where weights do not fit the plan, are too many, or a sum could leave 31 bits."""
        expected = checked_shapes(plan.shapes())
        if {name: tensor.shape for name, tensor in tensors.items()} != expected:
            raise ModelError("the model's weights do not have the shapes its plan asks for")
        if any(tensor.dtype != np.int16 for tensor in tensors.values()):
            raise ModelError("the model's weights are not 16-bit integers")
        self.plan = plan
        self.tensors = {name: tensors[name] for name in expected}
        self._front = front_of(plan, squash_table())
        self._weights = padded(plan, self.tensors)
        prove_sums(self._weights)
        self._tables = Tables(exp_table(), sigmoid_table(), scale_table())

    @property
    def columns(self) -> list[str]:
        """Names of the coded columns, in coding order."""
        return self.plan.names

    @property
    def latents(self) -> int:
        """Number of latents."""
        return self.plan.latents

    @property
    def version(self) -> int:
        """The oldest version of the format that knows such a model."""
        if self.plan.direct or self.plan.fine:
            return 5
        if self.plan.deep or any(
            i.history or i.outputs > FEW_OUTPUTS + MAX_STATES for i in self.plan.columns
        ):
            return 4
        return 3 if self.plan.above else 1

    @property
    def block_rows(self) -> int:
        """Most rows of a block; at least 65,536 whatever the plan."""
        tables = sum(item.tables for item in self.plan.columns)
        return min(MAX_CELLS // (self.latents + len(self.columns) + 1), MAX_REMEMBERED // max(1, tables))

    def to_bytes(self) -> bytes:
        """The model as stored in an archive; see the module's docstring."""
        groups = [[t for name, t in self.tensors.items() if _group(name) == group] for group in GROUPS]
        return join_pieces([pack_plan(self.plan), *(pack_weights(group) for group in groups)])

    @classmethod
    def from_bytes(cls, blob: bytes) -> IntegerModel:
        """The inverse of `to_bytes`; ModelError for anything that is not a sound model."""
        packed, *bodies = split_pieces(blob, 1 + len(GROUPS))
        plan = unpack_plan(packed, Plan)
        shapes = checked_shapes(plan.shapes())
        tensors: dict[str, npt.NDArray[np.int16]] = {}
        for group, body in zip(GROUPS, bodies, strict=True):
            names = [name for name in shapes if _group(name) == group]
            ends = np.cumsum([int(np.prod(shapes[name])) for name in names]).tolist()
            flat = unpack_weights(body, ends[-1] if ends else 0, group)
            for name, start, end in zip(names, [0, *ends], ends, strict=False):
                tensors[name] = flat[start:end].reshape(shapes[name])
        return cls(plan, tensors)

    def encode_block(self, symbols: Longs, states: States, codes: Codes) -> list[bytes]:
        """The streams of a block: the code's, then one a column in coding order.

        symbols, states: (rows, columns); codes: (rows, latents). Where a state is not VALUE, its symbol is read as 0.
        ValueError for what no grid and no encoder gives: other shapes, symbols off their grid, more than `block_rows`.
        """
        self._check_block(symbols, states, codes)
        symbols, states = plain(symbols, np.int64), plain(states, np.uint8)
        codes = plain(codes, np.int8)
        rows, columns = symbols.shape
        unseen = self._unseen(states)
        # a cell is at most a state, the class of a memory, and a value
        most = [
            1 + (len(item.states) > 0 or bool(new)) + (item.head == Head.memory)
            for item, new in zip(self.plan.columns, unseen, strict=True)
        ]
        sizes = rows * np.array([self.latents, *most], np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        space = max(1, int(sizes.sum()))
        tape = Tape(
            np.zeros(space, np.int64), np.zeros(space, np.int64), offsets, np.zeros(columns + 1, np.int64)
        )
        walk(
            False, columns, symbols, states, codes, unseen, self._front, new_memory(self._front, rows),
            self._weights, self._tables, new_desk(self._weights), tape, no_streams(columns),
        )  # fmt: skip
        flags = [b"\0", *(b"\1" if u else b"\0" for u in unseen)]
        streams: list[bytes] = []
        for s, flag in enumerate(flags):
            part = slice(offsets[s], offsets[s] + tape.used[s])
            words = np.zeros(int(tape.used[s]) + 2, np.uint32)
            begin = encode_ops(tape.starts[part], tape.widths[part], words)
            streams.append(flag + words[begin:].astype("<u4").tobytes())
        return streams

    def decode_block(
        self, streams: list[bytes], rows: int, upto: int | None = None, until: int | None = None
    ) -> tuple[Longs, States, Codes]:
        """The inverse of `encode_block` for the code, the first `upto` columns and the first `until` rows of `rows`.

        `streams` holds the code's and these columns' streams. DamagedError names the stream that ends before these
        rows do, or that does not end where it began, which only all rows show.
        Blocks are independent: threads may read several at once.
        """
        columns = len(self.columns) if upto is None else upto
        if not 0 <= columns <= len(self.columns):
            raise ValueError(f"{columns} of {len(self.columns)} columns")
        if not 0 <= rows <= self.block_rows:
            raise DamagedError(f"a block of {rows} rows; this model's have at most {self.block_rows}")
        if len(streams) < columns + 1:
            raise DamagedError(f"{columns + 1} streams are needed, {len(streams)} are there")
        opened, unseen = open_streams(streams[: columns + 1], len(self.columns))
        whole, rows = until is None or until >= rows, rows if until is None else min(max(until, 0), rows)
        symbols = np.zeros((rows, columns), np.int64)
        states = np.zeros((rows, columns), np.uint8)
        codes = np.zeros((rows, self.latents), np.int8)
        nothing = np.zeros(1, np.int64)
        walk(
            True, columns, symbols, states, codes, unseen, self._front, new_memory(self._front, rows),
            self._weights, self._tables, new_desk(self._weights), Tape(nothing, nothing, nothing, nothing), opened,
        )  # fmt: skip
        for s, name in enumerate(["code", *self.columns[:columns]]):
            if opened.position[s] > opened.end[s]:
                raise DamagedError(f"the stream of {name!r} ends before its rows do")
            if whole and (opened.state[s] != STATE_LOW or opened.position[s] != opened.end[s]):
                raise DamagedError(f"the stream of {name!r} does not end as it was written")
        return symbols, states, codes

    def sample_block(
        self, rows: int, random: np.random.Generator, before: tuple[Longs, States, Codes] | None = None
    ) -> tuple[Longs, States, Codes]:
        """Rows that the model holds likely, as `decode_block` gives them: what it reads out of noise.

        To an entropy decoder random words are a file like any other, and symbols come out of them just as often as the
        model says. Each row follows on from the one above; above the first are the rows `before`, if there are any:
        columns of identifiers know of no values but those that they have seen.
        """
        memory, desk = self._begun(before, rows)
        most = [self.latents, *(3 for _ in self.columns)]  # as in `encode_block`: each takes a word at most
        ends = np.cumsum(rows * np.array(most, np.int64))
        words = random.integers(0, 1 << 32, int(ends[-1]), np.uint32)
        state = random.integers(STATE_LOW, (1 << 63) - 1, len(most), np.int64)
        noise = Streams(words, state, np.concatenate([[0], ends[:-1]]).astype(np.int64), ends)
        symbols = np.zeros((rows, len(self.columns)), np.int64)
        states = np.zeros((rows, len(self.columns)), np.uint8)
        codes = np.zeros((rows, self.latents), np.int8)
        nothing = np.zeros(1, np.int64)
        walk(
            True, len(self.columns), symbols, states, codes, np.zeros(len(self.columns), bool), self._front,
            memory, self._weights, self._tables, desk, Tape(nothing, nothing, nothing, nothing), noise,
        )  # fmt: skip
        return symbols, states, codes

    def _begun(self, before: tuple[Longs, States, Codes] | None, rows: int) -> tuple[Memory, Desk]:
        """A memory that has seen the rows `before`, with room for so many more, and a desk."""
        seen = 0 if before is None else len(before[0])
        memory, desk = new_memory(self._front, seen + rows), new_desk(self._weights)
        if before is not None:
            self._check_block(*before)
            space = seen * (self.latents + 3 * len(self.columns))
            offsets = np.zeros(len(self.columns) + 1, np.int64)  # what is written is thrown away
            tape = Tape(np.zeros(space, np.int64), np.zeros(space, np.int64), offsets, offsets.copy())
            unseen = self._unseen(before[1])
            walk(
                False, len(self.columns), *before, unseen, self._front, memory, self._weights, self._tables, desk, tape,
                no_streams(len(self.columns)),
            )  # fmt: skip
        return memory, desk

    def observe(self, symbols: Longs, states: States) -> dict[str, npt.NDArray[Any]]:
        """What the network is shown of a block and what it must say, for training; see `kernel.observe`."""
        symbols, states = plain(symbols, np.int64), plain(states, np.uint8)
        rows, columns = symbols.shape
        contexts = max((len(item.contexts) for item in self.plan.columns), default=0)
        shown: dict[str, npt.NDArray[Any]] = {
            "before": np.zeros((rows, columns, self._weights.before.shape[1]), np.int8),
            "after": np.zeros((rows, columns, self._weights.after.shape[1]), np.int8),
            "places": np.full((rows, columns, 2), -1, np.int32),
            "bases": np.zeros((rows, columns, 5), np.int32),
            "classes": np.zeros((rows, columns, contexts + 2), np.int8),
            "member": np.zeros((rows, columns), np.float32),
        }
        memory = new_memory(self._front, rows)
        features = np.zeros(MAX_FEATURES, np.int32)
        observe(symbols, states, self._front, memory, features, *cast(Any, shown.values()))
        return shown

    def _unseen(self, states: States) -> npt.NDArray[np.bool_]:
        """Per column, whether the block holds a state that no training row held."""
        result = np.zeros(len(self.columns), bool)
        for j, item in enumerate(self.plan.columns):
            present = set(np.unique(states[:, j]).tolist()) - {0}
            result[j] = bool(present - set(item.states))
        return result

    def _check_block(self, symbols: Longs, states: States, codes: Codes) -> None:
        rows = len(symbols)
        if symbols.shape != (rows, len(self.columns)) or states.shape != symbols.shape:
            raise ValueError(
                f"symbols {symbols.shape} and states {states.shape} for {len(self.columns)} columns"
            )
        if codes.shape != (rows, self.latents) or (
            codes.size and abs(codes.astype(int)).max() > self.plan.reach
        ):
            raise ValueError(f"codes {codes.shape} for {self.latents} latents within {self.plan.reach}")
        if rows > self.block_rows:
            raise ValueError(f"a block of {rows} rows; this model's have at most {self.block_rows}")
        if states.size and states.max() > State.ESCAPE:
            raise ValueError(f"state {states.max()} is unknown")
        for j, item in enumerate(self.plan.columns):
            inside = (symbols[:, j] >= item.low) & (symbols[:, j] <= item.high)
            if not (inside | (states[:, j] != 0)).all():
                raise ValueError(f"column {item.name!r}: symbols outside {item.low} .. {item.high}")


def _group(name: str) -> str:
    if name.startswith("prior."):
        return "prior"
    last = name.rsplit(".", 1)[1]
    if last.startswith("embed"):
        return "embed"
    if last.endswith("bias"):
        return "bias"
    return "before" if last == "direct" else last
