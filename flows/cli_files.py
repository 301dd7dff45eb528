"""Commands on datasets and models. They start neither Prefect nor MLflow, which only fetches registered models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import UsageError
from flows.cli_options import (
    AsJson,
    Bounds,
    CodesKind,
    CodeTarget,
    Config,
    Efforts,
    FamilyKind,
    Latents,
    Model,
    ModelledColumn,
    OutFile,
    OutFolder,
    OutRows,
    SchemaFile,
    Seed,
    Source,
    Steps,
    model_settings,
    need_pipeline,
    training_progress,
)
from flows.console import Advance, Output, key_values, note, progress
from vae.settings import Codes, Effort, Family

if TYPE_CHECKING:
    import pyarrow as pa

    from data.dataset import Dataset


def ingest(
    source: Source,
    out: OutFolder,
    schema: SchemaFile = None,
    as_json: AsJson = False,
) -> None:
    """A source as typed Parquet parts and a manifest."""
    from data.ingest import ingest as ingest_source
    from data.schema import Schema
    from data.sources import open_source

    with Output(as_json) as output:
        with progress("ingest") as advance:
            opened = open_source(source, Schema.from_yaml(schema) if schema else None)
            dataset = ingest_source(opened, out, progress=_rows_done(advance))
        for line in opened.notes:
            note(line)
        manifest = dataset.manifest
        result = {
            "path": dataset.path,
            "rows": manifest.rows,
            "columns": len(manifest.schema.columns),
            "digest": manifest.digest,
            "source_bytes": manifest.source.source_bytes,
            "parquet_bytes": sum(part.bytes for part in manifest.parts),
            "reused": dataset.reused,
        }
        output.show(result)


def train(
    dataset: Annotated[str, typer.Argument(help="Folder of an ingested dataset, or a source.")],
    out: OutFolder,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a training that was killed had got to.")
    ] = False,
    effort: Efforts = Effort.standard,
    codes: CodesKind = Codes.balanced,
    family: FamilyKind = Family.quantized,
    latents: Latents = None,
    target: CodeTarget = None,
    column: ModelledColumn = None,
    bound: Bounds = None,
    seed: Seed = 0,
    steps: Steps = None,
    as_json: AsJson = False,
) -> None:
    """A model on disk, of the training rows of a dataset."""
    need_pipeline()
    with Output(as_json) as output:
        from data.atomic import check_writable
        from data.bounds import kept_exact, resolve_bounds
        from data.largetable import table_of
        from flows.results import COLLAPSED, Aim
        from flows.work import split_of
        from vae import pipeline
        from vae import train as training
        from vae.loop import paid
        from vae.settings import TrainSettings

        shape = model_settings(codes=codes, family=family, latents=latents, target=target, column=column)
        check_writable(out, folder=True)
        with opened_dataset(dataset) as data:
            widths = resolve_bounds(bound or [], data.schema, data.stats)
            for line in kept_exact(widths, data.schema):
                note(line)
            if not resume:
                training.forget(out)
            with progress("train") as advance:
                trained = pipeline.fit(
                    table_of(data),
                    data.schema,
                    bounds=widths,
                    model=shape,
                    training=TrainSettings(effort=effort, seed=seed, steps=steps),
                    split=split_of(data),
                    out=out,
                    on_progress=training_progress(advance),
                )
        history = trained.record["history"]
        result = {
            "path": out,
            "digest": trained.digest,
            "steps": trained.record["steps"],
            "validation_bits_per_row": paid(history[-1]) if history else None,
            "code_bits_per_row": history[-1].get("code_bits") if history else None,
            "code": trained.record["code"],
            "target": trained.record["target"],
        }
        if trained.record["code"].get("collapsed"):
            note(COLLAPSED)
        aim = Aim(**result["target"]) if result["target"] else None
        if aim and aim.missed:
            note(aim.missed)
        words = {**result, "code": code_words(result["code"]), "target": aim or "none"}
        output.show(result, lambda console: key_values(console, words))


def code_words(facts: Mapping[str, Any]) -> str:
    """What a code is like, for people.

    >>> code_words({"mean_nonzero": 5.0, "drawn_nonzero": 5.12, "dead_latents": 1, "collapsed": False})
    '5.00 latents on a row (5.12 as training draws them), 1 never varies'
    >>> code_words({})
    'none'
    """
    if not facts:
        return "none"
    dead = facts["dead_latents"]
    told = (
        f"{facts['mean_nonzero']:.2f} latents on a row ({facts['drawn_nonzero']:.2f} as training draws them)"
    )
    return f"{told}, {dead} never {'varies' if dead == 1 else 'vary'}" if dead else told


def codes_(
    dataset: Annotated[str, typer.Argument(help="Folder of an ingested dataset, or a source.")],
    model: Model,
    out: OutFile,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """The sparse code of every row: row, indices and values, as Parquet."""
    need_pipeline()
    if out.suffix != ".parquet":
        raise UsageError(f"{out}: the name must end in .parquet")
    with Output(as_json) as output:
        from data.atomic import check_writable
        from data.largetable import table_of
        from flows.files import load_model
        from vae import codes, metrics

        check_writable(out)
        with opened_dataset(dataset) as data, progress("codes") as advance:
            trained = load_model(model, None, config)
            dense = codes.encode_rows(trained, table_of(data), _rows_done(advance))
        codes.write_codes(out, dense, trained)
        result = {"path": out, "rows": len(dense), "latents": dense.shape[1], "model": trained.digest}
        output.show({**result, **metrics.sparsity(dense)})


def decode(
    codes: Annotated[Path, typer.Argument(help="Sparse codes (svae codes).")],
    model: Model,
    out: OutRows,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Rows rebuilt from their sparse codes alone: an approximation."""
    need_pipeline()
    with Output(as_json) as output:
        from data.output import check_output, write_table
        from flows.files import load_model, rebuilt_schema
        from vae import codes as code_files

        check_output(out)
        trained = load_model(model, None, config)
        check_output(out, trained.schema)
        dense = code_files.read_codes(codes, trained).codes
        with progress("decode") as advance:
            rows = code_files.rows_from_codes(trained, dense, _rows_done(advance))
        note_unknown(rows)
        write_table(rows, rebuilt_schema(trained, rows), out)
        output.show({"path": out, "rows": rows.num_rows, "columns": rows.num_columns})


