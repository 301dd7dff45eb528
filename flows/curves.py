"""The rate-distortion curve of a run: measured point by point, kept, and told to MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from data.atomic import atomic_path
from data.ingest import open_dataset
from data.largetable import table_of
from flows import cache
from flows.jobs import Job
from flows.results import Archived, Curved, Ingested, Measured, Trained
from flows.tracking import Store
from flows.work import Advance, Say, known_run

if TYPE_CHECKING:
    from vae.curve import Curve

STEP = "curve"


def can_be_bounded(dataset: Ingested) -> bool:
    """Whether a curve over bounds has anything to bound."""
    from vae import curve as curves

    data = open_dataset(dataset.path)
    return curves.can_be_bounded(data.schema, data.stats)


def measure(
    job: Job, dataset: Ingested, model: Trained, archive: Archived, advance: Advance, say: Say
) -> Curved:
    """Sizes over bounds, of models of the same shape that are trained as briefly as effort `fast` does."""
    from vae import curve as curves
    from vae import store
    from vae.codec import archive as archives
    from vae.settings import Effort

    data = open_dataset(dataset.path)
    shape = store.load(model.path).settings
    training = job.settings.train.model_copy(update={"effort": Effort.fast})
    images, shares = bool(curves.images_of(data.schema)), curves.shares_of(data.schema)
    points: list[Measured] = []
    for done, share in enumerate(shares):

        def told(part: float, _: str, done: int = done) -> None:
            advance((done + part) / len(shares))

        def measure(share: float = share, told: curves.Advance = told) -> Measured:
            (point,) = curves.measure(
                table_of(data), data.schema, data.stats, shares=[share], model=shape, training=training,
                on_progress=told,
            )  # fmt: skip
            return Measured(share=share, bits=dict(point.bits))

        inputs = {**dataset.inputs, "model": shape, "train": training, "bound": share}
        points.append(_kept(job, f"{STEP}-{done}", inputs, measure))
        found = ", ".join(f"{name} {bits:.1f}" for name, bits in points[-1].bits.items())
        say("curve, %s, bits a row: %s", curves.said(share, images=images), found)
    with archives.open(archive.path) as opened:
        given = curves.point_of_archive(opened.report(), data.schema, data.stats)
    curved = Curved(
        path=job.curve,
        points=tuple(points),
        given=Measured(share=given.share, bits=dict(given.bits)),
        images=images,
    )
    with atomic_path(job.curve) as path:
        path.write_text(json.dumps(curves.rows_of(curve_of(curved)), indent=1) + "\n", encoding="utf-8")
    run_id = known_run(job)
    if run_id is not None:
        tracker = Store(job.tracking())
        tracker.log_metrics(
            run_id,
            {f"curve/{name}/{p.share:.6g}": bits for p in points for name, bits in p.bits.items()},
        )
        tracker.log_files(run_id, {"": [job.curve]})
    advance(1.0)
    return curved


def curve_of(curved: Curved) -> Curve:
    """As the page takes it."""
    from vae.curve import Curve, Point

    points = [Point(point.share, point.bits) for point in curved.points]
    return Curve(points, Point(curved.given.share, curved.given.bits), images=curved.images)


def _kept(job: Job, step: str, inputs: Mapping[str, Any], make: Callable[[], Measured]) -> Measured:
    """A point that was measured before, or is now."""
    key = cache.key_of(step, inputs)
    receipt = cache.find(job.out, step, key)
    if receipt is not None:
        return Measured.model_validate(receipt.result)
    point = make()
    cache.keep(job.out, step, key, [], point.model_dump(mode="json"))
    return point
