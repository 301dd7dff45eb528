"""Rows from codes alone: densities that integrate to one, guesses on the grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from data.onehot import encode_table
from vae import features, judging
from vae.codes_only import LOG_SCALE_HIGH, LOG_SCALE_LOW, CodesOnly
from vae.features import block, row_view
from vae.store import TrainedModel

Prepare = Callable[..., Any]


@pytest.fixture
def made(prepare: Prepare, varied: Any) -> Any:
    return prepare(varied(120))


@pytest.fixture
def decoder(made: Any) -> CodesOnly:
    torch.manual_seed(0)
    decoder = CodesOnly(made.layout, 16, 1, "relu")
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
    return decoder


def batch_of(made: Any, symbols: Any, states: Any) -> dict[str, torch.Tensor]:
    view = row_view(made.layout, symbols, states) | {"state": states}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in view.items()}


def test_each_column_s_likelihood_sums_to_one(made: Any, decoder: CodesOnly) -> None:
    code = torch.tensor([[1.0, -2.0, 0.0, 3.0]])
    for j, view in enumerate(made.layout.views):
        item = made.layout.plan.columns[j]
        if view.ordered:
            # a number's density, in standard deviations, plus the chance that it is missing
            value = torch.linspace(-6, 6, 4_001, dtype=torch.float64)
            batch = {
                "value": value.unsqueeze(1).expand(-1, len(made.layout.views)),
                "entry": torch.zeros(len(value), len(made.layout.views), dtype=torch.int32),
                "state": torch.zeros(len(value), len(made.layout.views), dtype=torch.uint8),
            }
            density = decoder.nats(batch, decoder.heads(code.expand(len(value), -1)))[:, j].neg().exp()
            absent = decoder.nats(
                {**batch, "state": batch["state"] + 1}, decoder.heads(code.expand(len(value), -1))
            )[0, j]
            mean, log_scale, gone = (x.item() for x in decoder.heads(code)[j])
            scale = math.exp(min(max(log_scale, LOG_SCALE_LOW), LOG_SCALE_HIGH))
            tails = sum(1 / (1 + math.exp((6 + side * mean) / scale)) for side in (1, -1))
            whole = torch.trapezoid(density, value).item() + tails / (1 + math.exp(gone))
            assert whole + absent.neg().exp().item() == pytest.approx(1, abs=1e-4), item.name
            continue
        entries = view.entries
        batch = {
            "value": torch.zeros(entries, len(made.layout.views)),
            "entry": torch.arange(entries).unsqueeze(1).expand(-1, len(made.layout.views)),
            "state": torch.zeros(entries, len(made.layout.views), dtype=torch.uint8),
        }
        sizes = [v.entries for v in made.layout.views]
        batch["entry"] = torch.minimum(batch["entry"], torch.tensor(sizes) - 1)
        mass = decoder.nats(batch, decoder.heads(code.expand(entries, -1)))[:, j].neg().exp()
        assert mass.sum().item() == pytest.approx(1, abs=1e-4)


def test_guesses_lie_on_the_grid_and_are_the_most_probable(made: Any, decoder: CodesOnly) -> None:
    code = torch.randint(-5, 6, (200, 4), generator=torch.Generator().manual_seed(1)).float()
    guess = decoder.guess(code)
    assert guess.symbols.shape == guess.missing.shape == (200, len(made.layout.views))
    for j, (view, item) in enumerate(zip(made.layout.views, made.layout.plan.columns, strict=True)):
        assert ((guess.symbols[:, j] >= item.low) & (guess.symbols[:, j] <= item.high)).all()
        if not view.ordered:
            assert set(guess.symbols[:, j].astype(int).tolist()) <= {*view.names}
    symbols = np.rint(guess.symbols).astype(np.int64)
    likely = decoder.nats(batch_of(made, symbols, guess.missing.astype(np.uint8)), decoder.heads(code))
    other = decoder.nats(
        batch_of(made, np.roll(made.symbols[:200], 1, 0)[:120], made.states), decoder.heads(code[:120])
    )
    for j, view in enumerate(made.layout.views):
        if not view.ordered:
            assert (likely[:120, j] <= other[:, j] + 1e-5).all()


def test_missing_cells_pay_for_being_missing_and_nothing_else(made: Any, decoder: CodesOnly) -> None:
    code = torch.zeros(1, 4)
    j = next(j for j, v in enumerate(made.layout.views) if v.ordered)
    gone = np.ones((1, len(made.layout.views)), np.uint8)
    first = decoder.nats(batch_of(made, made.symbols[:1], gone), decoder.heads(code))
    second = decoder.nats(batch_of(made, made.symbols[1:2] * 0, gone), decoder.heads(code))
    assert first[0, j] == second[0, j]
    logit = decoder.heads(code)[j][2]
    assert first[0, j].item() == pytest.approx(torch.nn.functional.softplus(-logit).item())


def test_a_decoder_learns_what_the_code_says(made: Any) -> None:
    torch.manual_seed(0)
    decoder = CodesOnly(made.layout, 32, 1, "relu")
    code = made.batch["value"][:, :4].clamp(-5, 5)
    optimiser = torch.optim.Adam(decoder.parameters(), 0.02)
    before = decoder.nats(made.batch, decoder.heads(code)).sum(1).mean().item()
    for _ in range(60):
        optimiser.zero_grad()
        decoder.nats(made.batch, decoder.heads(code)).sum(1).mean().backward()
        optimiser.step()
    assert decoder.nats(made.batch, decoder.heads(code)).sum(1).mean().item() < before - 3


def test_a_code_that_tells_all_scores_one_and_one_that_tells_nothing_zero(
    made: Any, decoder: CodesOnly
) -> None:
    batch = made.batch

    def heads(share: float) -> list[torch.Tensor]:
        """Numbers of which so much of the variance is told; categories right in each row, or always the usual one."""
        found: list[torch.Tensor] = []
        for j, view in enumerate(made.layout.views):
            if view.ordered:
                there = batch["state"][:, j] == 0
                mean = batch["value"][there, j].mean()
                found.append((mean + (1 - (1 - share) ** 0.5) * (batch["value"][:, j] - mean)).expand(3, -1))
            else:
                entry = batch["entry"][:, j].long()
                told = entry if share else torch.bincount(entry).argmax().expand(120)
                found.append(torch.nn.functional.one_hot(told, view.entries).T)
        return found

    for share in (0.0, 1.0):
        assert decoder.score(batch, heads(share)).item() == pytest.approx(share, abs=1e-5)
    kinds = [
        view.ordered for j, view in enumerate(made.layout.views) if made.layout.plan.columns[j].name != "same"
    ]
    expected = 0.5 * sum(kinds) / len(kinds) + (len(kinds) - sum(kinds)) / len(kinds)
    assert decoder.score(batch, heads(0.5)).item() == pytest.approx(expected, abs=1e-5)


def test_all_other_names_are_no_answer(
    prepare: Prepare, varied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "MAX_NAMES", 4)
    made = prepare(varied(600))
    j = made.layout.plan.names.index("key")
    view, entry = made.layout.views[j], made.batch["entry"][:, j].long()
    others, usual = len(view.names), (entry == 0).sum().item()
    told = (entry != others).sum().item()
    assert usual < told < 200
    # nothing is told of the columns beside it, which are numbers at their mean or names of which one is usual
    batch = made.batch | {"value": torch.zeros_like(made.batch["value"])}
    batch["entry"] = torch.zeros_like(batch["entry"]).index_copy(
        1, torch.tensor([j]), entry.int().unsqueeze(1)
    )
    heads = [torch.zeros(max(3, v.entries), 600) for v in made.layout.views]
    decoder = CodesOnly(made.layout, 16, 1, "relu")
    heads[j][others], heads[j][0] = 9.0, 1.0
    assert decoder.score(batch, heads).item() == pytest.approx(0, abs=1e-6)
    heads[j] = torch.nn.functional.one_hot(entry, view.entries).T.float()
    assert decoder.score(batch, heads).item() == pytest.approx((told - usual) / (600 - usual), abs=1e-6)


def test_the_score_of_a_batch_is_that_of_the_rows_rebuilt(trained: TrainedModel, table: pa.Table) -> None:
    symbols, states = block(encode_table(trained.grid, table.column), trained.layout.plan.names)
    view = row_view(trained.layout, symbols, states) | {"state": states}
    batch = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in view.items()}
    codes_only = trained.of_columns.codes_only
    found = codes_only.score(batch, codes_only.heads(trained.of_columns.encode(batch).float())).item()
    expected = judging.alone(trained, table)
    assert expected > 0.05
    assert found == pytest.approx(expected, abs=0.01)
