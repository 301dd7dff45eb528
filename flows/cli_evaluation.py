"""The evaluation of a run as `svae run` prints it: sizes and ratios, what the codes are worth, bits by column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from data.errors import SourceError
from flows.cli_contents import MOST_COLUMNS
from flows.console import key_values, table

NUMBERS_NAME = "evaluation.json"
"""As `vae.evaluate` names it, which this module does without: it would bring PyTorch and matplotlib."""
SIZES = {
    "source": "source",
    "csv": "CSV, words quoted",
    "parquet_snappy": "Parquet, snappy",
    "parquet_zstd19": "Parquet, zstd 19",
    "parquet_brotli11": "Parquet, brotli 11",
    "pcodec": "pcodec, level 12",
}
"""What the archive is compared with, and how a person calls it; what was not measured has no line."""


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The numbers in the folder of a report.

    Raises:
        SourceError: They are not there, or no JSON.
    """
    path = folder / NUMBERS_NAME
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); run again, which makes it anew") from error


def show_evaluation(console: Console, numbers: Mapping[str, Any]) -> None:
    """Three small tables, each after an empty line; parts that were not measured are left out."""
    if "size" in numbers:
        console.print()
        columns = ["file", "bytes", "times the archive", "its model not counted"]
        table(console, columns, size_rows(numbers["size"]))
    console.print()
    key_values(console, summary(numbers))
    console.print()
    bits = "bits/row, all rows" if "written" in numbers else "bits/row, by model"
    rows = column_rows(numbers)
    table(console, ["column", bits, "score by codes", "max error"], rows[:MOST_COLUMNS])
    if len(rows) > MOST_COLUMNS:
        console.print(f"and {len(rows) - MOST_COLUMNS:,} columns of fewer bits; all are in {NUMBERS_NAME}")


def size_rows(size: Mapping[str, Any]) -> list[list[Any]]:
    """What each file takes, and how many times the archive that is.

    >>> size_rows({"archive": 100, "model": 20, "source": 400, "ratio_to_source": 4.0,
    ...            "ratio_to_source_without_model": 5.0})
    [['source', 400, 4.0, 5.0], ['archive', 100, None, None], ['its model', 20, None, None]]
    """
    others: list[list[Any]] = [
        [words, size[name], size[f"ratio_to_{name}"], size[f"ratio_to_{name}_without_model"]]
        for name, words in SIZES.items()
        if size.get(name) is not None
    ]
    return [*others, ["archive", size["archive"], None, None], ["its model", size["model"], None, None]]


def summary(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Bits a row, the likelihood's bounds where there are any, and what the codes are worth, in words."""
    rows, bits = numbers["rows"], numbers["bits"]
    kind = "held-out" if rows["held_out"] else "not held out"
    columns = bits["total"] - bits["code"]
    lines = {
        "evaluated on": f"{rows['evaluated']:,} rows, {kind}",
        "bits by model": f"{bits['total']:.2f} ({bits['code']:.2f} the code, {columns:.2f} columns) a row",
    }
    bounds = {name: numbers["likelihood"].get(name) for name in ("elbo", "iwae")}
    if any(value is not None for value in bounds.values()):
        told = [f"{name.upper()} {value:.2f}" for name, value in bounds.items() if value is not None]
        lines["likelihood"] = f"{', '.join(told)} bits a row"
    if "written" in numbers:
        written = numbers["written"]
        lines["bits written"] = f"{written['total']:.2f} a row ({written['code']:.2f} the code), all rows"
        if not numbers.get("size", {}).get("model", 1):
            lines["bits written"] += "; without the model, which does not pay here"
    if "sparsity" in numbers:
        found = numbers["sparsity"]
        lines["codes"] = (
            f"score {numbers['codes_only']['score']:.3f}, {found['mean_nonzero']:.1f} latents on a row;"
            f" {found['active_units']:.0f} of {found['latents']} active (variance above 0.01),"
            f" {found['dead_latents']:.0f} constant"
        )
    return lines


def column_rows(numbers: Mapping[str, Any]) -> list[list[Any]]:
    """The columns, the dearest first: bits a row (as written, else by the model), score by codes, largest error."""
    bits: Mapping[str, float] = numbers.get("written", numbers["bits"])["columns"]
    alone = numbers.get("codes_only", {}).get("columns", {})
    restored = numbers.get("restored", {}).get("columns", {})
    return [
        [name, bits[name], alone.get(name, {}).get("score"), _error(restored.get(name, {}))]
        for name in sorted(bits, key=lambda name: -bits[name])
    ]


def _error(quality: Mapping[str, float | None]) -> str | None:
    """Of numbers the largest error; names that all came back have none either.

    >>> _error({"max_error": 0.25, "accuracy": None}), _error({"max_error": None, "accuracy": 1.0}), _error({})
    ('0.25', '0', None)
    """
    if quality.get("max_error") is not None:
        return f"{quality['max_error']:g}"
    return "0" if quality.get("accuracy") == 1 else None
