"""The rate-distortion curve: bits a row within several bounds, an archive's and general tools'."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.bounds import GREYS, resolve_bounds
from data.largetable import AnyTable
from data.schema import ColumnStats, Schema
from vae import pipeline
from vae.charts import BLUE, INK, ORANGE, RED, TEAL, Line, figure, line_chart
from vae.codec.summary import ArchiveReport
from vae.mosaic import columns_of_images
from vae.sections import RIVALS, Section, Table
from vae.settings import Effort, ModelSettings, TrainSettings
from vae.store import TrainedModel

SHARES = (0.0, 0.001, 0.005, 0.01, 0.05, 0.1)
"""Bounds, as shares of a column's range."""
GREY_SHARES = tuple(levels / GREYS for levels in (0, 1, 2, 4, 8, 16))
"""Bounds of images, whose grey levels are whole."""
OURS, GIVEN = "archive", "as given"
TOOLS = ("pcodec", "parquet_zstd19", "parquet_brotli11")
LOOKS = {
    OURS: (BLUE, ""),
    "pcodec": (ORANGE, "7 3"),
    "parquet_zstd19": (TEAL, "2 4"),
    "parquet_brotli11": (RED, "9 3 2 3"),
}
WRITING = {"encode": (0.7, 0.8), "rivals": (0.8, 0.95), "verify": (0.95, 1.0)}
"""Shares of a point's time at which phases after its training begin and end."""

Advance = Callable[[float, str], None]
"""Takes the share done, 0 to 1, and a few words."""


class Point(NamedTuple):
    """What a row takes within a bound."""

    share: float
    """The bound of images, or else of numbers, as a share of their range; where they differ, the mean."""
    bits: Mapping[str, float]
    """Bits a row of `archive`, the model included, and of the tools that can hold the table."""


class Curve(NamedTuple):
    """Points over bounds, and the one of what the page is of."""

    points: Sequence[Point]
    given: Point | None = None
    images: bool = False
    """Whether bounds are those of images, which are said in grey levels."""


def images_of(schema: Schema) -> list[str]:
    """Columns that hold images."""
    return columns_of_images(schema.to_arrow().empty_table())


def measure(
    table: AnyTable,
    schema: Schema,
    stats: Mapping[str, ColumnStats],
    *,
    shares: Sequence[float] | None = None,
    model: ModelSettings | None = None,
    training: TrainSettings | None = None,
    on_progress: Advance | None = None,
) -> list[Point]:
    """A point a bound: an archive whose model is trained for it, by default with effort `fast`, and the tools' files of
    the same grid. Nothing of it is kept. Without `shares`, bounds are those of `shares_of`.
    """
    points: list[Point] = []
    images = images_of(schema)
    shares = shares_of(schema) if shares is None else shares
    for done, share in enumerate(shares):

        def told(event: Mapping[str, Any], done: int = done, share: float = share) -> None:
            if on_progress is not None and event.get("steps"):
                start, stop = WRITING.get(event["phase"], (0.0, 0.7))
                part = start + (stop - start) * event["step"] / event["steps"]
                on_progress(
                    (done + part) / len(shares),
                    f"curve, bound {said(share, images=bool(images))}: {event['phase']}",
                )

        with tempfile.TemporaryDirectory(prefix="svae-") as scratch:
            report = pipeline.compress(
                table,
                Path(scratch) / "curve.svae",
                bounds=resolve_bounds(_specs(share, images), schema, stats),
                settings=model,
                training=training or TrainSettings(effort=Effort.fast),
                rivals=True,
                on_progress=told,
            )
        points.append(point_of(report, share))
    return points


def can_be_bounded(schema: Schema, stats: Mapping[str, ColumnStats]) -> bool:
    """Whether there is a column that a curve bounds."""
    return bool(resolve_bounds(_specs(1.0, images_of(schema)), schema, stats))


def shares_of(schema: Schema) -> Sequence[float]:
    """Bounds of a curve, as shares of a range."""
    return GREY_SHARES if images_of(schema) else SHARES


def point_of_archive(report: ArchiveReport, schema: Schema, stats: Mapping[str, ColumnStats]) -> Point:
    """An archive as a point, at the mean of its bounds."""
    bounds = {column.name: column.bound for column in report.per_column}
    return point_of(report, mean_share(bounds, schema, stats))


def point_of(report: ArchiveReport, share: float) -> Point:
    """An archive as a point."""
    sizes = {OURS: report.archive_bytes}
    rivals = report.rivals.model_dump() if report.rivals else {}
    sizes |= {name: rivals[name] for name in TOOLS if rivals.get(name)}
    return Point(share, {name: 8 * size / max(1, report.rows) for name, size in sizes.items()})


