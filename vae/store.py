"""A trained model on disk: weights as safetensors, everything else as JSON, both named by SHA-256; nothing is pickled.

::

    DIR/weights-<16 hex digits>.safetensors   named by the SHA-256 of its bytes
    DIR/model.json                            settings, layout, grid, schema, record; names the weights, and holds the
                                              SHA-256 of all it says, which is the model's digest

`model.json` is put in place last, so a folder holds the former model or the new one, whole. A digest guards against
damage, not against a forger: whatever a file says is checked before memory is given to it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from data.atomic import (
    atomic_path,
    made_parents,
    remove_tree,
    sync_file,
    sync_folder,
    temporary_name,
    writing,
)
from data.errors import ModelError
from data.grid import TableGrid
from data.schema import Schema
from vae.features import Layout
from vae.images import ImageLayout, ImageVAE
from vae.model import SparseVAE
from vae.settings import ModelSettings, TrainSettings
from vae.texts import TextLayout, TextVAE

FORMAT = "svae-model"
VERSION = 2
JSON_NAME = "model.json"
MOST_JSON_BYTES = 256 << 20
MOST_WEIGHT_BYTES = 4 << 30


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and what it takes to use it on a table."""

    module: SparseVAE | ImageVAE | TextVAE
    grid: TableGrid
    schema: Schema
    training: TrainSettings
    record: dict[str, Any]
    """What the training left behind: steps, rows, data digest, bounds, peak learning rates, `history` with one entry a
    validation."""

    @property
    def layout(self) -> Layout | ImageLayout | TextLayout:
        """The shape of the model."""
        return self.module.layout

    @property
    def of_columns(self) -> SparseVAE:
        """The module of a table's columns; ModelError where the model is of images or texts."""
        if isinstance(self.module, SparseVAE):
            return self.module
        what = "images" if isinstance(self.module, ImageVAE) else "texts"
        raise ModelError(f"this is a model of {what}; it has no columns of numbers and names")

    @property
    def settings(self) -> ModelSettings:
        """The settings of the model."""
        return self.module.settings

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights, settings, layout, grid, schema and record, in hex: the model's name."""
        return _digest(_content(self, hashlib.sha256(_weights(self.module)).hexdigest()))


def save(model: TrainedModel, folder: str | Path) -> Path:
    """Writes the model; a former one is replaced at once, and a failure leaves it as it was.

    Raises:
        DataError: The folder cannot be written to, or the device is full.
    """
    target = Path(folder)
    weights = _weights(model.module)
    content = _content(model, hashlib.sha256(weights).hexdigest())
    document = _canonical({**content, "digest": _digest(content)})
    if target.is_dir():
        _replace(target, weights, document)
        return target
    with writing(target), made_parents(target):
        work = temporary_name(target)
        try:
            work.mkdir()
            for name, content in ((_weights_name(weights), weights), (JSON_NAME, document)):
                (work / name).write_bytes(content)
                sync_file(work / name)
            sync_folder(work)
            work.rename(target)
        finally:
            remove_tree(work)
        sync_folder(target.parent)
    return target


def _replace(target: Path, weights: bytes, document: bytes) -> None:
    """Puts a model in the place of another; `model.json` decides which of the two it is."""
    path = target / _weights_name(weights)
    others = set(target.glob("weights-*.safetensors")) - {path}
    is_new = not path.exists()
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(weights)
        with atomic_path(target / JSON_NAME) as temporary:
            temporary.write_bytes(document)
    except BaseException:
        if is_new:
            path.unlink(missing_ok=True)
        raise
    for other in others:
        other.unlink(missing_ok=True)


def load(folder: str | Path) -> TrainedModel:
    """Reads a model back, ready to use.

    Raises:
        ModelError: There is no model, or it is damaged, or of a version this program does not know.
    """
    path = Path(folder) / JSON_NAME
    document = _read_document(path)
    weights_path = _weights_path(path, document)
    weights = _read(weights_path, MOST_WEIGHT_BYTES)
    if hashlib.sha256(weights).hexdigest() != document["weights"]:
        raise ModelError(
            f"{weights_path}: damaged: its SHA-256 is not the one that {JSON_NAME} names; {_WAY_OUT}"
        )
    try:
        settings = ModelSettings.model_validate(document["model"])
        layout = _layout_of(document["layout"])
        model = TrainedModel(
            module=_module(layout, settings, load_tensors(weights), weights_path),
            grid=TableGrid.from_json(document["grid"]),
            schema=Schema.from_json(json.dumps(document["schema"])),
            training=TrainSettings.model_validate(document["training"]),
            record=dict(document["record"]),
        )
    except (ValidationError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: not a model that this program can use: {_first_line(error)}; {_WAY_OUT}"
        ) from error
    _check_names(model, path)
    return model


