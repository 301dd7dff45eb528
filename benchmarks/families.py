"""What each latent family makes of tables and images by its settings alone, and how near codes come to their targets.

Trainings are short: so many steps, and not what an effort stands for. All figures are of rows held out from training,
in runs, for neighbours are alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import datasets
from benchmarks.cells import Benchmark, Case, Facts
from benchmarks.sources import READ, TEXTS, TOLD, reached
from data.bounds import resolve_bounds
from data.schema import Schema
from data.sources import open_source
from data.split import TEST, TRAIN, VALIDATION
from data.statistics import table_stats
from vae import metrics, pipeline
from vae.codes import encode_rows
from vae.evaluate import coded_among, model_bits
from vae.settings import NEAR_TARGET, Family, ModelSettings, Target, TrainSettings
from vae.store import TrainedModel

ROWS = {"flights": 40_000, "covertype": 40_000, "mnist": 6_000}
"""The first rows of each set, which are all that is looked at."""
BOUNDS = {"covertype": "5%"}
"""Of the sets that need not be exact."""
HELD_RUN, HELD_SHARE, VALIDATES = 128, 8, 12
"""Rows of a run; one run in so many is held out, and of the others one row in so many validates."""
STEPS = {"flights": 500, "covertype": 500, "mnist": 250}
CALIBRATION_STEPS = 1_000
TARGETS = ("nonzeros=4", "bits=8", "score=0.6")
SPARSE = (Family.quantized, Family.spike_slab, Family.topk)
WITHOUT = (*TEXTS, *TOLD, *READ)
SOURCES = ("benchmarks/families.py", *reached("benchmarks/families.py", WITHOUT))


def measure_families(name: str, seed: int) -> dict[str, Any]:
    """Facts of each family on a set."""
    return {"families": {str(family): _facts(name, *_plain(name, family), seed) for family in Family}}


def measure_calibration(case: str, seed: int) -> dict[str, Any]:
    """The same of codes with a target, and by how much each misses it."""
    name, text = case.split()
    target = Target.parse(text)
    found = {str(family): _facts(name, *_aimed(family, text), seed) for family in SPARSE}
    return {"families": {family: {**facts, "miss": miss(target, facts)} for family, facts in found.items()}}


def miss(target: Target, facts: Facts) -> float:
    """By what share a code is off its target; of a score, which is a floor, what it lacks.

    >>> miss(Target.parse("bits=8"), {"code_bits": 7.0}), miss(Target.parse("score=0.5"), {"score": 0.8})
    (-0.125, 0.0)
    """
    return target.miss(facts["code_bits" if target.what == "bits" else target.what])


def _plain(name: str, family: Family) -> tuple[ModelSettings, TrainSettings]:
    return ModelSettings(family=family), TrainSettings(steps=STEPS[name], threads=1)


def _aimed(family: Family, target: str) -> tuple[ModelSettings, TrainSettings]:
    return ModelSettings(family=family, target=target), TrainSettings(steps=CALIBRATION_STEPS, threads=1)


def _facts(name: str, model: ModelSettings, how: TrainSettings, seed: int) -> dict[str, Any]:
    """What a model of a set comes to on the rows that are held out."""
    table = rows_of(name)
    place = np.arange(table.num_rows)
    split = np.where(place % VALIDATES == 0, VALIDATION, TRAIN).astype(np.uint8)
    split[place // HELD_RUN % HELD_SHARE == HELD_SHARE - 1] = TEST
    began = time.process_time()  # whatever else runs
    trained = pipeline.fit(
        table,
        Schema.from_arrow(table.schema),
        bounds=_bounds(name, table),
        model=model,
        training=how.model_copy(update={"seed": seed}),
        split=split,
    )
    seconds = time.process_time() - began
    facts = {**held(trained, table, np.flatnonzero(split == TEST)), "processor_seconds": round(seconds, 1)}
    print(f"{name}, {model.family}, {model.target}: {_words(facts)}; {seconds:.0f} s", file=sys.stderr)
    return facts


def rows_of(name: str) -> pa.Table:
    """The rows of a set; SourceError if it is not there."""
    if name == "mnist":
        return open_source("sample:mnist").table().select(["image"]).slice(0, ROWS[name])
    return datasets.source(name).table().slice(0, ROWS[name])


def _bounds(name: str, table: pa.Table) -> dict[str, float]:
    specs = [f"*={BOUNDS[name]}"] if name in BOUNDS else []
    return dict(resolve_bounds(specs, Schema.from_arrow(table.schema), table_stats(table)))


def held(trained: TrainedModel, table: pa.Table, rows: np.ndarray) -> dict[str, Any]:
    """Bits a row by the model, the code's among them; what its code is like, and what it says by itself."""
    bits = model_bits(trained, *coded_among(trained, table, rows))
    sparsity = metrics.sparsity(encode_rows(trained, table.take(pa.array(rows))))
    return {
        "bits": bits["total"],
        "code_bits": bits["code"],
        "score": trained.record["code_score"],
        "nonzeros": sparsity["mean_nonzero"],
        "drawn": trained.record["code"]["drawn_nonzero"],
        "latents": trained.layout.plan.latents,
        "dead": int(sparsity["dead_latents"]),
        "collapsed": trained.record["code"]["collapsed"],
        "rows": len(rows),
    }


