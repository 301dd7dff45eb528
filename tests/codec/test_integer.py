"""Blocks come back, on every machine the same; whatever bytes come in, the answer is data or an error."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from pcodec import ChunkConfig, standalone  # pyright: ignore[reportAttributeAccessIssue]

from data.errors import DamagedError, ModelError
from data.grid import MAX_SPAN, MAX_SYMBOL
from vae.codec.entropy import TOTAL, sigmoid_table
from vae.codec.integer import GROUPS, MAX_CELLS, MAX_REMEMBERED, IntegerModel
from vae.codec.intervals import T_MAX, edge
from vae.codec.jit import COMPILED
from vae.codec.kernel import new_desk
from vae.codec.plan import MAX_TABLES, Plan
from vae.codec.vectors import rounded_up

BLOCKS = settings(max_examples=120 if COMPILED else 40)


class Block(NamedTuple):
    """What one block holds."""

    symbols: npt.NDArray[np.int64]
    states: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.int8]


def model_of(plan: Plan, weights: Any) -> IntegerModel:
    return IntegerModel(plan, {name: weights(name, shape) for name, shape in plan.shapes().items()})


# ------------------------------------------------------------------------------- any plan, any weights, any data


@st.composite
def columns(draw: st.DrawFn, count: int) -> list[dict[str, Any]]:
    """Columns with every head, looking at any columns before them."""
    found: list[dict[str, Any]] = []
    for j in range(count):
        ordered, head = draw(st.booleans()), draw(st.integers(0, 2))
        wide = st.sampled_from([1, 2, 65, 300, 20_000, MAX_SPAN])
        few = st.integers(1, 20) | st.just(128)
        span = draw(few if head == 0 else wide | st.integers(1, 100))
        low = draw(st.sampled_from([0, -3, -MAX_SYMBOL, MAX_SYMBOL - span + 1]))
        earlier = st.lists(st.integers(0, j - 1), max_size=3, unique=True) if j else st.just([])
        item: dict[str, Any] = {
            "name": f"c{j}",
            "head": head,
            "low": low,
            "high": low + span - 1,
            "ordered": ordered,
            "states": draw(st.sampled_from([(), (1,), (2, 3), (1, 2, 3)])),
            "center": draw(st.sampled_from([low, low + span // 2, 0])),
            "spread": draw(st.sampled_from([1, 1 << 16, 1 << 30])),
            "bins": sorted(set(draw(st.lists(st.integers(low, low + span - 1), max_size=4)))),
            "unit": draw(st.sampled_from([0, 3, 20])),
            "recall": draw(earlier),
            "history": draw(st.booleans()),
        }
        item["contexts"] = draw(st.lists(earlier, min_size=head == 2, max_size=4))
        sources = [s for s in draw(earlier) if found[s]["ordered"]]
        if sources or draw(st.booleans()):
            weight = st.sampled_from([0, 65536, -65536, 1 << 26, -(1 << 26)])
            now, before = (
                draw(st.lists(weight, min_size=len(sources), max_size=len(sources))) for _ in range(2)
            )
            constant = draw(st.sampled_from([0, 1 << 52]))
            item["linear"] = {
                "sources": sources, "now": now, "before": before, "own": draw(weight), "constant": constant
            }  # fmt: skip
        bases = [0, 1, 2] + [3] * ("linear" in item) + [4] * bool(item["recall"])
        item["components"] = draw(st.lists(st.sampled_from(bases), min_size=head == 1, max_size=4))
        found.append(item)
    return found


@st.composite
def models(draw: st.DrawFn) -> IntegerModel:
    latents = draw(st.integers(0, 3))
    plan = Plan.model_validate({
        "latents": latents,
        "above": latents > 0 and draw(st.booleans()),
        "deep": latents > 0 and draw(st.booleans()),
        "direct": draw(st.booleans()),
        "fine": draw(st.booleans()),
        "reach": draw(st.sampled_from([1, 5, 30])),
        "width": draw(st.sampled_from([1, 3, 8, 9, 17])),
        "prior_width": draw(st.sampled_from([1, 4])),
        "fraction": draw(st.integers(4, 10)),
        "columns": draw(columns(draw(st.integers(0, 4)))),
    })  # fmt: skip
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([0, 30, 300, 2**15 - 1]))
    try:
        return model_of(plan, lambda _, shape: random.integers(-size, size + 1, shape).astype(np.int16))
    except ModelError:  # these weights could overflow
        reject()


@st.composite
def blocks(draw: st.DrawFn, model: IntegerModel) -> Block:
    """Rows that repeat themselves, so that memories have something to remember; any states; extremes."""
    rows = draw(st.sampled_from([0, 1, 2, 7]) | st.integers(1, 40 if COMPILED else 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns = model.plan.columns
    symbols = np.zeros((rows, len(columns)), np.int64)
    for j, item in enumerate(columns):
        few = random.integers(item.low, item.high + 1, draw(st.sampled_from([1, 4, 40])))
        symbols[:, j] = random.choice(
            np.concatenate([few, [item.low, item.high]][: draw(st.sampled_from([1, 2]))]), rows
        )
    seldom = draw(st.sampled_from([0.0, 0.1, 0.9]))
    states = np.where(random.random(symbols.shape) < seldom, random.integers(1, 4, symbols.shape), 0)
    symbols[states != 0] = 0
    reach = model.plan.reach
    codes = random.integers(-reach, reach + 1, (rows, model.latents)) * (
        random.random((rows, model.latents)) < 0.5
    )
    stays = random.random((rows, model.latents)) < draw(st.sampled_from([0.0, 0.5]))
    for t in range(1, rows):
        codes[t] = np.where(stays[t], codes[t - 1], codes[t])
    return Block(symbols, states.astype(np.uint8), codes.astype(np.int8))


def assert_same(found: tuple[npt.NDArray[Any], ...], block: Block, upto: int | None = None) -> None:
    assert found[0].tolist() == block.symbols[:, :upto].tolist()
    assert found[1].tolist() == block.states[:, :upto].tolist()
    assert found[2].tolist() == block.codes.tolist()


@settings(deadline=None, max_examples=60)
@given(model=models())
def test_weights_have_room_for_whole_vectors_wherever_they_are_read(model: IntegerModel) -> None:
    w, desk = model._weights, new_desk(model._weights)
    width, prior = rounded_up(model.plan.width), rounded_up(model.plan.prior_width)
    for name in ("before", "direct", "after", "code_after", "hidden", "embedding", "bias", "hidden_bias"):
        assert getattr(w, name).shape[-1] == width
    for name in ("prior_before", "prior_above", "prior_after", "prior_same", "prior_bias", "prior_hidden"):
        assert getattr(w, name).shape[-1] == prior
    assert (w.hidden.shape[1], w.prior_hidden.shape[1], w.prior_head.shape[1]) == (width, prior, prior)
    assert w.prior_head.shape[2] >= rounded_up(2 * model.plan.reach + 1)
    first = 0
    for item in model.plan.columns:
        assert first + rounded_up(item.outputs) <= w.head.shape[2]
        assert rounded_up(item.outputs) <= len(desk.product)
        first += item.outputs
    assert len(desk.product) >= max(width, prior, rounded_up(2 * model.plan.reach + 1))
    assert (len(desk.total), len(desk.hidden), len(desk.second), len(desk.inner)) == (width,) * 4
    assert len(desk.prior_total) == len(desk.prior_hidden) == prior


@pytest.mark.jit
@BLOCKS
@given(data=st.data(), model=models())
def test_a_block_comes_back_and_so_does_any_prefix(data: st.DataObject, model: IntegerModel) -> None:
    block = data.draw(blocks(model))
    streams = model.encode_block(*block)
    assert len(streams) == len(model.columns) + 1
    assert_same(model.decode_block(streams, len(block.symbols)), block)
    upto = data.draw(st.integers(0, len(model.columns)))
    # the streams behind a column are not even looked at
    behind = data.draw(st.sampled_from([[], [b"damaged"] * (len(model.columns) - upto)]))
    assert_same(model.decode_block([*streams[: upto + 1], *behind], len(block.symbols), upto), block, upto)
    until = data.draw(st.integers(0, len(block.symbols)))
    first = Block(*(cast(Any, array)[:until] for array in block))
    assert_same(
        model.decode_block([*streams[: upto + 1], *behind], len(block.symbols), upto, until), first, upto
    )


@settings(max_examples=30)
@given(data=st.data(), model=models())
def test_a_model_survives_its_bytes(data: st.DataObject, model: IntegerModel) -> None:
    again = IntegerModel.from_bytes(model.to_bytes())
    assert again.plan == model.plan
    assert again.to_bytes() == model.to_bytes()
    block = data.draw(blocks(model))
    assert again.encode_block(*block) == model.encode_block(*block)


@pytest.mark.jit
def test_what_is_certain_costs_nothing() -> None:
    column = {"name": "c", "head": 0, "low": 7, "high": 7, "ordered": True}
    other = {"name": "m", "head": 2, "low": 7, "high": 7, "ordered": False, "contexts": ((),)}
    model = model_of(
        Plan.model_validate({"latents": 0, "width": 2, "columns": (column, other)}),
        lambda _, shape: np.zeros(shape, np.int16),
    )
    block = Block(np.full((50, 2), 7), np.zeros((50, 2), np.uint8), np.zeros((50, 0), np.int8))
    streams = model.encode_block(*block)
    assert [len(stream) for stream in streams[:2]] == [9, 9]
    assert_same(model.decode_block(streams, 50), block)


# ------------------------------------------------------------------------------------------------ a fixed example


def fixed_numbers(seed: int) -> Any:
    """Whole numbers that no library decides: a linear congruence (Knuth's MMIX)."""
    state = seed

    def draw(count: int, below: int) -> npt.NDArray[np.int64]:
        nonlocal state
        found: list[int] = []
        for _ in range(count):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            found.append((state >> 33) % below)
        return np.array(found, np.int64)

    return draw


def fixed_model(
    *, above: bool = False, newer: bool = False, direct: bool = False, fine: bool = False
) -> IntegerModel:
    """A model of version 1; with `above` of version 3; of version 4, which may have it too, with `newer`; of version 5,
    which may have both, with `direct` or `fine`.
    """
    more, names = ({"history": True}, 107) if newer else ({}, 6)
    linear = {"sources": (1,), "now": (60_000,), "before": (-60_000,), "own": 65_536, "constant": 999}
    plan = Plan.model_validate({
        "latents": 3, "reach": 9, "width": 6, "prior_width": 4, "above": above, "deep": newer,
        "direct": direct, "fine": fine,
        "columns": (
            {"name": "kind", "head": 0, "low": 0, "high": names - 1, "ordered": False, "states": (1,)},
            {"name": "size", "head": 1, "low": -40, "high": 5_000, "ordered": True, "components": (0, 1, 2),
             "bins": (0, 100, 2_000), "center": 300, "spread": 20_000, "states": (1, 2), "unit": 2} | more,
            {"name": "cost", "head": 1, "low": -(1 << 19), "high": (1 << 19) - 1, "ordered": True, "unit": 9,
             "components": (3, 4, 1, 3), "linear": linear, "recall": (0, 1), "contexts": ((0,),), "spread": 12} | more,
            {"name": "key", "head": 2, "low": 0, "high": 19_999, "ordered": False, "contexts": ((0, 1), (0,), ())},
            {"name": "day", "head": 0, "low": 1, "high": 31, "ordered": True, "spread": 1 << 18, "center": 15} | more,
        ),
    })  # fmt: skip
    draw = fixed_numbers(1)
    return model_of(
        plan, lambda _, shape: (draw(int(np.prod(shape)), 181) - 90).reshape(shape).astype(np.int16)
    )


NEWEST = dict.fromkeys(("above", "newer", "direct", "fine"), True)


def fixed_block(model: IntegerModel, rows: int = 60) -> Block:
    draw = fixed_numbers(2)
    symbols = np.zeros((rows, len(model.columns)), np.int64)
    for j, item in enumerate(model.plan.columns):
        pool = item.low + draw(12, item.span)
        symbols[:, j] = pool[draw(rows, 12)]
    symbols[:, 1] = np.clip(np.cumsum(draw(rows, 21) - 10) * 9 + 300, -40, 5_000)
    states = np.where(draw(symbols.size, 12) == 0, draw(symbols.size, 3) + 1, 0).reshape(symbols.shape)
    symbols[states != 0] = 0
    codes = np.where(draw(rows * 3, 2) == 0, draw(rows * 3, 19) - 9, 0).reshape(rows, 3)
    return Block(symbols, states.astype(np.uint8), codes.astype(np.int8))


FIXED_SIZES = [93, 45, 169, 205, 65, 57]
FIXED_DIGEST = "38b00395724bd97481fe83b9003096d5aa9c9b06d42b407a723f31cb0170ad97"
ABOVE_SIZES = [97, 37, 177, 209, 65, 53]
ABOVE_DIGEST = "1c129a726ebde7796838e0c4f68f38d4f641719aa9b31bc1b4867f514df2c488"
NEWER_SIZES = [97, 65, 185, 209, 65, 57]
NEWER_DIGEST = "aeefb49f3a36e3ca1afc800d3b485e1bb54769b1d9397dbb2f8badbf7d406073"
DIRECT_SIZES = [93, 45, 189, 209, 77, 73]
DIRECT_DIGEST = "3a20939129c67872096d2b9904a7610b09c45b7843aab1b59b15db33015e7052"
FINE_SIZES = [93, 45, 169, 205, 65, 57]
FINE_DIGEST = "300e7272dbe7bc233b47ffe9b406ad9b7329f998de7c26da1e8f65a1b07933b9"
NEWEST_SIZES = [97, 77, 161, 209, 65, 61]
NEWEST_DIGEST = "be65e35c847dd81af7177ae8f62da423bbe188c59b9ba7ee30e828c84b8ca781"


@pytest.mark.jit
@pytest.mark.parametrize(
    ("wishes", "version", "sizes", "digest"),
    [
        ((), 1, FIXED_SIZES, FIXED_DIGEST),
        (("above",), 3, ABOVE_SIZES, ABOVE_DIGEST),
        (("above", "newer"), 4, NEWER_SIZES, NEWER_DIGEST),
        (("direct",), 5, DIRECT_SIZES, DIRECT_DIGEST),
        (("fine",), 5, FINE_SIZES, FINE_DIGEST),
        (("above", "newer", "direct", "fine"), 5, NEWEST_SIZES, NEWEST_DIGEST),
    ],
    ids=["before", "above", "newer", "direct", "fine", "newest"],
)
def test_the_bytes_are_the_same_on_every_machine_compiled_or_not(
    wishes: tuple[str, ...], version: int, sizes: list[int], digest: str
) -> None:
    model = fixed_model(**dict.fromkeys(wishes, True))
    assert model.version == version
    block = fixed_block(model)
    streams = model.encode_block(*block)
    assert [len(stream) for stream in streams] == sizes
    assert hashlib.sha256(b"".join(streams)).hexdigest() == digest
    assert_same(model.decode_block(streams, len(block.symbols)), block)


@pytest.mark.jit
@pytest.mark.parametrize(("fine", "bits"), [(True, 14 / math.log(2)), (False, 28)])
def test_a_component_of_a_millionth_is_kept_just_by_fine_shares(fine: bool, bits: float) -> None:
    """Where the likely component rules a value out, the other's share is its price: exp(-14) is below 2**-16."""
    item = ONE | {"head": 1, "high": 100, "ordered": True, "center": 50, "components": (0, 0)}
    plan = Plan.model_validate(SMALL | {"fine": fine, "columns": [item]})
    tensors = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    told = np.array([14, 0, 0, 40, -5, -5]) << plan.fraction  # logits, offsets, log2 scales
    tensors[f"column.{plan.columns[0].name}.head_bias"] = told.astype(np.int16)
    rows = 1_000
    block = Block(
        np.full((rows, 1), 90), np.zeros((rows, 1), np.uint8), np.zeros((rows, plan.latents), np.int8)
    )
    stream = IntegerModel(plan, tensors).encode_block(*block)[1]
    assert 8 * len(stream) / rows == pytest.approx(bits, rel=0.01)


@pytest.mark.jit
def test_threads_write_and_read_the_same() -> None:
    model = fixed_model()
    block = fixed_block(model)
    parts = [Block(*(cast(Any, array)[k : k + 20] for array in block)) for k in range(0, 60, 5)]
    alone = [model.encode_block(*part) for part in parts]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda part: model.encode_block(*part), parts))
        back = list(
            pool.map(
                lambda pair: model.decode_block(pair[0], len(pair[1].symbols)), zip(alone, parts, strict=True)
            )
        )
    assert together == alone
    for found, part in zip(back, parts, strict=True):
        assert_same(found, part)


