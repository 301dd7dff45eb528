"""Files and folders that appear whole or not at all.

Everything is written under a temporary name beside its target, flushed to the disk, and renamed. A process killed at
any point leaves the old content, or the new, or nothing, and a hidden temporary that the next writer of the same name
removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path
from secrets import token_hex

from data.errors import DataError

_FULL = {
    errno.ENOSPC: "no space left on the device; free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some or choose another folder",
    errno.EFBIG: "the file would exceed the allowed size; raise the limit or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
}
"""What can go wrong while bytes are written, through no fault of the writer."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Generator[Path]:
    """A temporary path in the folder of `path`; it takes the name `path` when the block ends without an error.

    Missing parent folders are made (and taken away again on failure).

    Raises:
        DataError: The folder cannot be written to, or the device is full.
    """
    target = Path(path)
    if target.is_dir():
        raise DataError(f"{target}: is a folder, a file was to be written there; give another name")
    with writing(target), made_parents(target):
        temporary = temporary_name(target)
        try:
            yield temporary
            sync_file(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)


def check_writable(path: str | Path, *, folder: bool = False) -> None:
    """DataError where `path` cannot be written, told before the work for it is done; nothing is left behind.

    Args:
        path: A file that is to be written, or a folder.
        folder: Which of them.
    """
    target = Path(path)
    place = target.parent
    try:
        if target.exists() and target.is_dir() != folder:
            what, other = ("file", "folder") if folder else ("folder", "file")
            raise DataError(f"{target}: is a {what}, a {other} was to be written there; give another name")
        # what stands in the way counts as well: a link that leads nowhere is no folder, and none can be made there
        place = next(above for above in target.absolute().parents if os.path.lexists(above))
        with tempfile.TemporaryFile(dir=place):
            pass
        if folder and target.exists():
            place = target
            with tempfile.TemporaryFile(dir=target):
                pass
    except OSError as error:
        raise _unwritable(target, place, error) from error


def _unwritable(target: Path, folder: Path, error: OSError) -> DataError:
    return DataError(f"{target}: cannot be written: {error.strerror} ({folder}); choose another folder")


def temporary_name(target: Path) -> Path:
    """A fresh hidden name beside `target`, after what killed writers of the same name left has been removed."""
    remove_leftovers(target)
    return target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}.{token_hex(4)}.tmp")


def remove_leftovers(target: Path) -> None:
    """Delete temporaries beside `target` whose writer, a process of this machine, is no more."""
    head = f".{target.name}.{socket.gethostname()}."
    try:
        entries = list(target.parent.iterdir())
    except FileNotFoundError:
        return
    for entry in entries:
        if not (entry.name.startswith(head) and entry.name.endswith(".tmp")):
            continue
        pid = entry.name[len(head) :].split(".")[0]
        if pid.isdigit() and not _alive(int(pid)):
            remove_tree(entry)


def remove_tree(path: Path) -> None:
    """Delete a file or a folder with all it holds; another process may be doing the same."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Flush one file's content to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the platform can (Windows cannot open folders)."""
    if os.name == "nt":  # pragma: no cover
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(target: Path) -> Generator[None]:
    """Turn a full or read-only device into one clear `DataError` that names `target`."""
    try:
        yield
    except OSError as error:
        # Inside the block sources are read too: only what can come from writing is ours to explain.
        reason = _FULL.get(error.errno or 0)
        if reason is None:
            raise
        raise DataError(f"{target}: cannot be written: {reason}") from error


@contextlib.contextmanager
def made_parents(target: Path) -> Generator[None]:
    """Make the missing folders above `target`; on an error remove those that were made."""
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target.parent))
    except OSError as error:
        raise _unwritable(target, target.parent, error) from error
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _alive(pid: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
