"""What trainings on fewer rows, or of fewer steps, cost in bytes of the archive.

Both archives of a case are written whole, by `vae.pipeline.compress`, all else alike; one is of a model that all rows
and effort `standard` made. Measured at the end of `make bench-speed`, or::

    python -m benchmarks.sparse --only learning
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import datasets
from benchmarks.cells import ROOT, Benchmark, Case, Facts
from data.bounds import resolve_bounds
from data.statistics import table_stats
from vae import pipeline
from vae.settings import Effort, ModelSettings, TrainSettings

SHARE = 0.2
"""Of the rows, that a sample has."""


class Way(NamedTuple):
    """What is trained, and what of it is less than usual."""

    dataset: str
    bound: str
    share: float = 1.0
    effort: Effort = Effort.standard


WAYS = {
    "solar, exact, a fifth of the rows": Way("solar", "exact", share=SHARE),
    "solar, 0.5%, a fifth of the rows": Way("solar", "0.5%", share=SHARE),
    "flights, exact, effort fast": Way("flights", "exact", effort=Effort.fast),
}
MOST = {"solar": 1.02, "flights": 1.05}
"""Bytes over those of all rows and steps, at most."""
MODEL = ModelSettings()
TRAINING = TrainSettings()


def measure(case: str, seed: int) -> dict[str, Any]:
    """Bytes and processor seconds of both."""
    way = WAYS[case]
    usual, usual_seconds = _archive(Way(way.dataset, way.bound), seed)
    less, seconds = _archive(way, seed)
    rows = datasets.variants(way.dataset)[0].num_rows
    return {
        "rows": rows,
        "usual_bytes": usual,
        "usual_seconds": usual_seconds,
        "bytes": less,
        "seconds": seconds,
    }


def _archive(way: Way, seed: int) -> tuple[int, float]:
    """Bytes of an archive, and processor seconds of the training."""
    table, schema = datasets.variants(way.dataset)[0], datasets.source(way.dataset).schema
    specs = [] if way.bound == "exact" else [f"*={way.bound}"]
    less = {"effort": way.effort, "seed": seed, "rows": round(way.share * table.num_rows)}
    training = TRAINING.model_copy(update=less)
    began = time.process_time()  # whatever else runs
    model = pipeline.fit(
        table,
        schema,
        bounds=resolve_bounds(specs, schema, table_stats(table)),
        model=MODEL,
        training=training,
    )
    seconds = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        return pipeline.compress(table, Path(folder) / "a.svae", model=model).archive_bytes, seconds


def _tell(facts: Facts) -> str:
    more = facts["bytes"] / facts["usual_bytes"] - 1
    return (
        f"{facts['bytes']:,} bytes, {abs(more):.1%} {'more' if more > 0 else 'less'} than {facts['usual_bytes']:,}; "
        f"trained in {facts['seconds']:.0f} processor seconds, not {facts['usual_seconds']:.0f}"
    )


def _case(way: Way) -> Case:
    settings = {
        "way": way._asdict(),
        "model": MODEL.model_dump(mode="json"),
        "training": TRAINING.model_dump(mode="json"),
    }
    return Case(settings, f"at most {MOST[way.dataset] - 1:.0%} more", _tell)


LEARNING = Benchmark(
    title="Bytes of the archive, with a model that learnt from less",
    published="",
    sources=(
        "benchmarks/learning.py",
        *(
            path.relative_to(ROOT).as_posix()
            for folder in ("data", "vae", "vae/codec")
            for path in (ROOT / folder).glob("*.py")
        ),
    ),
    cases={name: _case(way) for name, way in WAYS.items()},
    measure=measure,
    alone=True,
)
