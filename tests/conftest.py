"""What holds for every test: no network, no telemetry."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background job ignores it, and so would every process that a test starts and interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared and code is compiled in mid-test: only what is found counts, not how soon.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Before anything imports Prefect or MLflow, and for every child process.
os.environ.update(
    DO_NOT_TRACK="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    MLFLOW_DISABLE_TELEMETRY="true",
)


LONGEST = (
    "flows/test_end_to_end.py",
    "codec/test_anywhere.py",
    "flows/test_images_end_to_end.py",
    "flows/test_killed.py",
    "flows/test_retrain.py",
    "test_packaging_wheel.py",
    "data/test_faults.py",
    "flows/test_lost_server.py",
    "flows/test_texts_end_to_end.py",
    "flows/test_mlflow_server.py",
    "codec/test_bounds_checked.py",
    "test_flights.py",
    "vae/test_resume.py",
    "flows/test_registry.py",
    "flows/test_tune.py",
    "vae/test_images.py",
    "vae/test_model.py",
    "vae/test_calibration.py",
    "vae/test_pipeline.py",
    "codec/test_bombs.py",
    "flows/test_run_report.py",
    "vae/test_texts.py",
    "vae/test_written_bits.py",
    "codec/test_frozen.py",
)
"""The files that take longest: they go first, for a file goes to one process as a whole, and should it be the last one,
the other processes wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were found."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


class NetworkTouchedError(AssertionError):
    """A test reached for an address that is not this machine's own."""


def _is_local(address: Any) -> bool:
    """Whether a socket address is loopback, or no internet address at all (a Unix socket's path)."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Connections leave this machine for nobody: tests run the same on a train."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if not _is_local(address):
            raise NetworkTouchedError(f"a test connects to {address}")
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if not _is_local(address):
            raise NetworkTouchedError(f"a test connects to {address}")
        return connect_ex(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        yield
