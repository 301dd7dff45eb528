"""Rows to sparse codes and back: what the code alone says of a row, and codes as a Parquet file.

A code is a row of small integers, most of them exactly zero; of the `gaussian` family, the posterior's mean in steps of
half a standard deviation of the prior.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc
import pyarrow.parquet as _pq
import torch
from numpy.typing import NDArray

from data.atomic import atomic_path
from data.errors import ModelError, SchemaError, SourceError
from data.grid import Coded, State
from data.largetable import AnyTable
from data.onehot import encode_table
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codec.plan import Plan
from vae.codec.structure import Cells
from vae.codes_only import Guess
from vae.features import block, read_grid
from vae.images import ImageVAE
from vae.model import SparseVAE
from vae.store import TrainedModel
from vae.texts import TextVAE

pc, pq = cast(Any, _pc), cast(Any, _pq)

ENCODE_ROWS = 1_024
"""Rows of the one shape in which rows are encoded, padded if there are fewer: how a matrix product adds up depends on
its shape, and a row's code must not depend on its neighbours."""
ENCODE_VALUES = 1 << 18
"""Values of the images that are encoded at once, about."""
ENCODE_PIECES = 1 << 13
"""Pieces of the texts that are: one text takes as long as so many."""
PART_ROWS = 1 << 18
"""Rows whose symbols are in memory at once."""
DECODE_ROWS = 16_384
MOST_LATENTS = 256
MODEL_KEY, LATENTS_KEY, FAMILY_KEY = b"svae.model", b"svae.latents", b"svae.family"

Codes = NDArray[np.int8]
Progress = Callable[[int, int], None]
"""Takes the rows done and all there are, after each batch."""


class CodesFile(NamedTuple):
    """What a file of codes holds."""

    codes: Codes
    """[rows, latents]"""
    model: str
    """Digest of the model that made them."""


