"""What a part of an archive costs, over the whole: at the end of `make bench-speed`, of `flights`.

In one process, compiled and with the model loaded before the clock starts; of several runs the fastest. A range of rows
is decoded from the first row of its block, so that its place within the block matters: the rows in the middle of the
table are timed, and those at the end of a block and across two. One column costs those coded before it.
Of `flights` the result is kept in `benchmarks/results/`, and told in the README; of other archives it is printed::

    python -m benchmarks.read_part ARCHIVE.svae
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.atomic import atomic_path
from vae.codec import archive as archives
from vae.settings import Effort

FLIGHTS = "flights"
RESULT = Path(__file__).parent / "results" / "read_part.json"
MIDDLE = "middle of the table"
ROWS = 1_000
LARGEST = 0.1
"""What a thousand rows from the middle of `flights` may take of the time for all."""


def fastest(read: Callable[[], Any], runs: int) -> float:
    """Seconds of the fastest of several runs."""
    found: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        read()
        found.append(time.perf_counter() - start)
    return min(found)


def places(rows: int, block_rows: int) -> dict[str, int]:
    """First rows of what is timed.

    >>> places(10_000, 4_000)
    {'middle of the table': 4500, 'end of a block': 7000, 'across two blocks': 3500}
    """
    middle = max(0, rows // 2 - ROWS // 2)
    block = middle // block_rows * block_rows
    found = {MIDDLE: middle, "end of a block": min(rows, block + block_rows) - ROWS}
    return {**found, "across two blocks": block - ROWS // 2} if block else found


def measure(path: Path, runs: int, threads: int | None) -> dict[str, Any]:
    """Seconds, and shares of the time for all."""
    with archives.open(path, threads=threads) as opened:
        opened.read(rows=(0, 10))
        whole = fastest(opened.read, runs)
        parts = {
            name: fastest(lambda f=first: opened.read(rows=(f, f + ROWS)), runs)
            for name, first in places(opened.rows, opened.header.block_rows).items()
        }
        columns = {name: fastest(lambda n=name: opened.read([n]), 1) / whole for name in opened.names}
        return {
            "rows": opened.rows,
            "block_rows": opened.header.block_rows,
            "seconds": whole,
            "thousand_rows": {name: seconds / whole for name, seconds in parts.items()},
            "columns": columns,
        }


def main(arguments: list[str] | None = None) -> int:
    """Measure one archive and print it; of `flights`, where none is named, keep it."""
    asked = _parser().parse_args(arguments)
    if asked.archive:
        found = measure(asked.archive, asked.runs, asked.threads)
        print(json.dumps(found) if asked.json else told(found))
        return 0
    from benchmarks import archive, readme

    content = {**archive.where(), **of_flights(asked.runs, asked.threads)}
    with atomic_path(RESULT) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    readme.main()
    print(json.dumps(content) if asked.json else told(content))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.read_part",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "archive", type=Path, nargs="?", help="default: `flights`, by the model of `benchmarks.speed`"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    return parser


def of_flights(runs: int, threads: int | None) -> dict[str, Any]:
    """What `measure` finds of an archive of `flights`, exact, standard effort; a model is trained if none is there."""
    from benchmarks import datasets, speed
    from vae import pipeline

    table = datasets.variants(FLIGHTS)[0]
    model = speed.trained(FLIGHTS, table, Effort.standard)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.svae"
        pipeline.compress(table, path, model=model)
        return measure(path, runs, threads)


def told(found: dict[str, Any]) -> str:
    """A measurement, line by line."""
    lines = [f"{found['rows']:,} rows in blocks of {found['block_rows']:,}: {found['seconds']:.2f} s"]
    for name, share in found["thousand_rows"].items():
        target = f", target {LARGEST}" if name == MIDDLE else ""
        lines.append(f"{ROWS:,} rows, {name}: {share:.4f} of that{target}")
    lines += [f"column {name}: {share:.3f} of that" for name, share in found["columns"].items()]
    return "\n".join(lines)


def known_line() -> str:
    """What was measured last of `flights`, as the README says it; "" if nothing was."""
    if not RESULT.is_file():
        return ""
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    others = ", ".join(
        f"{share:.3f} {name}" for name, share in found["thousand_rows"].items() if name != MIDDLE
    )
    return (
        f"{ROWS:,} rows from the middle of {FLIGHTS} are read in {found['thousand_rows'][MIDDLE]:.3f} of the "
        f"{found['seconds']:.2f} s that all {found['rows']:,} take (to reach: at most {LARGEST}; {others}). "
        f"Measured {found['measured'][:10]} on {found['machine']}, {found['software']}, commit {found['commit']}.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
