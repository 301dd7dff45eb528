"""Killed at random moments, a command leaves the old file, the new one or none; the next run finishes the job."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from data.errors import SvaeError
from vae.codec import archive
from vae.store import load

pytestmark = pytest.mark.slow

ROWS = 4_000
MOMENTS = {"compress": 18, "decompress": 16, "train": 16}
SERVED = ["flows.cli", "flows.jobs", "vae.pipeline", "vae.codec.archive", "vae.codec.kernel"]
"""What the process that forks the others imports once for all of them."""


def command(*arguments: str) -> None:
    """`svae` in a process that is forked where all is imported already."""
    from flows.cli import run

    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        os._exit(run(list(arguments)))


def table(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.integers(-2, 3, ROWS))
    return pa.table(
        {"walk": walk, "letter": [f"l{k % 9}" for k in walk], "x": rng.normal(size=ROWS).round(3)}
    )


class Killer:
    """Runs commands and kills each at a random moment, which soon lies within what they take."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(SERVED)
        self.dice = random.Random(0)
        self.longest = 2.0
        self.killed = self.finished = 0

    def run(self, *arguments: object) -> None:
        process = self.start(*arguments)
        process.join(self.dice.uniform(0, self.longest))
        process.kill()
        process.join()
        ended = process.exitcode != -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
        self.finished, self.killed = self.finished + ended, self.killed + (not ended)
        self.longest *= 0.8 if ended else 1.15

    def to_the_end(self, *arguments: object) -> None:
        process = self.start(*arguments)
        process.join(300)
        assert process.exitcode == 0

    def start(self, *arguments: object) -> multiprocessing.context.ForkServerProcess:
        process = self.context.Process(target=command, args=tuple(map(str, arguments)))
        process.start()
        return process


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tables as CSV and as archives, and a model of the first."""
    folder = tmp_path_factory.mktemp("sources")
    killer = Killer()
    for k in range(2):
        pc.write_csv(table(k), folder / f"{k}.csv")
    killer.to_the_end("train", folder / "0.csv", "--out", folder / "model", "--steps", 30)
    for k in range(2):
        arguments = ("compress", folder / f"{k}.csv", "-o", folder / f"{k}.svae", "--model", folder / "model")
        killer.to_the_end(*arguments)
    return [folder / "0.csv", folder / "1.csv"]


def digest(columns: pa.Table) -> str:
    return hashlib.sha256(repr(columns.to_pydict()).encode()).hexdigest()


def calls_of(name: str, sources: list[Path]) -> list[Callable[[Path], tuple[object, ...]]]:
    """The command, once for each source, as its arguments."""
    folder = sources[0].parent
    if name == "compress":
        return [lambda out, s=s: ("compress", s, "-o", out, "--model", folder / "model") for s in sources]
    if name == "decompress":
        return [lambda out, s=s: ("decompress", s.with_suffix(".svae"), "-o", out) for s in sources]
    return [lambda out, s=s: ("train", s, "--out", out, "--steps", 30, "--resume") for s in sources]


def found(name: str, target: Path) -> str | None:
    """What is there under the name, whole: whatever is a part of something fails here."""
    try:
        if name == "compress":
            with archive.open(target) as opened:
                opened.verify()
                return digest(opened.read())
        if name == "decompress":
            return digest(pq.read_table(target)) if target.exists() else None
        return load(target).digest
    except SvaeError:
        assert not target.exists()
        return None


@pytest.mark.parametrize("name", MOMENTS)
def test_at_any_moment_there_is_the_old_file_or_the_new_one(
    name: str, sources: list[Path], tmp_path: Path
) -> None:
    killer = Killer()
    target = tmp_path / {"compress": "out.svae", "decompress": "out.parquet", "train": "out"}[name]
    calls = calls_of(name, sources)
    whole: set[str | None] = {None}
    for k, call in enumerate(calls):
        undisturbed = tmp_path / f"whole-{k}{target.suffix}"
        killer.to_the_end(*call(undisturbed))
        whole.add(found(name, undisturbed))
    assert len(whole) == 3
    before = {entry.name for entry in tmp_path.iterdir()}
    seen: set[str | None] = set()
    for moment in range(MOMENTS[name]):
        killer.run(*calls[moment % 2](target))
        seen.add(found(name, target))
    assert seen <= whole
    assert killer.killed >= MOMENTS[name] // 3
    killer.to_the_end(*calls[0](target))
    assert found(name, target) == found(name, tmp_path / f"whole-0{target.suffix}")
    time.sleep(0.1)
    assert {entry.name for entry in tmp_path.iterdir()} == before | {target.name}
