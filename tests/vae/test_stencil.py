"""The float decoder is the integer decoder: the same features, the same order of sight, nearly the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch

from vae.codec.integer import IntegerModel
from vae.codec.plan import Head
from vae.stencil import Alike, Stencil

Prepare = Callable[..., Any]
LN2 = math.log(2)


PLANS = {
    "before": {"above": False, "deep": False, "direct": False, "fine": False, "history": False},
    "above": {"above": True, "deep": False, "direct": False, "fine": False, "history": False},
    "deep": {"above": True, "deep": True, "direct": False, "fine": False, "history": True},
    "newest": {"above": True, "deep": True, "direct": True, "fine": True, "history": True},
}


@pytest.fixture(scope="module", params=PLANS.values(), ids=PLANS)
def made(prepare: Prepare, varied: Any, request: pytest.FixtureRequest) -> Any:
    return prepare(varied(3_000), latents=3, width=8, reach=9, **request.param)


def codes_of(rows: int, latents: int, reach: int, seed: int = 0, stays: float = 0.3) -> torch.Tensor:
    """Codes of which a share is what it was in the row above."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randint(-reach, reach + 1, (rows, latents), generator=random)
    codes = (values * (torch.rand(rows, latents, generator=random) < 0.4)).float()
    stay = torch.rand(rows, latents, generator=random) < stays
    for t in range(1, rows):
        codes[t] = torch.where(stay[t], codes[t - 1], codes[t])
    return codes


def above_of(code: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(code[:1]), code[:-1]])


def cost(stencil: Stencil, made: Any, code: torch.Tensor, *, quantised: bool = True) -> tuple[Any, Any]:
    """Nats of each latent and of each column, by the float model."""
    weights = stencil.weights(quantised=quantised)
    nats = stencil.prior_nats(weights, code, above_of(code))
    index = (code + stencil.layout.plan.reach).long().T.unsqueeze(1)
    return nats.gather(1, index).squeeze(1).T, stencil.column_nats(weights, made.batch, code)


@pytest.fixture(scope="module")
def stencil(made: Any) -> Stencil:
    """Trained for a moment, so that every part of it says something."""
    torch.manual_seed(0)
    stencil = Stencil(made.layout)
    code = codes_of(3_000, 3, 9)
    optimiser = torch.optim.Adam(stencil.parameters(), 0.02)
    for _ in range(40):
        optimiser.zero_grad()
        prior, columns = cost(stencil, made, code)
        ((prior.sum(1) + columns.sum(1)).mean() + 1e-4 * stencil.description()).backward()
        optimiser.step()
    return stencil


def test_all_heads_and_bases_are_put_to_the_test(made: Any) -> None:
    items = made.layout.plan.columns
    assert {item.head for item in items} == set(Head)
    assert {base for item in items for base in item.components} == {0, 1, 2, 3, 4}
    assert {state for item in items for state in item.states} == {1, 2, 3}


def test_the_written_bits_are_the_float_model_s_within_one_percent(made: Any, stencil: Stencil) -> None:
    code = codes_of(3_000, 3, 9)
    model = IntegerModel(made.layout.plan, stencil.integers())
    streams = model.encode_block(made.symbols, made.states, code.numpy().astype(np.int8))
    with torch.no_grad():
        prior, columns = cost(stencil, made, code)
    floats = [prior.sum().item() / LN2, *(columns.sum(0) / LN2).tolist()]
    written = [8 * len(stream) for stream in streams]
    for name, bits, real in zip(["code", *model.columns], floats, written, strict=True):
        # a flag, and the final state's 64 bits, of which 31 are always there and up to 32 wait for a full word
        assert real - 72 - 0.01 * bits <= bits <= real - 8 + 0.01 * bits, name
    assert sum(written) == pytest.approx(sum(floats) + 56 * len(streams), rel=0.003)


def test_a_model_exported_and_read_back_decodes(made: Any, stencil: Stencil) -> None:
    model = IntegerModel.from_bytes(IntegerModel(made.layout.plan, stencil.integers()).to_bytes())
    codes = codes_of(300, 3, 9).numpy().astype(np.int8)
    streams = model.encode_block(made.symbols[:300], made.states[:300], codes)
    symbols, states, back = model.decode_block(streams, 300)
    assert (symbols == made.symbols[:300]).all()
    assert (states == made.states[:300]).all()
    assert (back == codes).all()


