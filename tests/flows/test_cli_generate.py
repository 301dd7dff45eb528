"""`svae train --target`, `sample` and `report` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from flows.cli import run

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
    code = json.loads(capfd.readouterr().out)["code"]
    assert code["mean_nonzero"] == pytest.approx(3, rel=0.05)
    assert set(code) == {"mean_nonzero", "drawn_nonzero", "dead_latents", "collapsed"}


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--between", "3:4000"], "--between A:B and --data SOURCE go together"),
        (["--between", "3", "--data", "{source}"], "write two row numbers"),
        (["--between", "3:99999", "--data", "{source}"], "there is no row 99999"),
        (["--between", "1:2", "--data", "{source}", "-n", "1"], "takes 2 at least"),
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
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert told in capfd.readouterr().err
