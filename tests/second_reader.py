"""A second reader of `.svae` archives, written from `docs/format.md` alone, without a look at the codec's source.

It stays as a test of that document: where it and the codec disagree, the document is wrong or unclear.
Numbers in brackets are its sections. A wrong magic, version, checksum or end of a stream is a ValueError.
Of nodes it reads texts and plain numbers; dictionary types and models outside the archive are not handled.
What only guards against hostile files is not proved: limits of sizes and sums, most rules of headers.
"""

import hashlib
import json
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pcodec import standalone

VALUE, NULL, NAN, ESCAPE = range(4)
SOFTMAX, MIXTURE, MEMORY = range(3)
HEAD, TAIL = b"\x89SVAE\r\n\x1a", b"\x1a\nEAVS\r\x89"
TOTAL, STATE_LOW, UNSEEN = 2**28, 2**31, -2048
SUMS = ("sum", "difference")
NUDGED = ("lattice", *SUMS)
OFTEN = (1, 2, 3, 4, 5, 7, 10, 15, 25, 50, 128)


class Cells(NamedTuple):
    """A column on its grid; `escapes` are the values of the ESCAPE cells, in row order."""

    states: np.ndarray
    symbols: np.ndarray
    escapes: pa.Array | None


def need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def clip(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def checksum(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


class Cursor:
    """Bytes that are read from the front (1)."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)

    def take(self, size: int) -> bytes:
        need(size <= len(self.data), "bytes end early")
        taken, self.data = self.data[:size], self.data[size:]
        return bytes(taken)

    def varint(self) -> int:
        byte = self.take(1)[0]
        return byte if byte < 128 else byte - 128 + (self.varint() << 7)

    def piece(self) -> bytes:
        return self.take(self.varint())

    def rest(self) -> bytes:
        return self.take(len(self.data))

    def close(self) -> None:
        need(not self.data, "bytes are left over")


def inflate(method: int, data: bytes, size: int) -> bytes:
    """Bytes that are stored or compressed (1)."""
    if method:  # one byte more than announced, to see that there is none
        data = pa.CompressedInputStream(pa.BufferReader(data), ("zstd", "brotli")[method - 1]).read(size + 1)
    need(len(data) == size, "content is not as long as announced")
    return data


def squeezed(data: bytes) -> bytes:
    cursor = Cursor(data)
    method, size = cursor.take(1)[0], cursor.varint()
    return inflate(method, cursor.rest(), size)


def packed(data: bytes, kind: str | np.dtype, n: int) -> np.ndarray:
    """Packed numbers (7.1)."""
    kind, cursor = np.dtype(kind), Cursor(data)
    unsigned = np.dtype(f"u{kind.itemsize}")
    tag = cursor.take(1)[0] if n else 1
    if n == 0:
        numbers = np.frombuffer(data, unsigned)
    elif tag == 0:
        numbers = np.repeat(np.frombuffer(cursor.rest(), unsigned), n)
    elif tag == 5:
        m = cursor.varint()
        numbers = packed(cursor.piece(), kind, m)[packed(cursor.rest(), "u4", n)]
    elif tag == 6:
        numbers = standalone.simple_decompress(cursor.rest())
    else:
        width, smallest = cursor.take(1)[0], np.frombuffer(cursor.take(kind.itemsize), unsigned)
        if tag == 4:
            above = standalone.simple_decompress(cursor.rest())
        else:
            above = np.frombuffer(inflate(tag - 1, cursor.rest(), n * width), f"u{width}")
        numbers = above.astype(unsigned) + smallest  # wraps, as it is to
    need(len(numbers) == n, "not as many numbers as announced")
    return numbers.view(kind)


def texts(data: bytes, n: int) -> list[bytes]:
    """Texts (7.3)."""
    cursor = Cursor(data)
    how = cursor.take(1)
    if how == b"\2":
        return Mixed(cursor.varint() + n, cursor.rest()).texts(n)
    need(how in {b"\0", b"\1"}, "unknown texts")
    if how == b"\1":
        count = cursor.varint()
        distinct = cursor.piece()
        need(distinct[:1] != b"\1", "distinct values are distinct twice")
        distinct = texts(distinct, count)
        return [distinct[place] for place in packed(cursor.rest(), "i8", n)]
    lengths = packed(cursor.piece(), "i8", n).tolist()
    joined = Cursor(squeezed(cursor.rest()))
    values = [joined.take(length) for length in lengths]
    joined.close()
    return values


def hashed(a: int, b: int) -> int:
    """Of two numbers below 2**32 (7.4)."""
    h = (a * 0x2F0B4C47 & WIDE) ^ (b * 0x1E35A7BD & WIDE)
    h = (h ^ h >> 15) * 0x2C1B3C6D & WIDE
    return h ^ h >> 13


def after(state: tuple[int, int, int], bit: int) -> tuple[int, int, int]:
    """The state that follows (7.4)."""
    own, other = state[bit], state[1 - bit]
    other = other.bit_length() if other > 2 else other
    own = min(own + 1, (30, 30, 12, 8, 6, 5)[other])
    return (other, own, 1) if bit else (own, other, 0)


def all_states() -> list[tuple[int, int, int]]:
    found = [(0, 0, 0)]
    for state in found:
        found += [new for new in (after(state, 0), after(state, 1)) if new not in found]
    return found


def inner(c: int) -> bool:
    return c >= 128 or chr(c).isalnum()


class Mixed:
    """A mixed text (7.4)."""

    def __init__(self, count: int, body: bytes) -> None:
        need(len(body) >= 4 and count <= 2**18 + 16 * len(body), "more symbols than their bytes justify")
        need(count < 1 << 31, "more symbols than a mixed text may have")
        self.count, self.body = count, Cursor(body)
        self.bits = min(max(count.bit_length() + 1, 16), 22)
        self.symbols: list[int] = []
        self.slots = [[0] * 16 for _ in range(1 << self.bits)]
        self.seen = [0] * (1 << min(self.bits, 20))
        first = [((2 * ones + 1 << 20) // (2 * (zeros + ones) + 2), 0) for zeros, ones, _ in STATES]
        self.chance = [list(first) for _ in range(8)]
        self.matched = [[(2**20 // (r + 2), 0), (2**20 - 2**20 // (r + 2), 0)] for r in range(32)]
        self.alone = [1 << 15] * 256
        self.weight = [[7000] * 12 for _ in range(320)]
        self.stage: list[dict[int, list[int]]] = [{}, {}]
        self.history = self.word = self.before = self.start = self.above = self.stop = self.match = (
            self.length
        ) = 0
        self.low, self.high, self.code = 0, WIDE, int.from_bytes(self.body.take(4), "big")

    def texts(self, n: int) -> list[bytes]:
        values = [bytearray()]
        for k in range(self.count):
            symbol = self.read_symbol()
            self.symbols.append(symbol)
            self.move_on(k, symbol, symbol & 255)
            if symbol == 256:
                values.append(bytearray())
            else:
                values[-1].append(symbol)
        self.body.close()
        need(self.code == self.low, "a mixed text ends in another state")
        need(len(values) == n + 1 and not values[-1], "not as many texts as announced")
        return [bytes(value) for value in values[:-1]]

    def read_symbol(self) -> int:
        S, history, word = self.symbols, self.history, self.word
        below = S[self.above] + (S[self.above + 1] << 9) if self.above < self.stop else 0
        last = history & 0xFF
        self.around = [
            hashed(last, 1), hashed(history & 0xFFFF, 2), hashed(history & 0xFFFFFF, 3), hashed(history & WIDE, 4),
            hashed(history & WIDE, 5 + (history >> 32 << 8)), hashed(word, 6 + (last << 8)), hashed(word, self.before),
            hashed(below + (last << 18), 8),
        ]  # fmt: skip
        byte = 1
        for bit in range(7, -1, -1):
            if bit in {7, 3}:
                self.find(byte)
            byte = 2 * byte + self.decide(byte, bit)
        if byte == 256:
            self.find(byte)
            byte += self.decide(0, 8) << 8
        return byte - 256

    def find(self, node: int) -> None:
        self.node, self.slot = 1, []
        for c, around in enumerate(self.around):
            h = hashed(around, node + (c << 9))
            s = h & (1 << self.bits) - 1
            three = [self.slots[s], self.slots[s ^ 1], self.slots[s ^ 2]]
            known = [slot for slot in three if slot[1] and slot[0] == h >> 24]
            if known:
                slot = known[0]
            else:
                slot = min(three, key=lambda slot: slot[1])
                slot[:] = [h >> 24] + [0] * 15
            self.slot.append(slot)

    def decide(self, place: int, d: int) -> int:
        states = [slot[self.node] for slot in self.slot]
        inputs = [STRETCH[self.chance[c][state][0] >> 8] for c, state in enumerate(states)]
        inputs.append(STRETCH[self.alone[place] >> 4])
        length, r, expected = self.length, 0, 0
        if length:
            expected = self.symbols[self.match] >> d & 1
            r = length if length < 16 else min(16 + (length - 16 >> 2), 31)
            q = self.matched[r][expected][0] >> 4
            inputs += [STRETCH[q >> 4], q - 2**15 >> 5]
        else:
            inputs += [0, 0]
        inputs.append(256)
        trust = 0 if length == 0 else 1 if length < 16 else 2 if length < 32 else 3
        own, other = self.weight[place], self.weight[256 + sum(map(bool, states)) + 16 * trust]
        x = clip(sum(i * (a + b) for i, a, b in zip(inputs, own, other, strict=True)) >> 16, -2815, 2815)
        j, f = x + 3072 >> 8, x + 3072 & 255
        steps = [LOGISTIC[256 * k] for k in range(25)]
        A = self.stage[0].setdefault(((self.history & 0xFF) << 8) + place, list(steps))
        B = self.stage[1].setdefault(hashed(self.history & 0xFFFF, place) & 0xFFFF, list(steps))
        a, b = (table[j] * (256 - f) + table[j + 1] * f >> 8 for table in (A, B))
        mixed = LOGISTIC[x + 3072]
        bit = self.read_bit(clip(mixed + a + 2 * b + 2 >> 2, 1, 65535))

        for weights in (own, other):
            for i, shown in enumerate(inputs):
                change = shown * ((bit << 16) - mixed) + 2**16 >> 17
                weights[i] = (weights[i] + change + 2**31) % 2**32 - 2**31
        for c, state in enumerate(states):
            self.chance[c][state] = learnt(self.chance[c][state], bit)
            self.slot[c][self.node] = FOLLOWING[self.slot[c][self.node]][bit]
        self.alone[place] += 65535 * bit - self.alone[place] >> 5
        if length:
            self.matched[r][expected] = learnt(self.matched[r][expected], bit)
            if expected != bit:
                self.length = 0
        for table in (A, B):
            table[j + (f >= 128)] += 65535 * bit - table[j + (f >= 128)] >> 5
        self.node = 2 * self.node + bit
        return bit

    def read_bit(self, p: int) -> int:
        span = self.high - self.low
        middle = self.low + (span >> 16) * p + ((span & 0xFFFF) * p >> 16)
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.low, self.high = self.low << 8 & WIDE, (self.high << 8 & WIDE) + 255
            self.code = (self.code << 8 & WIDE) + self.body.take(1)[0]
        return bit

    def move_on(self, k: int, symbol: int, c: int) -> None:
        S = self.symbols
        self.history = (self.history << 8) + c & 2**48 - 1
        if inner(c):
            self.word = (self.word + (c + 32 if 65 <= c <= 90 else c) + 1) * 0x2F0B4C47 & WIDE
        elif self.word:
            self.before, self.word = self.word, 0
        if symbol == 256:
            self.above, self.stop, self.start = self.start, k, k + 1
        elif self.above < self.stop:
            if inner(c):
                self.above += inner(S[self.above] & 255)
            else:
                reach = S[self.above : min(self.stop, self.above + 32)]
                self.above += reach.index(c) + 1 if c in reach else 1
        h = hashed(self.history & WIDE, self.history >> 32) & len(self.seen) - 1
        if self.length:
            self.length, self.match = min(self.length + 1, 2**16), self.match + 1
        else:
            at, n = self.seen[h], 0
            while n < min(32, at) and S[at - 1 - n] == S[k - n]:
                n += 1
            if n >= 6:
                self.match, self.length = at, n
        self.seen[h] = k + 1


def learnt(chance: tuple[int, int], bit: int) -> tuple[int, int]:
    p, asked = chance
    return p + (((bit << 20) - p) * (2**17 // (2 * asked + 3)) >> 16), min(asked + 1, 1023)


def physical(kind: pa.DataType) -> np.dtype:
    """The numbers by which Arrow stores a type."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype())
    need(pa.types.is_temporal(kind), f"type {kind} is not handled")
    return np.dtype(f"i{kind.bit_width // 8}")


def node(data: bytes, n: int, kind: pa.DataType) -> pa.Array:
    """A node of texts or of numbers (7.2)."""
    cursor = Cursor(data)
    tag, valid = cursor.take(1)[0], np.ones(n, bool)
    if tag == 1:
        cursor.close()
        return pa.nulls(n, kind)
    if tag == 2:
        valid = packed(cursor.piece(), "u1", n).astype(bool)
    elif tag == 3:
        count = cursor.varint()
        valid = np.repeat(np.arange(count) % 2 == 0, packed(cursor.piece(), "i8", count))
    if pa.types.is_string(kind):
        values = iter(texts(cursor.rest(), int(valid.sum())))
        return pa.array([next(values) if there else None for there in valid], pa.binary()).cast(kind)
    numbers = np.zeros(n, physical(kind))
    numbers[valid] = packed(cursor.rest(), numbers.dtype, int(valid.sum()))
    return pa.array(numbers, mask=~valid).view(kind)


def filled(raw: dict, required: str, **defaults: object) -> SimpleNamespace:
    """A JSON object with its defaults (1)."""
    names = set(required.split())
    need(names <= set(raw) <= names | set(defaults), f"keys missing or unknown among {sorted(raw)}")
    return SimpleNamespace(**defaults | raw)


def read_entry(raw: dict, field: pa.Field | None) -> SimpleNamespace:
    """A column or, without a field, a one-hot group (3, 5, 8)."""
    entry = filled(raw, "", coder="rival", grid=None, derived=None)
    if entry.grid:
        entry.grid = filled(
            entry.grid,
            "name kind scale",
            low=0,
            high=0,
            offset=0,
            step=1,
            digits=0,
            parts=0,
            point=0,
            sources=[],
            shape=[],
            bound=0.0,
            values=None,
            one_hot=False,
        )
        need(not entry.grid.parts or entry.grid.scale == "ranks", "a grid without ranks has parts")
        need(not entry.grid.point or entry.grid.scale == "lattice", "a grid without lattice has a point")
        need(
            len(entry.grid.sources) == 2 * (entry.grid.scale in SUMS),
            "a grid has other sources than its scale",
        )
        need(bool(entry.grid.shape) == (entry.grid.kind == "image"), "a grid with a shape is not of images")
    if entry.derived:
        entry.derived = filled(entry.derived, "name", terms=[], keys=[], modulus=0, base=0, follows=None)
        entry.derived.terms = [filled(term, "column factor") for term in entry.derived.terms]
    entry.name, entry.kind = (field.name, field.type) if field else (entry.grid.name, pa.string())
    need(not pa.types.is_dictionary(entry.kind), "dictionary types are not handled")
    return entry


def read_header(data: bytes) -> SimpleNamespace:
    cursor = Cursor(squeezed(data))
    header = filled(
        json.loads(cursor.piece()), "rows block_rows group_blocks columns", coded=[], latents=0, model=None
    )
    header.schema = pa.ipc.read_schema(pa.BufferReader(cursor.rest()))
    fields = [*header.schema, *[None] * (len(header.columns) - len(header.schema))]
    entries = [read_entry(raw, field) for raw, field in zip(header.columns, fields, strict=True)]
    header.columns = {entry.name: entry for entry in entries}
    header.coded = [entries[place].name for place in header.coded]
    return header


def read_parts(data: bytes) -> tuple[SimpleNamespace, list[bytes]]:
    """The header, and what is between it and the index: tables, model, streams (2, 4)."""
    need(data[:8] == HEAD and data[-8:] == TAIL and len(data) >= 52, "no archive, or cut short")
    version, flags, length, digest = struct.unpack("<HHIQ", data[8:24])
    need(1 <= version <= 9 and flags == 0, "unknown version or flags")
    need(checksum(data[:16] + data[24 : 24 + length]) == digest, "header is damaged")
    position, size, digest = struct.unpack("<QIQ", data[-28:-8])
    need(position + size + 28 == len(data), "index is misplaced")
    need(checksum(data[16:24] + data[position:-16]) == digest, "index is damaged")
    header = read_header(data[24 : 24 + length])
    header.version = version
    blocks = -(-header.rows // header.block_rows)
    groups = -(-blocks // header.group_blocks)
    streams = groups * len(header.columns) + (blocks * (1 + len(header.coded)) if header.model else 0)
    body, index, parts = Cursor(data[24 + length : position]), Cursor(data[position:-28]), []
    for _ in range(2 + streams):
        part = body.take(index.varint())
        need(not part or index.take(4) == struct.pack("<Q", checksum(part))[:4], "a part is damaged")
        parts.append(part)
    body.close()
    squeezed(index.rest())  # the report, which decoding does not need
    return header, parts


def fractions(gaps: np.ndarray, grid: SimpleNamespace) -> np.ndarray:
    """Whole numbers of parts, rounded to decimals (6)."""
    need(bool(((gaps >= -(2**20)) & (gaps <= 2**20)).all()), "a gap of fractions is too large")
    unit = np.float64(10**grid.digits)
    return np.rint(np.cumsum(gaps) * unit / grid.parts) / unit + 0.0  # of -0.0, this makes 0.0


def read_tables(header: SimpleNamespace, data: bytes) -> None:
    """Fill in the values of grids and the tables of functions (6)."""
    cursor = Cursor(data)
    for grid in (entry.grid for entry in header.columns.values()):
        if grid and grid.values == []:
            count, piece = cursor.varint(), cursor.piece()
            if grid.parts:
                grid.values = fractions(packed(piece, "i8", count), grid)
            else:
                kind = pa.string() if grid.kind == "category" else pa.float64()
                grid.values = node(piece, count, kind).to_pylist()
    for function in (entry.derived for entry in header.columns.values()):
        if function:
            count = cursor.varint()
            function.table, states = packed(cursor.piece(), "i8", count), cursor.piece()
            function.states = packed(states, "u1", count) if states else np.zeros(count, np.uint8)
    cursor.close()


def rounded(formula: Callable[[Decimal], Decimal], count: int, digest: str) -> list[int]:
    """A table of numbers (10)."""
    with localcontext() as context:
        context.prec = 40
        entries = [round(formula(Decimal(i))) for i in range(count)]
    if count == 4097:  # the ends of the sigmoid are not its formula's
        entries[0], entries[-1] = 0, 2**30
    need(hashlib.sha256(np.array(entries, "<i8")).hexdigest() == digest, "a table of numbers is wrong")
    return entries


EXP = rounded(
    lambda i: 2**24 * (-i / 256).exp(),
    4096,
    "530993c673053cd9fd46d44f4504c3fbdbb0fe83ebfcadebfc2c56914ca0e39c",
)
SIGMOID = rounded(
    lambda i: 2**30 / (1 + ((2048 - i) / 128).exp()),
    4097,
    "440ab0e0ff26d28343a3c9199aa9e584c95085f71e558080b269b97c25c6a734",
)
SCALE = rounded(
    lambda i: 2**15 * Decimal(2) ** (-i / 256),
    256,
    "d0abdadd43ce3963dd152b4a5f7d9647993448ad51d5ed72a0f1902258d2e0ae",
)
SQUASH = rounded(
    lambda i: 8 * (1 + i).ln() / Decimal(2).ln(),
    1024,
    "e0a524d7ac85c244a174f853773d10226cff6cca6d20d8244c7dd4faac8e763b",
)
WIDE = 2**32 - 1
LOGISTIC = [
    clip(SIGMOID[2048 + (x >> 1)] + SIGMOID[2048 + (x + 1 >> 1)] >> 15, 1, 65535) for x in range(-3072, 3073)
]
STRETCH = [clip(bisect_left(LOGISTIC, 16 * q + 8) - 3072, -2815, 2815) for q in range(4096)]
STATES = all_states()
FOLLOWING = [[STATES.index(after(state, bit)) for bit in (0, 1)] for state in STATES]


def read_plan(data: bytes) -> SimpleNamespace:
    required, flags = "latents width columns", dict.fromkeys(("above", "deep", "direct", "fine"), False)
    plan = filled(json.loads(data), required, reach=5, prior_width=16, fraction=7, **flags)
    plan.columns = [
        filled(
            raw,
            "name head low high ordered",
            states=[],
            history=False,
            center=0,
            spread=1,
            bins=[],
            unit=0,
            components=[],
            linear=None,
            recall=[],
            contexts=[],
        )
        for raw in plan.columns
    ]
    for item in plan.columns:
        item.span = item.high - item.low + 1
        item.direct, item.fine = plan.direct, plan.fine
        item.linear = filled(item.linear, "sources now before own constant") if item.linear else None
        if not item.ordered:
            item.linear, item.recall = None, []
    return plan


def code_shapes(plan: SimpleNamespace) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, group of weights and shape of each tensor of the codes, in order (9)."""
    d, v, w, classes = plan.latents, plan.prior_width, plan.width, 2 * plan.reach + 1
    yield "prior_before", "prior", (d, 1, v)
    yield "prior_after", "prior", (d, 2, v)
    yield "prior_bias", "prior", (d, v)
    yield "prior_head", "prior", (d, classes, v)
    yield "prior_head_bias", "prior", (d, classes)
    yield "code_after", "after", (d, 2, w)
    if plan.above:
        yield "prior_above", "prior", (d, 2, v)
        yield "prior_same", "prior", (d, v)
        yield "prior_stay", "prior", (d,)
    if plan.deep:
        yield "prior_hidden", "prior", (d, v, v)
        yield "prior_hidden_bias", "prior", (d, v)


def item_shapes(item: SimpleNamespace, w: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    linear, recall, contexts = item.linear is not None, bool(item.recall), len(item.contexts)
    symbols = item.span + 1 if item.span <= 256 and (item.head == SOFTMAX or not item.ordered) else 0
    bins = len(item.bins) + 2 if item.bins and item.ordered and item.head != SOFTMAX else 0
    outputs = len(item.states) + (item.span, 3 * len(item.components), contexts + 1)[item.head]
    before = 3 + 6 * item.history + linear + 2 * recall if item.ordered else 1
    yield "before", "before", (before + 2 * contexts, w)
    if item.direct:
        yield "direct", "before", (before + 2 * contexts, w)
    yield "after", "after", (4 + linear + recall if item.ordered else 1, w)
    yield "embed_before", "embed", (symbols, w)
    yield "embed_after", "embed", (symbols + bins, w)
    yield "bias", "bias", (w,)
    yield "hidden", "hidden", (w, w)
    yield "hidden_bias", "bias", (w,)
    yield "head", "head", (outputs, w)
    yield "head_bias", "bias", (outputs,)


def read_model(header: SimpleNamespace, data: bytes) -> SimpleNamespace:
    """The plan, with the tensors in `weights` of it and of its items (9); of images that of 9.1, with its codes'."""
    need(hashlib.sha256(data).hexdigest() == header.model["sha256"], "the model is missing or damaged")
    grids = [header.columns[name].grid for name in header.coded]
    plan = read_pixels(data, grids[0]) if any(grid.shape for grid in grids) else read_numbers(data)
    need(plan.latents == header.latents, "header and plan disagree")
    return plan


def read_numbers(data: bytes) -> SimpleNamespace:
    cursor = Cursor(data)
    plan_bytes, *pieces = (cursor.take(*struct.unpack("<I", cursor.take(4))) for _ in range(8))
    cursor.close()
    plan, groups = read_plan(zlib.decompress(plan_bytes)), {}
    names = ["before", "after", "embed", "bias", "hidden", "head", "prior"]
    for group, piece in zip(names, pieces, strict=True):
        weights = standalone.simple_decompress(piece) if piece else np.zeros(0, np.int16)
        groups[group] = Cursor(weights.tobytes())

    def tensors(shapes: Iterator[tuple[str, str, tuple[int, ...]]]) -> SimpleNamespace:
        found = SimpleNamespace()
        for name, group, shape in shapes:
            weights = np.frombuffer(groups[group].take(2 * int(np.prod(shape))), "i2")
            setattr(found, name, weights.astype("i8").reshape(shape))
        return found

    need(plan.latents > 0 or not (plan.above or plan.deep), "a prior without latents")
    plan.weights = tensors(code_shapes(plan))
    for item in plan.columns:
        item.weights = tensors(item_shapes(item, plan.width))
    for rest in groups.values():
        rest.close()
    return plan


def pixel_shapes(plan: SimpleNamespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of images, in order (9.1)."""
    c, w, m, d, (h, v) = plan.channels, plan.units, plan.maps, plan.latents, plan.sizes[0]
    inputs = len(plan.around) * c + c - 1 + (m if d else 0)
    yield "first", (c, inputs, w)
    yield "first_bias", (c, w)
    yield "row", (c, min(plan.height, 32), w)
    yield "column", (c, min(plan.width, 32), w)
    yield "hidden", (c, plan.layers, w, w)
    yield "hidden_bias", (c, plan.layers, w)
    yield "head", (c, w, 18)
    yield "head_bias", (c, 18)
    yield "seen", (c, plan.counted, 12)
    if d:
        yield "seed", (2 * d, h * v * m)
        yield "seed_bias", (h * v * m,)
        yield "conv", (len(plan.sizes) - 1, 9 * m, m)
        yield "conv_bias", (len(plan.sizes) - 1, m)


def read_pixels(data: bytes, grid: SimpleNamespace) -> SimpleNamespace:
    """The plan of images, with its tensors in `weights` and the plan of its codes in `codes` (9.1)."""
    cursor = Cursor(data)
    plan_bytes, codes, body = (cursor.take(*struct.unpack("<I", cursor.take(4))) for _ in range(3))
    cursor.close()
    usual = {
        "up": 4,
        "side": 3,
        "units": 32,
        "layers": 1,
        "maps": 8,
        "fraction": 8,
        "latents": 0,
        "counted": 0,
    }
    plan = filled(json.loads(zlib.decompress(plan_bytes)), "name height width channels levels", **usual)
    need([plan.height, plan.width, plan.channels] == grid.shape, "plan and grid are of other shapes")
    need(plan.levels == grid.high + 1, "plan and grid are of other levels")
    plan.codes, plan.columns = read_numbers(codes), []
    need(plan.codes.latents == plan.latents and not plan.codes.columns, "the codes are not the images'")
    plan.around = [(dy, dx) for dy in range(-plan.up, 0) for dx in range(-plan.side, plan.side + 1)]
    plan.around += [(0, dx) for dx in range(-plan.side, 0)]
    plan.sizes = [(plan.height, plan.width)]
    while max(plan.sizes[0]) > 8:
        plan.sizes.insert(0, tuple(-(-size // 2) for size in plan.sizes[0]))
    weights, plan.weights = Cursor(standalone.simple_decompress(body).tobytes()), SimpleNamespace()
    for name, shape in pixel_shapes(plan):
        tensor = np.frombuffer(weights.take(2 * int(np.prod(shape))), "i2")
        setattr(plan.weights, name, tensor.astype("i8").reshape(shape))
    weights.close()
    plan.factors = [
        [factors_of(row, plan.fraction) for row in channel] for channel in plan.weights.seen.tolist()
    ]
    return plan


def factors_of(weights: list[int], f: int) -> list[int]:
    """What the classes of counts multiply by (12.4)."""
    v = [(weight << 8) + (1 << f - 1) >> f for weight in weights]
    return [max(1, EXP[min(max(v) - one, 4095)] >> 12) for one in v]


def version_of(header: SimpleNamespace, plan: SimpleNamespace | None) -> int:
    """The version that a file of this content has (2)."""
    if any(entry.grid and entry.grid.shape for entry in header.columns.values()):
        return 8 if plan and getattr(plan, "counted", 0) else 7
    news = [entry.grid.parts for entry in header.columns.values() if entry.grid]
    if plan:
        news += [plan.deep, *(item.history or len(item.weights.head) > 67 for item in plan.columns)]
    grouped = len(header.columns) > len(header.schema)
    if any(entry.grid and entry.grid.scale in NUDGED for entry in header.columns.values()):
        return 6
    if plan and (plan.direct or plan.fine):
        return 5
    return 4 if any(news) else 3 if plan and plan.above else 1 + grouped


def mixture(outputs: list[int], bases: list[int], plan: SimpleNamespace) -> Callable[[int], int]:
    """Where the interval of each symbol starts (12.3)."""
    n, low, high, span, parts = len(bases), plan.low, plan.high, plan.span, []
    masses = [EXP[min(max(outputs[:n]) - logit, 4095)] >> (0 if plan.fine else 8) for logit in outputs[:n]]
    for base, mass, offset, log_scale in zip(
        bases, masses, outputs[n : 2 * n], outputs[2 * n :], strict=True
    ):
        mean = (base << 8) + (clip(offset, -(2**20), 2**20) << plan.unit)
        bits = clip(log_scale, -1280, 5120)
        parts.append(
            (
                mass * (TOTAL - span) // sum(masses),
                clip(mean, low - span << 8, high + span << 8),
                SCALE[bits & 255],
                6 + (bits >> 8),
            )
        )

    def start(k: int) -> int:
        total = 0
        for share, mean, mantissa, shift in parts:
            z = clip(((k << 8) - 128 - mean) * mantissa >> shift, -(2**21), 2**21) + 2**21
            a = z >> 10
            y = SIGMOID[a] + ((SIGMOID[a + 1] - SIGMOID[a]) * (z & 1023) >> 10 if a < 4096 else 0)
            total += share * y
        return (total >> 30) + k - low if k > low else 0

    return start


class Stream:
    """A stream of codes or of a neural column (12.1)."""

    def __init__(self, data: bytes) -> None:
        need(len(data) >= 9 and len(data) % 4 == 1 and data[0] <= 1, "a stream has no start")
        self.flag, self.words = data[0], np.frombuffer(data[1:], "<u4")[::-1].tolist()
        self.state = self.words.pop() << 32 | self.words.pop()
        need(STATE_LOW <= self.state < 2**63, "a stream starts outside its range")

    @property
    def target(self) -> int:
        return self.state & TOTAL - 1

    def take(self, start: int, stop: int) -> None:
        self.state = (stop - start) * (self.state >> 28) + self.target - start
        if self.state < STATE_LOW:
            need(self.words != [], "a stream ends early")
            self.state = self.state << 32 | self.words.pop()

    def choose(self, stops: list[int]) -> int:
        """Read one of the adjoining intervals that end at `stops`."""
        k = bisect_right(stops, self.target)
        self.take(stops[k - 1] if k else 0, stops[k])
        return k

    def read_class(self, logits: list[int]) -> int:
        top, room = max(logits), TOTAL - len(logits)
        sums = list(accumulate(EXP[min(top - logit, 4095)] for logit in logits))
        return self.choose([part * room // sums[-1] + k + 1 for k, part in enumerate(sums)])

    def read_mixture(self, outputs: list[int], bases: list[int], plan: SimpleNamespace) -> int:
        """A number around `bases`; `plan` has its `low`, `high`, `span`, `unit` and `fine`."""
        low, high, start = plan.low, plan.high, mixture(outputs, bases, plan)
        k = low - 1 + bisect_right(range(low, high + 1), self.target, key=start)
        self.take(start(k), start(k + 1) if k < high else TOTAL)
        return k

    def read_counted(
        self, outputs: list[int], bases: list[int], plan: SimpleNamespace, n: list[Counter], factors: list
    ) -> int:
        """A symbol of `plan`, its last bits by `factors` of how often there was each half of what is left (12.4)."""
        start, bits = mixture(outputs, bases, plan), len(factors)

        def below(k: int) -> int:
            return TOTAL if k > plan.high else start(k)

        low = bisect_right(range(0, plan.high + 1, 1 << bits), self.target, key=below) - 1 << bits
        begin, end = below(low), below(low + (1 << bits))
        self.take(begin, end)
        for i in reversed(range(bits)):
            middle = low + (1 << i)
            if middle > plan.high:
                continue
            between = below(middle)
            a = (between - begin) * factors[i][bisect_right(OFTEN, n[i][low >> i])]
            b = (end - between) * factors[i][bisect_right(OFTEN, n[i][middle >> i])]
            a, b = (a >> 6, b >> 6) if a + b >= 1 << 34 else (a, b)
            if self.choose([1 + a * (TOTAL - 2) // (a + b), TOTAL]):
                low, begin = middle, between
            else:
                end = between
        for i in range(bits):
            n[i][low >> i] += 1
        return low

    def close(self) -> None:
        need(self.state == STATE_LOW and not self.words, "a stream does not end where it should")


def squashed(x: int) -> int:
    a, o = abs(x), 0
    while a > 1023:
        a, o = a >> 1, o + 8
    r = min(SQUASH[a] + o, 127)
    return r if x >= 0 else -r


class Item:
    """A neural column within a block: its memory and features (11), and the reading of its cells (12.3)."""

    def __init__(self, plan: SimpleNamespace, data: bytes, items: list["Item"]) -> None:
        self.plan, self.weights, self.stream, self.items = plan, plan.weights, Stream(data), items
        self.p1 = self.p2 = self.p3 = self.p4 = self.other = plan.center
        self.run = self.last_run = 0
        self.missing, self.name = 0, plan.span
        self.value = self.state = self.predicted = self.recalled = 0
        self.last: dict[int, int] = {}
        self.counts: list[dict[int, dict[int, int]]] = [{} for _ in plan.contexts]

    def magnitude(self, x: int) -> int:
        return clip((x - self.plan.center) * self.plan.spread >> 16, -127, 127)

    def key(self, parents: list[int]) -> int:
        k = 0
        for parent in (self.items[p] for p in parents):
            cell = (parent.value - parent.plan.low + 1) * 4 + parent.state
            k = k * 1000003 + cell & 2**42 - 1
        return k

    def predict(self) -> int:
        linear, low, high, span = self.plan.linear, self.plan.low, self.plan.high, self.plan.span
        total = linear.own * self.p1 + linear.constant
        for now, before, q in zip(linear.now, linear.before, linear.sources, strict=True):
            source = self.items[q]
            total += now * (source.value if source.state == VALUE else source.p1) + before * source.p1
        return clip(total + 32768 >> 16, low - span, high + span)

    def before(self) -> list[int]:
        """The features before coding; what they look up is kept for the cell."""
        plan, features = self.plan, []
        if plan.ordered:
            features += [self.magnitude(self.p1), squashed(self.p1 - self.p2)]
        features.append(32 * self.missing)
        if plan.ordered and plan.history:
            steps = self.p2 - self.p3, self.p3 - self.p4, self.p1 - self.other
            features += map(squashed, (*steps, self.run, self.last_run, self.run - self.last_run))
        if plan.linear:
            self.predicted = self.predict()
            features.append(squashed(self.predicted - self.p1))
        if plan.recall:
            self.recall_key = self.key(plan.recall)
            self.recalled = self.last.get(self.recall_key, self.p1)
            features += [squashed(self.recalled - self.p1), 32 * (self.recall_key in self.last)]
        self.found = [
            counts.setdefault(self.key(parents), {})
            for counts, parents in zip(self.counts, plan.contexts, strict=True)
        ]
        for known in self.found:
            features += [squashed(sum(known.values())), squashed(len(known))]
        return features

    def after(self) -> tuple[list[int], int]:
        """The features after coding, and the row of the embedding."""
        plan, there = self.plan, self.state == VALUE
        x, m = (self.value, self.value - plan.low) if there else (self.p1, plan.span)
        if not plan.ordered:
            return [32 * (m == self.name)], m
        features = [self.magnitude(x), squashed(x - self.p1), 32 * (x == self.p1), 32 * (not there)]
        features += [squashed(x - self.predicted)] if plan.linear else []
        features += [squashed(x - self.recalled)] if plan.recall else []
        if plan.head != SOFTMAX:
            m = bisect_right(plan.bins, x) if there else len(plan.bins) + 1
        return features, m

    def enter(self) -> None:
        if self.state == VALUE:
            if self.plan.recall:
                self.last[self.recall_key] = self.value
            for known in self.found:
                known[self.value] = known.get(self.value, 0) + 1

    def end_row(self) -> None:
        self.missing, self.name = 1, self.plan.span
        if self.state == VALUE:
            if self.value == self.p1:
                self.run += 1
            else:
                self.other, self.last_run, self.run = self.p1, self.run, 0
            self.p1, self.p2, self.p3, self.p4 = self.value, self.p1, self.p2, self.p3
            self.missing, self.name = 0, self.value - self.plan.low

    def read_cell(self, outputs: list[int]) -> None:
        logits = {VALUE: 0}
        for state in (NULL, NAN, ESCAPE):
            if state in self.plan.states:
                logits[state] = outputs[self.plan.states.index(state)]
            elif self.stream.flag:
                logits[state] = UNSEEN
        self.state, self.value = VALUE, 0
        if len(logits) > 1:
            self.state = list(logits)[self.stream.read_class(list(logits.values()))]
        if self.state == VALUE:
            read = (self.read_softmax, self.read_mixture, self.read_memory)[self.plan.head]
            self.value = read(outputs[len(self.plan.states) :])

    def read_softmax(self, logits: list[int]) -> int:
        return self.plan.low + self.stream.read_class(logits)  # of a single class, this reads nothing

    def read_mixture(self, outputs: list[int]) -> int:
        plan = self.plan
        bases = (
            plan.center,
            self.p1,
            clip(2 * self.p1 - self.p2, plan.low, plan.high),
            self.predicted,
            self.recalled,
        )
        return self.stream.read_mixture(outputs, [bases[base] for base in plan.components], plan)

    def read_memory(self, outputs: list[int]) -> int:
        literal, span = len(self.found), self.plan.span
        classes = [e for e, known in enumerate(self.found) if known] + [literal]
        chosen = classes[self.stream.read_class([outputs[e] for e in classes])]
        if chosen == literal:
            k = self.stream.target * span >> 28
            self.stream.take(-(-k * TOTAL // span), -(-(k + 1) * TOTAL // span))
            return self.plan.low + k
        sums = list(accumulate(self.found[chosen].values()))
        return list(self.found[chosen])[self.stream.choose([above * TOTAL // sums[-1] for above in sums])]


def act(x: np.ndarray, s: int) -> np.ndarray:
    return np.clip(x + (1 << s - 1) >> s, 0, 2048)


def head(weights: np.ndarray, bias: np.ndarray, h: np.ndarray, f: int) -> list[int]:
    return (weights @ h + (bias << 8) + (1 << f - 1) >> f).tolist()


def shown(q: int) -> np.ndarray:
    return np.array([clip(16 * q, -127, 127), 32 if q else 0])


def read_code(plan: SimpleNamespace, stream: Stream, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A row's code, from that of the last row, and the sum T with which its items begin (12.2)."""
    weights, f, code = plan.weights, plan.fraction, np.zeros_like(last)
    prior, total = np.zeros(plan.prior_width, np.int64), np.zeros(plan.width, np.int64)
    if plan.above:
        for i in range(plan.latents):
            prior += shown(int(last[i])) @ weights.prior_above[i]
    for i in range(plan.latents):
        prior += shown(int(last[i]))[:1] @ weights.prior_before[i]
        h = act(prior + (weights.prior_bias[i] << 5), f - 3)
        if plan.deep:
            h = act(weights.prior_hidden[i] @ h + (weights.prior_hidden_bias[i] << 8), f)
        bias = weights.prior_head_bias[i].copy()
        if plan.above:
            bias[last[i] + plan.reach] += weights.prior_stay[i]
        code[i] = stream.read_class(head(weights.prior_head[i], bias, h, f)) - plan.reach
        prior += shown(int(code[i])) @ weights.prior_after[i]
        if plan.above and code[i] == last[i]:
            prior += 32 * weights.prior_same[i]
        total += shown(int(code[i])) @ weights.code_after[i]
    return code, total


def read_item(item: Item, total: np.ndarray, f: int) -> None:
    """A cell. What it adds to `total` stays for the items after it."""
    weights = item.weights
    shown_before = np.array(item.before())
    total += shown_before @ weights.before
    if len(weights.embed_before):
        total += weights.embed_before[item.name] << 5
    h = act(total + (weights.bias << 5), f - 3)
    s = weights.hidden @ h + (weights.hidden_bias << 8)
    if item.plan.direct:
        s = s + 8 * (shown_before @ weights.direct)
    g = act(s, f)
    item.read_cell(head(weights.head, weights.head_bias, g, f))
    features, row = item.after()
    total += np.array(features) @ weights.after
    if len(weights.embed_after):
        total += weights.embed_after[row] << 5
    item.enter()


def read_block(plan: SimpleNamespace, streams: list[bytes], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes, and the cells: items by rows by state and symbol."""
    stream, items = Stream(streams[0]), []
    need(stream.flag == 0, "a stream of codes has a flag")
    for column, data in zip(plan.columns, streams[1:], strict=True):
        items.append(Item(column, data, items))
    codes = np.zeros((rows + 1, plan.latents), np.int8)  # the first row has one of zeros before it
    cells = np.zeros((len(items), rows, 2), np.int64)
    for t in range(rows):
        codes[t + 1], total = read_code(plan, stream, codes[t])
        for place, item in enumerate(items):
            read_item(item, total, plan.fraction)
            cells[place, t] = item.state, item.value
        for item in items:
            item.end_row()
    for ended in (stream, *(item.stream for item in items)):
        ended.close()
    return codes[1:], cells


def features_of(plan: SimpleNamespace, code: np.ndarray) -> np.ndarray:
    """What is shown of a code: height by width by maps (12.4)."""
    weights, f, m = plan.weights, plan.fraction, plan.maps
    if not plan.latents:
        return np.zeros((plan.height, plan.width, 0), np.int64)
    z = np.concatenate([shown(q) for q in code.tolist()])
    found = act(z @ weights.seed + (weights.seed_bias << 5), f - 3).reshape(*plan.sizes[0], m)
    for k, (a, b) in enumerate(plan.sizes[1:]):
        edged = np.zeros((a + 2, b + 2, m), np.int64)
        edged[1:-1, 1:-1] = found[np.arange(a) // 2][:, np.arange(b) // 2]
        near = np.concatenate([edged[y : y + a, x : x + b] for y in range(3) for x in range(3)], axis=2)
        found = act(near @ weights.conv[k] + (weights.conv_bias[k] << 8), f)
    return found >> 1


def read_image(plan: SimpleNamespace, stream: Stream, code: np.ndarray) -> np.ndarray:
    """The symbols of an image (12.4)."""
    height, width, c, high = plan.height, plan.width, plan.channels, plan.levels - 1
    image, told = np.zeros((height, width, c), np.int64), features_of(plan, code)
    seen = [[Counter() for _ in range(plan.counted)] for _ in range(c)]
    tones = np.zeros((height + plan.up, width + 2 * plan.side, c), np.int64)  # with what lies outside
    for y in range(height):
        for x in range(width):
            at = y + plan.up, x + plan.side
            around = np.concatenate([tones[at[0] + dy, at[1] + dx] for dy, dx in plan.around])
            for channel in range(c):
                inputs = np.concatenate([around, tones[at][: c - 1], told[y, x]])
                outputs = pixel_outputs(plan, channel, y, x, inputs)
                bases = bases_of(image, y, x, channel, high)
                if plan.counted:
                    value = stream.read_counted(
                        outputs, bases, plan.item, seen[channel], plan.factors[channel]
                    )
                else:
                    value = stream.read_mixture(outputs, bases, plan.item)
                image[y, x, channel] = value
                tones[at][channel] = value * 255 // high  # what is not coded yet is 0
    return image


def pixel_outputs(plan: SimpleNamespace, c: int, y: int, x: int, inputs: np.ndarray) -> list[int]:
    w, f = plan.weights, plan.fraction
    down, across = y * min(plan.height, 32) // plan.height, x * min(plan.width, 32) // plan.width
    s = inputs @ w.first[c] + (w.first_bias[c] + w.row[c, down] + w.column[c, across] << 7)
    g = act(s, f - 1)
    for k in range(plan.layers):
        g = act(g @ w.hidden[c, k] + (w.hidden_bias[c, k] << 8), f)
    return head(w.head[c].T, w.head_bias[c], g, f)


def bases_of(image: np.ndarray, y: int, x: int, c: int, high: int) -> list[int]:
    def p(y: int, x: int, c: int) -> int:
        return int(image[y, x, c])

    left = p(y, x - 1, c) if x else p(y - 1, x, c) if y else 0
    above = p(y - 1, x, c) if y else left
    corner = p(y - 1, x - 1, c) if y and x else above
    if c:
        other = left + p(y, x, c - 1) - (p(y, x - 1, c - 1) if x else 0)
    else:
        other = p(y - 1, x + 1, c) if y and x + 1 < image.shape[1] else above
    return [left, above, clip(left + above - corner, 0, high), clip(other, 0, high), 0, 0]


def read_images(plan: SimpleNamespace, streams: list[bytes], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes, and the symbols: rows by values."""
    codes, _ = read_block(plan.codes, streams[:1], rows)
    stream, images = Stream(streams[1]), np.zeros((rows, plan.height * plan.width * plan.channels), np.int64)
    need(stream.flag == 0, "a stream of pixels has a flag")
    unit = max(0, (plan.levels - 1).bit_length() - 4)
    plan.item = SimpleNamespace(low=0, high=plan.levels - 1, span=plan.levels, unit=unit, fine=True)
    for t in range(rows):
        images[t] = read_image(plan, stream, codes[t]).ravel()
    stream.close()
    return codes, images


def image_cells(blocks: list[np.ndarray], data: bytes, rows: int) -> Cells:
    """Images as blocks decoded them, and which are null (7)."""
    states = packed(data, "u1", rows) if data else np.zeros(rows, np.uint8)
    return Cells(states, np.concatenate(blocks), None)


def read_cells(cursor: Cursor, n: int, entry: SimpleNamespace) -> Cells:
    """Stored cells (7)."""
    axes, kind = (int(np.prod(entry.grid.shape)),) if entry.grid.shape else (), entry.kind
    states, symbols = packed(cursor.piece(), "u1", n), np.zeros((n, *axes), np.int64)
    count = int((states == VALUE).sum())
    symbols[states == VALUE] = packed(cursor.piece(), "i8", count * int(np.prod(axes))).reshape(-1, *axes)
    escapes = int((states == ESCAPE).sum())
    cells = Cells(states, symbols, node(cursor.rest(), escapes, kind) if escapes else None)
    cursor.close()
    return cells


def neural_cells(blocks: list[np.ndarray], data: bytes, kind: pa.DataType) -> Cells:
    """Cells as blocks decoded them, with the escapes of their group (7, 13)."""
    cells, cursor = np.concatenate(blocks), Cursor(data)
    counts = [int((block[:, 0] == ESCAPE).sum()) for block in blocks]
    need(not data or [cursor.varint() for _ in blocks] == counts, "not as many escapes as announced")
    escapes = node(cursor.rest(), sum(counts), kind) if any(counts) else None
    cursor.close()
    return Cells(cells[:, 0], cells[:, 1], escapes)


def derived_cells(
    entry: SimpleNamespace,
    data: bytes,
    rows: int,
    columns: dict[str, SimpleNamespace],
    cells_of: Callable[[str], Cells],
) -> Cells:
    """Cells by a function of other columns, and its exceptions (7, 8)."""
    function, grid, place = entry.derived, entry.grid, np.zeros(rows, np.int64)
    for key in function.keys:
        cells, low, high = cells_of(key), columns[key].grid.low, columns[key].grid.high
        special = high - low + cells.states
        place = place * (high - low + 4) + np.where(cells.states == VALUE, cells.symbols - low, special)
    total, states = function.table[place], function.states[place]
    for term in function.terms:
        cells = cells_of(term.column)
        total = total + term.factor * cells.symbols
        states = np.where(cells.states == VALUE, states, cells.states)
    if function.modulus:
        total = function.base + (total - function.base) % function.modulus
    if function.follows:
        states = np.where(cells_of(function.follows).states == NULL, NULL, states)
    outside = (total < grid.low) | (total > grid.high)
    states = np.where((states == VALUE) & outside | (states == ESCAPE), NULL, states)
    result = Cells(states, np.where(states == VALUE, total, 0), None)
    if not data:
        return result
    cursor = Cursor(data)
    count = cursor.varint()
    at = np.cumsum(packed(cursor.piece(), "i8", count)) - 1
    exceptions = read_cells(cursor, count, entry)
    result.states[at], result.symbols[at] = exceptions.states, exceptions.symbols
    return result._replace(escapes=exceptions.escapes)


def numbers_of(symbols: np.ndarray, grid: SimpleNamespace) -> np.ndarray:
    """Stored numbers of symbols (5)."""
    if grid.scale == "step":
        return grid.offset + grid.step * symbols
    if grid.scale == "clock":
        return symbols // 60 * 100 + symbols % 60
    if grid.scale == "decimal":
        return symbols / np.float64(10**grid.digits)
    if grid.scale == "uniform":
        return symbols * np.float64(grid.step) + np.float64(grid.offset)
    return np.array(grid.values)[symbols]


def excess(n: int) -> int:
    """Digits of halves of a unit beyond 15 (5)."""
    return sum(abs(n) >= 2 * 10**k for k in range(15, 19))


def whole(n: int) -> int:
    unit = 10 ** excess(n)
    return (n + unit) // (2 * unit)


def fifteen(n: int, nudge: int, grid: SimpleNamespace) -> np.float64:
    """`rounded` of the document."""
    return np.float64(whole(n) + nudge) / np.float64(10 ** (grid.digits - excess(n)))


def halves(values: pa.Array, grid: SimpleNamespace) -> list[int]:
    unit = np.float64(2 * 10**grid.digits)
    scaled = [np.rint(x * unit) if x is not None and np.isfinite(x) else 0 for x in values.to_pylist()]
    numbers = [int(n) if abs(n) <= 2**62 - 2**59 else 0 for n in scaled]
    return [whole(n) * 2 * 10 ** excess(n) for n in numbers]


def nudged(
    symbols: np.ndarray, grid: SimpleNamespace, nudges: np.ndarray, sources: list[pa.Array]
) -> np.ndarray:
    """Values of 15 significant digits (5)."""
    if grid.scale == "lattice":
        low = 2**grid.point - 1
        numbers = [
            k * (grid.step >> grid.point) + ((k * (grid.step & low) + grid.offset) >> grid.point)
            for k in symbols.tolist()
        ]
    else:
        sign = 1 if grid.scale == "sum" else -1
        if not grid.digits:
            a, b = (source.fill_null(0.0).to_numpy(zero_copy_only=False) for source in sources)
            with np.errstate(all="ignore"):
                made = a + sign * b
                made[np.isnan(made)] = 0.0
                return (made.view(np.int64) + nudges).view(np.float64)
        numbers = [a + sign * b for a, b in zip(*(halves(source, grid) for source in sources), strict=True)]
    return np.array([fifteen(n, x, grid) for n, x in zip(numbers, nudges.tolist(), strict=True)])


def values_of(
    cells: Cells, grid: SimpleNamespace, kind: pa.DataType, nudges: np.ndarray, sources: list[pa.Array]
) -> pa.Array:
    states, symbols, escapes = cells
    used = symbols[states == VALUE]
    need(bool(((used >= grid.low) & (used <= grid.high)).all()), "a symbol is outside its grid")
    if grid.shape:
        need(bool((states <= NULL).all()), "an image is neither there nor null")
        greys = np.minimum(symbols * grid.step, 255).astype(np.uint8)
        return pa.array([x if state == VALUE else None for x, state in zip(greys, states, strict=True)], kind)
    if grid.scale == "names":
        named = zip(symbols, states, strict=True)
        values = pa.array([grid.values[k] if state == VALUE else None for k, state in named], kind)
    else:
        exact = grid.scale in NUDGED
        numbers = nudged(symbols, grid, nudges, sources) if exact else numbers_of(symbols, grid)
        numbers = numbers.astype(physical(kind))
        if pa.types.is_floating(kind):
            numbers[states == NAN] = np.nan
        values = pa.array(numbers, mask=states == NULL).view(kind)
    return values if escapes is None else pc.replace_with_mask(values, pa.array(states == ESCAPE), escapes)


def group_table(
    header: SimpleNamespace, streams: dict[str, bytes], neural: list[np.ndarray], rows: int
) -> pa.Table:
    nudges = {name: np.zeros(rows, np.int64) for name in streams}
    for name, entry in header.columns.items():
        if entry.grid and entry.grid.scale in NUDGED:
            cursor = Cursor(streams[name])
            nudges[name] = packed(cursor.piece(), "i1", rows)
            streams[name] = cursor.rest()

    @cache  # a column is decoded when it is first asked for, so that sources come first
    def cells_of(name: str) -> Cells:
        entry, data = header.columns[name], streams[name]
        if entry.coder == "neural" and entry.grid.shape:
            return image_cells(neural, data, rows)
        if entry.coder == "neural":
            return neural_cells([block[header.coded.index(name)] for block in neural], data, entry.kind)
        if entry.coder == "derived":
            return derived_cells(entry, data, rows, header.columns, cells_of)
        return read_cells(Cursor(data), rows, entry)

    @cache
    def column(name: str) -> pa.Array:
        entry = header.columns[name]
        if not entry.grid:
            return node(streams[name], rows, entry.kind)
        sources = [column(source) for source in entry.grid.sources]
        return values_of(cells_of(name), entry.grid, entry.kind, nudges[name], sources)

    arrays = [column(name) for name in header.columns]
    return pa.Table.from_arrays(arrays[: len(header.schema)], schema=header.schema)


def read(path: str | Path) -> tuple[pa.Table, np.ndarray]:
    """The table of an archive, and the codes of its rows: int8, rows by latents."""
    header, (tables, model, *streams) = read_parts(Path(path).read_bytes())
    read_tables(header, tables)
    plan = read_model(header, model) if header.model else None
    need(header.version in {9, version_of(header, plan)}, "version and content disagree")
    parts, codes = (
        [header.schema.empty_table()],
        [np.zeros((0 if plan else header.rows, header.latents), np.int8)],
    )
    following, group_rows = iter(streams), header.block_rows * header.group_blocks
    for first in range(0, header.rows, group_rows):
        rows, neural = min(group_rows, header.rows - first), []
        columns = {name: next(following) for name in header.columns}
        for start in range(0, rows, header.block_rows) if plan else ():
            block = [next(following) for _ in range(1 + len(header.coded))]
            read_rows = read_images if hasattr(plan, "around") else read_block
            code, cells = read_rows(plan, block, min(header.block_rows, rows - start))
            codes.append(code)
            neural.append(cells)
        parts.append(group_table(header, columns, neural, rows))
    return pa.concat_tables(parts), np.concatenate(codes)
