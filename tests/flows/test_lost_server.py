"""A run and its Prefect server: whichever is ended, what is done is kept, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SVAE = [sys.executable, "-c", "import sys; from flows.cli import main; main()"]
PIPELINE = (
    "model: {latents: 4, width: 8, encoder_width: 16}\ntrain: {steps: 600, batch_rows: 256, threads: 1}\n"
)


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which Prefect keeps its own things under `tmp_path` and soon gives up on a server."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-home"))
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "1")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    kept = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(kept))
    return dict(os.environ)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(REPOSITORY / "mlflow.yml", folder / "mlflow.yml")
    (folder / "pipeline.yml").write_text(PIPELINE)
    return folder


def until(found: Callable[[], object], run: subprocess.Popen[str] | None = None) -> None:
    """Wait for something; of a run that ends before, what it said."""
    deadline = time.monotonic() + 300
    while not found():
        assert run is None or run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def has_ended(process: psutil.Process) -> bool:
    """Also one whose end nobody has taken note of."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_is_done_is_kept(variables: dict[str, str], project: Path, flights: Path) -> None:
    from flows.server import _started
    from flows.settings import load_tracking

    made = project / "svae-runs" / "flights"

    def start(url: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SVAE, "run", "--dataset", str(flights)], cwd=project, env={**variables, "PREFECT_API_URL": url},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    with _started(load_tracking(project), 0) as url:
        run = start(url)
        until(lambda: any(made.glob(".model.training/*")), run)
        owner = subprocess.run(
            ["pgrep", "-f", f"prefect server start.*{url.rsplit(':', 1)[1].split('/')[0]}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for process in map(int, owner.stdout.split()):
            os.kill(process, signal.SIGKILL)
        _, told = run.communicate(timeout=300)
    assert run.returncode == 1, told
    lines = [line for line in told.splitlines() if line.startswith("svae: ")]
    assert len(lines) == 1, told
    assert f"the Prefect server at {url} went away in mid-run" in lines[0]
    assert "Traceback" not in told
    # the server is for showing: what was under way is finished
    kept = {path: path.stat().st_mtime_ns for path in (made / "model").iterdir()}
    assert (made / "flights.svae").exists()
    with _started(load_tracking(project), 0) as url:
        out, told = start(url).communicate(timeout=300)
    assert "models:/flights/1 (" in out, told
    assert {path: path.stat().st_mtime_ns for path in (made / "model").iterdir()} == kept


def test_a_run_that_is_ended_takes_its_server_along(
    variables: dict[str, str], project: Path, flights: Path
) -> None:
    """Ctrl-C in a terminal, which all processes of its group get; SIGTERM; SIGKILL."""
    from flows.settings import load_tracking
    from flows.tracking import Store

    made = project / "svae-runs" / "flights"
    ways: list[tuple[Callable[[int, int], None], int, int, str]] = [
        (os.killpg, signal.SIGINT, 130, "interrupted"),
        (os.kill, signal.SIGTERM, 143, "ended by SIGTERM"),
        (os.kill, signal.SIGKILL, -signal.SIGKILL, ""),
    ]
    for end, number, status, what in ways:
        run = subprocess.Popen(
            [*SVAE, "run", "--dataset", str(flights)], cwd=project, env={**variables, "PREFECT_API_URL": ""},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        known = set(made.glob(".model.training/*"))
        until(lambda known=known: set(made.glob(".model.training/*")) - known, run)
        (server,) = (
            child
            for child in psutil.Process(run.pid).children()
            if "ephemeral.py" in " ".join(child.cmdline())
        )
        end(run.pid, number)
        _, told = run.communicate(timeout=100)
        assert run.returncode == status, told
        assert "Traceback" not in told
        lines = [line for line in told.splitlines() if line.startswith("svae: ")]
        assert lines == ([f"svae: {what}; the same command goes on where it was"] if what else []), told
        until(lambda server=server: has_ended(server))
        client = Store(load_tracking(project)).client
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        states = [found.info.status for found in client.search_runs(experiments)]  # one run, that went on
        assert states == (["KILLED"] if what else ["RUNNING"])