def note_unknown(table: pa.Table) -> None:
    """Says which columns of a table that a model made are null from end to end."""
    empty = [name for name in table.column_names if table[name].null_count == table.num_rows > 0]
    if empty:
        note(f"null, since the model knows nothing of them: {', '.join(empty)}")


class opened_dataset:  # noqa: N801  (reads as a function)
    """A dataset: an ingested one as it lies there, any other source ingested into a folder that goes away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._scratch: Any = None

    def __enter__(self) -> Dataset:
        import tempfile

        from data.ingest import ingest as ingest_source
        from data.ingest import open_dataset
        from data.manifest import MANIFEST_NAME
        from data.sources import open_source

        if (Path(self.name) / MANIFEST_NAME).is_file():
            return open_dataset(self.name)
        self._scratch = tempfile.TemporaryDirectory(prefix="svae-")
        try:
            opened = open_source(self.name)
            dataset = ingest_source(opened, Path(self._scratch.name) / "dataset")
            for line in opened.notes:
                note(line)
            return dataset
        except BaseException:
            self._scratch.cleanup()
            raise

    def __exit__(self, *failure: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()


def _rows_done(advance: Advance) -> Callable[[int, int | None], None]:
    def done(rows: int, total: int | None) -> None:
        advance(rows / total if total else 0.0, f"{rows:,} rows")

    return done


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command(epilog="Example: svae ingest sales.csv.gz --out sales/")(ingest)
    app.command(epilog="Example: svae train sales/ --out sales-model/ --effort fast")(train)
    app.command("codes", epilog="Example: svae codes sales/ --model sales-model/ --out codes.parquet")(codes_)
    app.command(epilog="Example: svae decode codes.parquet --model sales-model/ --out rebuilt.parquet")(
        decode
    )
