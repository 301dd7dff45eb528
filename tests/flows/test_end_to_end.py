"""Whole processes: the command run twice and at once, a server with a worker, a service that is started again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vae.codec import archive

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SVAE = [sys.executable, "-c", "import sys; from flows.cli import main; main()"]
PREFECT = [sys.executable, "-m", "prefect"]
PIPELINE = (
    "model: {latents: 4, width: 8, encoder_width: 16}\ntrain: {steps: 30, batch_rows: 256, threads: 1}\n"
)


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """An environment in which our packages are found and Prefect keeps its own things under `tmp_path`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_TRACKING", "SVAE_"))}
    others = kept.get("PYTHONPATH")
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *([others] if others else [])]),
        "PREFECT_HOME": str(tmp_path / "prefect-home"),
        "PYTHONSAFEPATH": "1",
    }


@pytest.fixture
def project(tmp_path: Path, flights: Path) -> Path:
    """A folder with settings and a source."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(REPOSITORY / "mlflow.yml", folder / "mlflow.yml")
    (folder / "pipeline.yml").write_text(PIPELINE)
    shutil.copy(flights, folder / "flights.csv")
    return folder


def svae(arguments: list[str], cwd: Path, variables: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [*SVAE, *arguments, "--json"], cwd=cwd, env=variables, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.alone
def test_a_second_run_is_quick_trains_nothing_and_makes_no_version(
    project: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    first = svae(["run", "--dataset", "flights.csv"], project, variables)
    assert first["version"]["is_new"]
    assert Path(first["archive"]).is_relative_to(project / "svae-runs" / "flights")
    made = [Path(first[name]) for name in ("archive", "codes", "model")]
    written = [path.stat().st_mtime_ns for path in made]
    began = time.monotonic()
    second = svae(["run", "--dataset", "flights.csv"], project, variables)
    assert time.monotonic() - began < 60
    assert [path.stat().st_mtime_ns for path in made] == written
    assert not second["version"]["is_new"]
    assert {**second, "version": None} == {**first, "version": None}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    listed = svae(["models", "list", "--config", str(project)], elsewhere, variables)["models"]
    assert [(v["name"], v["version"], v["aliases"]) for v in listed] == [("flights", 1, ["champion"])]
    # The registered model compresses and codes from anywhere, without the code that lies beside it being run.
    model = ["--model", "models:/flights@champion", "--config", str(project)]
    report = svae(["compress", str(project / "flights.csv"), "-o", "f.svae", *model], elsewhere, variables)
    assert report["rows"] == 5_000
    coded = svae(["codes", str(project / "flights.csv"), "-o", "c.parquet", *model], elsewhere, variables)
    assert coded["model"] == listed[0]["model_digest"]


def test_two_runs_at_once_make_one_version(project: Path, variables: dict[str, str]) -> None:
    command = [*SVAE, "run", "--dataset", "flights.csv", "--json"]
    both = [
        subprocess.Popen(
            command, cwd=project, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    versions = [json.loads(out)["version"] for out, _ in ended]
    assert sorted(version["is_new"] for version in versions) == [False, True]
    assert "another run works on" in "".join(err for _, err in ended)
    listed = svae(["models", "list"], project, variables)["models"]
    assert [version["version"] for version in listed] == [1]


def test_a_folder_job_goes_on_where_it_was(project: Path, variables: dict[str, str]) -> None:
    svae(["run", "--dataset", "flights.csv"], project, variables)
    folder = project / "exports"
    (folder / "deep").mkdir(parents=True)
    lines = (project / "flights.csv").read_text().splitlines(keepends=True)
    for name, part in (("a.csv", lines[1:2001]), ("deep/b.csv", lines[2001:3001])):
        (folder / name).write_text("".join([lines[0], *part]))
    (folder / "c.csv").write_text("no,flights\n1,2\n")
    job = [
        *SVAE,
        "compress",
        "exports",
        "-o",
        "archives",
        "--each",
        "--model",
        "models:/flights@champion",
        "--json",
    ]
    failed = subprocess.run(job, cwd=project, env=variables, capture_output=True, text=True, timeout=600)
    assert failed.returncode == 1
    line = [line for line in failed.stderr.splitlines() if line.startswith("svae: ")]
    assert len(line) == 1
    assert "1 of 3 files failed" in line[0]
    assert "c.csv" in line[0]
    assert not (project / "archives" / "archives.json").exists()
    made = {p: p.stat().st_mtime_ns for p in (project / "archives").rglob("*.svae")}
    assert {path.name for path in made} == {"a.csv.svae", "b.csv.svae"}
    (folder / "c.csv").unlink()
    result = svae(job[len(SVAE) : -1], project, variables)
    assert result["files"] == 2
    assert {p: p.stat().st_mtime_ns for p in made} == made  # finished files were skipped
    entries = json.loads((project / "archives" / "archives.json").read_text())["files"]
    assert sorted(entry["rows"] for entry in entries) == [1000, 2000]
    back = svae(["decompress", "archives", "-o", "again", "--each"], project, variables)
    assert back["files"] == 2
    assert (project / "again" / "deep" / "b.csv").read_bytes() == (folder / "deep" / "b.csv").read_bytes()


def killed_once_done(job: list[str], count: int, cwd: Path, variables: dict[str, str], log: Path) -> None:
    """Run a folder job until so many of its files are finished, and kill it then."""
    with log.open("wb") as output:
        process = subprocess.Popen(job, cwd=cwd, env=variables, stdout=output, stderr=output)
        try:
            while len(list((cwd / "archives" / ".receipts").glob("*.json"))) < count:
                assert process.poll() is None, log.read_text()
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait(60)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_folder_job_keeps_what_was_done(
    project: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    svae(["train", "flights.csv", "--out", "model", "--steps", "30"], project, variables)
    (project / "exports").mkdir()
    lines = (project / "flights.csv").read_text().splitlines(keepends=True)
    for k in range(6):
        (project / "exports" / f"{k}.csv").write_text(
            "".join([lines[0], *lines[1 + 700 * k : 701 + 700 * k]])
        )
    job = ["compress", "exports", "-o", "archives", "--each", "--model", "model"]
    archives, finished = project / "archives", dict[Path, tuple[int, int]]()
    for count in (1, 3):
        killed_once_done([*SVAE, *job], count, project, variables, tmp_path / "job.log")
        assert not (archives / "archives.json").exists()
        assert times(finished) == finished
        finished = times(finished_in(archives))
        assert count <= len(finished) < 6
        for path in archives.rglob("*.svae"):  # also one whose receipt was not yet written
            with archive.open(path) as opened:
                opened.verify()

    assert svae(job, project, variables)["files"] == 6
    assert times(finished) == finished
    entries = json.loads((archives / "archives.json").read_text())["files"]
    assert [entry["rows"] for entry in entries] == 6 * [700]
    assert svae(["decompress", "archives", "-o", "again", "--each"], project, variables)["files"] == 6
    for path in (project / "exports").iterdir():
        assert (project / "again" / path.name).read_bytes() == path.read_bytes()
    left = {path.name for path in archives.iterdir()}
    assert left == {".receipts", "archives.json", *(f"{k}.csv.svae" for k in range(6))}
    assert not (project / ".archives.lock").exists()


def finished_in(folder: Path) -> list[Path]:
    """The archives that have a receipt."""
    receipts = [json.loads(path.read_text()) for path in (folder / ".receipts").glob("*.json")]
    return [folder / name for receipt in receipts for name in receipt["outputs"]]


def times(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


# -- a real server


def wait_for(what: Callable[[], Any], seconds: float, message: Callable[[], str]) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(1)
    raise AssertionError(message())


@pytest.fixture
def server(project: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Prefect server on loopback, as `svae serve` starts it."""
    from flows.server import _started
    from flows.settings import load_tracking

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with _started(load_tracking(project), 0) as url:
        variables["PREFECT_API_URL"] = url
        yield url


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    """What the server answers, asked again while it is busy, as Prefect's own client does: its SQLite file has
    one writer at a time, and a server whose services hold it says 503."""
    import httpx

    for attempt in range(6):
        answer = httpx.post(f"{url}/{path}", json=body, timeout=60)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(2**attempt)
    answer.raise_for_status()
    return answer.json()


