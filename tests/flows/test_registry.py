"""Aliases against a real store: promotion, rollback, interrupted moves, many processes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import ModelError, TrackingError, UsageError
from flows import cli_models, reload
from flows.cli import run
from flows.registry import MOVE, Registry
from flows.settings import load_tracking
from flows.tracking import Store
from flows.versions import DIGEST, VERDICT, Version


def no_check(version: Version) -> None:
    """Nothing to reload in a made-up model."""


def connect(home: Path) -> Registry:
    return Registry(Store(load_tracking(home)))


@pytest.fixture
def registry(home: Path) -> Registry:
    return connect(home)


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "weights").write_text("w")
    return folder


@pytest.fixture
def three(registry: Registry, made_up: Path) -> list[Version]:
    run = registry.store.start_run("made up", params={}, tags={})
    return [registry.register("m", run_id=run, folder=made_up, tags={DIGEST: f"d{i}"}) for i in range(3)]


def aliases(registry: Registry) -> dict[str, int]:
    return {alias: v.version for v in registry.versions("m") for alias in v.aliases}


def test_the_same_model_is_one_version(registry: Registry, three: list[Version], made_up: Path) -> None:
    again = registry.register("m", run_id=three[0].run_id, folder=made_up, tags={DIGEST: "d1"})
    assert again.version == 2
    assert [v.version for v in registry.versions("m")] == [3, 2, 1]


def test_promotion_keeps_the_former_champion_as_previous(registry: Registry, three: list[Version]) -> None:
    assert registry.promote(three[0], "first", verify=no_check)
    assert aliases(registry) == {"champion": 1}
    assert registry.promote(three[1], "smaller", verify=no_check)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert registry.find("m").tags["svae.verdict"] == "promoted: smaller"
    assert registry.promote(three[1], "again", verify=no_check)
    assert aliases(registry) == {"champion": 2, "previous": 1}


def test_rollback_swaps_and_marks(registry: Registry, three: list[Version]) -> None:
    registry.promote(three[0], "first", verify=no_check)
    with pytest.raises(
        TrackingError, match="has no previous version to roll back to; see: svae models list m"
    ):
        registry.rollback("m", "bad", verify=no_check)
    registry.promote(three[1], "smaller", verify=no_check)
    back, away, undone = registry.rollback("m", "bad codes", verify=no_check)
    assert (back.version, away.version, undone) == (1, 2, False)
    assert aliases(registry) == {"champion": 1, "previous": 2}
    assert away.rolled_back
    assert not back.rolled_back
    assert registry.rollback("m", "after all", verify=no_check).undone
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert not registry.find("m/2").rolled_back
    assert registry.find("m/1").rolled_back


def test_what_is_brought_back_was_verified(registry: Registry, three: list[Version]) -> None:
    """Also when another process moves the aliases while the first candidate is being verified."""
    for version in three[:2]:
        registry.promote(version, "smaller", verify=no_check)
    verified: list[int] = []

    def meanwhile(version: Version) -> None:
        verified.append(version.version)
        if len(verified) == 1:
            registry.promote(three[2], "smaller still", verify=no_check)

    back, away, _ = registry.rollback("m", "bad", verify=meanwhile)
    assert (back.version, away.version, verified) == (2, 3, [1, 2])
    assert aliases(registry) == {"champion": 2, "previous": 3}


def test_a_second_rollback_says_what_it_undoes(
    registry: Registry,
    three: list[Version],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for version in three[:2]:
        registry.promote(version, "smaller", verify=no_check)
    monkeypatch.setattr(cli_models, "connect", lambda config: registry)
    monkeypatch.setattr(reload, "verify_reload", lambda registry, version: None)
    assert run(["models", "rollback", "m"]) == 0
    assert capfd.readouterr().err == ""
    assert run(["models", "rollback", "m"]) == 0
    told = "note: version 2 had been rolled back before; now version 1 is marked so instead\n"
    assert capfd.readouterr().err == told


def test_promoting_the_champion_again_writes_a_reason_and_says_so(
    registry: Registry,
    three: list[Version],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli_models, "connect", lambda config: registry)
    monkeypatch.setattr(reload, "verify_reload", lambda registry, version: None)
    assert len(three) == 3
    again = "note: version 2 was the champion already: only reason and date are new\n"
    for reason, told in (("smaller", ""), ("still", again)):
        assert run(["models", "promote", "m", "2", "--reason", reason]) == 0
        assert capfd.readouterr().err == told
        assert aliases(registry) == {"champion": 2}
        assert registry.find("m/2").tags[VERDICT] == f"promoted: {reason}"


def test_a_version_that_does_not_reload_moves_nothing(registry: Registry, three: list[Version]) -> None:
    def broken(version: Version) -> None:
        raise ModelError("other codes")

    registry.promote(three[0], "first", verify=no_check)
    with pytest.raises(ModelError, match="other codes"):
        registry.promote(three[1], "smaller", verify=broken)
    assert aliases(registry) == {"champion": 1}
    registry.promote(three[1], "smaller", verify=no_check)
    with pytest.raises(ModelError, match="other codes"):
        registry.rollback("m", "bad", verify=broken)
    assert aliases(registry) == {"champion": 2, "previous": 1}


def test_a_decision_against_another_champion_moves_nothing(registry: Registry, three: list[Version]) -> None:
    registry.promote(three[0], "first", verify=no_check)
    assert not registry.promote(three[1], "stale", verify=no_check, expected=None)
    assert not registry.promote(three[1], "stale", verify=no_check, expected=three[2])
    assert aliases(registry) == {"champion": 1}
    assert registry.promote(three[1], "fresh", verify=no_check, expected=three[0])


def test_a_move_that_was_cut_short_is_completed(registry: Registry, three: list[Version]) -> None:
    registry.promote(three[0], "first", verify=no_check)
    move = {"champion": 2, "previous": 1, "tags": {"2": {"svae.verdict": "promoted: cut short"}}}
    registry.client.set_registered_model_tag("m", MOVE, json.dumps(move))
    registry.promote(three[2], "next", verify=no_check)
    assert aliases(registry) == {"champion": 3, "previous": 2}
    assert registry.find("m/2").tags["svae.verdict"] == "promoted: cut short"
    assert MOVE not in registry.client.get_registered_model("m").tags


@pytest.mark.parametrize(
    ("text", "version"),
    [("m", 2), ("models:/m@champion", 2), ("m@previous", 1), ("m/3", 3), ("models:/m/1", 1)],
)
def test_names_of_versions(registry: Registry, three: list[Version], text: str, version: int) -> None:
    registry.promote(three[0], "first", verify=no_check)
    registry.promote(three[1], "second", verify=no_check)
    assert registry.find(text).version == version


def test_unknown_names_say_what_there_is(registry: Registry, three: list[Version]) -> None:
    registry.promote(three[0], "first", verify=no_check)
    with pytest.raises(TrackingError, match="model 'm' has no version 7; it has: 3, 2, 1@champion"):
        registry.find("m/7")
    with pytest.raises(TrackingError, match="model 'm' has no alias nobody; it has: 3, 2, 1@champion"):
        registry.find("m@nobody")
    with pytest.raises(TrackingError, match="holds no model 'q'; it has: m"):
        registry.find("q@champion")
    with pytest.raises(UsageError, match="expected NAME@ALIAS or NAME/VERSION"):
        registry.find("m/x")
    assert registry.champion("q") is None


def test_the_only_name(registry: Registry, made_up: Path) -> None:
    with pytest.raises(TrackingError, match="holds no model; make one with: svae run"):
        registry.only_name()
    run = registry.store.start_run("made up", params={}, tags={})
    registry.register("a", run_id=run, folder=made_up, tags={DIGEST: "d"})
    assert registry.only_name() == "a"
    registry.register("b", run_id=run, folder=made_up, tags={DIGEST: "d"})
    with pytest.raises(UsageError, match="which model\\? name one of a, b"):
        registry.only_name()


def test_download_is_found_from_another_folder(registry: Registry, three: list[Version], home: Path) -> None:
    registry.promote(three[0], "first", verify=no_check)
    folder = connect(home).download("models:/m@champion")
    assert (folder / "weights").read_text() == "w"
    assert connect(home).download("models:/m/1") == folder
    by_run = connect(home).download(f"runs:/{three[0].run_id}/model")
    assert (by_run / "weights").read_text() == "w"
    with pytest.raises(TrackingError):
        registry.download(f"runs:/{three[0].run_id}/nothing")


PROMOTE = """
import sys
from flows.registry import Registry
from flows.settings import load_tracking
from flows.tracking import Store
registry = Registry(Store(load_tracking(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
number = sys.argv[2]
registry.promote(registry.find(f"m/{number}"), f"by {number}", verify=lambda version: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moving", [False, True], ids=["before", "in mid-move"])
def test_a_promotion_waits_for_a_database_that_is_locked(
    moving: bool,
    registry: Registry,
    three: list[Version],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.promote(three[0], "first", verify=no_check)
    other = sqlite3.connect(home / "mlflow.db", check_same_thread=False)
    back = threading.Timer(6, other.rollback)  # longer than SQLite's driver waits by itself
    set_alias = registry.client.set_registered_model_alias

    def lock() -> None:
        other.execute("BEGIN EXCLUSIVE")
        back.start()

    def locked_once(*arguments: str) -> None:
        if back.ident is None:
            lock()
        set_alias(*arguments)

    if moving:
        monkeypatch.setattr(registry.client, "set_registered_model_alias", locked_once)
    else:
        lock()
    began = time.monotonic()
    with contextlib.closing(other):
        assert registry.promote(three[1], "second", verify=no_check, expected=three[0])
        back.join()
    assert time.monotonic() - began > 5
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert registry.find("m").tags["svae.verdict"] == "promoted: second"
    assert MOVE not in registry.client.get_registered_model("m").tags


@pytest.mark.slow
def test_processes_that_promote_at_once(
    registry: Registry,
    three: list[Version],
    home: Path,
    start_python: Callable[..., subprocess.Popen[str]],
    finish_python: Callable[..., list[str]],
) -> None:
    workers = [start_python(PROMOTE, home, three[k % len(three)].version) for k in range(8)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    finish_python(*workers)
    now = aliases(registry)
    assert set(now) == {"champion", "previous"}
    assert now["champion"] != now["previous"]
    assert all(v.tags["svae.verdict"] == f"promoted: by {v.version}" for v in registry.versions("m"))