def test_quantised_weights_are_the_exported_ones(made: Any, stencil: Stencil) -> None:
    whole = stencil.integers()
    unit = 2**made.layout.plan.fraction
    weights = {name: w.detach().numpy() * unit for name, w in stencil.weights(quantised=True).items()}
    assert set(whole) == set(made.layout.plan.shapes())
    assert {name: array.shape for name, array in whole.items()} == made.layout.plan.shapes()
    for name in made.layout.plan.shapes():
        if name.startswith(("prior.", "code.")):
            assert np.array_equal(whole[name], weights[name.replace(".", "_")]), name
    assert ("prior.stay" in whole) == made.layout.plan.above
    assert ("prior.hidden" in whole) == made.layout.plan.deep
    place = 0
    for j, item in enumerate(made.layout.plan.columns):
        assert np.array_equal(whole[f"column.{item.name}.hidden"], weights["hidden"][j])
        assert np.array_equal(whole[f"column.{item.name}.before"], weights["before"][j, : item.before])
        if made.layout.plan.direct:
            assert np.array_equal(whole[f"column.{item.name}.direct"], weights["direct"][j, : item.before])
        assert np.array_equal(whole[f"column.{item.name}.head"], weights["head"][j, : item.outputs])
        for part in ("embed_before", "embed_after"):
            rows = getattr(item, part.replace("embed", "embedded"))
            if rows:
                assert np.array_equal(
                    whole[f"column.{item.name}.{part}"], weights["embedding"][place : place + rows]
                )
            place += rows


def test_weights_beyond_16_bits_are_clipped_not_wrapped(made: Any) -> None:
    stencil = Stencil(made.layout)
    with torch.no_grad():
        stencil.bias[0, 0] = 1e6
        stencil.bias[0, 1] = -1e6
    assert stencil.integers()[f"column.{made.layout.plan.names[0]}.bias"][:2].tolist() == [32767, -32767]


def test_quantising_lets_the_gradient_through(made: Any) -> None:
    torch.manual_seed(1)
    stencil = Stencil(made.layout)
    prior, columns = cost(stencil, made, codes_of(3_000, 3, 9))
    (prior.sum(1) + columns.sum(1)).mean().backward()
    for name, parameter in stencil.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_latents_are_a_distribution_that_sees_only_the_latents_before(made: Any, stencil: Stencil) -> None:
    weights, code = stencil.weights(quantised=False), codes_of(50, 3, 9)
    nats = stencil.prior_nats(weights, code, above_of(code))
    assert nats.shape == (3, 19, 50)
    assert torch.allclose(nats.neg().exp().sum(1), torch.ones(3, 50), atol=1e-5)
    for changed in range(3):
        other = code.clone()
        other[:, changed] += 1
        moved = (stencil.prior_nats(weights, other, above_of(code)) - nats).abs().amax((1, 2))
        assert (moved[: changed + 1] == 0).all()
        assert (moved[changed + 1 :] > 0).all()
    moved = (stencil.prior_nats(weights, code, above_of(code) + 1) - nats).abs().amax((1, 2))
    assert (moved > 0).all()
    for changed in range(3):
        above = above_of(code)
        above[:, changed] += 1
        moved = (stencil.prior_nats(weights, code, above) - nats).abs().amax((1, 2))
        assert ((moved > 0) == (stencil.layout.plan.above or torch.arange(3) >= changed)).all()


