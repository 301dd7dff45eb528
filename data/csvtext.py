"""Cells of text <-> typed columns, losing nothing.

A column is typed only if every cell's text comes back from its typed value, with one spelling of null. Else it
stays text: `00123`, `1.10` among `1.5`, a real `NA` among words. All work is on distinct texts, batch by batch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute

from data.distinct import DistinctValues, text_kind
from data.errors import SchemaError
from data.formats import (
    INF_SPELLINGS,
    NAN_SPELLINGS,
    FloatFormat,
    TextFormat,
    comes_back,
    find_format,
    guess_formats,
    surviving_formats,
)
from data.schema import Column, CsvDialect, Kind, Schema, kind_of

pc: Any = pyarrow.compute

NULL_SPELLINGS = (
    "",
    "NA",
    "N/A",
    "n/a",
    "NULL",
    "Null",
    "null",
    "None",
    "none",
    "?",
    "-",
    ".",
    "\\N",
    "#N/A",
    "missing",
)
"""What may stand for a missing number, boolean or timestamp; in a column of words only the empty cell is null."""
_SPECIALS = (*NAN_SPELLINGS, *INF_SPELLINGS, *(f"-{word}" for word in INF_SPELLINGS))
_BOM = b"\xef\xbb\xbf"
_PIECE_ROWS = 16_384
_PIECE_BYTES = 1 << 24
MAX_STRAYS = 3
"""Different texts that may keep a column from the type of all its others and still be told of as mistakes."""
_MIN_TYPED = 20
"""Different texts that a column must have for a few of them to be mistakes."""
_KINDS = (Kind.numeric, Kind.integer, Kind.boolean, Kind.timestamp)
_DEFAULT_FORMATS = {
    Kind.numeric: "shortest",
    Kind.integer: "int",
    Kind.boolean: "bool:true/false",
    Kind.timestamp: "%Y-%m-%dT%H:%M:%S",
}
"""How a column of these kinds prints of which no value has been seen."""


class ColumnTyper:
    """Finds one column's type from all of its texts, handed over in batches.

    Args:
        name: The column's name.
        wanted: What a given schema says of the column; its kind, null spelling and format are then binding.
        nulls: Texts that may stand for null; empty where nulls are told apart by other means.
        kinds: What the column may become, beside text.
    """

    def __init__(
        self,
        name: str,
        wanted: Column | None = None,
        *,
        nulls: tuple[str, ...] = NULL_SPELLINGS,
        kinds: Collection[Kind] = _KINDS,
    ) -> None:
        self.name = name
        self.wanted = wanted
        self.distinct = DistinctValues()
        self._forms: list[TextFormat] | None = None
        self._stays_text = wanted is not None and wanted.kind in (Kind.text, Kind.categorical)
        self._spellings: list[str] = []
        self._specials: list[str] = []
        self._cells = 0
        self._misfit: str | None = None
        self._strays: list[str] = []
        self._typed_before: list[TextFormat] = []
        self._nulls = nulls if wanted is None or wanted.null_text is None else (wanted.null_text,)
        self._kinds = kinds

    def feed(self, texts: pa.Array) -> None:
        """Take note of more cells."""
        self._cells += len(texts)
        distinct = pc.unique(texts)
        self.distinct.add(distinct)
        rest = self._set_aside(distinct, self._nulls, self._spellings)
        if self._stays_text or (self._forms is not None and not self._forms and not self._typed_before):
            return
        rest = self._set_aside(rest, _SPECIALS, self._specials)
        if not len(rest):
            return
        if self._typed_before:
            self._add_strays(rest)
            return
        forms = self._candidates(rest[0].as_py()) if self._forms is None else self._forms
        self._forms = surviving_formats(forms, rest)
        if self._forms:
            return
        if self.wanted is not None:
            self._misfit = next((text for text in rest.to_pylist() if not _fits(forms, text)), None)
        else:
            seconds = (self._candidates(text) for text in rest[1 : 1 + MAX_STRAYS].to_pylist())
            self._typed_before = forms or next(filter(None, seconds), [])
            self._add_strays(rest)

    def _add_strays(self, texts: pa.Array) -> None:
        """Look at more cells of a column that a few have kept from being typed; forget it if they are not few."""
        strays = dict.fromkeys([*self._strays, *_misfits(self._typed_before, texts)])
        rest = pc.filter(texts, pc.invert(pc.is_in(texts, value_set=pa.array(strays, pa.string()))))
        forms = surviving_formats(self._typed_before, rest) if len(rest) else self._typed_before
        self._typed_before = forms if len(strays) <= MAX_STRAYS else []
        self._strays = list(strays) if self._typed_before else []

    def finish(self) -> Column:
        """The column as all of its cells allow.

        Raises:
            SchemaError: The cells are not what the given schema asks for.
        """
        forms = self._default_forms() if self._forms is None else self._forms
        form = None if self._stays_text else self._typed_form(forms)
        if form is not None:
            null_text = self._typed_null(form)
            column = Column(
                name=self.name,
                kind=kind_of(form.type),
                arrow=str(form.type),
                nullable=null_text is not None,
                null_text=null_text,
                text_format=form.spec,
            )
        elif self.wanted is None or self._stays_text:
            column = self._text_column()
        else:
            raise SchemaError(
                f"column {self.name!r}: {self._complaint()}; mend the data, or make the kind text"
            )
        return column if self.wanted is None else _with_wishes(column, self.wanted)

    @property
    def strays(self) -> tuple[str, ...]:
        """The few texts that alone keep the column from a type: not those of a column of few different texts."""
        many = self.distinct.is_full or (self.distinct.count or 0) >= _MIN_TYPED
        return tuple(self._strays) if many and self._typed_form(self._typed_before) is not None else ()

    @property
    def misfit(self) -> str | None:
        """The first cell that does not fit the given schema."""
        return self._misfit

    def _set_aside(self, texts: pa.Array, words: tuple[str, ...], seen: list[str]) -> pa.Array:
        """Those of `texts` that are none of `words`; the words found join `seen`."""
        hits = pc.is_in(texts, value_set=pa.array(words, pa.string()))
        if not pc.any(hits, min_count=0).as_py():
            return texts
        seen.extend(word for word in pc.filter(texts, hits).to_pylist() if word not in seen)
        return pc.filter(texts, pc.invert(hits))

    def _candidates(self, text: str) -> list[TextFormat]:
        wanted = self.wanted
        if wanted is not None and wanted.text_format is not None:
            return [find_format(wanted.text_format, wanted.type, self.name)]
        forms = [form for form in guess_formats(text) if kind_of(form.type) in self._kinds]
        if wanted is None:
            return forms
        if wanted.kind is Kind.timestamp:
            return [form for form in forms if pa.types.is_timestamp(form.type)]
        # A narrower type than the usual one has the same formats.
        specs = dict.fromkeys(form.spec for form in forms if kind_of(form.type) is wanted.kind)
        return [find_format(spec, wanted.type, self.name) for spec in specs]

    def _typed_form(self, forms: list[TextFormat]) -> TextFormat | None:
        """The best of the formats, specials and nulls included; None if there is none."""
        nans = [word for word in self._specials if word in NAN_SPELLINGS]
        infs = {word.removeprefix("-") for word in self._specials if word not in NAN_SPELLINGS}
        for form in forms:
            if isinstance(form, FloatFormat):
                if len(nans) <= 1 and len(infs) <= 1 and len(self._spellings) <= 1:
                    return replace(form, nan=next(iter(nans), form.nan), inf=next(iter(infs), form.inf))
            elif not infs and len(nans) + len(self._spellings) <= 1:
                return form
        return None

    def _default_forms(self) -> list[TextFormat]:
        """Formats of a column that holds nothing but nulls, NaN and inf."""
        if self.wanted is not None and self.wanted.kind in _DEFAULT_FORMATS:
            spec = self.wanted.text_format or _DEFAULT_FORMATS[self.wanted.kind]
            return [find_format(spec, self.wanted.type, self.name)]
        return [FloatFormat("shortest")] if self._specials and Kind.numeric in self._kinds else []

    def _typed_null(self, form: TextFormat) -> str | None:
        """The one spelling of null; in a column that is not of floats NaN is one, too."""
        spellings = self._spellings if isinstance(form, FloatFormat) else [*self._spellings, *self._specials]
        return next(iter(spellings), None)

    def _text_column(self) -> Column:
        only_null = self._forms is None and not self._specials and len(self._spellings) == 1
        if self.wanted is not None and (self.wanted.null_text is not None or not self.wanted.nullable):
            null_text = self.wanted.null_text
        elif only_null:
            null_text = self._spellings[0]
        else:
            null_text = "" if "" in self._spellings else None
        kind = Kind.categorical if only_null else text_kind(self.distinct.count, self._cells)
        nullable = null_text in self._spellings
        return Column(name=self.name, kind=kind, arrow="string", nullable=nullable, null_text=null_text)

    def _complaint(self) -> str:
        if self._misfit is not None and self.wanted is not None:
            shown, wanted = f"{self._misfit[:80]!r}", self.wanted
            if wanted.kind in (Kind.numeric, Kind.integer) and not guess_formats(self._misfit):
                return f"{shown} is not a number"
            return f"{shown} does not come back from {wanted.arrow} as it is written"
        return f"spells null in several ways ({', '.join(map(repr, [*self._spellings, *self._specials]))})"


def parse_column(texts: pa.Array, column: Column) -> pa.Array:
    """Typed values of a column's texts; exact inverse of `render_column` for the texts that typed the column."""
    if column.null_text is not None:
        texts = pc.if_else(pc.equal(texts, column.null_text), pa.scalar(None, texts.type), texts)
    if column.text_format is None:
        return texts if texts.type == column.type else pc.cast(texts, column.type)
    return find_format(column.text_format, column.type, column.name).parse(texts)


