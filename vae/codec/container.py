r"""The byte format of an archive (`.svae`), versions 1 to 9.

All integers are little-endian; *varint* and *squeezed* as in `vae.codec.framing`. XXH3 is XXH3-64 with seed 0.
A file is, without gaps, `prelude header tables model streams index trailer`::

    prelude    8   magic 89 53 56 41 45 0D 0A 1A  ("\x89SVAE\r\n\x1a")
               2   version: 9 if a text is mixed (`vae.codec.texts`); else 8 if the plan of a model of images says
                   `counted`; else 7 if a grid is of images; else 6 if a grid's scale is among `data.grid.NUDGED`;
                   else 5 if the model's plan says `direct` or `fine`; else 4 if it says `deep` or `history` or more
                   than 67 outputs, or a grid says `parts`; else 3 if the plan says `above`; else 2 if there are
                   one-hot groups; else 1
               2   flags, 0
               4   length of the header
               8   XXH3 of the 16 bytes before, then the header
    header     .   squeezed (`vae.codec.framing`):
                   v   varint, length of the JSON
                   .   canonical JSON (sorted keys, no spaces, UTF-8), see `Header`
                   .   the Arrow schema, as an encapsulated IPC message
    tables     .   values of grids and tables of derived columns, see `vae.codec.blocks`
    model      .   the integer model, see `vae.codec.integer`, of images `vae.codec.images`; absent if it is referenced
                   by its SHA-256
    streams    .   see below
    index      .   an entry for the tables, one for the model, then one for each stream, in their order in the file:
                   v   varint, length in bytes; a length of 0 has no checksum
                   4   the low 32 bits of XXH3 of the bytes
               .   then the report: canonical JSON, squeezed, see `vae.codec.summary.StoredReport`
    trailer    8   position of the index in the file
               4   length of the index
               8   XXH3 of the header's checksum (8), the index, and the 12 bytes before
               8   magic 1A 0A 45 41 56 53 0D 89

Rows come in blocks of `block_rows` (the last may be shorter), blocks in groups of `group_blocks`. Streams are ordered
by group. A group has first one stream for each column of the table, in the table's order, then for each one-hot group
(`data.onehot`; the header holds them after the columns): all values of a *rival* column, the escapes of a *neural* one,
the exceptions of a *derived* one (`vae.codec.columns`, `vae.codec.blocks`).
Then, if there is a model, for each block of the group: the stream of the codes, and one for each neural column in
coding order. The stream of column j of a block is read with those of the columns before it; a block needs no other.
The length of an empty stream is 0.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import ArchiveError, DamagedError
from vae.codec.framing import Cursor, canonical_json, checksum, put_varint, squeeze, unsqueeze

MAGIC = b"\x89SVAE\r\n\x1a"
END_MAGIC = b"\x1a\nEAVS\r\x89"
VERSION = 9
"""The newest; archives are written in the oldest version that can say what they hold."""
DEFAULT_BLOCK_ROWS = 1 << 15
"""Rows of a block, unless a table is very wide or its values very long."""
MAX_GROUP_ROWS = 1 << 20
"""Most rows of a group: bounds what one stream can ask for."""
MAX_GROUP_CELLS = 1 << 26
"""Most rows times columns of a group."""
MAX_HEADER = 1 << 26
"""Most bytes of the header's content, and of the report."""
FREE_COMMAS = 1 << 18
"""Commas of the header's JSON, or of the report's, that any file may have, and two more for each of its bytes: each may
stand for an object of some hundred bytes."""
_PRELUDE = struct.Struct("<8sHHI")
_TRAILER = struct.Struct("<QI")
_SUM = struct.Struct("<Q")


class Frozen(BaseModel):
    """Base of what the header holds: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelReference(Frozen):
    """The integer model that an archive needs."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the model's bytes."""
    size: int = Field(ge=1, lt=1 << 40)
    """Length of the model's bytes."""
    embedded: bool = True
    """Whether the bytes are in the archive."""


