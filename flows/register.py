"""A trained model becomes a version in the registry, and the gate says whether it becomes the champion."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data.errors import BoundError, ModelError
from data.ingest import open_dataset
from flows import cache
from flows.gate import Score, Verdict, decide
from flows.jobs import Job
from flows.registry import Registry
from flows.results import Archived, Checked, Evaluated, Ingested, Registered, Trained
from flows.tracking import Store
from flows.versions import DIGEST, ROLLED_BACK, VERDICT, Version
from flows.work import Say, known_run, run_key, run_of, split_of

if TYPE_CHECKING:
    from data.dataset import Dataset
    from vae.judging import Judged
    from vae.store import TrainedModel

STEP = "register"


def register(
    job: Job,
    dataset: Ingested,
    checked: Checked,
    model: Trained,
    archive: Archived,
    report: Evaluated,
    say: Say,
) -> Registered:
    """The version of this model, judged; a model that was registered and judged before is left as it is."""
    store = Store(job.tracking())
    registry = Registry(store)
    tracking = store.tracking
    name = tracking.model_name(job.name)
    key = cache.key_of(
        STEP,
        {
            "model": model.digest,
            "report": report.digest,
            "gate": tracking.settings.gate,
            "uri": tracking.registry_uri,
            "name": name,
        },
    )
    known = _known(job, registry, key, model.digest)
    if known:
        say("register: %s version %d was judged already", known.name, known.version)
        _close_run(job, store)
        return known
    run_id = run_of(job, store, dataset, run_key(job, dataset))
    data = open_dataset(dataset.path)
    with store.recording(run_id):
        version, is_new = _version(registry, name, run_id, data, checked, model, archive, job)
        promoted, verdict = _judge(registry, version, data, model, archive, report, say)
    store.end_run(run_id)
    registered = Registered(
        name=name, version=version.version, promoted=promoted, reasons=verdict.reasons, is_new=is_new
    )
    cache.keep(job.out, STEP, key, [], registered.model_dump(mode="json"))
    return registered


def _close_run(job: Job, store: Store) -> None:
    """A step that was made again has written into the run, which is over now."""
    run_id = known_run(job)
    if run_id is not None and store.client.get_run(run_id).info.status == "RUNNING":
        store.end_run(run_id)


def _known(job: Job, registry: Registry, key: str, digest: str) -> Registered | None:
    """What was found before, if the version is still in the registry."""
    receipt = cache.find(job.out, STEP, key)
    if receipt is None:
        return None
    registered = Registered.model_validate(receipt.result)
    if not registry.has(registered.name, registered.version, digest):
        return None
    champion = registry.champion(registered.name)
    is_champion = champion is not None and champion.version == registered.version
    return registered.model_copy(update={"is_new": False, "promoted": is_champion})


def _version(
    registry: Registry,
    name: str,
    run_id: str,
    data: Dataset,
    checked: Checked,
    model: Trained,
    archive: Archived,
    job: Job,
) -> tuple[Version, bool]:
    """The version that holds this model, made if it is not there."""
    from flows.reload import Card, pack

    before = registry.with_digest(name, model.digest)
    if before:
        return before, False
    tags = {
        DIGEST: model.digest,
        "svae.dataset": data.manifest.digest,
        "svae.schema": data.schema.digest(),
        "svae.sources": cache.source_digest(),
        "svae.rows": str(data.rows),
        "svae.ratio": f"{archive.ratio:.3f}",
        "svae.archive_bytes": str(archive.bytes),
    }
    card = Card(specs=job.settings.bounds, bounds=checked.bounds)
    with tempfile.TemporaryDirectory() as scratch:
        packed = pack(
            Path(scratch) / "packed", model=model.path, dataset=data, digest=model.digest, card=card
        )
        version = registry.register(name, run_id=run_id, folder=packed, tags=tags)
    return version, True


def _judge(
    registry: Registry,
    version: Version,
    data: Dataset,
    model: Trained,
    archive: Archived,
    report: Evaluated,
    say: Say,
) -> tuple[bool, Verdict]:
    """Score challenger and champion on the same rows, decide, and move the alias if the champion is still that one."""
    from flows.reload import verify_reload
    from vae import store
    from vae.judging import judged_columns

    challenger = store.load(model.path)
    settings = registry.store.tracking.settings.gate
    while True:
        champion = registry.champion(version.name)
        if champion and champion.version == version.version:
            return True, Verdict(promote=True, reasons=("it is the champion already",))
        rival, obstacle = _comparable_champion(registry, champion, challenger, data)
        judged = judged_columns(challenger, rival)
        try:
            mine = _score(challenger, data, judged, archive.ratio, report.numbers)
            theirs = _score(rival, data, judged) if rival else None
        except ModelError as error:
            verdict = Verdict(promote=False, reasons=(f"{error}: promote it by hand, or not at all",))
            break
        if champion and theirs:
            say(
                "gate: champion is version %d, %.2f bits a row, code score %.3f",
                champion.version,
                theirs.bits_per_row,
                theirs.code_score,
            )
        if _was_rolled_back(registry, version):
            obstacle = "it was rolled back; only `svae models promote` brings it back"
        verdict = decide(mine, theirs, rows=data.rows, settings=settings, obstacle=obstacle)
        registry.tag(version, {"svae.score": mine.model_dump_json(), VERDICT: _verdict_tag(verdict)})
        say("gate: %s %s", "promote:" if verdict.promote else "keep the champion:", verdict.text)
        if not verdict.promote:
            return False, verdict
        if registry.promote(
            version, verdict.text, verify=lambda v: verify_reload(registry, v), expected=champion
        ):
            return True, verdict
        say("the champion changed meanwhile; judging again")
    registry.tag(version, {VERDICT: _verdict_tag(verdict)})
    say("gate: %s", verdict.text)
    return False, verdict


def _verdict_tag(verdict: Verdict) -> str:
    word: Literal["promoted", "not promoted"] = "promoted" if verdict.promote else "not promoted"
    return f"{word}: {verdict.text}"


def _was_rolled_back(registry: Registry, version: Version) -> bool:
    """Whether this very model was rolled back, as this version or another."""
    return any(ROLLED_BACK in v.tags for v in registry.versions(version.name) if v.digest == version.digest)


def _score(
    trained: TrainedModel,
    data: Dataset,
    judged: Judged,
    ratio: float = 0.0,
    numbers: dict[str, Any] | None = None,
) -> Score:
    from vae import pipeline

    found = pipeline.score(trained, data.table(), split_of(data), judged)
    latents = trained.layout.plan.latents
    dead = (numbers or {}).get("sparsity", {}).get("dead_latents", 0.0)
    return Score(
        model_bytes=found.model_bytes,
        bits_per_row=found.bits_per_row,
        code_score=found.code_score,
        dead_latents=dead / latents if latents else 0.0,
        ratio=ratio,
    )


def _comparable_champion(
    registry: Registry, champion: Version | None, challenger: TrainedModel, data: Dataset
) -> tuple[TrainedModel | None, str | None]:
    """The champion's model, if it serves this data at the challenger's bounds; else why it cannot be compared."""
    from flows.reload import model_folder
    from vae import pipeline, store

    if champion is None:
        return None, None
    try:
        trained = store.load(model_folder(registry.download(champion.uri)))
        pipeline.check_table(trained, data.table(rows=(0, 1)))
        pipeline.check_same_bounds(trained, challenger.record["bounds"])
    except BoundError as error:
        return (
            None,
            f"the champion (version {champion.version}) serves other bounds ({error}); promote by hand",
        )
    except ModelError as error:
        return (
            None,
            f"the champion (version {champion.version}) cannot be compared ({error}); promote by hand",
        )
    return trained, None
