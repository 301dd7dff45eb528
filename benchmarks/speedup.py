"""How soon a training of `flights` is near its end, beside a plain PyTorch loop of the same model.

Ours is `vae.train.fit` with standard effort; what counts is the first validation within `NEAR` of its final bits. The
plain loop has the same model, loss, rows and batch size, its data in memory, a shuffled `DataLoader` of a
`TensorDataset`, Adam and a constant learning rate, in float32; the best of three rates counts. Both have all cores, the
plain loop as many threads an operation as its first steps are quickest with: one, or all. They validate on the same
rows with the same code at the same steps; ours is charged for it and the plain loop is not. A rate that is not there
after `PATIENCE` times our seconds is given up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import datasets
from benchmarks.cells import Benchmark, Case, Facts
from benchmarks.sources import IMAGES, TEXTS, TOLD, reached
from data.split import split_for
from vae import charts, schedule, train
from vae.features import Layout
from vae.lesson import Lesson, lesson_of
from vae.loop import Rows, paid, validate, validation_batches
from vae.model import SparseVAE
from vae.settings import Codes, ModelSettings, TrainSettings

Curve = list[tuple[float, float]]
"""Seconds, and bits a row of rows held out, at each validation."""
NEAR = 1.02
"""Bits that are near enough, over those at the end."""
PATIENCE = 4.0
TRIAL = 60
"""Steps by which threads are chosen."""
WITHOUT = (*IMAGES, *TEXTS, *TOLD, "vae/charts.py", "vae/judging.py", "vae/codec/integer.py")
RATES = (0.001, 0.003, 0.01)
TRAINING = TrainSettings()
MODELS = {str(codes): ModelSettings(codes=codes) for codes in (Codes.none, Codes.balanced)}


def measure(case: str, seed: int) -> dict[str, Any]:
    """Seconds until the bits of held-out rows are near, of ours and of the plain loop with each rate."""
    table = datasets.variants("flights")[0]
    lesson = lesson_of(
        table, None, MODELS[case], split_for(table.num_rows, seed).of(np.arange(table.num_rows))
    )
    training = TRAINING.model_copy(update={"seed": seed})
    times, steps, final = ours(lesson, MODELS[case], training)
    near = NEAR * final
    first = arrival(times, near)
    if first is None:
        raise ValueError("no validation is near the bits at the end")
    threads = quickest_threads(lesson, MODELS[case], training)
    curves = {
        str(rate): plain_curve(
            lesson,
            MODELS[case],
            training,
            rate=rate,
            near=near,
            steps=steps,
            most=PATIENCE * first,
            threads=threads,
        )
        for rate in RATES
    }
    return {
        "final_bits": final,
        "seconds": first,
        "all_seconds": times[-1][0],
        "steps": steps,
        "plain": {rate: arrival(curve, near) for rate, curve in curves.items()},
        "curve": times,
        "plain_curves": curves,
        "threads": train.threads(training)._asdict(),
        "plain_threads": threads,
        "given_up": PATIENCE * first,
    }


def arrival(curve: Curve, near: float) -> float | None:
    """Seconds at the first validation that is near enough; None if there is none.

    >>> arrival([(1.0, 9.0), (2.0, 5.0), (3.0, 4.0)], near=5.0)
    2.0
    """
    return next((seconds for seconds, bits in curve if bits <= near), None)


def rows_of(lesson: Lesson) -> Rows:
    """What both are trained on."""
    return Rows(lesson.arrays, lesson.learn, lesson.held)


def ours(lesson: Lesson, model: ModelSettings, training: TrainSettings) -> tuple[Curve, int, float]:
    """Seconds and bits at each validation, the number of steps, and the bits at the end."""
    began, told = time.perf_counter(), list[tuple[int, float]]()

    def note(now: dict[str, Any]) -> None:
        told.append((now["step"], time.perf_counter() - began))

    layout = cast(Layout, lesson.layout)
    trained, record = train.fit(lambda: SparseVAE(layout, model), rows_of(lesson), training, on_progress=note)
    # what is told comes a little after a validation, never before it
    times = [
        (next(second for step, second in told if step >= entry["step"]), paid(entry))
        for entry in record["history"]
    ]
    return times, record["steps"], paid(validate(trained, held_of(lesson, training)))


def held_of(lesson: Lesson, training: TrainSettings) -> list[dict[str, Tensor]]:
    """The rows that validate."""
    return validation_batches(rows_of(lesson), tensors(lesson), training.seed)


def tensors(lesson: Lesson) -> dict[str, Tensor]:
    """All arrays, in memory."""
    return {
        name: torch.from_numpy(np.require(array, requirements=["C", "W"]))
        for name, array in lesson.arrays.items()
    }


def quickest_threads(lesson: Lesson, settings: ModelSettings, training: TrainSettings) -> int:
    """Threads an operation with which the plain loop's first steps take least: one, or all cores."""

    def seconds(threads: int) -> float:
        loop = plain_loop(lesson, settings, training, rate=RATES[0], steps=TRIAL, threads=threads)
        for _ in range(TRIAL // 4):  # the first ones are slow
            next(loop)
        began = time.perf_counter()
        for _ in range(TRIAL):
            next(loop)
        return time.perf_counter() - began

    return min({1, train.cores()}, key=seconds)


def plain_curve(
    lesson: Lesson,
    settings: ModelSettings,
    training: TrainSettings,
    *,
    rate: float,
    near: float,
    steps: int,
    most: float,
    threads: int,
) -> Curve:
    """Seconds and bits at each validation of the plain loop, its validations not counted.

    It ends where it is near enough, or is given up after `most` seconds.
    """
    held = held_of(lesson, training)
    loop = plain_loop(lesson, settings, training, rate=rate, steps=steps, threads=threads)
    spent, began, curve = 0.0, time.perf_counter(), Curve()
    for step, model in enumerate(loop, 1):
        if step % schedule.interval(steps) == 0:
            spent += time.perf_counter() - began
            curve.append((spent, paid(validate(model, held))))
            if curve[-1][1] <= near or spent > most:
                return curve
            began = time.perf_counter()
    raise AssertionError("batches never end")


def plain_loop(
    lesson: Lesson,
    settings: ModelSettings,
    training: TrainSettings,
    *,
    rate: float,
    steps: int,
    threads: int,
) -> Iterator[SparseVAE]:
    """The model after each step, for ever; `steps` is what its weights that fall or rise go by."""
    torch.manual_seed(training.seed)
    torch.set_num_threads(threads)
    model = SparseVAE(cast(Layout, lesson.layout), settings)
    model.begin("joint", held_of(lesson, training)[0])
    arrays = tensors(lesson)
    learn = torch.from_numpy(lesson.learn)
    dataset = TensorDataset(*(array.index_select(0, learn) for array in arrays.values()))
    loader = DataLoader(
        dataset, batch_size=training.batch_rows or train.USUAL_BATCH, shuffle=True, drop_last=True
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(training.seed)
    for step, batch in enumerate(_for_ever(loader), 1):
        named = dict(zip(arrays, batch, strict=True))
        terms = model.loss(named, progress=min(1.0, step / steps), phase="joint", generator=generator)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        yield model


def _for_ever(loader: DataLoader[Any]) -> Iterator[list[Tensor]]:
    while True:
        yield from loader


def _tell(facts: Facts) -> str:
    ours = facts["seconds"]
    known = {rate: seconds for rate, seconds in facts["plain"].items() if seconds is not None}
    if not known:
        return f"{ours:.0f} s; plain loop not there after {facts['given_up']:.0f} s with any rate"
    rate = min(known, key=lambda rate: known[rate])
    return (
        f"{ours:.0f} s, plain loop {known[rate]:.0f} s (rate {rate}): {known[rate] / ours:.1f} times quicker"
    )


COLOURS = (charts.ORANGE, charts.TEAL, charts.RED)
DASHES = ("6 3", "2 2", "8 3 2 3")
SHOWN = 1.3
"""Bits that are drawn at most, over those at the end: the first ones would leave no room for the others."""
SECONDS = (1, 3, 10, 30, 100, 300, 1_000)


def drawing(cells: Mapping[str, Facts]) -> str:
    """Bits of held-out rows over the seconds of training, in SVG: cells by case, beside each other; nothing of cells
    that kept no curve, and "" if none did.
    """
    panels = [_panel(case, facts) for case, facts in cells.items() if "curve" in facts]
    if not panels:
        return ""
    width, height = len(panels) * charts.WIDTH, charts.HEIGHT + 100
    placed = (f'<g transform="translate({k * charts.WIDTH} 0)">{panel}</g>' for k, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif"><rect width="{width}" height="{height}" fill="white"/>\n'
        + "\n".join([*placed, "</svg>"])
        + "\n"
    )


def _panel(case: str, facts: Facts) -> str:
    end = facts["final_bits"]
    curves = {"this project": facts["curve"]} | {
        f"plain, rate {k}": v for k, v in facts["plain_curves"].items()
    }
    styles = [(charts.BLUE, ""), *zip(COLOURS, DASHES, strict=True)]
    lines = [
        charts.Line(name, *_points(curve, SHOWN * end), color, dash, dots=len(curve) < 2)
        for (name, curve), (color, dash) in zip(curves.items(), styles, strict=False)
    ]
    across = [x for line in lines for x in line.x] or [0.0, 1.0]
    lines.append(charts.Line(f"{NEAR - 1:.0%} over the end", (min(across), max(across)), (NEAR * end,) * 2))
    ticks = [(math.log10(k), str(k)) for k in SECONDS if min(across) <= math.log10(k) <= max(across)]
    chart = charts.line_chart(lines, "seconds of training", "bits a row of rows held out", ticks=ticks)
    title = f'<text x="8" y="22" font-size="14" fill="{charts.INK}">code `{case}`, beside a plain loop</text>'
    return f'{title}<g transform="translate(0 30)">{chart}</g>'


def _points(curve: Curve, most: float) -> tuple[list[float], list[float]]:
    """Logarithms of seconds, and bits, where these are not more than is drawn."""
    shown = [(math.log10(seconds), bits) for seconds, bits in curve if bits <= most and seconds > 0]
    return [x for x, _ in shown], [y for _, y in shown]


def _case(name: str) -> Case:
    settings = {
        "model": MODELS[name].model_dump(mode="json"),
        "training": TRAINING.model_dump(mode="json"),
        "near": NEAR,
        "rates": RATES,
        "patience": PATIENCE,
    }
    return Case(settings, "3 times quicker", _tell)


SPEEDUP = Benchmark(
    title="Training on `flights` to 2% of its final bits, beside a plain PyTorch loop",
    published="",
    sources=("benchmarks/speedup.py", *reached("benchmarks/speedup.py", WITHOUT)),
    cases={name: _case(name) for name in MODELS},
    measure=measure,
    alone=True,
)