_WAY_OUT = "train it again or restore the folder from a copy"


def new_module(
    layout: Layout | ImageLayout | TextLayout, settings: ModelSettings
) -> SparseVAE | ImageVAE | TextVAE:
    """A model of this shape, of a table's columns, its images or its texts, with fresh weights."""
    if isinstance(layout, TextLayout):
        return TextVAE(layout, settings)
    return ImageVAE(layout, settings) if isinstance(layout, ImageLayout) else SparseVAE(layout, settings)


def _layout_of(plain: Any) -> Layout | ImageLayout | TextLayout:
    kind = TextLayout if "words" in plain else ImageLayout if "codes" in plain else Layout
    return kind.model_validate(plain)


def _weights(module: nn.Module) -> bytes:
    """The weights as a safetensors file."""
    return save_tensors({name: value.contiguous().cpu() for name, value in module.state_dict().items()})


def _content(model: TrainedModel, weights: str) -> dict[str, Any]:
    """`model.json` without its digest."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "weights": weights,
        "model": model.settings.model_dump(mode="json"),
        "training": model.training.model_dump(mode="json"),
        "layout": model.layout.model_dump(mode="json", exclude_defaults=True),
        "grid": model.grid.to_json(),
        "schema": json.loads(model.schema.to_json()),
        "record": model.record,
    }


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical({key: content[key] for key in content if key != "digest"})).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _weights_name(weights: bytes) -> str:
    return f"weights-{hashlib.sha256(weights).hexdigest()[:16]}.safetensors"


def _weights_path(path: Path, document: dict[str, Any]) -> Path:
    digest = document.get("weights")
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ModelError(f"{path}: damaged: it names no weights; {_WAY_OUT}")
    return path.with_name(f"weights-{digest[:16]}.safetensors")


def _read_document(path: Path) -> dict[str, Any]:
    content = _read(path, MOST_JSON_BYTES)
    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: damaged: not JSON; {_WAY_OUT}") from error
    found = cast("dict[str, Any]", document)
    if found.get("format") != FORMAT:
        raise ModelError(f"{path}: not a model of this program; give a folder that `svae train` made")
    if found.get("version") != VERSION:
        raise ModelError(
            f"{path}: a model of version {found.get('version')!r}, this program reads {VERSION}; "
            "read it with the release that made it, or train it again"
        )
    try:
        whole = found.get("digest") == _digest(found)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can say and we never write
        whole = False
    if not whole:
        raise ModelError(f"{path}: damaged: its content is not what its digest names; {_WAY_OUT}")
    return found


def _read(path: Path, most: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise ModelError(f"{path}: {size:,} bytes, more than a model may have ({most:,}); {_WAY_OUT}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.name != JSON_NAME:
            raise ModelError(f"{path}: is missing; {_WAY_OUT}") from error
        hint = "give a folder that `svae train` made"
        raise ModelError(f"{path.parent}: holds no model ({JSON_NAME} is missing); {hint}") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error


def _module(
    layout: Layout | ImageLayout | TextLayout, settings: ModelSettings, state: dict[str, Tensor], path: Path
) -> SparseVAE | ImageVAE | TextVAE:
    """The module with these weights; what the layout asks for is weighed before it is given memory."""
    state = {"slack": torch.ones(()), **state}  # unknown to models of before λ followed the score
    if "dial" in state:  # unknown to those of before a threshold followed the bits
        state = {"lowest": torch.tensor(-torch.inf), **state}
    with torch.device("meta"):
        shapes = {
            name: (value.shape, value.dtype)
            for name, value in new_module(layout, settings).state_dict().items()
        }
    found = {name: (value.shape, value.dtype) for name, value in state.items()}
    if shapes != found:
        odd = sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
        raise ModelError(
            f"{path}: its tensor {odd[0]!r} is not of the shape that {JSON_NAME} states; {_WAY_OUT}"
        )
    with torch.random.fork_rng():
        module = new_module(layout, settings)
    module.load_state_dict(state)
    return module.eval()


def _check_names(model: TrainedModel, path: Path) -> None:
    names = [column.name for column in model.grid.columns]
    own = [column.name for column in model.grid.columns if not column.one_hot]
    if own != model.schema.names or not set(model.layout.plan.names) <= set(names):
        raise ModelError(f"{path}: layout, grid and schema do not name the same columns; {_WAY_OUT}")
    if isinstance(model.layout, TextLayout):
        plan = model.layout.plan
        if model.grid[plan.name].length != plan.length:
            raise ModelError(f"{path}: layout and grid do not read the same bytes of a text; {_WAY_OUT}")


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    text = str(error).strip() or type(error).__name__
    return f"{error} is missing" if isinstance(error, KeyError) else text.splitlines()[0][:200]
