"""A trained model becomes a version in the registry, and the gate says whether it becomes the champion."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from data.bounds import written_bounds
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
            "report": {**report.numbers, "size": None},  # what others need has no say
            "ratio": archive.ratio,
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
    specs = written_bounds(job.settings.bounds, data.schema, data.stats)
    card = Card(specs=specs, bounds=checked.bounds)
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

    challenger = store.load(model.path)
    settings = registry.store.tracking.settings.gate
    own: Score | None = None
    while True:
        champion = registry.champion(version.name)
        if champion and champion.version == version.version:
            return True, Verdict(promote=True, reasons=("it is the champion already",))
        try:
            own = own or _score(challenger, data, None, archive.ratio, report.numbers)
        except ModelError as error:
            verdict = Verdict(promote=False, reasons=(f"{error}: promote it by hand, or not at all",))
            _tell(registry, version, verdict, say)
            return False, verdict
        found = _compare(registry, champion, challenger, data, own)
        if champion and found.champion:
            say(
                "gate: champion is version %d, %.2f bits a row, code score %.3f",
                champion.version,
                found.champion.bits_per_row,
                found.champion.code_score,
            )
        obstacle = found.obstacle
        if _was_rolled_back(registry, version):
            obstacle = "it was rolled back; only `svae models promote` brings it back"
        verdict = decide(
            own,
            found.champion,
            rows=data.rows,
            settings=settings,
            obstacle=obstacle,
            compared_score=found.challenger_score,
            bits_error=found.bits_error,
        )
        registry.tag(version, {"svae.score": own.model_dump_json()})
        _tell(registry, version, verdict, say)
        if not verdict.promote:
            return False, verdict
        if registry.promote(
            version, verdict.text, verify=lambda v: verify_reload(registry, v), expected=champion
        ):
            return True, verdict
        say("the champion changed meanwhile; judging again")


def _tell(registry: Registry, version: Version, verdict: Verdict, say: Say) -> None:
    """The verdict, in the version's tags and in the log."""
    word: Literal["promoted", "not promoted"] = "promoted" if verdict.promote else "not promoted"
    registry.tag(version, {VERDICT: f"{word}: {verdict.text}"})
    say("gate: %s %s", "promote:" if verdict.promote else "keep the champion:", verdict.text)


def _was_rolled_back(registry: Registry, version: Version) -> bool:
    """Whether this very model was rolled back, as this version or another."""
    return any(ROLLED_BACK in v.tags for v in registry.versions(version.name) if v.digest == version.digest)


class _Comparison(NamedTuple):
    """What the champion is worth beside a challenger, or why that cannot be said."""

    champion: Score | None
    """Its score, the code's on the columns that both are compared on."""
    challenger_score: float
    """The challenger's code score on the same columns."""
    bits_error: float = 0.0
    """Standard error of the difference of their bits a row."""
    obstacle: str | None = None
    """Why the two cannot be compared."""


def _compare(
    registry: Registry, champion: Version | None, challenger: TrainedModel, data: Dataset, own: Score
) -> _Comparison:
    """Both models on the columns that either of them codes; what is wrong with the champion stops a promotion."""
    from vae.judging import judged_columns
    from vae.paired import bits_error

    if champion is None:
        return _Comparison(None, own.code_score)
    try:
        rival = _comparable_champion(registry, champion, challenger, data)
        judged = judged_columns(challenger, rival)
        theirs = _score(rival, data, judged)
        error_of_bits = bits_error(challenger, rival, data.table(), split_of(data))
    except (BoundError, ModelError) as error:
        what = "serves other bounds" if isinstance(error, BoundError) else "cannot be compared"
        obstacle = f"the champion (version {champion.version}) {what} ({error}); promote by hand"
        return _Comparison(None, own.code_score, obstacle=obstacle)
    same = judged == judged_columns(challenger, None)
    mine = own if same else _score(challenger, data, judged)
    return _Comparison(theirs, mine.code_score, error_of_bits)


def _score(
    trained: TrainedModel,
    data: Dataset,
    judged: Judged | None,
    ratio: float = 0.0,
    numbers: dict[str, Any] | None = None,
) -> Score:
    """A model on the held-out rows, its code on the columns `judged`; None takes those that the model itself codes."""
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
    registry: Registry, champion: Version, challenger: TrainedModel, data: Dataset
) -> TrainedModel:
    """The champion's model.

    Raises:
        BoundError: It serves other bounds than the challenger.
        ModelError: It does not load, or is for another schema than this data.
    """
    from flows.reload import model_folder
    from vae import pipeline, store

    trained = store.load(model_folder(registry.download(champion.uri)))
    pipeline.check_table(trained, data.table(rows=(0, 1)))
    pipeline.check_same_bounds(trained, challenger.record["bounds"])
    return trained
