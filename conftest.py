"""The examples in docstrings and documents run in a folder of their own, where `flights.svae` is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

FLIGHTS = Path(__file__).parent / "tests" / "fixtures" / "flights-2000-v1.svae"


@pytest.fixture(autouse=True)
def _examples_have_an_archive(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        folder: Path = request.getfixturevalue("tmp_path")
        shutil.copy(FLIGHTS, folder / "flights.svae")
        request.getfixturevalue("monkeypatch").chdir(folder)
