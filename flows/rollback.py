"""Bring the previous version back, as a flow: a button in Prefect's interface."""

from __future__ import annotations

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from flows.hooks import ON_FLOW_FAILURE


@flow(
    flow_run_name="rollback-{name}",
    timeout_seconds=1800,
    on_failure=ON_FLOW_FAILURE,
    on_crashed=ON_FLOW_FAILURE,
)
def rollback(name: str | None = None, reason: str = "by hand", config: str | None = None) -> int:
    """Swap champion and previous; the version rolled back is never promoted again by itself.

    Args:
        name: Registered model; the only one by default.
        reason: Why; kept in the tags of both versions.
        config: Full path of `mlflow.yml`; by default the variable SVAE_CONFIG, or the working directory's.
    """
    from flows.registry import Registry
    from flows.reload import verify_reload
    from flows.settings import load_tracking
    from flows.tracking import Store

    registry = Registry(Store(load_tracking(config, required=deployment.id is not None)))
    chosen = name or registry.only_name()
    swap = registry.rollback(chosen, reason, verify=lambda version: verify_reload(registry, version))
    undone = " (it had been rolled back itself)" if swap.undone else ""
    get_run_logger().info(
        "%s champion: version %s%s; version %s is rolled back",
        chosen,
        swap.back.version,
        undone,
        swap.away.version,
    )
    return swap.back.version
