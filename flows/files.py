"""Archives of single files: what the folder jobs and the commands on one file share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import ModelError, SourceError
from data.manifest import MANIFEST_NAME, Manifest
from data.schema import Schema
from flows.deadline import Deadline

if TYPE_CHECKING:
    import pyarrow as pa

    from data.largetable import AnyTable
    from data.sources import Source
    from flows.compress import FileDone, FileJob
    from flows.settings import Tracking
    from vae.codec.summary import ArchiveReport, WithoutModel
    from vae.store import TrainedModel

WITHOUT_MODEL: Mapping[WithoutModel, str] = {
    "nothing to model": "no column is for a model",
    "smaller without": "it is smaller without",
    "texts": "archives hold texts by other coders",
}


def load_model(uri: str, tracking: Tracking | None, config: str | None = None) -> TrainedModel:
    """The model that a folder, `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID/model` names.

    A registered model is read from its safetensors and JSON; the code that lies beside them is not run.
    """
    from vae import store

    return store.load(model_path(uri, tracking, config))


def model_path(uri: str, tracking: Tracking | None, config: str | None = None) -> Path:
    """The folder of a model, fetched from the registry if it is there."""
    if not uri.startswith(("models:/", "runs:/")):
        if "/" not in uri and not Path(uri).exists():
            raise ModelError(
                f"{uri}: there is no such folder; a registered model is called models:/{uri}@champion"
            )
        return Path(uri)
    from flows.registry import Registry
    from flows.reload import model_folder
    from flows.settings import load_tracking
    from flows.tracking import Store

    return model_folder(Registry(Store(tracking or load_tracking(config), make=False)).download(uri))


def model_for_all(uri: str | None, tracking: Tracking) -> tuple[Path, str] | None:
    """Folder and digest of the model of a folder job; None where each file gets its own."""
    if uri is None:
        return None
    from vae import store

    path = model_path(uri, tracking)
    return path, store.load(path).digest


@contextmanager
def read_source(
    source: Source, beside: Path, progress: Callable[[int, int | None], None]
) -> Generator[tuple[AnyTable, Schema, dict[str, Any]]]:
    """All rows, their schema, and the facts that an archive's report states about the source.

    Rows that are too many for memory lie beside `beside` for the time being, as a dataset; `progress` is told of rows
    done and rows in all while it is made.
    """
    from data.largetable import rows_of

    with rows_of(source, beside, progress) as table:
        if not table.num_rows:
            raise SourceError(f"{source.uri}: has no rows")
        yield table, source.schema, _sizes(source)


def _sizes(source: Source) -> dict[str, Any]:
    if "://" not in source.uri and (Path(source.uri) / MANIFEST_NAME).is_file():
        origin = Manifest.read(Path(source.uri)).source  # what counts is what an ingested dataset was made of
        return {"source_bytes": origin.source_bytes, "stored_bytes": origin.stored_bytes}
    return {"source_bytes": source.source_bytes, "stored_bytes": source.stored_bytes}


def absolute_bounds(
    specs: list[str] | tuple[str, ...], table: AnyTable, schema: Schema, say: Callable[[str], None]
) -> dict[str, float] | None:
    """Absolute widths of the columns that may lose precision; None, a model's own, if that is what is asked for.

    `say` is told of bounds that allow no error.
    """
    from data.bounds import OWN_BOUNDS, kept_exact, resolve_bounds
    from data.largetable import stats_of

    if list(specs) == [OWN_BOUNDS]:
        return None
    widths = resolve_bounds(specs, schema, stats_of(table))
    for line in kept_exact(widths, schema):
        say(line)
    return widths


def model_notes(
    trained: TrainedModel | None,
    bounds: Mapping[str, float] | None,
    report: ArchiveReport,
    asked: str | None = None,
) -> Iterator[str]:
    """What whoever made an archive, with a given model or one of its own, should know of it.

    `asked`: the target of the code of one of its own.
    """
    from flows.results import Aim
    from vae.pipeline import kept_tighter
    from vae.settings import Target

    for name, width in kept_tighter(trained, bounds or {}).items() if trained else ():
        kept = f"within {width:g}, the model's own bound" if width else "exact, as the model was trained"
        yield f"column {name!r} is kept {kept}; a wider bound needs a model trained with it, or no --model"
    if report.without_model:
        why = WITHOUT_MODEL[report.without_model]
        yield f"there is no model in the archive of {report.rows:,} rows, and no sparse code: {why}"
    elif asked:
        summary, what = report.codes_summary, Target.parse(asked).what
        found = {"bits": summary.bits_per_row, "nonzeros": summary.mean_nonzero, "score": summary.score}[what]
        missed = None if found is None else Aim(asked=asked, found=found).missed
        if missed:
            yield missed


def rebuilt_schema(trained: TrainedModel, rows: pa.Table) -> Schema:
    """The schema of rows that a model made, with the text formats of the original where the types are the same."""
    known, found = trained.schema, Schema.from_arrow(rows.schema)
    columns = tuple(
        known.column(c.name).model_copy(update={"nullable": True})
        if known.column(c.name).type == c.type
        else c
        for c in found.columns
    )
    return found.model_copy(update={"columns": columns, "csv": known.csv, "txt": known.txt})


def compress(job: FileJob, say: Callable[[str], None]) -> FileDone:
    """One archive of a folder job; `say` is told what its user should know."""
    from data.sources import open_source
    from flows.compress import FileDone
    from vae import pipeline, store

    deadline = Deadline(job.source, job.settings.file_timeout_seconds, "svae compress")
    settings = job.settings

    def say_of_file(line: str) -> None:
        say(f"{job.source.name}: {line}")

    source = open_source(job.source)
    with read_source(source, job.target, lambda *_: deadline()) as (table, schema, facts):
        for line in source.notes:
            say_of_file(line)
        bounds = absolute_bounds(settings.bounds, table, schema, say_of_file)
        model = store.load(job.model) if job.model else None
        report = pipeline.compress(
            table,
            job.target,
            bounds=bounds,
            model=model,
            settings=settings.settings,
            training=settings.train,
            rivals=settings.rivals,
            facts=facts,
            on_progress=deadline,
        )
    for line in model_notes(model, bounds, report, None if model else settings.settings.target):
        say_of_file(line)
    return FileDone(
        source=job.source,
        target=job.target,
        rows=report.rows,
        source_bytes=facts["source_bytes"],
        bytes=report.archive_bytes,
    )


def _watched(batches: Iterator[pa.RecordBatch], deadline: Deadline) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        deadline()
        yield batch


def decompress(job: FileJob) -> FileDone:
    """One file of a folder job."""
    from data.output import write_table
    from flows.compress import FileDone
    from vae.codec import archive

    deadline = Deadline(job.source, job.settings.file_timeout_seconds, "svae decompress")
    with archive.open(job.source) as opened:
        write_table(_watched(opened.batches(), deadline), Schema.from_arrow(opened.schema), job.target)
        rows = opened.rows
    return FileDone(
        source=job.source,
        target=job.target,
        rows=rows,
        source_bytes=job.source.stat().st_size,
        bytes=job.target.stat().st_size,
    )
