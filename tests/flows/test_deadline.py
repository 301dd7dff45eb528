"""The time limit for one file of a folder job: it ends the work from within, in the thread that does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from flows import deadline, files
from flows.compress import FileJob
from flows.deadline import Deadline, FileTimeoutError
from flows.hooks import advice, outside_failed
from flows.jobs import FolderSettings


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "exports" / "t.csv"
    path.parent.mkdir()
    path.write_text("a,b,c\n" + "".join(f"{i},{i * i % 97},{'xyz'[i % 3]}\n" for i in range(600)))
    return path


@pytest.fixture
def job(source: Path, tmp_path: Path) -> Callable[..., FileJob]:
    def make(seconds: float, **names: Path) -> FileJob:
        settings = {"train": {"steps": 20_000, "threads": 1}, "file_timeout_seconds": seconds}
        places = {"source": source, "target": tmp_path / "made" / "t.svae", **names}
        return FileJob(**places, folder=tmp_path / "made", settings=FolderSettings.model_validate(settings))

    return make


def message(source: Path, seconds: str, command: str) -> str:
    return (
        f"{source}: not done within {seconds} (file_timeout_seconds); give it a longer limit, or do it alone: "
        f"svae {command} {source}"
    )


def test_a_file_that_takes_too_long_is_given_up(
    job: Callable[..., FileJob], source: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileTimeoutError) as caught:
        files.compress(job(0.05), print)
    assert str(caught.value) == message(source, "0.05 seconds", "compress")
    assert sorted(tmp_path.rglob("*")) == [source.parent, source]


def test_writing_is_watched_as_training_is(job: Callable[..., FileJob], monkeypatch: Any) -> None:
    began: list[str] = []

    def watched(self: Deadline, event: Any = None) -> None:
        began.append(event["phase"])
        if event["phase"] == "encode":
            raise FileTimeoutError("too late")

    monkeypatch.setattr(Deadline, "__call__", watched)
    short = job(60.0)
    short = short.model_copy(
        update={
            "settings": short.settings.model_copy(
                update={"train": short.settings.train.model_copy(update={"steps": 2})}
            )
        }
    )
    with pytest.raises(FileTimeoutError, match="too late"):
        files.compress(short, print)
    assert began[0] == "joint"
    assert not short.target.exists()


def test_an_archive_that_takes_too_long_is_given_up(
    job: Callable[..., FileJob], source: Path, tmp_path: Path
) -> None:
    from data.sources import open_source
    from vae.codec import archive

    archive.write(open_source(source).table(), tmp_path / "t.svae")
    back = tmp_path / "back.csv"
    with pytest.raises(FileTimeoutError) as caught:
        files.decompress(job(1e-9, source=tmp_path / "t.svae", target=back))
    assert str(caught.value) == message(tmp_path / "t.svae", "1e-09 seconds", "decompress")
    assert not back.exists()
    assert files.decompress(job(60.0, source=tmp_path / "t.svae", target=back)).rows == 600


def test_it_is_not_tried_again_and_the_advice_fits() -> None:
    class Failed:
        def is_failed(self) -> bool:
            return True

        def result(self, *, raise_on_failure: bool) -> BaseException:
            return FileTimeoutError("t.csv: not done within 6 hours")

    assert not outside_failed(None, None, Failed())
    assert "file_timeout_seconds" in advice(FileTimeoutError("t.csv: not done within 6 hours"))


def test_the_limit_is_bounded() -> None:
    assert FolderSettings().file_timeout_seconds == 6 * deadline.HOUR
    for seconds in (0, -1, float("inf"), float("nan"), 8 * 24 * deadline.HOUR):
        with pytest.raises(ValueError, match="file_timeout_seconds"):
            FolderSettings(file_timeout_seconds=seconds)


@pytest.mark.usefixtures("prefect_api")
def test_a_folder_job_names_the_file(source: Path, tmp_path: Path, home: Path) -> None:
    from flows.compress import compress_folder

    (source.parent / "one.csv").write_text("a\n7\n")  # done at once: nothing in it can be modelled
    settings: Any = {"train": {"steps": 20_000, "threads": 1}, "file_timeout_seconds": 3.0}
    with pytest.raises(DataError) as caught:
        compress_folder(
            str(source.parent),
            str(tmp_path / "archives"),
            FolderSettings.model_validate(settings),
            config=str(home),
        )
    assert str(caught.value).startswith(
        f"1 of 2 files failed; mend them and run again, finished files are skipped: {source}: not done within 3"
    )
    assert (tmp_path / "archives" / "one.csv.svae").exists()
