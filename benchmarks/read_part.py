"""What a part of an archive costs, over the whole: `python -m benchmarks.read_part ARCHIVE.svae`.

In one process, compiled and with the model loaded before the clock starts; of several runs the fastest. A range of rows
is decoded from the first row of its block, so that its place within the block matters: the rows in the middle of the
table are timed, and those at the end of a block and across two. One column costs those coded before it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vae.codec import archive

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
    found = {"middle of the table": middle, "end of a block": min(rows, block + block_rows) - ROWS}
    return {**found, "across two blocks": block - ROWS // 2} if block else found


def measure(path: Path, runs: int, threads: int | None) -> dict[str, Any]:
    """Seconds, and shares of the time for all."""
    with archive.open(path, threads=threads) as opened:
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


def main() -> None:
    """Measure one archive and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.archive, asked.runs, asked.threads)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['rows']:,} rows in blocks of {found['block_rows']:,}: {found['seconds']:.2f} s")
    for name, share in found["thousand_rows"].items():
        target = f", target {LARGEST}" if name == "middle of the table" else ""
        print(f"{ROWS:,} rows, {name}: {share:.4f} of that{target}")
    for name, share in found["columns"].items():
        print(f"column {name}: {share:.3f} of that")


if __name__ == "__main__":
    main()
