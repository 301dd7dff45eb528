"""Archives of real tables, and what their rivals make of the same tables within the same bounds: `make bench-archive`.

Each cell is a JSON file under `benchmarks/results/archive/`, named by what was measured and keyed by the sources, the
settings and the seed, so that an interrupted run goes on where it was::

    python -m benchmarks.archive --sets flights covertype --codes balanced none --seeds 0 1 2
    python -m benchmarks.archive --fresh        # measures everything anew
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

import data
import vae
from benchmarks.datasets import SETS, merge_one_hot, source
from benchmarks.rivals import RIVALS
from data.atomic import atomic_path
from data.bounds import resolve_bounds
from data.errors import SourceError
from data.statistics import table_stats
from flows.cache import key_of, source_digest
from vae import pipeline
from vae.settings import Codes, Effort, ModelSettings, TrainSettings

RESULTS = Path(__file__).parent / "results"
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
        return RESULTS / "archive" / f"{self.dataset}-{self.bound}-{what}.json"


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet, and print the table."""
    asked = _parser().parse_args(arguments)
    for cell in _cells(asked):
        try:
            measure(cell, fresh=asked.fresh)
        except SourceError as error:
            print(f"left out: {error}", file=sys.stderr)
    text = table(_results())
    with atomic_path(RESULTS / "archive.md") as path:
        path.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--bounds", nargs="+", help="default: all of the set")
    parser.add_argument("--codes", nargs="+", type=Codes, default=[Codes.balanced, Codes.lean, Codes.none])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--effort", type=Effort, default=Effort.standard)
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured already")
    return parser


def _cells(asked: argparse.Namespace) -> Iterator[Cell]:
    for name in asked.sets:
        for bound in asked.bounds or BOUNDS[name]:
            yield Cell(name, bound)
            for codes in asked.codes:
                for seed in asked.seeds:
                    yield Cell(name, bound, codes, seed, asked.effort)


# ------------------------------------------------------------------------------------------------------- one cell


TOOLS = ("pyarrow", "pcodec", "openzl", "blosc2", "pysz", "zfpy")
HERE = Path(__file__).parent


@functools.cache
def _sources(*folders: Path) -> str:
    """Digest of sources as they were when it was first asked for: what runs does not change while it runs."""
    return source_digest(folders)


def key_for(cell: Cell) -> str:
    """What a result depends on: the cell, its data, the sources that measure it, and the versions of what they use."""
    tools = TOOLS if cell.codes is None else ("torch", "pcodec")
    content = {
        "cell": cell._asdict(),
        "data": source(cell.dataset).digest(),
        "versions": {name: version(name) for name in tools},
    }
    folders = (HERE, Path(data.__file__).parent, *([] if cell.codes is None else [Path(vae.__file__).parent]))
    return key_of("archive", content, sources=_sources(*folders))


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
        **_where(),
        **cell._asdict(),
        **(_rivals(cell) if cell.codes is None else _ours(cell)),
    }
    with atomic_path(cell.path) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{cell.path.stem}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return content


def _where() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parent,
        check=False,
    )
    return {
        "commit": commit.stdout.strip(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


def _load(cell: Cell) -> tuple[pa.Table, dict[str, float]]:
    origin = source(cell.dataset)
    rows = origin.table()
    specs = [] if cell.bound == "exact" else [f"*={cell.bound}"]
    return rows, resolve_bounds(specs, origin.schema, table_stats(rows))


def _rivals(cell: Cell) -> dict[str, Any]:
    """Bytes by each rival: of the columns as they are, or with one-hot groups merged, whichever is less."""
    rows, bounds = _load(cell)
    variants = [rows, merge_one_hot(rows)]
    if variants[1].num_columns == rows.num_columns:
        variants.pop()
    return {"bytes": {name: _smallest(size, variants, bounds) for name, size in RIVALS.items()}}


def _smallest(
    size: Callable[[pa.Table, dict[str, float]], int | None],
    variants: list[pa.Table],
    bounds: dict[str, float],
) -> int | None:
    sizes = [size(variant, bounds) for variant in variants]
    return min((found for found in sizes if found is not None), default=None)


def _ours(cell: Cell) -> dict[str, Any]:
    """The archive's own report."""
    rows, bounds = _load(cell)
    with tempfile.TemporaryDirectory() as folder:
        report = pipeline.compress(
            rows,
            Path(folder) / "a.svae",
            bounds=bounds,
            settings=ModelSettings(codes=cell.codes or Codes.none),
            training=TrainSettings(effort=cell.effort, seed=cell.seed),
        )
    return {
        "bytes": report.archive_bytes,
        "shares": report.bytes.model_dump(),
        "code": report.codes_summary.model_dump(),
        "seconds": report.seconds.model_dump(),
    }


# ------------------------------------------------------------------------------------------------------ the table


def _results() -> list[dict[str, Any]]:
    """All cells that are of these sources; what an edit has made stale is left out and named."""
    found: list[dict[str, Any]] = []
    for path in sorted((RESULTS / "archive").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        codes = None if content["codes"] is None else Codes(content["codes"])
        cell = Cell(content["dataset"], content["bound"], codes, content["seed"], Effort(content["effort"]))
        if content["key"] == key_for(cell):
            found.append(content)
        else:
            print(f"left out, of other sources ({content['commit']}): {path.stem}", file=sys.stderr)
    return found


def table(results: list[dict[str, Any]]) -> str:
    """What is measured, as Markdown: bytes of the best rival, and each archive's over them (mean over the seeds)."""
    lines = [
        "| set | bound | best rival | bytes | codes | effort | archive | of these model | ratio | seeds |",
        "|---|---|---|---:|---|---|---:|---:|---:|---|",
    ]
    best = {
        (r["dataset"], r["bound"]): min((size, name) for name, size in r["bytes"].items() if size is not None)
        for r in results
        if r["codes"] is None
    }
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for result in results:
        if result["codes"] is not None:
            groups.setdefault(tuple(result[k] for k in ("dataset", "bound", "codes", "effort")), []).append(
                result
            )
    for (name, bound, codes, effort), cells in groups.items():
        size = statistics.mean(cell["bytes"] for cell in cells)
        model = statistics.mean(cell["shares"]["model"] for cell in cells)
        seeds = ", ".join(str(cell["seed"]) for cell in cells)
        rival = best.get((name, bound))
        against = f"{rival[1]} | {rival[0]:,}" if rival else "not measured | "
        ratio = f"{size / rival[0]:.3f}" if rival else ""
        lines.append(
            f"| {name} | {bound} | {against} | {codes} | {effort} | {size:,.0f} | {model:,.0f} | {ratio} | {seeds} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
