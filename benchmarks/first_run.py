"""The README's first figures: `python -m benchmarks.first_run` does the main job on the flights and keeps what it says.

In a folder of its own, thrown away after: `svae run`, the same again, which finds everything made, and
`svae compress --effort fast --rivals`. It takes some minutes, and says how many: nothing else should run beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.atomic import atomic_path

ROOT = Path(__file__).parents[1]
FIRST = Path(__file__).parent / "results" / "first_run.json"
SOURCE = "sample:flights"


def main() -> int:
    """Measure, keep and print."""
    from benchmarks import archive, readme  # late: a test of the README need not load what measures

    content = {**archive.where(), **measure(), "beside": ""}
    with atomic_path(FIRST) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    readme.main()
    print(known_table())
    return 0


def measure() -> dict[str, Any]:
    """What the commands print, the paths of their folder left out, and the seconds that they took."""
    from vae.schedule import FULL_STEPS
    from vae.settings import Effort

    with tempfile.TemporaryDirectory(prefix="svae-") as scratch:
        run, seconds = _call(scratch, "run", "--dataset", SOURCE)
        _, again = _call(scratch, "run", "--dataset", SOURCE)
        model = json.loads((Path(run["model"]) / "model.json").read_text(encoding="utf-8"))
        small, _ = _call(
            scratch, "compress", SOURCE, "-o", "flights.svae", "--effort", Effort.fast.value, "--rivals"
        )
    kept = {name: run[name] for name in ("rows", "archive_bytes", "evaluation")}
    return {
        "run": {**kept, "steps": model["record"]["steps"], "seconds": seconds, "seconds_again": again},
        "compress": {**small, "steps": FULL_STEPS[Effort.fast]},
    }


def _call(folder: str, *arguments: str) -> tuple[dict[str, Any], float]:
    """What a command of `svae` prints as JSON, and the seconds that it takes."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout), time.perf_counter() - began


def known_table() -> str:
    """What was measured last, as Markdown."""
    return table(json.loads(FIRST.read_text(encoding="utf-8")))


def table(content: Mapping[str, Any]) -> str:
    """A measurement as Markdown.

    The commands as the README has them, each file's bytes, and how many times larger the source is.
    """
    run, small = content["run"], content["compress"]
    found, size, rivals = run["evaluation"], run["evaluation"]["size"], small["rivals"]
    source, (_, cores) = small["source_bytes"], content["machine"].rsplit(", ", 1)
    files = [
        ("Parquet, snappy", size["parquet_snappy"], None, "`make run` (in `report/evaluation.json`)"),
        ("Parquet, zstd level 19", size["parquet_zstd19"], None, "the same"),
        (
            "Parquet, brotli level 11",
            rivals["parquet_brotli11"],
            None,
            f"`svae compress {SOURCE} -o flights.svae --effort fast --rivals`",
        ),
        ("pcodec, level 12", rivals["pcodec"], None, "the same"),
        (
            f"**archive**, {small['steps']:,} steps of training on nearly all rows",
            small["archive_bytes"],
            small["bytes"]["model"],
            "the same",
        ),
        (
            f"**archive**, {run['steps']:,} steps of training on the training split",
            run["archive_bytes"],
            size["model"],
            "`make run`",
        ),
    ]
    lines = [
        f"`flights`: {run['rows']:,} rows of {small['columns']} mixed columns, {source:,} bytes as CSV, every value "
        f"exact. {cores[0].upper()}{cores[1:]}, seed 0, one run, the model's own bytes counted:",
        "",
        "| file | bytes | source is so many times larger | command |",
        "|---|---:|---:|---|",
        *(_row(source, *file) for file in files),
        "",
        f"The second one's code, `balanced`: {found['sparsity']['mean_nonzero']:.1f} of "
        f"{found['sparsity']['latents']} latents non-zero and {found['bits']['code']:.1f} bits a row, which rebuild "
        f"the columns of {found['rows']['evaluated']:,} held-out rows with a mean score of "
        f"{found['codes_only']['score']:.2f} (R² of numbers, accuracy above the majority share of categories), no "
        f"other column and no other row in sight. What is paid for a held-out row is {found['bits']['total']:.1f} bits "
        f"in all, {found['bits']['code']:.1f} of them the code. `svae run` prints these figures at its end, with those "
        "of every column.",
        "",
        f"Both were measured at commit {content['commit']}, on {content['machine']}{content['beside']}. `make run` "
        f"took {_time(run['seconds'])} there once installed, and a second one, which finds everything made, "
        f"{_time(run['seconds_again'])}; `compress --effort fast` {_time(sum(small['seconds'].values()))}, what the "
        "rivals took left out. Another kind of processor trains another model from the same seed: some tenths of a "
        "percent more bytes, or less.",
    ]
    return "\n".join([*lines, ""])


def _row(source: int, words: str, size: int, model: int | None, command: str) -> str:
    """A line of the table; with the bytes of a model it is one of ours.

    >>> _row(100, "file", 50, None, "x"), _row(100, "archive", 40, 3, "y")
    ('| file | 50 | 2.0 | x |', '| archive | **40** (3 of them the model) | **2.5** | y |')
    """
    ratio = f"{source / size:.1f}"
    if model is None:
        return f"| {words} | {size:,} | {ratio} | {command} |"
    return f"| {words} | **{size:,}** ({model:,} of them the model) | **{ratio}** | {command} |"


def _time(seconds: float) -> str:
    """As a person says it.

    >>> _time(35.2), _time(150), _time(361)
    ('35 seconds', '2.5 minutes', '6 minutes')
    """
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.2g} minutes"


if __name__ == "__main__":
    sys.exit(main())
