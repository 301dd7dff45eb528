"""The registry behind a real MLflow server."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.registry import Registry
from flows.settings import load_tracking
from flows.tracking import Store
from flows.versions import DIGEST

pytestmark = pytest.mark.slow


@pytest.fixture
def server(migrated: Path, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "server"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/m.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    command += ["--workers", "1"]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(url + "/health", timeout=2):  # noqa: S310
                    break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def test_versions_and_aliases_through_a_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("SVAE_ARTIFACT_LOCATION", "mlflow-artifacts:/runs")
    store = Store(load_tracking())
    registry = Registry(store)
    made_up = tmp_path / "model"
    made_up.mkdir()
    (made_up / "MLmodel").write_text("flavors: {}\n")
    (made_up / "weights").write_text("w")
    run = store.start_run("r", params={"a": 1}, tags={})
    with store.recording(run) as metrics:
        metrics.add({"loss": 1.0})
        time.sleep(1.5)
    store.end_run(run)
    first, second = (
        registry.register("m", run_id=run, folder=made_up, tags={DIGEST: digest}) for digest in ("d1", "d2")
    )
    registry.promote(first, "first", verify=lambda version: None)
    registry.promote(second, "second", verify=lambda version: None)
    back, away, _ = registry.rollback("m", "why not", verify=lambda version: None)
    assert (back.version, away.version) == (1, 2)
    assert (registry.download("models:/m@champion") / "weights").read_text() == "w"
    assert (registry.download(f"runs:/{run}/model") / "weights").read_text() == "w"
    assert store.client.get_metric_history(run, "system/cpu_utilization_percentage")
    assert not (tmp_path / "mlflow.db").exists()
