"""The same bytes on any machine: threads, processors, libraries, with and without a compiler, whole and by parts.

The aarch64 test needs `SVAE_TEST_ARM64`, a folder that `tests/arm64.py` made; `make test-slow` sees to it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.gridfit import fit_table
from vae.codec import archive, structure, writer
from vae.codec.integer import IntegerModel
from vae.planning import make_plan

REPOSITORY = Path(__file__).parents[2]
FIXTURES = sorted((REPOSITORY / "tests" / "fixtures").glob("*.svae"))


def decode(
    paths: list[Path], threads: int = 1, how: str = "whole", python: str = sys.executable, **variables: str
) -> dict[str, Any]:
    """What `tests/decode.py` finds in another process."""
    done = subprocess.run(
        [python, REPOSITORY / "tests" / "decode.py", str(threads), how, *paths],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=1_200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def several_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of groups of blocks, every kind of column through a model of random weights."""
    random, rows = np.random.default_rng(5), 700
    walk, key = np.cumsum(random.integers(-4, 6, rows)), random.integers(0, 40, rows)
    table = pa.table({
        "walk": pa.array(walk, mask=random.random(rows) < 0.1),
        "sum": 2 * walk + key + random.integers(-2, 3, rows),
        "key": pa.array([f"k{k}" for k in key], mask=random.random(rows) < 0.1),
        "twice": 3 * walk + 1,
        "price": pa.array(np.round(random.gamma(2, 30, rows), 2), mask=random.random(rows) < 0.1),
        "noise": random.normal(size=rows),
        "note": [f"note {k}" for k in random.permutation(rows)],
        "flag": random.random(rows) < 0.3,
    })  # fmt: skip
    grid = fit_table(table)
    coded = {g.name: g.encode(table[g.name]) for g in grid.columns if g.kind != "opaque"}
    derived = structure.find(grid, coded)
    names = [name for name in coded if name not in {d.name for d in derived}]
    plan = make_plan(grid, {name: coded[name] for name in names}, latents=3, width=5)
    model = IntegerModel(plan, {
        name: random.integers(-90, 91, shape).astype(np.int16) for name, shape in plan.shapes().items()
    })  # fmt: skip
    codes = (random.integers(-2, 3, (rows, 3)) * (random.random((rows, 3)) < 0.4)).astype(np.int8)
    path = tmp_path_factory.mktemp("anywhere") / "several-blocks.svae"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        patch.setattr(writer, "MAX_GROUP_ROWS", 300)
        archive.write(table, path, grid=grid, derived=derived, model=model, codes=codes, block_rows=100)
    with archive.open(path) as opened:
        assert (opened.header.groups, opened.header.block_count(0)) == (3, 3)
        assert len(opened.header.coded) >= 4
        assert opened.read().equals(table)
    return path


@pytest.fixture(scope="module")
def paths(several_blocks: Path) -> list[Path]:
    return [*FIXTURES, several_blocks]


@pytest.fixture(scope="module")
def expected(paths: list[Path]) -> dict[str, list[str]]:
    """With one thread, whole, compiled and whatever BLAS chooses."""
    return decode(paths, NUMBA_DISABLE_JIT="0")["digests"]


def without(core: str) -> str | None:
    """Why OpenBLAS cannot be told to take this machine for that processor; None if it can."""
    if core and platform.machine() not in ("x86_64", "AMD64"):
        return "OpenBLAS has these processors on x86-64 only"
    features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if core == "Haswell" and " avx2" not in features:
        return "this processor has not all instructions of a Haswell"
    return None


