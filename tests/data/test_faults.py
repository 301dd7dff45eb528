"""Killed at any moment, and larger than memory: slow tests."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.errors import SourceError
from data.ingest import ingest, open_dataset
from data.statistics import content_digest

pytestmark = pytest.mark.slow

KILLS = 20

INGEST = (
    "import sys; from data.ingest import ingest; print('ready', flush=True); ingest(sys.argv[1], sys.argv[2])"
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def start(source: Path, target: Path) -> subprocess.Popen[bytes]:
    """A process that has imported all it needs and begins to ingest."""
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, source, target], env=ENVIRONMENT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    paths = []
    for name, rows in (("a", 60_000), ("b", 61_000)):
        path = tmp_path / f"{name}.csv"
        path.write_text("n,x\n" + "".join(f"{index},{index / 8}\n" for index in range(rows)))
        paths.append(path)
    return paths


def assert_whole(target: Path, digests: set[str]) -> str | None:
    """There is one of these datasets, complete, or nothing under the name at all."""
    try:
        dataset = open_dataset(target)
    except SourceError:
        assert not target.exists()
        return None
    assert content_digest(dataset.table()) == dataset.manifest.digest
    assert dataset.manifest.digest in digests
    return dataset.manifest.digest


def assert_tidy(source: Path, target: Path) -> None:
    """The next run finishes the job and clears what killed ones left."""
    ingest(source, target)
    assert open_dataset(target).manifest.source.uri == str(source)
    assert not [path for path in target.parent.iterdir() if path.name.endswith(".tmp")]
    assert len(list(target.iterdir())) == 2


def test_killed_at_any_moment_there_is_the_old_dataset_or_the_new_one(tmp_path, sources):
    digests = [ingest(source, tmp_path / f"whole-{source.stem}").manifest.digest for source in sources]
    longest = seconds_of(sources[0], tmp_path / "timed")
    target, dice, kills, there = tmp_path / "out", random.Random(0), 0, None

    for attempt in range(5 * KILLS):
        other = int(there == digests[0])
        if attempt == KILLS // 4:  # from here on something is replaced
            longest = max(longest, seconds_of(sources[other], target))
            killed = False
        else:
            with start(sources[other], target) as process:
                time.sleep(dice.uniform(0, longest))
                process.kill()
            killed = process.returncode != 0
        now = assert_whole(target, set(digests))
        assert now == digests[other] or (killed and now == there)
        there, kills = now, kills + killed
        if kills == KILLS:
            break

    assert kills == KILLS
    assert_tidy(sources[there == digests[0]], target)


def seconds_of(source: Path, target: Path) -> float:
    with start(source, target) as process:
        began = time.monotonic()
        assert process.wait(300) == 0
    return time.monotonic() - began


DYING = """
import os, pathlib, shutil, sys
from data.ingest import ingest

steps = int(sys.argv[3])

def dying(function):
    def step(*arguments, **options):
        global steps
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), 9)
        return function(*arguments, **options)
    return step

os.fsync, shutil.rmtree = dying(os.fsync), dying(shutil.rmtree)
pathlib.Path.rename, pathlib.Path.replace = dying(pathlib.Path.rename), dying(pathlib.Path.replace)
ingest(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("former", [False, True], ids=["new", "replaced"])
def test_killed_before_each_step_that_touches_names(tmp_path, sources, former):
    old, new = (ingest(source, tmp_path / f"whole-{source.stem}").manifest.digest for source in sources)
    target, steps, survived = tmp_path / "out", 0, False

    while not survived:
        if former:
            ingest(sources[0], target)
        command = [sys.executable, "-c", DYING, sources[1], target, str(steps)]
        survived = subprocess.run(command, env=ENVIRONMENT, check=False).returncode == 0
        assert_whole(target, {old, new} if former else {new})
        assert target.exists() or not former
        steps += 1

    assert steps > 6
    assert_tidy(sources[1], target)


MEASURED = """
import re, sys
from data.ingest import ingest
dataset = ingest(sys.argv[1], sys.argv[2])
print(dataset.rows, re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1])
"""
# not `ru_maxrss`: a process begins with that of the one that started it, here all tests before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_source(tmp_path):
    """10 million rows x 10 columns take under 1 GiB; `SVAE_ROWS` scales the test."""
    rows = int(os.environ.get("SVAE_ROWS", "10_000_000"))
    block = 100_000
    dice = random.Random(0)
    path = tmp_path / "large.csv"
    lines = "".join(
        f"{dice.randrange(10**6)},{dice.randrange(100)},{dice.random():.6f},{dice.gauss(0, 1)!r},w{dice.randrange(50)},"
        f"id{dice.randrange(10**9)},{dice.randrange(-50, 50) / 10},2020-01-{dice.randrange(1, 29):02d} 00:00:00,"
        f"{dice.choice(['true', 'false'])},{dice.choice(['', '7'])}\n"
        for _ in range(block)
    )
    with path.open("w") as file:
        file.write("a,b,c,d,e,f,g,h,i,j\n")
        for number in range(rows // block):
            file.write(lines.replace(",id", f",id{number}-"))  # identifiers never come again
    quarter = tmp_path / "quarter.csv"
    with path.open() as whole, quarter.open("w") as file:
        file.writelines(itertools.islice(whole, rows // 4 + 1))

    (few, small), (counted, peak) = (_measured(part, tmp_path / part.stem) for part in (quarter, path))
    assert (few, counted) == (rows // 4, rows)
    assert peak < 2**20, f"peak {peak} KiB"
    # four times the rows: Arrow's buffers may grow a little, but not by what three quarters of the source take
    assert peak - small < 0.5 * 0.75 * path.stat().st_size / 1024, f"peaks {small} and {peak} KiB"


def _measured(source, out):
    """Rows and peak memory in KiB of an ingestion."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, source, out],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows, peak = map(int, done.stdout.split())
    return rows, peak
