"""A model as an MLflow model: packed from safetensors and code, and reloaded to see that it does the same."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import ModelError
from data.ingest import Dataset
from data.manifest import MANIFEST_NAME, Manifest
from flows import provenance, signature
from flows.cache import SOURCES
from flows.registry import Registry
from flows.versions import Version
from vae.frames import Wire, frame_of
from vae.settings import Settings

CHECK_ROWS = 64
REQUIREMENTS = (
    "torch",
    "numpy",
    "numba",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "xxhash",
    "mlflow",
)
WIRE_NAME, BOUNDS_NAME, ROWS_NAME, CODES_NAME = (
    "wire.json",
    "bounds.json",
    "check-rows.parquet",
    "check-codes.parquet",
)


class Card(Settings):
    """What a version says of its error bounds."""

    specs: tuple[str, ...]
    """As written (`data.bounds.written_bounds`)."""
    bounds: dict[str, float]
    """Absolute widths, by column."""


def pack(target: Path, *, model: Path, dataset: Dataset, digest: str, card: Card) -> Path:
    """Write the MLflow model `target`: the model's files, how rows travel to it, and rows with their codes.

    Nothing is pickled: the code is `flows.served` and the packages `data` and `vae`, copied; the state is safetensors
    and JSON. The rows are there to be coded again whenever the version is about to be promoted.
    """
    import mlflow.pyfunc

    from vae import codes, store

    wire = signature.wire_of(dataset.schema, dataset.stats)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        beside = Path(scratch) / "card"
        beside.mkdir()
        (beside / WIRE_NAME).write_text(
            json.dumps({name: way.model_dump() for name, way in wire.items()}), encoding="utf-8"
        )
        (beside / BOUNDS_NAME).write_text(card.model_dump_json(), encoding="utf-8")
        shutil.copy(dataset.path / MANIFEST_NAME, beside / MANIFEST_NAME)
        rows = dataset.table(rows=slice(0, CHECK_ROWS))
        pq.write_table(rows, beside / ROWS_NAME)
        pq.write_table(codes.sparse_table(codes.encode_rows(store.load(model), rows)), beside / CODES_NAME)
        # Its advice, an input example, would put rows into the signature's place and run the model once more.
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        mlflow.pyfunc.save_model(
            str(target),
            python_model=str(Path(__file__).with_name("served.py")),
            artifacts={"model": str(model), "card": str(beside)},
            code_paths=[str(source) for source in SOURCES],
            pip_requirements=provenance.pinned(*REQUIREMENTS),
            signature=signature.build_signature(wire),
            metadata={"model_digest": digest, "dataset_digest": dataset.manifest.digest},
        )
    return target


def model_folder(mlflow_model: Path) -> Path:
    """The model's own files in an MLflow model: what `vae.store.load` reads, past any code."""
    folder = mlflow_model / "artifacts" / "model"
    if not folder.is_dir():
        raise ModelError(f"{mlflow_model}: not a model of this program (no artifacts/model in it)")
    return folder


def manifest_of(mlflow_model: Path) -> Manifest:
    """The manifest of the dataset that the model was trained on."""
    return Manifest.read(mlflow_model / "artifacts" / "card")


def bounds_of(mlflow_model: Path) -> tuple[tuple[str, ...], dict[str, float]]:
    """The error bounds that a logged model was trained for: as written, and absolute."""
    card = Card.model_validate_json((mlflow_model / "artifacts" / "card" / BOUNDS_NAME).read_bytes())
    return card.specs, card.bounds


def wire_in(mlflow_model: Path) -> dict[str, Wire]:
    """How rows travel to a logged model."""
    content = json.loads((mlflow_model / "artifacts" / "card" / WIRE_NAME).read_text(encoding="utf-8"))
    return {name: Wire.model_validate(way) for name, way in content.items()}


def verify_reload(registry: Registry, version: Version) -> None:
    """Load a version as its users will, and code the rows that lie beside it once more.

    Raises:
        ModelError: it does not load, or gives other codes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = registry.fetch(version, Path(scratch) / "version")
        card = folder / "artifacts" / "card"
        try:
            rows, expected = pq.read_table(card / ROWS_NAME), pq.read_table(card / CODES_NAME)
            with _own_path():
                found = load(folder).predict(frame_of(rows, wire_in(folder)))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{version.uri} does not load from the registry ({reason}); it was not promoted"
            ) from error
    got = pa.Table.from_pandas(found, schema=expected.schema, preserve_index=False)
    if not got.equals(expected):
        raise ModelError(
            f"{version.uri}, reloaded from the registry, gives other codes than when it was made; it was not promoted"
        )


def load(folder: Path) -> Any:
    """An MLflow model on disk."""
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder))


@contextlib.contextmanager
def _own_path() -> Iterator[None]:
    """MLflow puts a version's code in front of the module path; it shall not stay there."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