@pytest.mark.jit
def test_arrays_of_any_layout_are_read_alike() -> None:
    model = fixed_model()
    block = fixed_block(model)
    other = Block(*(cast(Any, np.asfortranarray(array)) for array in block))
    for array in other:
        array.flags.writeable = False
    other = other._replace(
        symbols=cast(Any, other.symbols.astype(np.int32)), codes=cast(Any, other.codes.astype(np.int64))
    )
    assert model.encode_block(*other) == model.encode_block(*block)
    shown = model.observe(block.symbols, block.states)
    assert all(
        (array == shown[name]).all() for name, array in model.observe(other.symbols, other.states).items()
    )


# ---------------------------------------------------------------------------------------------------- damaged streams


def outcome(model: IntegerModel, streams: list[bytes], rows: int) -> str | tuple[npt.NDArray[Any], ...]:
    """What was read, or the complaint."""
    try:
        return model.decode_block(streams, rows)
    except DamagedError as error:
        return str(error)


@pytest.mark.jit
@settings(max_examples=150 if COMPILED else 15)
@given(
    stream=st.integers(0, 5), flip=st.integers(0, 2**20), cut=st.integers(0, 3), more=st.binary(max_size=9)
)
@example(stream=1, flip=0, cut=0, more=b"\0" * 8)
def test_damaged_streams_are_named_or_read_as_something_else(
    stream: int, flip: int, cut: int, more: bytes
) -> None:
    model = fixed_model()
    block = fixed_block(model, 25)
    streams = model.encode_block(*block)
    bits = bytearray(streams[stream])
    bits[flip // 8 % len(bits)] ^= 1 << flip % 8
    streams[stream] = bytes(bits)[: len(bits) - 4 * cut] + more
    found = outcome(model, streams, 25)
    if isinstance(found, str):
        assert "stream" in found
        return
    symbols, states, codes = found
    assert states.max() <= 3
    assert abs(codes.astype(int)).max() <= model.plan.reach
    for j, item in enumerate(model.plan.columns):
        valued = symbols[states[:, j] == 0, j]
        assert ((valued >= item.low) & (valued <= item.high)).all()


@pytest.mark.jit
@settings(max_examples=40 if COMPILED else 8)
@given(noise=st.lists(st.binary(min_size=8, max_size=400), min_size=6, max_size=6), rows=st.integers(0, 60))
def test_noise_is_read_to_an_end(noise: list[bytes], rows: int) -> None:
    # a flag, a state that a writer could leave, then anything
    streams = [
        b"\0" + part[: len(part) // 4 * 4][:3] + b"\x01" + part[4 : len(part) // 4 * 4] for part in noise
    ]
    model = fixed_model()
    found = outcome(model, streams, rows)
    assert not isinstance(found, str) or "stream" in found


def test_a_truncated_stream_is_named() -> None:
    model = fixed_model()
    block = fixed_block(model)
    streams = model.encode_block(*block)
    for k, name in ((0, "code"), (2, "size"), (4, "key")):
        cut = [*streams[:k], streams[k][:-8], *streams[k + 1 :]]
        with pytest.raises(DamagedError) as damage:
            model.decode_block(cut, len(block.symbols))
        assert str(damage.value) == f"the stream of {name!r} ends before its rows do"
    with pytest.raises(DamagedError, match="'code' does not end as it was written"):
        model.decode_block([streams[0] + bytes(4), *streams[1:]], len(block.symbols))


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (b"", "stream 2 has no sound beginning or length"),
        (b"\0" * 8, "stream 2 has no sound beginning or length"),
        (b"\2" + b"\1" * 8, "stream 2 has no sound beginning or length"),
        (b"\0" * 9, "a stream begins in a state that no writer leaves"),
        (b"\0" + b"\xff" * 8, "a stream begins in a state that no writer leaves"),
    ],
)
def test_a_stream_without_a_beginning_is_refused(stream: bytes, complaint: str) -> None:
    model = fixed_model()
    streams = model.encode_block(*fixed_block(model))
    with pytest.raises(DamagedError) as damage:
        model.decode_block([*streams[:2], stream, *streams[3:]], 60)
    assert str(damage.value) == complaint


