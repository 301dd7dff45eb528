"""Benchmarks of sparse codes: `make bench-sparse`.

Cells that are there already, of the same sources, settings and seed, are not measured again, so that an interrupted run
goes on where it was (see `benchmarks.cells`). What looks at the clock is measured only where it is named, on a machine
that does nothing else::

    python -m benchmarks.sparse --only likelihood --cases spike_slab
    python -m benchmarks.sparse --only speedup
    python -m benchmarks.sparse --only learning
    python -m benchmarks.sparse --show      # measures nothing: the table of what is there

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
from benchmarks.pixels import PIXELS
from benchmarks.speedup import SPEEDUP
from benchmarks.texts import TEXTS
from data.errors import SourceError

BENCHMARKS = {
    **PIXELS,
    "texts": TEXTS,
    "likelihood": LIKELIHOOD,
    "labels": LABELS,
    "families": FAMILIES,
    "calibration": CALIBRATION,
    "speedup": SPEEDUP,
    "learning": LEARNING,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet, put the table into the README, and print it."""
    asked = _parser().parse_args(arguments)
    names = asked.only or [name for name, benchmark in BENCHMARKS.items() if not benchmark.alone]
    for name in () if asked.show else names:
        benchmark = BENCHMARKS[name]
        for case in benchmark.cases:
            if asked.cases and case not in asked.cases:
                continue
            try:
                cells.measure(name, benchmark, case, asked.seed, fresh=asked.fresh)
            except SourceError as error:
                print(f"left out: {error}", file=sys.stderr)
                break
    readme.main()
    print(known_table())
    return 0


def known_table() -> str:
    """What was measured last, as Markdown."""
    return cells.table(BENCHMARKS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sparse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, help="default: all but those of the clock")
    parser.add_argument("--cases", nargs="+", help="default: all of the benchmark")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured already")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
