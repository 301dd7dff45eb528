"""A model chosen by cross-validation: trials of Optuna, each a nested run in MLflow; the best goes to the gate."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import optuna
from prefect import flow
from prefect.logging import get_run_logger
from pydantic import Field

from data.bounds import resolve_bounds
from data.errors import ModelError, UsageError
from data.ingest import open_dataset
from data.kinds import listed
from flows import cache, tasks
from flows.hooks import ON_RETRAIN_CANCELLATION, ON_RETRAIN_FAILURE
from flows.jobs import Job, RetrainSettings, open_job
from flows.locks import file_lock
from flows.results import Outcome
from flows.retrain import retrain
from flows.tracking import FLOW_RUN_TAG, Store
from flows.work import flow_run_id
from vae import tuning as trials
from vae.settings import ModelSettings, Settings

State = optuna.trial.TrialState
ABANDONED = "abandoned"
STUDY = "tune"
DATABASE = "tune.db"
PARENT = "mlflow.parentRunId"
BYTES = "bytes"


class TuneSettings(Settings):
    """How a model is chosen."""

    trials: int = Field(default=20, ge=1, le=10_000)
    """Settings that are tried, those that were given up early among them."""
    folds: int = Field(default=3, ge=2, le=20)
    """Parts of the table, each of which is held out once."""
    score: str = Field(default=BYTES, max_length=1000)
    """What is best: `bytes` of the table and the model, or `probe:COLUMN`, how well a linear model reads a
    column off the codes that the model does not see."""
    rows: int = Field(default=200_000, ge=100)
    """Rows that trials read: of a longer table, its first so many."""

    @property
    def probed(self) -> str | None:
        """The column of the probe."""
        return self.score.removeprefix("probe:") if self.score.startswith("probe:") else None


class Tuned(Settings):
    """What trials found."""

    best: ModelSettings
    """The settings of the model that scored best."""
    score: float
    """Its score, mean over the folds."""
    trials: int
    """Trials that went through all folds."""
    pruned: int
    """Trials that were given up early."""
    run_id: str
    """The run that theirs are nested in."""
    figure: Path
    """Scores against sparsity."""


@flow(
    flow_run_name="tune",
    timeout_seconds=14 * 24 * 3600,
    on_failure=ON_RETRAIN_FAILURE,
    on_crashed=ON_RETRAIN_FAILURE,
    on_cancellation=ON_RETRAIN_CANCELLATION,
)
def tune(
    source: str,
    settings: RetrainSettings = RetrainSettings(),  # noqa: B008  (frozen)
    tuning: TuneSettings = TuneSettings(),  # noqa: B008  (frozen)
    out: str | None = None,
    config: str | None = None,
) -> tuple[Tuned, Outcome]:
    """Choose latents, sparsity and width by cross-validation, and retrain with the best, which goes to the gate.

    Args:
        source: What to ingest: a file, a folder or glob of files, a URI, or `sample:NAME`.
        settings: Of the retraining; its model is where trials begin, and its effort is that of each.
        tuning: Trials, folds and score.
        out: Folder for everything that is made; by default `svae-runs/NAME`.
        config: Full path of `mlflow.yml`; by default the variable SVAE_CONFIG, or the working directory's.
    """
    job = open_job(source, settings, out=out, config=config)
    say = get_run_logger().info
    waiting = f"another run works on {job.out}; waiting for it to end"
    with file_lock(job.lock, on_wait=lambda: say(waiting), remove=True):
        tasks.ingest(job)
        found = choose(job, tuning, say)
    say(
        "best of %d: %s",
        found.trials,
        found.best.model_dump(include={"latents", "codes", "width"}, mode="json"),
    )
    best = settings.model_copy(update={"model": found.best})
    return found, retrain(source=source, settings=best, out=str(job.out), config=config)


def choose(job: Job, settings: TuneSettings, say: Any) -> Tuned:
    """The best settings of the model for an ingested dataset; `say` is told of each trial.

    Trials are kept in a database in the job's folder: a tuning that was killed goes on, and one that is asked for more
    trials has only the rest to do.

    Raises:
        UsageError: There is no such column to probe, or no such score.
        ModelError: No trial went through.
    """
    data = open_dataset(job.dataset)
    table = data.table(rows=slice(0, min(data.rows, settings.rows)))
    if settings.score != BYTES and settings.probed not in table.column_names:
        raise UsageError(
            f"--score {settings.score}: neither `{BYTES}` nor `probe:COLUMN`; {listed(table.column_names)}"
        )
    bounds = resolve_bounds(job.settings.bounds, data.schema, data.stats)
    study = _study(job, settings, data.manifest.digest)
    store = Store(job.tracking())
    _end_abandoned(study, store)
    parent = _parent(study, store, job, settings)
    splits = trials.folds(table.num_rows, settings.folds)

    def objective(trial: optuna.Trial) -> float:
        model = trials.chosen(trial, job.settings.model)
        child = store.start_run(
            f"trial-{trial.number}",
            params={"model": model.model_dump(mode="json")},
            tags={PARENT: parent, FLOW_RUN_TAG: flow_run_id()},
        )
        trial.set_user_attr("run", child)
        status = "FAILED"
        try:
            found = list[trials.Fold]()
            for number, split in enumerate(splits):
                fold = trials.measure(
                    table, split, bounds=bounds, model=model, training=job.settings.train,
                    probed=settings.probed,
                )  # fmt: skip
                found.append(fold)
                store.log_metrics(child, {f"fold/{k}": v for k, v in fold._asdict().items()}, number)
                value = _mean(found)
                trial.report(value, number)
                if trial.should_prune() and number + 1 < len(splits):
                    status = "KILLED"
                    raise optuna.TrialPruned
            for name in trials.Fold._fields:
                values = [getattr(fold, name) for fold in found]
                if None not in values:
                    mean = sum(values) / len(values)
                    trial.set_user_attr(name, mean)
                    store.log_metrics(child, {name: mean})
            status = "FINISHED"
            return value
        finally:
            with contextlib.suppress(Exception):  # the study knows of the trial all the same
                store.end_run(child, status)

    def told(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        ended = "failed" if trial.state is State.FAIL else "given up early"
        value = ended if trial.value is None else f"{trial.value:,.4g}"
        say("trial %d: %s, %s", trial.number, ", ".join(f"{k} {v}" for k, v in trial.params.items()), value)

    left = settings.trials - len(study.trials) + len(study.user_attrs.get(ABANDONED, []))
    if left > 0:
        study.optimize(objective, n_trials=left, callbacks=[told], catch=(ModelError,))
    complete = study.get_trials(states=(State.COMPLETE,))
    pruned = len(study.get_trials(states=(State.PRUNED,)))
    if not complete:
        store.end_run(parent, "FAILED")
        raise ModelError(
            f"none of {settings.trials} trials went through; try others: --trials, --steps or a longer table"
        )
    best = trials.chosen(optuna.trial.FixedTrial(study.best_params), job.settings.model)
    store.log_metrics(parent, {"best": study.best_value, "trials": len(complete), "pruned": pruned})
    figure = _draw(complete, settings, job.out)
    store.log_files(parent, {"figures": [figure]})
    store.end_run(parent)
    return Tuned(
        best=best, score=study.best_value, trials=len(complete), pruned=pruned, run_id=parent, figure=figure
    )


def _mean(found: list[trials.Fold]) -> float:
    values = [fold.total_bytes if fold.probe is None else fold.probe for fold in found]
    return sum(values) / len(values)


def _study(job: Job, settings: TuneSettings, digest: str) -> optuna.Study:
    """The study of this folder: of the same data and settings the one there is, else a new one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    key = cache.key_of(STUDY, {
        "data": digest, "folds": settings.folds, "score": settings.score, "rows": settings.rows,
        "model": job.settings.model, "train": job.settings.train, "bounds": list(job.settings.bounds),
    })  # fmt: skip
    storage = f"sqlite:///{job.out / DATABASE}"
    name = f"{STUDY}-{key[:16]}"
    known = name in optuna.get_all_study_names(storage)
    done = len(optuna.load_study(study_name=name, storage=storage).trials) if known else 0
    return optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize" if settings.probed is None else "maximize",
        # by what is done, or a process that goes on would try the same again
        sampler=optuna.samplers.TPESampler(seed=job.settings.train.seed + done),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        load_if_exists=True,
    )


