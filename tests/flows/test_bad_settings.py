"""What settings files, deployments and servers at fault get: one clear line, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Failed = Callable[..., str]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trackin_uri: x\n", "unknown key 'trackin_uri'; did you mean 'tracking_uri'?"),
        ("gate: {margin: 2}\n", "gate.margin: Input should be less than 1 (got 2)"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_settings_file_at_fault(
    content: str, message: str, good: Path, failed: Failed, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.yml").write_text(content)
    assert message in failed("run", "--dataset", good / "t.csv")
    assert message in failed("models", "list")
    assert message in failed("serve")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trains: {steps: 1}\n", "unknown key 'trains'; did you mean 'train'?"),
        ("train: {step: 1}\n", "unknown key 'train.step'; did you mean 'steps'?"),
        ("train: {steps: 0}\n", "train.steps: Input should be greater than or equal to 1 (got 0)"),
        ("bounds: [amount=-1]\n", "amount=-1"),
    ],
)
def test_a_pipeline_file_at_fault(
    content: str, message: str, good: Path, failed: Failed, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.yml").write_text(content)
    assert message in failed("run", "--dataset", good / "t.csv")


def test_a_deployment_file_at_fault(home: Path, failed: Failed) -> None:
    assert "prefect.yaml: no such file" in failed("serve", "--config", home)
    (home / "prefect.yaml").write_text(
        "deployments: [{name: a, entrypoint: flows.rollback.rollback, schedules: [{}]}]\n"
    )
    assert "a schedule has either `cron` or `interval`" in failed("serve", "--config", home)
    (home / "prefect.yaml").write_text("deployments: [{nam: a}]\n")
    assert "prefect.yaml" in failed("serve", "--config", home)


def test_an_mlflow_server_that_is_not_there(
    good: Path, failed: Failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for call in (["run", "--dataset", good / "t.csv"], ["models", "list"]):
        assert "MLflow at http://127.0.0.1:9 does not answer" in failed(*call)


def test_a_model_that_the_registry_does_not_have(
    home: Path, good: Path, failed: Failed, tmp_path: Path
) -> None:
    call = ["compress", good / "t.csv", "-o", tmp_path / "made.svae", "--config", home, "--model"]
    (home / "mlflow.db.lock").touch()
    assert "holds no model 'flights'" in failed(*call, "models:/flights@champion")
    assert "expected NAME@ALIAS or NAME/VERSION" in failed(*call, "models:/flights/x", status=2)
