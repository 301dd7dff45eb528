"""What bounds, models and archives at fault get, and a disk that is full: one clear line, nothing left behind."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import unprivileged

FAST = ["--steps", "2"]
Failed = Callable[..., str]
COMMAND = "import sys; from flows.cli import run; sys.exit(run(sys.argv[1:]))"


@pytest.mark.parametrize(
    ("bound", "message", "status"),
    [
        ("amount=-1", "'amount=-1'", 2),
        ("amount=nan", "'amount=nan'", 2),
        ("amount=inf%", "'amount=inf%'", 2),
        ("amount", "'amount'", 2),
        ("nothing=1", "there is no column 'nothing'", 1),
        ("letter=1", "letter", 1),
    ],
)
def test_a_bound_that_cannot_be_meant(
    bound: str, message: str, status: int, good: Path, failed: Failed, tmp_path: Path
) -> None:
    assert message in failed(
        "compress", good / "t.csv", "-o", tmp_path / "made.svae", "--bound", bound, *FAST, status=status
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


def test_a_name_is_no_folder_of_a_model(good: Path, failed: Failed, tmp_path: Path) -> None:
    line = failed("codes", good / "t.csv", "--model", "flights", "--out", tmp_path / "made.parquet")
    assert "flights: there is no such folder; a registered model is called models:/flights@champion" in line


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
    call = ("decompress", good / "t.svae", "-o", tmp_path / "made.csv", "--columns", "id,nothing")
    line = failed(*call, status=2)
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


@pytest.mark.slow
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


# All in one process, since each would import the same for seconds.
IN_TURN = (
    "import json, sys; from flows.cli import run; print([run(call) for call in json.loads(sys.argv[1])])"
)


@pytest.mark.parametrize("old", [False, True], ids=["new", "replaced"])
def test_a_folder_that_is_read_only(
    old: bool, good: Path, tmp_path: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    calls = {
        "made.svae": ["compress", good / "t.csv", "--model", good / "model", "-o"],
        "made.csv": ["decompress", good / "t.svae", "-o"],
        "dataset": ["ingest", good / "t.csv", "--out"],
        "model": ["train", good / "t.csv", *FAST, "--out"],
    }
    if old:
        for name in ("made.svae", "made.csv"):
            (locked / name).write_text("old")
        for name in ("dataset", "model"):
            (locked / name).mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    locked.chmod(0o500)
    written = [[*map(str, call), str(locked / name)] for name, call in calls.items()]
    process = start_python(IN_TURN, json.dumps(written), python=unprivileged.python())
    out, err = process.communicate(timeout=300)
    assert out == "[1, 1, 1, 1]\n", err
    lines = [line for line in err.splitlines() if line.startswith("svae: ")]
    assert lines == [
        f"svae: {locked / name}: cannot be written: Permission denied ({locked}); choose another folder"
        for name in calls
    ]
    assert "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


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
