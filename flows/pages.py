"""The evaluation page of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from data.ingest import open_dataset
from data.largetable import table_of
from flows.curves import can_be_bounded, curve_of
from flows.jobs import Job
from flows.results import Aim, Archived, Curved, Evaluated, Ingested, Registered, Trained
from flows.tracking import Store
from flows.verdicts import verdicts
from flows.work import known_run, split_of


def write(
    job: Job,
    dataset: Ingested,
    model: Trained,
    archive: Archived,
    evaluated: Evaluated,
    version: Registered,
    curve: Curved | None = None,
) -> Path:
    """The evaluation page, in the job's folder and in the model's run."""
    from vae import page, sections, store
    from vae.codec import archive as archives

    data = open_dataset(dataset.path)
    with archives.open(archive.path) as opened:
        trained = store.load(model.path)
        seen = page.seen(trained, table_of(data), split_of(data), evaluated.numbers, opened)
        report = opened.report()
    page.write(
        job.page,
        name=job.name,
        report=report,
        numbers=evaluated.numbers,
        figures=sections.pictures(evaluated.figures),
        verdicts=verdicts(model.checked, version),
        curve=curve and curve_of(curve),
        target=Aim.words(trained.record.get("target")),
        curve_by=again(job, "--curve") if can_be_bounded(dataset) else "",
        rivals_by=again(job, "--rivals"),
        footer=f"{job.source}, data {dataset.digest[:16]}, model {model.digest[:16]}.",
        **seen,
    )
    run_id = known_run(job)
    if run_id is not None:
        Store(job.tracking()).log_files(run_id, {"": [job.page]})
    return job.page


def again(job: Job, option: str) -> str:
    """The command that makes this run's page again, with more on it."""
    return f"svae run --dataset {shlex.quote(job.source)} {option} (and whatever options this run had)"
