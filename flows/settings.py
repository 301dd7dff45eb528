"""`mlflow.yml` and the pipeline file: typed, checked, and resolved against the folder they lie in.

MLflow itself does not read `mlflow.yml`; this module does. The file is the one that `--config` names, else the one
that the variable `SVAE_CONFIG` names, else `mlflow.yml` in the working directory, else defaults. Environment
variables win over the file: MLflow's own `MLFLOW_TRACKING_URI`, `MLFLOW_REGISTRY_URI` and
`MLFLOW_EXPERIMENT_NAME`, and for every key `SVAE_` with its path, such as `SVAE_MODEL` or `SVAE_GATE__MARGIN`.
Relative paths, whether from the file or from a variable, are relative to the folder of the file: a flow that a
worker runs in a temporary folder finds the same database as a command typed in the project.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from data.errors import SvaeError
from data.faults import first_fault
from vae.settings import Settings

CONFIG_NAME = "mlflow.yml"
PIPELINE_NAME = "pipeline.yml"
CONFIG_VARIABLE = "SVAE_CONFIG"
MLFLOW_VARIABLES = {
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "MLFLOW_REGISTRY_URI": "registry_uri",
    "MLFLOW_EXPERIMENT_NAME": "experiment",
}

M = TypeVar("M", bound=BaseModel)


class SettingsError(SvaeError):
    """A settings file, or a variable that overrides it, that cannot be meant."""


class Aliases(Settings):
    """Names under which the registry knows the model in use and the one before it."""

    champion: str = Field(default="champion", pattern=r"^[a-z][a-z0-9_-]*$")
    """Alias of the version in use."""
    previous: str = Field(default="previous", pattern=r"^[a-z][a-z0-9_-]*$")
    """Alias of the version that a rollback brings back."""


class GateSettings(Settings):
    """What a new model must show before it becomes the champion by itself."""

    margin: float = Field(default=0.005, ge=0, lt=1)
    """Share by which its bytes (model + held-out bits a row x rows) must undercut the champion's."""
    standard_errors: float = Field(default=2.0, ge=0, le=100)
    """Standard errors, of windows of held-out rows, by which the bytes must be lower; 0 asks for no such thing."""
    code_score_drop: float = Field(default=0.01, ge=0, le=1)
    """Largest allowed loss of code score against the champion."""
    min_ratio: float = Field(default=1.0, ge=0, le=1e6)
    """Floor: source bytes over archive bytes."""
    min_code_score: float = Field(default=0.0, ge=0, le=1)
    """Floor: code score on held-out rows (0 for a model without codes)."""
    max_dead_latents: float = Field(default=1.0, ge=0, le=1)
    """Ceiling: share of latents that never vary on the held-out rows."""


class TrackingSettings(Settings):
    """The keys of `mlflow.yml`."""

    tracking_uri: str = Field(default="sqlite:///mlflow.db", min_length=1)
    """MLflow tracking store: `sqlite:///FILE` or the URL of a server."""
    registry_uri: str | None = None
    """Model registry; null is the tracking store."""
    artifact_location: str = Field(default="mlartifacts", min_length=1)
    """Folder or URI for the artifacts of new experiments."""
    experiment: str = Field(default="sparse-vae", min_length=1)
    """Name of the experiment."""
    model: str | None = Field(default=None, pattern=r"^[^/:]+$")
    """Name of the registered model; null takes the name of the dataset."""
    aliases: Aliases = Aliases()
    """Aliases of the registered model."""
    gate: GateSettings = GateSettings()
    """Thresholds of the promotion gate."""
    state: str = Field(default=".svae", min_length=1)
    """Folder for locks and for the state of local Prefect servers."""

    @field_validator("tracking_uri", "registry_uri")
    @classmethod
    def _no_file_store(cls, uri: str | None) -> str | None:
        if uri is not None and (
            uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks"))
        ):
            raise ValueError(
                f"MLflow no longer keeps runs in folders such as {uri!r}; use sqlite:///mlflow.db or a server's URL"
            )
        return uri


@dataclass(frozen=True)
class Tracking:
    """`TrackingSettings` resolved: every path and URI absolute, whatever the process's own directory."""

    settings: TrackingSettings
    home: Path
    """Folder of `mlflow.yml`: what relative paths are relative to."""
    config: Path | None
    """The file itself; None when defaults are used."""

    @property
    def tracking_uri(self) -> str:
        """URI of the tracking store."""
        return absolute_uri(self.settings.tracking_uri, self.home)

    @property
    def registry_uri(self) -> str:
        """URI of the model registry."""
        return absolute_uri(self.settings.registry_uri or self.settings.tracking_uri, self.home)

    @property
    def artifact_location(self) -> str | None:
        """URI of the folder for new experiments' artifacts; None leaves it to a server, which keeps its own."""
        chosen = "artifact_location" in self.settings.model_fields_set
        if self.tracking_uri.startswith("http") and not chosen:
            return None
        return absolute_uri(self.settings.artifact_location, self.home)

    @property
    def state(self) -> Path:
        """Folder for locks and local servers."""
        return _absolute(self.home / self.settings.state)

    def model_name(self, dataset: str) -> str:
        """Name of the registered model for a dataset."""
        return self.settings.model or dataset


