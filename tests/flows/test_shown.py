"""What is shown of a run: a server that does not answer is told of once, left alone for a while, and asked again."""

from __future__ import annotations

import logging

import httpx
import pytest

from flows import shown


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every call to the server, which is away while `away` is among them."""
    found: list[str] = []

    def call(name: str):
        def asked(*_: object, **__: object) -> str:
            found.append(name)
            if "away" in found:
                raise httpx.ConnectError("refused")
            return "id"

        return asked

    for name in ("create_progress_artifact", "update_progress_artifact", "create_table_artifact"):
        monkeypatch.setattr(shown, name, call(name))
    monkeypatch.setattr(shown, "get_run_logger", lambda: logging.getLogger("shown"))
    monkeypatch.setattr(shown, "_silent_until", -float("inf"))
    return found


def test_a_server_that_is_away_stops_nothing_and_is_left_alone(
    calls: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = shown.ProgressArtifact("k", "words")
    bar(1.0)
    assert calls == ["create_progress_artifact", "update_progress_artifact"]
    calls.append("away")
    bar(1.0)
    bar(1.0)
    shown.show_table([{"a": 1}], key="t", description="")
    late = shown.ProgressArtifact("late", "made while nobody answers")
    assert calls[2:] == ["away", "update_progress_artifact"]  # asked once
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    calls.clear()
    monkeypatch.setattr(shown, "_silent_until", -float("inf"))  # the pause is over, the server back
    late(1.0)
    shown.show_table([{"a": 1}], key="t", description="")
    assert calls == ["create_progress_artifact", "create_table_artifact"]
