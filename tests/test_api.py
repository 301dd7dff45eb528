"""What `vae` offers: its names, an example for each, its page, and the document that shows them."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

import vae
from data.errors import ExtraError
from data.schema import Schema
from vae import pipeline
from vae.codec import archive, writer
from vae.settings import ModelSettings, TrainSettings

ROOT = Path(__file__).parent.parent


def documented() -> dict[str, Any]:
    """Every public function, class, method and property of `vae`; the fields of a report speak for themselves."""
    found: dict[str, Any] = {}
    for name in vae.__all__:
        thing = getattr(vae, name)
        if not (inspect.isclass(thing) and issubclass(thing, BaseModel)):
            found[name] = thing
        if inspect.isclass(thing) and not issubclass(thing, BaseModel):
            found |= {
                f"{name}.{key}": value
                for key, value in vars(thing).items()
                if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
            }
    return found


TRIVIAL = {"Archive.names", "Archive.rows", "Archive.latents", "Archive.model", "Archive.close"}
"""Shown by the example of their class, or nothing to show."""


def test_what_is_public_is_there() -> None:
    wanted = "schema read to_pandas codes reader blocks salvage to_polars verify"
    assert {f"Archive.{name}" for name in wanted.split()} <= documented().keys()
    assert documented().keys() >= TRIVIAL
    assert vae.open is archive.open
    assert vae.compress is pipeline.compress
    with pytest.raises(AttributeError, match="module 'vae' has no attribute 'zzz'"):
        _ = vae.zzz


@pytest.mark.parametrize("name", sorted(documented().keys() - TRIVIAL))
def test_it_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(documented()[name]) or "")


def test_an_archive_is_opened_without_torch() -> None:
    program = (
        "import sys, vae; vae.open; vae.Archive; print({'torch', 'polars', 'duckdb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_compress_names_the_extra_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(vae), "compress", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    message = "torch is not installed; this call needs: pip install '.[pipeline]' in the project's folder"
    with pytest.raises(ExtraError, match=f"^{re.escape(message)}$") as caught:
        _ = vae.compress
    assert isinstance(caught.value, ImportError)


def test_compress_takes_a_model_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CLOSE_CALL", 1e9)  # a model that hardly learned is kept
    table = pa.table({"shop": ["north", "south"] * 500, "sold": [k * k % 17 for k in range(1_000)]})
    settings, quick = ModelSettings(latents=2, width=4), TrainSettings(steps=5)
    trained = pipeline.fit(
        table, Schema.from_arrow(table.schema), model=settings, training=quick, out=tmp_path / "model"
    )
    reports = [
        vae.compress(table, tmp_path / f"{k}.svae", bounds={}, model=model)
        for k, model in enumerate([trained, tmp_path / "model", str(tmp_path / "model")])
    ]
    assert len({report.model_sha256 for report in reports} - {None}) == 1
    with vae.open(tmp_path / "1.svae") as opened:
        assert opened.read().equals(table)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples run: `flights.svae` is there."""
    shutil.copy(ROOT / "tests" / "fixtures" / "flights-2000-v1.svae", tmp_path / "flights.svae")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_document_shows_what_happens(folder: Path) -> None:
    done = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert done.attempted > 10
    assert done.failed == 0


def test_the_document_names_what_there_is() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    named = {f"Archive.{name}" for name in re.findall(r"`\.(\w+)", text)}
    assert named <= documented().keys()
    assert documented().keys() - named == {
        "Archive",
        "Archive.close",
        "compress",
        "open",
    }


def test_what_the_readme_reads_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "README.md").read_text().split("**Read an archive from Python**")[1]
    (snippet,) = re.findall(r"```python\n(.*?)```", section.split("\n**")[0], re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
    shown = capsys.readouterr().out
    assert "avg(dep_delay)" in shown
    assert "HA" in shown
