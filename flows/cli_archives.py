"""Commands on archives. Those that read work on the core alone; `--each` runs a flow over a folder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import DamagedError, UsageError
from flows.cli_contents import MOST_COLUMNS, show_report
from flows.cli_options import (
    AsJson,
    BoundsOrOwn,
    CodesKind,
    CodeTarget,
    Config,
    Efforts,
    FamilyKind,
    OutFile,
    OutRows,
    SchemaFile,
    Seed,
    Source,
    Steps,
    model_settings,
    need_pipeline,
    parse_columns,
    parse_rows,
    quiet_failures,
    training_progress,
)
from flows.console import Advance, Output, key_values, note, progress
from vae.settings import Codes, Effort, Family

if TYPE_CHECKING:
    import pyarrow as pa

    from data.largetable import AnyTable
    from data.schema import Schema
    from vae.codec.salvage import Lost


def compress(
    source: Source,
    out: OutFile,
    bound: BoundsOrOwn = None,
    model: Annotated[
        str | None, typer.Option(help="A model to use; without it one is trained and embedded.")
    ] = None,
    codes: CodesKind = Codes.balanced,
    family: FamilyKind = Family.quantized,
    target: CodeTarget = None,
    effort: Efforts = Effort.standard,
    rivals: Annotated[
        bool, typer.Option("--rivals", help="Also measure, and store, what other coders need.")
    ] = False,
    each: Annotated[
        bool,
        typer.Option(
            "--each", help="SOURCE and -o are folders: one archive a file, as a flow; without --schema."
        ),
    ] = False,
    schema: SchemaFile = None,
    seed: Seed = 0,
    steps: Steps = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """A verified archive; exact unless --bound allows an error."""
    need_pipeline()
    from data.bounds import OWN_BOUNDS
    from vae.settings import TrainSettings

    shape = model_settings(codes=codes, family=family, target=target)
    training = TrainSettings(effort=effort, seed=seed, steps=steps)
    if bound == [OWN_BOUNDS] and model is None:
        raise UsageError(f"--bound {OWN_BOUNDS}: takes the bounds of a model; name it with --model")
    if model is not None and (target is not None or family is not Family.quantized):
        raise UsageError(
            "--family and --target are of a model that is trained; the one of --model has its own"
        )
    with Output(as_json) as output:
        if each:
            _each_takes_no(schema=schema)
            from flows.jobs import FolderSettings

            settings = FolderSettings(
                model=model, settings=shape, train=training, bounds=tuple(bound or ()), rivals=rivals
            )
            _folder_job("compress_folder", source, out, config, output, settings=settings)
            return
        _must_be_file(out)
        _must_not_be(source, out)
        from data.atomic import check_writable
        from data.sources import open_source
        from flows import files
        from vae import pipeline

        check_writable(out)
        opened = open_source(source, _schema_file(schema))
        with (
            progress("compress") as advance,
            files.read_source(opened, out, _rows_read(advance)) as (table, known, facts),
        ):
            for line in opened.notes:
                note(line)
            bounds = files.absolute_bounds(bound or [], table, known, note)
            trained = files.load_model(model, None, config) if model else None
            report = pipeline.compress(
                table,
                out,
                bounds=bounds,
                model=trained,
                settings=shape,
                training=training,
                rivals=rivals,
                facts=facts,
                on_progress=training_progress(advance),
            )
        for line in files.model_notes(trained, bounds, report, target):
            note(line)
        content = report.model_dump(mode="json")
        output.show(
            {"path": str(out), **content}, lambda console: show_report(console, content, MOST_COLUMNS)
        )


def decompress(
    archive: Annotated[Path, typer.Argument(help="The archive, or with --each a folder of them.")],
    out: OutRows,
    columns: Annotated[str | None, typer.Option(help="Columns to read, separated by commas.")] = None,
    rows: Annotated[str | None, typer.Option(help="Rows A:B, counted from 0, B not included.")] = None,
    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage",
            help="Of a damaged archive, the rows that are whole (status 0 if there are any); lost ones are listed.",
        ),
    ] = False,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="ARCHIVE and -o are folders: one file an archive, as a flow; without --columns, --rows, --salvage.",
        ),
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Rows of an archive, to .parquet, .csv, .npy, .npz or .jsonl; texts also to .txt, images to a folder of PNG."""
    with Output(as_json) as output:
        if each:
            _each_takes_no(columns=columns, rows=rows, salvage=salvage or None)
            need_pipeline()
            _folder_job("decompress_folder", str(archive), out, config, output)
            return
        from data.output import check_output, write_table
        from data.schema import Schema
        from vae.codec import archive as archives

        check_output(out)
        _must_not_be(str(archive), out)
        wanted = parse_columns(columns)
        span = parse_rows(rows)
        with archives.open(archive) as opened, progress("decompress") as advance:
            _must_begin_within(rows, span[0], opened.rows)
            names = opened.names if wanted is None else wanted
            _must_be_columns(names, opened.names)
            known = Schema.from_arrow(opened.schema)
            known = known.model_copy(update={"columns": tuple(known.column(name) for name in names)})
            start, stop, _ = slice(*span).indices(opened.rows)
            count = max(0, stop - start)
            lost: list[Lost] = []
            batches = opened.batches(names, span)
            if salvage:
                batches = _some(opened.salvage(names, span, on_lost=lost.append), lost, archive)
            write_table(_counted(batches, count, advance), known, out)
        for gone in lost:
            note(f"rows {gone.start:,} to {gone.stop - 1:,} are lost: {gone.why}")
        missing = sum(gone.stop - gone.start for gone in lost)
        result: dict[str, Any] = {"path": out, "rows": count - missing, "columns": len(names)}
        told = result | ({"rows lost": missing} if salvage else {})
        if salvage:
            result["lost"] = [gone._asdict() for gone in lost]
        output.show(result, lambda console: key_values(console, told))


