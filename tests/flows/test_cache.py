"""Receipts: what is made already is not made again, and only that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows import cache
from vae.settings import TrainSettings

REPOSITORY = Path(cache.__file__).parents[1]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the sources that decide what a step makes."""
    copies = tuple(tmp_path / "project" / folder.name for folder in cache.SOURCES)
    for folder, copy in zip(cache.SOURCES, copies, strict=True):
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "README.md", tmp_path / "project")
    return copies[0], copies[1]


def make(folder: Path, key: str) -> None:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "out" / "a.bin").write_bytes(b"a")
    (folder / "b.bin").write_bytes(b"b")
    cache.keep(folder, "step", key, [folder / "out", folder / "b.bin"], {"n": 1})


def test_sources_are_data_and_vae() -> None:
    assert [folder.name for folder in cache.SOURCES] == ["data", "vae"]
    assert cache.source_digest() == cache.source_digest()


def test_a_line_of_training_code_changes_the_key(sources: tuple[Path, Path]) -> None:
    before = cache.source_digest(sources)
    assert before == cache.source_digest()  # wherever the sources lie
    train = sources[1] / "train.py"
    train.write_text(train.read_text() + "# a line\n")
    assert cache.source_digest(sources) != before


def test_a_new_and_a_renamed_module_change_the_key(sources: tuple[Path, Path]) -> None:
    before = cache.source_digest(sources)
    (sources[0] / "new.py").write_text("")
    after = cache.source_digest(sources)
    (sources[0] / "new.py").rename(sources[0] / "newer.py")
    assert len({before, after, cache.source_digest(sources)}) == 3


def test_the_readme_does_not(sources: tuple[Path, Path]) -> None:
    before = cache.source_digest(sources)
    readme = sources[0].parent / "README.md"
    readme.write_text(readme.read_text() + "more\n")
    (sources[1] / "NOTES.md").write_text("notes\n")
    assert cache.source_digest(sources) == before


@pytest.mark.parametrize(
    ("step", "inputs"),
    [
        ("other", {"data": "d", "train": TrainSettings()}),
        ("train", {"data": "e", "train": TrainSettings()}),
        ("train", {"data": "d", "train": TrainSettings(seed=1)}),
    ],
)
def test_step_inputs_and_settings_change_the_key(step: str, inputs: dict[str, object]) -> None:
    assert cache.key_of(step, inputs) != cache.key_of("train", {"data": "d", "train": TrainSettings()})


def test_a_key_is_of_content_not_of_order() -> None:
    assert cache.key_of("s", {"a": 1, "b": 2}) == cache.key_of("s", {"b": 2, "a": 1})


def test_a_receipt_is_found_again(tmp_path: Path) -> None:
    make(tmp_path, "k")
    receipt = cache.find(tmp_path, "step", "k")
    assert receipt is not None
    assert receipt.result == {"n": 1}
    assert set(receipt.outputs) == {"out/a.bin", "b.bin"}


def test_a_receipt_of_another_key_or_step_is_none(tmp_path: Path) -> None:
    make(tmp_path, "k")
    assert cache.find(tmp_path, "step", "other") is None
    assert cache.find(tmp_path, "other", "k") is None


def test_an_output_that_is_gone_or_changed_makes_it_none(tmp_path: Path) -> None:
    make(tmp_path, "k")
    (tmp_path / "b.bin").unlink()
    assert cache.find(tmp_path, "step", "k") is None
    make(tmp_path, "k")
    (tmp_path / "out" / "a.bin").write_bytes(b"A")
    assert cache.find(tmp_path, "step", "k") is None


def test_a_receipt_that_was_forgotten_or_damaged_is_none(tmp_path: Path) -> None:
    make(tmp_path, "k")
    cache.forget(tmp_path, "step")
    cache.forget(tmp_path, "step")
    assert cache.find(tmp_path, "step", "k") is None
    make(tmp_path, "k")
    (tmp_path / cache.RECEIPTS / "step.json").write_text("{")
    assert cache.find(tmp_path, "step", "k") is None
