"""A registered model is read from safetensors and JSON: code and pickles that lie beside them are never run."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from data.ingest import ingest
from flows.registry import Registry
from flows.reload import Card, pack
from flows.settings import load_tracking
from flows.tracking import Store
from flows.versions import DIGEST
from vae import store
from vae.codec import archive

IN_TURN = (
    "import json, sys; from flows.cli import run; print([run(call) for call in json.loads(sys.argv[1])])"
)
LOAD = "import mlflow.pyfunc, sys; mlflow.pyfunc.load_model(sys.argv[1])"


class Trap:
    """Whoever unpickles it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (code_that_marks(self.mark),)


def code_that_marks(mark: Path) -> str:
    return f"open({str(mark)!r}, 'a').write('run')\nraise RuntimeError('code of a model was run')\n"


def from_code(folder: Path, mark: Path) -> None:
    """All Python in the version is a trap, its copies of our packages too."""
    for path in folder.rglob("*.py"):
        path.write_text(code_that_marks(mark))


def from_pickle(folder: Path, mark: Path) -> None:
    """The version says that its model is a pickle, and there are more of them."""
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    flavor = content["flavors"]["python_function"]
    for key in ("code", "model_code_path"):
        flavor.pop(key)
    path.write_text(yaml.safe_dump({**content, "flavors": {"python_function": flavor | PICKLED}}))
    for name in ("python_model.pkl", "artifacts/model/000000002.ckpt", "artifacts/model/weights.pt"):
        (folder / name).write_bytes(pickle.dumps(Trap(mark)))


def by_a_loader(folder: Path, mark: Path) -> None:
    """The version names a module of its own that loads it."""
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    loader = {"loader_module": "own_loader", "code": "code", "data": "artifacts"}
    path.write_text(yaml.safe_dump({**content, "flavors": {"python_function": loader}}))
    (folder / "code" / "own_loader.py").write_text(code_that_marks(mark))


PICKLED = {"python_model": "python_model.pkl", "cloudpickle_version": "3.1.1"}


@pytest.mark.slow
@pytest.mark.parametrize("trap", [from_code, from_pickle, by_a_loader])
def test_code_beside_a_registered_model_is_never_run(
    trap: Callable[[Path, Path], None],
    good: Path,
    home: Path,
    tmp_path: Path,
    start_python: Callable[..., subprocess.Popen[str]],
    finish_python: Callable[..., list[str]],
) -> None:
    mark, table, model = tmp_path / "mark", good / "t.csv", good / "model"
    digest = store.load(model).digest
    dataset = ingest(table, tmp_path / "dataset")
    packed = pack(
        tmp_path / "packed", model=model, dataset=dataset, digest=digest, card=Card(specs=(), bounds={})
    )
    trap(packed, mark)
    registry = Registry(Store(load_tracking(home)))
    run = registry.store.start_run("made elsewhere", params={}, tags={})
    registry.register("m", run_id=run, folder=packed, tags={DIGEST: digest})

    named = ["--model", "models:/m/1", "--config", str(home)]
    made = [tmp_path / f"made.{ending}" for ending in ("svae", "parquet", "csv")]
    calls = [
        ["compress", str(table), "-o", str(made[0]), *named],
        ["codes", str(table), "-o", str(made[1]), *named],
        ["decode", str(made[1]), "-o", str(made[2]), *named],
    ]
    (out,) = finish_python(start_python(IN_TURN, json.dumps(calls)))

    assert out.splitlines()[-1] == "[0, 0, 0]"
    assert not mark.exists()
    with archive.open(made[0]) as opened:
        assert opened.read().equals(dataset.table())
    assert pq.read_metadata(made[1]).num_rows == dataset.rows
    # The trap is one: whoever loads the version as MLflow does falls into it.
    loaded = start_python(LOAD, registry.download("models:/m/1"))
    _, err = loaded.communicate(timeout=120)
    assert "code of a model was run" in err
    assert mark.exists()