def test_sizes_that_no_writer_asks_for_are_refused() -> None:
    model = fixed_model()
    streams = model.encode_block(*fixed_block(model))
    with pytest.raises(DamagedError, match=r"^6 streams are needed, 4 are there$"):
        model.decode_block(streams[:4], 60)
    with pytest.raises(DamagedError, match=f"^a block of {2**40} rows; this model's have at most"):
        model.decode_block(streams, 2**40)
    for rows in (-1, 59, 61):
        with pytest.raises(DamagedError):
            model.decode_block(streams, rows)
    for upto in (-1, 6):
        with pytest.raises(ValueError, match="of 5 columns"):
            model.decode_block(streams, 60, upto)


def test_every_plan_admits_blocks_of_65536_rows() -> None:
    assert MAX_REMEMBERED // MAX_TABLES >= 65_536
    assert MAX_CELLS // (512 + 256 + 1) >= 65_536
    assert fixed_model().block_rows == MAX_REMEMBERED // 5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"symbols": np.zeros((60, 4), np.int64)}, r"symbols \(60, 4\) and states \(60, 5\) for 5 columns"),
        ({"states": np.full((60, 5), 4, np.uint8)}, "state 4 is unknown"),
        ({"symbols": np.full((60, 5), 6)}, "column 'kind': symbols outside 0 .. 5"),
        ({"codes": np.zeros((60, 2), np.int8)}, r"codes \(60, 2\) for 3 latents within 9"),
        ({"codes": np.full((60, 3), -128, np.int8)}, r"codes \(60, 3\) for 3 latents within 9"),
    ],
)  # fmt: skip
def test_what_no_grid_gives_is_refused(change: dict[str, Any], complaint: str) -> None:
    model = fixed_model()
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        model.encode_block(*fixed_block(model)._replace(**change))