def runs_of(url: str, deployment: str) -> list[dict[str, Any]]:
    return ask(url, "flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})


def test_a_worker_runs_what_the_api_asks_and_what_the_schedule_says(
    server: str, project: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    # The shipped deployments, on a small table, and one more with an interval.
    content = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    retrain = content["deployments"][0]
    settings = yaml.safe_load(PIPELINE)
    retrain["parameters"] = {"source": "flights.csv", "settings": settings}
    often = {**retrain, "name": "often", "schedules": [{"interval": 10}]}
    content["deployments"].append(often)
    (project / "prefect.yaml").write_text(yaml.safe_dump(content))
    run = {"cwd": project, "env": variables, "capture_output": True, "text": True, "timeout": 300}
    for command in (
        ["work-pool", "create", "sparse-vae", "--type", "process"],
        ["--no-prompt", "deploy", "--all"],
    ):
        done = subprocess.run([*PREFECT, *command], **run)
        assert done.returncode == 0, done.stdout + done.stderr

    deployments = {entry["name"]: entry for entry in ask(server, "deployments/filter", {})}
    assert set(deployments) == {"retrain", "compress-dataset", "rollback", "often"}
    assert deployments["retrain"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert deployments["retrain"]["global_concurrency_limit"]["limit"] == 1
    latents = deployments["retrain"]["parameter_openapi_schema"]["definitions"]["ModelSettings"][
        "properties"
    ]["latents"]
    number = latents["anyOf"][0]  # the other is null: by the table
    assert (number["minimum"], number["maximum"]) == (1, 256)
    assert latents["description"].startswith("Number of latent variables")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    asked = ask(
        server,
        f"deployments/{deployments['retrain']['id']}/create_flow_run",
        {"state": {"type": "SCHEDULED"}, "idempotency_key": "asked-by-the-test"},
    )
    log = tmp_path / "worker.log"
    worker_variables = {**variables, "SVAE_CONFIG": str(project / "mlflow.yml")}
    with log.open("wb") as output:
        command = [*PREFECT, "worker", "start", "--pool", "sparse-vae"]
        worker = subprocess.Popen(command, cwd=elsewhere, env=worker_variables, stdout=output, stderr=output)
        try:

            def completed(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
                assert not [r for r in runs if r["state_type"] in {"FAILED", "CRASHED"}], log.read_text()
                return [r for r in runs if r["state_type"] == "COMPLETED"]

            def by_api() -> Any:
                return [
                    r
                    for r in completed(runs_of(server, deployments["retrain"]["id"]))
                    if r["id"] == asked["id"]
                ]

            def by_schedule() -> Any:
                return [
                    r for r in completed(runs_of(server, deployments["often"]["id"])) if r["auto_scheduled"]
                ]

            wait_for(by_api, 400, log.read_text)
            wait_for(by_schedule, 400, log.read_text)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)

    # Everything lies in the project, nothing where the worker or its runs were.
    assert list(elsewhere.iterdir()) == []
    listed = svae(["models", "list", "--config", str(project)], elsewhere, variables)["models"]
    assert [(v["name"], v["version"], v["aliases"]) for v in listed] == [("flights", 1, ["champion"])]
    model = ["--model", "models:/flights@champion", "--config", str(project)]
    coded = svae(["codes", str(project / "flights.csv"), "-o", "c.parquet", *model], elsewhere, variables)
    assert coded["model"] == listed[0]["model_digest"]


class Service:
    """`svae serve`, until told to stop."""

    def __init__(self, project: Path, variables: dict[str, str], log: Path) -> None:
        self.log = log
        self.output = log.open("wb")
        self.process = subprocess.Popen(
            [*SVAE, "serve", "--port", "0"],
            cwd=project,
            env=variables,
            stdout=self.output,
            stderr=self.output,
        )

    def __enter__(self) -> str:
        found = wait_for(self._url, 200, self.log.read_text)
        return f"{found}/api"

    def _url(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        text = self.log.read_text()
        found = re.search(r"Prefect: (http://127\.0\.0\.1:\d+)", text)
        return found[1] if found and "being served" in text else None

    def __exit__(self, *failure: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.output.close()


def test_a_service_keeps_its_state_and_fires_its_schedule(
    project: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    settings = yaml.safe_load(PIPELINE)
    deployment = {
        "name": "often",
        "entrypoint": "flows.retrain.retrain",
        "parameters": {"source": "flights.csv", "settings": settings},
        "schedules": [{"interval": 10}],
        "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
    }
    (project / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [deployment]}))
    # The folder has packages of our names: what is served must not import them.
    for name in ("data", "vae", "flows"):
        (project / name).mkdir()
        (project / name / "__init__.py").write_text("raise ImportError('the wrong package')\n")
    log = tmp_path / "serve.log"
    with Service(project, variables, log) as url:

        def fired() -> Any:
            runs = ask(url, "flow_runs/filter", {})
            assert not [r for r in runs if r["state_type"] in {"FAILED", "CRASHED"}], log.read_text()
            # One at a time: while a run goes on, the next ones are cancelled.
            assert len([r for r in runs if r["state_type"] == "RUNNING"]) <= 1, log.read_text()
            cancelled = [r for r in runs if r["state_type"] == "CANCELLED"]
            done = [r["id"] for r in runs if r["state_type"] == "COMPLETED" and r["auto_scheduled"]]
            return done if cancelled else []

        done = wait_for(fired, 300, log.read_text)
    with Service(project, variables, log) as url:
        again = ask(url, "flow_runs/filter", {"flow_runs": {"id": {"any_": done[:1]}}})
        assert [r["state_type"] for r in again] == ["COMPLETED"]
    listed = svae(["models", "list"], project, variables)["models"]
    assert [version["version"] for version in listed] == [1]
