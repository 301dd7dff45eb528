"""Models on disk: what is saved comes back; what is damaged, foreign or hostile is refused by name."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import DataError, ModelError
from data.schema import Schema
from vae import pipeline, store
from vae.pipeline import integer_model
from vae.settings import CODES_WEIGHT, ModelSettings, TrainSettings
from vae.store import TrainedModel, load, save

WAY_OUT = "train it again or restore the folder from a copy"


def weights_of(folder: Path) -> Path:
    (path,) = folder.glob("weights-*.safetensors")
    return path


def forge(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edits model.json as somebody would who also mends its digest."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    change(content)
    content.pop("digest", None)
    content["digest"] = hashlib.sha256(store._canonical(content)).hexdigest()
    path.write_bytes(store._canonical(content))


@pytest.fixture
def folder(trained: TrainedModel, tmp_path: Path) -> Path:
    return save(trained, tmp_path / "model")


def test_a_model_comes_back_as_it_was(trained: TrainedModel, folder: Path) -> None:
    loaded = load(folder)
    for name, value in trained.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], value)
    for part in ("digest", "layout", "grid", "schema", "training", "record", "settings"):
        assert getattr(loaded, part) == getattr(trained, part)
    assert not loaded.module.training


def test_a_model_of_an_earlier_format_of_archives_is_what_it_was(trained: TrainedModel, folder: Path) -> None:
    """Its plan does not speak of what came later, before and after it is loaded."""
    assert trained.layout.plan.fine

    def forget(content: dict[str, Any]) -> None:
        del content["layout"]["plan"]["fine"]

    forge(folder, forget)
    loaded = load(folder)
    assert not loaded.layout.plan.fine
    assert integer_model(loaded).version < integer_model(trained).version == 5
    again = save(loaded, folder.with_name("again"))
    assert (again / "model.json").read_bytes() == (folder / "model.json").read_bytes()


def test_the_folder_holds_weights_and_json_named_by_their_digests(
    trained: TrainedModel, folder: Path
) -> None:
    digest = hashlib.sha256(weights_of(folder).read_bytes()).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.json",
        f"weights-{digest[:16]}.safetensors",
    ]
    assert json.loads((folder / "model.json").read_text())["digest"] == trained.digest
    assert list(folder.parent.iterdir()) == [folder]


def test_the_digest_depends_on_weights_and_on_what_is_said_of_them(trained: TrainedModel) -> None:
    assert replace(trained).digest == trained.digest
    assert replace(trained, record={}).digest != trained.digest
    assert replace(trained, training=trained.training.model_copy(update={"seed": 1})).digest != trained.digest


def test_saving_over_a_model_replaces_it(trained: TrainedModel, gaussian: TrainedModel, folder: Path) -> None:
    save(gaussian, folder)
    assert load(folder).digest == gaussian.digest
    assert len(list(folder.iterdir())) == 2


def test_a_failed_save_leaves_the_former_model(
    trained: TrainedModel, gaussian: TrainedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if "model.json" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    for target in (folder, folder.with_name("other")):
        with pytest.raises(DataError, match="no space left on the device"):
            save(gaussian, target)
    assert load(folder).digest == trained.digest
    assert len(list(folder.iterdir())) == 2
    assert list(folder.parent.iterdir()) == [folder]


def test_no_folder_and_no_model(tmp_path: Path) -> None:
    for place in (tmp_path / "none", tmp_path):
        message = f"{place}: holds no model (model.json is missing); give a folder that `svae train` made"
        with pytest.raises(ModelError) as caught:
            load(place)
        assert str(caught.value) == message


@pytest.mark.parametrize("where", [0.01, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("which", ["weights", "json"])
def test_a_flipped_bit_is_found(folder: Path, which: str, where: float) -> None:
    path = weights_of(folder) if which == "weights" else folder / "model.json"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"^{path}: ") as caught:
        load(folder)
    assert "train" in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_file_is_found(folder: Path, share: float) -> None:
    for path in (weights_of(folder), folder / "model.json"):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ModelError, match=f"^{path}: damaged: "):
            load(folder)
        path.write_bytes(content)


def test_missing_weights_are_named(folder: Path) -> None:
    path = weights_of(folder)
    path.unlink()
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == f"{path}: is missing; {WAY_OUT}"


def test_foreign_json_and_later_versions_are_refused(folder: Path) -> None:
    path = folder / "model.json"
    forge(folder, lambda content: content.update(version=99))
    with pytest.raises(
        ModelError, match=r"a model of version 99, this program reads 2; read it with the release"
    ):
        load(folder)
    path.write_text('{"format": "other"}')
    with pytest.raises(
        ModelError, match=r"not a model of this program; give a folder that `svae train` made$"
    ):
        load(folder)
    for text in ("[1]", "{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ModelError, match="damaged: not JSON"):
            load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].update(latents=10**9), "latents: Input should be less than or equal to 256"),
        (lambda c: c["model"].update(encoder_width=4096), "is not of the shape that model.json states"),
        (lambda c: c["layout"]["plan"].update(width=128), "is not of the shape that model.json states"),
        (lambda c: c["layout"].pop("views"), "views: Field required"),
        (lambda c: c["layout"]["views"].pop(), "is not of the shape that model.json states|zip|shorter"),
        (lambda c: c.pop("grid"), "'grid' is missing"),
        (lambda c: c["grid"]["columns"].pop(), "do not name the same columns"),
        (lambda c: c["schema"]["columns"].pop(), "do not name the same columns"),
        (lambda c: c.update(record=3), "not a model that this program can use"),
        (lambda c: c.update(weights="../../etc/passwd"), "damaged: it names no weights"),
        (lambda c: c.update(unknown=[0] * 10), None),
    ],
)
def test_a_forged_description_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], message: str | None
) -> None:
    forge(folder, change)
    if message is None:
        load(folder)  # what is not read does no harm
        return
    with pytest.raises(ModelError, match=message):
        load(folder)


def reweigh(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edits the weights as somebody would who also mends all digests."""
    path = weights_of(folder)
    state = load_file(path)
    change(state)
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(path.with_name(f"weights-{digest[:16]}.safetensors"))
    forge(folder, lambda content: content.update(weights=digest))


def test_forged_weights_of_other_types_are_refused(folder: Path) -> None:
    reweigh(folder, lambda state: state.update({"stencil.bias": state["stencil.bias"].double()}))
    with pytest.raises(
        ModelError, match=r"its tensor 'stencil.bias' is not of the shape that model.json states"
    ):
        load(folder)


def test_a_model_of_before_lambda_followed_the_score_is_read(trained: TrainedModel, folder: Path) -> None:
    reweigh(folder, lambda state: state.pop("slack"))
    loaded = load(folder).module
    assert loaded.slack == 1.0
    assert loaded.weight == CODES_WEIGHT[trained.settings.codes]


def test_a_model_of_before_a_threshold_followed_the_bits_is_read(table: pa.Table, tmp_path: Path) -> None:
    settings = ModelSettings(latents=2, width=4, encoder_width=8, target="bits=2")
    schema = Schema.from_arrow(table.schema)
    pipeline.fit(table, schema, model=settings, training=TrainSettings(steps=20), out=tmp_path / "model")
    reweigh(tmp_path / "model", lambda state: state.pop("lowest"))
    assert load(tmp_path / "model").module.lowest == -torch.inf


def test_a_file_that_is_too_large_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_WEIGHT_BYTES", 100)
    with pytest.raises(ModelError, match=r"bytes, more than a model may have \(100\)"):
        load(folder)
