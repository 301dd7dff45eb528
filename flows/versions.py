"""Versions of registered models: what they are called and what their tags say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from data.errors import UsageError

MANAGED = "svae.managed"
DIGEST = "svae.model_digest"
ROLLED_BACK = "svae.rolled_back"
VERDICT = "svae.verdict"
MEASURED = {"rows", "archive_bytes", "ratio", "score"}
"""Tags of ours that hold JSON."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    version: int
    run_id: str
    created: datetime
    aliases: tuple[str, ...]
    tags: Mapping[str, str] = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of weights and description."""
        return self.tags.get(DIGEST, "")

    @property
    def rolled_back(self) -> bool:
        """Whether somebody rolled it back, and nobody has promoted it since."""
        return ROLLED_BACK in self.tags

    @property
    def uri(self) -> str:
        """`models:/NAME/VERSION`."""
        return f"models:/{self.name}/{self.version}"

    def as_json(self) -> dict[str, Any]:
        """What `svae models` prints."""
        ours: dict[str, Any] = {
            key.removeprefix("svae."): value for key, value in self.tags.items() if key.startswith("svae.")
        }
        # tags are text; what is a number, or holds numbers, is told as such
        ours |= {name: json.loads(ours[name]) for name in MEASURED & ours.keys()}
        return {
            "name": self.name,
            "version": self.version,
            "aliases": list(self.aliases),
            "run_id": self.run_id,
            "created": self.created.isoformat(timespec="seconds"),
            **ours,
        }


def parse_model(text: str) -> tuple[str, str | None, int | None]:
    """Name, alias and version number of `[models:/]NAME[@ALIAS or /VERSION]`.

    >>> parse_model("models:/flights@champion")
    ('flights', 'champion', None)
    >>> parse_model("flights/3")
    ('flights', None, 3)
    """
    body = text.removeprefix("models:/")
    name, _, alias = body.partition("@")
    if alias:
        return name, alias, None
    name, slash, number = body.rpartition("/")
    if not slash:
        return body, None, None
    if not number.isdigit():
        raise UsageError(
            f"model {text!r}: expected NAME@ALIAS or NAME/VERSION, such as flights@champion or flights/3"
        )
    return name, None, int(number)


def check_name(name: str) -> None:
    """UsageError for what no registered model can be called, before the registry says so in its own words."""
    if not name or set("/:") & set(name):
        raise UsageError(f"{name!r} is no model's name; give the name alone, such as flights")


def version_from(entry: Any, aliases: Mapping[int, tuple[str, ...]]) -> Version:
    """From what MLflow returns, and the aliases of all versions."""
    number = int(entry.version)
    created = datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC)
    return Version(entry.name, number, entry.run_id or "", created, aliases.get(number, ()), dict(entry.tags))
