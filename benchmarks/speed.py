"""How fast archives are written and read, beside general tools on the same table: `make bench-speed`.

For each set a model is trained first (kept in `build/bench-speed`, so that a second call measures at once). Then, in
one process and in turns: this project compresses the table with that model, reads everything back, compares it, and
reads the archive; xz, zstd and brotli do the same with the CSV text, without comparing, and OpenZL, left to choose,
with the numbers of the columns: categories and repeated values as places in a table, whose bytes are counted but not
the time to make it. This project works on as many threads as there are processors, the others on one. The median of
the turns counts; tools that take longer than `LONG` have fewer. Machine code comes from numba's cache; what it takes to
compile it is measured by itself, in processes with an empty cache::

    python -m benchmarks.speed --sets flights --effort fast
    python -m benchmarks.speed --show       # measures nothing: the table of what is there
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from benchmarks import archive, datasets, readme, show
from benchmarks.coders import openzl_automatic, openzl_restored, squeezed_size
from benchmarks.forms import Numbers, columns_of
from data.atomic import atomic_path
from vae import pipeline, store
from vae.codec import archive as archives
from vae.settings import Effort, TrainSettings

SETS = ("flights", "solar")
TURNS = 3
LONG = 100.0
"""Seconds from which on a tool has one turn; xz, to which the others are compared, has two."""
UNIT = "xz -9"
IMAGES = Path(__file__).parents[1] / "tests" / "fixtures" / "images-60-v8.svae"
"""A small archive, for what compiling takes."""
MODELS = Path(__file__).parents[1] / "build" / "bench-speed"


class Tool(NamedTuple):
    """A way to make bytes of a set and to read them again; `read` takes what `write` gave."""

    write: Callable[[], Any]
    read: Callable[[Any], object]
    size: Callable[[Any], int] = len


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and print."""
    asked = _parser().parse_args(arguments)
    sources = archive.own_sources()  # as they are now
    for name in () if asked.show else asked.sets:
        known = show.speed_results()
        known[name] = {**archive.where(), "effort": asked.effort, **measure(name, asked.effort)}
        if archive.own_sources.__wrapped__() != sources:
            raise SystemExit(f"{name}: sources were edited while they were measured; nothing is kept of it")
        with atomic_path(show.SPEED) as path:
            path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    readme.main()
    print(show.speed_table())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sets", nargs="+", choices=datasets.SETS, default=list(SETS))
    parser.add_argument("--effort", type=Effort, default=Effort.standard, help="of the model's training")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    return parser


# ---------------------------------------------------------------------------------------------------- measuring


def measure(name: str, effort: Effort) -> dict[str, Any]:
    """Bytes and seconds of each tool on one set, exact, and what compilation takes."""
    table = datasets.variants(name)[0]
    folder = trained(name, table, effort)
    text = csv_text(table)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.svae"
        pipeline.compress(table.slice(0, 1_000), path, model=folder)  # machine code is read from the cache
        found = timed(tools(table, text, folder, path))
        cold = compilation(path, folder)
    return {"rows": table.num_rows, "csv_bytes": len(text), "tools": found, "compilation": cold}


def trained(name: str, table: pa.Table, effort: Effort) -> Path:
    """The folder of a model of this set; trained if there is none of these sources."""
    folder = MODELS / f"{name}-{effort}-{archive.own_sources()[:16]}"
    if not folder.exists():
        model = pipeline.fit(
            table, datasets.source(name).schema, bounds={}, training=TrainSettings(effort=effort)
        )
        store.save(model, folder)
    return folder


