"""Texts, the whole way: a file of lines ingested, learnt, coded, archived, evaluated, registered, and new ones said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import vae
from tests.flows.test_end_to_end import REPOSITORY, svae, variables  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

PIPELINE = (
    "model: {latents: 4, width: 24, encoder_width: 16}\ntrain: {steps: 200, batch_rows: 32, threads: 1}\n"
)
LINES = 500
WHO, WHAT, WHERE = (
    ("the old king", "a farmer", "her ship"),
    ("sleeps", "came home"),
    ("by the sea", "at the gate"),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with settings, and a file of sentences, some numbered, so that most differ."""
    folder = tmp_path / "project"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = [
        f"{WHO[random.integers(3)]} {WHAT[random.integers(2)]} {WHERE[random.integers(2)]}, "
        f"{random.integers(9_999)} times"
        for _ in range(LINES)
    ]
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    shutil.copy(REPOSITORY / "mlflow.yml", folder / "mlflow.yml")
    (folder / "pipeline.yml").write_text(PIPELINE)
    return folder


def test_a_file_of_texts_goes_all_the_way(project: Path, variables: dict[str, str]) -> None:  # noqa: F811
    made = svae(["run", "--dataset", "lines.txt"], project, variables)
    assert made["version"]["is_new"]
    assert made["evaluation"]["codes_only"]["score"] > 0
    run = project / "svae-runs" / "lines"
    page = (run / "report.html").read_text()
    assert "code alone" in page
    with vae.open(run / "lines.svae") as archive:
        assert archive.rows == LINES
        assert archive.schema.names == ["text"]
    svae(["decompress", str(run / "lines.svae"), "-o", "again.txt"], project, variables)
    assert (project / "again.txt").read_bytes() == (project / "lines.txt").read_bytes()

    champion = ["--model", "models:/lines@champion"]
    svae(["codes", "lines.txt", *champion, "-o", "codes.parquet"], project, variables)
    svae(["decode", "codes.parquet", *champion, "-o", "guessed.parquet"], project, variables)
    assert pq.read_table(project / "guessed.parquet").column("text").null_count == 0

    svae(["sample", *champion, "-n", "20", "-o", "new.txt"], project, variables)
    assert len((project / "new.txt").read_text().splitlines()) == 20
