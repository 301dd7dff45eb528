"""`svae sample`: new rows from a model."""

from __future__ import annotations

from typing import Annotated

import typer

from data.errors import UsageError
from flows.cli_options import AsJson, Config, Model, OutRows, Seed, need_pipeline
from flows.console import Output, progress

MOST_IN_GRID = 10_000
"""Images of a grid."""


def sample(
    model: Model,
    out: OutRows,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=100_000_000, help="Rows to make.")] = 1_000,
    between: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="On the way from row A to row B of --data, as their codes see it."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where rows A and B are: a source, or a dataset.")] = None,
    seed: Seed = 0,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """New rows: drawn from the model, with the types, ranges and names of what it was trained on."""
    need_pipeline()
    ends = _ends(between)
    if (ends is None) != (data is None):
        raise UsageError("--between A:B and --data SOURCE go together: the rows, and where they are")
    if ends is not None and rows < 2:
        raise UsageError(f"--rows {rows}: both ends count, so --between takes 2 at least")
    with Output(as_json) as output:
        from data.atomic import check_writable
        from data.output import check_output, write_table
        from flows.cli_files import note_unknown
        from flows.files import load_model, rebuilt_schema
        from vae import generate, mosaic

        grid = out.suffix.lower() == ".png"
        if grid:
            check_writable(out)
        else:
            check_output(out)
        trained = load_model(model, None, config)
        if not grid:
            check_output(out, trained.schema)
        elif rows > MOST_IN_GRID or not mosaic.columns_of_images(trained.schema.to_arrow().empty_table()):
            raise UsageError(f"{out}: a .png holds at most {MOST_IN_GRID:,} images, of a model of images")
        with progress("sample") as advance:
            if ends is None or data is None:
                made = generate.sample_rows(
                    trained, rows, seed=seed, on_progress=lambda done, all_: advance(done / all_, f"{done:,} rows")
                )  # fmt: skip
            else:
                made = generate.rows_between(trained, _pair(data, *ends), rows)
        note_unknown(made)
        if grid:
            mosaic.write_grid(made, out, across=rows if ends else None)
        else:
            write_table(made, rebuilt_schema(trained, made), out)
        output.show({"path": out, "rows": made.num_rows, "columns": made.num_columns})


def _ends(text: str | None) -> tuple[int, int] | None:
    """Two rows, of `A:B`."""
    if text is None:
        return None
    first, found, last = text.partition(":")
    if not found or not first.isdecimal() or not last.isdecimal():
        raise UsageError(f"--between {text}: write two row numbers, as 10:250")
    return int(first), int(last)


def _pair(source: str, first: int, last: int):
    """The two rows of a source."""
    import pyarrow as pa

    from flows.cli_files import opened_dataset

    with opened_dataset(source) as dataset:
        for row in (first, last):
            if row >= dataset.rows:
                raise UsageError(
                    f"--between: there is no row {row}; {source} has {dataset.rows:,} (0 is the first)"
                )
        return pa.concat_tables([dataset.table(rows=slice(row, row + 1)) for row in (first, last)])


def add_to(app: typer.Typer) -> None:
    """The command of this module."""
    app.command(
        epilog="Example: svae sample --model models:/flights@champion -n 1000 -o new.csv; on the way from one row to "
        "another: svae sample --model svae-runs/flights/model --between 10:250 --data sample:flights -n 9 -o way.csv; "
        "images as one picture: svae sample --model svae-runs/mnist/model -n 100 -o grid.png"
    )(sample)
