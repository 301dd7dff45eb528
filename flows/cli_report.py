"""`svae report`: the evaluation page of an archive or of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from data.errors import UsageError
from flows.cli_options import AsJson, Config, OutFile, need_pipeline, training_progress
from flows.console import Output, note, progress


def report(
    target: Annotated[
        str, typer.Argument(help="An archive, or a model: a folder, models:/NAME@ALIAS and the like.")
    ],
    out: OutFile,
    data: Annotated[
        str | None,
        typer.Option(help="What it is of: a source or dataset, to measure on and to show rows of."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """One HTML page, to be read offline: what was compressed, with what guarantee, and what the code is worth."""
    need_pipeline()
    if out.suffix not in {".html", ".htm"}:
        raise UsageError(f"{out}: the name must end in .html")
    with Output(as_json) as output, progress("report") as advance:
        if target.endswith(".svae"):
            told = _of_archive(Path(target), data)
        else:
            told = _of_model(target, data, config, training_progress(advance))
        from vae import page

        page.write(out, **told)
        advance(1.0, "written")
        output.show({"path": out, "bytes": out.stat().st_size})


def _of_archive(path: Path, data: str | None) -> dict[str, Any]:
    from flows.cli_files import opened_dataset
    from vae.codec import archive
    from vae.examples import Examples, spread

    with archive.open(path, inspect=True) as opened:
        found = opened.report()
    told: dict[str, Any] = {
        "name": path.stem,
        "report": found,
        "footer": f"Of {path.name}, {found.archive_bytes:,} bytes.",
    }
    if data is None:
        return told
    with archive.open(path) as opened, opened_dataset(data) as dataset:
        if dataset.rows != opened.rows:
            raise UsageError(
                f"--data {data}: has {dataset.rows:,} rows, the archive {opened.rows:,}; is it of this?"
            )
        rows = spread(dataset.rows)
        originals = _rows(dataset, rows)
        import pyarrow as pa

        restored = pa.concat_tables([opened.read(rows=slice(row, row + 1)) for row in rows])
    return {**told, "examples": Examples(rows, False, originals, None, restored)}


def _of_model(target: str, data: str | None, config: str | None, on_progress: Any) -> dict[str, Any]:
    import tempfile

    from data.largetable import table_of
    from flows.cli_files import opened_dataset
    from flows.files import load_model
    from flows.work import split_of
    from vae import evaluate as evaluation
    from vae.examples import examples_of
    from vae.sections import pictures
    from vae.stretch import stretch_of
    from vae.traversal import traverse

    trained = load_model(target, None, config)
    name = target.rstrip("/").rsplit("/", 1)[-1]
    footer = f"Model {trained.digest[:16]}, {trained.record['steps']:,} steps, family {trained.settings.family.value}."
    if data is None:
        note("without --data nothing is measured: name the dataset that the model is of")
        return {"name": name, "latents": traverse(trained), "footer": footer}
    with opened_dataset(data) as dataset, tempfile.TemporaryDirectory(prefix="svae-") as scratch:
        table, split = table_of(dataset), split_of(dataset)
        numbers, figures = evaluation.evaluate(
            trained, dataset.table(), scratch, split=split, on_progress=on_progress
        )
        return {
            "name": name,
            "numbers": numbers,
            "figures": pictures(figures),
            "examples": examples_of(trained, table, split),
            "stretch": stretch_of(trained, table, split, numbers["bits"]["columns"]),
            "latents": traverse(trained, table),
            "footer": footer,
        }


def _rows(dataset: Any, rows: list[int]) -> Any:
    """These rows of a dataset, as a table."""
    import pyarrow as pa

    return pa.concat_tables([dataset.table(rows=slice(row, row + 1)) for row in rows])


def add_to(app: typer.Typer) -> None:
    """The command of this module."""
    app.command(
        epilog="Example: svae report flights.svae -o flights.html --data sample:flights; of a model: "
        "svae report models:/flights@champion -o model.html --data sample:flights"
    )(report)
