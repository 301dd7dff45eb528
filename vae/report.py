"""Figures of a training, its bits and its codes, drawn without a display or matplotlib's global state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from data.atomic import atomic_path
from data.stored import is_numeric, stored_numbers
from vae.metrics import alike, column_quality, plain

pc = cast(Any, _pc)

INK, MUTED, FAINT = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, ORANGE, TEAL, RED = "#2563eb", "#ea8a1a", "#0d9488", "#be3a5a"
BANDS = {"joint": "#ffffff", "settle": "#f3f6fb", "refit": "#f3f6fb", "quantise": "#fbf5ec"}
PARTS = {
    "bits": ("all", INK),
    "column_bits": ("columns, given the code", BLUE),
    "code_bits": ("code", ORANGE),
    "codes_only_bits": ("columns, from the code alone", TEAL),
}
MOST_BARS, MOST_PANELS, MOST_NAMES = 30, 6, 8
MOST_DAYS = 100_000
"""Days from 1970 (273 years) beyond which times are drawn as plain numbers."""


def save(figure: Figure, path: str | Path) -> Path:
    """Writes the figure as PNG, atomically."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        figure.savefig(file, format="png", dpi=150, facecolor="white")
    return Path(path)


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Training loss and validation bits over the steps, the phases as bands."""
    figure, (left, right) = _figure(1, 2, 10.5, 4.0, "Training")
    steps = [entry["step"] for entry in history]
    _lines(left, steps, {"training loss": [entry["loss"] for entry in history]}, {"training loss": BLUE})
    shown = {PARTS[key][0]: [entry[key] for entry in history] for key in PARTS if key in history[-1]}
    _lines(right, steps, shown, dict(PARTS.values()))
    for axes, title, unit in (
        (left, "Loss in training", "nats per row"),
        (right, "Bits on validation rows, hard codes", "bits per row"),
    ):
        _phases(axes, history)
        _title(axes, title)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    right.set_ylim(bottom=0)
    _legend(figure, right, "outside lower right")
    return figure


def bits_by_column(columns: Mapping[str, float], code: float | None = None, *, title: str = "") -> Figure:
    """Bits per row that each column costs, the dearest first, and the code's in another colour."""
    bars = [(name, bits, BLUE) for name, bits in columns.items()]
    if code is not None:
        bars.append(("sparse code", code, ORANGE))
    bars.sort(key=lambda bar: -bar[1])
    if len(bars) > MOST_BARS:
        rest = bars[MOST_BARS - 1 :]
        bars = [*bars[: MOST_BARS - 1], (f"{len(rest)} others", sum(bar[1] for bar in rest), MUTED)]
    total = sum(columns.values()) + (code or 0.0)
    figure, (axes,) = _figure(
        1, 1, 8.0, 1.5 + 0.26 * len(bars), title or f"{total:,.1f} bits per row, by column"
    )
    places = np.arange(len(bars))[::-1]
    widths = [bar[1] for bar in bars]
    axes.barh(places, widths, color=[bar[2] for bar in bars], height=0.72)
    axes.set_yticks(places, [_short(bar[0], 32) for bar in bars])
    reach = max([*widths, 1e-9])
    for place, width in zip(places, widths, strict=True):
        label = f"{width:,.2f}" if width < 100 else f"{width:,.0f}"
        axes.text(width + 0.012 * reach, float(place), label, va="center", fontsize=8.5, color=MUTED)
    axes.set_xlim(0, reach * 1.12)
    axes.set_ylim(-0.7, len(bars) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=FAINT)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("bits per row")
    return figure


def code_usage(codes: NDArray[Any]) -> Figure:
    """How often each latent is on, and how many are on in a row; codes [rows, latents]."""
    values = np.asarray(codes)
    rows, latents = max(len(values), 1), values.shape[1]
    positive, negative = (values > 0).sum(0) / rows, (values < 0).sum(0) / rows
    order = np.argsort(-(positive + negative), kind="stable")
    count = (values != 0).sum(1)
    mean = f"{count.mean():.1f}" if len(count) else "no"
    figure, (left, right) = _figure(1, 2, 10.5, 4.0, f"Sparse codes: {mean} of {latents} latents on per row")
    places = np.arange(latents)
    left.bar(places, positive[order], color=BLUE, width=0.8, label="above zero")
    left.bar(places, negative[order], bottom=positive[order], color=ORANGE, width=0.8, label="below zero")
    _title(left, "Share of rows on which a latent is on")
    left.set_xlabel("latent, the most used first")
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_ylim(0, max(float((positive + negative).max(initial=0)) * 1.08, 0.01))
    left.set_xlim(-0.7, latents - 0.3)
    if latents <= 40:  # more numbers than these would overlap
        left.set_xticks(places, [str(index) for index in order], fontsize=7.5 if latents > 20 else 8.5)
    _legend(figure, left, "outside upper right")
    shares = np.bincount(count, minlength=latents + 1) / rows
    last = int(np.max(np.nonzero(shares)[0], initial=0))
    right.bar(np.arange(last + 1), shares[: last + 1], color=TEAL, width=0.8)
    _title(right, "Latents that are on in a row")
    right.set_xlabel("non-zero latents")
    right.set_ylabel("share of rows")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlim(-0.7, max(last, 1) + 0.7)
    return figure


