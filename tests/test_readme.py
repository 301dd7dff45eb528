"""The README's commands exist as they stand there, with every option, and so do the files that it links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(
    r"^svae .*$", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)), re.MULTILINE
)


@pytest.mark.parametrize("line", COMMANDS)
def test_command_exists_with_its_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= known


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 8


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([^):#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_opens_with_what_it_is_for_and_two_commands() -> None:
    opening = README.split("## ")[0]
    assert "make run" in opening
    assert "make test" in opening
