"""Error bounds as users give them: what allows nothing is told, and a model serves whoever asks for no less."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.bounds import written_bounds
from data.errors import BoundError
from data.ingest import open_dataset
from data.schema import Column, Schema
from flows import files, work
from flows.cli import run
from flows.compress import FileJob
from flows.jobs import FolderSettings, RetrainSettings, open_job
from vae.codec import archive

Told = tuple[dict[str, Any], list[str]]
OWN = {"count": 1.0, "amount": 0.25}
EXACT = (
    "bound 0 for column 'count': the model keeps it within 1 only; ask for --bound 'count=1.0' or more, "
    "for --bound model to take its own, or compress without --model"
)
LEFT_OUT = (
    "bound 0 for column 'amount': the model keeps it within 0.25 only; ask for --bound 'amount=0.25' or more, "
    "for --bound model to take its own, or compress without --model"
)
TIGHTER = (
    "bound 0.1 for column 'amount': the model keeps it within 0.25 only; ask for --bound 'amount=0.25' or more, "
    "for --bound model to take its own, or compress without --model"
)

UNUSED = "there is no model in the archive of 800 rows, and no sparse code: it is smaller without"
AMOUNT = (
    "column 'amount' is kept within 0.25, the model's own bound; "
    "a wider bound needs a model trained with it, or no --model"
)
WEEK = (
    "column 'week' is kept exact, as the model was trained; "
    "a wider bound needs a model trained with it, or no --model"
)


def write(path: Path, top: int) -> Path:
    """Amounts of 0 to `top`, counts, and a column that stays exact."""
    rows = "".join(f"{i % 90},{i % 7},{(i * 37 % 48) / 47 * top}\n" for i in range(800))
    path.write_text("count,week,amount\n" + rows)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file, another of four times the range, and a model of the first: `count` within 1.9, `amount` within 1%."""
    folder = tmp_path_factory.mktemp("bounds")
    first = write(folder / "first.csv", 25)
    write(folder / "wider.csv", 100)
    bounds = ["--bound", "count=1.9", "--bound", "amount=1%"]
    assert run(["train", str(first), "--out", str(folder / "model"), "--steps", "2", *bounds]) == 0
    return folder


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Run a command with `--json`: its one object, and the notes on standard error."""

    def call(*arguments: object) -> Told:
        capfd.readouterr()
        status = run([*map(str, arguments), "--json"])
        out, err = capfd.readouterr()
        assert status == 0, err
        return json.loads(out), [line for line in err.splitlines() if line.startswith("note: ")]

    return call


def bounds_in(report: dict[str, Any]) -> dict[str, float]:
    return {c["name"]: c["bound"] for c in report["per_column"] if c["bound"]}


@pytest.mark.parametrize(
    ("specs", "notes", "effective"),
    [
        ([], [], {}),
        (["count=0.5"], ["note: bound 0.5 for column 'count': whole numbers are kept exact below 1"], {}),
        (["count=1.7", "amount=0.5"], [], {"count": 1.0, "amount": 0.5}),
        (
            ["*=1%", "week=0.9"],
            ["note: bound 0.89 for column 'count' and 1 more: whole numbers are kept exact below 1"],
            {"amount": 0.25},
        ),
    ],
    ids=" ".join,
)
def test_a_bound_that_allows_no_error_is_told(
    specs: list[str], notes: list[str], effective: dict[str, float], folder: Path, call: Callable[..., Told]
) -> None:
    asked = [part for spec in specs for part in ("--bound", spec)]
    report, told = call("compress", folder / "first.csv", "-o", "t.svae", "--steps", 2, *asked)
    assert told == [*notes, f"note: {UNUSED}"]
    assert bounds_in(report) == bounds_in(call("inspect", "t.svae")[0]) == effective
    assert call("train", folder / "first.csv", "--out", "model", "--steps", 2, *asked)[1] == notes


def test_the_retraining_tells_it_too(home: Path, folder: Path) -> None:
    settings = RetrainSettings(bounds=("count=0.5", "amount=1%"))
    job = open_job(str(folder / "first.csv"), settings, out=home / "out", config=home)
    said: list[str] = []
    _, checked = work.check(
        job,
        work.ingest(job, lambda share: None, lambda *words: None),
        lambda *words: said.append(words[0] % words[1:]),
    )
    assert said == ["bound 0.5 for column 'count': whole numbers are kept exact below 1"]
    assert checked.bounds == {"count": 0.5, "amount": 0.25}


def test_a_champions_widths_hold_for_shares_of_the_same_type(home: Path, folder: Path) -> None:
    bounds, known = ("count=2", "amount=1%", "week=50%"), {"count": 9.0, "amount": 3.0}
    job = open_job(str(folder / "first.csv"), RetrainSettings(bounds=bounds), out=home / "out", config=home)
    data = open_dataset(work.ingest(job, lambda share: None, lambda *words: None).path)
    specs = written_bounds(bounds, data.schema, data.stats)
    # `count` is absolute, and `week` had no range when the champion was trained
    assert work.shares_kept(bounds, data, data.schema, specs, known) == {"amount": 3.0}
    assert work.shares_kept(bounds, data, data.schema, specs[:2], known) == {}
    finer = [Column(name=c.name, kind=c.kind, arrow="float") for c in data.schema.columns]
    assert work.shares_kept(bounds, data, Schema(columns=tuple(finer)), specs, known) == {}


@pytest.mark.parametrize(
    ("specs", "notes"),
    [
        (["model"], []),
        (["count=1", "amount=0.25"], []),
        (["count=1.9", "amount=1%"], [AMOUNT]),
        (["count=2%", "amount=50%", "week=1"], [WEEK, AMOUNT]),
    ],
    ids=["its own", "the same", "a share of a wider range", "wider"],
)
def test_a_model_keeps_its_own_bounds(
    specs: list[str], notes: list[str], folder: Path, call: Callable[..., Told]
) -> None:
    asked = [part for spec in specs for part in ("--bound", spec)]
    wider = folder / "wider.csv"
    report, told = call("compress", wider, "-o", "t.svae", "--model", folder / "model", *asked)
    assert told == [f"note: {line}" for line in (*notes, UNUSED)]
    assert bounds_in(report) == OWN
    assert bounds_in(call("inspect", "t.svae")[0]) == OWN
    errors = call("verify", "t.svae", "--against", wider)[0]["max_error"]
    assert errors == {c["name"]: c["max_error"] for c in report["per_column"]}
    assert (errors["count"], errors["week"]) == (1.0, 0.0)
    assert 0 < errors["amount"] <= 0.25


@pytest.mark.parametrize(
    ("specs", "message"),
    [([], EXACT), (["count=1"], LEFT_OUT), (["*=2", "amount=0.1"], TIGHTER)],
    ids=["exact", "left out", "tighter"],
)
def test_a_model_that_keeps_less_is_refused(
    specs: list[str], message: str, folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = [part for spec in specs for part in ("--bound", spec)]
    source, model = str(folder / "wider.csv"), str(folder / "model")
    capfd.readouterr()
    assert run(["compress", source, "-o", "t.svae", "--model", model, *asked]) == 1
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"svae: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_job_does_the_same(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def job(*bounds: str, model: bool = True) -> FileJob:
        return FileJob(
            source=folder / "wider.csv",
            target=tmp_path / "t.svae",
            folder=tmp_path,
            model=folder / "model" if model else None,
            settings=FolderSettings.model_validate({"bounds": bounds, "train": {"steps": 2}}),
        )

    for bounds in (("model",), ("count=1.5", "amount=1%")):
        files.compress(job(*bounds), said.append)
        with archive.open(tmp_path / "t.svae") as opened:
            assert bounds_in(opened.report().model_dump()) == OWN
    for bounds, message in (((), EXACT), (("count=1",), LEFT_OUT), (("*=2", "amount=0.1"), TIGHTER)):
        with pytest.raises(BoundError) as refusal:
            files.compress(job(*bounds), said.append)
        assert str(refusal.value) == message
    assert said == [f"wider.csv: {line}" for line in (UNUSED, AMOUNT, UNUSED)]
    said.clear()
    files.compress(job("count=0.5", model=False), said.append)
    assert said == [
        "wider.csv: bound 0.5 for column 'count': whole numbers are kept exact below 1",
        f"wider.csv: {UNUSED}",
    ]


def test_the_models_own_bounds_without_a_model(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert run(["compress", str(folder / "first.csv"), "-o", "t.svae", "--bound", "model"]) == 2
    assert (
        capfd.readouterr().err == "svae: --bound model: takes the bounds of a model; name it with --model\n"
    )
