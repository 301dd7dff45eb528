"""The table and the chart of the archive benchmark, from the cells alone: nothing is measured here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.datasets import SETS
from data.atomic import atomic_path
from vae.settings import Codes

RESULTS = Path(__file__).parent / "results"
SPEED = RESULTS / "speed.json"
"""What `benchmarks.speed` measured, by set."""
CODES = (Codes.balanced, Codes.lean, Codes.none)
ORDER = (Codes.rich, *CODES)
Result = dict[str, Any]
"""A cell, as `benchmarks.archive` keeps it."""


class Row(NamedTuple):
    """Cells of one set, bound, code and effort that the same sources made, over their seeds."""

    dataset: str
    bound: str
    codes: str
    effort: str
    cells: list[Result]
    rival: tuple[str, int] | None
    """The best one's name and bytes."""
    plain: list[Result]
    """Cells without a code, of the same sources and seeds."""

    def mean(self, of: Callable[[Result], float]) -> float:
        """Mean over the seeds."""
        return statistics.mean(map(of, self.cells))

    @property
    def ratios(self) -> list[float]:
        """Bytes of each archive over the best rival's; none if that is not measured."""
        return [cell["bytes"] / self.rival[1] for cell in self.cells] if self.rival else []

    @property
    def score(self) -> float | None:
        """Of the code alone, on rows held out from training."""
        scores = [cell["code"].get("score") for cell in self.cells]
        return statistics.mean(scores) if scores and None not in scores else None

    @property
    def overhead(self) -> float | None:
        """Coded bytes (code and columns, without the model) over those of the same training without a code."""
        return _coded(self.cells) / _coded(self.plain) if self._comparable else None

    @property
    def tax(self) -> float | None:
        """Bytes added to those without a code, over bytes of the code."""
        if not self._comparable:
            return None
        return (_coded(self.cells) - _coded(self.plain)) / self.mean(lambda cell: cell["shares"]["codes"])

    @property
    def _comparable(self) -> bool:
        has_code = self.codes != Codes.none and any(cell["code"]["latents"] for cell in self.cells)
        return has_code and bool(self.plain)


def _coded(cells: Iterable[Result]) -> float:
    return statistics.mean(cell["shares"]["codes"] + cell["shares"]["columns"] for cell in cells)


# -------------------------------------------------------------------------------------------------------- reading