# ------------------------------------------------------------------------------------------------------ hostile models


def blob_of(plan: Any, bodies: list[bytes] | None = None) -> bytes:
    """A model's bytes from any plan and any packed weights."""
    text = plan if isinstance(plan, bytes) else json.dumps(plan).encode()
    pieces = [zlib.compress(text), *([b""] * len(GROUPS) if bodies is None else bodies)]
    return b"".join(struct.pack("<I", len(piece)) + piece for piece in pieces)


def packed(values: npt.NDArray[Any]) -> bytes:
    return standalone.simple_compress(values, ChunkConfig())


ONE = {"name": "a", "head": 0, "low": 0, "high": 1, "ordered": False}
SMALL = {"latents": 0, "width": 1, "columns": [ONE]}


def small_model() -> IntegerModel:
    return model_of(Plan.model_validate(SMALL), lambda _, shape: np.ones(shape, np.int16))


def refusal(blob: bytes) -> str:
    """The complaint about a hostile model; within five seconds of work, on a busy machine too."""
    began = time.process_time()
    with pytest.raises(ModelError) as error:
        IntegerModel.from_bytes(blob)
    assert time.process_time() - began < 5
    return str(error.value)


def test_every_truncation_of_a_model_is_refused() -> None:
    for model in (small_model(), fixed_model(), fixed_model(above=True), fixed_model(**NEWEST)):
        blob = model.to_bytes()
        for length in range(len(blob)):
            assert refusal(blob[:length]) == "the model is cut short"
        assert refusal(blob + b"\0") == "bytes after the end of the model"


