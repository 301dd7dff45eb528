"""When something fails: what to do about it, in the run's log, and no MLflow run left open.

Prefect calls a hook by position in the process of the run, by name in that of the runner.
"""

from __future__ import annotations

import contextlib
from typing import Any

from data import errors as e
from flows.deadline import FileTimeoutError
from flows.settings import SettingsError

ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (
        e.GateError,
        "Nothing was trained. See the artifact `data-gate`; if the data is right, widen `settings.data_gate`.",
    ),
    (SettingsError, "Mend the settings file or the variable that it names, and run again."),
    (e.UsageError, "Mend the parameter that it names, and run again."),
    (
        e.BoundError,
        "Mend `settings.bounds`, or `bound` of the column under `settings.columns`, and run again.",
    ),
    (
        e.SchemaError,
        "Mend the source, or what `settings.columns` and `settings.csv` say of it, and run again.",
    ),
    (e.DataError, "Mend the source, and run again; the former dataset is as it was."),
    (
        e.TrackingError,
        "Start the MLflow server or mend mlflow.yml, and run again; finished steps are not repeated.",
    ),
    (e.ModelError, "Retrain: delete the model's folder and run again, or name another model."),
    (
        e.ArchiveError,
        "No archive was written. Run again; if it happens again, the data and this line make a bug report.",
    ),
    (
        FileTimeoutError,
        "Give a longer `file_timeout_seconds` or fewer steps; finished files are not done again.",
    ),
    (
        TimeoutError,
        "The step took longer than its limit. Run again: training goes on from its last checkpoint.",
    ),
    (OSError, "Look at the disk and the network, and run again; finished steps are not repeated."),
)
DEFAULT_ADVICE = (
    "Run again; finished steps are not repeated. If it happens again, it is a fault of this program."
)


def advice(error: BaseException | None) -> str:
    """What to do about an error."""
    return next((text for kind, text in ADVICE if isinstance(error, kind)), DEFAULT_ADVICE)


def outside_failed(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a retry can help: yes for networks, disks and servers, no for data, settings and ourselves."""
    error = _error_of(state)
    if isinstance(error, e.TrackingError):
        return True
    if isinstance(error, e.SvaeError):
        cause = error.__cause__
        return isinstance(cause, (ConnectionError, TimeoutError))
    return isinstance(error, OSError) and not isinstance(
        error, (FileNotFoundError, PermissionError, TimeoutError)
    )


def explain_task(task: Any, task_run: Any, state: Any) -> None:
    """Hook of tasks: one line of advice in the log."""
    from prefect.logging.loggers import task_run_logger

    task_run_logger(task_run, task=task).error(
        "%s: %s What to do: %s", task.name, _error_of(state), advice(_error_of(state))
    )


def close_runs(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of flows: MLflow runs that this flow run opened are marked as failed or killed."""
    from prefect.logging.loggers import flow_run_logger

    from flows.settings import load_tracking
    from flows.tracking import Store

    status = "FAILED" if state.is_failed() else "KILLED"
    with contextlib.suppress(e.SvaeError):
        closed = Store(load_tracking((flow_run.parameters or {}).get("config"))).end_runs_of(
            str(flow_run.id), status
        )
        if closed:
            flow_run_logger(flow_run, flow).info("MLflow run %s is marked %s", ", ".join(closed), status)


def explain_flow(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of flows: one line of advice in the log."""
    from prefect.logging.loggers import flow_run_logger

    error = _error_of(state)
    flow_run_logger(flow_run, flow).error("%s stopped: %s What to do: %s", flow.name, error, advice(error))


def _error_of(state: Any) -> BaseException | None:
    if not (state.is_failed() or state.is_crashed()):
        return None
    try:
        result = state.result(raise_on_failure=False)
    except Exception as error:  # noqa: BLE001  (a result that is gone must not hide the failure itself)
        return error
    return result if isinstance(result, BaseException) else None


# Untyped, since Prefect's types ask a hook for generics that it does not use.
ON_TASK_FAILURE: Any = [explain_task]
ON_FLOW_FAILURE: Any = [explain_flow]
ON_RETRAIN_FAILURE: Any = [explain_flow, close_runs]
ON_RETRAIN_CANCELLATION: Any = [close_runs]