# --------------------------------------------------------------------------------------------------- as a table


def _tell_families(facts: Facts) -> str:
    return "; ".join(f"`{family}` {_words(found)}" for family, found in facts["families"].items())


def _words(found: Facts) -> str:
    score = f"{found['bits']:.1f} bits a row, {found['code_bits']:.1f} of them the code, score {found['score']:.2f}"
    alive = "collapsed" if found["collapsed"] else f"{found['dead']} dead"
    return f"{score}, {found['nonzeros']:.1f} of {found['latents']} non-zero, {alive}"


def _tell_calibration(case: str) -> Any:
    target = Target.parse(case.split()[1])
    what = "code_bits" if target.what == "bits" else target.what

    def tell(facts: Facts) -> str:
        found = facts["families"].items()
        return ", ".join(f"`{family}` {one[what]:.3g} ({off(target, one)})" for family, one in found)

    return tell


def off(target: Target, found: Facts) -> str:
    """How far off a code is, in words.

    >>> off(Target.parse("score=0.5"), {"miss": 0.0}), off(Target.parse("bits=8"), {"miss": -0.125})
    ('kept', '12.5% below')
    """
    far = found["miss"]
    if target.what == "score" and far == 0:
        return "kept"
    return f"{abs(far):.1%} {'below' if far < 0 else 'above'}"


def _case(name: str, settings: Iterable[tuple[ModelSettings, TrainSettings]], reach: str, tell: Any) -> Case:
    dumped = [
        {"model": m.model_dump(mode="json"), "training": t.model_dump(mode="json")} for m, t in settings
    ]
    return Case({"rows": ROWS[name], "bound": BOUNDS.get(name, "exact"), "each": dumped}, reach, tell)


def _floor(target: str) -> str:
    return (
        f"at least that, {NEAR_TARGET:.0%} less at most"
        if target.startswith("score")
        else f"within {NEAR_TARGET:.0%}"
    )


FAMILIES = Benchmark(
    title="Latent families from settings alone, short trainings, rows held out",
    published="",
    sources=SOURCES,
    # covertype last: it may not be there
    cases={
        name: _case(name, [_plain(name, family) for family in Family], "none collapsed", _tell_families)
        for name in ("flights", "mnist", "covertype")
    },
    measure=measure_families,
)
CALIBRATION = Benchmark(
    title="What a code with a target comes to, short trainings, rows held out",
    published="",
    sources=SOURCES,
    cases={
        f"{name} {target}": _case(
            name,
            [_aimed(family, target) for family in SPARSE],
            _floor(target),
            _tell_calibration(f"{name} {target}"),
        )
        for name in ("flights", "covertype")
        for target in TARGETS
    },
    measure=measure_calibration,
)
