"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.atomic import atomic_path, check_writable
from data.errors import DataError
from tests import unprivileged


def write_and_fail(target: Path) -> None:
    with atomic_path(target) as path:
        path.write_text("new")
        raise RuntimeError


def test_a_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "a" / "b" / "file"

    with atomic_path(target) as path:
        path.write_text("new")
        assert not target.exists()

    assert target.read_text() == "new"
    assert [entry.name for entry in target.parent.iterdir()] == ["file"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    with pytest.raises(RuntimeError):
        write_and_fail(target)

    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_error_takes_new_folders_away_again(tmp_path):
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path / "a" / "b" / "file")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no space left on the device; free some or choose another folder"),
        (errno.EDQUOT, "the disk quota is used up; free some or choose another folder"),
        (errno.EROFS, "the file system is read-only; choose another folder"),
    ],
)
def test_a_device_that_takes_no_more_is_explained(tmp_path, number, told):
    with pytest.raises(DataError) as error, atomic_path(tmp_path / "file"):
        raise OSError(number, os.strerror(number))

    assert str(error.value) == f"{tmp_path}/file: cannot be written: {told}"


def test_errors_of_reading_are_not_taken_for_errors_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        (tmp_path / "none").read_text()


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(DataError) as error, atomic_path(tmp_path):
        pass

    assert str(error.value) == f"{tmp_path}: is a folder, a file was to be written there; give another name"


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")

    told = r"cannot be written: (Not a directory|File exists) .*; choose another folder$"
    with pytest.raises(DataError, match=told), atomic_path(tmp_path / "file" / "deeper"):
        pass


WRITE = """
import sys
from data.atomic import atomic_path, check_writable
from data.errors import DataError
for write in (atomic_path, check_writable):
    try:
        with write(sys.argv[1]):
            pass
    except DataError as error:
        print(error)
"""


def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    tmp_path.chmod(0o500)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*unprivileged.python(), "-c", WRITE, tmp_path / "file"]

    done = subprocess.run(command, env=variables, capture_output=True, text=True)

    told = f"{tmp_path}/file: cannot be written: Permission denied ({tmp_path}); choose another folder\n"
    assert done.stdout == 2 * told, done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("folder", [False, True])
def test_what_can_be_written_passes_and_nothing_is_left(folder: bool, tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "new", folder=folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("file", True, "is a file, a folder was to be written there; give another name"),
        ("", False, "is a folder, a file was to be written there; give another name"),
        ("file/below/it", False, r"cannot be written: Not a directory \(.*file\); choose another folder"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(
    name: str, folder: bool, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=message):
        check_writable(tmp_path / name, folder=folder)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_a_folder_that_takes_no_files_is_found_out_whatever_its_permissions_say() -> None:
    with pytest.raises(DataError, match=r"/proc/new/a\.csv: cannot be written: .* \(/proc\); choose another"):
        check_writable("/proc/new/a.csv")
