"""Prefect's server: which one a command talks to, and the local ones whose state lasts in the project's folder.

Without `PREFECT_API_URL` (a variable or a profile) there are two: the ephemeral one, which Prefect starts for a single
run and which schedules nothing, and a real one on loopback, which `svae serve` starts. Each keeps its own database in
the state folder. Prefect must not be imported before `use_local_state`: it reads its settings then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import SvaeError, UsageError
from flows.console import errors, note
from flows.locks import BusyError, file_lock
from flows.settings import Tracking

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

START_SECONDS = 180.0
LOCK_SECONDS = 900.0
STOP_SECONDS = 20.0
SLOW_SECONDS = 15.0
"""After which a start that is still going on is told of."""
MOST_STARTS = 5
EVENT_ATTEMPTS = 3
"""How often a connection is sought again for an event; Prefect pauses before a fourth time, and each one after."""
URL_VARIABLE = "PREFECT_API_URL"
STARTUP_VARIABLE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
DATABASE_VARIABLE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
HOST = "127.0.0.1"


class ServerError(SvaeError):
    """A Prefect server that does not start or does not answer."""


def use_local_state(tracking: Tracking) -> None:
    """Keep what Prefect's ephemeral server writes in the state folder, unless the user says otherwise."""
    folder = tracking.state / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    if not os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL"):  # Prefect's older name for the same
        os.environ.setdefault(DATABASE_VARIABLE, _database(folder / "ephemeral.db"))
    # What the server remembers of its database must lie beside it, or it is made anew at each change of project.
    os.environ.setdefault("PREFECT_SERVER_MEMO_STORE_PATH", str(folder / "memo-ephemeral.toml"))
    os.environ.setdefault("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(folder / "results"))
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_ENABLED", "true")


def api_url() -> str | None:
    """The server that variables or Prefect's profile name."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def ready(tracking: Tracking) -> None:
    """Have a server that answers before a flow starts: the one that is named, or the ephemeral one.

    Processes that migrate a fresh database at once fail, so the ephemeral server starts under a lock.

    Raises:
        ServerError: names the server and the way out.
    """
    url = api_url()
    if url:
        if not _answers(url, 5.0):
            raise ServerError(
                f"the Prefect server at {url} does not answer; start it, or unset {URL_VARIABLE}"
            )
        return
    # whoever waits for another to start one needs the time of both
    lock = file_lock(tracking.state / "locks" / "prefect.lock", timeout=LOCK_SECONDS)
    with _told_if_slow(), lock:
        local = _ephemeral()
        try:
            local.start()
        except RuntimeError as error:
            local.stop()
            reason = " ".join(str(error).split()).rstrip(".")
            kept, limit = tracking.state / "prefect", os.environ.get(STARTUP_VARIABLE)
            way_out = (
                f"if its database in {kept} is damaged, move that away"
                if "exited with code" in reason
                else f"try again, on a busy machine with more than {STARTUP_VARIABLE}={limit}"
            )
            raise ServerError(f"Prefect's local server did not start ({reason}); {way_out}") from error


def _ephemeral() -> SubprocessASGIServer:
    """Prefect's server for a single run, the one of this process; but in a session of its own, and never left behind.

    As Prefect starts it, Ctrl-C in a terminal ends it before the run, which then waits for it for minutes, and a run
    that SIGTERM or SIGKILL ends leaves it running.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    class OwnSession(SubprocessASGIServer):
        starts = 0

        def _run_uvicorn_command(self) -> subprocess.Popen[bytes]:
            # Prefect takes another port, and does not look at the time, as long as a server ends with status 3, which
            # is what uvicorn says of a database as well.
            self.starts += 1
            if self.starts > MOST_STARTS:
                raise RuntimeError("ephemeral server process exited with code 3")
            if self.server_process and self.server_process.stdin:
                self.server_process.stdin.close()
            settings = get_current_settings().to_environment_variables(exclude_unset=True)
            return subprocess.Popen(
                # -P: modules beside the program, or in this folder, are not Prefect's
                [sys.executable, "-P", str(Path(__file__).with_name("ephemeral.py")), str(self.port)],
                stdin=subprocess.PIPE,
                env={
                    **os.environ,
                    "PREFECT_UI_ENABLED": "0",
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                    **settings,
                },
                start_new_session=True,
            )

        def stop(self) -> None:
            process = self.server_process
            super().stop()
            if process and process.stdin:
                process.stdin.close()

    return OwnSession()


@contextlib.contextmanager
def _told_if_slow() -> Iterator[None]:
    words = "Prefect's local server is not up yet; on a busy machine that may take minutes"
    told = threading.Timer(SLOW_SECONDS, note, [words])
    told.daemon = True
    told.start()
    try:
        yield
    finally:
        told.cancel()


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Around a flow in this process.

    Raises:
        ServerError: the server went away in mid-run; names it and the way out.
    """
    import httpx

    try:
        with _hasty_events():
            yield
    except httpx.TransportError as error:
        name = api_url()
        raise ServerError(
            f"{f'the Prefect server at {name}' if name else 'Prefect, its local server,'} went away in mid-run "
            f"({error}); what is done is kept: {'start it and ' if name else ''}run again"
        ) from error


@contextlib.contextmanager
def _hasty_events() -> Iterator[None]:
    """Within, an event that the server that is named does not take is soon given up.

    Prefect tries each for seven seconds, and those of a run whose server went away one after the other at its end.
    """
    from prefect.events.clients import PrefectEventsClient
    from prefect.events.worker import (
        EventsWorker,
        emit_events_to_cloud,
        should_emit_events_to_running_server,
    )

    if emit_events_to_cloud() or not should_emit_events_to_running_server():
        yield
        return
    EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=EVENT_ATTEMPTS)
    try:
        yield
    finally:
        EventsWorker.set_client_override(None)


@contextlib.contextmanager
def lasting_server(tracking: Tracking, *, port: int, start: bool) -> Iterator[str]:
    """The URL of a server that schedules: the one that is named, or one on loopback that ends with this block.

    Raises:
        UsageError: none is named, and none shall be started.
        ServerError: it does not start or does not answer.
    """
    url = os.environ.get(URL_VARIABLE) or api_url()
    if url:
        if not _answers(url, 5.0):
            raise ServerError(
                f"the Prefect server at {url} does not answer; start it, or unset {URL_VARIABLE}"
            )
        yield url
        return
    if not start:
        raise UsageError(
            f"schedules need a Prefect server and {URL_VARIABLE} is not set; start one with `prefect server start`,"
            f" then {URL_VARIABLE}=http://{HOST}:4200/api svae serve (or let svae start one: leave --no-server out)"
        )
    check_scheduler()
    errors.print("starting a Prefect server, which takes some seconds")
    with _started(tracking, port) as url:
        yield url


def check_scheduler() -> None:
    """Refuse to serve schedules that would never fire.

    Prefect 3.8 admits SQLAlchemy 2.1, but its scheduler fails on it, in the server's log and nowhere else: `Can't
    evaluate bulk DML statement`.

    Raises:
        ServerError: names the version to install.
    """
    from importlib.metadata import version

    found = version("sqlalchemy")
    if tuple(int(part) for part in found.split(".")[:2]) >= (2, 1):
        raise ServerError(
            f"Prefect's scheduler does not work with SQLAlchemy {found}: nothing would ever be scheduled; install"
            " another: pip install 'sqlalchemy>=2.0,<2.1'"
        )


@contextlib.contextmanager
def _alone(tracking: Tracking) -> Iterator[None]:
    """One server a state folder."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(file_lock(tracking.state / "locks" / "prefect-server.lock", timeout=1.0))
        except BusyError as error:
            raise BusyError(
                f"`svae serve` runs already with the state in {tracking.state}; end that one first, or set "
                f"{URL_VARIABLE} to its server to serve beside it"
            ) from error
        yield


@contextlib.contextmanager
def _started(tracking: Tracking, port: int) -> Iterator[str]:
    folder = tracking.state / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    port = port or _free_port()
    if not _is_free(port):
        raise UsageError(
            f"port {port} is in use; choose another with --port, or set {URL_VARIABLE} to the server there"
        )
    url = f"http://{HOST}:{port}/api"
    with _alone(tracking), (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,  # a module path that begins with somebody's folder would find their `data` before ours
            env={**os.environ, **_server_variables(folder, url)},
            start_new_session=True,  # Ctrl-C is for us: we stop the runner first, and the server after it
        )
        try:
            _wait_until_up(process, url, folder / "server.log")
            yield url
        finally:
            _stop(process)


def _server_variables(folder: Path, url: str) -> dict[str, str]:
    return {
        DATABASE_VARIABLE: _database(folder / "server.db"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(folder / "memo-server.toml"),
        "PREFECT_UI_API_URL": url,
        URL_VARIABLE: url,
    }


def _database(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(
                f"the Prefect server ended with status {process.returncode} as it started; see {log}"
            )
        if _answers(url, 2.0):
            return
        time.sleep(0.3)
    raise ServerError(f"the Prefect server did not answer within {START_SECONDS:.0f} s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(url: str, seconds: float) -> bool:
    try:
        with urllib.request.urlopen(url.rstrip("/") + "/health", timeout=seconds) as answer:  # noqa: S310
            return answer.status == 200
    except (OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
