"""What the tasks of the retraining call: the work of `vae.pipeline`, with its run in MLflow beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import gate as data_gate
from data.bounds import kept_exact, parse_spec, resolve_bounds, written_bounds
from data.dataset import Dataset
from data.ingest import open_dataset
from data.largetable import table_of
from data.manifest import Manifest
from data.schema import Schema
from flows import cache
from flows.jobs import Job
from flows.results import COLLAPSED, Aim, Archived, Checked, Coded, Evaluated, Ingested, Trained
from flows.tracking import FLOW_RUN_TAG, Store, flatten

Advance = Callable[[float], None]
Say = Callable[..., None]
SAY_SECONDS = 20.0


# -- ingest and validate


def source_digest(job: Job) -> str:
    """Digest of the source's stored bytes."""
    from data.sources import open_source

    return open_source(job.source, job.settings.known).digest()


def ingest(job: Job, advance: Advance, say: Say) -> Ingested:
    """The source as a dataset; `say` is told what its user should know."""
    from data.ingest import ingest as ingest_source
    from data.sources import open_source

    def rows_done(rows: int, total: int | None) -> None:
        if total:
            advance(rows / total)

    # its receipt was of no use: the source has changed, what is known of it, or the code that types it
    source = open_source(job.source, job.settings.known)
    dataset = ingest_source(source, job.dataset, fresh=True, progress=rows_done)
    for line in source.notes:
        say("%s", line)
    advance(1.0)
    return Ingested(
        path=dataset.path,
        digest=dataset.manifest.digest,
        schema_digest=dataset.schema.digest(),
        rows=dataset.rows,
        source_bytes=dataset.manifest.source.source_bytes,
    )


def check(job: Job, dataset: Ingested, say: Say) -> tuple[list[data_gate.Finding], Checked]:
    """The data gate against what the champion was trained on, and the error bounds to train for."""
    from flows.registry import Registry
    from flows.reload import bounds_of, manifest_of

    registry = Registry(Store(job.tracking()))
    champion = registry.champion(registry.store.tracking.model_name(job.name))
    folder = registry.download(champion.uri) if champion else None
    data = open_dataset(dataset.path)
    settings = job.settings
    found = data_gate.check(data.manifest, manifest_of(folder) if folder else None, settings.data_gate)
    told = tuple(found)
    if settings.allow_schema_change:
        found = [finding._replace(passed=finding.passed or finding.check == "type") for finding in found]
    widths = resolve_bounds(settings.bounds, data.schema, data.stats)
    if folder:
        widths |= shares_kept(settings.bounds, data, manifest_of(folder).schema, *bounds_of(folder))
    for line in kept_exact(widths, data.schema):
        say("%s", line)
    return found, Checked(bounds=widths, findings=told, against=champion.uri if champion else "")


def shares_kept(
    bounds: Sequence[str], data: Dataset, before: Schema, specs: tuple[str, ...], known: Mapping[str, float]
) -> dict[str, float]:
    """The champion's widths of columns bounded in percent, if it was trained for the same bounds as written.

    A percentage is of the range of the data that it was first resolved on, or no challenger could ever be compared
    with a champion. Widths are in a column's unit, so they hold for a column of the same type only.
    """
    written = written_bounds(bounds, data.schema, data.stats)
    if specs != written:
        return {}
    shares = (name for name, bound in map(parse_spec, written) if bound.relative and name in known)
    return {name: known[name] for name in shares if before.column(name).type == data.schema.column(name).type}


# -- the run in MLflow

RUN_STEP = "run"


def known_run(job: Job) -> str | None:
    """Id of the MLflow run that belongs to the model in the job's folder."""
    try:
        content = json.loads((job.out / cache.RECEIPTS / f"{RUN_STEP}.json").read_text(encoding="utf-8"))
        return content["result"]["run_id"]
    except (OSError, ValueError, KeyError):
        return None