def point_of_model(
    trained: TrainedModel, table: AnyTable, schema: Schema, stats: Mapping[str, ColumnStats]
) -> Point:
    """The point of what a trained model makes of the table, within its own bounds."""
    with tempfile.TemporaryDirectory(prefix="svae-") as scratch:
        report = pipeline.compress(table, Path(scratch) / "given.svae", model=trained)
    return point_of(report, mean_share(pipeline.own_bounds(trained), schema, stats))


def mean_share(bounds: Mapping[str, float], schema: Schema, stats: Mapping[str, ColumnStats]) -> float:
    """Bounds in their columns' units as one share of a range: the mean over the columns that a curve bounds."""
    ranges = resolve_bounds(_specs(1.0, images_of(schema)), schema, stats)
    return (
        float(np.mean([bounds.get(name, 0.0) / width for name, width in ranges.items()])) if ranges else 0.0
    )


def _specs(share: float, images: Sequence[str]) -> list[str]:
    """Bounds of all columns that a curve bounds: images, or where there are none numbers."""
    return [f"{name}={100 * share!r}%" for name in images or ["*"]]


def said(share: float, *, images: bool = False) -> str:
    """A bound as a person says it, of images in grey levels.

    >>> said(0.0), said(0.001), said(0.1), said(0.0123456), said(4 / 255, images=True)
    ('exact', '0.1%', '10%', '1.23%', '4')
    """
    if not share:
        return "exact"
    return f"{GREYS * share:.3g}" if images else f"{100 * share:.3g}%"


def rows_of(curve: Curve) -> list[dict[str, Any]]:
    """The points as JSON has them: `bound` as a share of the range, and bits a row by tool."""
    given = [{"bound": curve.given.share, "given": True, **curve.given.bits}] if curve.given else []
    return [{"bound": point.share, "given": False, **point.bits} for point in curve.points] + given


def curve_section(curve: Curve | None, by: str = "") -> list[Section]:
    """The curve as the page shows it: a chart, and the same figures as a table; or by which command it is had."""
    title = "Size by the error allowed"
    if curve is None:
        how = "Not measured yet. Models trained for a short time, for bounds from exact to wide, show it:"
        return [Section(title, [f"{how} {by}"])] if by else []
    may = "Every value of an image may be off by so many grey levels" if curve.images else (
        "Every column of numbers may be off by so much of its range"
    )  # fmt: skip
    words = [
        f"{may}, all others are exact. Each point of the archive is one of its own, its model trained for this bound, "
        "for a short time, and counted. The other tools are given the values on the same grid."
    ]
    if curve.given:
        words.append(f"“{GIVEN.capitalize()}” is what this page is of, at the mean of its bounds.")
    names = [name for name in (OURS, *TOOLS) if any(name in point.bits for point in curve.points)]
    heads = ("bound", *(_words(name) for name in names), "archive over the best other")
    rows = [_cells(said(point.share, images=curve.images), point, names) for point in curve.points]
    if curve.given:
        rows.append(_cells(f"{said(curve.given.share, images=curve.images)}, {GIVEN}", curve.given, names))
    ours = [len(curve.points)] if curve.given else []
    table = Table("Bits a row", heads, rows, range(1, len(heads)), (), ours)
    return [Section(title, words, [table], [_chart(curve, names)])]


def _words(name: str) -> str:
    return RIVALS.get(name, name)


def _cells(head: str, point: Point, names: Sequence[str]) -> Sequence[str]:
    others = [point.bits[name] for name in names if name in point.bits and name != OURS]
    ratio = f"{point.bits[OURS] / min(others):.2f}" if others else ""
    return head, *(f"{point.bits[name]:.1f}" if name in point.bits else "" for name in names), ratio


def _chart(curve: Curve, names: Sequence[str]) -> Any:
    shares = [point.share for point in curve.points]
    lines: list[Line] = []
    for name in names:
        bits = [point.bits.get(name, np.nan) for point in curve.points]
        lines.append(Line(_words(name), range(len(shares)), bits, *LOOKS[name], dots=True))
    if curve.given:
        place = float(np.interp(curve.given.share, shares, range(len(shares))))
        lines.append(Line(GIVEN, [place], [curve.given.bits[OURS]], INK, dots=True))
    ticks = [(float(k), said(share, images=curve.images)) for k, share in enumerate(shares)]
    first, last = (curve.points[k].bits[OURS] for k in (0, -1))
    alt = (
        f"Lines of the bits a row over the bound: the archive from {first:.1f} ({ticks[0][1]}) to {last:.1f} "
        f"({ticks[-1][1]}); all figures are in the table."
    )
    error = "largest error, grey levels" if curve.images else "largest error, of the range"
    svg = line_chart(lines, error, "bits a row", ticks=ticks, zero=True)
    return figure(svg, alt, "Bits a row over the bound")