@settings(max_examples=300)
@given(which=st.integers(0, 2), place=st.integers(0, 2**16), value=st.integers(1, 255))
def test_a_flipped_model_is_refused_or_is_another_model(which: int, place: int, value: int) -> None:
    blob = bytearray(FIXED_BLOBS[which])
    blob[place % len(blob)] ^= value
    with suppress(ModelError):
        IntegerModel.from_bytes(bytes(blob))


FIXED_BLOBS = tuple(fixed_model(**wishes).to_bytes() for wishes in ({}, {"above": True}, NEWEST))


@settings(max_examples=100)
@given(body=st.binary(max_size=60), keep=st.integers(0, 12))
def test_noise_in_place_of_weights_is_refused(body: bytes, keep: int) -> None:
    good = packed(np.ones(3, np.int16))
    with suppress(ModelError):
        IntegerModel.from_bytes(blob_of(SMALL, [good[:keep] + body] * len(GROUPS)))


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ([ONE | {"recall": [0]}], "looks at a column that is not before it"),
        ([ONE | {"head": 2, "contexts": [[10**9]]}], "looks at a column that is not before it"),
        ([ONE | {"low": -MAX_SYMBOL, "high": MAX_SYMBOL, "head": 2, "contexts": [[]]}], "symbols"),
        ([ONE | {"high": 10**400}], "less than or equal to"),
        ([ONE, ONE], "a column stands twice in the model"),
        ([ONE | {"name": f"n{k}"} for k in range(600)], "at most 512 items after validation"),
    ],
    ids=["cycle", "out of range", "span", "huge number", "twice", "many"],
)
def test_a_hostile_plan_is_refused(columns: list[dict[str, Any]], complaint: str) -> None:
    text = refusal(blob_of(SMALL | {"columns": columns}))
    assert text.startswith("the model's plan cannot be read: ")
    assert complaint in text


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (b"not json", "the model's plan cannot be read: "),
        (b'"\xff"', "the model's plan cannot be read: "),
        (b"[" * 100_000, "the model's plan cannot be read: "),
        (b'{"latents":0,"width":1,"columns":[' + b"{}," * 100_000 + b"{}]}", "the model's plan cannot be read: "),
        (b'{"columns":[{"contexts":[' + b"[]," * 100_000 + b"[]]}]}", "the model's plan cannot be read: "),
        (b'{"columns":[' + b"0," * 400_000 + b"0]}", "the model's plan is too long or cut short"),
        (b"{" + b'"":0,' * 400_000 + b'"":0}', "the model's plan is too long or cut short"),
        (b" " * (200 << 20), "the model's plan is too long or cut short"),
    ],
    ids=["no json", "no utf-8", "deep", "many items", "many contexts", "many numbers", "many keys", "bomb"],
)  # fmt: skip
def test_plans_that_are_no_plans_are_refused(plan: bytes, complaint: str) -> None:
    assert refusal(blob_of(plan)).startswith(complaint)


