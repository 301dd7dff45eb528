"""What the page of a run tells of the two gates."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from data.gate import DataGate, check
from data.ingest import ingest
from data.manifest import Manifest
from data.sources import TableSource
from flows import verdicts
from flows.results import Checked, Registered


def manifest(folder: Path, **columns: list[object]) -> Manifest:
    return ingest(TableSource(pa.table(columns)), folder).manifest


def test_without_a_champion_only_rows_are_counted(tmp_path: Path) -> None:
    found = check(manifest(tmp_path / "a", n=[1.5, 2.0, 3.0]), None, DataGate(min_rows=2))
    section = verdicts.data_gate(Checked(bounds={}, findings=tuple(found), against=""))
    assert section.words == [
        "There was no champion whose data this could be compared with; rows: 3, at least 2 (min_rows)."
    ]
    assert not section.tables


def test_checks_are_counted_and_changes_listed(tmp_path: Path) -> None:
    before = manifest(tmp_path / "a", n=[1.5, 2.0, 3.0, 9.0] * 9, c=["x", "y"] * 18, gone=[0.5, 0.25] * 18)
    now = manifest(tmp_path / "b", n=[1.5, 2.0, 3.0, None] * 9, c=["x", "y", "z"] * 12, gone=["p", "q"] * 18)
    found = check(now, before, DataGate(max_null_rise=0.3, max_new_categories=0.5))
    section = verdicts.data_gate(Checked(bounds={}, findings=tuple(found), against="models:/a/3"))
    (words,) = section.words
    assert words.startswith("Before training the data was compared with what the champion, models:/a/3, was")
    assert words.endswith(
        f"{len(found)} checks, {len(found) - 1} passed, 1 let through by allow_schema_change."
    )
    counts, changed = section.tables
    assert [tuple(row) for row in counts.rows][:3] == [
        ("rows", "table", "1"),
        ("type", "3 columns", "2"),
        ("null share", "3 columns", "3"),
    ]
    assert [(row[0], row[1], row[4]) for row in changed.rows] == [
        ("gone", "type", "let through"),
        ("n", "null share", "passed"),
        ("c", "new categories", "passed"),
    ]
    assert changed.rows[1][2:4] == ("25.00%", "at most 30.00% (0.00% before, max_null_rise 0.3)")
    assert "'z'" in changed.rows[2][2]


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(verdicts.MOST_CHANGES + 2)]
    before = manifest(tmp_path / "a", **{name: [0.5, 1.0, 1.5] for name in names})
    now = manifest(tmp_path / "b", **{name: [0.5, 1.0, None] for name in names})
    found = check(now, before, DataGate(max_null_rise=0.5))
    *_, changed = verdicts.data_gate(Checked(bounds={}, findings=tuple(found), against="models:/a/1")).tables
    assert changed.caption == "What is not as it was, 40 of 42"
    assert len(changed.rows) == verdicts.MOST_CHANGES


def test_the_registry_s_gate_has_its_reasons() -> None:
    version = Registered(name="a", version=4, promoted=False, reasons=("one", "two"), is_new=True)
    rows = verdicts.Finding("", "rows", "9", "at least 1 (min_rows)", passed=True)
    checked = Checked(bounds={}, findings=(rows,), against="")
    *_, section = verdicts.verdicts(checked, version)
    assert section.words == ["Version 4 of a is not promoted: one; two."]


def test_findings_survive_json() -> None:
    finding = verdicts.Finding("a", "type", "added", "any", passed=True)
    checked = Checked(bounds={"a": 0.5}, findings=(finding,), against="models:/a/1")
    assert Checked.model_validate_json(checked.model_dump_json()) == checked
