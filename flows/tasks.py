"""Thin tasks of the retraining: paths and digests in, paths and digests out.

The work itself is in `vae.pipeline`, `flows.register` and their like; a task adds what Prefect is for: a readable
name, retries where the outside can fail, a time-out, progress and tables as artifacts, advice on failure. What is
made already is not made again (see `flows.cache`); such a task ends in the state `Cached`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from data.gate import require
from flows import cache, curves, pages, work
from flows.hooks import ON_TASK_FAILURE, outside_failed
from flows.jobs import Job
from flows.results import Archived, Checked, Coded, Curved, Evaluated, Ingested, Registered, Trained
from flows.shown import ProgressArtifact, show_table
from vae.settings import Settings

S = TypeVar("S", bound=Settings)

Function = TypeVar("Function", bound=Callable[..., Any])
reused: ContextVar[bool] = ContextVar("reused", default=False)
"""Whether the step that runs found its work done."""

outside: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [2, 15, 60],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": outside_failed,
}


def shell(*, hours: float, **options: Any) -> Callable[[Function], Function]:
    """A task that is called like the function it wraps: also a step that ends in `Cached` returns its result."""

    def wrap(function: Function) -> Function:
        @functools.wraps(function)
        def body(*arguments: Any, **named: Any) -> Any:
            reused.set(False)
            result = function(*arguments, **named)
            return Completed(name="Cached", message="made already", data=result) if reused.get() else result

        work = task(
            task_run_name=f"{function.__name__}-{{job.name}}",
            timeout_seconds=hours * 3600,
            cache_policy=NO_CACHE,
            on_failure=ON_TASK_FAILURE,
            **options,
        )(body)

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            result = work(*arguments)
            return result.result() if isinstance(result, State) else result

        return cast(Function, call)

    return wrap


def made_once(
    job: Job, step: str, kind: type[S], inputs: Mapping[str, Any], make: Callable[[], S], *outputs: Path
) -> S:
    """The receipt's result if everything it names is there unchanged, else what `make` returns, with a new receipt."""
    known = made(job, step, kind, inputs)
    if known is not None:
        get_run_logger().info("%s: made already, with the same inputs, settings and sources", step)
        reused.set(True)
        return known
    cache.forget(job.out, step)
    started = time.perf_counter()
    result = make()
    cache.keep(job.out, step, _key(job, step, inputs), outputs, result.model_dump(mode="json"))
    get_run_logger().info("%s: done in %.1f s", step, time.perf_counter() - started)
    return result


def made(job: Job, step: str, kind: type[S], inputs: Mapping[str, Any]) -> S | None:
    """What a step made of these inputs, if all of it is there unchanged."""
    receipt = cache.find(job.out, step, _key(job, step, inputs))
    return kind.model_validate(receipt.result) if receipt else None


def _key(job: Job, step: str, inputs: Mapping[str, Any]) -> str:
    return cache.key_of(step, {**inputs, "out": job.out})


@shell(hours=6, **outside)
def ingest(job: Job) -> Ingested:
    """The source as typed, digested Parquet."""
    told = job.settings.model_dump(mode="json", include={"columns", "csv"})
    inputs = {"source": work.source_digest(job), "known": told}

    def make() -> Ingested:
        bar = ProgressArtifact("ingest", f"Rows read from {job.source}")
        return work.ingest(job, bar, get_run_logger().warning)

    dataset = made_once(job, "ingest", Ingested, inputs, make, job.dataset)
    show_table(work.column_table(job.dataset), key="columns", description=f"Columns of {job.name}")
    return dataset


@shell(hours=1, **outside)
def validate(job: Job, dataset: Ingested) -> Checked:
    """Stop before training if the data is not what the champion's was."""
    findings, checked = work.check(job, dataset, get_run_logger().info)
    rows = [finding._asdict() for finding in findings]
    show_table(rows, key="data-gate", description=f"Checks of {job.name} before training")
    failed = [finding for finding in findings if not finding.passed]
    for finding in failed:
        get_run_logger().error(
            "data gate: %s: %s is %s, allowed is %s",
            finding.column or "table",
            finding.check,
            finding.value,
            finding.limit,
        )
    require(failed)
    return checked


@shell(hours=48, **outside)
def train(job: Job, dataset: Ingested, checked: Checked) -> Trained:
    """A model of the training split; a training that was killed goes on where it was."""
    settings = job.settings
    inputs = {
        **dataset.inputs,
        "model": settings.model,
        "train": settings.train,
        "bounds": checked.bounds,
    }

    def make() -> Trained:
        bar = ProgressArtifact("training", f"Training on {job.name}")
        return work.train(job, dataset, checked, bar, get_run_logger().info)

    return made_once(job, "train", Trained, inputs, make, job.model)


