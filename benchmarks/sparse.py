"""Benchmarks of sparse codes: `make bench-sparse`.

Cells that are there already, of the same sources, settings and seed, are not measured again, so that an interrupted run
goes on where it was (see `benchmarks.cells`). What looks at the clock is measured only where it is named, on a machine
that does nothing else::

    python -m benchmarks.sparse --only likelihood --cases spike_slab --seeds 0 1 2
    python -m benchmarks.sparse --only speedup
    python -m benchmarks.sparse --only learning
    python -m benchmarks.sparse --show      # measures nothing: the table of what is there, and what of it is outdated

A table of all cells is written to `benchmarks/results/sparse.md` and into the README, and how trainings went to
`speedup.svg` beside it.

A further benchmark is a `Benchmark` in a module of its own, and a line in `BENCHMARKS`.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import cells, readme
from benchmarks.families import CALIBRATION, FAMILIES
from benchmarks.labels import LABELS
from benchmarks.learning import LEARNING
from benchmarks.likelihood import LIKELIHOOD
from benchmarks.pictures import PICTURES
from benchmarks.pixels import PIXELS, SETS
from benchmarks.speedup import SPEEDUP, drawing
from benchmarks.texts import TEXTS
from data.atomic import atomic_path
from data.errors import SourceError

IMAGES = {"pixels": PIXELS, "pictures": PICTURES}
PAGE = cells.FOLDER.with_suffix(".md")
DRAWING = PAGE.with_name("speedup.svg")
BENCHMARKS = {
    **{f"{kind}-{name}": what[f"{kind}-{name}"] for name in SETS for kind, what in IMAGES.items()},
    "texts": TEXTS,
    "likelihood": LIKELIHOOD,
    "labels": LABELS,
    "families": FAMILIES,
    "calibration": CALIBRATION,
    "speedup": SPEEDUP,
    "learning": LEARNING,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet; write the table, put it into the README, and print it."""
    asked = _parser().parse_args(arguments)
    names = asked.only or [name for name, benchmark in BENCHMARKS.items() if not benchmark.alone]
    for name in () if asked.show else names:
        try:
            _measure(name, asked)
        except SourceError as error:
            print(f"left out: {error}", file=sys.stderr)
    write()
    readme.main()
    print(known_table())
    print(cells.outdated(BENCHMARKS), file=sys.stderr)
    return 0


def _measure(name: str, asked: argparse.Namespace) -> None:
    """The cells of one benchmark that are asked for: all seeds of a case before the next case."""
    benchmark = BENCHMARKS[name]
    for case in benchmark.cases:
        if not asked.cases or case in asked.cases:
            for seed in asked.seeds or benchmark.seeds:
                cells.measure(name, benchmark, case, seed, fresh=asked.fresh)


def write() -> None:
    """The table, and the curves of trainings that kept them, under `benchmarks/results/`."""
    with atomic_path(PAGE) as path:
        path.write_text(page(), encoding="utf-8")
    if drawn := known_drawing():
        with atomic_path(DRAWING) as path:
            path.write_text(drawn, encoding="utf-8")


def page() -> str:
    """All of `sparse.md`."""
    return (
        "# Images, texts, sparse codes and trainings\n\n"
        "Made by `make bench-sparse` and, what looks at the clock, as the README says; "
        f"each cell is a file in `sparse/`.\n\n{known_table()}"
    )


def known_table() -> str:
    """What was measured last, as Markdown."""
    return cells.table(BENCHMARKS)


def known_drawing() -> str:
    """How trainings went that were measured last, the first seed of each case; "" if no cell knows."""
    return drawing({case: known[0] for case in SPEEDUP.cases if (known := cells.cells_of("speedup", case))})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sparse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, help="default: all but those of the clock")
    parser.add_argument("--cases", nargs="+", help="default: all of the benchmark")
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="default: 0 1 2 of images and labels, 0 of the others"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured already")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