def test_pieces_that_are_not_deflated_or_have_more_behind_are_refused() -> None:
    assert "the model's plan cannot be read" in refusal(struct.pack("<I", 4) + b"zzzz" + b"\0" * 28)
    whole = zlib.compress(json.dumps(SMALL).encode()) + b"more"
    blob = struct.pack("<I", len(whole)) + whole + b"\0" * 4 * len(GROUPS)
    assert refusal(blob) == "the model's plan is too long or cut short"


def small_bodies() -> list[bytes]:
    """The groups of `small_model`, as it packs them."""
    return bodies_of(small_model())


def bodies_of(model: IntegerModel) -> list[bytes]:
    """The groups of weights, as the model packs them."""
    blob, at, pieces = model.to_bytes(), 0, list[bytes]()
    while at < len(blob):
        (length,) = struct.unpack_from("<I", blob, at)
        pieces.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return pieces[1:]


@pytest.mark.parametrize(
    ("group", "body", "complaint"),
    [
        ("hidden", b"", "the model's hidden weights cannot be read: "),
        ("hidden", packed(np.ones(2, np.int16)), "the model's hidden weights are not 1"),
        ("head", packed(np.ones(1, np.int16)), "the model's head weights are not 2"),
        ("head", packed(np.ones(1 << 22, np.int16)), "the model's head weights are not 2"),
        ("head", packed(np.ones(2, np.int32)), "the model's head weights cannot be read: "),
        ("head", packed(np.ones(2, np.float64)), "the model's head weights cannot be read: "),
        ("prior", packed(np.ones(1, np.int16)), "the model has prior weights that its plan does not know"),
    ],
    ids=str,
)
def test_weights_that_are_not_the_plan_s_are_refused(group: str, body: bytes, complaint: str) -> None:
    bodies = small_bodies()
    assert IntegerModel.from_bytes(blob_of(SMALL, bodies)).columns == ["a"]
    bodies[GROUPS.index(group)] = body
    assert refusal(blob_of(SMALL, bodies)).startswith(complaint)


@pytest.mark.parametrize(
    ("wish", "weights", "complaint"),
    [
        ("above", 2 * 16 + 16 + 1, "no latents that could see"),
        ("deep", 16 * 16 + 16, "no latents whose prior"),
    ],
)
def test_weights_of_a_richer_prior_are_there_just_if_the_plan_says_so(
    wish: str, weights: int, complaint: str
) -> None:
    plans = [SMALL | {"latents": 2, wish: wished} for wished in (False, True)]
    models = [
        model_of(Plan.model_validate(plan), lambda _, shape: np.ones(shape, np.int16)) for plan in plans
    ]
    (without, with_), of_prior = map(bodies_of, models), GROUPS.index("prior")
    counts = [len(standalone.simple_decompress(bodies[of_prior])) for bodies in (without, with_)]
    assert counts[1] - counts[0] == 2 * weights
    assert getattr(IntegerModel.from_bytes(blob_of(plans[1], with_)).plan, wish)
    assert refusal(blob_of(plans[1], without)) == f"the model's prior weights are not {counts[1]}"
    assert refusal(blob_of(plans[0], with_)).startswith("the model's prior weights")
    assert complaint in refusal(blob_of(SMALL | {wish: True}, small_bodies()))


@pytest.mark.parametrize(
    ("change", "column", "version"),
    [
        ({}, {}, 1),
        ({"above": True}, {}, 3),
        ({"deep": True}, {}, 4),
        ({"above": True, "deep": True}, {}, 4),
        ({}, {"history": True}, 4),
        ({"above": True}, {"history": True}, 4),
        ({"direct": True}, {}, 5),
        ({"latents": 0, "direct": True}, {}, 5),
        ({"fine": True}, {}, 5),
        ({"above": True, "deep": True, "direct": True}, {"history": True, "high": 67}, 5),
        ({}, {"high": 63, "states": (1, 2, 3)}, 1),
        ({}, {"high": 64, "states": (1, 2, 3)}, 4),
        ({}, {"high": 66}, 1),
        ({}, {"high": 67}, 4),
    ],
    ids=str,
)
def test_a_model_is_of_the_oldest_version_that_knows_it(
    change: dict[str, Any], column: dict[str, Any], version: int
) -> None:
    plan = SMALL | {"latents": 2} | change | {"columns": [ONE | column]}
    model = model_of(Plan.model_validate(plan), lambda _, shape: np.ones(shape, np.int16))
    assert model.version == version


