"""`svae report`: the evaluation page of an archive or of a model."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import ModelError, UsageError
from flows.cli_options import AsJson, Config, OutFile, need_pipeline, training_progress
from flows.console import Advance, Output, key_values, note, progress

if TYPE_CHECKING:
    from data.dataset import Dataset
    from vae.codec.reader import Archive
    from vae.codec.summary import ArchiveReport
    from vae.curve import Curve
    from vae.examples import Examples
    from vae.store import TrainedModel

BEFORE_CURVE = 0.1
"""Share of the progress that is done when the trainings of a curve begin."""


def report(
    target: Annotated[
        str, typer.Argument(help="An archive, or a model: a folder, models:/NAME@ALIAS and the like.")
    ],
    out: OutFile,
    data: Annotated[
        str | None,
        typer.Option(help="What it is of: a source or dataset, to measure on and to show rows of."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Of an archive, with --data: the model that wrote it, to show what its code says."),
    ] = None,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve", help="With --data: train briefly for several bounds, and draw bits over bounds."
        ),
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """One HTML page, to be read offline: what was compressed, with what guarantee, and what the code is worth."""
    need_pipeline()
    is_archive = target.endswith(".svae")
    _check(target, out, data, model, curve=curve, is_archive=is_archive)
    with Output(as_json) as output, progress("report") as advance:
        from data.atomic import check_writable
        from flows.cli_files import opened_dataset
        from flows.files import load_model
        from flows.results import Aim
        from vae import curve as curves
        from vae import page

        check_writable(out)
        path = Path(target) if is_archive else None
        if path is not None:
            told = _of_archive(path)
            trained = load_model(model, None, config) if model else None
        else:
            trained = load_model(target, None, config)
            told = _of_model(target, trained)
        if trained is not None:
            told["target"] = Aim.words(trained.record.get("target"))
        if not curve:
            told["curve_by"] = _curve_by(target, out, data, model, config)
        if data is None and not is_archive:
            note("without --data nothing is measured: name the dataset that the model is of")
        if data is not None:
            before = BEFORE_CURVE if curve else 1.0
            with opened_dataset(data) as dataset:
                told |= _measured(dataset, trained, path, _part(advance, 0, before))
                if curve:
                    told["curve"] = _curve(dataset, trained, told.get("report"), _part(advance, before, 1))
        page.write(out, **told)
        advance(1.0, "written")
        written = {"path": out, "bytes": out.stat().st_size}
        points = {"curve": curves.rows_of(told["curve"])} if curve else {}
        output.show({**written, **points}, lambda console: key_values(console, written))


def _curve_by(target: str, out: Path, data: str | None, model: str | None, config: str | None) -> str:
    """The same command, with a curve."""
    import shlex

    words = ["svae", "report", target, "-o", str(out), "--data", data or "SOURCE"]
    for option, value in (("--model", model), ("--config", config)):
        words += [option, value] if value else []
    return shlex.join([*words, "--curve"])


def _part(advance: Advance, start: float, stop: float) -> Advance:
    """The progress of what takes a part of the whole."""
    return lambda share, words: advance(start + share * (stop - start), words)


def _check(
    target: str, out: Path, data: str | None, model: str | None, *, curve: bool, is_archive: bool
) -> None:
    """Raises UsageError for options that cannot go together, before anything is loaded."""
    if out.suffix not in {".html", ".htm"}:
        raise UsageError(f"{out}: the name must end in .html")
    if curve and data is None:
        raise UsageError("--curve trains on the data: name it with --data")
    if not target.endswith(".svae") and Path(target).is_file():
        raise UsageError(
            f"{target}: give an archive (.svae) or a model's folder; the data itself goes after --data"
        )
    if model is not None and (data is None or not is_archive):
        raise UsageError("--model goes with an archive and its --data")


def _of_archive(path: Path) -> dict[str, Any]:
    """What an archive says of itself."""
    from vae.codec import archive

    with archive.open(path, inspect=True) as opened:
        found = opened.report()
    return {"name": path.stem, "report": found, "footer": f"Of {path.name}, {found.archive_bytes:,} bytes."}


def _of_model(target: str, trained: TrainedModel) -> dict[str, Any]:
    """What a model says of itself."""
    from vae.traversal import traverse

    steps, family = trained.record["steps"], trained.settings.family.value
    return {
        "name": target.rstrip("/").rsplit("/", 1)[-1],
        "latents": traverse(trained),
        "footer": f"Model {trained.digest[:16]}, {steps:,} steps, family {family}.",
    }


def _measured(
    dataset: Dataset, trained: TrainedModel | None, path: Path | None, advance: Advance
) -> dict[str, Any]:
    """What the data shows of an archive, of a model, or of both."""
    import tempfile

    from data.largetable import table_of
    from flows.work import split_of
    from vae import evaluate as evaluation
    from vae import page, pipeline
    from vae.codec import archive
    from vae.sections import pictures

    with contextlib.ExitStack() as stack:
        given = None if trained is None else pipeline.integer_model(trained)
        opened = None if path is None else stack.enter_context(archive.open(path, model=given))
        if opened is not None:
            _check_is_of(opened, dataset, given)
        if trained is None:
            return {"examples": _side_by_side(dataset, opened)} if opened else {}
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="svae-"))
        split = split_of(dataset)
        numbers, figures = evaluation.evaluate(
            trained,
            dataset.table(),
            scratch,
            split=split,
            archive_path=path,
            on_progress=training_progress(advance),
        )
        seen = page.seen(trained, table_of(dataset), split, numbers, opened)
        return {"numbers": numbers, "figures": pictures(figures), **seen}


def _check_is_of(opened: Archive, dataset: Dataset, given: Any) -> None:
    """Raises where the archive cannot be of this data, or holds another model than the one given."""
    if dataset.rows != opened.rows:
        raise UsageError(f"--data has {dataset.rows:,} rows, the archive {opened.rows:,}; is it of this?")
    written = opened.report().model_sha256
    if given is not None and written not in {None, hashlib.sha256(given.to_bytes()).hexdigest()}:
        raise ModelError(
            "--model is not the model in the archive; give the one that wrote it, or leave it out"
        )


def _side_by_side(dataset: Dataset, opened: Archive) -> Examples:
    """Some rows as they were and as the archive gives them back."""
    import pyarrow as pa

    from vae.examples import Examples, spread

    rows = spread(dataset.rows)
    originals = dataset.table(rows=rows)
    restored = pa.concat_tables([opened.read(rows=slice(row, row + 1)) for row in rows])
    return Examples(rows, False, originals, None, restored)


def _curve(
    dataset: Dataset, trained: TrainedModel | None, report: ArchiveReport | None, advance: Advance
) -> Curve:
    """Points over bounds, of models like the one there is, and the point of what the page is of."""
    from data.largetable import table_of
    from vae import curve
    from vae.settings import Codes, ModelSettings

    table, schema, stats = table_of(dataset), dataset.schema, dataset.stats
    given = None
    if report is not None:
        given = curve.point_of_archive(report, schema, stats)
    elif trained is not None:
        given = curve.point_of_model(trained, table, schema, stats)
    bare = report is not None and not report.codes_summary.latents
    settings = trained.settings if trained else ModelSettings(codes=Codes.none) if bare else None
    points = curve.measure(table, schema, stats, model=settings, on_progress=advance)
    return curve.Curve(points, given, images=bool(curve.images_of(schema)))


def add_to(app: typer.Typer) -> None:
    """The command of this module."""
    app.command(
        epilog="Example: svae report flights.svae -o flights.html --data sample:flights; of a model: "
        "svae report models:/flights@champion -o model.html --data sample:flights --curve"
    )(report)
