"""Runs against a real SQLite store."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from data.errors import TrackingError
from flows.settings import load_tracking
from flows.tracking import Store, preflight, shown


@pytest.fixture
def store(home: Path) -> Store:
    return Store(load_tracking(home))


def test_a_run_says_where_it_comes_from(store: Store, home: Path) -> None:
    settings = {"train": {"effort": "fast", "lr": 0.1}, "bounds": ("a=1",), "long": "x" * 9000}
    run_id = store.start_run("flights", params=settings, tags={"prefect.flow_run_id": "f1"})
    schema = '{"columns": []}'
    store.log_dataset(run_id, name="flights", digest="ab" * 32, uri="sample:flights", rows=7, schema=schema)
    run = store.client.get_run(run_id)
    assert run.data.params["train.effort"] == "fast"
    assert run.data.params["bounds"] == '["a=1"]'
    assert len(run.data.params["long"]) == 6000
    tags = run.data.tags
    assert tags["dataset.sha256"] == "ab" * 32
    assert tags["prefect.flow_run_id"] == "f1"
    assert tags["git.dirty"] in {"true", "false", "unknown"}
    assert tags["git.commit"]
    assert tags["version.torch"].startswith("2.13")
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:36]
    assert run.info.artifact_uri is not None
    assert run.info.artifact_uri.startswith((home / "mlartifacts").as_uri())
    assert [file.path for file in store.client.list_artifacts(run_id)] == ["packages.json"]


def test_metrics_arrive_in_order_and_whole(store: Store) -> None:
    run_id = store.start_run("r", params={}, tags={})
    with store.recording(run_id) as metrics:
        for step in range(1200):
            metrics.add(
                {"loss": 1.0 / (step + 1), "part": {"a b": step}, "none": None, "bad": float("nan")}, step
            )
    history = store.client.get_metric_history(run_id, "loss")
    assert [point.step for point in history] == list(range(1200))
    assert store.client.get_run(run_id).data.metrics["part.a b"] == 1199
    assert "bad" not in store.client.get_run(run_id).data.metrics


def test_system_metrics_are_sampled_each_second(store: Store) -> None:
    run_id = store.start_run("r", params={}, tags={})
    for _ in range(2):  # a run that is taken up again goes on where it was
        with store.recording(run_id):
            time.sleep(3.5)
    points = store.client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    assert len(points) >= 4
    assert [point.step for point in points] == list(range(len(points)))
    gaps = [(b.timestamp - a.timestamp) / 1000 for a, b in pairwise(points)]
    assert 0.5 < statistics.median(gaps) < 1.8


def test_metrics_survive_a_store_that_is_away_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.start_run("r", params={}, tags={})
    send, away = store.client.log_batch, [True]

    def flaky(*arguments: object, **named: object) -> None:
        if away[0]:
            raise OSError("connection refused")
        send(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(store.client, "log_batch", flaky)
    monkeypatch.setattr("flows.tracking.BATCH", 10)
    with store.recording(run_id) as metrics:
        for step in range(25):
            metrics.add({"loss": float(step)}, step)
        away[0] = False
    assert len(store.client.get_metric_history(run_id, "loss")) == 25


def test_the_last_metrics_wait_for_a_store_that_refuses(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.start_run("r", params={}, tags={})
    send, refusals = store.client.log_batch, [OSError("away"), OSError("still away")]

    def flaky(*arguments: object, **named: object) -> None:
        if refusals:
            raise refusals.pop()
        send(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(store.client, "log_batch", flaky)
    store.log_metrics(run_id, {"loss": 1.0})
    assert store.client.get_run(run_id).data.metrics == {"loss": 1.0}
    refusals = [OSError("gone")] * 9
    monkeypatch.setattr("flows.tracking.CLOSE_SECONDS", 0)
    with pytest.raises(TrackingError, match="gone"):
        store.log_metrics(run_id, {"loss": 2.0})


@pytest.mark.slow
def test_metrics_survive_a_database_that_is_locked(store: Store, home: Path) -> None:
    run_id = store.start_run("r", params={}, tags={})
    with contextlib.closing(sqlite3.connect(home / "mlflow.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        back = threading.Timer(24, other.rollback)  # longer than MLflow waits by itself
        back.start()
        store.log_metrics(run_id, {"loss": 1.0})
        back.join()
    assert store.client.get_run(run_id).data.metrics == {"loss": 1.0}


def test_runs_of_a_flow_are_closed(store: Store) -> None:
    open_run = store.start_run("r", params={}, tags={"prefect.flow_run_id": "f1"})
    ended = store.start_run("r", params={}, tags={"prefect.flow_run_id": "f1"})
    other = store.start_run("r", params={}, tags={"prefect.flow_run_id": "f2"})
    store.end_run(ended)
    assert store.end_runs_of("f1", "FAILED") == [open_run]
    assert [store.client.get_run(r).info.status for r in (open_run, ended, other)] == [
        "FAILED",
        "FINISHED",
        "RUNNING",
    ]


def test_a_server_that_is_not_there_is_named_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        preflight(load_tracking(home))
    assert time.monotonic() - began < 10
    assert f"MLflow at http://me@127.0.0.1:{port} does not answer" in str(caught.value)
    assert "start that server or set tracking_uri in mlflow.yml" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///gone/mlflow.db")
    with pytest.raises(
        TrackingError, match=r"the folder .*/gone does not exist; create it or set tracking_uri"
    ):
        preflight(load_tracking())
    assert not (tmp_path / "gone").exists()


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at " * 100)
    with pytest.raises(TrackingError, match=r"MLflow at sqlite:////.*mlflow.db: .*not a database"):
        Store(load_tracking())


def test_a_deleted_experiment_is_named(store: Store) -> None:
    store.client.delete_experiment(store.experiment_id())
    with pytest.raises(TrackingError, match="the experiment 'sparse-vae' is deleted; restore it"):
        store.experiment_id()


OPEN = """
import sys
from flows.settings import load_tracking
from flows.tracking import Store
import mlflow
print("ready", flush=True)
sys.stdin.readline()
print(Store(load_tracking(sys.argv[1])).experiment_id())
"""


@pytest.mark.slow
def test_processes_that_open_a_fresh_store_at_once_all_succeed(
    tmp_path: Path,
    start_python: Callable[..., subprocess.Popen[str]],
    finish_python: Callable[..., list[str]],
) -> None:
    (tmp_path / "mlflow.yml").write_text("experiment: e\n")
    workers = [start_python(OPEN, tmp_path) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert len(set(finish_python(*workers))) == 1


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql://me:secret@db/mlflow") == "postgresql://me@db/mlflow"
    assert shown("sqlite:////srv/mlflow.db") == "sqlite:////srv/mlflow.db"
