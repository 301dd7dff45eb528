"""The command line in this process: statuses, JSON, what is written and what is not."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import data.largetable
from data.errors import UsageError
from data.sources import open_source
from flows import cli_pipeline
from flows.cli import run
from flows.cli_files import note_unknown
from flows.jobs import Job
from vae.codec import archive, writer

COMMANDS = [
    "run",
    "serve",
    "ingest",
    "train",
    "codes",
    "decode",
    "compress",
    "decompress",
    "inspect",
    "verify",
    "sample",
    "tune",
    "report",
]
GROUPED = [["models", name] for name in ("list", "show", "promote", "rollback")]
REPORT_KEYS = {
    "rows",
    "columns",
    "source_bytes",
    "stored_bytes",
    "archive_bytes",
    "ratio",
    "bytes",
    "rivals",
    "per_column",
    "codes_summary",
    "seconds",
}


def test_the_version_is_the_installed_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capfd.readouterr().out == f"svae {metadata.version('sparse-vae')}\n"


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS), ["models"], *GROUPED], ids=" ".join)
def test_help_has_an_example(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith(f"Usage: {' '.join(['svae', *command])}")
    assert err == ""
    assert f"Example: {' '.join(['svae', *command])}" in out
    if not command:
        assert "Exit status: 0 done," in out


@pytest.mark.parametrize("group", [[], ["models"]], ids=["svae", "models"])
def test_a_group_without_a_command_shows_its_help(
    group: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*group, "--help"]) == 0
    help_text = capfd.readouterr().out
    assert run(group) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.rstrip() == help_text.rstrip()
    assert err.count("\n") > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rn"], "svae: No such command 'rn'. Did you mean 'run'? (see: svae --help)"),
        (["compress"], "svae: Missing argument 'source'. (see: svae compress --help)"),
        (
            ["compress", "a", "-o", "b", "--effort", "quick"],
            "'quick' is not one of 'fast', 'standard', 'max'.",
        ),
        (["compress", "a", "-o", "b", "--nope"], "No such option"),
        (["run", "a.csv"], "(a.csv); what to run on goes after --dataset"),
        (
            ["decompress", "a.svae", "-o", "b.xlsx"],
            "b.xlsx: the name must end in one of .parquet, .csv, .npy",
        ),
        (
            ["decompress", "a.svae", "-o", "b.csv", "--rows", "5"],
            "--rows '5': expected A:B, such as 1000:2000",
        ),
        (["decompress", "a.svae", "-o", "b.csv", "--rows", "9:5"], "the first comes before the last"),
        (["decompress", "a.svae", "-o", "b.csv", "--columns", ""], "--columns '': a name is empty;"),
        (["decompress", "a.svae", "-o", "b.csv", "--columns", "a,,b"], "--columns 'a,,b': a name is empty;"),
        (
            ["decompress", "a.svae", "-o", "b.csv", "--columns", "a,b, a"],
            "--columns 'a,b, a': 'a' is named twice; name each column once",
        ),
        (["compress", "a.csv", "-o", "."], ".: is a folder; name a file, or add --each"),
        (["codes", "a", "--model", "m", "-o", "c.csv"], "c.csv: the name must end in .parquet"),
        (
            ["report", str(Path(__file__)), "-o", "b.html"],
            "test_cli.py: give an archive (.svae) or a model's folder; the data itself goes after --data",
        ),
        (["models", "promote", "flights"], "which version of flights? say: svae models promote flights N"),
        (
            ["models", "promote", "flights/2", "1"],
            "flights/2 names a version already; say: svae models promote flights 1",
        ),
        (
            ["models", "promote", "flights@champion", "1"],
            "flights@champion names a version already; say: svae models promote flights 1",
        ),
    ],
)
def test_a_wrong_call_is_status_2_and_one_line(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("svae: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_from_a_table_to_an_archive_and_back(table: Path, as_json: Callable[..., dict[str, Any]]) -> None:
    report = as_json("compress", table, "-o", "t.svae", "--steps", 2, "--rivals")
    assert set(report) >= REPORT_KEYS
    assert (report["rows"], report["columns"]) == (600, 4)
    assert report["source_bytes"] == report["stored_bytes"] == table.stat().st_size
    assert report["archive_bytes"] == Path("t.svae").stat().st_size
    assert report["ratio"] == pytest.approx(report["source_bytes"] / report["archive_bytes"])
    assert sum(report["bytes"].values()) == report["archive_bytes"]
    assert set(report["rivals"]) == {"csv", "parquet_zstd19", "parquet_brotli11", "pcodec"}
    assert {"name", "kind", "coder", "bound", "max_error", "bits_per_value"} <= set(report["per_column"][0])
    inspected = as_json("inspect", "t.svae")
    assert {key: inspected[key] for key in REPORT_KEYS} == {key: report[key] for key in REPORT_KEYS}
    assert as_json("verify", "t.svae", "--against", table)["rows"] == 600
    as_json("decompress", "t.svae", "-o", "again.csv")
    assert Path("again.csv").read_bytes() == table.read_bytes()
    part = as_json("decompress", "t.svae", "-o", "p.parquet", "--columns", "amount,id", "--rows", "10:20")
    assert (part["rows"], part["columns"]) == (10, 2)
    assert pq.read_table("p.parquet")["id"].to_pylist() == list(range(10, 20))
    assert pq.read_schema("p.parquet").names == ["amount", "id"]


def test_from_a_dataset_to_codes_and_back(table: Path, as_json: Callable[..., dict[str, Any]]) -> None:
    made = as_json("ingest", table, "--out", "dataset")
    assert (made["rows"], made["columns"], made["reused"]) == (600, 4, False)
    assert as_json("ingest", table, "--out", "dataset")["reused"] is True
    model = as_json("train", "dataset", "--out", "model", "--steps", 2)
    coded = as_json("codes", "dataset", "--model", "model", "--out", "codes.parquet")
    assert coded["rows"] == 600
    assert coded["model"] == model["digest"]
    codes = pq.read_table("codes.parquet")
    assert codes.schema.field("row").type == pa.uint64()
    assert codes.schema.field("indices").type.value_type == pa.uint16()
    assert codes.schema.field("values").type.value_type == pa.float32()
    assert model["digest"].encode() in codes.schema.metadata.values()
    assert as_json("decode", "codes.parquet", "--model", "model", "--out", "rows.parquet")["rows"] == 600
    report = as_json("compress", table, "-o", "t.svae", "--model", "model")
    assert report["seconds"]["train"] == 0
    assert (
        as_json("compress", "dataset", "-o", "d.svae", "--model", "model")["source_bytes"]
        == report["source_bytes"]
    )
    assert as_json("verify", "t.svae", "--against", "dataset")["rows"] == 600


@pytest.mark.parametrize(("rows", "count"), [(":", 600), ("590:999999", 10), ("5:5", 0), (":9999", 600)])
def test_rows_may_end_beyond_the_archive(
    table: Path, as_json: Callable[..., dict[str, Any]], rows: str, count: int
) -> None:
    archive.write(open_source(table).table(), "t.svae")
    assert as_json("decompress", "t.svae", "-o", "p.csv", "--rows", rows)["rows"] == count


@pytest.mark.parametrize("rows", ["600:", "600:700", "9999:10000"])
def test_rows_may_not_begin_beyond_the_archive(
    table: Path, rows: str, capfd: pytest.CaptureFixture[str]
) -> None:
    archive.write(open_source(table).table(), "t.svae")
    assert run(["decompress", "t.svae", "-o", "p.csv", "--rows", rows]) == 2
    message = f"svae: --rows '{rows}': the archive has 600 rows, the first of them is row 0\n"
    assert capfd.readouterr() == ("", message)
    assert not Path("p.csv").exists()


def test_an_archive_of_no_rows_is_unpacked(as_json: Callable[..., dict[str, Any]]) -> None:
    archive.write(pa.table({"a": pa.array([], pa.int64())}), "none.svae")
    for call in ([], ["--rows", "0:5"], ["--rows", ":"]):
        assert as_json("decompress", "none.svae", "-o", "none.parquet", *call)["rows"] == 0


def test_seed_and_steps_of_a_run_win_over_the_settings_file(
    table: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    def kept(job: Job, tracking: object) -> None:
        jobs.append(job)
        raise UsageError("far enough")

    monkeypatch.setattr(cli_pipeline, "run_flow", kept)
    (home / "pipeline.yml").write_text("train: {seed: 3, batch_rows: 64}\n")
    call = ["run", "--dataset", str(table), "--config", str(home)]
    assert run(call) == run([*call, "--seed", "0", "--steps", "20"]) == 2
    found = [(job.settings.train.seed, job.settings.train.steps) for job in jobs]
    assert found == [(3, None), (0, 20)]
    assert jobs[1].settings.train.batch_rows == 64
    # An effort that is asked for clears the file's steps, unless steps are asked for too.
    (home / "pipeline.yml").write_text("train: {effort: max, steps: 7}\n")
    del jobs[:]
    for more in ([], ["--effort", "fast"], ["--effort", "fast", "--steps", "20"]):
        assert run([*call, *more]) == 2
    found = [(job.settings.train.effort, job.settings.train.steps) for job in jobs]
    assert found == [("max", 7), ("fast", None), ("fast", 20)]


def test_readable_output(table: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            [
                "compress",
                str(table),
                "-o",
                "t.svae",
                "--codes",
                "none",
                "--steps",
                "2",
                "--bound",
                "amount=0.5",
            ]
        )
        == 0
    )
    out, err = capfd.readouterr()
    assert re.search(r"^archive +[\d,]+ bytes, \d+\.\d\d to 1$", out, re.MULTILINE)
    assert re.search(r"^amount +numeric +\w+ +[\d.]+ +0\.5 ", out, re.MULTILINE)
    assert "Traceback" not in err
    assert "\x1b" not in out + err  # no terminal, no colours
    assert run(["verify", "t.svae"]) == 0
    assert capfd.readouterr().out == "t.svae: every checksum holds (600 rows)\n"


READ = """
import sys
from flows.cli import run
from flows.cli_files import note_unknown
status = run(sys.argv[1:])
heavy = {"torch", "lightning", "prefect", "mlflow", "matplotlib", "psutil", "fastapi"}
assert not heavy & {name.partition(".")[0] for name in sys.modules}, heavy & set(sys.modules)
sys.exit(status)
"""


def test_reading_imports_the_core_alone(
    table: Path,
    start_python: Callable[..., subprocess.Popen[str]],
    finish_python: Callable[..., list[str]],
    as_json: Callable[..., dict[str, Any]],
) -> None:
    archive.write(open_source(table).table(), "t.svae")
    calls = [
        ["--help"],
        ["run", "--help"],
        ["inspect", "t.svae"],
        ["verify", "t.svae", "--against", table],
        ["decompress", "t.svae", "-o", "t.parquet"],
        ["ingest", table, "--out", "dataset"],
    ]
    for call in calls:
        finish_python(start_python(READ, *call))


NO_SERVERS = """
import sys
from flows.cli import run
from flows.cli_files import note_unknown
for call in sys.argv[1].split(";"):
    assert run(call.split()) == 0, call
