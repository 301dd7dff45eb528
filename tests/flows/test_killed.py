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
from data.ingest import open_dataset
from data.statistics import content_digest
from vae.codec import archive
from vae.store import load

pytestmark = pytest.mark.slow

ROWS = 4_000
KILLS = 13
"""Of each command at random moments: more than fifty of the four."""
TARGETS = {"compress": "out.svae", "decompress": "out.parquet", "ingest": "out", "train": "out"}
DECIDES = {"ingest": "manifest.json", "train": "model.json"}
"""The file in a folder that decides which of two is there."""
SERVED = ["flows.cli", "flows.jobs", "data.ingest", "vae.pipeline", "vae.codec.archive", "vae.codec.kernel"]
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
    """Runs commands, to their end or until it kills them."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(SERVED)
        self.dice = random.Random(0)

    def to_the_end(self, *arguments: object) -> float:
        """The seconds it took."""
        began = time.monotonic()
        process = self.start(*arguments)
        process.join(300)
        assert process.exitcode == 0
        return time.monotonic() - began

    def kill_within(self, seconds: float, *arguments: object) -> bool:
        """Whether it was killed, at a random moment, or had ended before."""
        process = self.start(*arguments)
        process.join(self.dice.uniform(0, seconds))
        return self.killed(process)

    def kill_when(self, happened: Callable[[], bool], *arguments: object) -> bool:
        process = self.start(*arguments)
        while process.is_alive() and not happened():
            time.sleep(0.0002)
        return self.killed(process)

    def killed(self, process: multiprocessing.context.ForkServerProcess) -> bool:
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0

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
    if name == "ingest":
        return [lambda out, s=s: ("ingest", s, "--out", out) for s in sources]
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
        if name == "ingest":
            dataset = open_dataset(target)
            assert content_digest(dataset.table()) == dataset.manifest.digest
            return dataset.manifest.digest
        return load(target).digest
    except SvaeError:
        assert not target.exists()
        return None


class Place:
    """Where a command writes the one of two things that is not there, and is killed."""

    def __init__(self, name: str, sources: list[Path], folder: Path) -> None:
        self.name, self.folder, self.killer = name, folder, Killer()
        self.target = folder / TARGETS[name]
        self.calls = calls_of(name, sources)
        self.whole: list[str | None] = []
        self.seconds = 0.0
        for k, call in enumerate(self.calls):
            undisturbed = folder / f"whole-{k}{self.target.suffix}"
            self.seconds = max(self.seconds, self.killer.to_the_end(*call(undisturbed)))
            self.whole.append(found(name, undisturbed))
        assert None not in self.whole
        assert len(set(self.whole)) == 2
        self.there: str | None = None

    def next_call(self) -> tuple[tuple[object, ...], str | None]:
        """The call that changes what is there, and what is there after it."""
        k = 1 if self.there == self.whole[0] else 0
        return self.calls[k](self.target), self.whole[k]

    def killed_at_random(self) -> bool:
        call, new = self.next_call()
        return self.as_before_or(new, self.killer.kill_within(self.seconds, *call))

    def killed_when(self, happened: Callable[[], bool]) -> bool:
        call, new = self.next_call()
        return self.as_before_or(new, self.killer.kill_when(happened, *call))

    def finished(self) -> None:
        call, new = self.next_call()
        self.killer.to_the_end(*call)
        self.as_before_or(new, killed=False)

    def as_before_or(self, new: str | None, killed: bool) -> bool:
        """What was there is there, or the new, which is there for certain if the command was not killed."""
        now = found(self.name, self.target)
        assert now == new or (killed and now == self.there)
        self.there = now
        return killed

    def names(self) -> set[str]:
        return {entry.name for entry in self.folder.iterdir()}

    def traces(self) -> set[Path]:
        """Changes as soon as anything is written beside the target, or into it; checkpoints are not meant."""
        walked = os.walk(self.folder)  # which, unlike `rglob`, takes folders that vanish meanwhile
        return {Path(at) / name for at, _, names in walked for name in names if ".out.training" not in at}

    def written(self) -> tuple[int, int]:
        """Changes when what is there does, and not before."""
        decides = self.target / DECIDES[self.name] if self.name in DECIDES else self.target
        status = decides.stat()
        return status.st_ino, status.st_mtime_ns


@pytest.mark.parametrize("name", TARGETS)
def test_at_any_moment_there_is_the_old_file_or_the_new_one(
    name: str, sources: list[Path], tmp_path: Path
) -> None:
    place = Place(name, sources, tmp_path)
    before = place.names()
    kills = attempts = 0
    while kills < KILLS:
        if place.there is None and kills >= KILLS // 3:
            place.finished()  # from here on something is replaced
        kills += place.killed_at_random()
        attempts += 1
        assert attempts < 5 * KILLS

    for _ in range(4):
        traces = place.traces()
        place.killed_when(lambda: place.traces() != traces)  # noqa: B023

    replaced = 0
    for _ in range(20):  # as soon as the new one has its name
        old, written = place.there, place.written()
        killed = place.killed_when(lambda: place.written() != written)  # noqa: B023
        replaced += killed and place.there != old
        if replaced:
            break
    assert replaced

    place.finished()
    time.sleep(0.1)
    assert place.names() == before | {place.target.name}
