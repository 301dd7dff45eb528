"""The registry behind a real MLflow server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
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


AWAY_SECONDS = 30


class Server:
    """An MLflow server that can go away and come back, at one address and with one store."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/m.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "log").open("ab") as log:
            # a group of its own, since its workers outlive it otherwise
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=2):  # noqa: S310
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.5)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, number)
            self.process.wait(60)
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_versions_and_aliases_through_a_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
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


def test_no_metric_is_lost_while_the_server_is_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    store = Store(load_tracking())
    run = store.start_run("r", params={}, tags={})
    with store.recording(run) as metrics:
        metrics.add({"loss": 0.0}, 0)
        metrics.flush()
        server.stop(signal.SIGKILL)
        back = threading.Timer(AWAY_SECONDS, server.start)
        back.start()
        began = time.monotonic()
        for step in range(1, 6):
            metrics.add({"loss": float(step)}, step)
            metrics.flush()
        back.join()
        assert time.monotonic() - began >= AWAY_SECONDS
    store.end_run(run)
    assert [metric.value for metric in store.client.get_metric_history(run, "loss")] == [0, 1, 2, 3, 4, 5]
    assert store.client.get_run(run).info.status == "FINISHED"