started = {"prefect", "mlflow"} & {name.partition(".")[0] for name in sys.modules}
assert not started, started
"""


@pytest.mark.slow
def test_commands_on_files_start_neither_prefect_nor_mlflow(
    table: Path, start_python: Callable[..., subprocess.Popen[str]], finish_python: Callable[..., list[str]]
) -> None:
    calls = [
        f"ingest {table} -o dataset",
        "train dataset -o model --steps 2",
        "codes dataset --model model -o codes.parquet",
        "decode codes.parquet --model model -o rows.csv",
        "compress dataset -o t.svae --model model",
        "verify t.svae --against dataset",
    ]
    finish_python(start_python(NO_SERVERS, ";".join(calls)))


MISSING = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in {"torch", "prefect", "mlflow"} else find(name, *a)
from flows.cli import run
from flows.cli_files import note_unknown
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "call", [["run"], ["serve"], ["train", "t.csv", "-o", "m"], ["compress", "t.csv", "-o", "t.svae"]]
)
def test_a_missing_extra_is_named(
    call: list[str], start_python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start_python(MISSING, *call)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (
        err
        == "svae: torch is not installed; this command needs: pip install '.[pipeline]' in the project's folder\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_serving_without_a_server_is_refused(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (home / "prefect.yaml").write_text(
        "deployments: [{name: rollback, entrypoint: flows.rollback.rollback}]\n"
    )
    variables = dict(os.environ)
    try:
        # other tests of this process may have named one to Prefect
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            assert run(["serve", "--config", str(home), "--no-server"]) == 2
    finally:
        os.environ.clear()
        os.environ.update(variables)
    err = capfd.readouterr().err
    assert (
        "schedules need a Prefect server and PREFECT_API_URL is not set; start one with `prefect server start`"
        in err
    )


def test_a_source_too_large_for_memory_is_compressed_and_verified_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data.largetable, "LARGE_CELLS", 100)
    monkeypatch.setattr("flows.cli_archives.gettempdir", lambda: str(tmp_path / "temporary"))
    source, made, back = (tmp_path / name for name in ("rows.csv", "rows.svae", "back.csv"))
    source.write_text("a,b\n" + "".join(f"{k},{k % 3 / 4}\n" for k in range(500)))
    assert run(["compress", str(source), "-o", str(made), "--steps", "1"]) == 0
    assert "reading, 500 rows" in capfd.readouterr().err
    assert run(["verify", str(made), "--against", str(source)]) == 0
    assert run(["decompress", str(made), "-o", str(back)]) == 0
    assert back.read_bytes() == source.read_bytes()
    source.write_text("a,b\n" + "".join(f"{k},{k % 3 / 4}\n" for k in range(1, 501)))
    assert run(["verify", str(made), "--against", str(source)]) == 1
    assert "column 'a' of row 0 is not the original" in capfd.readouterr().err
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"rows.csv", "rows.svae", "back.csv", "temporary"}
    assert not any((tmp_path / "temporary").glob(".*"))


@pytest.mark.parametrize("content", [b"a\nb\n\n", b"\xef\xbb\xbfa\r\n\r\nb", b"a\r\nb\n"])
def test_a_text_file_comes_back_byte_for_byte(
    content: bytes, tmp_path: Path, as_json: Callable[..., dict[str, Any]]
) -> None:
    source, made, back = (tmp_path / name for name in ("lines.txt", "lines.svae", "back.txt"))
    source.write_bytes(content)
    report = as_json("compress", source, "-o", made, "--codes", "none", "--steps", 1)
    assert report["source_bytes"] == report["stored_bytes"] == len(content)
    assert as_json("verify", made, "--against", source)["rows"] == report["rows"]
    as_json("decompress", made, "-o", back)
    assert back.read_bytes() == content


def test_only_a_column_of_texts_comes_out_as_txt(
    table: Path, failed: Callable[..., str], as_json: Callable[..., dict[str, Any]]
) -> None:
    archive.write(open_source(table).table(), "t.svae")
    as_json("decompress", "t.svae", "-o", "letters.txt", "--columns", "letter", "--rows", "2:5")
    assert Path("letters.txt").read_bytes() == b"x\ny\ny\n"
    line = failed("decompress", "t.svae", "-o", "no.txt", status=2)
    assert line == (
        "svae: no.txt: a .txt holds one column, the table has 4 (the columns are id, week, letter, amount); "
        "choose one (svae decompress --columns), or write .parquet or .jsonl"
    )
    line = failed("decompress", "t.svae", "-o", "no.txt", "--columns", "id", status=2)
    assert line == "svae: no.txt: a .txt holds text, column 'id' is int64; write .parquet or .jsonl"
    archive.write(pa.table({"a": ["x", None], "b": ["y", "z\n"]}), "u.svae")
    for column, told in {"a": "is null", "b": "holds a line end"}.items():
        line = failed("decompress", "u.svae", "-o", "no.txt", "--columns", column)
        assert line == (
            f"svae: column {column!r}, row 1 (0 is the first): {told}, which a line of .txt cannot; "
            "write .parquet or .jsonl"
        )


def test_a_text_file_is_named_by_its_place(tmp_path: Path, failed: Callable[..., str]) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"a\n\xff\n")
    for call in (["compress", path, "-o", "no.svae"], ["ingest", path, "--out", "no"]):
        told = f"svae: {path}, line 2: byte 0xff is not UTF-8; convert the file (iconv -t UTF-8)"
        assert failed(*call) == told


def test_images_come_out_as_png_and_as_arrays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    for row, image in enumerate(images):
        (tmp_path / "d" / f"kind {row % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "d" / f"kind {row % 2}" / f"{row}.png")
    source, out = open_source(tmp_path / "d"), tmp_path / "a.svae"
    writer.write(source.table(), out)

    assert run(["verify", str(out), "--against", str(tmp_path / "d")]) == 0
    assert run(["decompress", str(out), "-o", f"{tmp_path}/again/"]) == 0
    assert run(["decompress", str(out), "-o", str(tmp_path / "a.npz"), "--columns", "image,label"]) == 0
    assert run(["decompress", str(out), "-o", str(tmp_path / "again")]) == 1
    assert run(["decompress", str(out), "-o", str(tmp_path / "no"), "--columns", "file"]) == 2

    assert open_source(tmp_path / "again").table().equals(source.table(), check_metadata=True)
    assert np.array_equal(np.load(tmp_path / "a.npz")["image"], images[[0, 2, 4, 1, 3]])
    told = capfd.readouterr().err.splitlines()
    assert f"svae: {tmp_path}/again: is there and not an empty folder; name a new one" in told
    assert not (tmp_path / "no").exists()


def test_columns_that_no_model_knows_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    note_unknown(pa.table({"known": [1, None], "id": pa.nulls(2), "note": pa.nulls(2)}))
    assert capsys.readouterr().err == "note: null, since the model knows nothing of them: id, note\n"
    note_unknown(pa.table({"known": [1, None]}))
    note_unknown(pa.table({"none": pa.nulls(0)}))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["ingest", "compress"])
def test_a_cell_that_makes_text_of_a_column_is_told_by(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{row / 8},{row % 3}\n" for row in range(200))
    (tmp_path / "t.csv").write_text(f"price,shop\n{rows}oops,1\n")
    more = ["--steps", "5"] if command == "compress" else []
    assert run([command, str(tmp_path / "t.csv"), "-o", str(tmp_path / "out.svae"), *more, "--json"]) == 0
    told = " ".join(capfd.readouterr().err.split())
    assert (
        "t.csv, line 202: column 'price' is taken for text, for 'oops'; all else in it has one type" in told
    )
