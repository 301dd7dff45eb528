"""The main job: ingest -> validate -> train -> codes -> compress -> evaluate -> register -> curve, if asked -> page."""

from __future__ import annotations

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from flows import tasks
from flows.hooks import ON_RETRAIN_CANCELLATION, ON_RETRAIN_FAILURE
from flows.jobs import RetrainSettings, dataset_name, open_job
from flows.locks import file_lock
from flows.results import Outcome
from flows.work import known_run


def run_name() -> str:
    """`retrain-flights`."""
    return f"retrain-{dataset_name(flow_run.parameters['source'])}"


@flow(
    flow_run_name=run_name,
    timeout_seconds=72 * 3600,
    on_failure=ON_RETRAIN_FAILURE,
    on_crashed=ON_RETRAIN_FAILURE,
    on_cancellation=ON_RETRAIN_CANCELLATION,
)
def retrain(
    source: str = "sample:flights",
    settings: RetrainSettings = RetrainSettings(),  # noqa: B008  (frozen)
    out: str | None = None,
    config: str | None = None,
) -> Outcome:
    """Make a dataset's codes, archive and evaluation, and a model that is promoted if it is better.

    Args:
        source: What to ingest: a file, a folder or glob of files, a URI, or `sample:NAME`.
        settings: Model, training, error bounds, data gate, and what is known of the columns.
        out: Folder for everything that is made; by default `svae-runs/NAME`.
        config: Full path of `mlflow.yml`; by default the variable SVAE_CONFIG, or the working directory's.
    """
    job = open_job(source, settings, out=out, config=config, deployed=deployment.id is not None)
    waiting = f"another run works on {job.out}; waiting for it to end"
    with file_lock(job.lock, on_wait=lambda: get_run_logger().info(waiting), remove=True):
        dataset = tasks.ingest(job)
        checked = tasks.validate(job, dataset)
        model = tasks.train(job, dataset, checked)
        codes = tasks.extract(job, dataset, model)
        archive = tasks.compress(job, dataset, checked, model)
        report = tasks.evaluate(job, dataset, model, codes, archive)
        version = tasks.register(job, dataset, checked, model, archive, report)
        curve = tasks.known_curve(job, dataset, model, archive)
        if settings.report.curve:
            # hours, perhaps: what is registered has its page before
            tasks.page(job, dataset, model, archive, report, version, curve)
            curve = tasks.curve(job, dataset, model, archive)
        tasks.page(job, dataset, model, archive, report, version, curve)
    return Outcome.of(dataset, model, codes, archive, report, version, known_run(job) or "", curve)
