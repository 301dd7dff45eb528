"""The archive's figures in the README, made from `benchmarks/results/`: `python -m benchmarks.readme`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import show
from data.atomic import atomic_path

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- archive table: made by `python -m benchmarks.readme` from benchmarks/results/, not by hand -->"
END = "<!-- end of the archive table -->"


def main() -> int:
    """Put the table of what is measured in its place."""
    text = README.read_text(encoding="utf-8")
    made = replaced(text)
    if made != text:
        with atomic_path(README) as path:
            path.write_text(made, encoding="utf-8")
    return 0


def replaced(text: str) -> str:
    """A README with its block made anew; ValueError if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no block between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{block()}{END}{after}"


def block() -> str:
    """What stands between the two comments."""
    return f"\n{show.table()}\n![Bytes of the archive over those of the best rival](benchmarks/results/archive.svg)\n\n"


if __name__ == "__main__":
    sys.exit(main())
