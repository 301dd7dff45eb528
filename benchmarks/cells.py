"""What a benchmark of `make bench-sparse` is, where its cells are kept, and the table of them.

A cell is a JSON file under `benchmarks/results/sparse/`, keyed by the modules that it names as its sources, its
settings and its seed; comments and docstrings do not count.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import archive, show
from benchmarks.sources import digest
from data.atomic import atomic_path
from flows.cache import key_of

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "results" / "sparse"
Facts = Mapping[str, Any]
"""What a cell holds."""


class Case(NamedTuple):
    """One row of the table."""

    settings: Mapping[str, Any]
    """All that is set, as JSON can hold it: part of the key."""
    reach: str
    """What it is to reach, as the table says it."""
    tell: Callable[[Facts], str]
    """What came out, as the table says it."""
    spread: str = ""
    """The fact that differs between seeds; without it each seed has a row of its own."""


class Benchmark(NamedTuple):
    """Cases that are measured in one way, each with one seed."""

    title: str
    published: str
    sources: Sequence[str]
    """Files that figures depend on, from the project's root."""
    cases: Mapping[str, Case]
    measure: Callable[[str, int], dict[str, Any]]
    """Facts of a case with a seed; `SourceError` where its data is not installed."""
    alone: bool = False
    """Whether it looks at the clock, and is measured where it is asked for by name only."""
    tools: Sequence[str] = ("torch", "scikit-learn", "lightning")
    """Packages whose versions figures depend on."""
    seeds: Sequence[int] = (0,)
    """Those that are measured where no others are asked for."""


def path_of(name: str, case: str, seed: int) -> Path:
    """Where a cell is kept."""
    return FOLDER / f"{name}-{case}-{seed}.json"


def key_for(benchmark: Benchmark, case: str, seed: int) -> str:
    """What a cell depends on: its sources, settings, seed and the versions of what it uses."""
    tools = {name: _version(name) for name in benchmark.tools}
    content = {"case": case, "settings": benchmark.cases[case].settings, "seed": seed, "versions": tools}
    return key_of("sparse", content, sources=digest(benchmark.sources))


def _version(name: str) -> str | None:
    """Of a package; None where it is not installed, so that cells made elsewhere can be told apart, not made."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def measure(name: str, benchmark: Benchmark, case: str, seed: int, *, fresh: bool = False) -> Facts:
    """A cell: the one on disk if it is of these sources, settings and seed, else a new one."""
    path, key = path_of(name, case, seed), key_for(benchmark, case, seed)
    if not fresh and path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known
    began = time.perf_counter()
    content = {
        "key": key,
        **archive.where(),
        "benchmark": name,
        "case": case,
        "seed": seed,
        "settings": dict(benchmark.cases[case].settings),
        **benchmark.measure(case, seed),
    }
    if key_for(benchmark, case, seed) != key:
        raise SystemExit(f"{path.stem}: sources were edited while it was measured; nothing is kept of it")
    with atomic_path(path) as kept:
        kept.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{path.stem}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return content


def table(benchmarks: Mapping[str, Benchmark]) -> str:
    """All cells as Markdown, those that are not measured as well; of several seeds the mean."""
    lines = ["| benchmark | case | found | to reach | published | commit |", "|---|---|---|---|---|---|"]
    for name, benchmark in benchmarks.items():
        title, published = benchmark.title, benchmark.published
        for case, what in benchmark.cases.items():
            for row in rows_of(what, cells_of(name, case)):
                found, at = told(what, row), show.commits(row)
                lines.append(f"| {title} | `{case}` | {found} | {what.reach} | {published} | {at} |")
                title = published = ""  # said once
    known = [cell for name, one in benchmarks.items() for case in one.cases for cell in cells_of(name, case)]
    return "\n".join([*lines, "", show.measured(known, "make bench-sparse")]) + "\n"


def rows_of(case: Case, known: Sequence[Facts]) -> list[Sequence[Facts]]:
    """Cells of a case that share a row of the table; without any a row that says so."""
    return [known] if case.spread or not known else [[facts] for facts in known]


def told(case: Case, row: Sequence[Facts]) -> str:
    """What the table says of a row: what came out, of several seeds as a mean."""
    if not row:
        return "not measured yet"
    if len(row) == 1:
        return case.tell(row[0])
    figures = ", ".join(f"{facts[case.spread]:.3f}".rstrip("0").rstrip(".") for facts in row)
    return f"{case.tell(mean(row))} (mean of {len(row)} seeds: {figures})"


def outdated(benchmarks: Mapping[str, Benchmark]) -> str:
    """Which cells the sources, settings and versions that are here have left behind."""
    known = [
        (path_of(name, case, cell["seed"]).stem, cell["key"] == key_for(benchmark, case, cell["seed"]))
        for name, benchmark in benchmarks.items()
        for case in benchmark.cases
        for cell in cells_of(name, case)
    ]
    return show.told_outdated([name for name, current in known if not current], len(known))


def mean(cells: Sequence[Facts]) -> Facts:
    """Numbers of cells, averaged; all else as in the first.

    >>> mean([{"bits": 1.0, "commit": "a", "score": None}, {"bits": 2.0, "commit": "b", "score": None}])
    {'bits': 1.5, 'commit': 'a', 'score': None}
    """
    known = {name: [cell[name] for cell in cells] for name in cells[0]}
    return {
        name: statistics.fmean(all_) if all(type(value) in (int, float) for value in all_) else all_[0]
        for name, all_ in known.items()
    }


def cells_of(name: str, case: str) -> list[Facts]:
    """The cells that there are of a case, by seed."""
    begin = f"{name}-{case}-"
    found = (path for path in FOLDER.glob(f"{begin}*.json") if path.stem.removeprefix(begin).isdecimal())
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(found)]
