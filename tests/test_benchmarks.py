"""The benchmark's rivals hold what they are measured on, and its table and chart say what the cells say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from pcodec import standalone

from benchmarks import archive, coders, datasets, read_part, readme, rivals, show, sparse, speed
from benchmarks.forms import SLACK, columns_of
from data.schema import Schema
from data.sources import TableSource
from vae import pipeline, store
from vae.settings import TrainSettings

ROWS = 600
BOUNDS = {"reading": 0.25, "steps": 3.0}


def sample() -> pa.Table:
    """Texts, floats, integers and times, most of them with nulls."""
    random = np.random.default_rng(0)
    some = random.random(ROWS) < 0.1
    reading = np.cumsum(random.normal(size=ROWS))
    reading[5] = np.nan
    return pa.table(
        {
            "word": pa.array(random.choice(["a", "bb", "", "ccc"], ROWS), mask=some),
            "reading": pa.array(reading, mask=some),
            "exact": pa.array(random.normal(size=ROWS), mask=some),
            "price": pa.array(random.integers(0, 900, ROWS) / 100),
            "steps": pa.array(random.integers(-50, 50, ROWS), mask=some),
            "clock": pa.array(random.integers(0, 24, ROWS) * 100 + random.integers(0, 60, ROWS)),
            "when": pa.array(1_600_000_000 + 60 * np.arange(ROWS), pa.timestamp("s")),
            "flag": pa.array(random.random(ROWS) < 0.5),
            "nothing": pa.array([None] * ROWS, pa.float64()),
        }
    )


@pytest.mark.parametrize("bounds", [{}, BOUNDS])
def test_every_form_gives_the_values_back(bounds: dict[str, float]) -> None:
    forms = 0
    for column in columns_of(sample(), bounds):
        for form in column.forms if len(column.values) else ():
            forms += 1
            back = form.restore(form.numbers)
            if pa.types.is_string(column.values.type):
                assert back == column.values.to_pylist()
                continue
            given: Any = column.values
            given = given.cast(pa.int64() if pa.types.is_temporal(given.type) else given.type)
            error = np.abs(np.asarray(back, np.float64) - given.to_numpy(zero_copy_only=False).astype(float))
            assert error[~np.isnan(error)].max() <= column.bound * SLACK, column.name
    assert forms > 12


@pytest.mark.parametrize(
    "coder", [coders.pcodec, coders.openzl, coders.blosc], ids=lambda coder: coder.__name__
)
def test_a_coder_checks_that_its_numbers_come_back(coder: coders.NumberCoder, monkeypatch: Any) -> None:
    pytest.importorskip("openzl")
    pytest.importorskip("blosc2")
    looked: list[str] = []
    monkeypatch.setattr(
        coders, "_must_be", lambda back, given, tool: looked.append(tool) or same(back, given)
    )
    for column in columns_of(sample(), BOUNDS):
        for form in column.forms:
            if len(form.numbers):
                assert 0 < len(coder(form.numbers)) < form.numbers.nbytes + 200
    assert len(looked) > 10


def same(back: np.ndarray, given: np.ndarray) -> None:
    assert back.tobytes() == given.tobytes()


@pytest.mark.parametrize("coder", ["sz3", "zfp"])
def test_a_coder_of_floats_keeps_its_bound(coder: str) -> None:
    pytest.importorskip("pysz" if coder == "sz3" else "zfpy")
    values = np.cumsum(np.random.default_rng(1).normal(size=ROWS))
    found = getattr(coders, coder)(values, 0.5)
    assert found is not None
    assert len(found) < values.nbytes / 4


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_has_a_size_for_a_table(name: str) -> None:
    for package in ("openzl", "blosc2", "pysz", "zfpy"):
        pytest.importorskip(package)
    exact, bounded = (rivals.RIVALS[name](sample(), bounds) for bounds in ({}, BOUNDS))
    assert bounded is not None
    assert bounded > 500
    if exact is None:
        assert name in ("sz3_pcodec", "zfp_pcodec")
    else:
        assert bounded < exact


def test_one_hot_columns_that_miss_a_row_are_not_merged() -> None:
    table = pa.table({name: [1, 0, 0, 0] * 9 for name in "xyz"})
    for place, name in enumerate("xyz"):
        table = table.set_column(place, name, pa.array(([0] * place + [1] + [0] * (3 - place)) * 9))
    assert datasets.merge_one_hot(table).equals(table)


# ------------------------------------------------------------------------------------------------------ what it shows


def cell(codes: str | None, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A cell as it is kept."""
    sizes = {"balanced": (30, 40), "none": (0, 60)}.get(codes or "", (0, 0))
    own = {
        "bytes": sum(sizes) + 10,
        "shares": {"model": 8, "codes": sizes[0], "columns": sizes[1], "container": 2},
        "code": {"latents": 4 if sizes[0] else 0, "score": 0.5 if sizes[0] else None, "score_rows": 9},
        "seconds": {"train": 7.0},
    }
    common = {
        "dataset": "adult", "bound": "1%", "codes": codes, "seed": seed, "effort": "standard", "sources": "s",
        "commit": "abc", "measured": "2026-01-02T03:04:05+00:00", "machine": "m, 2 cores", "software": "Python 3",
    }  # fmt: skip
    return {**common, **(own if codes else {"bytes": {"a": 100, "b": 120, "c": None}}), **changes}


