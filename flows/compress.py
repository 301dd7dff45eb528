"""Jobs for folders: one archive for each file, or each archive back to a file; finished ones are skipped."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from data.atomic import atomic_path
from data.errors import DataError, SourceError
from data.files import FORMATS, PACKED_FORMATS
from flows import cache
from flows.deadline import FILE_SECONDS, WEEK
from flows.hooks import ON_FLOW_FAILURE, ON_TASK_FAILURE, outside_failed
from flows.jobs import FolderSettings
from flows.locks import file_lock
from flows.settings import load_tracking
from flows.shown import show_table
from vae.settings import Settings

HOUR = 3600
MOST_TOLD = 20
"""Files at fault that are named."""
MANIFEST = "archives.json"
WORKERS = 2
SOURCE_ENDINGS = tuple(
    ending + packed
    for ending, form in FORMATS.items()
    if form != "image"  # A folder of images is one dataset, not one a file.
    for packed in (("", ".gz", ".zip") if form in PACKED_FORMATS else ("",))
)

Target = Literal["parquet", "csv", "npz", "jsonl", "txt"]


class FileJob(Settings):
    """One file of a folder, and what becomes of it."""

    source: Path
    """The file."""
    target: Path
    """The file to make."""
    folder: Path
    """Where receipts lie."""
    model: Path | None = None
    """Folder of the model for all files."""
    model_digest: str | None = None
    """Its digest."""
    settings: FolderSettings = FolderSettings()
    """How the file is compressed."""

    @property
    def step(self) -> str:
        """Name of the file's receipt; `a/b` and `a-b` have different ones."""
        place = str(self.target.relative_to(self.folder))
        readable = re.sub(r"[^\w.-]+", "-", place)
        return f"{readable}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


class FileDone(Settings):
    """One file that was made."""

    source: Path
    """The file it was made from."""
    target: Path
    """The file made."""
    rows: int = Field(ge=0)
    """Rows in it."""
    source_bytes: int = Field(ge=0)
    """Size of the source, decompressed."""
    bytes: int = Field(ge=0)
    """Size of what was made."""


file_task: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "on_failure": ON_TASK_FAILURE,
    "retries": 2,
    "retry_delay_seconds": [2, 20],
    "retry_condition_fn": outside_failed,
}
"""Prefect cannot end worker threads, in which files are done: their time-out is a `Deadline` that the work looks at."""


@task(task_run_name="compress-{job.source.name}", **file_task)
def compress_file(job: FileJob) -> FileDone:
    """One archive, verified."""
    from flows import files

    inputs = {
        "model": job.model_digest,
        "settings": job.settings.model_dump(exclude={"model", "file_timeout_seconds"}),
    }
    return _made_once(job, inputs, lambda: files.compress(job, get_run_logger().info))


@task(task_run_name="decompress-{job.source.name}", **file_task)
def decompress_file(job: FileJob) -> FileDone:
    """One file out of its archive."""
    from flows import files

    return _made_once(job, {}, lambda: files.decompress(job))


def _made_once(job: FileJob, inputs: dict[str, Any], make: Any) -> Any:
    inputs = {**inputs, "source": cache.file_digest(job.source), "target": job.target}
    key = cache.key_of(job.step, inputs)
    receipt = cache.find(job.folder, job.step, key)
    if receipt:
        done = FileDone.model_validate(receipt.result)
        return Completed(name="Cached", message="made already", data=done)
    cache.forget(job.folder, job.step)
    done = make()
    cache.keep(job.folder, job.step, key, [job.target], done.model_dump(mode="json"))
    return done


def run_name() -> str:
    """`compress-dataset-exports`."""
    return f"{flow_run.flow_name}-{Path(flow_run.parameters['folder']).name}"


@flow(
    name="compress-dataset",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=WORKERS),  # type: ignore[arg-type]
    timeout_seconds=72 * HOUR,
    on_failure=ON_FLOW_FAILURE,
    on_crashed=ON_FLOW_FAILURE,
)
def compress_folder(
    folder: str,
    out: str,
    settings: FolderSettings = FolderSettings(),  # noqa: B008  (frozen)
    config: str | None = None,
) -> Path:
    """One archive for each file of a folder; finished files are skipped, the manifest is written last.

    Args:
        folder: The files: CSV, Parquet, NumPy arrays, idx, lines of JSON or of text, in any depth.
        out: Folder for the archives.
        settings: Model, error bounds and effort.
        config: Full path of `mlflow.yml`; by default the variable SVAE_CONFIG, or the working directory's.
    """
    from flows import files

    source, target, tracking = _folders(folder, out, config)
    jobs = _jobs(source, target, SOURCE_ENDINGS, lambda name: f"{name}.svae")
    model = files.model_for_all(settings.model, tracking)
    shared = {"settings": settings, **({"model": model[0], "model_digest": model[1]} if model else {})}
    with file_lock(target.parent / f".{target.name}.lock", remove=True):
        return _run_all(compress_file, [job.model_copy(update=shared) for job in jobs], target)