def test_weights_past_the_shared_sum_are_there_just_if_the_plan_says_so() -> None:
    plans = [SMALL | {"direct": wished} for wished in (False, True)]
    models = [
        model_of(Plan.model_validate(plan), lambda _, shape: np.ones(shape, np.int16)) for plan in plans
    ]
    (without, with_), of_before = map(bodies_of, models), GROUPS.index("before")
    counts = [len(standalone.simple_decompress(bodies[of_before])) for bodies in (without, with_)]
    assert counts[1] == 2 * counts[0]
    assert [without[k] == with_[k] for k in range(len(GROUPS))] == [
        k != of_before for k in range(len(GROUPS))
    ]
    assert IntegerModel.from_bytes(blob_of(plans[1], with_)).plan.direct
    assert refusal(blob_of(plans[1], without)) == f"the model's before weights are not {counts[1]}"
    assert refusal(blob_of(plans[0], with_)).startswith("the model's before weights")


def test_more_weights_than_any_model_has_are_refused_before_they_are_read() -> None:
    wide = [ONE | {"name": f"n{k}", "head": 2, "high": 255, "contexts": [[]] * (k < 256)} for k in range(256)]
    text = refusal(blob_of(SMALL | {"width": 256, "columns": wide}))
    assert text == f"the model asks for {sum_of_weights(wide)} weights; at most {1 << 24} are admitted"


def sum_of_weights(columns: list[dict[str, Any]]) -> int:
    plan = Plan.model_validate(SMALL | {"width": 256, "columns": columns})
    return sum(int(np.prod(shape)) for shape in plan.shapes().values())


def test_weights_of_another_shape_or_type_are_refused() -> None:
    plan = Plan.model_validate(SMALL)
    good = {name: np.ones(shape, np.int16) for name, shape in plan.shapes().items()}
    with pytest.raises(ModelError, match="do not have the shapes its plan asks for"):
        IntegerModel(plan, good | {"column.a.bias": np.ones(2, np.int16)})
    with pytest.raises(ModelError, match="are not 16-bit integers"):
        IntegerModel(plan, good | {"column.a.bias": cast(Any, np.ones(1, np.int32))})
    backwards = IntegerModel(plan, dict(reversed(good.items())))
    assert backwards.to_bytes() == IntegerModel(plan, good).to_bytes()


# ------------------------------------------------------------------------------------------------------------ overflow


def wide_plan(width: int, **more: Any) -> Plan:
    linear = {
        "sources": (0,),
        "now": (1 << 26,),
        "before": (-(1 << 26),),
        "own": 1 << 26,
        "constant": 1 << 52,
    }
    columns = (
        {"name": "n", "head": 1, "low": -(1 << 19), "high": (1 << 19) - 1, "ordered": True, "components": (0, 1, 2),
         "spread": 1 << 30, "states": (1, 2, 3), "unit": 20, "bins": (0,)},
        {"name": "m", "head": 1, "low": MAX_SYMBOL - MAX_SPAN + 1, "high": MAX_SYMBOL, "ordered": True, "unit": 20,
         "components": (3, 2), "linear": linear, "spread": 1 << 30, "center": -(1 << 31)},
        {"name": "s", "head": 0, "low": 0, "high": 63, "ordered": False, "states": (1,)},
    )  # fmt: skip
    base = {
        "latents": 2,
        "reach": 30,
        "width": width,
        "prior_width": width,
        "fraction": 4,
        "columns": columns,
    }
    return Plan.model_validate(base | more)


def test_weights_that_could_overflow_are_refused_by_layer() -> None:
    plan = wide_plan(64)
    calm = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    IntegerModel(plan, calm)
    for name, layer in [
        ("column.n.hidden", "hidden"), ("column.s.head", "head"), ("prior.head", "prior head"),
    ]:  # fmt: skip
        loud = calm | {name: np.full_like(calm[name], -(2**15))}
        with pytest.raises(ModelError) as refused:
            IntegerModel(plan, loud)
        assert str(refused.value) == f"the model's {layer} layer could overflow: its weights are too large"
    many = wide_plan(1, latents=256)
    for names, layer in [(("code", "column"), "first"), (("prior",), "prior")]:
        with pytest.raises(ModelError, match=f"{layer} layer could overflow"):
            model_of(many, lambda n, s, names=names: np.full(s, n.startswith(names) * (2**15 - 1), np.int16))


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_the_row_above_joins_are_proved_to_the_last_unit(sign: int) -> None:
    plan = wide_plan(32, above=True)
    calm = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    most = sign * (2**15 - 1)
    # 2048 * 32 * (2**15 - 1) + 256 * (255 + 0) is 256 below 2**31
    full = calm | {"prior.head": np.full_like(calm["prior.head"], most)}
    full |= {"prior.head_bias": np.full_like(calm["prior.head_bias"], 255 * sign)}
    IntegerModel(plan, full)
    with pytest.raises(ModelError, match=r"^the model's prior head layer could overflow"):
        IntegerModel(plan, full | {"prior.stay": np.array([0, -sign], np.int16)})
    plan = wide_plan(32, deep=True)
    calm = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    full = calm | {"prior.hidden": np.full_like(calm["prior.hidden"], most)}
    full |= {"prior.hidden_bias": np.full_like(calm["prior.hidden_bias"], 255 * sign)}
    IntegerModel(plan, full)
    full["prior.hidden_bias"][1, 31] += sign
    with pytest.raises(ModelError, match=r"^the model's prior hidden layer could overflow"):
        IntegerModel(plan, full)
    # 127 * 512 * (2**15 - 1) is 16,842,240 below 2**31, and 32 * 526,320 is that
    plan = wide_plan(1, above=True, latents=256)
    calm = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    for name in ("prior.above", "prior.after"):
        full = calm | {name: np.full_like(calm[name], most)}
        same = np.zeros((256, 1), np.int16)
        same[:16], same[16] = most, 526_319 - 16 * (2**15 - 1)
        IntegerModel(plan, full | {"prior.same": same})
        same[17] = -sign
        with pytest.raises(ModelError, match=r"^the model's prior layer could overflow"):
            IntegerModel(plan, full | {"prior.same": same})


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_what_is_known_before_joins_are_proved_to_the_last_unit(sign: int) -> None:
    plan = wide_plan(32, direct=True)
    calm = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    most = sign * (2**15 - 1)
    name = f"column.{plan.columns[0].name}"
    full = calm | {f"{name}.hidden": np.full_like(calm[f"{name}.hidden"], most)}
    # 2048 * 32 * (2**15 - 1) is 65,536 below 2**31: 64 * 127 * 8 and 256 * 1 are 256 below that
    direct, bias = np.zeros_like(calm[f"{name}.direct"]), np.zeros_like(calm[f"{name}.hidden_bias"])
    direct[-1, 31], bias[31] = 64 * sign, sign
    full |= {f"{name}.direct": direct, f"{name}.hidden_bias": bias}
    IntegerModel(plan, full)
    for row, added in ((-1, sign), (0, -sign)):
        more = direct.copy()
        more[row, 31] += added
        with pytest.raises(ModelError, match=r"^the model's hidden layer could overflow"):
            IntegerModel(plan, full | {f"{name}.direct": more})