class ColumnCoding(Frozen):
    """How one column of the table is stored."""

    coder: Literal["rival", "neural", "derived"] = "rival"
    """Values by a general coder, by the model, or as a function of other columns."""
    grid: dict[str, Any] | None = None
    """The column's grid without its values (`data.grid.ColumnGrid`); None if the values are stored as they are."""
    derived: dict[str, Any] | None = None
    """The function without its table (`vae.codec.structure.Derived`)."""

    @model_validator(mode="after")
    def _check(self) -> ColumnCoding:
        if (self.coder == "derived") != (self.derived is not None):
            raise ValueError("a derived column, and no other, has a function")
        if self.coder != "rival" and self.grid is None:
            raise ValueError(f"a {self.coder} column needs a grid")
        return self


class Header(Frozen):
    """What a reader must know before the first stream."""

    rows: int = Field(ge=0, lt=1 << 48)
    """Rows of the table."""
    block_rows: int = Field(ge=1, le=MAX_GROUP_ROWS)
    """Rows of a block."""
    group_blocks: int = Field(ge=1, le=MAX_GROUP_ROWS)
    """Blocks of a group."""
    columns: tuple[ColumnCoding, ...]
    """The table's columns, in order, then its one-hot groups, whose grids name them."""
    coded: tuple[int, ...] = ()
    """Neural columns in coding order, by their place in the table."""
    latents: int = Field(default=0, ge=0, le=4096)
    """Latents of a row's code."""
    model: ModelReference | None = None
    """The model; None if no column is neural."""

    @model_validator(mode="after")
    def _check(self) -> Header:
        if self.block_rows * self.group_blocks > MAX_GROUP_ROWS:
            raise ValueError(f"a group of more than {MAX_GROUP_ROWS} rows")
        if self.block_rows * self.group_blocks * len(self.columns) > MAX_GROUP_CELLS:
            raise ValueError(f"a group of more than {MAX_GROUP_CELLS} cells")
        neural = {place for place, column in enumerate(self.columns) if column.coder == "neural"}
        if neural != set(self.coded) or len(self.coded) != len(neural):
            raise ValueError("the coding order does not name each neural column once")
        if (self.model is None) != (not self.coded and not self.latents):
            raise ValueError("neural columns or codes without a model, or a model without them")
        return self

    @property
    def group_rows(self) -> int:
        """Rows of a full group."""
        return self.block_rows * self.group_blocks

    @property
    def groups(self) -> int:
        """Number of groups."""
        return -(-self.rows // self.group_rows)

    def block_count(self, group: int) -> int:
        """Number of blocks of a group."""
        return -(
            -(min(self.rows, (group + 1) * self.group_rows) - group * self.group_rows) // self.block_rows
        )

    def streams(self) -> int:
        """Number of streams of the file."""
        blocks = -(-self.rows // self.block_rows) if self.model else 0
        return self.groups * len(self.columns) + blocks * (1 + len(self.coded))

    def stream_of_column(self, group: int, column: int) -> int:
        """Number of the stream that a group holds for a column of the table."""
        before = group * self.group_blocks * (1 + len(self.coded)) if self.model else 0
        return group * len(self.columns) + before + column

    def stream_of_block(self, group: int, block: int) -> int:
        """Number of the stream of codes of a block, counted within its group; those of the columns follow it."""
        return self.stream_of_column(group, len(self.columns)) + block * (1 + len(self.coded))


class Entry(NamedTuple):
    """A part in the file."""

    position: int
    length: int
    checksum: int


class Writer:
    """Writes the parts of an archive in their order; the caller asks for neither more nor fewer streams."""

    def __init__(self, file: BinaryIO, header: Header, schema: pa.Schema, oldest: int = 1) -> None:
        """`oldest`: the oldest version of the format that knows the model and the grids."""
        self.file = file
        self.header = header
        text = canonical_json(header.model_dump(mode="json", exclude_defaults=True))
        self._content = squeeze(put_varint(len(text)) + text + schema.serialize().to_pybytes())
        self._version = max(oldest, 2 if len(header.columns) > len(schema) else 1)
        self._index = bytearray()
        self._left = header.streams() + 2
        self.position = 0
        self._write(self._prelude() + self._content)

    def part(self, data: bytes) -> None:
        """Append the tables, the model or the next stream."""
        self._left -= 1
        self._index += put_varint(len(data))
        if data:
            self._index += _SUM.pack(checksum(data))[:4]
        self._write(data)

    def finish(self, report: dict[str, Any], oldest: int = 1) -> None:
        """Write index and trailer, and the prelude again if a part needs a newer version, `oldest`."""
        if self._left:
            raise ValueError(f"{self._left} parts fewer than the header announces")
        if oldest > self._version:
            self._version = oldest
            self.file.seek(0)
            self.file.write(self._prelude())
            self.file.seek(self.position)
        self.file.write(_end(self._prelude()[-8:], self.position, bytes(self._index), report))
        self.file.flush()

    def _prelude(self) -> bytes:
        prelude = _PRELUDE.pack(MAGIC, self._version, 0, len(self._content))
        return prelude + _SUM.pack(checksum(prelude, self._content))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.position += len(data)


def replace_report(path: Path, report: dict[str, Any]) -> None:
    """Give an archive another report."""
    container = Container(path)
    container.close()
    end = _end(_SUM.pack(container.header_sum), container.index.position, container.entries_bytes, report)
    with path.open("rb+") as file:
        file.seek(container.index.position)
        file.write(end)
        file.truncate()


def _end(header_sum: bytes, position: int, entries: bytes, report: dict[str, Any]) -> bytes:
    """Index and trailer."""
    index = entries + squeeze(canonical_json(report))
    place = _TRAILER.pack(position, len(index))
    return index + place + _SUM.pack(checksum(header_sum, index, place)) + END_MAGIC


class Container:
    """The parts of an archive on disk. Every length is checked before it is used; reads are thread-safe."""

    def __init__(self, path: str | Path) -> None:
        """Read header and index.

        Raises:
            ArchiveError: No such file, not an archive, or one of a newer version.
            DamagedError: The file is truncated, or its header or index is damaged.
        """
        self.path = Path(path)
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise ArchiveError(f"{path}: cannot be opened: {error.strerror}") from error
        self._lock = threading.Lock()
        try:
            self.size = self._file.seek(0, 2)
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        head = self._read(0, min(self.size, 24))
        if head[:8] != MAGIC[: len(head[:8])] or not head:
            raise ArchiveError(f"{self.path}: is not an svae archive")
        if len(head) < 24:
            raise self.damaged("file", "it is truncated")
        _, version, flags, length = _PRELUDE.unpack(head[:16])
        if length > self.size - 24 - 28:
            raise self.damaged("header", "its length cannot be, or the file is truncated")
        content = self._read(24, length)
        if _SUM.unpack(head[16:])[0] != checksum(head[:16], content):
            raise self.damaged("header", "its checksum differs")
        if not 1 <= version <= VERSION or flags:
            raise ArchiveError(
                f"{self.path}: format version {version}.{flags}; this program reads {VERSION}.0; update it"
            )
        try:
            cursor = Cursor(unsqueeze(content, MAX_HEADER))
            self.header = Header.model_validate_json(self._short(bytes(cursor.take(cursor.varint()))))
            self.schema = cast(pa.Schema, pa.ipc.read_schema(pa.py_buffer(cursor.rest())))
            # names are decoded when they are asked for: ask now, while a fault in them can be named
            self.names: list[str] = [*self.schema.names]
            _ = [str(kind) for kind in self.schema.types]
        except (
            DamagedError,
            ValidationError,
            pa.ArrowException,
            OSError,
            ValueError,
            RecursionError,
        ) as error:
            raise self.damaged("header", _one_line(error)) from error
        groups = len(self.header.columns) - len(self.schema)
        if not 0 <= groups <= len(self.schema) or (version < 3 and (version == 2) != (groups > 0)):
            raise self.damaged("header", "its columns are not those of the schema")
        if version == 3 and not self.header.latents:
            raise self.damaged("header", "version 3 of the format, and no latents")
        self.version = version
        self.header_sum = int.from_bytes(head[16:24], "little")
        self._open_index(head[16:24], 24 + length)

    def _open_index(self, header_sum: bytes, start: int) -> None:
        trailer = self._read(self.size - 28, 28)
        position, length = _TRAILER.unpack(trailer[:12])
        if trailer[20:] != END_MAGIC or not start <= position or position + length + 28 != self.size:
            raise self.damaged("index", "the file is truncated or its end is damaged")
        index = self._read(position, length)
        if _SUM.unpack(trailer[12:20])[0] != checksum(header_sum, index, trailer[:12]):
            raise self.damaged("index", "its checksum differs")
        # an entry has a byte or more: what the header announces must fit the index
        if self.header.streams() + 2 > length:
            raise self.damaged("index", f"{self.header.streams()} streams announced, it has {length} bytes")
        try:
            cursor = Cursor(index)
            self._entries = list(_entries(cursor, self.header.streams() + 2, start))
            self.index = Entry(position, length, 0)
            self.entries_bytes = index[: cursor.at]
            report: Any = json.loads(self._short(unsqueeze(cursor.rest(), MAX_HEADER)))
        except (DamagedError, ValueError, RecursionError) as error:
            raise self.damaged("index", _one_line(error)) from error
        last = self._entries[-1]
        if last.position + last.length != position or not isinstance(report, dict):
            raise self.damaged("index", "the parts do not fill the file")
        self.report = cast(dict[str, Any], report)
        self.container_bytes = self.size - sum(entry.length for entry in self._entries)

    def _short(self, text: bytes) -> bytes:
        """The JSON; DamagedError if it holds more than the file's length justifies."""
        commas = text.count(b",")
        if commas > FREE_COMMAS + 2 * self.size:
            raise DamagedError(f"{commas} values listed, which a file of {self.size} bytes does not justify")
        return text

    @property
    def tables(self) -> Entry:
        """Where the tables are."""
        return self._entries[0]

    @property
    def model(self) -> Entry:
        """Where the model is; of length 0 if there is none or it is elsewhere."""
        return self._entries[1]

    def stream(self, number: int) -> Entry:
        """Where a stream is."""
        return self._entries[2 + number]

    def load(self, entry: Entry, what: str) -> bytes:
        """The bytes of a part; DamagedError, naming it as `what`, if they cannot be read or their checksum differs."""
        try:
            data = self._read(entry.position, entry.length)
        except OSError as error:  # a bad sector, a network that went away
            raise self.damaged(what, f"it cannot be read: {error.strerror}") from error
        if len(data) != entry.length or (data and checksum(data) & 0xFFFFFFFF != entry.checksum):
            raise self.damaged(what, "its checksum differs")
        return data

    def damaged(self, what: str, why: str) -> DamagedError:
        """The error to raise for a damaged part."""
        return DamagedError(f"{self.path}: {what} is damaged: {why}; restore the file from a copy")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, position: int, length: int) -> bytes:
        with self._lock:
            if self._file.closed:
                raise ArchiveError(f"{self.path}: has been closed; read it while it is open")
            self._file.seek(position)
            return self._file.read(length)


def _entries(cursor: Cursor, count: int, start: int) -> Iterator[Entry]:
    for _ in range(count):
        length = cursor.varint()
        yield Entry(start, length, int.from_bytes(cursor.take(4), "little") if length else 0)
        start += length


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(str(p) for p in first['loc']) or 'top level'}: {first['msg']}"
    return " ".join(str(error).split())[:200]
