"""Progress where there is no terminal: few lines, and the last one says that it is over."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows import console
from flows.console import Output, key_values, note, progress, table


def test_a_line_for_each_part_and_one_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("compress") as advance:
        for step in range(1, 5):
            advance(step / 10, f"train step {step} of 10")
        for share in (0.0, 0.5, 1.0):
            advance(share, "writing")
    assert capfd.readouterr().err.splitlines() == [
        "compress:  10% train step 1 of 10",
        "compress:   0% writing",
        "compress: 100% done",
    ]


def test_numbers_begin_no_part(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("ingest") as advance:
        for rows in (1_000, 2_000, 3_000):
            advance(rows / 3_000, f"{rows:,} rows")
    assert capfd.readouterr().err.splitlines() == ["ingest:  33% 1,000 rows", "ingest: 100% done"]


def test_a_line_every_ten_seconds(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 5.0, 12.0, 13.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with progress("verify") as advance:
        for share in (0.1, 0.2, 0.6, 1.0):
            advance(share, "streams")
    assert capfd.readouterr().err.splitlines() == [
        "verify:  10% streams",
        "verify:  60% streams",
        "verify: 100% done",
    ]


def test_what_was_done_at_once_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("verify") as advance:
        advance(1.0, "streams")
    with progress("verify"):
        pass
    assert capfd.readouterr().err == "verify: 100% streams\n"


def test_what_failed_is_not_done(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with progress("verify") as advance:
            advance(0.1, "streams")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert capfd.readouterr().err == "verify:  10% streams\n"


NAMES = ["dist [m]", "rate [/s]", "[bold]", ":key:", "[link=x]y[/link]"]


def test_names_are_text_in_all_that_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor emoji: a column may be called anything."""

    def readable(screen: Console) -> None:
        key_values(screen, dict.fromkeys(NAMES, ":adult:"))
        table(screen, NAMES, [NAMES])
        screen.print(" ".join(NAMES))

    with Output(False) as output:
        output.show({}, readable)
    with progress("read") as advance:
        advance(1.0, " ".join(NAMES))
    note(" ".join(NAMES))

    out, err = capfd.readouterr()
    pairs, header, cells, line = out.splitlines()[: len(NAMES)], *out.splitlines()[len(NAMES) :]
    assert [pair.split("  ")[0].strip() for pair in pairs] == NAMES
    assert all(pair.endswith("  :adult:") for pair in pairs)
    for text in (header, cells, line, *err.splitlines()):
        assert all(name in text for name in NAMES)


def test_a_bar_takes_names_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    screen = Console(file=shown, force_terminal=True, markup=False, emoji=False, width=200)
    monkeypatch.setattr(console, "errors", screen)
    with progress("read") as advance:
        advance(0.5, "rate [/s] :key:")
        time.sleep(0.2)
    assert "read: rate [/s] :key:" in shown.getvalue()
