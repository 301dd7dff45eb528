"""Versions of registered models, and the two aliases that say which is in use and which was before it.

MLflow's aliases have no compare-and-swap, and moving two of them takes two calls. So every move is made under a file
lock, and is written down first, whole, in a tag of the registered model: whoever finds such a tag finishes the move
before anything else. A process killed between two calls leaves a move that the next one completes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import ModelError, TrackingError, UsageError
from flows.locks import file_lock, lock_for_uri
from flows.tracking import Store, shown
from flows.versions import (
    DIGEST,
    MANAGED,
    ROLLED_BACK,
    VERDICT,
    Version,
    check_name,
    parse_model,
    version_from,
)

LOCK_SECONDS = 600.0
MOVE = "svae.move"

Verify = Callable[[Version], None]


class Swap(NamedTuple):
    """What a rollback did."""

    back: Version
    """The champion now."""
    away: Version
    """The version that was it before."""
    undone: bool
    """Whether the champion now had itself been rolled back, which counts no more."""


class Registry:
    """The registered models of one MLflow installation."""

    def __init__(self, store: Store) -> None:
        self.store, self.client = store, store.client
        self.aliases = store.tracking.settings.aliases

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep every other process of this machine from registering and moving aliases."""
        uri = self.store.tracking.registry_uri
        return file_lock(
            lock_for_uri(uri, self.store.tracking.state).with_suffix(".registry"), timeout=LOCK_SECONDS
        )

    def names(self) -> list[str]:
        """Registered models that this project manages."""
        with self.store.explained():
            found = _all_pages(lambda token: self.client.search_registered_models(page_token=token))
        return sorted(model.name for model in found if MANAGED in model.tags)

    def only_name(self) -> str:
        """The one registered model there is, or the one that the settings name.

        Raises:
            UsageError: there are several, and none is named.
            TrackingError: there is none.
        """
        if self.store.tracking.settings.model:
            return self.store.tracking.settings.model
        names = self.names()
        if not names:
            raise TrackingError(
                f"{shown(self.store.tracking.registry_uri)} holds no model; make one with: svae run"
            )
        if len(names) > 1:
            raise UsageError(f"which model? name one of {', '.join(names)}")
        return names[0]

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, the latest first.

        Raises:
            TrackingError: no such model.
        """
        with self.store.explained():
            aliases = self._alias_map(name)
            text = f"name = '{name}'"
            found = _all_pages(lambda token: self.client.search_model_versions(text, page_token=token))
        return sorted((version_from(entry, aliases) for entry in found), key=lambda v: -v.version)

    def find(self, text: str) -> Version:
        """The version that `NAME@ALIAS`, `NAME/VERSION` or `NAME` (its champion) means; `models:/` may precede.

        Raises:
            TrackingError: no such model, version or alias.
        """
        name, alias, number = parse_model(text)
        versions = self.versions(name)
        alias = alias or (None if number else self.aliases.champion)
        for version in versions:
            if version.version == number or alias in version.aliases:
                return version
        known = ", ".join(str(v.version) + "".join(f"@{a}" for a in v.aliases) for v in versions) or "none"
        raise TrackingError(
            f"model {name!r} has no {'alias' if alias else 'version'} {alias or number}; it has: {known}"
        )

    def champion(self, name: str) -> Version | None:
        """The version in use."""
        return self._by_alias(name, self.aliases.champion) if self._exists(name) else None

    def _by_alias(self, name: str, alias: str) -> Version | None:
        return next((v for v in self.versions(name) if alias in v.aliases), None)

    def with_digest(self, name: str, digest: str) -> Version | None:
        """The version that holds the model with this digest; one with an alias goes before the latest."""
        known = [v for v in self.versions(name) if v.digest == digest] if self._exists(name) else []
        return next((v for v in known if v.aliases), known[0] if known else None)

    def has(self, name: str, version: int, digest: str) -> bool:
        """Whether this version is there and holds the model with this digest."""
        return self._exists(name) and any(
            v.version == version and v.digest == digest for v in self.versions(name)
        )

    # -- making versions

    def register(self, name: str, *, run_id: str, folder: Path, tags: Mapping[str, str]) -> Version:
        """The version that holds this model: the one there is, or a new one with `folder` (an MLflow model) in it.

        A model is known by its digest (`tags[DIGEST]`): the same weights and description are never registered twice.
        """
        with self.locked():
            self._make(name)
            known = self.with_digest(name, tags[DIGEST])
            if known:
                return known
            with self.store.explained():
                return self._register(name, run_id, folder, tags)

    def _register(self, name: str, run_id: str, folder: Path, tags: Mapping[str, str]) -> Version:
        experiment = self.client.get_run(run_id).info.experiment_id
        logged = self.client.create_logged_model(
            experiment, name="model", source_run_id=run_id, model_type="sparse-vae"
        )
        self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")
        # MLflow looks `models:/ID` up in the store of its global state, which is right in a server and wrong here.
        remote = self.store.tracking.registry_uri.startswith(("http:", "https:"))
        source = f"models:/{logged.model_id}" if remote else logged.artifact_location
        created = self.client.create_model_version(
            name, source=source, run_id=run_id, tags=dict(tags), model_id=logged.model_id
        )
        return self.find(f"{name}/{created.version}")

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Write tags of a version."""
        with self.store.explained():
            for key, value in tags.items():
                self.client.set_model_version_tag(version.name, str(version.version), key, value[:4900])

    # -- moving aliases

    def promote(
        self, version: Version, reason: str, *, verify: Verify, expected: Version | str | None = "any"
    ) -> bool:
        """Make a version the champion, and the champion `previous`; what `verify` raises leaves all as it was.

        Args:
            version: The version to promote.
            reason: Why; kept in its tags.
            verify: Reloads the version and checks it; called before any alias moves.
            expected: The champion that the decision was made against; if it is another by now, nothing moves.

        Returns:
            Whether the version is the champion now.
        """
        verify(version)
        with self.locked():
            self._finish_move(version.name)
            champion = self.champion(version.name)
            if expected != "any" and _number(champion) != _number(expected):
                return False
            tags: dict[str, dict[str, str | None]] = {
                str(version.version): {
                    ROLLED_BACK: None,
                    VERDICT: f"promoted: {reason}",
                    "svae.promoted_at": _now(),
                }
            }
            if champion and champion.version == version.version:
                self._write_tags(version.name, tags)
                return True
            self._move(version.name, champion=version.version, previous=_number(champion), tags=tags)
            return True

    def rollback(self, name: str, reason: str, *, verify: Verify) -> Swap:
        """Swap champion and previous; the version that was rolled back is marked, and never promoted by itself.

        Raises:
            TrackingError: there is no previous version.
        """
        while True:
            verified = self._previous_or_fail(name)
            verify(verified)
            with self.locked():
                self._finish_move(name)
                back, away = self._previous_or_fail(name), self.champion(name)
                if back.version != verified.version:
                    continue  # another process moved the aliases meanwhile: what is brought back has to be verified
                if away is None:
                    raise TrackingError(
                        f"model {name!r} has no champion to roll back; promote one: svae models promote {name}/N"
                    )
                tags: dict[str, dict[str, str | None]] = {
                    str(away.version): {ROLLED_BACK: f"{_now()} {reason}", VERDICT: f"rolled back: {reason}"},
                    str(back.version): {ROLLED_BACK: None, VERDICT: f"brought back: {reason}"},
                }
                self._move(name, champion=back.version, previous=away.version, tags=tags)
                break
        now = self.find(f"{name}/{back.version}"), self.find(f"{name}/{away.version}")
        return Swap(*now, undone=bool(back.rolled_back))

    def _previous_or_fail(self, name: str) -> Version:
        previous = self._by_alias(name, self.aliases.previous)
        if previous is None:
            raise TrackingError(
                f"model {name!r} has no previous version to roll back to; see: svae models list {name} (there is one"
                f" once a champion has taken another's place; to choose by hand: svae models promote {name} N)"
            )
        return previous

    def _move(
        self, name: str, *, champion: int, previous: int | None, tags: Mapping[str, Mapping[str, str | None]]
    ) -> None:
        move = {"champion": champion, "previous": previous, "tags": tags}
        with self.store.explained():
            self.client.set_registered_model_tag(name, MOVE, json.dumps(move))
        self._finish_move(name)

    def _finish_move(self, name: str) -> None:
        """Complete the move that is written down, if one is; each call in it may be made twice."""
        with self.store.explained():
            written = self.client.get_registered_model(name).tags.get(MOVE)
            if not written:
                return
            move = json.loads(written)
            self._write_tags(name, move["tags"])
            if move["previous"] is not None:
                self.client.set_registered_model_alias(name, self.aliases.previous, str(move["previous"]))
            self.client.set_registered_model_alias(name, self.aliases.champion, str(move["champion"]))
            self.client.delete_registered_model_tag(name, MOVE)

    def _write_tags(self, name: str, tags: Mapping[str, Mapping[str, str | None]]) -> None:
        with self.store.explained():
            for version, values in tags.items():
                present = self.client.get_model_version(name, version).tags
                for key, value in values.items():
                    if value is not None:
                        self.client.set_model_version_tag(name, version, key, value[:4900])
                    elif key in present:
                        self.client.delete_model_version_tag(name, version, key)

    # -- reading models

    def download(self, uri: str) -> Path:
        """The MLflow model that a `models:/` or `runs:/` URI names, as a folder that lasts, in the state folder."""
        if uri.startswith("models:/"):
            version = self.find(uri)
            folder = f"{version.name}-{version.version}-{version.digest[:12]}"
        else:
            version, folder = None, uri.replace(":/", "-").replace("/", "-")
        target = self.store.tracking.state / "models" / folder
        with file_lock(target.parent / f".{target.name}.lock", timeout=LOCK_SECONDS):
            if not target.is_dir():
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
                    self.fetch(version or uri, Path(scratch) / "whole").rename(target)
        return target

    def fetch(self, what: Version | str, target: Path) -> Path:
        """Copy the MLflow model of a version, or of a `runs:/` URI, from the registry into a new folder."""
        from mlflow.artifacts import download_artifacts

        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch,
            self.store.explained(),
        ):
            got = download_artifacts(
                artifact_uri=self._storage_of(what)
                if isinstance(what, Version)
                else self._storage_of_run(what),
                dst_path=scratch,
                tracking_uri=self.store.tracking.tracking_uri,
            )
            if not (Path(got) / "MLmodel").is_file():
                uri = what.uri if isinstance(what, Version) else what
                raise ModelError(
                    f"{uri}: not a model; name a version (models:/NAME/3) or a run's model (runs:/ID/model)"
                )
            shutil.copytree(got, target)
        return target

    def _storage_of(self, version: Version) -> str:
        # Not `models:/NAME/3` itself: MLflow would look it up in the registry of its global state.
        return self.client.get_model_version_download_uri(version.name, str(version.version))

    def _storage_of_run(self, uri: str) -> str:
        run_id, _, name = uri.removeprefix("runs:/").partition("/")
        run = self.client.get_run(run_id)
        found = _all_pages(
            lambda token: self.client.search_logged_models(
                [run.info.experiment_id], filter_string=f"name = '{name}'", page_token=token
            )
        )
        logged = next((model for model in found if model.source_run_id == run_id), None)
        return logged.artifact_location if logged else f"{run.info.artifact_uri}/{name}"

    # -- details

    def _exists(self, name: str) -> bool:
        from mlflow.exceptions import MlflowException

        check_name(name)
        with self.store.explained():
            try:
                self.client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
        return True

    def _make(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        with self.store.explained():
            try:
                self.client.create_registered_model(name, tags={MANAGED: "true"})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                self.client.set_registered_model_tag(name, MANAGED, "true")

    def _alias_map(self, name: str) -> dict[int, tuple[str, ...]]:
        if not self._exists(name):
            known = ", ".join(self.names()) or "none; make one with: svae run"
            raise TrackingError(
                f"{shown(self.store.tracking.registry_uri)} holds no model {name!r}; it has: {known}"
            )
        by_version: dict[int, tuple[str, ...]] = {}
        for alias, version in sorted(self.client.get_registered_model(name).aliases.items()):
            by_version[int(version)] = (*by_version.get(int(version), ()), alias)
        return by_version


def _all_pages(fetch: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = fetch(token)
        yield from page
        token = page.token
        if not token:
            return


def _number(version: Version | str | None) -> int | None:
    return version.version if isinstance(version, Version) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