@pytest.mark.jit
@settings(max_examples=40 if COMPILED else 4)
@given(
    seed=st.integers(0, 2**32),
    sign=st.sampled_from([1, -1, 0]),
    above=st.booleans(),
    deep=st.booleans(),
    direct=st.booleans(),
)
@example(seed=0, sign=1, above=True, deep=True, direct=True)
@example(seed=0, sign=-1, above=True, deep=True, direct=True)
@example(seed=0, sign=1, above=False, deep=False, direct=False)
@example(seed=0, sign=-1, above=False, deep=False, direct=False)
def test_the_largest_weights_that_are_proved_still_give_the_block_back(
    seed: int, sign: int, above: bool, deep: bool, direct: bool
) -> None:
    """31 weights of 2**15 - 1 a row bring hidden and head sums within 0.1% of the limit; 29, and those past the shared
    sum, hidden sums within 8% and those of heads within 9%.
    """
    random = np.random.default_rng(seed)

    def extreme(_: str, shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
        signs = random.choice([-1, 1], shape) if sign == 0 else np.full(shape, sign)
        return (signs * (2**15 - 1)).astype(np.int16)

    model = model_of(wide_plan(29 if direct else 31, above=above, deep=deep, direct=direct), extreme)
    rows = 16
    symbols = np.stack(
        [
            random.choice([i.low, i.high, int(random.integers(i.low, i.high))], rows)
            for i in model.plan.columns
        ],
        1,
    )
    states = random.choice([0, 0, 0, 1, 2, 3], symbols.shape).astype(np.uint8)
    symbols[states != 0] = 0
    codes = random.choice([-30, 0, 30], (rows, 2)).astype(np.int8)
    block = Block(symbols, states, codes)
    assert_same(model.decode_block(model.encode_block(*block), rows), block)


@pytest.mark.jit
@settings(max_examples=100)
@given(
    low=st.sampled_from([-MAX_SYMBOL, 0, MAX_SYMBOL - MAX_SPAN + 1]),
    places=st.lists(st.integers(0, MAX_SPAN), min_size=2, max_size=6),
    means=st.lists(st.integers(-MAX_SPAN << 8, 2 * MAX_SPAN << 8), min_size=2, max_size=2),
    mantissas=st.lists(st.integers(2**14, 2**15), min_size=2, max_size=2),
    shifts=st.lists(st.integers(1, 26), min_size=2, max_size=2),
)
def test_edges_of_symbols_are_those_of_unbounded_integers_and_rise(
    low: int, places: list[int], means: list[int], mantissas: list[int], shifts: list[int]
) -> None:
    room = TOTAL - MAX_SPAN
    share = [room // 3, room - room // 3]
    mean = [(low << 8) + m for m in means]
    table = sigmoid_table()
    shares, centers, scales, downs = (np.array(x, np.int64) for x in (share, mean, mantissas, shifts))
    found = [edge(low + place, 2, shares, centers, scales, downs, table) for place in sorted(places)]
    exact = []
    for place in sorted(places):
        total = 0
        for c in range(2):
            t = ((((low + place) << 8) - 128 - mean[c]) * mantissas[c]) >> shifts[c]
            t = min(max(t, -T_MAX), T_MAX) + T_MAX
            at = t >> 10
            after = int(table[min(at + 1, len(table) - 1)])
            total += share[c] * (int(table[at]) + ((after - int(table[at])) * (t & 1023) >> 10))
        exact.append(total >> 30)
    assert found == exact
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= room
