"""Locks between processes of one machine: on a file, released by the system when their holder dies."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.errors import SvaeError

POLL_SECONDS = 0.1

_held: dict[str, tuple[threading.RLock, list[int]]] = {}
_guard = threading.Lock()


class BusyError(SvaeError):
    """Somebody else holds the lock and does not let go."""


@contextmanager
def file_lock(
    path: Path,
    *,
    timeout: float | None = None,
    on_wait: Callable[[], None] | None = None,
    remove: bool = False,
) -> Iterator[None]:
    """Hold `path` as a lock; the same thread may take it again, other threads and processes wait.

    Advisory and local: processes on other hosts that share the folder are kept out only if its file system passes
    `flock` on. `timeout` is in seconds, None waits for ever; `on_wait` is called once if the lock is not free. With
    `remove` the file goes when the lock does, for locks that lie among a user's files.

    Raises:
        BusyError: the time-out passed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    key = str(path.resolve())
    with _guard:
        in_thread, descriptors = _held.setdefault(key, (threading.RLock(), []))
    deadline = None if timeout is None else time.monotonic() + timeout
    if not in_thread.acquire(timeout=-1 if timeout is None else timeout):
        raise BusyError(f"{path}: another run of this process holds the lock; try again when it has ended")
    try:
        if not descriptors:
            descriptors.append(_acquire(path, deadline, on_wait))
            depth_one = True
        else:
            depth_one = False
        try:
            yield
        finally:
            if depth_one:
                _release(path, descriptors.pop(), remove)
    finally:
        in_thread.release()


def _acquire(path: Path, deadline: float | None, on_wait: Callable[[], None] | None) -> int:
    waited = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _lies_at(path, descriptor):
                return descriptor
            os.close(descriptor)  # its last holder has removed it: whoever comes now locks a new one
            continue
        except BlockingIOError:
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if on_wait and not waited:
            on_wait()
        waited = True
        if deadline is not None and time.monotonic() >= deadline:
            raise BusyError(f"{path}: another process holds the lock; try again when it has ended")
        time.sleep(POLL_SECONDS)


def _release(path: Path, descriptor: int, remove: bool) -> None:
    try:
        if remove:
            # Gone already, or in a folder that takes no changes any more: no reason to fail whoever held it.
            with suppress(OSError):
                if _lies_at(path, descriptor):
                    path.unlink()
    finally:
        os.close(descriptor)


def _lies_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that the path names; only the holder of its lock can rely on the answer."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def lock_for_uri(uri: str, state: Path) -> Path:
    """The lock of a store: beside a SQLite file, so that every project that shares it shares the lock, else in `state`.

    >>> lock_for_uri("sqlite:////srv/mlflow.db", Path("/state")).as_posix()
    '/srv/mlflow.db.lock'
    """
    if uri.startswith("sqlite:///") and (path := uri.removeprefix("sqlite:///").partition("?")[0]):
        return Path(path + ".lock")
    return state / "locks" / (hashlib.sha256(uri.encode()).hexdigest()[:16] + ".lock")
