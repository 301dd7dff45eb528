"""A real model, trained in a process that is killed, ends with the digest of one that was left in peace."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.schema import Schema
from vae import pipeline
from vae.settings import Codes, ModelSettings, TrainSettings
from vae.store import TrainedModel, load

SETTINGS = ModelSettings(latents=6, width=8, encoder_width=32, encoder_depth=1, codes=Codes.rich)
TRAINING = TrainSettings(steps=200, batch_rows=256, threads=1)

SCRIPT = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from data.schema import Schema
from vae import pipeline
from vae.settings import ModelSettings, TrainSettings
table = pq.read_table(sys.argv[1])
pipeline.fit(
    table, Schema.from_arrow(table.schema), model=ModelSettings.model_validate_json(sys.argv[3]),
    training=TrainSettings.model_validate_json(sys.argv[4]), out=Path(sys.argv[2]),
    on_progress=lambda state: print(state["step"], flush=True),
)
"""


def fit(table: pa.Table, out: Path, **more: Any) -> TrainedModel:
    schema = Schema.from_arrow(table.schema)
    return pipeline.fit(table, schema, model=SETTINGS, training=TRAINING, out=out, **more)


def kill_at(step: int, table: Path, out: Path) -> None:
    settings = [SETTINGS.model_dump_json(), TRAINING.model_dump_json()]
    command = [sys.executable, "-c", SCRIPT, str(table), str(out), *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= step:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def table(mixed: Callable[..., pa.Table]) -> pa.Table:
    """With a column that follows from the row above, so that the model has all its parts."""
    rows = mixed()
    walk = np.cumsum(np.random.default_rng(1).integers(-1, 2, rows.num_rows))
    return rows.append_column("walk", pa.array(walk))


@pytest.fixture(scope="module")
def undisturbed(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    folder = tmp_path_factory.mktemp("undisturbed")
    trained = fit(table, folder / "model")
    assert [path.name for path in folder.iterdir()] == ["model"]
    plan = trained.layout.plan
    assert plan.direct
    assert plan.above
    assert plan.deep
    return trained


@pytest.mark.slow
def test_killed_and_run_again_it_has_the_same_digest(
    table: pa.Table, undisturbed: TrainedModel, tmp_path: Path
) -> None:
    pq.write_table(table, tmp_path / "table.parquet")
    out = tmp_path / "model"
    for step in (50, 155):  # once in the joint phase, once in the refit
        kill_at(step, tmp_path / "table.parquet", out)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".model.training", "table.parquet"]
    steps: list[int] = []
    resumed = fit(
        pq.read_table(tmp_path / "table.parquet"), out, on_progress=lambda s: steps.append(s["step"])
    )
    assert 140 < steps[0] <= 161
    assert resumed.digest == undisturbed.digest == load(out).digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "table.parquet"]


class StopTrainingError(Exception):
    """Ends a training from its progress callback."""


def test_checkpoints_of_other_data_are_not_used(
    table: pa.Table, undisturbed: TrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(state: dict[str, Any]) -> None:
        if state["step"] >= 60:
            raise StopTrainingError

    with pytest.raises(StopTrainingError):
        fit(table.slice(10), tmp_path / "model", on_progress=stop)
    steps: list[int] = []
    trained = fit(table, tmp_path / "model", on_progress=lambda state: steps.append(state["step"]))
    assert steps[0] == 1
    assert trained.digest == undisturbed.digest
    assert "is of other data, settings or code and is not used" in caplog.messages[0]