def _some(batches: Iterator[pa.RecordBatch], lost: list[Lost], archive: Path) -> Iterator[pa.RecordBatch]:
    """The batches; DamagedError where there are none for nothing but damage."""
    none = True
    for batch in batches:
        none = False
        yield batch
    if none and lost:
        raise DamagedError(
            f"{archive}: no row can be saved of these columns (others may be whole: --columns): {lost[0].why}"
        )


def _must_be_columns(wanted: list[str], names: list[str]) -> None:
    from data.kinds import listed

    for name in wanted:
        if name not in names:
            raise UsageError(f"--columns: there is no column {name!r}; {listed(names)}")


def _counted(batches: Any, rows: int, advance: Advance) -> Any:
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        advance(done / max(1, rows), f"{done:,} rows")


def inspect(archive: Annotated[Path, typer.Argument(help="The archive.")], as_json: AsJson = False) -> None:
    """What is inside: bytes by part, the code's cost and score, each column's coder, bits and bound; rivals' sizes."""
    with Output(as_json) as output:
        from vae.codec import archive as archives

        with archives.open(archive, inspect=True) as opened:
            content = opened.report().model_dump(mode="json")
        output.show(content, lambda console: show_report(console, content))


def verify(
    archive: Annotated[Path, typer.Argument(help="The archive.")],
    against: Annotated[str | None, typer.Option(help="A source to compare every value with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every checksum; with --against, every value against its bound."""
    with Output(as_json) as output:
        from data.schema import Schema
        from vae.codec import archive as archives

        with archives.open(archive) as opened, progress("verify") as advance:
            with _original(against, Schema.from_arrow(opened.schema), advance) as table:
                errors = opened.verify(
                    table, lambda share: advance(share, "streams" if table is None else "rows")
                )
            count = opened.rows
        what = "every checksum holds" if against is None else f"every value of {against} is within its bound"
        result = {"path": archive, "rows": count, "against": against, "max_error": errors}
        output.show(result, lambda console: console.print(f"{archive}: {what} ({count:,} rows)"))


@contextmanager
def _original(against: str | None, schema: Schema, advance: Advance) -> Generator[AnyTable | None]:
    """What an archive of this schema is compared with."""
    if against is None:
        yield None
        return
    from data.largetable import rows_of
    from data.sources import open_source

    # the archive may lie where nothing can be written; of a fixed name, so that the next call clears up after a kill
    beside = Path(gettempdir()) / "svae-verify"
    with rows_of(open_source(against, _wishes(schema, against)), beside, _rows_read(advance)) as table:
        yield table


def _rows_read(advance: Advance) -> Callable[[int, int | None], None]:
    """Shows how many rows of a large source have been read; the bar begins anew afterwards."""
    return lambda done, rows: advance(done / rows if rows else 0.0, f"reading, {done:,} rows")


def _wishes(schema: Schema, against: str) -> Schema | None:
    """Text is typed as it was for the archive; formats that carry their types speak for themselves."""
    from data.files import TEXT_FORMATS, find_files

    textual = against.startswith("sample:") or any(f.format in TEXT_FORMATS for f in find_files(against))
    return schema if textual else None


def _must_begin_within(text: str | None, start: int | None, rows: int) -> None:
    """A span may end beyond the archive, as a slice may; one that begins there is a slip."""
    if start and start >= rows:
        raise UsageError(f"--rows {text!r}: the archive has {rows:,} rows, the first of them is row 0")


def _folder_job(
    flow: str, folder: str, out: Path, config: str | None, output: Output, **parameters: Any
) -> None:
    """A flow over a folder, on the server that is named or on the ephemeral one."""
    import json

    from data.errors import SourceError
    from flows import server
    from flows.settings import load_tracking

    if not Path(folder).is_dir():
        raise SourceError(f"{folder}: no such folder; --each takes one with files in it")
    tracking = load_tracking(config)
    server.use_local_state(tracking)
    server.ready(tracking)
    quiet_failures()
    from flows import compress as jobs

    with server.needed():
        manifest = getattr(jobs, flow)(
            folder=str(Path(folder).absolute()), out=str(out.absolute()), config=config, **parameters
        )
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    sizes = {
        "files": len(files),
        "source_bytes": sum(f["source_bytes"] for f in files),
        "bytes": sum(f["bytes"] for f in files),
    }
    output.show({"path": out, "manifest": manifest, **sizes})


def _schema_file(path: Path | None) -> Schema | None:
    from data.schema import Schema

    return Schema.from_yaml(path) if path else None


def _must_be_file(path: Path) -> None:
    if path.is_dir() or str(path).endswith("/"):
        raise UsageError(f"{path}: is a folder; name a file, or add --each for one archive a file")


def _must_not_be(source: str, out: Path) -> None:
    if "://" not in source and Path(source).resolve() == out.resolve():
        raise UsageError(f"{out}: is what is read; name another file")


def _each_takes_no(**options: object) -> None:
    """UsageError for what only a single file can be asked for, rather than leaving it out in silence."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} does not go with --each")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command(epilog="Example: svae compress sample:flights -o flights.svae --bound 'dep_delay=5'")(
        compress
    )
    app.command(
        epilog="Example: svae decompress flights.svae -o part.csv --columns carrier,dep_delay --rows 0:1000"
    )(decompress)
    app.command(epilog="Example: svae inspect flights.svae --json")(inspect)
    app.command(epilog="Example: svae verify flights.svae --against sample:flights")(verify)
