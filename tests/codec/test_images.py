"""Images come back, on every machine the same; whatever bytes come in, the answer is images or an error."""

from __future__ import annotations

import hashlib
import zlib
from contextlib import suppress
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from data.errors import DamagedError, ModelError
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codec.jit import COMPILED
from vae.codec.packing import join_pieces, split_pieces
from vae.codec.pixels import PixelPlan, new_desk
from vae.codec.plan import Plan
from vae.codec.shades import FACTOR_BITS, OFTEN, classes_of_counts, new_counts, seen_before
from vae.codec.vectors import rounded_up
from vae.pixels import PixelDecoder

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int8]
SMALL: dict[str, Any] = {
    "name": "image", "height": 3, "width": 4, "channels": 1, "levels": 256, "units": 2, "maps": 2, "latents": 2,
}  # fmt: skip


def plan_of(**change: Any) -> PixelPlan:
    return PixelPlan.model_validate(SMALL | change)


def codes_of(plan: PixelPlan, weights: Any = None, reach: int = 5) -> IntegerModel:
    """The model of a plan's codes: of zeros unless there are weights."""
    own = Plan(latents=plan.latents, reach=reach, width=1, prior_width=3, columns=())
    draw = weights or (lambda shape: np.zeros(shape, np.int16))
    return IntegerModel(own, {name: draw(shape) for name, shape in own.shapes().items()})


def random_model(plan: PixelPlan, size: int = 40, seed: int = 0, reach: int = 5) -> ImageModel:
    random = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
        return random.integers(-size, size + 1, shape).astype(np.int16)

    calm = min(size, 90)
    codes = codes_of(plan, lambda shape: random.integers(-calm, calm + 1, shape).astype(np.int16), reach)
    return ImageModel(plan, codes, {name: draw(shape) for name, shape in plan.shapes().items()})


def some_images(plan: PixelPlan, rows: int, seed: int = 1) -> tuple[Bytes, Codes]:
    """Images of few levels and of many, in runs, and codes of them."""
    random = np.random.default_rng(seed)
    few = random.integers(0, plan.levels, (rows, plan.pixels))
    flat = np.where(random.random(few.shape) < 0.5, few, np.roll(few, plan.channels, 1))
    flat[::3] = random.choice([0, plan.levels - 1], (len(flat[::3]), 1))
    reach = 5
    codes = random.integers(-reach, reach + 1, (rows, plan.latents)) * (
        random.random((rows, plan.latents)) < 0.5
    )
    return flat.astype(np.uint8), codes.astype(np.int8)


def encode(model: ImageModel, images: Bytes, codes: Codes) -> list[bytes]:
    return model.encode_block(images, np.zeros((len(images), 1), np.uint8), codes)


# ------------------------------------------------------------------------------- any plan, any weights, any images


@st.composite
def models(draw: st.DrawFn) -> ImageModel:
    most = 19 if COMPILED else 9  # above 8 the code's map is doubled in size
    levels = draw(st.sampled_from([2, 3, 16, 17, 255, 256]) | st.integers(2, 256))
    plan = plan_of(
        height=draw(st.integers(1, most)),
        width=draw(st.integers(1, 9)),
        channels=draw(st.sampled_from([1, 3, 4])),
        levels=levels,
        counted=draw(st.sampled_from([0, 4, 8]))
        if levels == 256
        else draw(st.integers(0, (levels - 1).bit_length())),
        up=draw(st.sampled_from([1, 2, 4, 8])),
        side=draw(st.sampled_from([1, 3, 8])),
        units=draw(st.sampled_from([1, 3, 8, 9])),
        layers=draw(st.integers(0, 2)),
        maps=draw(st.sampled_from([1, 2, 9])),
        fraction=draw(st.integers(4, 10)),
        latents=draw(st.integers(0, 4)),
    )
    size = draw(st.sampled_from([0, 30, 300, 2**15 - 1]))
    try:
        return random_model(plan, size, draw(st.integers(0, 2**32)))
    except ModelError:  # these weights could overflow
        reject()