def originals_and_codes(original: pa.Table, restored: pa.Table, names: Sequence[str] | None = None) -> Figure:
    """Up to six columns as they were and as the code alone gives them back.

    Numbers are shown as a density over (original, from the code), categories by how often each name comes.
    """
    chosen = list(names or restored.column_names)[:MOST_PANELS]
    across = min(3, max(1, len(chosen)))
    down = -(-max(1, len(chosen)) // across)
    figure, panels = _figure(
        down, across, 3.9 * across, 3.5 * down + 0.5, "Original and rebuilt from the sparse code alone"
    )
    for axes, name in zip(panels, chosen, strict=False):
        quality = column_quality(original.column(name), restored.column(name))
        if is_numeric(original.schema.field(name).type):
            _number_panel(axes, name, original.column(name), restored.column(name), quality)
        else:
            _name_panel(axes, name, original.column(name), restored.column(name), quality)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    named = [axes for axes in panels if axes.get_legend_handles_labels()[0]]
    if named:
        _legend(figure, named[0], "outside upper right")
    return figure


def trade_off(points: Sequence[Mapping[str, Any]], what: str) -> Figure:
    """What trials scored against how many latents are on in a row, and against what the code says by itself.

    points: `score`, `mean_nonzero`, `code_score`, `latents`, `codes` and `width` of each trial.
    """
    figure, (left, right) = _figure(1, 2, 10.5, 4.2, f"Trials: {what}")
    score = [point["score"] for point in points]
    for axes, x, label in (
        (left, "mean_nonzero", "non-zero latents on a row"),
        (right, "code_score", "score of the code alone"),
    ):
        kinds = dict.fromkeys(point.get("codes", "") for point in points)
        for codes, color in zip(kinds, (BLUE, ORANGE, TEAL), strict=False):
            chosen = [point for point in points if point.get("codes", "") == codes]
            sizes = [20 + 6 * point["width"] for point in chosen]
            places = [point.get(x, 0.0) for point in chosen], [point["score"] for point in chosen]
            axes.scatter(*places, s=sizes, color=color, alpha=0.75, linewidths=0, label=codes or "trials")
            for point, *place in zip(chosen, *places, strict=True):
                axes.annotate(str(point["latents"]), tuple(place), (0, 0), textcoords="offset points", fontsize=7,
                              ha="center", va="center", color="white")  # fmt: skip
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter("{x:,.4g}" if max(score, default=0.0) < 100 else "{x:,.0f}")
    left.set_ylabel(what)
    _title(left, "One dot a trial: its latents, larger where wider")
    _legend(figure, left, "outside upper right")
    return figure


def _number_panel(
    axes: Axes, name: str, before: Any, after: Any, quality: Mapping[str, float | None]
) -> None:
    given, absent = stored_numbers(plain(before))
    back, lost = stored_numbers(alike(plain(after), before.type))
    x, y = given.astype(np.float64), back.astype(np.float64)
    kept = ~absent & ~lost & np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    r2 = quality["r2"]
    _title(axes, _short(name, 24), "constant" if r2 is None else f"R² {r2:.2f}")
    axes.set_xlabel("original")
    axes.set_ylabel("from the code")
    axes.grid(visible=False)
    if not len(x):
        return
    timed = pa.types.is_timestamp(before.type) or pa.types.is_date(before.type)
    if timed:
        x, y = _days(x, before.type), _days(y, before.type)
        timed = bool(np.abs(np.concatenate([x, y])).max() < MOST_DAYS)
    low, high = np.percentile(np.concatenate([x, y]), [0.1, 99.9])
    span = (high - low) or 1.0
    low, high = low - 0.03 * span, high + 0.03 * span
    counts, edges, _ = np.histogram2d(x, y, bins=60, range=[[low, high], [low, high]])
    shown = np.ma.masked_equal(counts.T, 0)
    axes.pcolormesh(
        edges, edges, shown, cmap="Blues", norm=LogNorm(0.3, max(2.0, counts.max())), rasterized=True
    )
    axes.plot([low, high], [low, high], color=ORANGE, linewidth=1.0, alpha=0.9)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    if timed:
        for axis in (axes.xaxis, axes.yaxis):
            locator = dates.AutoDateLocator(minticks=3, maxticks=7)
            axis.set_major_locator(locator)
            axis.set_major_formatter(dates.ConciseDateFormatter(locator))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _name_panel(axes: Axes, name: str, before: Any, after: Any, quality: Mapping[str, float | None]) -> None:
    shares, restored = _shares(before), _shares(after)
    top = sorted(shares, key=lambda key: -shares[key])[:MOST_NAMES]
    places = np.arange(len(top))[::-1]
    axes.barh(places + 0.2, [shares[key] for key in top], height=0.38, color=BLUE, label="original")
    axes.barh(
        places - 0.2, [restored.get(key, 0.0) for key in top], height=0.38, color=TEAL, label="from the code"
    )
    axes.set_yticks(places, [_short(key, 12) for key in top])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=FAINT)
    axes.set_xlabel(
        "share of rows" if len(top) == len(shares) else f"share of rows, {len(top)} of {len(shares)} values"
    )
    accuracy = quality["accuracy"]
    _title(axes, _short(name, 24), "" if accuracy is None else f"accuracy {accuracy:.0%}")


