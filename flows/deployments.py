"""`prefect.yaml` as deployments that this machine serves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from flows.server import URL_VARIABLE
from flows.settings import SettingsError, read_yaml, validated
from vae.settings import Settings

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Schedule

DEPLOYMENTS_NAME = "prefect.yaml"


class ScheduleEntry(Settings):
    """When a deployment runs: one of `cron` and `interval`."""

    cron: str | None = None
    """Five fields, as in crontab."""
    interval: float | None = Field(default=None, gt=0)
    """Seconds between runs."""
    timezone: str | None = None
    """Name of a time zone; UTC by default."""
    active: bool = True
    """Whether it fires."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ScheduleEntry:
        if (self.cron is None) == (self.interval is None):
            raise ValueError("a schedule has either `cron` or `interval`")
        return self

    def build(self) -> Schedule:
        """Prefect's schedule."""
        from prefect.schedules import Cron, Interval

        if self.cron is not None:
            return Cron(self.cron, timezone=self.timezone, active=self.active)
        return Interval(timedelta(seconds=self.interval or 0), timezone=self.timezone, active=self.active)


class Limit(Settings):
    """How many runs of a deployment there may be at a time."""

    limit: int = Field(ge=1)
    """That many."""
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    """What becomes of one run more: it waits, or is cancelled."""


class DeploymentEntry(Settings):
    """One deployment of `prefect.yaml`; what only work pools use is read past."""

    name: str = Field(min_length=1)
    """Its name."""
    entrypoint: str = Field(pattern=r"^[\w.]+$")
    """The flow, as `package.module.function`."""
    description: str | None = None
    """What it does."""
    tags: tuple[str, ...] = ()
    """Labels."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Parameters of its runs."""
    schedules: tuple[ScheduleEntry, ...] = ()
    """When it runs."""
    concurrency_limit: Limit | None = None
    """How many runs at a time."""
    work_pool: dict[str, Any] = Field(default_factory=dict)
    """Where `prefect deploy` sends its runs."""

    def build(self, config: Path) -> RunnerDeployment:
        """Prefect's deployment, for serving; runs find their settings in `config`, whatever folder they start in."""
        from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
        from prefect.flows import load_flow_from_entrypoint
        from prefect.types.entrypoint import EntrypointType

        limit = self.concurrency_limit
        flow: Any = load_flow_from_entrypoint(self.entrypoint)
        return flow.to_deployment(
            name=self.name,
            description=self.description,
            tags=list(self.tags),
            parameters={"config": str(config), **self.parameters},
            schedules=[entry.build() for entry in self.schedules],
            concurrency_limit=limit
            and ConcurrencyLimitConfig(
                limit=limit.limit, collision_strategy=ConcurrencyLimitStrategy(limit.collision_strategy)
            ),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


def read_deployments(path: Path) -> list[DeploymentEntry]:
    """The deployments of `prefect.yaml`.

    Raises:
        SettingsError: no such file, or an entry that cannot be meant.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; write the deployments there, as in the README")
    entries = read_yaml(path).get("deployments")
    if not isinstance(entries, list) or not entries:
        raise SettingsError(f"{path}: deployments: expected a list with at least one deployment")
    return [validated(DeploymentEntry, entry if isinstance(entry, dict) else {}, path) for entry in entries]


def serve(
    entries: list[DeploymentEntry],
    config: Path,
    state: Path,
    url: str,
    *,
    lasting: bool,
    on_begin: Callable[[list[str]], None],
) -> None:
    """Serve deployments until interrupted.

    Args:
        entries: The deployments.
        config: Full path of `mlflow.yml`.
        state: The state folder.
        url: The server's API.
        lasting: Whether the server outlives us; then schedules pause while nobody serves them.
        on_begin: Takes the deployments' full names once the server knows them all.
    """
    import asyncio

    from prefect.exceptions import TerminationSignal
    from prefect.runner import Runner
    from prefect.settings import PREFECT_API_URL, temporary_settings

    os.environ[URL_VARIABLE] = url
    # Runs inherit our folder, and Prefect imports from it first: somebody's own package `data` must not lie there.
    neutral = state / "prefect" / "work"
    neutral.mkdir(parents=True, exist_ok=True)
    os.chdir(neutral)
    os.environ["PYTHONSAFEPATH"] = "1"
    _own_modules_first()
    with temporary_settings(updates={PREFECT_API_URL: url}):
        # What `prefect.serve` does, which does not say when it has begun.
        deployments = [entry.build(config) for entry in entries]
        runner = Runner(pause_on_shutdown=lasting)
        for deployment in deployments:
            runner.add_deployment(deployment)
        on_begin([deployment.full_name for deployment in deployments])
        with contextlib.suppress(KeyboardInterrupt, TerminationSignal):
            asyncio.run(runner.start())


def _own_modules_first() -> None:
    """Runs import `flows` from where this process has it, installed or not."""
    own = str(Path(__file__).parents[1])
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != own]
    if "site-packages" not in own:
        os.environ["PYTHONPATH"] = os.pathsep.join([own, *others])
