"""Texts, `sample:verses`: bits a byte of an archive beside general tools, and what a model of texts makes of them.

`archive`: all 31,102 verses, each tool once over the lines as one file, the archive with everything in it. `none` and
`balanced`: a model trained on nine tenths (one in twelve of these validates), measured on the last tenth: bits a byte
of text and code by the model, in floats, of what it reads of each text; archives are not written by it. Also the same
texts under the codes of others, which says what the decoder takes from a code.
"""

from __future__ import annotations

import bz2
import lzma
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.cells import Benchmark, Case, Facts
from benchmarks.sources import IMAGES, READ, TABLES, TOLD, reached
from data.schema import Schema
from data.sources import open_source
from data.split import TEST, VALIDATION
from vae import evaluate, pipeline
from vae.codes import coded_columns, encode_rows
from vae.judging import alone
from vae.settings import Codes, ModelSettings, TrainSettings
from vae.store import TrainedModel
from vae.texts import TextLayout, TextVAE, share_read

ARCHIVE = "archive"
VALIDATES, HELD = 12, 10
WITHOUT = (*TABLES, *IMAGES, *TOLD, *READ)
SOURCES = ("benchmarks/texts.py", "data/textgrid.py", *reached("benchmarks/texts.py", WITHOUT))


def measure(case: str, seed: int) -> dict[str, Any]:
    """Bits a byte of a case."""
    table = open_source("sample:verses").table()
    return archived(table) if case == ARCHIVE else learnt(table, Codes(case), seed)


def archived(table: pa.Table) -> dict[str, Any]:
    """Bits a byte of the archive, and of general tools."""
    lines = "".join(f"{text}\n" for text in table["text"].to_pylist()).encode()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report = pipeline.compress(table, Path(folder) / "verses.svae")
        wrote = time.perf_counter() - began
    sizes = {
        "xz": len(lzma.compress(lines, preset=9 | lzma.PRESET_EXTREME)),
        "bzip2": len(bz2.compress(lines, 9)),
        "zstd": len(pa.Codec("zstd", compression_level=19).compress(lines, asbytes=True)),
        "brotli": len(pa.Codec("brotli", compression_level=11).compress(lines, asbytes=True)),
    }
    per_byte = {name: 8 * size / len(lines) for name, size in sizes.items()}
    return {
        "bytes": report.archive_bytes,
        "bits": 8 * report.archive_bytes / len(lines),
        "seconds": wrote,
        **per_byte,
    }


def learnt(table: pa.Table, codes: Codes, seed: int) -> dict[str, Any]:
    """What a model says of held-out texts, and what its code is worth."""
    place = np.random.default_rng(0).permutation(table.num_rows)
    split = np.where(place % HELD == 0, TEST, np.where(place % VALIDATES == 1, VALIDATION, 0)).astype(
        np.uint8
    )
    began = time.perf_counter()
    model, training = settings(codes)
    trained = pipeline.fit(
        table, Schema.from_arrow(table.schema), model=model, training=training.model_copy(update={"seed": seed}),
        split=split,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    rows = np.flatnonzero(split == TEST)
    bits = evaluate.model_bits(trained, coded_columns(trained, table), rows)
    held = table.take(pa.array(rows))
    texts = held["text"].to_pylist()
    if not isinstance(trained.layout, TextLayout):
        raise TypeError("a model of texts was asked for")
    # of the bytes that the model reads, ends among them
    share = len(rows) / (share_read(texts, trained.layout) * sum(1 + len(text.encode()) for text in texts))
    return {
        "bits": share * bits["total"],
        "code": bits["code"],
        "others": share * _under_codes_of_others(trained, held) if codes is not Codes.none else None,
        "text": share * bits["columns"]["text"],
        "score": alone(trained, held) if codes is not Codes.none else None,
        "nonzeros": trained.record["code"].get("mean_nonzero"),
        "steps": trained.record["steps"],
        "train_seconds": seconds,
    }


def _under_codes_of_others(trained: TrainedModel, held: pa.Table) -> float:
    """Bits a text, each under the code of the next."""
    if not isinstance(trained.module, TextVAE):
        raise TypeError("a model of texts was asked for")
    codes = torch.from_numpy(np.roll(encode_rows(trained, held), 1, 0).astype(np.float32))
    coded, total = coded_columns(trained, held), 0.0
    batches = evaluate.batches(trained, coded, np.arange(held.num_rows))
    with torch.no_grad():
        for batch, code in zip(batches, codes.split(evaluate.TEXT_CHUNK), strict=True):
            total += float(trained.module.held_nats(batch, code).double().sum())
    return total / np.log(2) / held.num_rows


def settings(codes: Codes) -> tuple[ModelSettings, TrainSettings]:
    """The usual ones."""
    return ModelSettings(codes=codes), TrainSettings()


def _tell(facts: Facts) -> str:
    if "xz" in facts:
        tools = ", ".join(f"{name} {facts[name]:.3f}" for name in ("bzip2", "xz", "brotli", "zstd"))
        wrote = f"{facts['bytes']:,} bytes, written in {facts['seconds']:.0f} s"
        return f"{facts['bits']:.3f} bits a byte ({wrote}); {tools}"
    trained = f"{facts['steps']:,.0f} steps in {facts['train_seconds'] / 60:.0f} min"
    words = f"{facts['bits']:.3f} bits a byte by the model; {trained}"
    if facts["score"] is None:
        return words
    return (
        f"{words}; {facts['text']:.3f} of the texts ({facts['others']:.3f} under codes of others) and "
        f"{facts['code']:.1f} bits a text of the code; {facts['nonzeros']:.1f} non-zero, "
        f"R² of words {facts['score']:.2f}"
    )


def _case(codes: Codes) -> Case:
    model, training = settings(codes)
    told = {"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    return Case(told, "", _tell)


TEXTS = Benchmark(
    "King James Bible, 31,102 verses",
    "",
    SOURCES,
    {
        ARCHIVE: Case({}, "smaller than all of them", _tell),
        "none": _case(Codes.none),
        "balanced": _case(Codes.balanced),
    },
    measure,
)
