"""A migrated MLflow store, copied for each test: migrations take seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Third parties' own, each with its reason; ours stay errors.
IGNORED = [
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning",
]

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "SVAE_CONFIG")


REPOSITORY = Path(__file__).parents[2]


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process of its own that runs `code`, with our packages and `arguments` in `sys.argv`."""
    others = os.environ.get("PYTHONPATH")
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *([others] if others else [])]),
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
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


def pytest_configure(config: pytest.Config) -> None:
    for line in IGNORED:
        config.addinivalue_line("filterwarnings", line)


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
