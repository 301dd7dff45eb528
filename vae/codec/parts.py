"""The parts of an archive, decoded: what a group of blocks holds of some columns."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from data.errors import DamagedError, ModelError
from data.grid import NUDGED, Coded, ColumnGrid, State
from vae.codec import blocks, structure
from vae.codec.blocks import BlockModel, Codes
from vae.codec.budget import Room
from vae.codec.container import Container, ModelReference
from vae.codec.structure import Cells, Ints, States
from vae.codec.summary import StoredReport
from vae.codec.texts import MIXED_VERSION

T = TypeVar("T")
MAX_IMAGE_VALUES = 1 << 24
"""Values of all images of a group, at most, unless it is one row."""


class Kept(dict[int, Any]):
    """What streams hold that are of a whole group, by their numbers: decoded once for all the parts that share it."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room = room


class Part(NamedTuple):
    """Rows `start` to `stop` of a group, counted within it."""

    group: int
    start: int
    stop: int


class Block(NamedTuple):
    """A decoded block: (rows, columns), (rows, columns) and (rows, latents)."""

    symbols: Ints
    states: States
    codes: Codes


class Parts:
    """The streams of an archive and what is needed to decode them. Thread-safe."""

    def __init__(self, path: str | Path, model: BlockModel | None) -> None:
        """Open `path`; `model` is for an archive that only refers to its own."""
        self.container = Container(path)
        self.path = Path(path)
        self.header = self.container.header
        self.names: list[str] = self.container.names
        """Of the table's columns; once opened, of the one-hot groups after them."""
        self._given = model
        self._model: BlockModel | None = None
        self._lock = threading.Lock()
        try:
            self._fill()
        except BaseException:
            self.container.close()
            raise

    def _fill(self) -> None:
        container = self.container
        own = len(container.names)
        kinds: list[pa.DataType] = [field.type for field in container.schema]
        kinds += [pa.string()] * (len(self.header.columns) - own)
        try:
            with self.kept().room.shared():
                filled = blocks.unpack_tables(
                    container.load(container.tables, "tables"), self.header.columns, kinds
                )
            self.grids, self.functions, self.dictionaries, self.table_sizes = filled
            self._oldest = max([1, *(blocks.grid_version(grid) for grid in self.grids if grid is not None)])
            if self._oldest > container.version:
                raise ValueError(f"version {container.version} of the format has no such grids")
            # what needs version 9 stands anywhere in the streams: all that older ones have may be beside it
            if self.header.model is None and MIXED_VERSION > container.version > max(3, self._oldest):
                raise ValueError(f"version {container.version} of the format, and nothing that needs it")
            self.names = container.names + [grid.name if grid else "" for grid in self.grids[own:]]
            self._kinds = kinds
            self.derived = self._check_columns(own)
            self.stored = StoredReport.model_validate(container.report)
            if len(self.stored.per_column) != len(kinds):
                raise ValueError("the report is not of these columns")
        except ValidationError as error:
            raise container.damaged("header", str(error.errors(include_url=False)[0]["msg"])) from error
        except (ValueError, TypeError) as error:
            raise container.damaged("header", " ".join(str(error).split())[:200]) from error
        except DamagedError as error:
            raise (
                error if str(self.path) in str(error) else container.damaged("tables", str(error))
            ) from error

    def _check_columns(self, own: int) -> list[int]:
        """Places of the derived columns, each after what it is a function of; the first `own` are the table's."""
        names = self.names
        if len(set(names)) != len(names):
            raise ValueError("two columns have one name")
        self.place = {name: place for place, name in enumerate(names)}
        functions = [function for function in self.functions if function is not None]
        for place, (name, grid, function) in enumerate(zip(names, self.grids, self.functions, strict=True)):
            if (grid and grid.name != name) or (function and function.name != name):
                raise ValueError(f"column {place} is not {name!r}")
            if (grid is not None and grid.one_hot) != (place >= own):
                raise ValueError(f"column {place} is one of the table and a one-hot group, or neither")
            for source in function.sources if function else ():
                if source not in self.place or self.grids[self.place[source]] is None:
                    raise ValueError(f"column {name!r} follows from {source!r}, which has no symbols")
                if cast(ColumnGrid, self.grids[self.place[source]]).shape:
                    raise ValueError(f"column {name!r} follows from {source!r}, which holds images")
            if grid and grid.scale in NUDGED:
                self._check_nudged(place, grid)
            if grid and grid.shape:
                self._check_images(place, grid)
        values = sum(grid.values_of_image for grid in self.grids if grid is not None and grid.shape)
        if self.header.group_rows * values > max(MAX_IMAGE_VALUES, values):
            raise ValueError(f"groups of {self.header.group_rows} rows with {values} values of images each")
        return [self.place[function.name] for function in structure.order(functions)]

    def _check_images(self, place: int, grid: ColumnGrid) -> None:
        """Images are lists of bytes, follow from nothing, and are the one column of their model."""
        header, kind = self.header, cast(Any, self._kinds[place])
        if not pa.types.is_fixed_size_list(kind) or (kind.value_type, kind.list_size) != (
            pa.uint8(),
            grid.values_of_image,
        ):
            raise ValueError(f"column {grid.name!r}: images of {grid.shape} in a column of {kind}")
        if self.functions[place] is not None or (place in header.coded and len(header.coded) > 1):
            raise ValueError(f"column {grid.name!r}: images among columns of numbers")

    def _check_nudged(self, place: int, grid: ColumnGrid) -> None:
        """A lattice or sum is of floats; a sum is stored for itself, and made of floats that are no sums."""
        if self._kinds[place] != pa.float64():
            raise ValueError(f"column {grid.name!r} is a {grid.scale} of {self._kinds[place]}")
        if grid.sources and self.header.columns[place].coder != "rival":
            raise ValueError(f"column {grid.name!r} is a {grid.scale} and not stored for itself")
        for source in grid.sources:
            there = self.place.get(source)
            other = None if there is None else self.grids[there]
            if there is None or self._kinds[there] != pa.float64() or (other and other.sources):
                raise ValueError(
                    f"column {grid.name!r} is a {grid.scale} of {source!r}, which is no such float"
                )

    def check_reference(self) -> None:
        """ModelError if the archive's model is elsewhere and was not handed over."""
        reference = self.header.model
        if reference and not reference.embedded and self._given is None:
            raise ModelError(
                f"{self.path}: needs the model with SHA-256 {reference.sha256}, which it does not contain; "
                "hand that model over"
            )

    @property
    def model(self) -> BlockModel | None:
        """The integer model, proved sound when it is first asked for; None if the archive has none."""
        with self._lock:
            if self._model is None and self.header.model is not None:
                self._model = self._load_model(self.header.model)
            return self._model

    def _load_model(self, reference: ModelReference) -> BlockModel:
        container = self.container
        self.check_reference()
        blob = container.load(container.model, "model") if reference.embedded else b""
        if not reference.embedded and self._given is not None:
            blob = self._given.to_bytes()
        if hashlib.sha256(blob).hexdigest() != reference.sha256 or len(blob) != reference.size:
            if not reference.embedded:
                raise ModelError(
                    f"{self.path}: needs the model with SHA-256 {reference.sha256}, got another one"
                )
            raise container.damaged("model", "its digest differs")
        if self._given is not None and self._given.to_bytes() == blob:
            model = self._given
        else:
            try:
                model = self._made_of(blob)
            except ModelError as error:
                raise container.damaged("model", str(error)) from error
        if (
            model.columns != [self.names[i] for i in self.header.coded]
            or model.latents != self.header.latents
        ):
            raise container.damaged("model", "it is not one of these columns")
        needed = max(self._oldest, model.version)
        said = container.version if container.version > 2 else 1  # 2 is 1 with one-hot groups
        if said < MIXED_VERSION and needed != said:
            raise container.damaged("model", f"version {container.version} of the format has no such models")
        return model

    def _made_of(self, blob: bytes) -> BlockModel:
        """The model of an archive's columns, or of its images; ModelError if it is none."""
        from vae.codec.images import ImageModel
        from vae.codec.integer import IntegerModel

        grids = [self.grids[place] for place in self.header.coded]
        if not any(grid is not None and grid.shape for grid in grids):
            return IntegerModel.from_bytes(blob)
        model = ImageModel.from_bytes(blob)
        grid, plan = grids[0], model.plan
        if grid is None or (plan.height, plan.width, plan.channels, plan.levels) != (
            *grid.shape,
            grid.high + 1,
        ):
            raise ModelError("it is of other images")
        return model

    def blocks(self, part: Part) -> range:
        """The blocks that hold rows of `part`, counted within their group."""
        size = self.header.block_rows
        return range(part.start // size, -(-part.stop // size))

    def rows_needed(self, part: Part, block: int) -> int:
        """Rows of a block up to the last one of `part`: rows are decoded from a block's first on."""
        return min(self.header.block_rows, part.stop - block * self.header.block_rows)

    def cut(self, part: Part) -> Iterator[Part]:
        """The parts of `part` that are in one block each."""
        size = self.header.block_rows
        for block in self.blocks(part):
            yield Part(part.group, max(part.start, block * size), min(part.stop, (block + 1) * size))

    def _rows_of(self, group: int, block: int | None) -> tuple[int, int]:
        """First and last row of a block, or of a group."""
        header = self.header
        first = group * header.group_rows + (0 if block is None else block * header.block_rows)
        count = header.group_rows if block is None else header.block_rows
        return first, min(self.header.rows, first + count, (group + 1) * header.group_rows) - 1

    def stream_name(self, number: int) -> str:
        """A stream by its column, block and rows."""
        header = self.header
        per_group = header.stream_of_column(1, 0)
        group, place = divmod(number, per_group)
        if place < len(header.columns):
            return self._name(group, None, self.names[place])
        block, place = divmod(place - len(header.columns), 1 + len(header.coded))
        return self._name(group, block, self.names[header.coded[place - 1]] if place else None)

    def _name(self, group: int, block: int | None, column: str | None) -> str:
        what = "the codes" if column is None else f"column {column!r}"
        first, last = self._rows_of(group, block)
        number = "" if block is None else f", block {group * self.header.group_blocks + block}"
        return f"stream of {what}{number} (rows {first} to {last})"

    def _load(self, number: int) -> bytes:
        return self.container.load(self.container.stream(number), self.stream_name(number))

    def _once(self, number: int, kept: Kept, decode: Callable[[bytes], T]) -> T:
        """What a stream holds, as kept or decoded now; DamagedError, which names the stream and is kept likewise."""
        if number not in kept:
            try:
                with kept.room.shared():
                    kept[number] = self._decoded(number, decode)
            except DamagedError as error:
                kept[number] = error
        if isinstance(kept[number], DamagedError):
            raise kept[number]
        return kept[number]

    def _decoded(self, number: int, decode: Callable[[bytes], T]) -> T:
        data = self._load(number)
        try:
            return decode(data)
        except (DamagedError, OverflowError) as error:
            raise self.container.damaged(self.stream_name(number), str(error)) from error

    def kept(self) -> Kept:
        """Nothing yet, and room for what the streams of a group hold."""
        return Kept(Room(self.path, self.container.size, self.container.version))

    def read_part(
        self, part: Part, places: Sequence[int], pool: ThreadPoolExecutor, kept: Kept | None = None
    ) -> list[pa.Array]:
        """Columns of some rows of a group; `kept` holds what its parts share, empty before the first of them.

        ArchiveError where the group becomes more than the file's length justifies.
        """
        kept = self.kept() if kept is None else kept
        needed = self._closure(places)
        depth = 1 + max((k for k, place in enumerate(self.header.coded) if place in needed), default=-1)
        decoded = [pool.submit(self.read_block, part, b, depth) for b in self.blocks(part) if depth]
        direct = [place for place in needed if self.header.columns[place].coder == "rival"]
        values = dict(
            zip(direct, pool.map(lambda place: self._read_rival(part, place, kept), direct), strict=True)
        )
        coded = {place: v for place, v in values.items() if isinstance(v, Coded)}
        neural = [place for place in self.header.coded[:depth] if place in needed]
        kept.room.spend(9 * (part.stop - part.start) * (len(neural) + len(needed & {*self.derived})))
        results = [future.result() for future in decoded]
        for place in neural:
            coded[place] = self._join_blocks(part, place, results, kept)
        for place in self.derived:
            if place in needed:
                coded[place] = self._derive(part, place, coded, kept)
        arrays = {place: v for place, v in values.items() if isinstance(v, pa.Array)}
        sums = {place: self._addends(place) for place in dict.fromkeys(places)}
        plain = [place for place in sums if not sums[place]]
        plain += [there for addends in sums.values() for there in addends]
        for wanted in (plain, [*sums]):  # a sum comes after what it is made of
            gridded = [place for place in dict.fromkeys(wanted) if place not in arrays]
            addends = [[arrays[there] for there in self._addends(place)] for place in gridded]
            cells = [coded[place] for place in gridded]
            decode = pool.map(self._decode, repeat(part), gridded, cells, addends, repeat(kept.room))
            arrays |= zip(gridded, decode, strict=True)
        return [arrays[place] for place in places]

    def _addends(self, place: int) -> list[int]:
        """What a column is the sum or difference of."""
        grid = self.grids[place]
        return [] if grid is None else [self.place[name] for name in grid.sources]

    def _closure(self, places: Sequence[int]) -> set[int]:
        """The columns and all that they are sums or functions of."""
        needed = {*places, *(there for place in places for there in self._addends(place))}
        for place in reversed(self.derived):
            function = self.functions[place]
            if place in needed and function is not None:
                needed |= {self.place[source] for source in function.sources}
        return needed

    def read_block(self, part: Part, block: int, depth: int) -> Block:
        """The codes and the first `depth` neural columns of a block, up to the last row that `part` needs."""
        group = part.group
        model, header = self.model, self.header
        if model is None:
            raise self.container.damaged("header", "it has blocks without a model")
        number = header.stream_of_block(group, block)
        streams = [self._load(number + k) for k in range(depth + 1)]
        first, last = self._rows_of(group, block)
        try:
            symbols, states, codes = model.decode_block(
                streams, last - first + 1, depth, self.rows_needed(part, block)
            )
            for k, place in enumerate(header.coded[:depth]):
                if not self._grid(place).shape:  # what its own model reads of images is on their grid
                    blocks.check_cells(self._grid(place), Cells(symbols[:, k], states[:, k]))
        except DamagedError as error:
            raise self.container.damaged(self._name(group, block, None), str(error)) from error
        return Block(symbols, states, codes)

    def _stream(
        self, part: Part, place: int, kept: Kept, unpack: Callable[[bytes, int], T]
    ) -> tuple[Ints | None, T]:
        """The nudges of a group's rows, and what else the stream of a column holds: `unpack` of it and their number."""
        first, last = self._rows_of(part.group, None)
        rows = last - first + 1

        def decode(data: bytes) -> tuple[Ints | None, T]:
            nudges, rest = blocks.split_nudges(data, self.grids[place], rows)
            return nudges, unpack(rest, rows)

        return self._once(self.header.stream_of_column(part.group, place), kept, decode)

    def _read_rival(self, part: Part, place: int, kept: Kept) -> Coded | pa.Array:
        grid, kind = self.grids[place], self._plain(place)

        def unpack(data: bytes, rows: int) -> Coded | pa.Array:
            return (
                blocks.unpack(data, kind, rows)
                if grid is None
                else blocks.unpack_cells(data, grid, kind, rows)
            )

        nudges, whole = self._stream(part, place, kept, unpack)
        if isinstance(whole, Coded):
            return blocks.window(whole._replace(nudges=nudges), part.start, part.stop)
        return whole.slice(part.start, part.stop - part.start)

    def _join_blocks(self, part: Part, place: int, decoded: Sequence[Block], kept: Kept) -> Coded:
        """A neural column of the part, with its escapes."""
        if self._grid(place).shape:
            return self._join_images(part, place, decoded, kept)
        k = self.header.coded.index(place)
        symbols = np.concatenate([block.symbols[:, k] for block in decoded])
        states = np.concatenate([block.states[:, k] for block in decoded])
        number = self.header.stream_of_column(part.group, place)
        inside, count = self.blocks(part), self.header.block_count(part.group)
        nudges, (counts, escapes) = self._stream(
            part, place, kept, lambda data, _: blocks.unpack_escapes(data, self._plain(place), count)
        )
        before = int(counts[: inside.start].sum())
        here = int((states == State.ESCAPE).sum())
        after = sum(counts[inside.start : inside.stop].tolist()) - here
        first, last = self._rows_of(part.group, inside.stop - 1)
        whole = self.rows_needed(part, inside.stop - 1) > last - first
        if after < 0 or (whole and after):
            raise self.container.damaged(
                self.stream_name(number), "the number of escapes is not that of the blocks"
            )
        start = part.start - inside.start * self.header.block_rows
        if nudges is not None:
            nudges = nudges[inside.start * self.header.block_rows :][: len(symbols)]
        whole = Coded(symbols, states, escapes.slice(before, here), nudges)
        return blocks.window(whole, start, start + part.stop - part.start)

    def _join_images(self, part: Part, place: int, decoded: Sequence[Block], kept: Kept) -> Coded:
        """The images of the part, and which of them are null."""
        states = self._stream(part, place, kept, blocks.unpack_states)[1]
        start = part.start - self.blocks(part).start * self.header.block_rows
        images = np.concatenate([block.symbols for block in decoded])[start : start + part.stop - part.start]
        return Coded(images, states[part.start : part.stop], blocks.no_values(self._kinds[place]))

    def _derive(self, part: Part, place: int, coded: dict[int, Coded], kept: Kept) -> Coded:
        function, grid, kind = self.functions[place], self._grid(place), self._plain(place)
        if function is None:
            raise self.container.damaged("header", "a derived column has no function")
        number = self.header.stream_of_column(part.group, place)
        grids = {g.name: g for g in self.grids if g is not None}

        def get(name: str) -> Cells:
            source = coded[self.place[name]]
            return Cells(source.symbols, source.state)

        try:
            cells = function.evaluate(grids, get, part.stop - part.start)
        except (DamagedError, OverflowError) as error:
            raise self.container.damaged(self.stream_name(number), str(error)) from error

        nudges, (rows, wrong) = self._stream(
            part, place, kept, lambda data, rows: blocks.unpack_exceptions(data, grid, kind, rows)
        )
        here = slice(*np.searchsorted(rows, [part.start, part.stop]))
        wrong = blocks.window(wrong, here.start, here.stop)
        cells.symbols[rows[here] - part.start] = wrong.symbols
        cells.states[rows[here] - part.start] = wrong.state
        nudges = None if nudges is None else nudges[part.start : part.stop]
        return Coded(cells.symbols, cells.states, wrong.escapes, nudges)

    def _decode(
        self, part: Part, place: int, coded: Coded, sources: Sequence[pa.Array], room: Room
    ) -> pa.Array:
        room.spend(blocks.decoded_bytes(self._grid(place), coded))
        try:
            plain = blocks.decode_cells(self._grid(place), coded, self._plain(place), sources)
            return blocks.dress(plain, self._kinds[place], self.dictionaries[place])
        except DamagedError as error:
            number = self.header.stream_of_column(part.group, place)
            raise self.container.damaged(self.stream_name(number), str(error)) from error

    def _plain(self, place: int) -> pa.DataType:
        """The type of what a grid codes of a column, or the column's own."""
        kind = self._kinds[place]
        if self.grids[place] is not None and isinstance(kind, pa.DictionaryType):
            return kind.value_type
        return kind

    def _grid(self, place: int) -> ColumnGrid:
        grid = self.grids[place]
        if grid is None:
            raise self.container.damaged("header", f"column {self.names[place]!r} has no grid")
        return grid
