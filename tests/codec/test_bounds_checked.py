"""The tests of jitted functions and of archives, compiled once more so that an index beyond its array is an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vae.codec.jit import COMPILED

REPOSITORY = Path(__file__).parents[2]
FUNCTIONS = ["tests/codec", "tests/test_jit.py", "-m", "jit and not slow"]
ARCHIVES = ["tests/codec/test_archive.py", "tests/codec/test_image_archives.py", "-m", "not slow"]


@pytest.fixture(scope="module")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is kept: code from elsewhere has no checks, and this shall not serve others."""
    return tmp_path_factory.mktemp("numba")


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="Python checks every index")
@pytest.mark.parametrize("tests", [FUNCTIONS, ARCHIVES], ids=["functions", "archives"])
def test_no_index_lies_beyond_its_array(tests: list[str], machine_code: Path, tmp_path: Path) -> None:
    unset = ("PYTEST", "COV", "NUMBA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(machine_code)}
    options = ["-p", "no:cacheprovider", "--numprocesses", "0", "--basetemp", tmp_path / "tests"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=REPOSITORY,
        env=kept | checked,
        capture_output=True,
        text=True,
        timeout=1_800,
    )

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None
    assert int(counted[1]) >= 50
