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