@shell(hours=12)
def extract(job: Job, dataset: Ingested, model: Trained) -> Coded:
    """The sparse code of every row."""
    inputs = {**dataset.inputs, "model": model.digest}

    def make() -> Coded:
        bar = ProgressArtifact("extraction", f"Sparse codes of {job.name}")
        return work.extract(job, dataset, model, bar)

    coded = made_once(job, "codes", Coded, inputs, make, job.codes)
    words = f"{coded.mean_nonzero:.1f} of {coded.latents} latents on a row, {coded.bits_per_row:.1f} bits"
    show_table(work.codes_table(coded), key="codes", description=words)
    return coded


@shell(hours=24)
def compress(job: Job, dataset: Ingested, checked: Checked, model: Trained) -> Archived:
    """The verified archive of the dataset."""
    inputs = {
        **dataset.inputs,
        "source_bytes": dataset.source_bytes,
        "model": model.digest,
        "bounds": checked.bounds,
    }

    def make() -> Archived:
        bar = ProgressArtifact("compression", f"Archive of {job.name}")
        return work.compress(job, dataset, checked, model, bar)

    archived = made_once(job, "compress", Archived, inputs, make, job.archive)
    rows = work.archive_table(job.archive)
    show_table(rows, key="archive", description=f"{archived.bytes:,} bytes, {archived.ratio:.2f} to 1")
    return archived


@shell(hours=12, **outside)
def evaluate(job: Job, dataset: Ingested, model: Trained, codes: Coded, archive: Archived) -> Evaluated:
    """Numbers and figures on held-out rows, logged to the model's run."""
    inputs = {
        **dataset.inputs,
        "source_bytes": dataset.source_bytes,
        "model": model.digest,
        "codes": codes.digest,
        "archive": archive.digest,
    }
    # what has been measured is not thrown away by a run that does not ask for it
    known = made(job, "evaluate", Evaluated, {**inputs, "rivals": True}) is not None
    inputs["rivals"] = job.settings.report.rivals or known

    def make() -> Evaluated:
        bar = ProgressArtifact("measuring", f"Evaluation of {job.name}")
        return work.evaluate(job, dataset, model, archive, bar, get_run_logger().info)

    evaluated = made_once(job, "evaluate", Evaluated, inputs, make, job.report)
    show_table(work.summary_table(evaluated), key="evaluation", description=f"Evaluation of {job.name}")
    return evaluated


@shell(hours=6, **outside)
def register(
    job: Job, dataset: Ingested, checked: Checked, model: Trained, archive: Archived, report: Evaluated
) -> Registered:
    """A version in the registry, and the gate's word on it."""
    from flows.register import register as register_version

    registered = register_version(job, dataset, checked, model, archive, report, get_run_logger().info)
    rows = [
        {"model": registered.name, "version": registered.version, "reason": r} for r in registered.reasons
    ]
    words = "promoted" if registered.promoted else "not promoted"
    show_table(rows, key="registry-gate", description=f"Version {registered.version} is {words}")
    return registered


def known_curve(job: Job, dataset: Ingested, model: Trained, archive: Archived) -> Curved | None:
    """The curve of this archive that an earlier run measured, if one did."""
    return made(job, "curve", Curved, _curve_inputs(job, dataset, model, archive))


def _curve_inputs(job: Job, dataset: Ingested, model: Trained, archive: Archived) -> dict[str, Any]:
    return {
        **dataset.inputs,
        "model": model.digest,
        "archive": archive.digest,
        "train": job.settings.train,
    }


@shell(hours=48, **outside)
def curve(job: Job, dataset: Ingested, model: Trained, archive: Archived) -> Curved | None:
    """Bits a row over several bounds, beside other tools; points that were measured before are not measured again."""

    def make() -> Curved:
        bar = ProgressArtifact("curve", f"Sizes of {job.name} over bounds")
        return curves.measure(job, dataset, model, archive, bar, get_run_logger().info)

    if not curves.can_be_bounded(dataset):
        get_run_logger().warning("no column of %s can have a bound: there is no curve to measure", job.name)
        return None
    inputs = _curve_inputs(job, dataset, model, archive)
    return made_once(job, "curve", Curved, inputs, make, job.curve)


@shell(hours=6)
def page(
    job: Job,
    dataset: Ingested,
    model: Trained,
    archive: Archived,
    report: Evaluated,
    version: Registered,
    curve: Curved | None,
) -> None:
    """The evaluation page; the work is done without it, so one that cannot be written fails nothing."""
    try:
        pages.write(job, dataset, model, archive, report, version, curve)
    except Exception as error:  # noqa: BLE001  (whatever it is)
        get_run_logger().warning("the page %s could not be written: %s", job.page, error)
