"""What is retried, what is advised, and that nothing phones home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data import errors as e
from flows.hooks import advice, outside_failed
from flows.settings import SettingsError

REPOSITORY = Path(__file__).parents[2]


class Failed:
    """A failed state, as Prefect hands it to hooks."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def is_failed(self) -> bool:
        return True

    def is_crashed(self) -> bool:
        return False

    def result(self, raise_on_failure: bool = True) -> Any:
        return self.error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (e.TrackingError("MLflow does not answer"), True),
        (ConnectionResetError(), True),
        (OSError(5, "Input/output error"), True),
        (caused(e.SourceError("s3://b/k: cannot be read"), ConnectionError()), True),
        (e.SourceError("a.csv: there is no such file"), False),
        (caused(e.SourceError("a.csv"), FileNotFoundError()), False),
        (e.GateError("air_time"), False),
        (e.ModelError("training diverged"), False),
        (FileNotFoundError("a"), False),
        (PermissionError("a"), False),
        (TimeoutError(), False),
        (KeyError("a"), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_only_what_lies_outside_is_tried_again(error: Exception, retried: bool) -> None:
    assert outside_failed(None, None, Failed(error)) is retried


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (e.GateError("x"), "settings.data_gate"),
        (e.SourceError("x"), "Mend the source"),
        (e.BoundError("x"), "settings.bounds"),
        (e.TrackingError("x"), "mlflow.yml"),
        (SettingsError("x"), "settings file"),
        (TimeoutError(), "last checkpoint"),
        (KeyError("x"), "fault of this program"),
        (None, "Run again"),
    ],
)
def test_advice_says_what_to_do(error: Exception | None, words: str) -> None:
    assert words in advice(error)


QUIET = """
import flows
from prefect._internal.analytics.enabled import is_telemetry_enabled
from prefect.settings import get_current_settings
from mlflow.telemetry.utils import is_telemetry_disabled
print(is_telemetry_enabled(), get_current_settings().server.analytics_enabled, is_telemetry_disabled())
print(get_current_settings().server.ephemeral.startup_timeout_seconds)
"""


def test_importing_flows_switches_telemetry_off() -> None:
    loud = (
        "DO_NOT_TRACK",
        "PREFECT_SERVER_ANALYTICS_ENABLED",
        "MLFLOW_DISABLE_TELEMETRY",
        "CI",
        "GITHUB_ACTIONS",
    )
    variables = {key: value for key, value in os.environ.items() if key not in loud and "TESTING" not in key}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", QUIET], env=variables, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["False", "False", "True", "180"]


def test_a_scheduler_that_would_never_fire_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.server import ServerError, check_scheduler

    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.0.58")
    check_scheduler()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1.9")
    with pytest.raises(
        ServerError, match=r"does not work with SQLAlchemy 2\.1\.9: nothing would ever be scheduled"
    ):
        check_scheduler()
