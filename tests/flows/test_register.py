"""What the registry's gate compares: two really trained models, one of which codes a column more than the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from data.errors import ModelError
from data.schema import Schema
from flows import register
from flows.settings import TrackingSettings
from flows.versions import Version
from vae import pipeline, store
from vae.settings import Codes, ModelSettings, TrainSettings
from vae.store import TrainedModel

ROWS = 1_200
SMALL = ModelSettings(latents=6, width=8, encoder_width=128, encoder_depth=1, codes=Codes.rich)
TRAINING = TrainSettings(steps=400, batch_rows=256, threads=1)
DAY = datetime(2026, 1, 1, tzinfo=UTC)
CHAMPION = Version("m", 1, "run", DAY, aliases=("champion",), tags={})
CHALLENGER = Version("m", 2, "run", DAY, aliases=(), tags={})


def rows_with(extra: str, seed: int = 0) -> pa.Table:
    """Groups of rows that show in every column but `extra`, which is a constant, another sign or noise."""
    random = np.random.default_rng(seed)
    group = random.integers(0, 4, ROWS)
    columns = {
        "constant": np.full(ROWS, 7),
        "sign": 30 * group + random.integers(0, 3, ROWS),
        "noise": random.integers(0, 500, ROWS),
    }
    return pa.table({
        "size": 40 * group + random.integers(0, 3, ROWS),
        "color": np.array(["red", "green", "blue", "grey"])[np.where(random.random(ROWS) < 0.9, group, 0)],
        "extra": columns[extra],
    })  # fmt: skip


def model_of(extra: str) -> TrainedModel:
    table = rows_with(extra)
    return pipeline.fit(table, Schema.from_arrow(table.schema), model=SMALL, training=TRAINING)


@pytest.fixture(scope="module")
def fewer() -> TrainedModel:
    """A model that learned that `extra` never changes, and does not code it."""
    model = model_of("constant")
    assert set(model.layout.plan.names) == {"size", "color"}
    return model


class Rows(NamedTuple):
    """A dataset's rows, all of them held out."""

    whole: pa.Table

    @property
    def rows(self) -> int:
        return self.whole.num_rows

    def table(self, **_: Any) -> pa.Table:
        return self.whole


class FakeRegistry:
    """Holds a champion, and takes down what it is told."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.store = SimpleNamespace(tracking=SimpleNamespace(settings=TrackingSettings()))

    def champion(self, name: str) -> Version:
        return CHAMPION

    def versions(self, name: str) -> list[Version]:
        return [CHALLENGER, CHAMPION]

    def tag(self, version: Version, tags: dict[str, str]) -> None:
        assert version == CHALLENGER
        self.tags |= tags


class Judgement(NamedTuple):
    reasons: tuple[str, ...]
    score: float | None
    """The code score in the tag of the challenger."""
    tag: str


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Judgement]:
    """What a registry says of a challenger that is no better than the champion, by the gate's default settings."""

    def call(challenger: TrainedModel, champion: TrainedModel, table: pa.Table) -> Judgement:
        store.save(challenger, tmp_path / "model")
        monkeypatch.setattr(register, "_comparable_champion", lambda *_: champion)
        monkeypatch.setattr(register, "split_of", lambda data: np.full(data.rows, 2, np.uint8))
        registry: Any = FakeRegistry()
        rest: list[Any] = [
            Rows(table),
            SimpleNamespace(path=tmp_path / "model"),
            SimpleNamespace(ratio=2.0),
            SimpleNamespace(numbers={}),
        ]
        promoted, verdict = register._judge(registry, CHALLENGER, *rest, say=lambda *_: None)
        assert not promoted
        score = registry.tags.get("svae.score")
        return Judgement(
            verdict.reasons, score and json.loads(score)["code_score"], registry.tags["svae.verdict"]
        )

    return call


def own_score(model: TrainedModel, table: pa.Table) -> float:
    return pipeline.score(model, table, np.full(table.num_rows, 2, np.uint8)).code_score


def drops(judgement: Judgement) -> list[str]:
    return [reason for reason in judgement.reasons if "drops by more than" in reason]


@pytest.mark.slow
def test_a_challenger_cannot_win_by_leaving_a_column_out(
    judge: Callable[..., Judgement], fewer: TrainedModel
) -> None:
    champion, table = model_of("sign"), rows_with("sign", seed=1)
    own, theirs = own_score(fewer, table), own_score(champion, table)
    assert own > theirs  # each on columns of its own choice
    found = judge(fewer, champion, table)
    # On those of both, the column that it cannot tell counts as nothing.
    assert drops(found) == [f"code score {own * 2 / 3:.3f} against {theirs:.3f}: drops by more than 0.01"]
    assert found.score == pytest.approx(own)  # whoever the champion is


@pytest.mark.slow
def test_a_challenger_does_not_lose_by_coding_a_column_more(
    judge: Callable[..., Judgement], fewer: TrainedModel
) -> None:
    challenger, table = model_of("noise"), rows_with("noise", seed=1)
    own, theirs = own_score(challenger, table), own_score(fewer, table)
    assert own < theirs - 0.01  # each on columns of its own choice
    found = judge(challenger, fewer, table)
    assert drops(found) == []
    assert any("larger, standard error" in reason for reason in found.reasons)
    assert found.score == pytest.approx(own)


@pytest.mark.parametrize("at_fault", ["champion", "challenger"])
def test_who_cannot_be_scored_is_named(
    at_fault: str, judge: Callable[..., Judgement], fewer: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = pipeline.score

    def fails(trained: TrainedModel, *rest: Any) -> Any:
        if (trained is fewer) == (at_fault == "champion"):
            raise ModelError("its sums overflow")
        return score(trained, *rest)

    monkeypatch.setattr(pipeline, "score", fails)
    found = judge(fewer, fewer, rows_with("constant", seed=1))
    reason = {
        "champion": "the champion (version 1) cannot be compared (its sums overflow); promote by hand",
        "challenger": "its sums overflow: promote it by hand, or not at all",
    }[at_fault]
    assert found.reasons == (reason,)
    assert found.tag == f"not promoted: {reason}"