@pytest.mark.parametrize("deep", [False, True])
def test_to_stay_is_seen_by_the_class_and_by_the_latents_after_it(
    prepare: Prepare, varied: Any, deep: bool
) -> None:
    """Against the sums written out, one row and one latent at a time."""
    torch.manual_seed(2)
    stencil = Stencil(prepare(varied(40), latents=3, width=8, reach=9, above=True, deep=deep).layout)
    with torch.no_grad():
        stencil.prior_stay.normal_()
        weights, code = stencil.weights(quantised=False), codes_of(40, 3, 9)
        # not quite whole, as rounding that lets the gradient through leaves them
        nats = stencil.prior_nats(weights, code * (1 + 2e-7), above_of(code))
        for t in range(40):
            last = code[t - 1] if t else torch.zeros(3)
            total = torch.stack([shown(last[i]) @ weights["prior_above"][i] for i in range(3)]).sum(0)
            for i in range(3):
                total = total + shown(last[i])[0] * weights["prior_before"][i, 0]
                hidden = (total + weights["prior_bias"][i]).clamp(0, 8)
                if deep:
                    hidden = weights["prior_hidden"][i] @ hidden + weights["prior_hidden_bias"][i]
                    hidden = hidden.clamp(0, 8)
                logits = weights["prior_head"][i] @ hidden + weights["prior_head_bias"][i]
                logits[int(last[i]) + 9] += weights["prior_stay"][i]
                assert torch.allclose(nats[i, :, t], -logits.log_softmax(0), atol=1e-4)
                total = total + shown(code[t, i]) @ weights["prior_after"][i]
                total = total + float(code[t, i] == last[i]) * weights["prior_same"][i]


def shown(value: torch.Tensor) -> torch.Tensor:
    """Half a unit a step, clipped, and presence."""
    return torch.stack([(value / 2).clamp(-127 / 32, 127 / 32), (value != 0).float()])


def test_codes_that_stay_cost_less_where_the_row_above_is_in_view(prepare: Prepare, varied: Any) -> None:
    code = codes_of(2_000, 3, 5, stays=0.9)
    index, bits = (code + 5).long().T.unsqueeze(1), dict[bool, float]()
    for above in (False, True):
        torch.manual_seed(0)
        stencil = Stencil(prepare(varied(2_000), latents=3, width=8, above=above).layout)
        optimiser = torch.optim.Adam(stencil.parameters(), 0.05)
        for _ in range(60):
            optimiser.zero_grad()
            nats = stencil.prior_nats(stencil.weights(quantised=True), code, above_of(code)).gather(1, index)
            nats.sum(0).mean().backward()
            optimiser.step()
            bits[above] = nats.sum(0).mean().item() / LN2
    assert bits[True] < 0.65 * bits[False]


def test_columns_see_the_code_and_what_is_decoded_before_them(made: Any, stencil: Stencil) -> None:
    weights, code = stencil.weights(quantised=False), codes_of(50, 3, 9)
    batch = {name: array[:50] for name, array in made.batch.items()}
    out = stencil.activations(weights, batch, code)
    assert ((stencil.activations(weights, batch, code + 1) - out).abs().amax((1, 2)) > 0).all()
    for j in range(len(made.layout.plan.columns)):
        for name, first in (("before", j), ("after", j + 1)):
            other = {**batch, name: batch[name].clone()}
            other[name][:, j] = -other[name][:, j] + 16
            moved = (stencil.activations(weights, other, code) - out).abs().amax((1, 2))
            assert (moved[:first] < 1e-5).all(), (name, j)
            if first < len(moved):
                assert moved[first] > 1e-5, (name, j)


def pairs_table(rows: int) -> pa.Table:
    """Two columns of each head that have one shape and differ in all else."""
    random = np.random.default_rng(3)
    key = random.integers(0, 70, rows)
    one, two = np.cumsum(random.integers(-4, 6, rows)), np.cumsum(random.integers(-300, 500, rows))
    return pa.table({
        "few": random.integers(3, 12, rows),
        "other few": 20 + (key + random.integers(0, 4, rows)) % 9,
        "walk": pa.array(one, mask=random.random(rows) < 0.05),
        "long walk": pa.array(two, mask=random.random(rows) < 0.05),
        "shop": np.array([f"k{k:02d}" for k in range(70)])[key],
        "tail": (5 * key + random.integers(0, 5, rows)).astype(str),
        "crew": (7 * key + random.integers(0, 7, rows)).astype(str),
    })  # fmt: skip