def csv_text(table: pa.Table) -> bytes:
    """What the general compressors are given."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def tools(table: pa.Table, text: bytes, model: Path, path: Path) -> dict[str, Tool]:
    """This project and its peers, by name."""
    loaded = store.load(model)

    def write() -> Path:
        pipeline.compress(table, path, model=loaded)
        return path

    def read(written: Path) -> pa.Table:
        with archives.open(written) as opened:
            return opened.read()

    numbers, side = list[Numbers](), 0
    for column in columns_of(table, {}):
        if len(column.values):
            form = column.forms[-1]
            numbers.append(form.numbers.view(f"u{form.numbers.itemsize}"))
            side += squeezed_size(form.side)
            side += 0 if column.valid is None else squeezed_size(np.packbits(column.valid).tobytes())
    return {
        "svae": Tool(write, read, lambda written: written.stat().st_size),
        UNIT: Tool(lambda: lzma.compress(text, preset=9), lzma.decompress),
        "zstd -19": _codec("zstd", 19, text),
        "brotli -11": _codec("brotli", 11, text),
        "OpenZL, numbers only": Tool(
            lambda: [openzl_automatic(one) for one in numbers],
            lambda packed: [openzl_restored(one) for one in packed],
            lambda packed: side + sum(map(len, packed)),
        ),
    }


def _codec(name: str, level: int, text: bytes) -> Tool:
    codec = pa.Codec(name, compression_level=level)
    return Tool(
        lambda: codec.compress(text, asbytes=True),
        lambda packed: codec.decompress(packed, decompressed_size=len(text)),
    )


def timed(tools: dict[str, Tool]) -> dict[str, dict[str, float]]:
    """Of each tool, by name: bytes, and the median seconds to write and to read."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"write": [], "read": [], "write_processor": [], "read_processor": []} for name in tools
    }
    sizes = dict[str, int]()
    for turn in range(TURNS):
        for name, tool in tools.items():
            known = seconds[name]
            if turn > (name == UNIT) and known["write"][0] + known["read"][0] > LONG:
                continue
            packed = _clocked(tool.write, known, "write")
            _clocked(lambda tool=tool, packed=packed: tool.read(packed), known, "read")
            sizes[name] = tool.size(packed)
    medians = {
        name: {what: statistics.median(all_) for what, all_ in seconds[name].items()} for name in tools
    }
    return {name: {"bytes": sizes[name], **medians[name]} for name in tools}


def _clocked(call: Callable[[], Any], seconds: dict[str, list[float]], what: str) -> Any:
    """The result; the time that it took, on the clock and of all processors, goes to `seconds`."""
    start, worked = time.perf_counter(), time.process_time()
    result = call()
    seconds[what].append(time.perf_counter() - start)
    seconds[f"{what}_processor"].append(time.process_time() - worked)
    return result


_FIRST_CALLS = """
import sys, time
from vae import store
from vae.codec import archive
from vae.pipeline import integer_model

start = time.perf_counter()
with archive.open(sys.argv[1]) as opened:
    opened.read(rows=(0, 10))
read = time.perf_counter()
with archive.open(sys.argv[3]) as opened:
    opened.read()
images = time.perf_counter() - read
read, begin = read - start, time.perf_counter()
model = integer_model(store.load(sys.argv[2]))
if model.columns:
    import numpy as np

    symbols = np.array([[item.low for item in model.plan.columns]])
    model.encode_block(symbols, np.zeros(symbols.shape, np.uint8), np.zeros((1, model.latents), np.int8))
print(read, time.perf_counter() - begin, images)
"""


def compilation(path: Path, model: Path) -> dict[str, float]:
    """Seconds that the first reading of a table takes with an empty cache, less those with a full one; then what the
    first reading of images takes more, and the first writing.
    """
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (_first_calls(path, model, cache) for _ in range(2))
    return {name: cold[name] - warm[name] for name in cold}


def _first_calls(path: Path, model: Path, cache: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_CALLS, str(path), str(model), str(IMAGES)],
        env={**os.environ, "NUMBA_CACHE_DIR": cache}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(zip(("read", "write", "images"), map(float, done.stdout.split()), strict=True))


if __name__ == "__main__":
    sys.exit(main())
