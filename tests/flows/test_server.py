"""What is asked of Prefect's server while a flow runs in this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import server
from flows.server import EVENT_ATTEMPTS, STARTUP_VARIABLE, ServerError, needed, ready
from flows.settings import Tracking, TrackingSettings

NAMED, CLOUD = "http://127.0.0.1:1/api", "https://api.prefect.cloud/api/accounts/a/workspaces/b"


@pytest.mark.parametrize("url", [NAMED, CLOUD, None])
def test_events_are_soon_given_up_where_a_server_is_named(url: str | None) -> None:
    soon = (PrefectEventsClient, (("reconnection_attempts", EVENT_ATTEMPTS),))
    with temporary_settings({PREFECT_API_URL: url}):
        with needed():
            assert EventsWorker._client_override == (soon if url == NAMED else None)
        assert EventsWorker._client_override is None


def test_a_server_that_went_away_is_named() -> None:
    with (
        temporary_settings({PREFECT_API_URL: NAMED}),
        pytest.raises(
            ServerError, match=rf"the Prefect server at {NAMED} went away in mid-run \(gone\); .*start"
        ),
        needed(),
    ):
        raise httpx.ConnectError("gone")
    assert EventsWorker._client_override is None


def test_a_local_server_that_does_not_start_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def start(_: SubprocessASGIServer) -> None:
        time.sleep(0.5)
        raise RuntimeError("Timed out.")

    monkeypatch.setattr(SubprocessASGIServer, "start", start)
    monkeypatch.setattr(server, "SLOW_SECONDS", 0.01)
    monkeypatch.setenv(STARTUP_VARIABLE, "7")
    words = rf"did not start \(Timed out\); try again, on a busy machine with more than {STARTUP_VARIABLE}=7"
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(ServerError, match=words):
        ready(Tracking(TrackingSettings(), tmp_path, None))
    assert "note: Prefect's local server is not up yet" in " ".join(capfd.readouterr().err.split())


def test_a_port_that_is_taken_has_the_status_on_which_prefect_takes_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        program = Path(server.__file__).with_name("ephemeral.py")
        with subprocess.Popen(
            [sys.executable, "-P", program, str(taken.getsockname()[1])],
            stdin=subprocess.PIPE,
            env={**os.environ, "PREFECT__SERVER_EPHEMERAL": "1"},
        ) as process:
            assert process.wait(300) == 3


def test_a_local_server_that_ends_as_it_starts_is_not_begun_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen, begun = subprocess.Popen, list[subprocess.Popen[bytes]]()

    def end_at_once(*_: object, **options: Any) -> subprocess.Popen[bytes]:
        begun.append(popen([sys.executable, "-c", "raise SystemExit(3)"], **options))
        return begun[-1]

    monkeypatch.setattr(SubprocessASGIServer, "_instances", {})
    monkeypatch.setattr(server.subprocess, "Popen", end_at_once)
    words = r"exited with code 3\); if its database in \S+ is damaged, move that away"
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(ServerError, match=words):
        ready(Tracking(TrackingSettings(), tmp_path, None))
    assert len(begun) == server.MOST_STARTS
    assert all(process.poll() == 3 and process.stdin and process.stdin.closed for process in begun)
