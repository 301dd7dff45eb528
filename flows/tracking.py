"""Runs in MLflow: opened once, addressed by their id, written in batches.

Everything goes through `MlflowClient` with explicit URIs. MLflow's own global state (the active run, the tracking
URI) is never used: in a thread the active run is lost and a bare `log_metric` silently opens a new run, and
`set_tracking_uri` writes an environment variable that every child process inherits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from data.errors import SvaeError, TrackingError
from flows import provenance
from flows.locks import file_lock, lock_for_uri
from flows.settings import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFLIGHT_SECONDS = 5.0
BATCH = 500
FLUSH_SECONDS = 5.0
CLOSE_SECONDS = 60.0
"""How long the last metrics wait for a store that refuses them: a database that another process keeps locked."""
PARAM_CHARACTERS = 6000
FLOW_RUN_TAG = "prefect.flow_run_id"


def shown(uri: str) -> str:
    """A URI for messages, without its password.

    >>> shown("postgresql://me:secret@db/mlflow")
    'postgresql://me@db/mlflow'
    """
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1@", uri)


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what MLflow and its stores raise into one line that names the store."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SvaeError:
        raise
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise TrackingError(f"MLflow at {shown(uri)}: {reason}") from error


def preflight(tracking: Tracking) -> None:
    """Fail at once, before any work is done, if a store is out of reach.

    MLflow's own client retries for minutes, which is right in mid-run and wrong at the start.

    Raises:
        TrackingError: names the store and the setting to change.
    """
    for key, uri in (("tracking_uri", tracking.tracking_uri), ("registry_uri", tracking.registry_uri)):
        parts = urlparse(uri)
        if parts.scheme in {"http", "https"}:
            _knock(uri, key)
        elif parts.scheme == "sqlite" and not (folder := Path(unquote(parts.path)[1:]).parent).is_dir():
            raise TrackingError(
                f"MLflow at {shown(uri)}: the folder {folder} does not exist; create it or set {key}"
            )


def is_there(tracking: Tracking) -> bool:
    """Whether there is a registry: whether the file of a database is there; a server is taken at its word."""
    parts = urlparse(tracking.registry_uri)
    return parts.scheme != "sqlite" or Path(unquote(parts.path)[1:]).is_file()


def _knock(uri: str, key: str) -> None:
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=PREFLIGHT_SECONDS):  # noqa: S310
            return
    except urllib.error.HTTPError:
        return  # somebody answers; whether it is MLflow, the first call will tell
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise TrackingError(
            f"MLflow at {shown(uri)} does not answer ({reason}); start that server or set {key} in mlflow.yml"
        ) from error


class Store:
    """One MLflow installation: its client, its experiment, its runs."""

    def __init__(self, tracking: Tracking, *, make: bool = True) -> None:
        """Connect; `make` says whether a database that is not there is made.

        Raises:
            TrackingError: The store is out of reach, or not there.
        """
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.tracking = tracking
        if not make and not is_there(tracking):
            raise TrackingError(
                f"MLflow at {shown(tracking.registry_uri)}: there is no such database; name the mlflow.yml of your "
                "models with --config or SVAE_CONFIG, or go to its folder (`svae run` makes a first model)"
            )
        preflight(tracking)
        # Processes that open a fresh SQLite store at once all fail in its migrations: one at a time.
        with (
            explained(tracking.tracking_uri),
            file_lock(lock_for_uri(tracking.tracking_uri, tracking.state), timeout=300),
        ):
            self.client: MlflowClient = MlflowClient(tracking.tracking_uri, tracking.registry_uri)
            self.client.search_experiments(max_results=1)
            self.client.search_registered_models(max_results=1)

    def explained(self) -> contextlib.AbstractContextManager[None]:
        """Errors inside name this store."""
        return explained(self.tracking.tracking_uri)

    def experiment_id(self) -> str:
        """Id of the experiment, made on first use with the artifact location of the settings."""
        name = self.tracking.settings.experiment
        with (
            self.explained(),
            file_lock(lock_for_uri(self.tracking.tracking_uri, self.tracking.state), timeout=300),
        ):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return self.client.create_experiment(name, artifact_location=self.tracking.artifact_location)
            if found.lifecycle_stage == "deleted":
                raise TrackingError(
                    f"MLflow at {shown(self.tracking.tracking_uri)}: the experiment {name!r} is deleted; restore it"
                    " (mlflow experiments restore) or set another `experiment` in mlflow.yml"
                )
            return found.experiment_id

    def start_run(self, name: str, *, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open a run with its parameters, and where it comes from; its id."""
        git = provenance.git_state()
        source = {
            "mlflow.runName": name,
            "mlflow.source.name": "svae",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": git["commit"],
            "git.commit": git["commit"],
            "git.dirty": git["dirty"],
            **{f"version.{package}": version for package, version in provenance.named_versions().items()},
            **tags,
        }
        with self.explained():
            run_id = self.client.create_run(self.experiment_id(), tags=source).info.run_id
            self.log_params(run_id, params)
            self.client.log_dict(run_id, provenance.packages(), "packages.json")
            return run_id

    def take_up(self, run_id: str, tags: Mapping[str, str]) -> bool:
        """Tag a run that shall go on; False if this store has no such run any more."""
        from mlflow.exceptions import MlflowException

        with self.explained():
            try:
                if self.client.get_run(run_id).info.lifecycle_stage != "active":
                    return False
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
            for key, value in tags.items():
                self.client.set_tag(run_id, key, value)
        return True

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log nested settings as flat parameters: `train.effort`."""
        from mlflow.entities import Param

        flat = [Param(key, _as_text(value)) for key, value in flatten(params).items()]
        with self.explained():
            for start in range(0, len(flat), 100):
                self.client.log_batch(run_id, params=flat[start : start + 100])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float | int | None], step: int = 0) -> None:
        """Log final numbers in one batch; nested names are flattened, None and non-finite values left out."""
        writer = MetricWriter(self, run_id)
        writer.add(metrics, step)
        writer.close()

    def log_files(self, run_id: str, files: Mapping[str, list[Path]]) -> None:
        """Upload files, by folder of the run's artifacts."""
        with self.explained():
            for folder, paths in files.items():
                for path in paths:
                    self.client.log_artifact(run_id, str(path), folder or None)

    def log_dataset(self, run_id: str, *, name: str, digest: str, uri: str, rows: int, schema: str) -> None:
        """Name the data that the run is about; `digest` is the manifest's SHA-256, whole in a tag."""
        from mlflow.entities import Dataset, DatasetInput

        entry = Dataset(
            name=name,
            digest=digest[:36],  # MLflow keeps 36 characters
            source_type="local",
            source=json.dumps({"uri": uri}),
            schema=schema if len(schema) < 60_000 else None,
            profile=json.dumps({"num_rows": rows}),
        )
        with self.explained():
            self.client.log_inputs(run_id, [DatasetInput(entry, [])])
            self.client.set_tag(run_id, "dataset.sha256", digest)

    @contextlib.contextmanager
    def recording(self, run_id: str) -> Iterator[MetricWriter]:
        """Keep the run open, with system metrics once a second, while something is done for it."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        with self.explained():
            self.client.update_run(run_id, status="RUNNING")
            monitor = SystemMetricsMonitor(
                run_id, sampling_interval=1, resume_logging=True, tracking_uri=self.tracking.tracking_uri
            )
        writer = MetricWriter(self, run_id)
        monitor.start()
        try:
            yield writer
        finally:
            monitor.finish()
            writer.close()

    def end_run(self, run_id: str, status: str = "FINISHED") -> None:
        """Close a run as `FINISHED`, `FAILED` or `KILLED`."""
        with self.explained():
            self.client.set_terminated(run_id, status)

    def end_runs_of(self, flow_run_id: str, status: str) -> list[str]:
        """Close the runs that a flow run left open; their ids."""
        with self.explained():
            experiments = [e.experiment_id for e in self.client.search_experiments()]
            text = f"tags.`{FLOW_RUN_TAG}` = '{flow_run_id}' and attributes.status = 'RUNNING'"
            runs = self.client.search_runs(experiments, text) if experiments else []
            for run in runs:
                self.client.set_terminated(run.info.run_id, status)
            return [run.info.run_id for run in runs]


class MetricWriter:
    """Metrics of one run, gathered and sent in batches; what a store refuses is kept and sent again."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def add(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Gather numbers; anything that is not a finite number is left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in flatten(metrics).items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._waiting.append(Metric(metric_name(key), float(value), now, step))
        if len(self._waiting) >= BATCH or time.monotonic() - self._sent > FLUSH_SECONDS:
            with contextlib.suppress(TrackingError):  # the next batch brings them
                self.flush()

    def flush(self) -> None:
        """Send what is gathered."""
        self._sent = time.monotonic()
        while self._waiting:
            with self.store.explained():
                self.store.client.log_batch(self.run_id, metrics=self._waiting[:BATCH])
            del self._waiting[:BATCH]

    def close(self) -> None:
        """Send the rest; a store that still refuses after `CLOSE_SECONDS` is an error."""
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._waiting:
            try:
                self.flush()
            except TrackingError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)


def metric_name(key: str) -> str:
    """A name that MLflow accepts: other characters become `_`.

    >>> metric_name("bits/col (°C)")
    'bits/col __C_'
    """
    return re.sub(r"[^\w./ -]", "_", key, flags=re.ASCII)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= PARAM_CHARACTERS else text[: PARAM_CHARACTERS - 1] + "…"
