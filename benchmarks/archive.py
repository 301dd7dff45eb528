"""Archives of real tables, and what their rivals make of the same tables within the same bounds: `make bench-archive`.

Each cell is a JSON file under `benchmarks/results/archive/`, keyed by what was measured, the sources, the settings and
the seed, so that an interrupted run goes on where it was. The sources are `data/` and what of `vae/` makes archives of
tables; comments and docstrings do not count. Cells of the rivals know only the rivals' own sources and the grid: other
changes to `data/` and `vae/` leave them as they are, as long as they change neither tables nor bounds::

    python -m benchmarks.archive --sets flights covertype --codes balanced none --seeds 0 1 2
    python -m benchmarks.archive --codes        # the rivals alone
    python -m benchmarks.archive --fresh        # measures everything anew
    python -m benchmarks.archive --show         # measures nothing: table, chart and README from what is there

A table and a chart of all cells are written to `benchmarks/results/`, and the table into the README.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import data
from benchmarks import datasets, readme, rivals, show
from benchmarks.sources import IMAGES, TOLD, digest, reached
from data.atomic import atomic_path
from data.bounds import resolve_bounds
from data.errors import SourceError
from data.statistics import table_stats
from flows.cache import key_of
from vae import pipeline
from vae.settings import Codes, Effort, ModelSettings, TrainSettings

HERE = Path(__file__).parent
WITHOUT = (*IMAGES, *TOLD, "vae/texts.py", "vae/words.py", "vae/codec/salvage.py")
"""What no archive of a table depends on. (Its names are packed by `vae/codec/texts.py`.)"""
BEGUN_FROM = ("vae/__init__.py", "vae/codec/__init__.py", "vae/pipeline.py")
"""What is imported first; the rest is what the last one reaches."""
RIVAL_SOURCES = (
    *(f"benchmarks/{name}.py" for name in ("coders", "forms", "rivals")),
    *(f"data/{name}.py" for name in ("fractions", "grid", "gridfit", "lattice", "phases")),
)
BOUNDS = {
    "flights": ("exact", "1%"),
    "weather": ("exact", "1%"),
    "solar": ("exact", "0.5%", "1%", "5%"),
    "covertype": ("exact", "0.5%", "1%", "5%", "10%"),
    "adult": ("exact", "1%"),
}
"""Bounds on the numeric columns of each set, of their range."""


class Cell(NamedTuple):
    """One measurement: of the rivals (`codes` is None), or of this project with these codes and seed."""

    dataset: str
    bound: str
    codes: Codes | None = None
    seed: int = 0
    effort: Effort = Effort.standard

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        what = "rivals" if self.codes is None else f"{self.codes}-{self.effort}-{self.seed}"
        return show.RESULTS / "archive" / f"{self.dataset}-{self.bound}-{what}.json"


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet; write the table and the chart, and print the table."""
    asked = _parser().parse_args(arguments)
    # as they are now, whatever happens to them while cells are measured
    own_sources()
    _commit()
    for cell in () if asked.show else _cells(asked):
        try:
            measure(cell, fresh=asked.fresh)
        except SourceError as error:
            print(f"left out: {error}", file=sys.stderr)
    show.write()
    readme.main()
    print(show.table())
    print(_outdated(), file=sys.stderr)
    return 0


