"""The README's first figures are what the main job says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import first_run, readme

KNOWN = json.loads(first_run.FIRST.read_text(encoding="utf-8"))


def test_what_is_kept_is_what_the_commands_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    (tmp_path / "model.json").write_text(json.dumps({"record": {"steps": 8_000}}))
    run = {**KNOWN["run"], "model": str(tmp_path), "page": "/somewhere/else"}

    def call(folder: str, *arguments: str) -> tuple[dict[str, Any], float]:
        asked.append(arguments)
        return (run if arguments[0] == "run" else KNOWN["compress"]), 10.0 * len(asked)

    monkeypatch.setattr(first_run, "_call", call)
    found = first_run.measure()
    assert [words[0] for words in asked] == ["run", "run", "compress"]
    assert found == {
        "run": {**KNOWN["run"], "seconds": 10.0, "seconds_again": 20.0},
        "compress": KNOWN["compress"],
    }
    again = first_run.table({**KNOWN, **found, "beside": ""})
    assert "`make run` took 10 seconds there once installed" in again


def test_a_command_prints_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    found, seconds = first_run._call(str(tmp_path), "ingest", "a.csv", "--out", "a")
    assert found["rows"] == 2
    assert seconds > 0


def test_the_readme_has_them() -> None:
    assert first_run.known_table() in readme.README.read_text(encoding="utf-8")
    source, ours = (KNOWN["compress"][name] for name in ("source_bytes", "archive_bytes"))
    assert (
        f"| **{ours:,}** ({KNOWN['compress']['bytes']['model']:,} of them the model) | **{source / ours:.1f}** |"
        in first_run.known_table()
    )
