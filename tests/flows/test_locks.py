from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.locks import BusyError, file_lock

HOLD = """
import sys, time
from pathlib import Path
from flows.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("entered", flush=True)
    time.sleep(300)
"""


def test_the_same_thread_may_enter_again(tmp_path: Path) -> None:
    with file_lock(tmp_path / "a" / "lock"), file_lock(tmp_path / "a" / "lock", timeout=0):
        pass
    with file_lock(tmp_path / "a" / "lock", timeout=0):
        pass


def test_another_process_waits_until_its_holder_dies(
    tmp_path: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    lock = tmp_path / "lock"
    with start_python(HOLD, lock) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "entered\n"
        waited: list[bool] = []
        busy = file_lock(lock, timeout=0.3, on_wait=lambda: waited.append(True))
        with pytest.raises(BusyError, match="another process holds the lock"), busy:
            pass
        assert waited == [True]
        holder.kill()
        with file_lock(lock, timeout=30):
            pass


def test_another_thread_waits(tmp_path: Path) -> None:
    order: list[str] = []

    def other() -> None:
        with file_lock(tmp_path / "lock"):
            order.append("other")

    with file_lock(tmp_path / "lock"):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


COUNT = """
import sys
from pathlib import Path
from flows import locks
locks.POLL_SECONDS = 0.0005
lock, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(200):
    with locks.file_lock(lock, remove=True):
        number = int(counter.read_text())
        counter.write_text(str(number + 1))
"""


def test_a_lock_that_goes_with_its_holder_still_keeps_others_out(
    tmp_path: Path,
    start_python: Callable[..., subprocess.Popen[str]],
    finish_python: Callable[..., list[str]],
) -> None:
    lock, counter = tmp_path / "lock", tmp_path / "counter"
    counter.write_text("0")
    finish_python(*(start_python(COUNT, lock, counter) for _ in range(3)))
    assert counter.read_text() == "600"
    assert not lock.exists()


def test_the_file_goes_with_the_outermost_hold(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with file_lock(lock, remove=True):
        with file_lock(lock, remove=True):
            pass
        assert lock.exists()
    assert not lock.exists()
    with file_lock(lock, remove=True):
        lock.unlink()  # by somebody who tidies up
    assert not lock.exists()


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_lock_file_that_cannot_be_removed_fails_nobody(
    error: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error("no")

    lock = tmp_path / "lock"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with file_lock(lock, remove=True):
            pass
    with file_lock(lock, timeout=0, remove=True):  # it is free all the same
        pass
    assert not lock.exists()
