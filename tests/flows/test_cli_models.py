"""`svae models`: the registry from the command line, and that looking into it makes none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run


def test_looking_makes_no_registry(home: Path, capfd: pytest.CaptureFixture[str], table: Path) -> None:
    for made in home.glob("mlflow.db*"):
        made.unlink()
    before = sorted(home.rglob("*"))
    uri = f"sqlite:///{home / 'mlflow.db'}"
    assert run(["models", "list", "--config", str(home)]) == 0
    assert capfd.readouterr().out == f"no models in {uri}; make one with: svae run\n"
    told = (
        f"svae: MLflow at {uri}: there is no such database; name the mlflow.yml of your models with --config or "
        "SVAE_CONFIG, or go to its folder (`svae run` makes a first model)\n"
    )
    source, model = str(table), "models:/flights@champion"
    for call in (
        ["models", "rollback"],
        ["models", "show", "flights@champion"],
        ["compress", source, "-o", "t.svae", "--model", model],
        ["codes", source, "-o", "codes.parquet", "--model", model],
    ):
        capfd.readouterr()
        assert run([*call, "--config", str(home)]) == 1
        assert capfd.readouterr().err.endswith(told)
    assert sorted(home.rglob("*")) == before


def test_the_registry_from_the_command_line(
    home: Path, capfd: pytest.CaptureFixture[str], as_json: Callable[..., dict[str, Any]]
) -> None:
    assert as_json("models", "list", "--config", home) == {"models": []}
    assert run(["models", "rollback", "--config", str(home)]) == 1
    assert "holds no model; make one with: svae run" in capfd.readouterr().err
    assert run(["models", "show", "flights@champion", "--config", str(home)]) == 1
    assert "holds no model 'flights'; it has: none" in capfd.readouterr().err
    for call in (["promote", "nosuch", "1"], ["rollback", "nosuch"]):
        assert run(["models", *call, "--config", str(home)]) == 1
        line = "mlflow.db holds no model 'nosuch'; it has: none; make one with: svae run\n"
        assert capfd.readouterr().err.endswith(line)
    for call in (["list", "flights/2"], ["rollback", "flights/2"], ["show", "models:/"]):
        assert run(["models", *call, "--config", str(home)]) == 2
        assert "is no model's name; give the name alone, such as flights\n" in capfd.readouterr().err
