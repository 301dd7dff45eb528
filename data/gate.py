"""The gate before training: is this still the data that the model knows?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from data.errors import GateError
from data.manifest import Manifest
from data.schema import Column, ColumnStats, Frozen, Kind, Schema


class DataGate(Frozen):
    """What new data may differ in from the data that the registered model was trained on."""

    min_rows: int = Field(default=1, ge=1)
    """Fewest rows worth training on."""
    max_null_rise: float = Field(default=0.05, ge=0, le=1)
    """Largest rise of a column's null share: 0.05 lets 2% become 7%."""
    range_slack: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """How far values may leave the known range, as a share of its width (of its value, where that is one point)."""
    max_new_categories: float = Field(default=0.2, ge=0, le=1)
    """Largest share of a column's categories that may be new."""
    allow_added_columns: bool = False
    """Whether columns that the model does not know may be there."""


class Finding(NamedTuple):
    """One check of one column."""

    column: str
    """Name; empty for the table as a whole."""
    check: str
    """What was looked at."""
    value: str
    """What the data shows."""
    limit: str
    """What was allowed."""
    passed: bool
    """Whether value lies within limit."""


def check(new: Manifest, reference: Manifest | Schema | None, settings: DataGate) -> list[Finding]:
    """All checks, passed and failed, in column order.

    Args:
        new: The dataset that asks to be trained on.
        reference: What the registered model was trained on, or its schema alone (then only the schema is compared);
            None where there is no model yet.
        settings: The limits.
    """
    findings = [
        Finding(
            "",
            "rows",
            f"{new.rows:,}",
            f"at least {settings.min_rows:,} (min_rows)",
            new.rows >= settings.min_rows,
        )
    ]
    if reference is None:
        return findings
    schema = reference.schema if isinstance(reference, Manifest) else reference
    findings += _check_schema(new.schema, schema, settings)
    if isinstance(reference, Manifest):
        for column in schema.columns:
            if column.name in new.columns and column.name in reference.columns:
                findings += _check_values(column, new, reference, settings)
    return findings


def require(findings: Sequence[Finding]) -> None:
    """Nothing if all passed.

    Raises:
        GateError: Names each failed check in one line.
    """
    failed = [finding for finding in findings if not finding.passed]
    if failed:
        told = "; ".join(
            f"{f.column or 'table'}: {f.check} is {f.value}, allowed is {f.limit}" for f in failed
        )
        raise GateError(
            f"the data did not pass its gate: {told}; mend the data, or widen the gate's settings if this is right"
        )


def _check_schema(new: Schema, known: Schema, settings: DataGate) -> list[Finding]:
    findings: list[Finding] = []
    for column in known.columns:
        expected = f"{column.kind.value} ({column.arrow})"
        if column.name not in new.names:
            findings.append(Finding(column.name, "type", "missing", expected, passed=False))
            continue
        found = new.column(column.name)
        same = (found.kind, found.type) == (column.kind, column.type)
        findings.append(Finding(column.name, "type", f"{found.kind.value} ({found.arrow})", expected, same))
    for name in new.names:
        if name not in known.names:
            limit = "any" if settings.allow_added_columns else "no new column (allow_added_columns)"
            findings.append(Finding(name, "type", "added", limit, settings.allow_added_columns))
    return findings


def _check_values(column: Column, new: Manifest, known: Manifest, settings: DataGate) -> list[Finding]:
    now, then = new.columns[column.name], known.columns[column.name]
    before, share = then.nulls / known.rows, now.nulls / new.rows
    limit = before + settings.max_null_rise
    findings = [
        Finding(
            column.name,
            "null share",
            f"{share:.2%}",
            f"at most {min(limit, 1.0):.2%} ({before:.2%} before, max_null_rise {settings.max_null_rise:g})",
            share <= limit,
        )
    ]
    if column.kind in (Kind.numeric, Kind.integer):
        findings += _check_range(column.name, now, then, settings.range_slack)
    if now.categories is not None and then.categories is not None:
        findings.append(
            _check_categories(column.name, now.categories, then.categories, settings.max_new_categories)
        )
    return findings


def _check_range(name: str, now: ColumnStats, then: ColumnStats, slack: float) -> list[Finding]:
    """Timestamps are not checked so: time goes on."""
    extremes = (now.min, now.max, then.min, then.max)
    if not all(isinstance(value, int | float) for value in extremes):
        return []
    low, high, known_low, known_high = (float(value or 0) for value in extremes)
    width = known_high - known_low or max(abs(known_low), 1.0)
    allowed_low, allowed_high = known_low - slack * width, known_high + slack * width
    inside = allowed_low <= low and high <= allowed_high
    return [
        Finding(
            name,
            "range",
            f"{low:g} ... {high:g}",
            f"{allowed_low:g} ... {allowed_high:g} (range_slack {slack:g})",
            inside,
        )
    ]


def _check_categories(name: str, now: tuple[str, ...], then: tuple[str, ...], limit: float) -> Finding:
    fresh = sorted(set(now) - set(then))
    share = len(fresh) / max(len(now), 1)
    named = (
        f" ({', '.join(repr(value) for value in fresh[:3])}{', ...' if len(fresh) > 3 else ''})"
        if fresh
        else ""
    )
    return Finding(
        name,
        "new categories",
        f"{share:.1%}{named}",
        f"at most {limit:.1%} (max_new_categories)",
        share <= limit,
    )