@pytest.mark.jit
@settings(max_examples=100 if COMPILED else 12)
@given(data=st.data(), model=models())
def test_images_come_back_and_so_do_the_first_of_them(data: st.DataObject, model: ImageModel) -> None:
    rows = data.draw(st.integers(0, 5 if COMPILED else 2))
    images, codes = some_images(model.plan, rows, data.draw(st.integers(0, 2**32)))
    streams = encode(model, images, codes)
    assert len(streams) == 2
    found, states, found_codes = model.decode_block(streams, rows)
    assert (found.dtype, found_codes.dtype) == (np.uint8, np.int8)
    assert found.tolist() == images.tolist()
    assert states.tolist() == [[0]] * rows
    assert found_codes.tolist() == codes.tolist()
    until = data.draw(st.integers(0, rows))
    first, _, first_codes = model.decode_block(streams, rows, 1, until)
    assert first.tolist() == images[:until].tolist()
    assert first_codes.tolist() == codes[:until].tolist()
    # the stream of the pixels is not even looked at
    nothing, no_states, alone = model.decode_block([streams[0], b"damaged"], rows, 0, until)
    assert (nothing.shape, no_states.shape) == ((until, 0), (until, 0))
    assert alone.tolist() == codes[:until].tolist()
    assert model.decode_block(streams[:1], rows, 0)[2].tolist() == codes.tolist()


@settings(max_examples=40)
@given(model=models())
def test_weights_have_room_for_whole_vectors_wherever_they_are_read(model: ImageModel) -> None:
    w, desk, plan = model._weights, new_desk(model.plan), model.plan
    units = rounded_up(plan.units)
    for name in ("first", "first_bias", "row", "column", "hidden", "hidden_bias"):
        assert getattr(w, name).shape[-1] == units
    assert (w.first.shape[1], w.hidden.shape[1], w.head.shape[1]) == (plan.inputs, units, units)
    assert w.head.shape[2] == rounded_up(18)
    assert len(desk.product) >= max(units, rounded_up(18))
    assert (len(desk.total), len(desk.hidden), len(desk.shown)) == (units, units, plan.inputs)
    assert (w.row.shape[1], w.column.shape[1]) == plan.places
    last = w.origin + (plan.height - 1) * w.stride + (plan.width - 1) * plan.channels
    assert (
        w.origin + w.deltas.min() == 0 or plan.side < plan.up
    )  # the first pixel's farthest is the border's first
    assert w.origin + w.deltas.min() >= 0
    assert last + max(0, w.deltas.max()) + plan.channels - 1 < len(desk.plane)
    assert len(w.tone) == plan.levels
    assert w.seen.shape == (plan.channels, plan.counted, len(OFTEN) + 1)
    assert w.seen.size == 0 or (w.seen.min() >= 1 and w.seen.max() == 1 << FACTOR_BITS)
    assert (len(w.often), w.often.max()) == (OFTEN[-1] + 1, len(OFTEN))
    # of a symbol and of the one beside it, which may be one more than there are
    assert desk.counts.shape == (plan.channels, plan.counted, plan.levels + 1)
    weights, bias = model._folds
    steps = len(plan.sizes) - 1 if plan.latents else 0
    assert weights.shape == (steps, 9 * plan.maps, rounded_up(plan.maps))
    assert bias.shape == (steps, plan.maps)
    assert (w.tone[0], w.tone[-1]) == (0, 255)


@settings(max_examples=30)
@given(model=models())
def test_a_model_survives_its_bytes(model: ImageModel) -> None:
    again = ImageModel.from_bytes(model.to_bytes())
    assert (again.plan, again.codes.plan) == (model.plan, model.codes.plan)
    assert again.to_bytes() == model.to_bytes()
    assert (model.version, model.columns, model.latents) == (
        8 if model.plan.counted else 7,
        ["image"],
        model.plan.latents,
    )
    block = some_images(model.plan, 2)
    assert encode(again, *block) == encode(model, *block)