def absolute_uri(uri: str, home: Path) -> str:
    """A URI whose local path no longer depends on the working directory.

    >>> absolute_uri("sqlite:///mlflow.db", Path("/srv/job"))
    'sqlite:////srv/job/mlflow.db'
    >>> absolute_uri("artifacts", Path("/srv/job"))
    'file:///srv/job/artifacts'
    >>> absolute_uri("s3://bucket/runs", Path("/srv/job"))
    's3://bucket/runs'
    >>> absolute_uri("mlflow-artifacts:/runs", Path("/srv/job"))
    'mlflow-artifacts:/runs'
    """
    sqlite = re.fullmatch(r"(sqlite(?:\+\w+)?):///([^?]*)(\?.*)?", uri)
    if sqlite:
        scheme, path, query = sqlite.groups()
        return uri if path in {"", ":memory:"} else f"{scheme}:///{_absolute(home / path)}{query or ''}"
    if uri.startswith("databricks") or re.match(r"(?!file:)[a-z][a-z0-9+.-]+:", uri):
        return uri
    return _absolute(home / uri.removeprefix("file:")).as_uri()


def _absolute(path: Path) -> Path:
    """Without `..`, and with the names of links rather than what they point to."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def load_tracking(config: str | Path | None = None, *, required: bool = False) -> Tracking:
    """The settings of `mlflow.yml`, environment variables applied, paths resolved.

    `required` refuses to fall back on the working directory: a deployment's runs may start in a folder that is
    deleted after them, and a database made there would go with it.

    Raises:
        SettingsError: a file that is missing or malformed, an unknown key, a value out of bounds.
    """
    path = find_config(config)
    if path is None and required:
        raise SettingsError(
            f"no settings: a deployed run starts in a folder of its own, so name {CONFIG_NAME} by its full path in the"
            f" parameter `config` or in the variable {CONFIG_VARIABLE}"
        )
    content = read_yaml(path) if path else {}
    settings = _overridden(content, path or Path(CONFIG_NAME))
    return Tracking(settings, path.parent if path else Path.cwd(), path)


def find_config(config: str | Path | None) -> Path | None:
    """`--config`, then `SVAE_CONFIG`, then the working directory; a folder stands for the file in it."""
    named = config or os.environ.get(CONFIG_VARIABLE)
    path = Path(named).expanduser() if named else Path(CONFIG_NAME)
    if named and path.is_dir():
        path /= CONFIG_NAME
    if path.is_file():
        return _absolute(path)
    if named:
        where = "--config" if config else CONFIG_VARIABLE
        raise SettingsError(
            f"{path}: no such settings file ({where} names it); create it or leave {where} out"
        )
    return None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise SettingsError(f"{path}:{line} not YAML: {problem}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def validated(model: type[M], content: Mapping[str, Any], path: Path | str) -> M:
    """`content` as `model`; the first fault becomes one line that names the key, the value and the way out.

    `path`: where it is from, a file or a variable.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise SettingsError(f"{path}: {first_fault(error, model)}") from error
    except SvaeError as error:  # pydantic lets through what is no ValueError
        raise SettingsError(f"{path}: {error}") from error


def _leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, (*path, name))
        else:
            yield (*path, name)


def _overridden(content: Mapping[str, Any], path: Path) -> TrackingSettings:
    """The settings of a file's content, or of variables where these are set; what is wrong names whose it is."""
    variables = _variables(os.environ)
    merged = _with_variables(content, variables)
    try:
        return TrackingSettings.model_validate(merged)
    except ValidationError as error:
        at = error.errors(include_url=False, include_context=False)[0]["loc"]
        own = [variable for variable, key in variables.items() if key == at[: len(key)]]
        place = own[-1] if own else path  # of two for one key the last is the one that wins
    return validated(TrackingSettings, merged, place)


def _variables(environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Variables that are set and the paths of the keys that they override.

    Raises:
        SettingsError: one that can only have been meant to override a key, and does not.
    """
    known = {variable: (key,) for variable, key in MLFLOW_VARIABLES.items()}
    known |= {"SVAE_" + "__".join(path).upper(): path for path in _leaves(TrackingSettings)}
    ours = [CONFIG_VARIABLE, *known]
    for variable in environment:
        if not variable.startswith("SVAE_") or variable in ours:
            continue
        near = difflib.get_close_matches(variable, ours, 1, 0.85)
        if near or "__" in variable:
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(ours)}"
            raise SettingsError(f"{variable}: no setting has this variable; {hint}")
    return {variable: path for variable, path in known.items() if environment.get(variable)}


def _with_variables(content: Mapping[str, Any], variables: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """`content` with the values of environment variables in place of the file's."""
    merged: dict[str, Any] = {key: dict(v) if isinstance(v, dict) else v for key, v in content.items()}
    for variable, path in variables.items():
        parent = merged
        for part in path[:-1]:
            parent = parent.setdefault(part, {})
            if not isinstance(parent, dict):
                break
        else:
            parent[path[-1]] = os.environ[variable]
    return merged
