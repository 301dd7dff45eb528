"""What a retraining does when something fails in its midst: a disk or a server is asked again, data is not."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import Task

from data.errors import GateError, SourceError, TrackingError
from flows import tasks
from flows.jobs import RetrainSettings
from flows.results import Outcome
from flows.settings import load_tracking
from flows.tracking import Store
from vae.settings import ModelSettings, TrainSettings

pytestmark = pytest.mark.usefixtures("prefect_api", "quick")

STEPS = ("ingest", "validate", "train", "extract", "compress", "evaluate", "register")
ONCE = {"extract", "compress", "page"}
Fails = Callable[..., Counter[str]]


def task_of(step: str) -> Task[..., Any]:
    """Prefect's task beneath the function that a flow calls."""
    found = inspect.getclosurevars(getattr(tasks, step)).nonlocals["work"]
    assert isinstance(found, Task)
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting before a task is tried again; how often and after what stay as they are."""
    for step in STEPS:
        monkeypatch.setattr(task_of(step), "retry_delay_seconds", 0)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Let functions raise an error the first `times` they are called; how often each is called is counted."""

    def install(errors: dict[str, Exception], times: int = 1) -> Counter[str]:
        calls: Counter[str] = Counter()

        def failing(place: str, error: Exception, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                calls[place] += 1
                if calls[place] <= times:
                    raise error
                return function(*arguments, **named)

            return call

        for place, error in errors.items():
            module, _, name = place.rpartition(".")
            function = getattr(__import__(module, fromlist=[name]), name)
            monkeypatch.setattr(place, failing(place, error, function))
        return calls

    return install


def retrain(home: Path, source: Path) -> Outcome:
    from flows.retrain import retrain as flow

    settings = RetrainSettings(
        model=ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1),
        train=TrainSettings(steps=20, batch_rows=256, threads=1),
    )
    return flow(source=str(source), settings=settings, out=str(home / "out"), config=str(home))


def attempts() -> dict[str, tuple[int, str]]:
    """How often each task of the latest retraining was tried, and how it ended."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        this_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        deadline = time.monotonic() + 30  # the server learns of states after the fact
        while True:
            found = client.read_task_runs(flow_run_filter=this_run)
            if all(task.state and task.state.is_final() for task in found) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
    return {
        task.name.partition("-")[0]: (task.run_count, str(task.state and task.state.name)) for task in found
    }


@pytest.mark.slow
def test_what_fails_outside_is_tried_again(home: Path, flights: Path, fails: Fails) -> None:
    unreachable = SourceError("s3://b/k: cannot be read")
    unreachable.__cause__ = ConnectionError("reset by peer")
    calls = fails(
        {
            "flows.work.ingest": unreachable,
            "flows.work.check": ConnectionResetError("reset by peer"),
            "vae.pipeline.fit": OSError(5, "Input/output error"),  # its run in MLflow is open by then
            "flows.work.evaluate": TrackingError("MLflow does not answer"),
            "flows.register.register": OSError(5, "Input/output error"),
        }
    )
    outcome = retrain(home, flights)
    assert set(calls.values()) == {2}
    assert attempts() == {step: (1 if step in ONCE else 2, "Completed") for step in (*STEPS, "page")}
    assert outcome.version.promoted
    store = Store(load_tracking(home))
    runs = store.client.search_runs([store.experiment_id()])
    assert [(run.info.run_id, run.info.status) for run in runs] == [(outcome.run_id, "FINISHED")]


@pytest.mark.parametrize(
    ("step", "place", "error"),
    [
        ("ingest", "flows.work.ingest", SourceError("a.csv: line 3: has 1 field, not 2")),
        ("ingest", "flows.work.ingest", FileNotFoundError("a.csv")),
        ("validate", "flows.work.check", GateError("air_time: null share is 100%")),
    ],
    ids=["source", "missing", "gate"],
)
def test_what_is_wrong_with_the_data_is_not(
    step: str, place: str, error: Exception, home: Path, flights: Path, fails: Fails
) -> None:
    calls = fails({place: error})
    with pytest.raises(type(error)) as caught:
        retrain(home, flights)
    assert str(caught.value) == str(error)
    assert calls == {place: 1}
    before = {"validate": {"ingest": (1, "Completed")}}.get(step, {})
    assert attempts() == {**before, step: (1, "Failed")}


def test_what_keeps_failing_fails_after_three_more(home: Path, flights: Path, fails: Fails) -> None:
    calls = fails({"flows.work.ingest": OSError(5, "Input/output error")}, times=9)
    with pytest.raises(OSError, match="Input/output error"):
        retrain(home, flights)
    assert calls == {"flows.work.ingest": 4}
    assert attempts() == {"ingest": (4, "Failed")}
