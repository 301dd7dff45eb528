"""Killed at any moment, and larger than memory: slow tests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from data.errors import SourceError
from data.ingest import ingest, open_dataset
from data.statistics import content_digest

pytestmark = pytest.mark.slow

INGEST = (
    "import sys; from data.ingest import ingest; print('ready', flush=True); ingest(sys.argv[1], sys.argv[2])"
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def start(source, target) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, source, target], env=ENVIRONMENT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_killed_at_any_moment_there_is_the_old_dataset_or_the_new_one(tmp_path):
    sources = []
    for name, rows in (("a", 60_000), ("b", 61_000)):
        path = tmp_path / f"{name}.csv"
        path.write_text("n,x\n" + "".join(f"{index},{index / 8}\n" for index in range(rows)))
        sources.append(path)
    began = time.monotonic()
    process = start(sources[0], tmp_path / "timed")
    process.wait()
    duration = time.monotonic() - began
    whole = {ingest(source, tmp_path / f"whole-{source.stem}").manifest.digest for source in sources}
    target, dice, killed = tmp_path / "out", random.Random(0), 0

    for attempt in range(50):
        process = start(sources[attempt % 2], target)
        time.sleep(dice.uniform(0, duration))
        process.kill()
        killed += process.wait() != 0
        process.stdout.close()
        try:
            dataset = open_dataset(target)
        except SourceError:
            assert not target.exists()  # Nothing yet: then nothing at all.
            continue
        assert content_digest(dataset.table()) == dataset.manifest.digest
        assert dataset.manifest.digest in whole

    assert killed > 10
    final = ingest(sources[0], target)
    assert open_dataset(target).table().num_rows == 60_000
    assert final.path == target
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    assert len(list(target.iterdir())) == 2


MEASURED = """
import resource, sys
from data.ingest import ingest
dataset = ingest(sys.argv[1], sys.argv[2])
print(dataset.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_source(tmp_path):
    """10 million rows x 10 columns take under 1 GiB; `SVAE_ROWS` scales the test, a tenth by default."""
    rows = int(os.environ.get("SVAE_ROWS", "1_000_000"))
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
        for _ in range(rows // block):
            file.write(lines)

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, path, tmp_path / "out"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )

    counted, peak_kib = map(int, done.stdout.split())
    assert counted == rows
    assert peak_kib < 2**20, f"peak {peak_kib} KiB"
