"""A migrated MLflow store, copied for each test: migrations take seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

# Third parties' own, each with its reason; ours stay errors.
IGNORED = [
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning",
]

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "SVAE_CONFIG")


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
