"""`svae run` and `svae serve`: the pipeline and its deployments from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_evaluation import read_evaluation, show_evaluation
from flows.cli_options import (
    AsJson,
    Bounds,
    CodeTarget,
    Config,
    ModelledColumn,
    SchemaFile,
    SeedOfSettings,
    Steps,
    need_pipeline,
    quiet_failures,
)
from flows.console import Output, errors, key_values
from vae.settings import Codes, Effort, Family

if TYPE_CHECKING:
    from rich.console import Console

    from flows.jobs import Job
    from flows.results import Outcome
    from flows.settings import Tracking


def run(
    dataset: Annotated[
        str, typer.Option(help="What to ingest: a sample, file, folder, glob or URI.")
    ] = "sample:flights",
    config: Config = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Settings of model, training, bounds and data gate (pipeline.yml).")
    ] = None,
    effort: Annotated[Effort | None, typer.Option(help="Optimiser steps: fast, standard or max.")] = None,
    codes: Annotated[Codes | None, typer.Option(help="How much the code carries.")] = None,
    family: Annotated[Family | None, typer.Option(help="Latent family: quantized, spike_slab, ...")] = None,
    target: CodeTarget = None,
    column: ModelledColumn = None,
    bound: Bounds = None,
    schema: SchemaFile = None,
    seed: SeedOfSettings = None,
    steps: Steps = None,
    rivals: Annotated[
        bool, typer.Option("--rivals", help="Also measure what the slow ones of other tools need.")
    ] = False,
    curve: Annotated[
        bool,
        typer.Option("--curve", help="Also train briefly for six bounds, and draw bits over bounds."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what is made; default: svae-runs/NAME.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The whole pipeline: ingest, train, codes, compress, evaluate, register."""
    need_pipeline()
    with Output(as_json) as output:
        from flows.jobs import load_retrain_settings, open_job
        from flows.settings import load_tracking
        from flows.tracking import preflight

        tracking = load_tracking(config)
        changes = {
            **training_changes(effort, family, bound, seed, steps),
            "model.codes": codes and codes.value,
            "model.target": target,
            "model.column": column,
            "report.rivals": rivals or None,
            "report.curve": curve or None,
            **_known_columns(schema),
        }
        settings = load_retrain_settings(pipeline, tracking.home, changes)
        job = open_job(dataset, settings, out=out, config=config)
        preflight(tracking)
        outcome = run_flow(job, tracking)
        evaluation = read_evaluation(outcome.figures)

        def readable(console: Console) -> None:
            key_values(console, summary(job, outcome))
            show_evaluation(console, evaluation)

        output.show({**as_result(job, outcome), "evaluation": evaluation}, readable)


def training_changes(
    effort: Effort | None, family: Family | None, bound: list[str] | None, seed: int | None, steps: int | None
) -> dict[str, Any]:
    """What options say in place of the pipeline file."""
    from flows.jobs import CLEAR

    return {
        "train.effort": effort and effort.value,
        "train.seed": seed,
        # An effort that is asked for must not be overruled in silence by the file's number of steps.
        "train.steps": CLEAR if effort and steps is None else steps,
        "model.family": family and family.value,
        "bounds": bound or None,
    }


def _known_columns(schema: Path | None) -> dict[str, Any]:
    """The settings that a schema file stands for; it takes the place of what pipeline.yml says of columns."""
    from data.schema import Schema
    from flows.jobs import CLEAR

    if schema is None:
        return {}
    content = Schema.from_yaml(schema).model_dump(mode="json", exclude_unset=True)
    return {"columns": content["columns"], "csv": content.get("csv") or CLEAR}


def run_flow(job: Job, tracking: Tracking) -> Outcome:
    """The flow in this process, on the server that is named or on the ephemeral one."""
    from data.sources import open_source
    from flows import server
    from flows.locks import file_lock

    # a source that is not there fails here, before anything is started or made
    open_source(job.source, job.settings.known)
    server.use_local_state(tracking)
    waiting = f"another run works on {job.out}; waiting for it to end"
    with file_lock(job.lock, on_wait=lambda: errors.print(waiting), remove=True):
        server.ready(tracking)
        quiet_failures()
        from flows.retrain import retrain

        with server.needed():
            return retrain(
                source=job.source,
                settings=job.settings,
                out=str(job.out),
                config=str(tracking.config) if tracking.config else None,
            )


def as_result(job: Job, outcome: Outcome) -> dict[str, Any]:
    """What a retraining made, for `--json`."""
    return {"dataset_name": job.name, "page": str(job.page), **outcome.model_dump(mode="json")}


def summary(job: Job, outcome: Outcome) -> dict[str, Any]:
    """What a retraining made, for people; what is wrong with it comes first."""
    from flows.results import COLLAPSED

    version = outcome.version
    state = "champion" if version.promoted else "not promoted"
    return {
        **({"warning": COLLAPSED} if outcome.collapsed else {}),
        **({"target": outcome.target.missed or str(outcome.target)} if outcome.target else {}),
        "dataset": outcome.dataset,
        "model": outcome.model,
        "codes": outcome.codes,
        "archive": f"{outcome.archive} ({outcome.archive_bytes:,} bytes, {outcome.ratio:.2f} to 1)",
        "figures": outcome.figures,
        **({"curve": outcome.curve} if outcome.curve else {}),
        "page": job.page,
        "version": f"models:/{version.name}/{version.version} ({'new, ' if version.is_new else ''}{state})",
        "gate": "; ".join(version.reasons),
        "run": f"{outcome.run_id} in {job.tracking().tracking_uri}",
    }


def serve(
    deployments: Annotated[
        Path | None, typer.Option(help="The deployments; default: prefect.yaml beside mlflow.yml.")
    ] = None,
    config: Config = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the server to start; 0 takes a free one.")
    ] = 4200,
    start: Annotated[
        bool,
        typer.Option(
            "--server/--no-server", help="Start a server on loopback if PREFECT_API_URL is not set."
        ),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object when serving begins.")
    ] = False,
) -> None:
    """The deployments of prefect.yaml, served from this machine until interrupted (by SIGTERM: exit status 0)."""
    need_pipeline()
    import os

    from flows import deployments as d
    from flows import server
    from flows.settings import CONFIG_NAME, SettingsError, load_tracking
    from flows.tracking import preflight

    with Output(as_json) as output:
        tracking = load_tracking(config)
        if tracking.config is None:
            raise SettingsError(
                f"no {CONFIG_NAME} here; served runs need one to find the same database, name it with --config"
            )
        entries = d.read_deployments(deployments or tracking.home / d.DEPLOYMENTS_NAME)
        preflight(tracking)
        server.use_local_state(tracking)
        lasting = bool(os.environ.get(server.URL_VARIABLE))
        with server.lasting_server(tracking, port=port, start=start) as url:
            place = url.removesuffix("/api")
            errors.print(f"Prefect: {place}   state: {tracking.state}")

            def begun(names: list[str]) -> None:
                words = f"being served until Ctrl-C: {', '.join(names)}"
                output.show(
                    {"url": place, "api_url": url, "state": tracking.state, "deployments": names},
                    lambda console: console.print(words),
                )

            d.serve(entries, tracking.config, tracking.state, url, lasting=lasting, on_begin=begun)


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command(epilog="Example: svae run --dataset sample:flights --effort fast")(run)
    app.command(epilog="Example: svae serve --port 4200")(serve)
