"""A Prefect server that is killed in mid-run: the work goes on, and the next run has only the rest to do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def test_what_is_done_is_kept(variables: dict[str, str], tmp_path: Path, flights: Path) -> None:
    from flows.server import _started
    from flows.settings import load_tracking

    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(REPOSITORY / "mlflow.yml", project / "mlflow.yml")
    (project / "pipeline.yml").write_text(PIPELINE)
    made = project / "svae-runs" / "flights"

    def start(url: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SVAE, "run", "--dataset", str(flights)], cwd=project, env={**variables, "PREFECT_API_URL": url},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    with _started(load_tracking(project), 0) as url:
        run = start(url)
        deadline = time.monotonic() + 300
        while not any(made.glob(".model.training/*")):
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
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
