"""Commands under `--json` that fail, or go on: one object on standard output whatever happens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from flows import deployments, server
from flows.cli import run
from vae.codec import archive


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["inspect", "no.svae"], 1, "no.svae: cannot be opened: No such file or directory"),
        (["train", "no.csv", "-o", "model"], 1, "no.csv: there is no such file"),
        (["codes", "a", "--model", "m", "-o", "c.csv"], 2, "c.csv: the name must end in .parquet"),
        (["compress"], 2, "Missing argument 'source'. (see: svae compress --help)"),
        (["models"], 2, "No such option: --json (see: svae models --help)"),
        (["rn"], 2, "No such command 'rn'. Did you mean 'run'? (see: svae --help)"),
    ],
)
def test_a_failure_is_an_object_with_json(
    arguments: list[str], status: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--json"]) == status
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    told = json.loads(out)
    assert told["status"] == status
    assert told["error"].startswith(message)
    assert err == f"svae: {told['error']}\n"
    assert list(Path().iterdir()) == []


def test_interrupted_with_json(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "open", interrupt)
    assert run(["verify", "t.svae", "--json"]) == 130
    assert capfd.readouterr() == ('{"error": "interrupted", "status": 130}\n', "svae: interrupted\n")


def test_serving_with_json_is_one_object_whatever_comes_after(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "prefect.yaml").write_text("deployments: [{name: back, entrypoint: flows.rollback.rollback}]\n")
    url = "http://127.0.0.1:4200/api"

    def serve(*_: object, on_begin: Callable[[list[str]], None], **__: object) -> None:
        on_begin(["rollback/back"])
        os.write(1, b"a run says something\n")  # whoever prints it, a library or a process
        raise server.ServerError("the server is gone")

    monkeypatch.setattr(server, "use_local_state", lambda _: None)
    monkeypatch.setattr(server, "lasting_server", lambda *_, **__: nullcontext(url))
    monkeypatch.setattr(deployments, "serve", serve)
    assert run(["serve", "--config", str(home), "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out) == {
        "url": "http://127.0.0.1:4200",
        "api_url": url,
        "state": str(home / ".svae"),
        "deployments": ["rollback/back"],
    }
    assert err.splitlines()[-2:] == ["a run says something", "svae: the server is gone"]
    assert run(["serve", "--config", str(home)]) == 1
    assert "being served until Ctrl-C: rollback/back\n" in capfd.readouterr().out
