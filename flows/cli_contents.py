"""What `svae compress` and `svae inspect` say of an archive to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from flows.console import key_values, table

CODERS = {
    "neural": "by the model",
    "derived": "from other columns",
    "rival": "by the general coder that is smallest",
}
"""What a column's coder is called, and what that means."""
MOST_COLUMNS = 40
"""Columns that are shown after some long work; of more, those that take most."""


def show_report(console: Console, report: Mapping[str, Any], most: int | None = None) -> None:
    """What a report says, of `most` columns at most, those of most bits."""
    parts = report["bytes"]
    key_values(
        console,
        {
            "rows x columns": f"{report['rows']:,} x {report['columns']:,}",
            "source": f"{report['source_bytes']:,} bytes",
            "archive": f"{report['archive_bytes']:,} bytes, {report['ratio']:.2f} to 1",
            "of these": ", ".join(f"{name} {size:,}" for name, size in parts.items()),
            "codes": _codes_line(report["codes_summary"]),
            "seconds": ", ".join(
                f"{name} {value:.1f}" for name, value in report["seconds"].items() if value > 0
            ),
        },
    )
    if report["rivals"]:
        sizes = ", ".join(f"{name} {size:,}" for name, size in report["rivals"].items() if size is not None)
        key_values(console, {"rivals": sizes})
    console.print()
    columns = ["column", "kind", "coder", "bits/row", "bound", "max error"]
    shown = report["per_column"]
    if most is not None and len(shown) > most:
        shown = sorted(shown, key=lambda c: -c["bits_per_value"])[:most]
    rows = [
        [
            c["name"],
            c["kind"],
            c["coder"],
            float(c["bits_per_value"]),
            f"{c['bound']:g}",
            f"{c['max_error']:g}",
        ]
        for c in shown
    ]
    table(console, columns, rows)
    if left := len(report["per_column"]) - len(shown):
        console.print(f"and {left:,} columns of fewer bits; svae inspect shows all")
    used = {c["coder"] for c in report["per_column"]}
    told = "; ".join(f"{name}: {what}" for name, what in CODERS.items() if name in used)
    console.print(f"\ncoder {told}")


def _codes_line(codes: Mapping[str, Any]) -> str:
    """What the code costs and, where it is known, what it is worth.

    >>> codes = {"latents": 16, "family": "quantized", "mean_nonzero": 6.61, "bits_per_row": 9.4, "score": None}
    >>> _codes_line(codes)
    '16 latents (quantized), 6.61 non-zero a row, 9.40 bits a row'
    >>> _codes_line({**codes, "score": 0.6, "score_rows": 32_768})
    '16 latents (quantized), 6.61 non-zero a row, 9.40 bits a row, score 0.600 on 32,768 held-out rows'
    """
    if not codes["latents"]:
        return "none"
    told = (
        f"{codes['latents']} latents ({codes['family']}), {codes['mean_nonzero']:.2f} non-zero a row,"
        f" {codes['bits_per_row']:.2f} bits a row"
    )
    if codes["score"] is None:
        return told
    return f"{told}, score {codes['score']:.3f} on {codes['score_rows']:,} held-out rows"