def render_column(values: pa.Array, column: Column) -> pa.Array:
    """Texts of a column's values; nulls in the column's own spelling, else empty."""
    if column.text_format is not None:
        texts = find_format(column.text_format, column.type, column.name).render(values)
    else:
        texts = _render_plainly(values)
    return pc.fill_null(texts, column.null_text or "") if texts.null_count else texts


def write_csv(batches: Iterable[pa.RecordBatch], schema: Schema, file: BinaryIO) -> None:
    """Write rows as CSV: for a schema that came from CSV every field has its original text.

    Without a dialect in the schema: commas, a header, newlines, and an empty text in quotes to tell it from a null.
    """
    dialect = schema.csv or CsvDialect()
    end = dialect.line_end.encode()
    pending: bytes | memoryview = b""
    if dialect.bom:
        file.write(_BOM)
    if dialect.header:
        pending = (
            dialect.delimiter.join(_quoted_name(name, schema, dialect) for name in schema.names).encode()
            + end
        )
    for batch in batches:
        for lines in _lines(batch, schema, dialect):
            file.write(pending)
            pending = lines  # Kept back: the last line may have to do without its end.
    file.write(pending if dialect.final_line_end else pending[: len(pending) - len(end)])


def _lines(batch: pa.RecordBatch, schema: Schema, dialect: CsvDialect) -> Iterator[memoryview]:
    """The records of a batch as UTF-8, in pieces of bounded size."""
    # Large strings throughout, or two columns of long texts would not fit in one.
    delimiter, end, nothing = (
        pa.scalar(text, pa.large_string()) for text in (dialect.delimiter, dialect.line_end, "")
    )
    step = max(1, min(_PIECE_ROWS, _PIECE_BYTES * batch.num_rows // max(batch.nbytes, 1)))
    for start in range(0, batch.num_rows, step):
        piece = batch.slice(start, step)
        cells = [
            _quoted(render_column(values, column), values, column, schema).cast(pa.large_string())
            for values, column in zip(piece.columns, schema.columns, strict=True)
        ]
        records = pc.binary_join_element_wise(*cells, delimiter)
        _, offsets, data = pc.binary_join_element_wise(records, end, nothing).buffers()
        yield memoryview(data)[: np.frombuffer(offsets, np.int64)[piece.num_rows]]


def _quoted(texts: pa.Array, values: pa.Array, column: Column, schema: Schema) -> pa.Array:
    """Fields as they stand in the file."""
    dialect = schema.csv or CsvDialect()
    if dialect.quoting == "all" or (dialect.quoting == "text" and _is_word(column)):
        return _in_quotes(texts)
    if len(schema.columns) > 1 and _never_needs_quotes(column, dialect):
        return texts
    needed = pc.match_substring_regex(texts, f'[\r\n"{re.escape(dialect.delimiter[0])}]')
    alone = len(schema.columns) == 1
    if schema.csv is None or (alone and dialect.quoted_empty):
        # Only so can a reader tell an empty text from a null, or an empty line from a row.
        empty = pc.equal(texts, "")
        needed = pc.or_(needed, empty if alone else pc.and_(empty, values.is_valid()))
    if not pc.any(needed, min_count=0).as_py():
        return texts
    return pc.if_else(needed, _in_quotes(texts), texts)


def _never_needs_quotes(column: Column, dialect: CsvDialect) -> bool:
    """Whether numbers and times, spelled as the column spells them, cannot hold the delimiter."""
    mark = dialect.delimiter[0]
    spelled = (column.text_format or "") + (column.null_text or "")
    return column.text_format is not None and mark in ",;\t|" and mark not in spelled and '"' not in spelled


def _in_quotes(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")


def _is_word(column: Column) -> bool:
    return column.kind in (Kind.text, Kind.categorical)


def _quoted_name(name: str, schema: Schema, dialect: CsvDialect) -> str:
    needs = any(mark in name for mark in (dialect.delimiter[0], '"', "\n", "\r")) or (
        not name and len(schema.columns) == 1
    )
    if dialect.quoting != "minimal" or needs:
        return '"' + name.replace('"', '""') + '"'
    return name


def _render_plainly(values: pa.Array) -> pa.Array:
    """Texts of values that never were text: as Arrow prints them, nested ones as JSON, bytes as hex."""
    type_ = values.type
    if pa.types.is_dictionary(type_):
        return _render_plainly(pc.cast(values, type_.value_type))
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return pa.array([None if value is None else value.hex() for value in values.to_pylist()], pa.string())
    try:
        return pc.cast(values, pa.string())
    except pa.ArrowNotImplementedError:
        import json

        texts = [None if value is None else json.dumps(value, default=str) for value in values.to_pylist()]
        return pa.array(texts, pa.string())


def _misfits(forms: list[TextFormat], texts: pa.Array) -> list[str]:
    """Texts that none of the formats prints; once there are more than `MAX_STRAYS`, no more are sought."""
    if surviving_formats(forms, texts):
        return []
    if len(texts) == 1:
        return texts.to_pylist()
    half = len(texts) // 2
    found = _misfits(forms, texts[:half])
    return found if len(found) > MAX_STRAYS else found + _misfits(forms, texts[half:])


def _fits(forms: list[TextFormat], text: str) -> bool:
    return any(comes_back(form, pa.array([text])) for form in forms)


def _with_wishes(column: Column, wanted: Column) -> Column:
    """What the given schema says beyond type and spelling."""
    if column.nullable and not wanted.nullable:
        raise SchemaError(f"column {column.name!r}: holds nulls, its schema allows none (nullable: false)")
    kind = wanted.kind if wanted.kind in (Kind.text, Kind.categorical) else column.kind
    return column.model_copy(update={"kind": kind, "bound": wanted.bound})
