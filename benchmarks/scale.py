"""What time and memory archives of long tables take: `make bench-scale`.

A table of ten columns (times, names, numbers that hang together, a drifting load within an error bound) is made at
several lengths. Each is compressed and decompressed by the command line, in processes whose peak memory is what the
system counted (resident pages, those of shared libraries included). One model trained on the longest table serves all
lengths, so that their times compare; the longest is also compressed with a training of its own::

    python -m benchmarks.scale --rows 300000 1000000
    python -m benchmarks.scale --show       # measures nothing: the table of what is there
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as _pq

from data.atomic import atomic_path

pq = cast(Any, _pq)

ROWS = (300_000, 1_000_000, 3_000_000, 10_000_000)
PIECE = 500_000
BOUND = "load=0.05"
SCALE = Path(__file__).parent / "results" / "scale.json"


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and print."""
    asked = _parser().parse_args(arguments)
    if asked.make:
        write_rows(asked.make, asked.rows[0])
        return 0
    if not asked.show:
        rows = measure(asked.rows, asked.effort)
        from benchmarks import archive  # late: see `make`

        content = {**archive.where(), "rows": rows, "effort": asked.effort}
        with atomic_path(SCALE) as path:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        from benchmarks import readme

        readme.main()
    print(known_table())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--effort", choices=("fast", "standard"), default="fast", help="of trainings")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument(
        "--make", type=Path, metavar="FILE", help="only make the table of the first of --rows"
    )
    return parser


def measure(lengths: list[int], effort: str) -> list[dict[str, Any]]:
    """Bytes, seconds and peak MiB of each length, the shortest first."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source, packed, back = folder / "rows.parquet", folder / "rows.svae", folder / "back.parquet"
        model = folder / "model"
        make(source, max(lengths))
        trained = run("train", source, "--out", model, "--bound", BOUND, "--effort", effort)
        for rows in sorted(lengths):
            make(source, rows)
            if not found:
                run("compress", source, "-o", packed, "--model", model, "--bound", "model")  # compiles
            ours: dict[str, Any] = {"rows": rows, "source_bytes": source.stat().st_size}
            ours["compress"] = run("compress", source, "-o", packed, "--model", model, "--bound", "model")
            ours["bytes"] = packed.stat().st_size
            ours["decompress"] = run("decompress", packed, "-o", back)
            if rows == max(lengths):
                ours["train_and_compress"] = run(
                    "compress", source, "-o", packed, "--bound", BOUND, "--effort", effort
                )
                ours["train"] = trained
                ours["own_bytes"] = packed.stat().st_size
                ours["own_decompress"] = run("decompress", packed, "-o", back)
            found.append(ours)
            print(ours, file=sys.stderr)
    return found


def make(path: Path, rows: int) -> None:
    """`write_rows` in a process of its own: the measured ones count the peak of the one that starts them as theirs."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", "--make", str(path), "--rows", str(rows)], check=True
    )


def write_rows(path: Path, rows: int) -> None:
    """A table of so many rows, as Parquet; where they are no multiple of PIECE, the last piece is a draw of its own."""
    random, level, writer = np.random.default_rng(0), 0.0, None
    try:
        for start in range(0, rows, PIECE):
            part, level = _piece(random, start, min(PIECE, rows - start), level)
            writer = writer or pq.ParquetWriter(path, part.schema, compression="zstd")
            writer.write_table(part)
    finally:
        if writer is not None:
            writer.close()


def _piece(random: np.random.Generator, start: int, rows: int, level: float) -> tuple[pa.Table, float]:
    """Some rows, and the level that the load has drifted to."""
    minute = np.arange(start, start + rows)
    day = np.sin(minute / 1_440 * 2 * np.pi)
    store = random.integers(0, 40, rows)
    temperature = np.round(15 + 8 * day + random.normal(0, 1, rows), 1)
    humidity = np.round(60 - 2 * (temperature - 15) + random.normal(0, 3, rows)).astype(np.int32)
    sold = random.poisson(3 + store / 10).astype(np.int16)
    price = np.round(5 + store * 0.25 + random.integers(0, 4, rows) * 0.5, 2)
    drift = level + np.cumsum(random.normal(0, 0.3, rows))
    notes = np.array(["ok", "late", "lost", "back"])[np.minimum(random.geometric(0.8, rows) - 1, 3)]
    columns = {
        "time": pa.array(1_600_000_000 + minute * 60, pa.timestamp("s")),
        "store": pa.array(np.char.add("s", store.astype(str))),
        "temperature": temperature,
        "humidity": humidity,
        "sold": sold,
        "price": price,
        "total": np.round(sold * price, 2),
        "load": drift + 20 * day,
        "flag": random.random(rows) < 0.02,
        "note": pa.array(notes),
    }
    return pa.table(columns), float(drift[-1])


def run(*arguments: object) -> dict[str, float]:
    """Seconds and peak MiB of one command."""
    command = [Path(sys.executable).with_name("svae"), *map(str, arguments)]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told)
        _, process.returncode, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if process.returncode:
            told.seek(0)
            raise SystemExit(f"svae {' '.join(map(str, arguments))} failed: {told.read().decode()[-2_000:]}")
    return {"seconds": round(seconds, 1), "peak_mib": usage.ru_maxrss // 1024}


def known_table() -> str:
    """What was measured last, as Markdown."""
    return table(json.loads(SCALE.read_text(encoding="utf-8")))


def table(content: dict[str, Any]) -> str:
    """A measurement as Markdown."""
    lines = [
        "| rows | Parquet | archive | compress | peak | decompress | peak |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for ours in content["rows"]:
        pairs = [("bytes", "compress", "decompress")]
        if "own_bytes" in ours:
            pairs.append(("own_bytes", "train_and_compress", "own_decompress"))
        for size, write, read in pairs:
            note = " (trained)" if size == "own_bytes" else ""
            lines.append(
                f"| {ours['rows']:,}{note} | {ours['source_bytes']:,} | {ours[size]:,} "
                f"| {ours[write]['seconds']:.0f} s | {ours[write]['peak_mib']:,} MiB "
                f"| {ours[read]['seconds']:.0f} s | {ours[read]['peak_mib']:,} MiB |"
            )
    where = f"At {content['commit']} on {content['machine']}, {content['measured'][:10]}"
    return "\n".join([*lines, "", f"{where}, trainings of effort `{content['effort']}`."])


if __name__ == "__main__":
    sys.exit(main())
