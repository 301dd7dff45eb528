"""A model chosen by cross-validation: trials that are kept, nested runs, and the best through the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.jobs import RetrainSettings, open_job
from flows.registry import Registry
from flows.settings import load_tracking
from flows.tracking import Store
from vae.settings import ModelSettings, TrainSettings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]

SETTINGS = RetrainSettings(
    model=ModelSettings(encoder_width=16, encoder_depth=1),
    train=TrainSettings(steps=30, batch_rows=256, threads=1),
)


def children(store: Store, parent: str) -> list[Any]:
    text = f"tags.`mlflow.parentRunId` = '{parent}'"
    return list(store.client.search_runs([store.experiment_id()], text))


def test_trials_are_kept_and_the_best_goes_through_the_gate(home: Path, flights: Path) -> None:
    from flows.tune import TuneSettings, tune

    def call(trials: int) -> Any:
        asked = TuneSettings(trials=trials, folds=2, rows=3_000)
        return tune(source=str(flights), settings=SETTINGS, tuning=asked, out=str(home / "out"))

    first, outcome = call(2)
    assert first.trials + first.pruned == 2
    assert first.figure.is_file()
    assert outcome.version.promoted
    again, same = call(3)
    assert again.trials + again.pruned == 3  # two of them from before
    assert again.run_id == first.run_id
    assert again.score <= first.score
    assert same.version.version == (outcome.version.version if again.best == first.best else 2)

    store = Store(load_tracking())
    params = [tuple(sorted(run.data.params.items())) for run in children(store, first.run_id)]
    assert len(set(params)) == 3  # who goes on tries something else
    runs = children(store, first.run_id)
    assert len(runs) == 3
    assert all(run.info.status in ("FINISHED", "KILLED") for run in runs)
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert min(run.data.metrics["total_bytes"] for run in finished) == pytest.approx(again.score)
    registry = Registry(store)
    assert registry.champion(store.tracking.model_name("flights")) is not None


def test_trials_of_a_killed_process_are_over_and_do_not_count(home: Path) -> None:
    import optuna

    from flows.tune import ABANDONED, _end_abandoned

    store = Store(load_tracking())
    study = optuna.create_study(storage=f"sqlite:///{home / 'tune.db'}")
    trial = study.ask()
    trial.set_user_attr("run", store.start_run("trial-0", params={}, tags={}))
    _end_abandoned(study, store)
    assert [one.state for one in study.trials] == [optuna.trial.TrialState.FAIL]
    assert store.client.get_run(trial.user_attrs["run"]).info.status == "KILLED"
    assert study.user_attrs[ABANDONED] == [0]
    _end_abandoned(study, store)
    assert study.user_attrs[ABANDONED] == [0]


def test_a_probe_may_decide_and_has_to_be_there(home: Path, flights: Path) -> None:
    from data.errors import UsageError
    from data.ingest import ingest
    from flows.tune import TuneSettings, choose

    job = open_job(str(flights), SETTINGS, out=str(home / "out"), config=None)
    ingest(flights, job.dataset)

    def say(*_: object) -> None:
        pass

    found = choose(job, TuneSettings(trials=1, folds=2, rows=2_000, score="probe:origin"), say)
    assert 0 < found.score <= 1
    with pytest.raises(UsageError, match="neither `bytes` nor `probe:COLUMN`"):
        choose(job, TuneSettings(trials=1, folds=2, score="probe:nothing"), say)


def test_a_trial_that_falls_behind_is_given_up(
    home: Path, flights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data.ingest import ingest
    from flows.tune import TuneSettings, choose
    from vae import tuning
    from vae.tuning import Fold

    job = open_job(str(flights), SETTINGS, out=str(home / "out"), config=None)
    ingest(flights, job.dataset)
    measured = list[Fold]()

    def measure(*_: object, **__: object) -> Fold:
        # the first four trials go through, whatever they say; the fifth is far behind them
        total = 100.0 if len(measured) < 4 * 3 else 1_000.0
        measured.append(Fold(total, 10, 1.0, 0.5, 3.0, None))
        return measured[-1]

    monkeypatch.setattr(tuning, "measure", measure)
    found = choose(job, TuneSettings(trials=5, folds=3, rows=2_000), lambda *_: None)
    assert (found.trials, found.pruned, found.score) == (4, 1, 100.0)
    assert len(measured) == 4 * 3 + 1
    runs = children(Store(load_tracking()), found.run_id)
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 4 + ["KILLED"]