def test_a_row_says_what_its_cells_say() -> None:
    cells = [cell(None), cell("balanced"), cell("balanced", 1, bytes=90), cell("none"), cell("none", 1)]
    row, plain = show.rows_of(cells)
    assert (row.codes, plain.codes) == ("balanced", "none")
    assert row.rival == ("a", 100)
    assert row.ratios == [0.8, 0.9]
    assert row.score == 0.5
    assert row.overhead == pytest.approx(70 / 60)
    assert row.tax == pytest.approx(10 / 30)
    text = show.table(cells)
    assert (
        "| adult | 1% | a 100 | balanced | 0, 1 | 0.850 | 0.100 | 85 | 8 | 30 | 0.50 | 1.167 | 0.333 | 7 | abc |"
        in text
    )
    assert "Measured 2026-01-02 on m, 2 cores, Python 3, at commits abc: each row" in text
    assert "**100**" in show.rival_table(cells)


def test_cells_of_other_sources_have_a_row_that_names_their_commit() -> None:
    old = cell("balanced", 1, sources="older", commit="aaa", measured="2025-01-01T00:00:00+00:00")
    text = show.table([cell(None), cell("balanced"), old])
    rows = [line for line in text.splitlines() if line.startswith("| adult | 1% | a 100 | balanced |")]
    assert sorted(row.split(" | ")[4] + row[-8:] for row in rows) == ["0 | abc |", "1 | aaa |"]
    assert "Measured 2025-01-01 to 2026-01-02 on m, 2 cores, Python 3, at commits aaa, abc: each row" in text
    assert "`make bench-archive BENCH_ARGS=--show` names the cells of older ones." in text


def test_cells_that_the_sources_have_left_behind_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "results", lambda: [cell("none", sources="older"), cell("balanced")])
    monkeypatch.setattr(archive, "own_sources", lambda: "s")
    assert archive._outdated() == "1 of 2 cells are of other sources than these: adult-1%-none-standard-0"


def test_a_tax_needs_the_same_seeds_without_a_code() -> None:
    row = next(
        r
        for r in show.rows_of([cell("balanced"), cell("balanced", 1), cell("none")])
        if r.codes == "balanced"
    )
    assert (row.rival, row.ratios, row.tax, row.overhead) == (None, [], None, None)


def test_the_chart_is_a_drawing_of_the_ratios() -> None:
    drawn = show.chart(show.rows_of([cell(None), cell("balanced"), cell("none")]))
    texts = [element.text for element in ET.fromstring(drawn).iter() if element.tag.endswith("text")]  # noqa: S314
    assert {"adult", "1%", ".80", ".70"} <= set(texts)


