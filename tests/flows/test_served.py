"""The registered model as MLflow loads and serves it: signature, frames, codes, reconstructions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.ingest import Dataset, ingest
from flows.registry import Registry
from flows.reload import Card, load, pack, verify_reload, wire_in
from flows.settings import load_tracking
from flows.tracking import Store
from flows.versions import DIGEST
from vae import codes, pipeline, store
from vae.frames import Wire, frame_of
from vae.settings import ModelSettings, TrainSettings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(flights: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return ingest(flights, tmp_path_factory.mktemp("served") / "dataset")


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Path:
    shape = ModelSettings(latents=8, width=8, encoder_width=32, encoder_depth=1)
    # Long enough that some latents are used, or equal codes would say nothing.
    training = TrainSettings(steps=150, batch_rows=512, threads=1)
    out = dataset.path.parent / "model"
    trained = pipeline.fit(dataset.table(), dataset.schema, model=shape, training=training, out=out)
    assert (codes.encode_rows(trained, dataset.table()) != 0).any()
    return out


@pytest.fixture(scope="module")
def packed(dataset: Dataset, model: Path) -> Path:
    digest = store.load(model).digest
    target = dataset.path.parent / "packed"
    return pack(target, model=model, dataset=dataset, digest=digest, card=Card(specs=(), bounds={}))


@pytest.fixture(scope="module")
def served(packed: Path) -> Any:
    before = list(sys.path)
    try:
        return load(packed)
    finally:
        sys.path[:] = before


@pytest.fixture(scope="module")
def wire(packed: Path) -> dict[str, Wire]:
    return wire_in(packed)


def codes_of(model: Path, table: pa.Table) -> list[dict[str, Any]]:
    trained = store.load(model)
    return codes.sparse_table(codes.encode_rows(trained, table)).to_pylist()


def with_nulls(table: pa.Table, wire: dict[str, Wire]) -> pa.Table:
    """One row for each column that may be null, in which it is."""
    names = [name for name, way in wire.items() if way.optional]
    rows = table.slice(100, len(names))
    for index, name in enumerate(names):
        place = rows.schema.get_field_index(name)
        hidden = pa.array([i == index for i in range(rows.num_rows)])
        column = pa.compute.if_else(hidden, pa.scalar(None, rows.schema.field(name).type), rows[name])  # type: ignore[attr-defined]
        rows = rows.set_column(place, rows.schema.field(name), column)
    return rows


def test_signature_of_flights(wire: dict[str, Wire], served: Any) -> None:
    kinds = {name: way.type for name, way in wire.items()}
    assert kinds["year"] == "long"
    assert kinds["dep_time"] == "double"
    assert kinds["carrier"] == "string"
    assert kinds["time_hour"] == "string"
    nullable = {name for name, way in wire.items() if way.optional}
    assert nullable == {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
    inputs = served.metadata.signature.inputs
    assert set(inputs.required_input_names()) == {name for name, way in wire.items() if not way.optional}
    assert served.metadata.signature.params.params[0].name == "output"


def test_codes_are_those_of_the_command(
    served: Any, model: Path, dataset: Dataset, wire: dict[str, Wire]
) -> None:
    table = dataset.table(rows=slice(0, 1000))
    found = served.predict(frame_of(table, wire))
    assert list(found.columns) == ["row", "indices", "values"]
    assert pa.Table.from_pandas(found, preserve_index=False).to_pylist() == codes_of(model, table)


def test_rows_with_nulls(served: Any, model: Path, dataset: Dataset, wire: dict[str, Wire]) -> None:
    table = with_nulls(dataset.table(), wire)
    assert table.num_rows >= 5
    found = served.predict(frame_of(table, wire))
    assert pa.Table.from_pandas(found, preserve_index=False).to_pylist() == codes_of(model, table)


def test_a_nullable_column_may_be_left_out(
    served: Any, model: Path, dataset: Dataset, wire: dict[str, Wire]
) -> None:
    table = dataset.table(rows=slice(0, 50))
    place = table.schema.get_field_index("air_time")
    absent = table.set_column(place, table.schema.field(place), pa.nulls(50, pa.int64()))
    found = served.predict(frame_of(table, wire).drop(columns="air_time"))
    assert pa.Table.from_pandas(found, preserve_index=False).to_pylist() == codes_of(model, absent)


def test_reconstructions(served: Any, model: Path, dataset: Dataset, wire: dict[str, Wire]) -> None:
    table = dataset.table(rows=slice(0, 200))
    found = served.predict(frame_of(table, wire), params={"output": "reconstructions"})
    trained = store.load(model)
    expected = codes.rows_from_codes(trained, codes.encode_rows(trained, table)).to_pandas()
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(ValueError, match="output 'nonsense': expected 'codes' or 'reconstructions'"):
        served.predict(frame_of(table, wire), params={"output": "nonsense"})


def test_a_wrong_cell_is_named(served: Any, dataset: Dataset, wire: dict[str, Wire]) -> None:
    frame = frame_of(dataset.table(rows=slice(0, 3)), wire)
    frame["time_hour"] = ["2013-01-01T05:00:00Z", "yesterday", "2013-01-01T05:00:00Z"]
    with pytest.raises(ValueError, match="column 'time_hour': .*yesterday"):
        served.predict(frame)


def as_read(source: Path) -> dict[str, tuple[pd.DataFrame, int]]:
    """The first rows as pandas reads them, in the ways that people do; and how many."""
    whole = pd.read_csv(source)
    masked = pd.read_csv(source, nrows=900, dtype_backend="numpy_nullable", parse_dates=["time_hour"])
    parquet = source.with_name("rows.parquet")
    masked.to_parquet(parquet)
    return {
        "few, so that columns have no nulls": (pd.read_csv(source, nrows=500), 500),
        "slice": (whole[500:1500], 1000),
        "parsed times": (pd.read_csv(source, nrows=500, parse_dates=["time_hour"]), 500),
        "masked": (masked, 900),
        "arrow": (pd.read_csv(source, nrows=900, dtype_backend="pyarrow"), 900),
        "written and read": (pd.read_parquet(parquet), 900),
        "narrow": (pd.read_csv(source, nrows=500).astype({"year": "int16", "dep_time": "float32"}), 500),
        "objects": (pd.read_csv(source, nrows=500, parse_dates=["time_hour"]).astype(object), 500),
        "categories": (pd.read_csv(source, nrows=500).astype({"carrier": "category", "hour": "category"}), 500),
        "texts": (pd.read_csv(source, nrows=500, dtype=str), 500),
    }  # fmt: skip


def test_frames_as_pandas_reads_them(served: Any, model: Path, dataset: Dataset, flights: Path) -> None:
    conform = served.unwrap_python_model().conform
    for name, (frame, rows) in as_read(flights).items():
        table = dataset.table(rows=slice(500, 1500) if name == "slice" else slice(0, rows))
        for found in (served.predict(conform(frame)), served.unwrap_python_model().predict(None, frame)):
            got = pa.Table.from_pandas(found, preserve_index=False).to_pylist()
            assert got == codes_of(model, table), name


def test_our_own_parts(served: Any, model: Path, dataset: Dataset) -> None:
    part = min(dataset.path.rglob("*.parquet"))
    found = served.predict(served.unwrap_python_model().conform(pd.read_parquet(part)))
    assert pa.Table.from_pandas(found, preserve_index=False).to_pylist() == codes_of(model, dataset.table())


def test_readme(
    home: Path,
    packed: Path,
    model: Path,
    dataset: Dataset,
    flights: Path,
    start_python: Callable[..., Any],
    finish_python: Callable[..., list[str]],
) -> None:
    """What the README says of frames runs as it stands there, beside a store that has a champion."""
    registry = Registry(Store(load_tracking(home)))
    run = registry.store.start_run("readme", params={}, tags={})
    version = registry.register("flights", run_id=run, folder=packed, tags={DIGEST: store.load(model).digest})
    registry.promote(version, "first", verify=lambda version: verify_reload(registry, version))
    (home / "exports").mkdir()
    shutil.copy(flights, home / "exports" / "new.csv")
    shutil.copytree(dataset.path, home / "svae-runs" / "flights" / "dataset")
    (snippet,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
        if "mlflow" in text
    )
    shown = """
