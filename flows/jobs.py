"""What flows are asked to do: the parameters of the deployments, and the files a job works on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field, field_serializer, field_validator

from data.bounds import parse_spec
from data.errors import BoundError, SchemaError, UsageError
from data.files import FORMATS
from data.gate import DataGate
from data.schema import Column, CsvDialect, Schema
from flows.deadline import FILE_SECONDS, WEEK
from flows.settings import PIPELINE_NAME, Tracking, load_tracking, read_yaml, validated
from vae.settings import ModelSettings, Settings, TrainSettings

RUNS = "svae-runs"
CLEAR: Final = object()
"""In place of a value: what a settings file says of this key does not count."""


class ReportSettings(Settings):
    """What a run's evaluation measures beside what it always does; no model or archive depends on it."""

    rivals: bool = False
    """Whether also the slow ones of other tools are measured: Parquet with brotli at level 11, and pcodec of images."""
    curve: bool = False
    """Whether a model is trained briefly for each of six bounds, to draw bits a row over them beside other tools'."""


class RetrainSettings(Settings):
    """Everything that decides what a retraining makes, and what its report measures."""

    model: ModelSettings = ModelSettings()
    """Shape of the model."""
    train: TrainSettings = TrainSettings()
    """How it is trained."""
    bounds: tuple[str, ...] = Field(default=(), max_length=1000)
    """Error bounds, `COLUMN=WIDTH` each (`dep_delay=5`, `air_time=1%`, `*=0.5%`); later ones win, none is exact."""
    data_gate: DataGate = DataGate()
    """What the data must satisfy before training."""
    columns: tuple[Column, ...] = Field(default=(), max_length=100_000)
    """What is known of columns, as in a schema file (`svae run --schema`); the others are inferred."""
    csv: CsvDialect | None = None
    """How the source is written, if it is CSV; null finds out."""
    report: ReportSettings = ReportSettings()
    """What is measured beside what always is."""
    allow_schema_change: bool = False
    """Whether a schema other than the champion's may be trained on; such a version waits for `svae models promote`."""

    @field_validator("bounds")
    @classmethod
    def _are_bounds(cls, bounds: tuple[str, ...]) -> tuple[str, ...]:
        for spec in bounds:
            try:
                parse_spec(spec)
            except BoundError as error:
                raise ValueError(str(error)) from error
        return bounds

    @field_validator("columns")
    @classmethod
    def _are_different(cls, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        try:
            Schema(columns=columns)
        except SchemaError as error:
            raise ValueError(str(error)) from error
        return columns

    @field_serializer("csv")
    def _as_told(self, csv: CsvDialect | None) -> dict[str, Any] | None:
        """Without what was not told, which is found out: a default in its place would be binding."""
        return None if csv is None else csv.model_dump(exclude_unset=True)

    def decisive(self) -> dict[str, Any]:
        """As JSON, without what only adds to the report."""
        return self.model_dump(mode="json", exclude={"report"})

    @property
    def known(self) -> Schema | None:
        """What is known of the source's columns before it is read."""
        return Schema(columns=self.columns, csv=self.csv) if self.columns or self.csv else None


class FolderSettings(Settings):
    """How the files of a folder are compressed."""

    model: str | None = Field(default=None, max_length=1000)
    """Model for all files: a folder, `models:/NAME@champion`, `models:/NAME/3`; null trains one for each file."""
    settings: ModelSettings = ModelSettings()
    """Shape of the models, where one is trained for each file."""
    train: TrainSettings = TrainSettings()
    """How they are trained."""
    bounds: tuple[str, ...] = Field(default=(), max_length=1000)
    """Error bounds, as for a retraining; `model` alone takes those of the model."""
    rivals: bool = False
    """Whether each archive also stores what other coders would need."""
    file_timeout_seconds: float = Field(default=FILE_SECONDS, gt=0, le=WEEK)
    """Longest time for one file; one that takes longer fails, the others go on. Looked at as its work proceeds."""


class Job(Settings):
    """One retraining: what, how, and where everything lies; every path is absolute."""

    source: str
    """The source, as `svae ingest` takes it."""
    name: str
    """Name of the dataset, and of its registered model unless the settings name another."""
    out: Path
    """Folder of everything that is made."""
    settings: RetrainSettings
    """What decides the outcome."""
    config: Path | None
    """The settings file of tracking and registry; None takes defaults in `home`."""
    home: Path
    """Folder that relative paths of the tracking settings are relative to."""

    @property
    def dataset(self) -> Path:
        """Folder of the ingested dataset."""
        return self.out / "dataset"

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.out / "model"

    @property
    def codes(self) -> Path:
        """The sparse codes."""
        return self.out / "codes.parquet"

    @property
    def archive(self) -> Path:
        """The archive."""
        return self.out / f"{self.name}.svae"

    @property
    def report(self) -> Path:
        """Folder of numbers and figures."""
        return self.out / "report"

    @property
    def curve(self) -> Path:
        """Bits a row over several bounds, where they are asked for."""
        return self.out / "curve.json"

    @property
    def page(self) -> Path:
        """The evaluation page."""
        return self.out / "report.html"

    @property
    def lock(self) -> Path:
        """Held, and there, while the job runs: one at a time in a folder, whatever their settings."""
        return self.out.parent / f".{self.out.name}.lock"

    def tracking(self) -> Tracking:
        """The settings of tracking and registry."""
        from dataclasses import replace

        loaded = load_tracking(self.config)
        return loaded if self.config else replace(loaded, home=self.home)


def open_job(
    source: str,
    settings: RetrainSettings,
    *,
    out: str | Path | None,
    config: str | Path | None,
    deployed: bool = False,
) -> Job:
    """A job with every path absolute.

    Relative paths are relative to the working directory, for a deployed run to the folder of the settings file.
    """
    tracking = load_tracking(config, required=deployed)
    base = tracking.home if deployed else Path.cwd()
    source = absolute_source(source, base)
    name = dataset_name(source)
    folder = (base / out).absolute() if out else (base / RUNS / name).absolute()
    return Job(
        source=source, name=name, out=folder, settings=settings, config=tracking.config, home=tracking.home
    )


def absolute_source(source: str, base: Path) -> str:
    """A source that means the same from every folder."""
    if source.startswith("sample:") or "://" in source:
        return source
    return str(base / source)


def dataset_name(source: str) -> str:
    """Name of a dataset, from its source.

    >>> dataset_name("sample:flights"), dataset_name("/data/2013 sales.tsv.gz"), dataset_name("s3://b/parts/*.parquet")
    ('flights', '2013-sales', 'parts')
    """
    path = source.removeprefix("sample:").rstrip("/")
    last = [part for part in path.split("/") if part and "*" not in part and "?" not in part][-1:] or [
        "dataset"
    ]
    known = "|".join(re.escape(ending) for ending in FORMATS)
    stem = re.sub(rf"({known})?(\.(gz|zip))?$", "", last[0], flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "dataset"


def load_retrain_settings(
    path: str | Path | None, home: Path, changes: Mapping[str, Any] | None = None
) -> RetrainSettings:
    """The settings of a pipeline file (`pipeline.yml` beside `mlflow.yml` by default), with `changes` on top.

    A change to None is none; CLEAR brings the default back.

    Raises:
        SettingsError: a file that is missing or malformed, an unknown key, a value out of bounds.
    """
    named = Path(path) if path else home / PIPELINE_NAME
    content = read_yaml(named) if path or named.is_file() else {}
    for dotted, value in (changes or {}).items():
        if value is None:
            continue
        parent = content
        *parts, last = dotted.split(".")
        for part in parts:
            parent = parent.setdefault(part, {})
            if not isinstance(parent, dict):
                raise UsageError(f"{named}: {part} should hold keys, not {parent!r}")
        if value is CLEAR:
            parent.pop(last, None)
        else:
            parent[last] = value
    return validated(RetrainSettings, content, named)
