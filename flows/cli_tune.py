"""`svae tune`: the choice of a model from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import (
    AsJson,
    Bounds,
    Config,
    SeedOfSettings,
    Steps,
    need_pipeline,
    quiet_failures,
)
from flows.cli_pipeline import as_result, summary, training_changes
from flows.console import Output, key_values
from vae.settings import Effort, Family


def tune(
    dataset: Annotated[str, typer.Argument(help="What to tune for: a sample, file, folder, glob or URI.")],
    trials: Annotated[
        int, typer.Option(min=1, help="Settings to try, in all; more goes on from the last.")
    ] = 20,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts, each of which is held out once.")] = 3,
    score: Annotated[
        str, typer.Option(metavar="WHAT", help="What is best: bytes, or probe:COLUMN (read off the codes).")
    ] = "bytes",
    rows: Annotated[int, typer.Option(min=100, help="Rows that trials read, at most.")] = 200_000,
    config: Config = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Settings of model, training, bounds and data gate (pipeline.yml).")
    ] = None,
    effort: Annotated[Effort | None, typer.Option(help="Optimiser steps of each training.")] = None,
    family: Annotated[Family | None, typer.Option(help="Latent family.")] = None,
    bound: Bounds = None,
    seed: SeedOfSettings = None,
    steps: Steps = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what is made; default: svae-runs/NAME.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Latents, sparsity and width by cross-validation; the best is trained anew and goes through the gate."""
    need_pipeline()
    with Output(as_json) as output:
        from data.sources import open_source
        from flows import server
        from flows.jobs import load_retrain_settings, open_job
        from flows.settings import load_tracking
        from flows.tracking import preflight

        tracking = load_tracking(config)
        changes = training_changes(effort, family, bound, seed, steps)
        settings = load_retrain_settings(pipeline, tracking.home, changes)
        job = open_job(dataset, settings, out=out, config=config)
        preflight(tracking)
        open_source(job.source, job.settings.known)  # one that is not there fails before anything is started
        server.use_local_state(tracking)
        server.ready(tracking)
        quiet_failures()
        from flows import tune as tuning

        asked = tuning.TuneSettings(trials=trials, folds=folds, score=score, rows=rows)
        with server.needed():
            found, outcome = tuning.tune(
                source=job.source,
                settings=settings,
                tuning=asked,
                out=str(job.out),
                config=str(tracking.config) if tracking.config else None,
            )
        best = found.best.model_dump(mode="json", include={"latents", "codes", "width"})
        told = {"best": best, "score": found.score, "trials": found.trials, "pruned": found.pruned,
                "figure": found.figure, "tuning_run": found.run_id}  # fmt: skip
        words = {**told, "best": ", ".join(f"{name} {value}" for name, value in best.items())}
        output.show(
            {**told, **as_result(job, outcome)},
            lambda console: key_values(console, {**words, **summary(job, outcome)}),
        )


def add_to(app: typer.Typer) -> None:
    """The command of this module."""
    app.command(epilog="Example: svae tune sample:weather --trials 12 --effort fast")(tune)