def _shares(column: Any) -> dict[str, float]:
    """How often each value comes, nulls among them."""
    array = plain(column)
    if pa.types.is_nested(array.type):
        array = pa.array([repr(value) for value in array.to_pylist()])
    counts = pc.value_counts(array).to_pylist()
    return {
        "null" if item["values"] is None else str(item["values"]): item["counts"] / len(array)
        for item in counts
    }


def _days(values: NDArray[np.float64], kind: Any) -> NDArray[np.float64]:
    """Stored times as matplotlib's days since 1970."""
    if pa.types.is_date32(kind):
        return values
    if pa.types.is_date64(kind):
        return values / 86_400_000
    seconds = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
    return values / seconds / 86_400


def _figure(down: int, across: int, width: float, height: float, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
    cast(Any, figure.get_layout_engine()).set(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.05)
    panels: list[Axes] = [figure.add_subplot(down, across, index + 1) for index in range(down * across)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#9ca3af")
        axes.tick_params(colors=MUTED, labelsize=8.5)
        axes.xaxis.label.set(color=MUTED, fontsize=9)
        axes.yaxis.label.set(color=MUTED, fontsize=9)
        axes.grid(visible=True, axis="y", color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def _title(axes: Axes, text: str, note: str = "") -> None:
    axes.set_title(text, loc="left", fontsize=10, color=INK)
    if note:
        axes.set_title(note, loc="right", fontsize=9, color=MUTED)


def _legend(figure: Figure, axes: Axes, place: str) -> None:
    """One legend for the figure, beside the panels, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc=cast(Any, place), ncols=len(labels), fontsize=8.5, frameon=False, labelcolor=INK
    )


def _lines(
    axes: Axes, steps: Sequence[int], lines: Mapping[str, Sequence[float]], colors: Mapping[str, str]
) -> None:
    """Lines from the second entry on, so that the first steps do not squeeze the rest into a corner."""
    first = 1 if len(steps) > 4 else 0
    for label, values in lines.items():
        axes.plot(steps[first:], values[first:], color=colors[label], linewidth=1.8, label=label)


def _phases(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Bands behind the curves, each named at its top."""
    start = 0
    for name, run in itertools.groupby(history, lambda entry: str(entry["phase"])):
        stop = max(int(entry["step"]) for entry in run)
        axes.axvspan(start, stop, color=BANDS.get(name, "#ffffff"), zorder=0, linewidth=0)
        if start:
            axes.axvline(start, color=FAINT, linewidth=1.0, zorder=1)
        place = (start + (stop - start) / 2, 1.0)
        axes.annotate(name, place, (0, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
                      ha="center", va="top", fontsize=7.5, color=MUTED)  # fmt: skip
        start = stop
    axes.set_xlim(0, max(start, 1))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