def _outdated() -> str:
    """Which cells the sources that are here have left behind."""
    known = show.results()
    names = [
        Cell(**{name: cell[name] for name in Cell._fields}).path.stem
        for cell in known
        if cell["sources"] != (_rival_sources() if cell["codes"] is None else own_sources())[:16]
    ]
    return show.told_outdated(names, len(known))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sets", nargs="+", choices=datasets.SETS, default=list(datasets.SETS))
    parser.add_argument("--bounds", nargs="+", help="default: all of the set")
    parser.add_argument(
        "--codes",
        nargs="*",
        type=Codes,
        default=list(show.CODES),
        help="none of them named: the rivals alone",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--effort", type=Effort, default=Effort.standard)
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured already")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    return parser


def _cells(asked: argparse.Namespace) -> Iterator[Cell]:
    for name in asked.sets:
        for bound in asked.bounds or BOUNDS[name]:
            yield Cell(name, bound)
            for codes in asked.codes:
                for seed in asked.seeds:
                    yield Cell(name, bound, codes, seed, asked.effort)


# ------------------------------------------------------------------------------------------------------- one cell


@functools.cache
def own_sources() -> str:
    """Digest of all that makes archives of tables, when first asked for: what runs does not change while it runs."""
    read = (path.relative_to(HERE.parent).as_posix() for path in Path(data.__file__).parent.rglob("*.py"))
    return digest([*read, *BEGUN_FROM, *reached(BEGUN_FROM[-1], WITHOUT)])


@functools.cache
def _rival_sources() -> str:
    return digest(RIVAL_SOURCES)


@functools.cache
def _bounds(name: str, bound: str) -> dict[str, float]:
    specs = [] if bound == "exact" else [f"*={bound}"]
    rows = datasets.variants(name)[0]
    return resolve_bounds(specs, datasets.source(name).schema, table_stats(rows))


def key_for(cell: Cell) -> str:
    """What a result depends on: the data, the bounds, the sources that measure it and the versions of what they use."""
    content: dict[str, Any] = {"cell": cell._asdict(), "bounds": _bounds(cell.dataset, cell.bound)}
    if cell.codes is None:
        content |= {"tables": datasets.digest(cell.dataset), "versions": rivals.versions()}
        return key_of("archive", content, sources=_rival_sources())
    tools = {name: version(name) for name in ("torch", "pcodec")}
    content |= {"data": datasets.source(cell.dataset).digest(), "versions": tools}
    return key_of("archive", content, sources=own_sources())


def measure(cell: Cell, *, fresh: bool = False) -> dict[str, Any]:
    """The result of a cell: the one on disk if it is of these sources and settings, else a new one."""
    key = key_for(cell)
    if not fresh and cell.path.is_file():
        known = json.loads(cell.path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known
    began = time.perf_counter()
    content = {
        "key": key,
        "sources": (_rival_sources() if cell.codes is None else own_sources())[:16],
        **where(),
        **cell._asdict(),
        **(_rivals(cell) if cell.codes is None else _ours(cell)),
    }
    with atomic_path(cell.path) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{cell.path.stem}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return content


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(HERE.parent), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


@functools.cache
def _commit() -> str:
    """The commit of the sources when first asked for, as `own_sources`; results are no edit of what measures them."""
    edited = _git("status", "--porcelain", "--", "data", "vae", "benchmarks", ":!benchmarks/results")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if edited else "")


def where() -> dict[str, Any]:
    """What a measurement is of, and where and when it was made."""
    return {
        "commit": _commit(),
        "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "software": f"Python {platform.python_version()}, PyTorch {version('torch')}",
    }


def _processor() -> str:
    """Its kind, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _rivals(cell: Cell) -> dict[str, Any]:
    """Bytes by each rival: of the columns as they are, or with one-hot groups merged, whichever is less."""
    tables, bounds = datasets.variants(cell.dataset), _bounds(cell.dataset, cell.bound)
    return {
        "bytes": {name: rivals.smallest(rival, tables, bounds) for name, rival in rivals.RIVALS.items()},
        "versions": rivals.versions(),
    }


def _ours(cell: Cell) -> dict[str, Any]:
    """The archive's own report."""
    with tempfile.TemporaryDirectory() as folder:
        report = pipeline.compress(
            datasets.variants(cell.dataset)[0],
            Path(folder) / "a.svae",
            bounds=_bounds(cell.dataset, cell.bound),
            settings=ModelSettings(codes=cell.codes or Codes.none),
            training=TrainSettings(effort=cell.effort, seed=cell.seed),
        )
    return {
        "rows": report.rows,
        "bytes": report.archive_bytes,
        "shares": report.bytes.model_dump(),
        "code": report.codes_summary.model_dump(),
        "seconds": report.seconds.model_dump(),
    }


if __name__ == "__main__":
    sys.exit(main())
