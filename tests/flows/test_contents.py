"""What is said of an archive: all of its columns, or of very many those that matter."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from flows.cli_contents import MOST_COLUMNS, show_report
from flows.cli_evaluation import show_evaluation


def report(columns: int) -> dict[str, Any]:
    """Of columns that take as many bits as their place says."""
    own = {"kind": "integer", "coder": "neural", "bound": 0.0, "max_error": 0.0}
    return {
        "rows": 9, "columns": columns, "source_bytes": 90, "archive_bytes": 30, "ratio": 3.0, "rivals": {},
        "bytes": {"model": 10, "columns": 20}, "codes_summary": {"latents": 0}, "seconds": {"encode": 1.0},
        "per_column": [{"name": f"c{k}", "bits_per_value": float(k), **own} for k in range(columns)],
    }  # fmt: skip


def evaluation(columns: int) -> dict[str, Any]:
    bits = {f"c{k}": float(k) for k in range(columns)}
    return {
        "rows": {"evaluated": 9, "held_out": 9},
        "bits": {"total": 1.0, "code": 0.0, "columns": bits},
        "likelihood": {},
    }


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("c") and line[1:2].isdigit()]


@pytest.mark.parametrize("kind", ["archive", "evaluation"])
def test_of_very_many_columns_the_dearest_are_shown(kind: str) -> None:
    for columns in (MOST_COLUMNS, MOST_COLUMNS + 7):
        told = StringIO()
        console = Console(file=told, width=120)
        if kind == "archive":
            show_report(console, report(columns), MOST_COLUMNS)
        else:
            show_evaluation(console, evaluation(columns))
        text = told.getvalue()
        dearest = [f"c{k}" for k in range(columns)][-MOST_COLUMNS:]
        as_in_table = kind == "archive" and columns == MOST_COLUMNS
        assert names(text) == (dearest if as_in_table else dearest[::-1])
        assert ("and 7 columns of fewer bits" in text) == (columns > MOST_COLUMNS)


def test_all_columns_are_shown_to_whoever_asks_for_them() -> None:
    told = StringIO()
    show_report(Console(file=told, width=120), report(300))
    text = told.getvalue()
    assert names(text) == [f"c{k}" for k in range(300)]
    assert "of fewer bits" not in text
