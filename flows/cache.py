"""What is already made is not made again: receipts beside the outputs.

Prefect's own policies do not serve here. The default one includes the run's id, so nothing is found a second time;
`INPUTS + TASK_SOURCE` would give stale results, because our tasks are shells whose source never changes, and would
believe in outputs that somebody has deleted; and its records belong to one Prefect server, so that a worker and the
command line would each train the same model. So each step leaves a *receipt*: its key, and the SHA-256 of every file
it made. The key is of the step's name, the digests of its inputs, its settings, and the sources under `data/` and
`vae/`. A step whose receipt has the right key and whose files have the right digests is not run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

import data
import vae
from data.atomic import atomic_path
from vae.settings import Settings

RECEIPTS = ".receipts"
SOURCES: tuple[Path, ...] = (Path(data.__file__).parent, Path(vae.__file__).parent)
"""Folders whose Python sources decide what a step makes."""

R = TypeVar("R", bound=BaseModel)


class Receipt(Settings):
    """What a step made, and of what."""

    step: str
    """Name of the step."""
    key: str
    """SHA-256 of inputs, settings and sources."""
    outputs: dict[str, str]
    """SHA-256 of each file made, by its path relative to the receipt's folder."""
    result: dict[str, Any]
    """What the step returned, as JSON."""


def source_digest(folders: Iterable[Path] | None = None) -> str:
    """SHA-256 of the Python sources in `folders`: names and contents."""
    state = hashlib.sha256()
    for folder in SOURCES if folders is None else folders:
        for path in sorted(folder.rglob("*.py")):
            state.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def key_of(step: str, inputs: Mapping[str, Any], *, sources: str | None = None) -> str:
    """The cache key of a step: `inputs` are digests and settings, anything that JSON can hold.

    >>> key_of("train", {"dataset": "ab12"}, sources="x") == key_of("train", {"dataset": "ab13"}, sources="x")
    False
    """
    content = {"step": step, "inputs": inputs, "sources": source_digest() if sources is None else sources}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_as_json).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a cache key cannot hold {type(value).__name__}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_under(*paths: Path) -> list[Path]:
    """The files that `paths` are or contain, receipts and hidden files apart."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in path.rglob("*") if p.is_file()]
            found += [p for p in inside if not any(q.startswith(".") for q in p.relative_to(path).parts)]
        else:
            found.append(path)
    return sorted(found)


def find(folder: Path, step: str, key: str) -> Receipt | None:
    """The receipt of a step under `folder`, if it is of this key and every output is there, unchanged."""
    try:
        receipt = Receipt.model_validate_json((folder / RECEIPTS / f"{step}.json").read_bytes())
    except (OSError, ValidationError):
        return None
    if receipt.key != key:
        return None
    for name, digest in receipt.outputs.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != digest:
            return None
    return receipt


def keep(folder: Path, step: str, key: str, outputs: Iterable[Path], result: Mapping[str, Any]) -> Receipt:
    """Write the receipt of a step; last of all, so that a step that was killed has none."""
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files_under(*outputs)}
    receipt = Receipt(step=step, key=key, outputs=digests, result=dict(result))
    (folder / RECEIPTS).mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / RECEIPTS / f"{step}.json") as path:
        path.write_text(receipt.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return receipt


def forget(folder: Path, step: str) -> None:
    """Take a receipt away before its outputs are touched: half-made ones must not pass for whole."""
    (folder / RECEIPTS / f"{step}.json").unlink(missing_ok=True)
