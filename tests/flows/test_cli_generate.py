"""`svae train --target`, `sample` and `report` from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from flows.cli import run
from flows.files import model_notes
from vae import curve
from vae.codec import archive
from vae.codec.reader import Archive
from vae.settings import Codes

Failed = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, flights: Path) -> Path:
    """A folder with a source, a model of it and an archive."""
    folder = tmp_path_factory.mktemp("generate")
    (folder / "flights.csv").write_bytes(flights.read_bytes())
    source, model = str(folder / "flights.csv"), str(folder / "model")
    train = ["train", source, "--out", model, "--steps", "60", "--family", "topk", "--target", "nonzeros=4"]
    assert run(train) == 0
    assert run(["compress", source, "-o", str(folder / "f.svae"), "--model", model]) == 0
    return folder


def test_what_a_code_came_to_is_told(made: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capfd.readouterr()
    train = ["train", str(made / "flights.csv"), "--out", str(tmp_path / "m"), "--steps", "60", "--json"]
    assert run([*train, "--family", "topk", "--target", "nonzeros=3"]) == 0
    out, err = capfd.readouterr()
    code, target = (json.loads(out)[name] for name in ("code", "target"))
    assert code["mean_nonzero"] == pytest.approx(3, rel=0.05)
    assert set(code) == {"mean_nonzero", "drawn_nonzero", "dead_latents", "collapsed"}
    assert target == {"asked": "nonzeros=3", "found": pytest.approx(code["mean_nonzero"], rel=0.01)}
    assert "was asked of the code" not in err


def test_a_code_that_missed_its_target_is_told(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    source, out = str(made / "flights.csv"), made / "missed"
    few = ["--steps", "20", "--target", "bits=200"]
    assert run(["train", source, "--out", str(out), *few, "--json"]) == 0
    told = capfd.readouterr()
    found = json.loads(told.out)["target"]["found"]
    assert found < 190
    words = f"bits=200 was asked of the code, and it came to {found:.3g} ({1 - found / 200:.0%} below)"
    assert words in " ".join(told.err.split())
    assert run(["train", source, "--out", str(out), "--steps", "20"]) == 0
    assert re.search(r"^target +none$", capfd.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("asked", "found", "words"),
    [
        ("bits=4", {"bits_per_row": 5.0}, ["bits=4 was asked of the code, and it came to 5 (25% above)"]),
        ("nonzeros=4", {"mean_nonzero": 2.0}, ["nonzeros=4 was asked of the code, and it came to 2 (50% below)"]),
        ("score=0.5", {"score": 0.4}, ["score=0.5 was asked of the code, and it came to 0.4 (20% below)"]),
        ("score=0.5", {"score": 0.9}, []),
        ("score=0.5", {"score": None}, []),
        ("bits=4", {"bits_per_row": 4.1}, []),
        (None, {"bits_per_row": 5.0}, []),
    ],
)  # fmt: skip
def test_an_archive_s_code_that_missed_its_target_is_told(
    asked: str | None, found: dict[str, Any], words: list[str], made: Path
) -> None:
    with archive.open(made / "f.svae") as opened:
        report = opened.report()
    summary = report.codes_summary.model_copy(update=found)
    told = list(model_notes(None, {}, report.model_copy(update={"codes_summary": summary}), asked))
    assert [line.split(": ")[0] for line in told] == words


def test_a_table_without_a_column_for_a_model_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.csv").write_text("a,b\n" + "1,2\n" * 50)
    capfd.readouterr()
    assert run(["compress", str(tmp_path / "one.csv"), "-o", str(tmp_path / "one.svae"), "--json"]) == 0
    out, err = capfd.readouterr()
    assert "and no sparse code: no column is for a model" in " ".join(err.split())
    assert json.loads(out)["without_model"] == "nothing to model"


def test_rows_are_sampled_in_the_schema_of_the_source(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.csv"
    assert run(["sample", "--model", str(made / "model"), "-n", "200", "-o", str(out)]) == 0
    found = pyarrow.csv.read_csv(out)
    assert found.num_rows == 200
    source = pyarrow.csv.read_csv(made / "flights.csv")
    assert found.column_names == source.column_names
    assert set(found["origin"].to_pylist()) <= set(source["origin"].to_pylist())


def test_rows_on_the_way_from_one_to_another(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "way.parquet"
    ends = ["--between", "3:4000", "--data", str(made / "flights.csv")]
    assert run(["sample", "--model", str(made / "model"), "-n", "5", *ends, "-o", str(out)]) == 0
    assert pa.parquet.read_table(out).num_rows == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", ["f.svae", "model"])
def test_a_page_of_an_archive_and_of_a_model(made: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "page.html"
    assert run(["report", str(made / what), "-o", str(out), "--data", str(made / "flights.csv")]) == 0
    text = out.read_text()
    assert "Some rows" in text
    assert ("What is guaranteed" in text) == (what == "f.svae")
    assert ("What the latents say" in text) == (what == "model")


def test_a_model_s_page_without_data_tells_of_its_latents(made: Path, tmp_path: Path) -> None:
    assert run(["report", str(made / "model"), "-o", str(tmp_path / "page.html")]) == 0
    assert "codes drawn from the model" in (tmp_path / "page.html").read_text()


def test_an_archive_s_page_with_its_model_has_both(made: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "page.html", str(made / "flights.csv")
    both = ["report", str(made / "f.svae"), "--model", str(made / "model"), "--data", data]
    assert run([*both, "-o", str(out)]) == 0
    text = out.read_text()
    for title in (
        "What is guaranteed",
        "Beside other tools",
        "What the latents say",
        "Some rows",
        "Pictures",
    ):
        assert f">{title}</h2>" in text
    assert "code alone" in text


def test_a_model_that_did_not_write_the_archive_is_refused(
    made: Path, tmp_path: Path, failed: Failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Archive.report  # small archives hold no model: this one says it does
    another = {"model_sha256": "ab" * 32}
    monkeypatch.setattr(Archive, "report", lambda self: report(self).model_copy(update=another))
    both = ["report", made / "f.svae", "--model", made / "model", "--data", made / "flights.csv"]
    line = failed(*both, "-o", tmp_path / "page.html")
    assert line.endswith(
        "--model is not the model in the archive; give the one that wrote it, or leave it out"
    )


@pytest.mark.parametrize("what", ["f.svae", "model"])
def test_a_curve_is_drawn_and_listed(
    made: Path,
    tmp_path: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    as_json: Callable[..., dict[str, Any]],
) -> None:
    points = [curve.Point(0.0, {"archive": 9.0, "pcodec": 12.0}), curve.Point(0.1, {"archive": 3.0})]
    asked: dict[str, Any] = {}

    def measured(*_: Any, on_progress: curve.Advance, **told: Any) -> list[curve.Point]:
        asked.update(told)
        on_progress(0.5, "curve, bound 10%: joint")
        return points

    monkeypatch.setattr(curve, "measure", measured)
    out = tmp_path / "page.html"
    told = as_json("report", made / what, "-o", out, "--data", made / "flights.csv", "--curve")
    assert told["bytes"] == out.stat().st_size
    assert told["curve"][:2] == curve.rows_of(curve.Curve(points))
    assert told["curve"][2]["given"]
    size = (made / "f.svae").stat().st_size
    assert told["curve"][2]["archive"] == pytest.approx(
        8 * size / 5_000, rel=0.01
    )  # the model writes it again
    assert "Size by the error allowed" in out.read_text()
    assert (asked["model"].codes is Codes.none) == (
        what == "f.svae"
    )  # it holds no code: few rows do not pay for one


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--between", "3:4000"], "--between A:B and --data SOURCE go together"),
        (["--between", "3", "--data", "{source}"], "write two row numbers"),
        (["--between", "3:99999", "--data", "{source}"], "there is no row 99999"),
        (["--between", "1:2", "--data", "{source}", "-n", "1"], "takes 2 at least"),
        (["-o", "new.txt"], "new.txt: a .txt holds one column, the table has 19"),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    made: Path, tmp_path: Path, arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(source=made / "flights.csv") for word in arguments]
    assert run(["sample", "--model", str(made / "model"), "-o", str(tmp_path / "x.csv"), *given]) == 2
    assert told in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "x.csv", "--out", "m", "--target", "size=3"], "is no target of a code"),
        (["train", "x.csv", "--out", "m", "--target", "nonzeros=999"], "256 latents at most"),
        (["compress", "x.csv", "-o", "a.svae", "--codes", "none", "--target", "bits=3"], "there is no code"),
        (["report", "a.svae", "-o", "a.pdf"], "must end in .html"),
        (["report", "a.svae", "-o", "a.html", "--curve"], "--curve trains on the data: name it with --data"),
        (["report", "a.svae", "-o", "a.html", "--model", "m"], "--model goes with an archive and its --data"),
        (["report", "m", "-o", "a.html", "--model", "m", "--data", "x.csv"], "--model goes with an archive"),
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert told in capfd.readouterr().err
