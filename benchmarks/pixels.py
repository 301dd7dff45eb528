"""Grey images, exact: bits a pixel of test images by a model that never saw them, and of an archive with all inside.

The first 60,000 images train (one in twelve of them validates), the last 10,000 test. `test`: the streams of codes
and pixels of the test images, as an archive holds them, the decoder not counted. `counted`: the archive of all 70,000
images by that model, everything in it counted. Settings were chosen on training images.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.cells import Benchmark, Case, Facts
from benchmarks.sources import READ, TABLES, TEXTS, TOLD, reached
from data.schema import Schema
from data.sources import open_source
from data.split import TEST, VALIDATION
from vae import pipeline
from vae.codec.images import ImageModel
from vae.codes import encode_rows
from vae.judging import alone
from vae.settings import Codes, ModelSettings, TrainSettings

TRAIN, VALIDATES = 60_000, 12
BLOCK = 1_000
SETS = {"mnist": (1.00, 1.06), "fashion-mnist": (2.96, 3.03)}
"""Bits a pixel that are to be reached without a code, and with one."""
TITLES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
PUBLISHED = {"mnist": "decoder not counted: BB-ANS 1.41, Bit-Swap 1.29", "fashion-mnist": ""}
"""What others report; what general coders make of the images is measured, by `benchmarks.pictures`."""
WITHOUT = (*TABLES, *TEXTS, *TOLD, *READ, "vae/evaluate.py")
SOURCES = ("benchmarks/pixels.py", *reached("benchmarks/pixels.py", WITHOUT))


def settings(codes: Codes) -> tuple[ModelSettings, TrainSettings]:
    """The settings of all sets."""
    return ModelSettings(codes=codes), TrainSettings()


def measure(name: str, codes: Codes, seed: int) -> dict[str, Any]:
    """Bits a pixel of both kinds, what the code is worth on the test images, and the time it took to read them."""
    table = open_source(f"sample:{name}").table().select(["image"])
    place = np.arange(table.num_rows)
    split = np.where(place >= TRAIN, TEST, np.where(place % VALIDATES == 0, VALIDATION, 0)).astype(np.uint8)
    model, how = settings(codes)
    began = time.perf_counter()
    trained = pipeline.fit(
        table, Schema.from_arrow(table.schema), model=model, training=how.model_copy(update={"seed": seed}),
        split=split, on_progress=_told,
    )  # fmt: skip
    trained_in = time.perf_counter() - began
    held = table.slice(TRAIN)
    test = _test(trained, held)
    with tempfile.TemporaryDirectory() as folder:
        report = pipeline.compress(table, Path(folder) / "all.svae", model=trained)
    values = table.num_rows * _pixels(held)
    facts = trained.record["code"]
    return {
        **test,
        "counted": 8 * report.archive_bytes / values,
        "model": report.bytes.model,
        "score": alone(trained, held) if facts else None,
        "nonzeros": facts.get("mean_nonzero"),
        "steps": trained.record["steps"],
        "train_seconds": trained_in,
    }


def _pixels(table: pa.Table) -> int:
    return int(table.schema.field("image").type.list_size)


def _test(trained: Any, held: pa.Table) -> dict[str, float]:
    """Bits a pixel of held-out images, those of the code among them, and seconds of reading them on one core."""
    model = pipeline.integer_model(trained)
    if not isinstance(model, ImageModel):
        raise TypeError("a model of images was asked for")
    images = held["image"].combine_chunks().flatten().to_numpy().reshape(held.num_rows, -1)
    codes = encode_rows(trained, held)
    starts = range(0, len(images), BLOCK)
    none = np.zeros((BLOCK, 1), np.uint8)
    blocks = [model.encode_block(images[k : k + BLOCK], none, codes[k : k + BLOCK]) for k in starts]
    began = time.perf_counter()
    back = [model.decode_block(streams, BLOCK)[0] for streams in blocks]
    seconds = time.perf_counter() - began
    if not np.array_equal(np.concatenate(back), images):
        raise ValueError("what was read is not what was written")
    sizes = [8 * sum(len(streams[k]) for streams in blocks) / images.size for k in (0, 1)]
    return {"test": sum(sizes), "code": sizes[0], "read_seconds": seconds}


def _told(told: dict[str, Any]) -> None:
    if told["step"] % 100 == 0:
        print(f"step {told['step']} of {told['steps']}: {told['loss']:.1f} nats", file=sys.stderr, flush=True)


def _tell(facts: Facts) -> str:
    words = (
        f"{facts['test']:.3f} bits a pixel; counted {facts['counted']:.3f}, the model {facts['model']:,.0f} bytes; "
        f"{facts['steps']:,.0f} steps in {facts['train_seconds'] / 60:.0f} min; reads the test images in "
        f"{facts['read_seconds']:.1f} s"
    )
    if facts["score"] is None:
        return words
    return f"{words}; R² of the code alone {facts['score']:.2f}, {facts['nonzeros']:.1f} non-zero"


def benchmark(name: str) -> Benchmark:
    """The benchmark of one set."""
    cases = {
        str(codes): Case(
            {
                "model": settings(codes)[0].model_dump(mode="json"),
                "training": settings(codes)[1].model_dump(mode="json"),
            },
            f"{bits:.2f}, 0.01 more when counted" + (", with R² 0.6" if codes is Codes.balanced else ""),
            _tell,
            spread="test",
        )
        for codes, bits in zip((Codes.none, Codes.balanced), SETS[name], strict=True)
    }
    return Benchmark(
        f"{TITLES[name]}, exact: the 10,000 test images",
        PUBLISHED[name],
        SOURCES,
        cases,
        lambda case, seed: measure(name, Codes(case), seed),
        seeds=(0, 1, 2),
    )


PIXELS = {f"pixels-{name}": benchmark(name) for name in SETS}
