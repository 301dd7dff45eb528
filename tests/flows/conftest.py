"""A migrated MLflow store, copied for each test; one Prefect server for all; a small table of real rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "SVAE_CONFIG")


REPOSITORY = Path(__file__).parents[2]


def child(code: str, *arguments: object, python: Sequence[str] = (sys.executable,)) -> subprocess.Popen[str]:
    """A Python process of its own that runs `code`, with our packages and `arguments` in `sys.argv`."""
    others = os.environ.get("PYTHONPATH")
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *([others] if others else [])]),
    }
    command = [*python, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes: subprocess.Popen[str], timeout: float = 300) -> list[str]:
    """What each process printed; all must end well."""
    outputs = [process.communicate(timeout=timeout) for process in processes]
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, f"{process.returncode}\n{out}\n{err}"
    return [out for out, _ in outputs]


@pytest.fixture
def start_python() -> Callable[..., subprocess.Popen[str]]:
    """`child`, as a fixture: tests cannot import their conftest."""
    return child


@pytest.fixture
def finish_python() -> Callable[..., list[str]]:
    return finish


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings of whoever runs it, nor leaves files in the project."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mlflow.yml` and an empty, migrated SQLite store."""
    from flows.settings import load_tracking
    from flows.tracking import Store

    folder = tmp_path_factory.mktemp("migrated")
    (folder / "mlflow.yml").write_text("tracking_uri: sqlite:///mlflow.db\n")
    Store(load_tracking(folder))
    return folder


@pytest.fixture
def home(migrated: Path, tmp_path: Path) -> Path:
    """A project folder of one test, with its own store."""
    home = tmp_path / "project"
    home.mkdir()
    for name in ("mlflow.yml", "mlflow.db"):
        shutil.copy(migrated / name, home / name)
    return home


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect API of the tests' own, started once."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


ROWS = 5_000


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows of the flights, as CSV: nulls, a zoned timestamp, thousands of tail numbers."""
    import zipfile

    from data.samples import sample_path

    path = tmp_path_factory.mktemp("source") / "flights.csv"
    with zipfile.ZipFile(sample_path("flights")) as archive, archive.open(archive.namelist()[0]) as lines:
        path.write_bytes(b"".join(line for line, _ in zip(lines, range(ROWS + 1), strict=False)))
    return path


@pytest.fixture
def failed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must fail: its one line. Nothing may be left behind."""

    from flows.cli import run

    def call(*arguments: object, status: int = 1) -> str:
        before = sorted(path for path in tmp_path.rglob("*"))
        capfd.readouterr()
        assert run([str(argument) for argument in arguments]) == status
        out, err = capfd.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert sorted(path for path in tmp_path.rglob("*")) == before
        last = err.splitlines()[-1]
        assert [line for line in err.splitlines() if line.startswith("svae: ")] == [last]
        return last

    return call


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, its archive (with a model in it) and a model."""
    from flows.cli import run

    folder = tmp_path_factory.mktemp("good")
    rows = "".join(f"{i},{i % 7},{'xyz'[i % 3]},{i % 11 * 0.5}\n" for i in range(800))
    (folder / "t.csv").write_text("id,week,letter,amount\n" + rows)
    table = str(folder / "t.csv")
    assert run(["train", table, "--out", str(folder / "model"), "--steps", "2"]) == 0
    assert run(["compress", table, "-o", str(folder / "t.svae"), "--model", str(folder / "model")]) == 0
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of 600 rows, some without an amount."""
    rng = np.random.default_rng(0)
    lines = ["id,week,letter,amount"]
    for i in range(600):
        amount = "NA" if i % 13 == 0 else f"{i % 7 * 2.5 + rng.integers(3):.1f}"
        lines.append(f"{i},{i % 7},{'xyz'[i // 3 % 3]},{amount}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def as_json(capfd: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a command with `--json`; standard output must be one object and nothing else."""

    from flows.cli import run

    def call(*arguments: object) -> dict[str, Any]:
        capfd.readouterr()
        status = run([*map(str, arguments), "--json"])
        out, err = capfd.readouterr()
        assert status == 0, err
        assert out.count("\n") == 1
        return json.loads(out)

    return call