def encode_rows(trained: TrainedModel, table: AnyTable, on_progress: Progress | None = None) -> Codes:
    """The sparse codes of a table's rows, [rows, latents], each a function of its own row alone.

    Raises:
        SchemaError: A column that the model reads is missing or of another type.
    """
    rows = table.num_rows
    codes = np.zeros((rows, trained.layout.plan.latents), np.int8)
    size = max(ENCODE_ROWS, PART_ROWS // _values(trained))
    for start in range(0, max(1, rows), size):
        coded = coded_columns(trained, table.slice(start, size))
        told = None if on_progress is None else functools.partial(_told, on_progress, start, rows)
        codes[start : start + size] = encode_symbols(trained, *block(coded, trained.layout.plan.names), told)
    return codes


def _values(trained: TrainedModel) -> int:
    """Values of what the model codes in a row, where that is an image or a text; else 1."""
    module = trained.module
    if isinstance(module, TextVAE):
        return module.layout.plan.pieces
    return module.layout.plan.pixels if isinstance(module, ImageVAE) else 1


def _told(on_progress: Progress, start: int, rows: int, done: int, _: int) -> None:
    on_progress(start + done, rows)


def coded_columns(trained: TrainedModel, table: pa.Table) -> dict[str, Coded]:
    """The columns and one-hot groups that the model reads, on the model's grid."""
    grid = read_grid(trained.grid, trained.layout.plan.names)
    return encode_table(grid, lambda name: _column(trained, table, name))


def encode_size(trained: TrainedModel) -> int:
    """Rows of the one shape in which this model encodes; fewer of large images and long texts."""
    most = ENCODE_PIECES if isinstance(trained.module, TextVAE) else ENCODE_VALUES
    return max(1, min(ENCODE_ROWS, most // _values(trained)))


def encode_symbols(
    trained: TrainedModel,
    symbols: NDArray[np.int64],
    states: NDArray[np.uint8],
    on_progress: Progress | None = None,
) -> Codes:
    """The codes of rows on the model's grid; symbols and states are [rows, columns of the plan]."""
    rows, latents = len(symbols), trained.layout.plan.latents
    codes = np.zeros((rows, latents), np.int8)
    if not latents:
        return codes
    size = encode_size(trained)
    parts = [slice(start, min(rows, start + size)) for start in range(0, rows, size)]

    def encoded(part: slice) -> Codes:
        return _encode_part(trained, trained.module.view(symbols[part], states[part]))

    for part, found in zip(parts, _encoders().map(encoded, parts), strict=True):
        codes[part] = found
        if on_progress is not None:
            on_progress(part.stop, rows)
    return codes


_one_at_a_time = threading.Lock()
_kept: list[ThreadPoolExecutor] = []


def _encoders() -> ThreadPoolExecutor:
    """As many threads as torch has, in each of which its operations have one: so codes do not depend on that number.

    A batch is too small to be shared out: two threads that wait for each other take three to four times the processor
    time of one. They are kept, for torch's number of threads is that of all threads yet to begin: it is changed once.
    """
    with _one_at_a_time:
        if not _kept:
            threads = torch.get_num_threads()
            begun = threading.Barrier(threads + 1)

            def begin() -> None:
                torch.get_num_threads()  # a thread takes over torch's number when it first asks for it
                torch.set_num_threads(1)  # of this thread, and of those that ask from now on
                begun.wait()

            pool = ThreadPoolExecutor(threads, "encode")
            for _ in range(threads):
                pool.submit(begin)
            begun.wait()
            torch.set_num_threads(threads)
            _kept.append(pool)
        return _kept[0]


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_kept.clear)  # a child has none of its parent's threads


def rows_from_codes(
    trained: TrainedModel, codes: Codes | NDArray[np.float32], on_progress: Progress | None = None
) -> pa.Table:
    """The most probable row for each code, or point between codes: modelled columns guessed, and those that follow from
    them computed.

    A column that the codes know nothing of, kept by other coders in an archive, is null; see `known_columns`.

    Raises:
        ModelError: The model has no codes, or codes of another width.
    """
    _check_width(trained, codes)
    found: dict[str, list[Cells]] = {name: [] for name in trained.layout.plan.names}
    size = DECODE_ROWS if isinstance(trained.module, SparseVAE) else min(DECODE_ROWS, encode_size(trained))
    for start in range(0, max(1, len(codes)), size):
        part = slice(start, start + size)
        for name, cells in _guessed(trained, torch.from_numpy(codes[part].astype(np.float32))).items():
            found[name].append(cells)
        if on_progress is not None:
            on_progress(min(part.stop, len(codes)), len(codes))
    whole = {name: Cells(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in found.items()}
    return table_of_cells(trained, whole, len(codes))


def _guessed(trained: TrainedModel, codes: torch.Tensor) -> dict[str, Cells]:
    """What the codes alone say of each column that the model codes."""
    module = trained.module
    if not isinstance(module, SparseVAE):
        symbols = module.guess(codes).numpy()
        return {module.layout.plan.name: Cells(cast(Any, symbols), np.zeros(len(codes), np.uint8))}
    symbols, states = cells_of(module.layout.plan, module.codes_only.guess(codes))
    return {name: Cells(symbols[:, j], states[:, j]) for j, name in enumerate(module.layout.plan.names)}


def cells_of(plan: Plan, guess: Guess) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Symbols and states of what a code says of rows, (rows, columns) both."""
    symbols = np.rint(guess.symbols).astype(np.int64)
    absent = [
        next((state for state in (State.NULL, State.NAN) if state in item.states), State.VALUE)
        for item in plan.columns
    ]
    states = np.where(guess.missing, np.array(absent, np.uint8), np.uint8(State.VALUE)).astype(np.uint8)
    return np.where(states == State.VALUE, symbols, 0), states


def table_of_cells(trained: TrainedModel, cells: dict[str, Cells], rows: int) -> pa.Table:
    """Rows from the cells of modelled columns: those that follow from them are computed, all others are null."""
    grids = {grid.name: grid for grid in trained.grid.columns}
    for derived in trained.layout.derived:
        if all(source in cells for source in derived.sources):
            cells[derived.name] = derived.evaluate(grids, cells.__getitem__, rows)
    return _table(trained, cells, rows)


def read_columns(trained: TrainedModel) -> list[str]:
    """The columns of the table that a row's code is a function of, in schema order."""
    read = set(trained.layout.plan.names)
    groups = [grid for grid in trained.grid.columns if grid.one_hot and grid.name in read]
    read |= {name for group in groups for name in group.values}
    return [name for name in trained.schema.names if name in read]


def known_columns(trained: TrainedModel) -> list[str]:
    """The columns that codes tell of: those that are modelled and those that follow from them, in schema order."""
    known = set(trained.layout.plan.names)
    for derived in trained.layout.derived:
        if known.issuperset(derived.sources):
            known.add(derived.name)
    return [name for name in trained.schema.names if name in known]


def sparse_table(codes: Codes, first_row: int = 0) -> pa.Table:
    """Codes as a table: `row`, and the `indices` and `values` of what is not zero.

    >>> sparse_table(np.array([[0, 2, 0], [0, 0, 0]], np.int8)).to_pylist()
    [{'row': 0, 'indices': [1], 'values': [2.0]}, {'row': 1, 'indices': [], 'values': []}]
    """
    rows, latents = np.nonzero(codes)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(codes)))]).astype(np.int32)
    indices = pa.array(latents.astype(np.uint16))
    values = pa.array(codes[rows, latents].astype(np.float32))
    return pa.table({
        "row": pa.array(np.arange(first_row, first_row + len(codes), dtype=np.uint64)),
        "indices": pa.ListArray.from_arrays(pa.array(offsets), indices),
        "values": pa.ListArray.from_arrays(pa.array(offsets), values),
    })  # fmt: skip