def results() -> list[Result]:
    """All cells that there are."""
    paths = sorted((RESULTS / "archive").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def rows_of(cells: list[Result]) -> list[Row]:
    """The rows of the table, in the order of sets, bounds and codes; cells of other sources have a row of their own."""
    best = {
        (r["dataset"], r["bound"]): min((size, name) for name, size in r["bytes"].items() if size is not None)
        for r in cells
        if r["codes"] is None
    }
    own = sorted((r for r in cells if r["codes"] is not None), key=_place)
    rows: list[Row] = []
    for (name, bound, codes, effort, sources), group in groupby(own, key=_kind):
        found = list(group)
        size, rival = best.get((name, bound), (0, ""))
        seeds = {cell["seed"] for cell in found}
        plain = [
            r for r in own if _kind(r) == (name, bound, Codes.none, effort, sources) and r["seed"] in seeds
        ]
        rows.append(
            Row(
                name, bound, codes, effort, found, (rival, size) if rival else None,
                plain if len(plain) == len(found) else [],
            )
        )  # fmt: skip
    return rows


def _kind(cell: Result) -> tuple[str, ...]:
    return tuple(cell[key] for key in ("dataset", "bound", "codes", "effort", "sources"))


def _place(cell: Result) -> tuple[Any, ...]:
    bound = 0.0 if cell["bound"] == "exact" else float(cell["bound"].rstrip("%"))
    order = (list(SETS).index(cell["dataset"]), bound, cell["effort"], ORDER.index(cell["codes"]))
    return (*order, cell["sources"], cell["seed"])


# -------------------------------------------------------------------------------------------------------- writing


def write() -> None:
    """The table and the chart, under `benchmarks/results/`."""
    with atomic_path(RESULTS / "archive.md") as path:
        path.write_text(page(), encoding="utf-8")
    with atomic_path(RESULTS / "archive.svg") as path:
        path.write_text(chart(rows_of(results())), encoding="utf-8")


def page() -> str:
    """All of `archive.md`."""
    return (
        "# Archives and their rivals\n\n"
        "Made by `make bench-archive`; each cell is a file in `archive/`.\n\n"
        f"![Bytes of the archive over those of the best rival](archive.svg)\n\n{table()}\n{rival_table()}"
    )


COLUMNS = (
    ("set", False), ("bound", False), ("best rival", True), ("codes", False), ("seeds", False), ("ratio", True),
    ("spread", True), ("archive", True), ("model", True), ("code", True), ("score", True), ("over none", True),
    ("tax", True), ("training", True), ("commit", False),
)  # fmt: skip
EXPLAINED = """\
*ratio*: bytes of the archive, the model included, over those of the best rival, mean over the seeds; *spread*: largest
less smallest. *archive*, *model*, *code*: bytes. *score*: of the code alone, on rows held out from training (R² of
numbers, accuracy above the majority share of categories). *over none*: bytes of code and columns over those of the same
training without a code; *tax*: what is added, over the bytes of the code. *training*: seconds.
"""


def table(cells: list[Result] | None = None) -> str:
    """What was measured, as Markdown."""
    rows = rows_of(results() if cells is None else cells)
    if not rows:
        return "No archive is measured yet.\n"
    lines = [
        "| " + " | ".join(name for name, _ in COLUMNS) + " |",
        "|" + "|".join("---:" if right else "---" for _, right in COLUMNS) + "|",
        *("| " + " | ".join(_cells(row)) + " |" for row in rows),
    ]
    own = [cell for row in rows for cell in row.cells]
    return "\n".join([*lines, "", EXPLAINED, measured(own, "make bench-archive"), ""])


def _cells(row: Row) -> list[str]:
    ratios = row.ratios
    effort = "" if row.effort == "standard" else f" ({row.effort})"
    return [
        row.dataset,
        row.bound,
        f"{row.rival[0]} {row.rival[1]:,}" if row.rival else "not measured",
        f"{row.codes}{effort}",
        ", ".join(str(cell["seed"]) for cell in row.cells),
        _number(statistics.mean(ratios), 3) if ratios else "",
        _number(max(ratios) - min(ratios), 3) if len(ratios) > 1 else "",
        *(f"{row.mean(of):,.0f}" for of in (_bytes, _share("model"), _share("codes"))),
        _number(row.score, 2),
        _number(row.overhead, 3),
        _number(row.tax, 3),
        f"{row.mean(lambda cell: cell['seconds']['train']):.0f}",
        commits(row.cells),
    ]


def _bytes(cell: Result) -> float:
    return cell["bytes"]


def _share(part: str) -> Callable[[Result], float]:
    return lambda cell: cell["shares"][part]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def commits(cells: Iterable[Mapping[str, Any]]) -> str:
    """Those that cells were measured at, as a row names them."""
    return ", ".join(dict.fromkeys(cell["commit"] for cell in cells))


def measured(cells: Iterable[Mapping[str, Any]], command: str) -> str:
    """When and on what cells were measured, and of which sources.

    No row is marked for being of older sources than those beside it: an edit of these would then change the README.
    """
    known = sorted(cells, key=lambda cell: cell["measured"])
    if not known:
        return "Nothing is measured yet."
    days = [known[place]["measured"][:10] for place in (0, -1)]
    when = " to ".join(dict.fromkeys(days))
    where = "; ".join(sorted({f"{cell['machine']}, {cell['software']}" for cell in known}))
    return (
        f"Measured {when} on {where}, at commits {commits(known)}: each row is of the sources at the commits that it "
        f"names, older than those beside this table where these were edited since; "
        f"`{command} BENCH_ARGS=--show` names the cells of older ones."
    )


def told_outdated(names: Sequence[str], known: int) -> str:
    """Which of the known cells are of other sources than those that are here."""
    listed = f": {'; '.join(names)}" if names else ""
    return f"{len(names)} of {known} cells are of other sources than these{listed}"


def rival_table(cells: list[Result] | None = None) -> str:
    """What each rival made, as Markdown; the best one in bold."""
    found = [r for r in (results() if cells is None else cells) if r["codes"] is None]
    if not found:
        return ""
    found.sort(key=lambda r: _place({**r, "codes": Codes.none}))
    names = list(found[0]["bytes"])
    lines = [
        "## Rivals",
        "",
        "Bytes by each rival in the smallest form of every column, masks, dictionaries and names counted; the smaller",
        "of the table as it is and with its one-hot groups merged.",
        "",
        "| set | bound | " + " | ".join(names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for r in found:
        least = min(size for size in r["bytes"].values() if size is not None)
        sizes = (r["bytes"][name] for name in names)
        told = ("" if s is None else f"**{s:,}**" if s == least else f"{s:,}" for s in sizes)
        lines.append(f"| {r['dataset']} | {r['bound']} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------- chart

COLOURS = {Codes.balanced: "#1f6f8b", Codes.lean: "#7fb3c8", Codes.none: "#b8b8b8"}
BAR, GAP, HEIGHT, LEFT, TOP, BOTTOM = 18, 16, 260, 44, 52, 48


def chart(rows: list[Row]) -> str:
    """Ratios as grouped bars, in SVG; standard effort, each row of the newest sources that it was measured with."""
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for row in sorted(rows, key=lambda row: max(cell["measured"] for cell in row.cells)):
        if row.ratios and row.effort == "standard" and row.codes in COLOURS:
            groups.setdefault((row.dataset, row.bound), {})[row.codes] = statistics.mean(row.ratios)
    kept = list(dict.fromkeys((row.dataset, row.bound) for row in rows if (row.dataset, row.bound) in groups))
    top = max([1.1, *(ratio for group in groups.values() for ratio in group.values())])
    span = len(COLOURS) * BAR + GAP
    width, base = max(420, LEFT + len(kept) * span + GAP), TOP + HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {base + BOTTOM}" width="{width}" '
        f'height="{base + BOTTOM}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{base + BOTTOM}" fill="white"/>',
        _text(LEFT, 16, "Bytes of the archive over those of the best rival (less is better)", size=13),
    ]
    for place, (codes, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{LEFT + place * 90}" y="26" width="11" height="11" fill="{colour}"/>')
        parts.append(_text(LEFT + place * 90 + 16, 36, codes))
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = base - HEIGHT * tick / top
        line = '#333" stroke-dasharray="5 3' if tick == 1 else "#ddd"
        parts.append(f'<line x1="{LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="{line}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:.1f}", anchor="end"))
    for place, (name, bound) in enumerate(kept):
        x = LEFT + GAP + place * span
        middle = x + len(COLOURS) * BAR / 2
        for bar, (codes, colour) in enumerate(COLOURS.items()):
            ratio = groups[name, bound].get(codes)
            if ratio is not None:
                y = base - HEIGHT * ratio / top
                left = x + bar * BAR
                parts.append(
                    f'<rect x="{left}" y="{y:.1f}" width="{BAR - 2}" height="{base - y:.1f}" fill="{colour}"/>'
                )
                label = f"{ratio:.2f}".removeprefix("0")
                parts.append(_text(left + BAR / 2 - 1, y - 3, label, anchor="middle", size=9))
        parts.append(_text(middle, base + 16, name, anchor="middle"))
        parts.append(_text(middle, base + 31, bound, anchor="middle"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, content: str, *, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:g}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">{content}</text>'
    )


# --------------------------------------------------------------------------------------------------------- speed


def speed_results() -> dict[str, Result]:
    """What is measured, by set."""
    return json.loads(SPEED.read_text(encoding="utf-8")) if SPEED.is_file() else {}


def speed_table() -> str:
    """Seconds of each tool, and how many times faster than `xz -9` in the same run they are.

    ValueError if nothing is measured.
    """
    found = speed_results()
    if not found:
        raise ValueError("no speed is measured: run make bench-speed")
    lines = [
        "| set | tool | bytes | writes in, s | xz writes in / that | reads in, s | xz reads in / that |"
        " xz writes in / that |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in found.items():
        unit = one["tools"]["xz -9"]
        lines += [
            f"| {name} | {tool} | {seen['bytes']:,.0f} | {seen['write']:.1f} | {unit['write'] / seen['write']:.1f} | "
            f"{seen['read']:.2f} | {unit['read'] / seen['read']:.2f} | {unit['write'] / seen['read']:.1f} |"
            for tool, seen in one["tools"].items()
        ]
    for name, one in found.items():
        cold, own = one["compilation"], one["tools"]["svae"]
        cores = " and ".join(f"{own[f'{what}_processor'] / own[what]:.1f}" for what in ("write", "read"))
        lines += [
            "",
            f"{name}: {one['rows']:,} rows, exact, {one['csv_bytes'] / 1e6:.1f} MB as CSV; svae with a trained model "
            f"(effort `{one['effort']}`) on all cores ({cores} of them at work, writing and reading), from an Arrow "
            "table to an Arrow table, what it writes read back and compared; the others on one core. Machine code is "
            f"kept from call to call; the first takes {cold['read']:.0f} s more to read, then images "
            f"{cold['images']:.0f} s, and to write {cold['write']:.0f} s more. Measured {one['measured'][:10]} on "
            f"{one['machine']}, {one['software']}, commit {one['commit']}.",
        ]
    return "\n".join(lines) + "\n"
