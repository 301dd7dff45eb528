"""The built wheel in clean environments, which `make test-slow` makes.

`SVAE_TEST_CORE_VENV`: the wheel and the core's dependencies, nothing else.
`SVAE_TEST_WHEEL_VENV`: the wheel and everything that the pipeline needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
WRITERS = ["run", "ingest", "train", "codes", "decode", "compress"]
READERS = ["decompress", "inspect", "verify", "models", "serve"]
COMMANDS = [[name] for name in (*WRITERS, *READERS)]
MODELS_COMMANDS = [["models", name] for name in ("list", "show", "promote", "rollback")]
FORBIDDEN = ("torch", "lightning", "prefect", "mlflow", "matplotlib", "fastapi", "psutil", "sklearn", "scipy")


def environment(variable: str) -> Path:
    """Folder of one of the environments; skips where `make test-slow` did not make it."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: make test-slow makes the environment and sets it")
    return Path(folder)


@pytest.fixture(scope="module")
def core() -> Path:
    return environment("SVAE_TEST_CORE_VENV")


@pytest.fixture(scope="module")
def wheel() -> Path:
    return environment("SVAE_TEST_WHEEL_VENV")


@pytest.fixture(scope="module")
def archive() -> Path:
    """A frozen archive. A missing one fails: it is never made anew."""
    archives = sorted(FIXTURES.glob("*.svae"))
    assert archives, f"no frozen archive in {FIXTURES}"
    return archives[-1]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder whose own `data`, `vae` and `flows` break whatever imports them."""
    for name in ("data", "vae", "flows"):
        package = tmp_path / "elsewhere" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"raise ImportError('the wrong {name} was imported')\n")
    return tmp_path / "elsewhere"


def clean(venv: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a fresh shell in which `venv` is active; what the caller's say about Python is left out."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
    variables["PATH"] = f"{venv / 'bin'}{os.pathsep}{variables['PATH']}"
    return {**variables, **(extra or {})}


def svae(
    venv: Path, *arguments: str | Path, cwd: Path, extra: Mapping[str, str] | None = None, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """`svae` of an environment, called from `cwd`."""
    command = [str(venv / "bin" / "svae"), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=clean(venv, extra), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == status, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def imported(stderr: str) -> set[str]:
    """Top-level modules that a process imported, from what PYTHONPROFILEIMPORTTIME makes it write."""
    found = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s*(\w+)", stderr, re.MULTILINE)
    assert "flows" in found, "nothing was recorded"
    return set(found)


def test_wheel_holds_the_three_packages_and_nothing_else(core: Path) -> None:
    built = list((core.parent / core.name.removesuffix("-core") / "wheel").glob("*.whl"))
    assert len(built) == 1
    files = zipfile.ZipFile(built[0]).namelist()
    assert {name.split("/")[0] for name in files if ".dist-info" not in name} == {"data", "vae", "flows"}
    assert not [name for name in files if "test" in name.split("/")[-1]]
    assert {"data/py.typed", "vae/py.typed", "flows/py.typed"} <= set(files)


def test_core_environment_lacks_the_pipeline(core: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(core / "bin" / "python"), "list", "--format=json"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert not {package["name"].lower() for package in listed} & set(FORBIDDEN)


def test_every_command_of_the_list_is_offered(core: Path, tmp_path: Path) -> None:
    shown = svae(core, "--help", cwd=tmp_path).stdout
    assert [name for name in (*WRITERS, *READERS) if name not in shown] == []


@pytest.mark.parametrize("arguments", [*COMMANDS, *MODELS_COMMANDS], ids=" ".join)
def test_help_works_on_the_core_alone(core: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = svae(core, *arguments, "--help", cwd=tmp_path, extra={"COLUMNS": "120"})
    assert "Usage: svae" in done.stdout
    assert done.stderr == ""


def test_archive_is_read_on_the_core_alone(core: Path, archive: Path, tmp_path: Path) -> None:
    summary = json.loads(svae(core, "inspect", archive, "--json", cwd=tmp_path).stdout)
    assert summary["archive_bytes"] == archive.stat().st_size
    svae(core, "verify", archive, cwd=tmp_path)
    svae(core, "decompress", archive, "-o", tmp_path / "out.parquet", cwd=tmp_path)
    svae(core, "decompress", archive, "-o", tmp_path / "out.csv", cwd=tmp_path)
    lines = (tmp_path / "out.csv").read_text().count("\n")
    assert lines == summary["rows"] + 1
    assert (tmp_path / "out.parquet").stat().st_size > 0


@pytest.mark.parametrize("command", ["run", "train", "serve"])
def test_core_alone_names_the_extra_that_is_missing(core: Path, tmp_path: Path, command: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b\n" + "1,2\n" * 100)
    arguments = {"run": ["--dataset", table], "train": [table, "--out", "model"], "serve": []}[command]
    before = set(tmp_path.iterdir())
    done = svae(core, command, *arguments, cwd=tmp_path, status=2)
    assert "pipeline" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(tmp_path.iterdir()) == before


def test_reading_imports_nothing_of_the_pipeline_even_where_it_is_installed(
    wheel: Path, archive: Path, tmp_path: Path
) -> None:
    profile = {"PYTHONPROFILEIMPORTTIME": "1"}
    calls = [
        ["--help"],
        *([*command, "--help"] for command in COMMANDS),
        ["inspect", archive],
        ["verify", archive],
        ["decompress", archive, "-o", tmp_path / "out.parquet"],
    ]
    for call in calls:
        modules = imported(svae(wheel, *call, cwd=tmp_path, extra=profile).stderr)
        # numba looks at the version of scipy where it is installed
        assert not modules & (set(FORBIDDEN) - {"scipy"}), call


@pytest.mark.parametrize(
    "frozen", [None, *sorted(FIXTURES.glob("*.svae"))], ids=lambda frozen: frozen and frozen.stem
)
def test_help_and_inspect_start_without_what_takes_long_to_import(
    core: Path, tmp_path: Path, frozen: Path | None
) -> None:
    calls = [["--help"], ["decompress", "--help"]] if frozen is None else [["inspect", frozen]]
    slow = {"numba", "pandas"} if frozen else {"numba", "pandas", "numpy", "pyarrow"}
    if frozen == FIXTURES / "texts-2000-v9.svae":
        slow -= {"numba"}  # the names of its categories are mixed
    for call in calls:
        modules = imported(svae(core, *call, cwd=tmp_path, extra={"PYTHONPROFILEIMPORTTIME": "1"}).stderr)
        assert not modules & slow, call


def test_works_from_a_folder_with_packages_of_the_same_names(
    wheel: Path, foreign: Path, tmp_path: Path
) -> None:
    rows = "".join(f"{i},{i % 7},{'xyz'[i % 3]}\n" for i in range(500))
    (foreign / "table.csv").write_text("id,week,letter\n" + rows)
    svae(wheel, "ingest", "table.csv", "--out", "ingested", cwd=foreign)
    svae(wheel, "compress", "table.csv", "-o", "table.svae", "--effort", "fast", cwd=foreign)
    svae(wheel, "verify", "table.svae", "--against", "table.csv", cwd=foreign)
    svae(wheel, "decompress", "table.svae", "-o", "again.csv", cwd=foreign)
    assert (foreign / "again.csv").read_text() == (foreign / "table.csv").read_text()


def test_pipeline_works_from_a_folder_with_packages_of_the_same_names(wheel: Path, foreign: Path) -> None:
    rows = "".join(f"{i},{i % 7},{'xyz'[i % 3]}\n" for i in range(5_000))
    (foreign / "table.csv").write_text("id,week,letter\n" + rows)
    svae(wheel, "run", "--dataset", "table.csv", "--effort", "fast", "--out", "out", cwd=foreign)
    assert "champion" in svae(wheel, "models", "list", cwd=foreign).stdout


def call(url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One request to Prefect's API: POST with a body, else GET."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def eventually(attempt: Callable[[], dict[str, Any] | None], seconds: float) -> dict[str, Any]:
    """What `attempt` returns once it returns something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found = attempt()
            if found:
                return found
        time.sleep(0.5)
    raise TimeoutError(f"nothing after {seconds} s")


