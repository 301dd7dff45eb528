"""Options that several commands share, and what they do before they begin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from data.errors import UsageError
from flows.console import Advance
from vae.settings import Codes, Effort, Family, Target

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Config = Annotated[
    str | None, typer.Option(help="Settings of tracking and registry (mlflow.yml), or its folder.")
]
Model = Annotated[
    str, typer.Option(help="A folder, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model.")
]
Source = Annotated[
    str,
    typer.Argument(
        help="A file, folder, glob, URI or sample:NAME: CSV, Parquet, npy, npz, jsonl, txt, idx, PNG or JPEG."
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="File to write; replaced if there.")]
OutRows = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="File to write, replaced if there; of images also a new folder, of PNG files."
    ),
]
Efforts = Annotated[Effort, typer.Option(help="Optimiser steps: fast, standard or max.")]
SchemaFile = Annotated[
    Path | None, typer.Option(help="What is known of the columns (YAML); the rest is inferred.")
]
CodesKind = Annotated[Codes, typer.Option(help="How much the sparse code carries.")]


FamilyKind = Annotated[
    Family, typer.Option(help="Latent family: quantized, spike_slab, topk or gaussian (not sparse).")
]
ModelledColumn = Annotated[
    str | None,
    typer.Option(
        "--column", help="The column of images or texts to model by itself; default: by what the table holds."
    ),
]
Latents = Annotated[
    int | None, typer.Option(min=1, max=256, help="Number of latents; default: by the table.")
]


def _target(text: str | None) -> str | None:
    """A code's target as it is; UsageError for one that cannot be read."""
    try:
        if text is not None:
            Target.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return text


CodeTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="SPEC",
        callback=_target,
        help="Calibrate the code to 'nonzeros=6' a row, 'bits=8' a row or 'score=0.8', in place of --codes.",
    ),
]


def _readable(specs: list[str] | None) -> list[str] | None:
    """The bounds as they are; UsageError for one that cannot be read, before anything is loaded."""
    from data.bounds import OWN_BOUNDS, parse_spec
    from data.errors import BoundError

    for spec in specs or []:
        try:
            _ = spec == OWN_BOUNDS or parse_spec(spec)
        except BoundError as error:
            raise UsageError(str(error)) from error
    return specs


def _bounds(more: str = "") -> Any:
    return typer.Option(
        "--bound",
        metavar="SPEC",
        callback=_readable,
        help=f"Largest error: 'dep_delay=5', 'air_time=1%' or '*=0.5%'{more}.",
    )


Bounds = Annotated[list[str] | None, _bounds()]
BoundsOrOwn = Annotated[list[str] | None, _bounds("; beside --model also: model, for its own")]
Steps = Annotated[
    int | None, typer.Option(min=1, max=100_000_000, help="Optimiser steps, in place of --effort.")
]
_seed = typer.Option(min=0, max=2**31 - 1, help="Seed of weights, batch order and noise.")
Seed = Annotated[int, _seed]
SeedOfSettings = Annotated[int | None, _seed]
"""Where a settings file may hold the seed: without the option, its own stands."""


def need_pipeline() -> None:
    """Fail before anything is written if the extra is not installed."""
    import importlib.util

    for name in ("torch", "prefect", "mlflow"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"{name} is not installed; this command needs: pip install '.[pipeline]' in the project's folder"
            )


def model_settings(**told: Any) -> Any:
    """Settings of the model; UsageError for those that do not go together."""
    from pydantic import ValidationError

    from vae.settings import ModelSettings

    try:
        return ModelSettings(**told)
    except ValidationError as error:
        raise UsageError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def quiet_failures() -> None:
    """Keep Prefect's reports of a failure, tracebacks and all, off the terminal: the command itself ends with one line.

    They stay in the run's log on the server.
    """
    import os

    if os.environ.get("SVAE_DEBUG"):
        return
    from prefect.logging.configuration import setup_logging

    setup_logging()  # else the flow does it, and makes new handlers
    inside = logging.getLogger("prefect._internal")  # hands nothing on to the root
    for handler in (*logging.root.handlers, *inside.handlers):
        handler.addFilter(lambda record: not _is_of_a_failure(record))


def _is_of_a_failure(record: logging.LogRecord) -> bool:
    """Whether a line of Prefect's only surrounds a failure, which the command tells itself."""
    text = record.getMessage()
    told = text.startswith(
        ("Running hook ", "Hook ", "Finished in state Failed", "Finished in state Crashed")
    )
    return record.name.startswith("prefect") and (told or record.levelno >= logging.ERROR)


def training_progress(advance: Advance) -> Callable[[Any], None]:
    """Progress of a training, and of the writing after it."""

    def done(event: Any) -> None:
        if isinstance(event, Mapping) and event.get("steps"):
            bits = f", {event['bits']:.2f} bits a row" if event.get("bits") else ""
            advance(
                event["step"] / event["steps"],
                f"{event['phase']} step {event['step']:,} of {event['steps']:,}{bits}",
            )
        elif isinstance(event, float):
            advance(event, "writing")

    return done


def parse_columns(text: str | None) -> list[str] | None:
    """Names separated by commas.

    >>> parse_columns("carrier, dep_delay"), parse_columns(None)
    (['carrier', 'dep_delay'], None)
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"--columns {text!r}: a name is empty; name columns as in carrier,dep_delay")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--columns {text!r}: {twice!r} is named twice; name each column once")
    return names


def parse_rows(text: str | None) -> tuple[int | None, int | None]:
    """`A:B`, either may be left out.

    >>> parse_rows("1000:2000"), parse_rows(":5"), parse_rows(None)
    ((1000, 2000), (None, 5), (None, None))
    """
    if text is None:
        return None, None
    first, colon, last = text.partition(":")
    try:
        if not colon:
            raise ValueError
        start, stop = (int(part) if part.strip() else None for part in (first, last))
    except ValueError as error:
        raise UsageError(f"--rows {text!r}: expected A:B, such as 1000:2000") from error
    if (start or 0) < 0 or (stop is not None and stop < (start or 0)):
        raise UsageError(f"--rows {text!r}: rows count from 0, and the first comes before the last")
    return start, stop
