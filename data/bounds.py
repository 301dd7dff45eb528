"""Error bounds: how users write them, and what they mean for a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from pydantic import Field

from data.errors import BoundError
from data.kinds import Frozen, Kind, listed

if TYPE_CHECKING:
    from data.schema import Column, ColumnStats, Schema

BOUND_DISTINCT = 64
"""`*=...` bounds integer columns with more distinct values than this."""
OWN_BOUNDS = "model"
"""What is written for the bounds that a model was trained for."""
GREYS = 255
"""The range of an image's grey levels."""
MAX_WHOLE = 1 << 62
"""Wider bounds of integers are all the same: none that large is on a grid."""


class Bound(Frozen):
    """An allowed error: absolute in the column's unit, or a share of the column's finite range."""

    width: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Largest allowed |x - restored|; 0 is exact. A relative width is a fraction: 1% is 0.01."""
    relative: bool = False
    """Whether `width` is a fraction of (max - min) over the column's finite values."""

    def __str__(self) -> str:
        """As users write it: the shortest spelling that is read back as this very bound."""
        scale, unit = (100, "%") if self.relative else (1, "")
        spellings = (f"{scale * self.width:.{digits}g}" for digits in range(12, 18))
        return (
            next((text for text in spellings if float(text) / scale == self.width), repr(scale * self.width))
            + unit
        )


def parse_bound(text: str) -> Bound:
    """An error bound as users write it.

    >>> parse_bound("1%")
    Bound(width=0.01, relative=True)

    Raises:
        BoundError: Not a number, negative, NaN or infinite.
    """
    stripped = text.strip()
    relative = stripped.endswith("%")
    try:
        width = float(stripped.removesuffix("%"))
    except ValueError:
        width = float("nan")
    if not 0 <= width < float("inf"):
        raise BoundError(
            f"bound {text!r}: must be a finite number >= 0, such as 0.5 (the column's unit) or 1% (of its range)"
        )
    return Bound(width=width / 100 if relative else width, relative=relative)


def parse_spec(spec: str) -> tuple[str, Bound]:
    """Column, or `*`, and bound of `NAME=BOUND`; BoundError if it is not of this form.

    >>> parse_spec("air_time=1%")
    ('air_time', Bound(width=0.01, relative=True))
    """
    name, equals, text = spec.rpartition("=")
    if not equals:
        raise BoundError(
            f"bound {spec!r}: must read COLUMN=WIDTH, such as 'dep_delay=5', 'air_time=1%' or '*=0.5%'"
        )
    try:
        return name, parse_bound(text)
    except BoundError as error:
        raise BoundError(f"{error} (in {spec!r})") from error


def resolve_bounds(
    specs: Sequence[str], schema: Schema, stats: Mapping[str, ColumnStats]
) -> dict[str, float]:
    """Absolute widths of the columns that may lose precision: the schema's own bounds, then `specs`, later ones win.

    Args:
        specs: `NAME=BOUND` or `*=BOUND`; the star means floats, and integers with more than 64 distinct values.
        schema: Names, kinds and own bounds of the columns.
        stats: Statistics of the table, for percentages and for the star.

    Raises:
        BoundError: A bound that cannot be meant, an unknown column, or one that is not numeric.
    """
    wanted = _wanted(specs, schema, stats)
    widths = {name: _absolute(schema.column(name), bound, stats[name]) for name, bound in wanted.items()}
    return {name: width for name, width in widths.items() if width > 0}


def written_bounds(specs: Sequence[str], schema: Schema, stats: Mapping[str, ColumnStats]) -> tuple[str, ...]:
    """The bounds that hold, as `NAME=BOUND` by name, however they were asked for; errors as in `resolve_bounds`."""
    return tuple(f"{name}={bound}" for name, bound in sorted(_wanted(specs, schema, stats).items()))


def _wanted(specs: Sequence[str], schema: Schema, stats: Mapping[str, ColumnStats]) -> dict[str, Bound]:
    """The bounds that hold, by column; shares of a range are still shares."""
    wanted = {column.name: parse_bound(column.bound) for column in schema.columns if column.bound is not None}
    for spec in specs:
        name, bound = parse_spec(spec)
        if name == "*":
            wanted.update(
                {column.name: bound for column in schema.columns if _is_starred(column, stats[column.name])}
            )
        elif name in schema.names:
            wanted[name] = bound
        else:
            raise BoundError(f"bound {spec!r}: there is no column {name!r}; {listed(schema.names)}")
    return {name: bound for name, bound in wanted.items() if bound.width > 0}


def effective_bound(width: float, kind: pa.DataType) -> float:
    """What is left of a width on a column's grid: integers and times, which stay whole, can differ by whole steps only.

    >>> effective_bound(1.7, pa.float64()), effective_bound(1.7, pa.int16()), effective_bound(0.5, pa.timestamp("s"))
    (1.7, 1.0, 0.0)
    """
    return float(width) if pa.types.is_floating(kind) else float(math.floor(min(width, MAX_WHOLE)))


def kept_exact(widths: Mapping[str, float], schema: Schema) -> list[str]:
    """What to tell whoever set bounds that allow no error at all; a line for whole numbers, and one for timestamps."""
    idle = [n for n, width in widths.items() if width > 0 == effective_bound(width, schema.column(n).type)]
    times = [name for name in idle if schema.column(name).kind is Kind.timestamp]
    numbers = [name for name in idle if name not in times]
    lines: list[str] = []
    for names, what in ((numbers, "whole numbers"), (times, "timestamps")):
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            unit = " of their unit" if names is times else ""
            lines.append(
                f"bound {widths[names[0]]:g} for column {names[0]!r}{more}: {what} are kept exact below 1{unit}"
            )
    return lines


def is_image_type(kind: pa.DataType) -> bool:
    """Whether values of this type may be images, which take a bound in grey levels: arrays of bytes."""
    return pa.types.is_fixed_size_list(kind) and pa.types.is_uint8(cast(Any, kind).value_type)


def _is_starred(column: Column, stats: ColumnStats) -> bool:
    many = stats.distinct is None or stats.distinct > BOUND_DISTINCT
    return column.kind is Kind.numeric or (column.kind is Kind.integer and many)


def _absolute(column: Column, bound: Bound, stats: ColumnStats) -> float:
    """The width in the column's unit; BoundError for a column whose values have no distance."""
    if bound.width == 0:
        return 0.0
    if is_image_type(column.type):
        return bound.width * GREYS if bound.relative else bound.width
    if column.kind not in (Kind.numeric, Kind.integer, Kind.timestamp):
        raise BoundError(
            f"column {column.name!r} is {column.kind.value}: only numbers, timestamps and images take a bound; "
            "leave it exact"
        )
    if not bound.relative:
        return bound.width
    if not isinstance(stats.min, int | float) or not isinstance(stats.max, int | float):
        return 0.0  # No finite value, no range.
    width = bound.width * (float(stats.max) - float(stats.min))
    if width == float("inf"):
        raise BoundError(
            f"column {column.name!r}: its range is too wide for a percentage; give an absolute bound"
        )
    return width