@flow(
    name="decompress-dataset",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=WORKERS),  # type: ignore[arg-type]
    timeout_seconds=72 * HOUR,
    on_failure=ON_FLOW_FAILURE,
    on_crashed=ON_FLOW_FAILURE,
)
def decompress_folder(
    folder: str,
    out: str,
    to: Target | None = None,
    config: str | None = None,
    file_timeout_seconds: Annotated[float, Field(gt=0, le=WEEK)] = FILE_SECONDS,
) -> Path:
    """Each archive of a folder back to a file; finished files are skipped, the manifest is written last.

    Args:
        folder: The archives, in any depth.
        out: Folder for the files.
        to: Format of all files; by default the one in the archive's name (`a.csv.svae`), else Parquet.
        config: Full path of `mlflow.yml`; relative folders are relative to it in a deployed run.
        file_timeout_seconds: Longest time for one file; one that takes longer fails, the others go on.
    """
    source, target, _ = _folders(folder, out, config)
    jobs = _jobs(source, target, (".svae",), lambda name: _unpacked_name(name, to))
    shared = {"settings": FolderSettings(file_timeout_seconds=file_timeout_seconds)}
    with file_lock(target.parent / f".{target.name}.lock", remove=True):
        return _run_all(decompress_file, [job.model_copy(update=shared) for job in jobs], target)


def _unpacked_name(archive: str, to: Target | None) -> str:
    """The name of what comes out.

    >>> _unpacked_name("a.csv.gz.svae", None), _unpacked_name("b.svae", None), _unpacked_name("a.txt.svae", None)
    ('a.csv', 'b.parquet', 'a.txt')
    >>> _unpacked_name("a.csv.svae", "parquet")
    'a.parquet'
    """
    name = re.sub(r"\.(gz|zip)$", "", archive.removesuffix(".svae"))
    stem, _, ending = name.rpartition(".")
    if to is None:
        return (
            name if stem and ending in {"parquet", "csv", "npy", "npz", "jsonl", "txt"} else f"{name}.parquet"
        )
    return f"{stem or name}.{to}"


def _folders(folder: str, out: str, config: str | None) -> tuple[Path, Path, Any]:
    deployed = deployment.id is not None
    tracking = load_tracking(config, required=deployed)
    base = tracking.home if deployed else Path.cwd()
    source, target = (base / folder).absolute(), (base / out).absolute()
    if not source.is_dir():
        raise SourceError(f"{source}: no such folder; name one with files in it")
    return source, target, tracking


def _jobs(source: Path, target: Path, endings: tuple[str, ...], rename: Any) -> list[FileJob]:
    found = sorted(
        path
        for path in source.rglob("*")
        if path.is_file()
        and path.name.lower().endswith(endings)
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not found:
        raise SourceError(f"{source}: no file in it ends in one of {', '.join(endings)}")
    jobs: list[FileJob] = []
    makers: dict[Path, Path] = {}
    for path in found:
        made = target / path.relative_to(source).with_name(rename(path.name))
        if made in makers:
            raise SourceError(f"{path} and {makers[made]} would both become {made}; rename one of them")
        makers[made] = path
        jobs.append(FileJob(source=path, target=made, folder=target))
    return jobs


def _failure(job: FileJob, error: BaseException) -> str:
    """What is wrong with a file, its path said once.

    >>> job = FileJob(source=Path("/in/a.csv"), target=Path("/out/a.csv.svae"), folder=Path("/out"))
    >>> _failure(job, ValueError("/in/a.csv: is empty")), _failure(job, ValueError("too large"))
    ('/in/a.csv: is empty', '/in/a.csv: too large')
    """
    text = " ".join(str(error).split())
    return text if str(job.source) in text else f"{job.source}: {text}"


def _run_all(work: Any, jobs: list[FileJob], target: Path) -> Path:
    """Every file, failures of single ones not stopping the others; the manifest only when all are there."""
    futures = work.map(jobs)
    wait(futures)
    done: list[FileDone] = []
    failed: list[tuple[FileJob, BaseException]] = []
    for job, future in zip(jobs, futures, strict=True):
        result = future.result(raise_on_failure=False)
        if isinstance(result, FileDone):
            done.append(result)
        else:
            failed.append((job, result))
    rows = [{"file": job.source.name, "bytes": None, "error": str(error)} for job, error in failed]
    rows += [{"file": file.source.name, "bytes": file.bytes, "error": ""} for file in done]
    show_table(rows, key="files", description=f"{len(done)} of {len(jobs)} files done")
    if failed:
        raise DataError(
            f"{len(failed)} of {len(jobs)} files failed; mend them and run again, finished files are skipped: "
            f"{' | '.join(_failure(job, error) for job, error in failed[:MOST_TOLD])}"
            + (f" | and {len(failed) - MOST_TOLD} more" if len(failed) > MOST_TOLD else "")
        ) from failed[0][1]
    get_run_logger().info("%d files, %s bytes", len(done), f"{sum(file.bytes for file in done):,}")
    entries = [{**file.model_dump(mode="json"), "sha256": cache.file_digest(file.target)} for file in done]
    with atomic_path(target / MANIFEST) as path:
        path.write_text(json.dumps({"files": entries}, indent=1) + "\n", encoding="utf-8")
    return target / MANIFEST