def fixed_numbers(count: int, below: int, state: int) -> npt.NDArray[np.int64]:
    """Whole numbers that no library decides: a linear congruence (Knuth's MMIX)."""
    found: list[int] = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        found.append((state >> 33) % below)
    return np.array(found, np.int64)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("change", "sizes", "digest"),
    [
        ({}, [9, 149], "f9f0e4d56d8b2ce3064948272fcf9f13b7608937b2356a0accfaaf0cbbc002d9"),
        (
            {"latents": 0, "layers": 0, "levels": 5},
            [9, 21],
            "ce0a3f75156d374a9c44c06f7805bcf117fa41fddee213e2854be747e05ff65c",
        ),
        (
            {"channels": 3, "layers": 2, "height": 10, "width": 9},
            [9, 3037],
            "2e8ae014b03eee61e51847e0525092ee72f4320a7d599811279fb960611ba106",
        ),
        (
            {"counted": 4, "levels": 250, "channels": 3, "height": 9},
            [9, 1209],
            "df53c57b12546f7f4f032ce8ba1a129d72a8f1953739904aa69d04dce775264b",
        ),
    ],
    ids=["grey", "no code", "colour", "counted"],
)
def test_the_bytes_are_the_same_on_every_machine_compiled_or_not(
    change: dict[str, Any], sizes: list[int], digest: str
) -> None:
    plan = plan_of(**change)

    def draw(shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
        count = int(np.prod(shape))
        return (fixed_numbers(count, 181, count) - 90).reshape(shape).astype(np.int16)

    model = ImageModel(
        plan, codes_of(plan, draw), {name: draw(shape) for name, shape in plan.shapes().items()}
    )
    images = fixed_numbers(4 * plan.pixels, plan.levels, 7).reshape(4, -1).astype(np.uint8)
    codes = (fixed_numbers(4 * plan.latents, 11, 8) - 5).reshape(4, -1).astype(np.int8)
    streams = encode(model, images, codes)
    assert [len(stream) for stream in streams] == sizes
    assert hashlib.sha256(b"".join(streams)).hexdigest() == digest
    assert model.decode_block(streams, 4)[0].tolist() == images.tolist()


@pytest.mark.jit
@pytest.mark.parametrize("counted", [0, 5])
def test_what_is_sampled_has_the_shape_and_levels_of_the_images(counted: int) -> None:
    model = random_model(plan_of(channels=3, levels=17, counted=counted))
    images, states, codes = model.sample_block(30, np.random.default_rng(0))
    assert not states.any()
    assert (images.shape, images.dtype, codes.shape, codes.dtype) == ((30, 36), np.uint8, (30, 2), np.int8)
    assert int(images.max()) < 17
    assert np.array_equal(images, model.sample_block(30, np.random.default_rng(0))[0])
    found = model.decode_block(encode(model, images, codes), 30)
    assert found[0].tolist() == images.tolist()
    assert model.sample_block(0, np.random.default_rng(0))[0].shape == (0, 36)


# --------------------------------------------------------------------------------------- as the network in floats


def twin(plan: PixelPlan, seed: int) -> PixelDecoder:
    torch.manual_seed(seed)
    decoder = PixelDecoder(plan)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return decoder


@pytest.mark.parametrize(
    ("change", "seed"),
    [
        ({}, 0),
        ({"channels": 3, "layers": 2}, 1),
        ({"latents": 0, "channels": 4, "layers": 0}, 2),
        ({"height": 17, "width": 5, "levels": 52}, 3),
        ({"levels": 2, "up": 1, "side": 1}, 4),
        ({"counted": 4}, 5),
        ({"counted": 5, "channels": 3, "levels": 52, "layers": 2}, 6),
        ({"counted": 1, "levels": 2, "latents": 0}, 7),
        ({"counted": 8}, 8),
    ],
    ids=str,
)
def test_integers_say_what_the_floats_say(change: dict[str, Any], seed: int) -> None:
    plan = plan_of(**{"units": 12, "maps": 3, "height": 11, "width": 10, **change})
    decoder, rows = twin(plan, seed), 40
    model = ImageModel(plan, codes_of(plan), decoder.integers())
    images, codes = some_images(plan, rows, seed)
    with torch.no_grad():
        weights = decoder.weights(quantised=True)
        features = decoder.features(weights, torch.from_numpy(codes).to(torch.float32))
        shown = torch.from_numpy(images).view(rows, plan.height, plan.width, plan.channels)
        places = torch.arange(plan.height * plan.width).expand(rows, -1)
        nats = float(decoder.nats(weights, shown, features, places).double().sum())
    bits = 8 * (len(encode(model, images, codes)[1]) - 1) - 64  # less what a stream has about it
    assert bits == pytest.approx(nats / np.log(2), rel=0.005, abs=64)
    if features is not None:
        exact = features.reshape(rows, -1, plan.maps).numpy() * 128
        assert np.abs(model.features(codes) - exact).max() <= 4 * len(plan.sizes)
        assert exact.max() > 32


@pytest.mark.jit
def test_what_an_image_has_had_is_counted_by_halves() -> None:
    plan = plan_of(levels=7, channels=3, counted=2, height=6, width=9)
    random = np.random.default_rng(0)
    images = random.integers(0, 7, (2, plan.pixels)).astype(np.uint8)
    found = np.zeros((2, plan.pixels, 2, 2), np.uint8)
    seen_before(images, 3, new_counts(3, 2, 7), classes_of_counts(), found)
    for t, at, bit in [(0, 0, 0), (0, 5, 1), (1, 0, 1), (1, 160, 0), (1, 161, 1), (0, 159, 0), (0, 100, 1)]:
        before = images[t, at % 3 : at : 3] >> bit
        own = images[t, at] >> bit
        for side, symbol in enumerate([own, own ^ 1]):
            count = int((before == symbol).sum())
            assert found[t, at, bit, side] == sum(count >= first for first in OFTEN)


@pytest.mark.jit
def test_shades_that_an_image_has_had_cost_less() -> None:
    plan = plan_of(height=20, width=20, latents=0, counted=4)
    model = random_model(plan, 0)
    likely = {**model.tensors, "seen": np.arange(12, dtype=np.int16)[None, None].repeat(4, 1) * 100}
    counting = ImageModel(plan, model.codes, likely)
    random = np.random.default_rng(0)
    few = random.choice(np.array([5, 80, 91, 200, 213], np.uint8), (6, plan.pixels))
    any_ = random.integers(0, 256, (6, plan.pixels)).astype(np.uint8)
    no_codes = np.zeros((6, 0), np.int8)

    def size(model: ImageModel, images: Bytes) -> int:
        return len(encode(model, images, no_codes)[1])

    assert size(counting, few) < 0.75 * size(model, few)
    assert size(counting, any_) > size(model, any_)
    assert counting.decode_block(encode(counting, few, no_codes), 6)[0].tolist() == few.tolist()


@pytest.mark.parametrize("change", [{}, {"channels": 3, "levels": 52, "counted": 5}], ids=str)
def test_counts_weigh_as_much_in_integers_as_in_floats(change: dict[str, Any]) -> None:
    """Of images of few shades, which cost a good deal more by a model that does not count."""
    plan = plan_of(**{"units": 12, "height": 11, "width": 10, "latents": 0, "counted": 4, **change})
    decoder, random = twin(plan, 0), np.random.default_rng(0)
    shades = random.integers(0, plan.levels, (40, 5))
    images = np.take_along_axis(shades, random.integers(0, 5, (40, plan.pixels)), 1).astype(np.uint8)
    places = torch.arange(plan.height * plan.width).expand(40, -1)
    shown = torch.from_numpy(images).view(40, plan.height, plan.width, plan.channels)
    no_codes = np.zeros((40, 0), np.int8)

    def both() -> tuple[int, float]:
        """Bits as written, and as the floats say."""
        model = ImageModel(plan, codes_of(plan), decoder.integers())
        written = 8 * len(encode(model, images, no_codes)[1]) - 72
        with torch.no_grad():
            nats = decoder.nats(decoder.weights(quantised=True), shown, None, places)
        return written, float(nats.double().sum()) / np.log(2)

    with torch.no_grad():  # 1 to 50 by the count, differently for each bit
        slopes = torch.linspace(0.35, 0.1, plan.counted).view(1, -1, 1)
        decoder.seen[:] = slopes * torch.arange(float(len(OFTEN) + 1))
    counting, said = both()
    assert counting == pytest.approx(said, rel=0.002, abs=64)
    with torch.no_grad():
        decoder.seen[:] = 0
    plain, _ = both()
    assert counting < 0.9 * plain


# ------------------------------------------------------------------------------------------------ damage and malice


@pytest.mark.jit
@pytest.mark.parametrize("counted", [0, 3])
@settings(max_examples=100 if COMPILED else 10)
@given(which=st.integers(0, 1), flip=st.integers(0, 2**31), cut=st.integers(0, 8), more=st.binary(max_size=8))
def test_damaged_streams_are_named_or_read_as_something_else(
    counted: int, which: int, flip: int, cut: int, more: bytes
) -> None:
    model = random_model(plan_of(levels=9, counted=counted))
    streams = encode(model, *some_images(model.plan, 6))
    broken = bytearray(streams[which])
    at = flip % (8 * len(broken))
    broken[at // 8] ^= 1 << at % 8
    streams[which] = bytes(broken[: len(broken) - cut]) + more
    with suppress(DamagedError):
        images, states, codes = model.decode_block(streams, 6)
        assert (images.shape, states.shape, codes.shape) == ((6, 12), (6, 1), (6, 2))
        assert int(images.max()) < 9
        assert np.abs(codes).max() <= 5


def damage(model: ImageModel, streams: list[bytes], rows: int, *more: Any) -> str:
    with pytest.raises(DamagedError) as refused:
        model.decode_block(streams, rows, *more)
    return str(refused.value)


@pytest.mark.jit
@pytest.mark.parametrize("counted", [0, 4])
def test_streams_that_do_not_end_where_they_should_are_refused(counted: int) -> None:
    model = random_model(plan_of(counted=counted))
    codes, pixels = encode(model, *some_images(model.plan, 9))
    early = "the stream of 'image' ends before its images do"
    assert damage(model, [codes, pixels[:-4]], 9) == early
    assert damage(model, [codes, pixels[:9]], 9) == early
    assert damage(model, [codes, pixels + bytes(4)], 9) == (
        "the stream of 'image' does not end as it was written"
    )
    assert damage(model, [codes, pixels], 8).startswith("the stream of 'code'")
    assert damage(model, [codes], 9) == "2 streams are needed, 1 are there"
    assert damage(model, [codes, b"\1" + pixels[1:]], 9) == "the stream of 'image' has no sound beginning"
    assert damage(model, [codes, b""], 9) == "stream 1 has no sound beginning or length"
    assert damage(model, [codes, bytes(9)], 9) == "a stream begins in a state that no writer leaves"
    assert damage(model, [codes[:-1], b""], 9, 0).startswith("stream 0 has no sound")
    most = model.block_rows
    assert damage(model, [codes, pixels], most + 1) == (
        f"a block of {most + 1} images; this model's have at most {most}"
    )


def test_what_no_grid_gives_is_refused() -> None:
    model = random_model(plan_of(levels=9))
    images, codes = some_images(model.plan, 3)
    for wrong, complaint in [
        ((images[:, 1:], codes), r"a block of \(3, 11\) values for images of 12"),
        ((images + np.uint8(9), codes), "symbols beyond 0 .. 8"),
        ((images, codes[:2]), r"codes \(2, 2\) for 2 latents within 5"),
        ((images, codes + np.int8(11)), "codes"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            encode(model, *wrong)


def refusal(blob: bytes) -> str:
    with pytest.raises(ModelError) as refused:
        ImageModel.from_bytes(blob)
    return str(refused.value)


def with_plan(model: ImageModel, text: str) -> bytes:
    _, *rest = split_pieces(model.to_bytes(), 3)
    return join_pieces([zlib.compress(text.encode()), *rest])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ('"height":0', "Input should be greater than or equal to 1"),
        ('"height":16385', "Input should be less than or equal to 16384"),
        ('"height":16384,"width":16384', "Value error, images of 268435456 values"),
        ('"channels":5', "Input should be less than or equal to 4"),
        ('"levels":1', "Input should be greater than or equal to 2"),
        ('"levels":257', "Input should be less than or equal to 256"),
        ('"up":0', "Input should be greater than or equal to 1"),
        ('"side":9', "Input should be less than or equal to 8"),
        ('"units":257', "Input should be less than or equal to 256"),
        ('"layers":5', "Input should be less than or equal to 4"),
        ('"maps":65', "Input should be less than or equal to 64"),
        ('"fraction":3', "Input should be greater than or equal to 4"),
        ('"latents":257', "Input should be less than or equal to 256"),
        ('"counted":9', "Input should be less than or equal to 8"),
        ('"counted":3,"levels":4', "Value error, 3 counted bits of 4 levels"),
        ('"more":1', "Extra inputs are not permitted"),
    ],
)
def test_a_hostile_plan_is_refused(change: str, complaint: str) -> None:
    sound = '{"channels":1,"height":3,"latents":2,"levels":256,"maps":2,"name":"image","units":2,"width":4'
    model = random_model(plan_of())
    assert ImageModel.from_bytes(with_plan(model, sound + "}")).plan == model.plan
    text = refusal(with_plan(model, f"{sound},{change}}}"))  # of a key that stands twice, the last counts
    assert text == f"the model's plan cannot be read: {complaint}"


def test_weights_that_are_not_the_plan_s_are_refused() -> None:
    plan = plan_of()
    model = random_model(plan)
    good = {**model.tensors}
    codes, shapes = model.codes, "the model's weights do not have the shapes its plan asks for"
    for tensors, complaint in [
        (good | {"first": good["first"][:, 1:]}, shapes),
        ({name: tensor for name, tensor in good.items() if name != "seed"}, shapes),
        (good | {"more": good["first"]}, shapes),
        (good | {"first": cast(Any, good["first"].astype(np.int32))}, "the model's weights are not 16-bit integers"),
    ]:  # fmt: skip
        with pytest.raises(ModelError) as refused:
            ImageModel(plan, codes, tensors)
        assert str(refused.value) == complaint
    for other in (codes_of(plan_of(latents=3)), codes_of(plan_of(latents=0))):
        with pytest.raises(ModelError, match="^the model's codes are not those of its images$"):
            ImageModel(plan, other, good)
    packed, own, body = split_pieces(model.to_bytes(), 3)
    count = sum(tensor.size for tensor in good.values())
    for change in ('"units":2', '"units":3'):
        text = zlib.decompress(packed).decode().replace('"units":2', change)
        pieces = [zlib.compress(text.encode()), own, body]
        if change == '"units":2':
            assert ImageModel.from_bytes(join_pieces(pieces)).to_bytes() == model.to_bytes()
        else:
            assert refusal(join_pieces(pieces)).startswith("the model's pixel weights are not ")
    assert refusal(join_pieces([packed, own, b""])).startswith("the model's pixel weights cannot be read: ")
    assert refusal(join_pieces([packed, own, body]) + b"\0") == "bytes after the end of the model"
    assert refusal(join_pieces([packed, own])) == "the model is cut short"
    assert str(count) not in refusal(join_pieces([b"", own, body]))


def test_every_truncation_of_a_model_is_refused() -> None:
    blob = random_model(plan_of()).to_bytes()
    for length in range(len(blob)):
        assert refusal(blob[:length])


def test_more_weights_than_any_model_has_are_refused_before_they_are_read() -> None:
    plan = plan_of(height=8, width=8, latents=256, maps=64, channels=4, units=256, layers=4, up=8, side=8)
    count = sum(int(np.prod(shape)) for shape in plan.shapes().values())
    assert count <= 1 << 24  # the largest plan of all is within what any model may have
    model = random_model(plan_of())
    text = plan.model_dump_json(exclude_defaults=True)
    assert refusal(with_plan(model, text)) == f"the model's pixel weights are not {count}"


@pytest.mark.parametrize(
    ("name", "bias", "top", "shift"),
    [
        ("first", "first_bias", 255, 7),
        ("first", "row", 255, 7),
        ("first", "column", 255, 7),
        ("hidden", "hidden_bias", 2048, 8),
        ("head", "head_bias", 2048, 8),
        ("seed", "seed_bias", 127, 5),
        ("conv", "conv_bias", 2048, 8),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_are_proved_to_the_last_unit(name: str, bias: str, top: int, shift: int, sign: int) -> None:
    """The largest weights whose sum is below 2**31 are admitted, and one unit more is refused."""
    plan = plan_of(height=9, width=9, units=64, up=8, side=8, maps=16, latents=256, fraction=4)
    calm = {name: np.zeros(shape, np.int16) for name, shape in plan.shapes().items()}
    inputs = plan.around if name == "first" else calm[name].shape[-2]
    each = min(2**15 - 1, (2**31 - 1) // (top * inputs))
    left = 2**31 - 1 - each * top * inputs
    last = min(2**15 - 1, left >> shift)
    tensors = calm | {
        name: np.full_like(calm[name], sign * each),
        bias: np.full_like(calm[bias], sign * last),
    }
    if name == "first":
        tensors["first"][:, inputs:] = 0
    ImageModel(plan, codes_of(plan), tensors)
    if last == 2**15 - 1:
        return  # of this layer, no weights of this shape could overflow
    tensors[bias] = np.full_like(calm[bias], sign * (last + 1))
    with pytest.raises(ModelError) as refused:
        ImageModel(plan, codes_of(plan), tensors)
    assert str(refused.value) == f"the model's {name} layer could overflow: its weights are too large"


@pytest.mark.jit
@settings(max_examples=20 if COMPILED else 3)
@given(seed=st.integers(0, 2**32), layers=st.integers(0, 2), latents=st.sampled_from([0, 40]))
def test_the_largest_weights_that_are_proved_still_give_the_images_back(
    seed: int, layers: int, latents: int
) -> None:
    """Every layer at its limit, of extreme inputs: sums of 32 bits wrap around nowhere, and floats stay exact."""
    plan = plan_of(height=9, width=3, channels=3, units=40, fraction=4, layers=layers, latents=latents, up=8)
    random = np.random.default_rng(seed)
    tensors: dict[str, npt.NDArray[np.int16]] = {}
    for name, shape in plan.shapes().items():
        inputs = shape[-2] if len(shape) > 1 else 1
        most = 2**15 - 1
        if name in ("first", "hidden", "head", "conv", "seed"):
            top = {"first": 1024, "seed": 127}.get(name, 2048)
            most = min(most, ((1 << 31) - (1 << 25)) // (inputs * top))
        tensors[name] = (random.choice([-1, 1], shape) * most).astype(np.int16)
    model = ImageModel(plan, codes_of(plan, reach=30), tensors)
    images = random.choice([0, 255], (2, plan.pixels)).astype(np.uint8)
    codes = random.choice([-30, 0, 30], (2, latents)).astype(np.int8)
    found, _, found_codes = model.decode_block(encode(model, images, codes), 2)
    assert found.tolist() == images.tolist()
    assert found_codes.tolist() == codes.tolist()
    sums = _first_sums(model, images[0], codes[:1])
    assert np.abs(sums).max() < 1 << 31


def _first_sums(model: ImageModel, image: Bytes, codes: Codes) -> npt.NDArray[np.int64]:
    """Sums of the first layer at the last pixel of an image, in unbounded integers."""
    plan, tensors = model.plan, {name: t.astype(np.int64) for name, t in model.tensors.items()}
    edged = np.zeros((plan.height + plan.up, plan.width + 2 * plan.side, plan.channels), np.int64)
    edged[plan.up :, plan.side : plan.side + plan.width] = image.reshape(plan.height, plan.width, -1)
    y, x = plan.height - 1, plan.width - 1
    around = [edged[y + plan.up + dy, x + plan.side + dx] for dy, dx in plan.offsets]
    shown = np.concatenate([*around, edged[y + plan.up, x + plan.side, :-1], model.features(codes)[0, -1]])
    c = plan.channels - 1
    places = tensors["first_bias"][c] + tensors["row"][c, -1] + tensors["column"][c, -1]
    return shown @ tensors["first"][c] + (places << 7)