def run_of(job: Job, store: Store, dataset: Ingested, key: str) -> str:
    """The MLflow run of the model that `key` stands for: the one there is, or a new one.

    A training that was killed and goes on writes into the run it began in.
    """
    receipt = cache.find(job.out, RUN_STEP, key)
    if receipt:
        run_id = str(receipt.result["run_id"])
        if store.take_up(run_id, {FLOW_RUN_TAG: flow_run_id()}):
            return run_id
        # The store was deleted since: the model gets a run in the new one.
    manifest = Manifest.read(dataset.path)
    run_id = store.start_run(
        f"{job.name}-{dataset.digest[:8]}",
        params={**job.settings.decisive(), "source": job.source, "rows": dataset.rows},
        tags={FLOW_RUN_TAG: flow_run_id(), "svae.sources": cache.source_digest()},
    )
    schema = manifest.schema.to_json()
    store.log_dataset(
        run_id, name=job.name, digest=dataset.digest, uri=job.source, rows=dataset.rows, schema=schema
    )
    with store.explained():
        store.client.log_text(run_id, schema, "schema.json")
    store.log_files(run_id, {"": [job.dataset / "manifest.json"]})
    cache.keep(job.out, RUN_STEP, key, [], {"run_id": run_id})
    return run_id


def run_key(job: Job, dataset: Ingested) -> str:
    """What a run is of: the dataset and every setting that decides it, and where the runs are kept."""
    place = job.tracking().tracking_uri
    return cache.key_of(RUN_STEP, {**dataset.inputs, "settings": job.settings.decisive(), "tracking": place})


def flow_run_id() -> str:
    """Id of Prefect's flow run, `none` outside of one."""
    from prefect.runtime import flow_run

    return str(flow_run.id or "none")


# -- train, code, compress, evaluate


def train(job: Job, dataset: Ingested, checked: Checked, advance: Advance, say: Say) -> Trained:
    """A model of the training split, its curves in the run as they grow."""
    from vae import pipeline

    store = Store(job.tracking())
    run_id = run_of(job, store, dataset, run_key(job, dataset))
    say("MLflow run %s in %s", run_id, store.tracking.tracking_uri)
    data = open_dataset(dataset.path)
    began = time.perf_counter()
    with store.recording(run_id) as metrics:
        phase, told = "", 0.0

        def on_progress(event: Mapping[str, Any]) -> None:
            nonlocal phase, told
            advance(event["step"] / event["steps"])
            metrics.add(
                {f"train/{name}": event.get(name) for name in ("loss", "bits", "rows_per_second")},
                event["step"],
            )
            if event["phase"] != phase or time.monotonic() - told > SAY_SECONDS:
                phase, told = event["phase"], time.monotonic()
                bits = f", {event['bits']:.2f} bits a row" if event.get("bits") else ""
                say("training, phase %s: step %d of %d%s", phase, event["step"], event["steps"], bits)

        trained = pipeline.fit(
            table_of(data),
            data.schema,
            bounds=checked.bounds,
            model=job.settings.model,
            training=job.settings.train,
            split=split_of(data),
            out=job.model,
            on_progress=on_progress,
        )
        store.log_params(run_id, {"learning_rates": trained.record["learning_rates"]})
        for entry in trained.record["history"]:
            numbers = {
                f"validation/{name}": value for name, value in entry.items() if isinstance(value, float)
            }
            metrics.add(numbers, int(entry["step"]))
        seconds = time.perf_counter() - began
        facts, target = trained.record["code"], trained.record["target"]
        code = {f"code/{name}": value for name, value in facts.items()}
        metrics.add({"seconds/train": seconds, **code}, int(trained.record["steps"]))
    collapsed = bool(facts.get("collapsed"))
    aim = Aim(**target) if target else None
    for warning in (COLLAPSED if collapsed else None, aim and aim.missed):
        if warning:
            say("%s", warning)
    return Trained(
        path=job.model, digest=trained.digest, seconds=seconds, checked=checked, collapsed=collapsed,
        target=aim,
    )  # fmt: skip


def split_of(data: Dataset) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """0 train, 1 validation, 2 test for every row."""
    return data.split_of(np.arange(data.rows, dtype=np.int64))


def extract(job: Job, dataset: Ingested, model: Trained, advance: Advance) -> Coded:
    """The sparse code of every row, and what it comes to."""
    from vae import codes, metrics, pipeline, store
    from vae.codec.container import DEFAULT_BLOCK_ROWS

    trained = store.load(model.path)
    table = table_of(open_dataset(dataset.path))
    dense = codes.encode_rows(trained, table, lambda done, rows: advance(done / max(1, rows)))
    codes.write_codes(job.codes, dense, trained)
    latents = dense.shape[1]
    size = codes.coded_bytes(pipeline.integer_model(trained), dense, DEFAULT_BLOCK_ROWS) if latents else 0
    sparsity = metrics.sparsity(dense)
    advance(1.0)
    return Coded(
        path=job.codes,
        digest=cache.file_digest(job.codes),
        latents=latents,
        mean_nonzero=sparsity["mean_nonzero"],
        dead_latents=sparsity["dead_latents"],
        bits_per_row=8 * size / max(1, len(dense)),
    )