found = [codes.to_dict("records"), codes_of_part.to_dict("records"), list(rows), json.loads(body)]
print(json.dumps(found, default=lambda values: values.tolist()))
"""
    code = f"import json, os, sys; os.chdir(sys.argv[1])\n{snippet}{shown}"
    (out,) = finish_python(start_python(code, home))
    some, whole, names, body = json.loads(out.splitlines()[-1])
    assert some == codes_of(model, dataset.table(rows=slice(0, 500)))
    assert whole == codes_of(model, dataset.table())
    assert names == dataset.schema.names
    assert list(body) == ["dataframe_split"]
    assert len(body["dataframe_split"]["data"]) == 500


def test_columns_that_are_missing_or_of_another_kind(
    served: Any, model: Path, dataset: Dataset, flights: Path
) -> None:
    frame = pd.read_csv(flights, nrows=50)
    conform = served.unwrap_python_model().conform
    with pytest.raises(
        ValueError, match="column 'year' is missing; only those that had nulls in training may"
    ):
        conform(frame.drop(columns="year"))
    with pytest.raises(ValueError, match="column 'year': a value is missing, and in training none ever was"):
        conform(frame.assign(year=frame["year"].where(frame.index != 3)))
    with pytest.raises(ValueError, match="column 'carrier': has numbers .* read it as text"):
        conform(frame.assign(carrier=1))
    assert (
        not conform(frame.drop(columns="air_time"))
        .columns.symmetric_difference(frame.columns.drop("air_time"))
        .size
    )
    absent = dataset.table(rows=slice(0, 50))
    place = absent.schema.get_field_index("air_time")
    absent = absent.set_column(place, absent.schema.field(place), pa.nulls(50, pa.int64()))
    found = served.predict(conform(frame.drop(columns="air_time")))
    assert pa.Table.from_pandas(found, preserve_index=False).to_pylist() == codes_of(model, absent)


@pytest.fixture
def server(packed: Path, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` of the packed model, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(packed), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Nothing of ours is on its path: the version carries its code.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"  # it calls uvicorn by name
    )
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            command, cwd=tmp_path, env=variables, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 180
            while not answers(url + "/ping"):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)
            yield url
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310
            return True
    except (OSError, urllib.error.URLError):
        return False


def post(url: str, body: str) -> list[dict[str, Any]]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + "/invocations", body.encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        return json.load(answer)["predictions"]


@pytest.mark.slow
def test_a_served_model_gives_the_same_codes(
    server: str, served: Any, model: Path, dataset: Dataset, wire: dict[str, Wire], flights: Path
) -> None:
    request = served.unwrap_python_model().request
    for table in (dataset.table(rows=slice(0, 1000)), with_nulls(dataset.table(), wire)):
        assert post(server, request(frame_of(table, wire))) == codes_of(model, table)
    table = dataset.table(rows=slice(0, 20))
    for name, (frame, rows) in as_read(flights).items():
        expected = dataset.table(rows=slice(500, 1500) if name == "slice" else slice(0, rows))
        assert post(server, request(frame)) == codes_of(model, expected), name
    rebuilt = post(server, request(frame_of(table, wire), params={"output": "reconstructions"}))
    assert set(rebuilt[0]) == set(table.column_names)


def test_the_packed_model_is_whole(packed: Path, model: Path) -> None:
    inside = packed / "artifacts" / "model"
    assert store.load(inside).digest == store.load(model).digest
    names = {path.name for path in (packed / "code").iterdir()}
    assert names == {"data", "vae"}
    assert not list(packed.rglob("*.pyc"))
    requirements = (packed / "requirements.txt").read_text()
    assert "torch==2.13" in requirements
    assert "prefect" not in requirements
    rows = pq.read_table(packed / "artifacts" / "card" / "check-rows.parquet")
    assert rows.num_rows == 64