def dense_codes(table: pa.Table, latents: int) -> Codes:
    """Inverse of `sparse_table`; ValueError where an entry cannot be a code of so many latents."""
    indices, values = (cast(Any, table[name]).combine_chunks() for name in ("indices", "values"))
    lengths = pc.list_value_length(indices).to_numpy(zero_copy_only=False)
    if not np.array_equal(lengths, pc.list_value_length(values).to_numpy(zero_copy_only=False)):
        raise ValueError("a row has not as many values as indices")
    places = indices.flatten().to_numpy(zero_copy_only=False)
    numbers = values.flatten().to_numpy(zero_copy_only=False)
    if len(places) and (int(places.max()) >= latents or not np.isin(numbers, np.arange(-128, 128)).all()):
        raise ValueError(f"an index is not below {latents}, or a value is no small integer")
    codes = np.zeros((table.num_rows, latents), np.int8)
    codes[np.repeat(np.arange(table.num_rows), lengths), places] = numbers.astype(np.int8)
    return codes


def write_codes(path: str | Path, codes: Codes, trained: TrainedModel) -> Path:
    """Writes `codes.parquet`, atomically; its metadata names the model."""
    metadata = {
        MODEL_KEY: trained.digest.encode(),
        LATENTS_KEY: str(codes.shape[1]).encode(),
        FAMILY_KEY: trained.settings.family.value.encode(),
    }
    table = sparse_table(codes).replace_schema_metadata(metadata)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    return Path(path)


def read_codes(path: str | Path, trained: TrainedModel | None = None) -> CodesFile:
    """Reads a file of codes; with a model, refuses codes that another model made.

    Raises:
        SourceError: The file is missing, damaged or holds no codes.
        ModelError: The codes are of another model.
    """
    if not Path(path).is_file():
        raise SourceError(f"{path}: there is no such file; make it with `svae codes`")
    try:
        table = pq.read_table(path, columns=["row", "indices", "values"], page_checksum_verification=True)
        metadata = table.schema.metadata or {}
        latents = int(metadata[LATENTS_KEY])
        if not 0 <= latents <= MOST_LATENTS:
            raise ValueError(f"{latents} latents")
        found = CodesFile(dense_codes(table, latents), metadata[MODEL_KEY].decode())
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"{path}: not a file of sparse codes ({reason}); make it again with `svae codes`"
        ) from error
    if trained is not None and found.model != trained.digest:
        raise ModelError(
            f"{path}: its codes are of model {found.model[:12]}, not of {trained.digest[:12]}; "
            "give the model that made them"
        )
    return found


def coded_bytes(model: IntegerModel | ImageModel, codes: Codes, block_rows: int) -> int:
    """Bytes of the codes as an archive writes them: entropy-coded under the model's prior, in blocks."""
    model = model.codes if isinstance(model, ImageModel) else model
    total = 0
    columns = len(model.columns)
    for start in range(0, len(codes), block_rows):
        part = np.ascontiguousarray(codes[start : start + block_rows])
        # codes are coded without a look at the columns, so any symbols will do
        symbols = np.tile(np.array([item.low for item in model.plan.columns], np.int64), (len(part), 1))
        total += len(model.encode_block(symbols, np.zeros((len(part), columns), np.uint8), part)[0])
    return total


def _encode_part(trained: TrainedModel, view: dict[str, NDArray[Any]]) -> Codes:
    rows, size = len(next(iter(view.values()))), encode_size(trained)
    padded = {
        name: np.concatenate([array, np.zeros((size - rows, *array.shape[1:]), array.dtype)])
        for name, array in view.items()
    }
    batch = {name: torch.from_numpy(array) for name, array in padded.items()}
    return trained.module.encode(batch)[:rows].numpy()


def _column(trained: TrainedModel, table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise SchemaError(f"column {name!r} is missing; the model reads {', '.join(read_columns(trained))}")
    column, kind = table[name], trained.schema.column(name).type
    if column.type == kind:
        return column
    try:
        return cast(Any, column).cast(kind)
    except pa.ArrowException as error:
        raise SchemaError(
            f"column {name!r} is {column.type}, the model was trained on {kind}; convert it"
        ) from error


def _check_width(trained: TrainedModel, codes: NDArray[Any]) -> None:
    latents = trained.layout.plan.latents
    if not latents:
        raise ModelError(
            "the model has no sparse codes (it was trained with codes: none); train one with codes: balanced"
        )
    if codes.shape[1:] != (latents,):
        raise ModelError(
            f"codes of {codes.shape[1]} latents for a model of {latents}; give the model that made them"
        )


def _table(trained: TrainedModel, cells: dict[str, Cells], rows: int) -> pa.Table:
    schema = trained.schema.to_arrow()
    arrays: list[pa.Array] = []
    for field in schema:
        if field.name not in cells:
            arrays.append(pa.nulls(rows, field.type))
            continue
        symbols, states = cells[field.name]
        states = np.where(states == State.ESCAPE, np.uint8(State.NULL), states)
        arrays.append(trained.grid[field.name].decode(symbols, states, pa.array([], field.type)))
    nullable = pa.schema([field.with_nullable(True) for field in schema], schema.metadata)
    return pa.Table.from_arrays(arrays, schema=nullable)