@pytest.mark.parametrize(
    ("core", "threads", "how"),
    [
        ("", 1, "parts"),
        ("", 2, "whole"),
        ("", 2, "parts"),
        ("Prescott", 2, "parts"),
        ("Nehalem", 1, "whole"),
        ("Haswell", 2, "whole"),
    ],
)
def test_no_thread_processor_or_part_changes_a_byte(
    core: str, threads: int, how: str, paths: list[Path], expected: dict[str, list[str]]
) -> None:
    if reason := without(core):
        pytest.skip(reason)
    blas = {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": str(threads)} if core else {}
    found = decode(paths, threads, how, NUMBA_DISABLE_JIT="0", **blas)
    assert found["compiled"]
    assert found["digests"] == expected


@pytest.mark.parametrize(("core", "threads", "how"), [("", 1, "whole"), ("Prescott", 2, "parts")])
def test_uncompiled_it_is_the_same(
    core: str, threads: int, how: str, several_blocks: Path, expected: dict[str, list[str]]
) -> None:
    """(The frozen archives are read so by the tests that are marked `jit`, in their second run.)"""
    if reason := without(core):
        pytest.skip(reason)
    blas = {"OPENBLAS_CORETYPE": core} if core else {}
    found = decode([several_blocks], threads, how, NUMBA_DISABLE_JIT="1", **blas)
    assert not found["compiled"]
    assert found["digests"] == {several_blocks.name: expected[several_blocks.name]}


def test_floats_would_not_have_been_the_same(several_blocks: Path) -> None:
    """What these tests ask OpenBLAS for, it does: a product of floats has other last bits on another processor."""
    cores = [core for core in ("Prescott", "Nehalem", "Haswell") if without(core) is None]
    if len(cores) < 2 or sys.platform != "linux":
        pytest.skip("numpy's wheel for this machine has no OpenBLAS that takes it for another processor")
    products = {decode([several_blocks], OPENBLAS_CORETYPE=core)["float_product"] for core in cores}
    assert len(products) > 1


def test_another_value_has_another_digest(tmp_path: Path) -> None:
    """What the tests here compare tells tables apart."""
    table = pa.table({"x": [1.0, 0.0, None], "y": ["a", "", None]})
    others = [
        pa.table({"x": [1.0, -0.0, None], "y": table["y"]}),
        pa.table({"x": table["x"], "y": ["a", None, None]}),
        table.replace_schema_metadata({"a": "b"}),
        table,
    ]
    for number, other in enumerate([table, *others]):
        archive.write(other, tmp_path / f"{number}.svae")
    digests = decode(sorted(tmp_path.iterdir()))["digests"]
    found = [digests[f"{number}.svae"][0] for number in range(5)]
    assert len(set(found)) == 4
    assert found[0] == found[4]


@pytest.fixture(scope="module")
def arm64() -> Path:
    """An interpreter for aarch64."""
    place = os.environ.get("SVAE_TEST_ARM64")
    if place is None:
        pytest.skip("SVAE_TEST_ARM64 is not set; `make test-slow` makes an aarch64 Python and sets it")
    if not (Path(place) / "python").exists():
        why = Path(place) / "why-not"
        pytest.skip(f"no aarch64 Python here: {why.read_text().strip() if why.exists() else 'not made'}")
    return Path(place) / "python"


@pytest.mark.slow
def test_aarch64_reads_the_same_bytes(arm64: Path) -> None:
    """The newest frozen archive of each kind, in plain Python, since numba is not there; in qemu that takes minutes.

    Of readings, which have all that `hourly` ones have, all rows; of the others some: of images they lie in two blocks.
    """
    newest = {
        path.name.partition("-")[0]: path for path in sorted(FIXTURES, key=lambda path: path.read_bytes()[8])
    }
    del newest["hourly"]
    paths = sorted(newest.values(), key=lambda path: -path.stat().st_size)
    parts = [(path, "whole" if path == newest["readings"] else "some") for path in paths]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda part: decode([part[0]], how=part[1], python=str(arm64)), parts))
    for (path, how), there in zip(parts, found, strict=True):
        assert there["machine"] == "aarch64"
        assert (there["compiled"], there["numba"]) == (False, False)
        assert there["digests"] == decode([path], how=how, NUMBA_DISABLE_JIT="0")["digests"]