def compress(job: Job, dataset: Ingested, checked: Checked, model: Trained, advance: Advance) -> Archived:
    """The verified archive."""
    from vae import pipeline, store

    data = open_dataset(dataset.path)
    origin = data.manifest.source

    def on_progress(event: Mapping[str, Any]) -> None:
        advance(event["step"] / event["steps"])

    report = pipeline.compress(
        table_of(data),
        job.archive,
        bounds=checked.bounds,
        model=store.load(model.path),
        facts={"source_bytes": origin.source_bytes, "stored_bytes": origin.stored_bytes},
        on_progress=on_progress,
    )
    advance(1.0)
    return Archived(
        path=job.archive,
        digest=cache.file_digest(job.archive),
        bytes=report.archive_bytes,
        ratio=report.ratio,
    )


def evaluate(
    job: Job, dataset: Ingested, model: Trained, archive: Archived, advance: Advance, say: Say
) -> Evaluated:
    """Numbers and figures on held-out rows; both go into the model's run."""
    from vae import evaluate as evaluation
    from vae import store

    data = open_dataset(dataset.path)
    tracker = Store(job.tracking())
    run_id = run_of(job, tracker, dataset, run_key(job, dataset))

    def on_progress(event: Mapping[str, Any]) -> None:
        advance(event["step"] / event["steps"])
        say("evaluation: %s", event["phase"])

    with tracker.recording(run_id) as metrics:
        numbers, figures = evaluation.evaluate(
            store.load(model.path),
            data.table(),
            job.report,
            split=split_of(data),
            archive_path=archive.path,
            rivals=job.settings.report.rivals,
            on_progress=on_progress,
        )
        metrics.add(evaluation.flat(numbers))
    advance(1.0)
    numbers_file = job.report / evaluation.NUMBERS_NAME
    tracker.log_files(run_id, {"figures": list(figures), "": [numbers_file]})
    with tracker.explained():
        tracker.client.log_text(run_id, json.dumps(archive_report(archive.path), indent=1), "archive.json")
    return Evaluated(
        path=job.report, digest=cache.file_digest(numbers_file), numbers=numbers, figures=figures
    )


# -- what people see


def archive_report(path: Path) -> dict[str, Any]:
    """The report of an archive, as `svae inspect --json` prints it."""
    from vae.codec import archive

    with archive.open(path, inspect=True) as opened:
        return opened.report().model_dump(mode="json")


def archive_table(path: Path) -> list[dict[str, Any]]:
    """Bits, coder and bound of each column."""
    keys = ("name", "kind", "coder", "bits_per_value", "bytes", "bound", "max_error")
    return [{key: column[key] for key in keys} for column in archive_report(path)["per_column"]]


def codes_table(coded: Coded) -> list[dict[str, Any]]:
    """What the codes come to, one number a row."""
    names = ("latents", "mean_nonzero", "dead_latents", "bits_per_row")
    return [{"name": name, "value": getattr(coded, name)} for name in names]


def column_table(dataset: Path) -> list[dict[str, Any]]:
    """Kind, nulls and range of each column of a dataset."""
    manifest = Manifest.read(dataset)
    return [
        {
            "name": column.name,
            "kind": column.kind.value,
            "type": column.arrow,
            "nulls": manifest.columns[column.name].nulls,
            "distinct": manifest.columns[column.name].distinct,
            "min": manifest.columns[column.name].min,
            "max": manifest.columns[column.name].max,
        }
        for column in manifest.schema.columns
    ]


def summary_table(evaluated: Evaluated) -> list[dict[str, Any]]:
    """The main numbers of an evaluation, one a row; those of single columns are in the figures."""
    return [
        {"name": name, "value": value}
        for name, value in flatten(evaluated.numbers).items()
        if ".columns." not in name and value is not None
    ]
