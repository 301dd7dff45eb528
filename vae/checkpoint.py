"""Checkpoints of a training, from which it goes on bit for bit after it was killed.

A file is a SHA-256 followed by what it covers: a `torch.save` payload of tensors and plain values, read with
`weights_only=True`. (The zip inside carries CRCs, but torch does not check them.) Two checkpoints are kept,
so that a damaged one costs an interval and not the training.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from data.atomic import atomic_path
from data.errors import ModelError

log = logging.getLogger(__name__)

KEPT = 2
MAGIC = b"svae-ckpt1\n"
DIGEST = hashlib.sha256().digest_size


class Checkpoints:
    """The checkpoints of one training in a folder of its own; `key` names its data, settings and code."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Writes the state after `step` steps, then drops all but the newest checkpoints."""
        buffer = io.BytesIO()
        torch.save({"key": self.key, "state": dict(state)}, buffer)
        payload = buffer.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / f"{step:09d}.ckpt") as path:
            path.write_bytes(MAGIC + hashlib.sha256(payload).digest() + payload)
        for old in list(self._files())[KEPT:]:
            old.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint that is whole and of this training; the others are reported."""
        for path in self._files():
            try:
                return self._load(path)
            except ModelError as error:
                log.warning("%s", error)
        return None

    def clear(self) -> None:
        """Removes the folder: the training is done, or starts anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> Iterator[Path]:
        yield from sorted(self.folder.glob("*.ckpt"), reverse=True)

    def _load(self, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        payload = content[len(MAGIC) + DIGEST :]
        if content[: len(MAGIC) + DIGEST] != MAGIC + hashlib.sha256(payload).digest():
            raise ModelError(f"checkpoint {path} is damaged; going on from the one before it")
        loaded = cast(
            "dict[str, Any]", torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
        )
        if loaded.get("key") != self.key:
            raise ModelError(f"checkpoint {path} is of other data, settings or code and is not used")
        return cast("dict[str, Any]", loaded["state"])