@contextlib.contextmanager
def serving(venv: Path, cwd: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """A `svae serve` runs in `cwd` while the block does; yields what asks its API, by path and body."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(venv / "bin" / "svae"), "serve", "--port", str(port)]
    with (cwd / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=cwd, env=clean(venv), stdout=log, stderr=subprocess.STDOUT)

        def ask(path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
            assert process.poll() is None, (cwd / "serve.log").read_text()
            return call(f"http://127.0.0.1:{port}/api/{path}", body)

        try:
            yield ask
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_served_runs_work_from_a_folder_with_packages_of_the_same_names(wheel: Path, foreign: Path) -> None:
    """Runs are processes that Prefect starts with our folder first on their path. This one finds no model to swap."""
    for name in ("mlflow.yml", "prefect.yaml"):
        shutil.copy(ROOT / name, foreign)

    def ended() -> dict[str, Any] | None:
        found = ask(f"flow_runs/{run}")
        return found if found["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

    with serving(wheel, foreign) as ask:
        served = eventually(lambda: ask("deployments/name/rollback/rollback"), 180)["id"]
        begin = f"deployments/{served}/create_flow_run"
        # again while the server is busy, as Prefect's own client does: its SQLite file has one writer at a time
        run = eventually(lambda: ask(begin, {"parameters": {"name": "nothing"}}), 180)["id"]
        state = eventually(ended, 180)["state"]
    log = (foreign / "serve.log").read_text()
    assert "was imported" not in log
    assert state["type"] == "FAILED"
    assert "nothing" in state["message"], state