def _end_abandoned(study: optuna.Study, store: Store) -> None:
    """Trials that a killed process left are failed ones that do not count, and their runs are over."""
    for trial in study.get_trials(states=(State.RUNNING,)):
        run_id = trial.user_attrs.get("run")
        if run_id and store.take_up(run_id, {}):
            store.end_run(run_id, "KILLED")
        study.set_user_attr(ABANDONED, [*study.user_attrs.get(ABANDONED, []), trial.number])
        study.tell(trial.number, state=State.FAIL)


def _parent(study: optuna.Study, store: Store, job: Job, settings: TuneSettings) -> str:
    """The run that trials are nested in: the one that this study began, if there is one."""
    known = study.user_attrs.get("run")
    tags = {FLOW_RUN_TAG: flow_run_id()}
    if known and store.take_up(known, tags):
        with store.explained():
            store.client.update_run(known, status="RUNNING")
        return str(known)
    run_id = store.start_run(
        f"tune-{job.name}",
        params={"tune": settings.model_dump(mode="json"), "source": job.source},
        tags={"svae.kind": STUDY, **tags},
    )
    study.set_user_attr("run", run_id)
    return run_id


def _draw(done: list[optuna.trial.FrozenTrial], settings: TuneSettings, out: Path) -> Path:
    from vae import report

    points = [
        {**trial.params, **trial.user_attrs, "score": float(trial.value or 0.0)}
        for trial in done
    ]  # fmt: skip
    what = "bytes, the model counted" if settings.probed is None else f"probe of {settings.probed}"
    return report.save(report.trade_off(points, what), out / "tune.png")
