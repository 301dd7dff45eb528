"""The deployments of `prefect.yaml`: what they ask for, how they are scheduled, what their forms say."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.deployments import read_deployments, serve
from flows.jobs import RetrainSettings
from flows.settings import SettingsError

SHIPPED = Path(__file__).parents[2] / "prefect.yaml"


def schema_of(entrypoint: str) -> dict[str, Any]:
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    return parameter_schema(load_flow_from_entrypoint(entrypoint)).model_dump()


def test_the_shipped_deployments() -> None:
    entries = {entry.name: entry for entry in read_deployments(SHIPPED)}
    assert set(entries) == {"retrain", "compress-dataset", "rollback"}
    retrain = entries["retrain"]
    assert [schedule.cron for schedule in retrain.schedules] == ["0 3 * * *"]
    assert retrain.concurrency_limit is not None
    assert retrain.concurrency_limit.limit == 1
    assert retrain.concurrency_limit.collision_strategy == "CANCEL_NEW"
    assert (
        yaml.safe_load(SHIPPED.read_text())["pull"] == []
    )  # flows are installed packages, nothing is fetched


def test_they_become_prefects() -> None:
    config = Path("/srv/project/mlflow.yml")
    built: dict[str, Any] = {entry.name: entry.build(config) for entry in read_deployments(SHIPPED)}
    retrain = built["retrain"]
    assert retrain.full_name == "retrain/retrain"
    assert retrain.entrypoint == "flows.retrain.retrain"
    assert retrain.parameters["config"] == str(config)
    assert retrain.parameters["settings"] == {"train": {"effort": "standard"}}
    assert retrain.concurrency_limit == 1
    assert retrain.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    assert retrain.schedules[0].schedule.cron == "0 3 * * *"
    assert built["compress-dataset"].full_name == "compress-dataset/compress-dataset"
    assert built["rollback"].full_name == "rollback/rollback"


@pytest.mark.parametrize("entry", read_deployments(SHIPPED), ids=lambda entry: entry.name)
def test_the_shipped_parameters_are_valid(entry: Any) -> None:
    from prefect.flows import load_flow_from_entrypoint

    flow: Any = load_flow_from_entrypoint(entry.entrypoint)
    flow.validate_parameters({"config": None, **entry.parameters})


@pytest.mark.parametrize("entry", read_deployments(SHIPPED), ids=lambda entry: entry.name)
def test_every_parameter_and_setting_is_described(entry: Any) -> None:
    schema = schema_of(entry.entrypoint)
    for name, parameter in schema["properties"].items():
        assert parameter.get("description"), name
    for title, definition in schema["definitions"].items():
        for name, setting in definition.get("properties", {}).items():
            assert setting.get("description"), f"{title}.{name}"


def limits(schema: dict[str, Any], title: str, name: str) -> dict[str, float]:
    setting = schema["definitions"][title]["properties"][name]
    options = setting.get("anyOf", [setting])
    keys = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    return {key: option[key] for option in options for key in keys if key in option}


@pytest.mark.parametrize("bound", [5, 0.5, "1%", None])
def test_a_form_takes_a_bound_as_a_schema_file_does(bound: object) -> None:
    from prefect.utilities.schema_tools import validate

    columns = [{"name": "dep_delay", "kind": "integer", "bound": bound}]
    schema = schema_of("flows.retrain.retrain")
    validate({"settings": {"columns": columns}}, schema, raise_on_error=True, ignore_required=True)
    RetrainSettings.model_validate({"columns": columns})


def test_every_number_has_bounds() -> None:
    schema = schema_of("flows.retrain.retrain")
    assert limits(schema, "ModelSettings", "latents") == {"minimum": 1, "maximum": 256}
    assert limits(schema, "ModelSettings", "width") == {"minimum": 4, "maximum": 256}
    assert limits(schema, "TrainSettings", "encoder_lr") == {"exclusiveMinimum": 0, "maximum": 1}
    assert limits(schema, "DataGate", "max_null_rise") == {"minimum": 0, "maximum": 1}
    for title, definition in schema["definitions"].items():
        for name, setting in definition.get("properties", {}).items():
            kinds = {option.get("type") for option in setting.get("anyOf", [setting])}
            if kinds & {"integer", "number"}:
                assert limits(schema, title, name), f"{title}.{name}"
    assert schema["definitions"]["Effort"]["enum"] == ["fast", "standard", "max"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("deployments: []", "deployments: expected a list with at least one deployment"),
        ("deployments: [{name: a, entrypoint: flows/a.py:b}]", "entrypoint: String should match pattern"),
        (
            "deployments: [{name: a, entrypoint: a.b, concurrency_limit: {limit: 0}}]",
            "concurrency_limit.limit: Input should be greater than or equal to 1 (got 0)",
        ),
        (
            "deployments: [{name: a, entrypoint: a.b, schedules: [{cron: '* * * * *', interval: 5}]}]",
            "schedules.0: a schedule has either `cron` or `interval`",
        ),
        (
            "deployments: [{name: a, entrypoint: a.b, schedule: 5}]",
            "unknown key 'schedule'; did you mean 'schedules'?",
        ),
    ],
)
def test_an_entry_at_fault(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        read_deployments(tmp_path / "prefect.yaml")
    assert message in str(caught.value)
    assert "prefect.yaml" in str(caught.value)


class StubRunner:
    """Prefect's runner without a server; what becomes of it is in `events`."""

    events: list[Any]

    def __init__(self, *, pause_on_shutdown: bool) -> None:
        self.events = StubRunner.events = [("pauses", pause_on_shutdown)]

    def add_deployment(self, deployment: Any) -> None:
        self.events.append(deployment.full_name)

    async def start(self) -> None:
        self.events.append("started")
        raise KeyboardInterrupt


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state folder; the environment and the working directory are put back after the test."""
    monkeypatch.setattr("prefect.runner.Runner", StubRunner)
    for name in ("PREFECT_API_URL", "PYTHONSAFEPATH", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return tmp_path / "state"


def test_serving_begins_once_all_deployments_are_known(stubbed: Path, caplog: Any) -> None:
    def begun(names: list[str]) -> None:
        StubRunner.events.append(("begun", names))

    url = "http://127.0.0.1:9/api"
    names = ["retrain/retrain", "compress-dataset/compress-dataset", "rollback/rollback"]
    with caplog.at_level("INFO", logger="prefect.runner"):
        serve(read_deployments(SHIPPED), Path("/srv/mlflow.yml"), stubbed, url, lasting=True, on_begin=begun)
    assert StubRunner.events == [("pauses", True), *names, ("begun", names), "started"]
    assert Path.cwd() == stubbed / "prefect" / "work"
    assert os.environ["PREFECT_API_URL"] == url
    assert "KeyboardInterrupt: no longer serving" in caplog.text


def test_nothing_begins_where_a_deployment_is_refused(stubbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: StubRunner, deployment: Any) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(StubRunner, "add_deployment", refuse)
    begun: list[Any] = []
    with pytest.raises(ConnectionError):
        serve(
            read_deployments(SHIPPED),
            Path("/srv/mlflow.yml"),
            stubbed,
            "http://127.0.0.1:9/api",
            lasting=False,
            on_begin=begun.append,
        )
    assert (begun, StubRunner.events) == ([], [("pauses", False)])


def test_serving_from_within_an_event_loop_is_refused(stubbed: Path) -> None:
    async def inside() -> None:
        serve([], Path("/srv/mlflow.yml"), stubbed, "http://x/api", lasting=False, on_begin=print)

    with pytest.raises(RuntimeError, match="cannot be served from within an event loop"):
        asyncio.run(inside())
    assert not stubbed.exists()


def test_a_second_server_is_told_what_is_served_already(home: Path) -> None:
    from flows import server
    from flows.locks import BusyError
    from flows.settings import load_tracking

    tracking = load_tracking(home)

    def begin() -> None:
        with server._alone(tracking):
            pass

    with server._alone(tracking), ThreadPoolExecutor() as pool, pytest.raises(BusyError) as caught:
        pool.submit(begin).result()
    assert str(caught.value) == (
        f"`svae serve` runs already with the state in {tracking.state}; end that one first, or set PREFECT_API_URL to "
        "its server to serve beside it"
    )
