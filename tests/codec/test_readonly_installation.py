"""An installation that takes no files: machine code is kept in the user's cache folder, and archives are read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import unprivileged
from vae.codec import archive
from vae.codec.jit import COMPILED

REPOSITORY = Path(__file__).parents[2]
ARCHIVE = REPOSITORY / "tests" / "fixtures" / "readings-2000-v6.svae"
READ = """
import json, sys
from vae.codec import archive
with archive.open(sys.argv[1]) as opened:
    print(json.dumps([archive.__file__, repr(opened.read(rows=slice(0, 10)).to_pydict())]))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMPILED, reason="nothing is kept of what is not compiled"),
]


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    folder = tmp_path / "installation"
    for name in ("data", "vae"):
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "NOTES*")
        )
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def read_rows(installation: Path, home: Path) -> tuple[Path, str]:
    """Where the reader was imported from, and the first rows of the archive."""
    unset = ("NUMBA_", "XDG_", "PYTHON", "COV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    variables = {**kept, "HOME": str(home), "PYTHONPATH": str(installation)}
    command = [*unprivileged.python(), "-c", READ, ARCHIVE]
    done = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    imported, rows = json.loads(done.stdout)
    return Path(imported), rows


def machine_code(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb[ic]")}


def test_machine_code_is_kept_in_the_users_cache(installation: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = sorted(installation.rglob("*"))
    with archive.open(ARCHIVE) as opened:
        expected = repr(opened.read(rows=slice(0, 10)).to_pydict())

    imported, rows = read_rows(installation, home)

    assert imported.is_relative_to(installation)
    assert rows == expected
    kept = machine_code(home / ".cache" / "numba")
    assert any(path.name.startswith("kernel.") for path in kept)
    assert sorted(installation.rglob("*")) == before
    assert read_rows(installation, home) == (imported, expected)
    assert machine_code(home) == kept  # and it is what the next process runs


def test_without_a_folder_for_machine_code_archives_are_read(installation: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    with archive.open(ARCHIVE) as opened:
        expected = repr(opened.read(rows=slice(0, 10)).to_pydict())

    assert read_rows(installation, home)[1] == expected

    assert list(home.iterdir()) == []
