"""Images, the whole way: a folder of PNG files ingested, learnt, coded, archived, evaluated, registered, drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vae
from tests.flows.test_end_to_end import REPOSITORY, svae, variables  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

PIPELINE = "model: {latents: 4, width: 8}\ntrain: {steps: 120, batch_rows: 64, threads: 1}\n"
COUNT, SIDE = 400, 12


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with settings, and squares of two colours, some large and some small."""
    folder = tmp_path / "project"
    random = np.random.default_rng(0)
    for k in range(COUNT):
        image = np.full((SIDE, SIDE, 3), 20, np.uint8)
        size, at = 3 + 3 * (k % 2), random.integers(0, SIDE - 6, 2)
        image[at[0] : at[0] + size, at[1] : at[1] + size, k % 3] = 160 + random.integers(0, 16, (size, size))
        path = folder / "squares" / ("large" if k % 2 else "small") / f"{k:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    shutil.copy(REPOSITORY / "mlflow.yml", folder / "mlflow.yml")
    (folder / "pipeline.yml").write_text(PIPELINE)
    return folder


def test_a_folder_of_images_goes_all_the_way(project: Path, variables: dict[str, str]) -> None:  # noqa: F811
    made = svae(["run", "--dataset", "squares/"], project, variables)
    assert made["version"]["is_new"]
    run = project / "svae-runs" / "squares"
    page = (run / "report.html").read_text()
    assert "image, from top to bottom: original, code alone" in page
    with vae.open(run / "squares.svae") as archive:
        assert archive.rows == COUNT
        assert archive.schema.names == ["file", "image", "label"]

    champion = ["--model", "models:/squares@champion"]
    svae(["codes", "squares/", *champion, "-o", "codes.parquet"], project, variables)
    svae(["decode", "codes.parquet", *champion, "-o", "guessed.parquet"], project, variables)
    assert pq.read_table(project / "guessed.parquet").column("image").null_count == 0

    svae(["sample", *champion, "-n", "30", "-o", "grid.png"], project, variables)
    between = ["--between", "0:9", "--data", "squares/"]
    svae(["sample", *champion, *between, "-n", "5", "-o", "way.png"], project, variables)
    with Image.open(project / "grid.png") as grid, Image.open(project / "way.png") as way:
        assert grid.width > grid.height  # six images by five
        assert way.width > 4 * way.height

    bounded = svae(
        ["compress", "squares/", "-o", "near.svae", "--bound", "image=4", "--steps", "120"],
        project,
        variables,
    )
    image = next(column for column in bounded["per_column"] if column["name"] == "image")
    assert (image["bound"], image["max_error"] <= 4) == (4, True)
    svae(["decompress", str(run / "squares.svae"), "-o", "back"], project, variables)
    for path in (project / "squares").rglob("*.png"):
        again = project / "back" / path.relative_to(project / "squares")
        with Image.open(path) as before, Image.open(again) as after:
            assert before.mode == after.mode
            assert np.array_equal(np.asarray(before), np.asarray(after))