def test_columns_of_one_shape_pay_together_what_each_pays_alone(prepare: Prepare) -> None:
    made = prepare(pairs_table(2_000), latents=2)
    torch.manual_seed(0)
    stencil = Stencil(made.layout)
    items = made.layout.plan.columns
    together = [group for group in cast("list[Alike]", list(stencil.alike)) if len(group.which) > 1]
    assert {group.item.head for group in together} == set(Head)
    assert any(group.item.states for group in together)
    for name in ("low", "unit"):
        assert any(len({getattr(items[j], name) for j in group.which}) > 1 for group in together)
    code, weights = codes_of(2_000, 2, 5), stencil.weights(quantised=False)
    nats = stencil.column_nats(weights, made.batch, code)
    heads = [stencil.head, stencil.head_bias, stencil.before]
    gradients = torch.autograd.grad(nats.square().sum(), heads)
    stencil.alike = torch.nn.ModuleList(Alike([j], [item]) for j, item in enumerate(items))
    stencil.places_of = torch.arange(len(items))
    alone = stencil.column_nats(weights, made.batch, code)
    assert torch.allclose(nats, alone, atol=1e-4, rtol=1e-4)
    for found, expected in zip(gradients, torch.autograd.grad(alone.square().sum(), heads), strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_the_cost_of_a_cell_does_not_depend_on_its_company(made: Any, stencil: Stencil) -> None:
    weights, code = stencil.weights(quantised=True), codes_of(3_000, 3, 9)
    whole = stencil.column_nats(weights, made.batch, code)
    parts = [
        stencil.column_nats(weights, {n: a[k : k + 700] for n, a in made.batch.items()}, code[k : k + 700])
        for k in range(0, 3_000, 700)
    ]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("rows", "latents", "plan"),
    [
        (1, 0, "before"),
        (1, 2, "before"),
        (40, 0, "before"),
        (1, 2, "above"),
        (2, 1, "above"),
        (2, 1, "newest"),
    ],
)
def test_small_tables_cost_what_is_written(
    prepare: Prepare, varied: Any, rows: int, latents: int, plan: str
) -> None:
    for table in (varied(rows), varied(rows).select(["walk"]), varied(rows).select(["key"])):
        made = prepare(table, latents=latents, width=4, **PLANS[plan])
        torch.manual_seed(rows)
        stencil = Stencil(made.layout)
        code = codes_of(rows, latents, 5)
        with torch.no_grad():
            prior, columns = cost(stencil, made, code)
        model = IntegerModel(made.layout.plan, stencil.integers())
        streams = model.encode_block(made.symbols, made.states, code.numpy().astype(np.int8))
        floats = [prior.sum().item(), *columns.sum(0).tolist()]
        for nats, stream in zip(floats, streams, strict=True):
            assert 8 * len(stream) - 74 <= 1.02 * nats / LN2 + 1
            assert 0.98 * nats / LN2 - 1 <= 8 * len(stream) - 8


def test_weights_are_described_by_the_logarithm_of_their_steps(made: Any) -> None:
    stencil, unit = Stencil(made.layout), 2.0**made.layout.plan.fraction
    with torch.no_grad():
        for parameter in stencil.parameters():
            parameter.zero_()
        assert stencil.description().item() == 0.0
        stencil.bias[0, 0], stencil.bias[1, 2], stencil.head[0, 0, 0] = 3 / unit, -7 / unit, 1 / unit
    assert stencil.description().item() == pytest.approx(math.log(4) + math.log(8) + math.log(2), rel=1e-5)
    stencil.description().backward()
    gradient = stencil.bias.grad
    assert gradient is not None
    assert gradient[0, 0].item() == pytest.approx(unit / 4, rel=1e-5)
    assert gradient[1, 2].item() == pytest.approx(-unit / 8, rel=1e-5)


def test_what_is_described_is_what_is_exported_and_no_padding(made: Any, stencil: Stencil) -> None:
    """After a training, too, whose penalty and optimiser have had their way with every parameter."""
    unit = 2.0**made.layout.plan.fraction
    whole = stencil.integers()
    rounded = Stencil(made.layout)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            parameter.copy_((dict(stencil.named_parameters())[name] * unit).round() / unit)
    expected = sum(np.log1p(np.abs(array.astype(float))).sum() for array in whole.values())
    assert sum(p.numel() for p in stencil.parameters()) > sum(array.size for array in whole.values())
    assert rounded.description().item() == pytest.approx(expected, rel=1e-5)
