"""The benchmarks' figures in the README, made from `benchmarks/results/`: `python -m benchmarks.readme`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import first_run, read_part, scale, show
from data.atomic import atomic_path

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- {} table: made by `python -m benchmarks.readme` from benchmarks/results/, not by hand -->"
END = "<!-- end of the {} table -->"


def main() -> int:
    """Put the tables of what is measured in their places."""
    text = README.read_text(encoding="utf-8")
    made = replaced(text)
    if made != text:
        with atomic_path(README) as path:
            path.write_text(made, encoding="utf-8")
    return 0


def replaced(text: str) -> str:
    """A README with its blocks made anew; ValueError if it lacks one."""
    contents = {
        "first": first_run.known_table(),
        "archive": _archive(),
        "speed": _speed(),
        "scale": f"{scale.known_table()}\n",
        "sparse": _sparse(),
    }
    for name, content in contents.items():
        opening, closing = BEGIN.format(name), END.format(name)
        before, begin, rest = text.partition(opening)
        _, end, after = rest.partition(closing)
        if not begin or not end:
            raise ValueError(f"no block between {opening!r} and {closing!r}")
        text = f"{before}{opening}\n\n{content}\n{closing}{after}"
    return text


def _archive() -> str:
    chart = "![Bytes of the archive over those of the best rival](benchmarks/results/archive.svg)"
    return f"{show.table()}\n{chart}\n"


def _speed() -> str:
    line = read_part.known_line()
    return show.speed_table() + (f"\n{line}" if line else "")


def _sparse() -> str:
    from benchmarks import sparse  # which needs what imports this module

    chart = "![Bits of held-out rows over the seconds of training](benchmarks/results/speedup.svg)"
    return sparse.known_table() + (f"\n{chart}\n" if sparse.known_drawing() else "")


if __name__ == "__main__":
    sys.exit(main())