def test_the_readme_and_the_results_folder_say_what_the_cells_say() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.replaced(text) == text, "run: python -m benchmarks.readme"
    assert (show.RESULTS / "archive.md").read_text(encoding="utf-8") == show.page(), "run: make bench-archive"
    assert sparse.PAGE.read_text(encoding="utf-8") == sparse.page(), (
        "run: make bench-sparse BENCH_ARGS=--show"
    )
    drawn = sparse.known_drawing()
    assert not drawn or sparse.DRAWING.read_text(encoding="utf-8") == drawn
    assert (show.RESULTS / "archive.svg").read_text(encoding="utf-8") == show.chart(
        show.rows_of(show.results())
    )


def test_a_readme_without_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block"):
        readme.replaced("# A readme\n")


@pytest.mark.parametrize("left_over", [0, 1, 15, 16, 255])
def test_linear_prediction_leaves_no_numbers_that_pcodec_cannot_predict(left_over: int) -> None:
    wave = 500 * np.sin(np.arange(4_096 + left_over) / 30) + 600
    values = (wave + np.random.default_rng(2).integers(0, 9, len(wave))).astype(np.uint16)
    assert len(coders.pcodec(values)) < 0.6 * values.nbytes
    made = coders._pcodec_predicting(values, 16)
    assert made is not None
    assert standalone.simple_decompress(made).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("edited", "dirty"),
    [
        (None, False),
        ("benchmarks/results/cell.json", False),
        ("benchmarks/results/new.json", False),
        ("vae/model.py", True),
        ("vae/new.py", True),
        ("benchmarks/a.py", True),
    ],
)
def test_a_cell_names_the_commit_of_its_sources(
    edited: str | None, dirty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured is no edit of what measures it, or all but the first cell would be of none."""
    names = ("data/a.py", "vae/model.py", "benchmarks/a.py", "benchmarks/results/cell.json")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    as_someone = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=n@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*as_someone, *arguments], check=True)
    if edited:
        (tmp_path / edited).write_text("2\n")
    monkeypatch.setattr(archive, "HERE", tmp_path / "benchmarks")
    head = subprocess.run(
        [*as_someone, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    assert archive._commit.__wrapped__() == head.stdout.strip() + "-dirty" * dirty


def test_archive_cells_are_measured_once_for_their_sources_and_again_when_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = list[archive.Cell]()

    def ours(cell: archive.Cell) -> dict[str, Any]:
        measured.append(cell)
        return {"bytes": len(measured)}

    monkeypatch.setattr(archive, "_ours", ours)
    monkeypatch.setattr(archive, "_rivals", ours)
    monkeypatch.setattr(show, "RESULTS", tmp_path)
    monkeypatch.setattr(show, "write", lambda: None)
    monkeypatch.setattr(show, "table", lambda: "")
    monkeypatch.setattr(readme, "main", lambda: 0)
    monkeypatch.setattr(datasets, "source", lambda name: TableSource(sample()))
    monkeypatch.setattr(archive, "_bounds", lambda name, bound: {})
    monkeypatch.setattr(datasets, "digest", lambda name: "digest")
    monkeypatch.setattr(rivals, "versions", dict)
    asked = ["--sets", "adult", "--bounds", "1%", "--codes", "none", "--seeds"]

    def seeds(*more: str) -> list[int | None]:
        """Of what one run measures; None for the rivals."""
        measured.clear()
        assert archive.main([*asked, *more]) == 0
        return [None if cell.codes is None else cell.seed for cell in measured]

    assert seeds("0") == [None, 0]
    assert seeds("0", "1") == [1]
    assert seeds("0", "1") == []
    assert seeds("0", "--fresh") == [None, 0]
    assert seeds("0", "--show", "--fresh") == []
    monkeypatch.setattr(archive, "own_sources", lambda: "edited")
    assert seeds("0", "1") == [0, 1]
    (kept,) = (tmp_path / "archive").glob("*-none-standard-1.json")
    assert json.loads(kept.read_text())["sources"] == "edited"


def test_a_part_of_flights_is_measured_kept_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.concat_tables([sample()] * 4)  # of more rows than are timed
    model = pipeline.fit(table, Schema.from_arrow(table.schema), training=TrainSettings(steps=20))
    monkeypatch.setattr(datasets, "variants", lambda name: (table,))
    monkeypatch.setattr(speed, "trained", lambda *_: store.save(model, tmp_path / "model"))
    monkeypatch.setattr(readme, "main", lambda: 0)
    monkeypatch.setattr(archive, "_commit", lambda: "abc")
    monkeypatch.setattr(read_part, "RESULT", tmp_path / "read_part.json")
    assert read_part.known_line() == ""
    assert read_part.main(["--runs", "1"]) == 0
    assert "2,400 rows in blocks of" in capsys.readouterr().out
    line = read_part.known_line()
    assert line.startswith("1,000 rows from the middle of flights are read in ")
    assert "that all 2,400 take (to reach: at most 0.1; " in line
    assert line.endswith(", commit abc.\n")


@pytest.fixture(scope="module")
def timed_tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, speed.Tool]:
    table, folder = sample(), tmp_path_factory.mktemp("speed")
    model = pipeline.fit(table, Schema.from_arrow(table.schema), training=TrainSettings(steps=20))
    return speed.tools(table, speed.csv_text(table), store.save(model, folder / "model"), folder / "a.svae")


@pytest.mark.parametrize("name", ["svae", "xz -9", "zstd -19", "brotli -11", "OpenZL, numbers only"])
def test_every_tool_that_is_timed_gives_back_what_it_was_given(
    name: str, timed_tools: dict[str, speed.Tool]
) -> None:
    if name.startswith("OpenZL"):
        pytest.importorskip("openzl")
    tool = timed_tools[name]
    packed = tool.write()
    restored: Any = tool.read(packed)
    assert tool.size(packed) > 0
    if name == "svae":
        assert restored.to_pandas().equals(sample().to_pandas())  # where NaN is NaN
    elif name.startswith("OpenZL"):
        given = [column.forms[-1].numbers for column in columns_of(sample(), {}) if len(column.values)]
        assert [one.tobytes() for one in restored] == [one.tobytes() for one in given]
        assert tool.size(packed) > sum(map(len, packed))
    else:
        assert bytes(restored) == speed.csv_text(sample())


def test_tools_take_turns_and_long_ones_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], list[str]()

    def tool(name: str, *seconds: float) -> speed.Tool:
        left = iter(seconds)

        def write() -> bytes:
            order.append(name)
            now[0] += next(left)
            return b"four"

        def read(_: bytes) -> None:
            now[0] += 1.0

        return speed.Tool(write, read)

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed.time, "process_time", lambda: 2 * now[0])
    tools = {"quick": tool("quick", 1, 9, 3), speed.UNIT: tool("xz", 200, 100), "slow": tool("slow", 300)}
    read = {"read": 1.0, "read_processor": 2.0}
    assert speed.timed(tools) == {
        "quick": {"bytes": 4, "write": 3.0, "write_processor": 6.0, **read},
        speed.UNIT: {"bytes": 4, "write": 150.0, "write_processor": 300.0, **read},
        "slow": {"bytes": 4, "write": 300.0, "write_processor": 600.0, **read},
    }
    assert order == ["quick", "xz", "slow", "quick", "xz", "quick"]


def test_speeds_are_told_as_ratios_to_xz(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = {
        "svae": {"bytes": 1_000, "write": 2.0, "read": 0.5, "write_processor": 3.0, "read_processor": 1.0},
        "xz -9": {"bytes": 3_000, "write": 12.0, "read": 0.1},
    }
    cold = {"read": 9.6, "write": 1.2, "images": 2.0}
    one = {"rows": 5, "csv_bytes": 2_000_000, "tools": tools, "compilation": cold}
    where = {"effort": "fast", "measured": "2026-01-02T", "machine": "m", "software": "s", "commit": "c"}
    monkeypatch.setattr(show, "speed_results", lambda: {"flights": {**one, **where}})
    found = show.speed_table()
    assert "| flights | svae | 1,000 | 2.0 | 6.0 | 0.50 | 0.20 | 24.0 |" in found
    assert "(1.5 and 2.0 of them at work, writing and reading)" in found
    assert "10 s more to read, then images 2 s, and to write 1 s more" in found
    monkeypatch.setattr(show, "speed_results", dict)
    with pytest.raises(ValueError, match="make bench-speed"):
        show.speed_table()
