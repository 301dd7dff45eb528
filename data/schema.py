"""What a table's columns are: kinds, Arrow types, null spellings, text formats and error bounds.

A `Schema` is made from Arrow (`Schema.from_arrow`), by typing a text source, or from a YAML file::

    columns:
      - {name: dep_delay, kind: integer, bound: 5}
      - {name: time_hour, kind: timestamp, text_format: "%Y-%m-%dT%H:%M:%SZ"}
    csv: {delimiter: ";"}

Columns that the file does not list are inferred.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator, model_validator

from data.arrowtypes import decode_field, decode_metadata, encode_field, encode_metadata, parse_type
from data.bounds import Bound, parse_bound, resolve_bounds
from data.errors import BoundError, SchemaError
from data.faults import first_fault
from data.kinds import CATEGORY_CAP, DEFAULT_TYPES, Frozen, Kind, is_text, kind_of, listed

__all__ = [
    "CATEGORY_CAP",
    "Bound",
    "Column",
    "ColumnStats",
    "CsvDialect",
    "Frozen",
    "Kind",
    "Schema",
    "TxtDialect",
    "is_text",
    "kind_of",
    "listed",
    "parse_bound",
    "resolve_bounds",
]

BOUND_FORMS: list[JsonValue] = [{"type": "string"}, {"type": "number", "minimum": 0}, {"type": "null"}]
"""What a form takes for a bound; a number is read as its text."""


class Column(Frozen):
    """One column of a table."""

    name: str
    """Name, unique in its table."""
    kind: Kind
    """What the values mean."""
    arrow: str = ""
    """Arrow type, as pyarrow prints it; by default the usual one of the kind."""
    nullable: bool = True
    """Whether nulls may occur."""
    null_text: str | None = None
    """How the source text spells null; None where the source is not text or has no nulls."""
    text_format: str | None = None
    """How values print to CSV, e.g. `int`, `fixed:2`, `shortest`, a timestamp pattern (see `data.csvtext`)."""
    bound: str | None = Field(default=None, json_schema_extra={"anyOf": BOUND_FORMS})
    """Error bound as written, e.g. `0.5` or `1%`; None is exact."""
    ipc: str | None = None
    """The Arrow field, serialised, base64; only for types whose printed name does not say all."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        filled: dict[str, Any] = {str(key): value for key, value in values.items()}
        if isinstance(filled.get("bound"), int | float):
            filled["bound"] = str(filled["bound"])
        if not filled.get("arrow") and filled.get("kind") in DEFAULT_TYPES:
            filled["arrow"] = DEFAULT_TYPES[Kind(filled["kind"])]
            if filled["kind"] == Kind.timestamp and str(filled.get("text_format", "")).endswith(
                ("Z", "+00:00")
            ):
                filled["arrow"] = "timestamp[s, tz=UTC]"
        return filled

    @field_validator("bound")
    @classmethod
    def _bound_is_meant(cls, bound: str | None, info: ValidationInfo) -> str | None:
        if bound is not None:
            try:
                parse_bound(bound)
            except BoundError as error:
                raise BoundError(f"column {info.data.get('name')!r}: {error}") from error
        return bound

    @property
    def type(self) -> pa.DataType:
        """The Arrow type."""
        return self.field.type

    @cached_property
    def field(self) -> pa.Field:
        """The Arrow field, with kind, null spelling and text format in its metadata."""
        if self.ipc is not None:
            field = decode_field(self.ipc, self.name).with_nullable(self.nullable)
        else:
            field = pa.field(self.name, parse_type(self.arrow, self.name), self.nullable)
        ours = {"svae.kind": self.kind.value, "svae.null": self.null_text, "svae.format": self.text_format}
        ours["svae.bound"] = self.bound
        metadata = dict(field.metadata or {})
        metadata.update({key.encode(): value.encode() for key, value in ours.items() if value is not None})
        return field.with_metadata(metadata)

    @classmethod
    def from_arrow(cls, field: pa.Field) -> Column:
        """Inverse of `field`; the kind of a foreign field is inferred from its type."""
        metadata: dict[bytes, bytes] = dict(field.metadata or {})
        names = {
            "kind": b"svae.kind",
            "null_text": b"svae.null",
            "text_format": b"svae.format",
            "bound": b"svae.bound",
        }
        kept = {name: metadata.pop(key).decode() for name, key in names.items() if key in metadata}
        metadata.pop(b"PARQUET:field_id", None)
        # What is left, an image's shape for example, stays in the field.
        bare = field.with_metadata(metadata or None)
        kept.setdefault("kind", kind_of(field.type).value)
        return cls.model_validate(
            {
                "name": field.name,
                "arrow": str(field.type),
                "nullable": field.nullable,
                "ipc": encode_field(bare),
                **kept,
            }
        )


class CsvDialect(Frozen):
    """How a CSV file was written, so that it can be written again."""

    delimiter: str = Field(default=",", min_length=1, max_length=2)
    """Between fields: one character, which a space may follow."""
    header: bool = True
    """Whether the first record holds the column names."""
    line_end: Literal["\n", "\r\n", "\r"] = "\n"
    """After each record."""
    final_line_end: bool = True
    """Whether the last record has its line end."""
    quoting: Literal["minimal", "all", "text"] = "minimal"
    """Which fields stand in double quotes: those that must, all, or the header and all of text columns."""
    quoted_empty: bool = False
    """Whether an empty field stands in quotes; told apart only where it is alone on its line."""
    bom: bool = False
    """Whether the file opens with a UTF-8 byte order mark."""


class TxtDialect(Frozen):
    """How a file of lines was written, so that it can be written again."""

    line_end: Literal["\n", "\r\n"] = "\n"
    """After each line."""
    final_line_end: bool = True
    """Whether the last line has its end."""
    bom: bool = False
    """Whether the file opens with a UTF-8 byte order mark."""


class Schema(Frozen):
    """The columns of a table, in order."""

    columns: tuple[Column, ...]
    """The columns."""
    csv: CsvDialect | None = None
    """How the source was written, if it was CSV."""
    txt: TxtDialect | None = None
    """How the source was written, if it was lines of text; found, never asked for."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Arrow metadata of the table as it came (pandas' for example); not UTF-8: `base64:` and the bytes."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Schema:
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise SchemaError(f"column name {name!r} occurs twice; rename one of the columns")
            seen.add(name)
        return self

    @property
    def names(self) -> list[str]:
        """Column names, in order."""
        return [column.name for column in self.columns]

    def column(self, name: str) -> Column:
        """The column of this name, or SchemaError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise SchemaError(f"there is no column {name!r}; {listed(self.names)}")

    def select(self, names: Sequence[str]) -> Schema:
        """These columns, in this order."""
        return self.model_copy(update={"columns": tuple(self.column(name) for name in names)})

    def with_wishes(self, wanted: Schema, place: str) -> Schema:
        """This schema, found in a typed source, with the kinds, bounds and nullability that another asks for.

        Raises:
            SchemaError: A column is missing or of another type; names `place`.
        """
        found = {column.name: column for column in self.columns}
        for wish in wanted.columns:
            if wish.name not in found:
                raise SchemaError(
                    f"{place}: has no column {wish.name!r}, which the schema asks for; {listed(self.names)}"
                )
            column = found[wish.name]
            same_kind = wish.kind is column.kind or {wish.kind, column.kind} == {Kind.text, Kind.categorical}
            if wish.type != column.type and not (same_kind and wish.arrow == DEFAULT_TYPES.get(wish.kind)):
                told = f"column {wish.name!r} is {column.arrow}, the schema asks for {wish.arrow}"
                raise SchemaError(f"{place}: {told}; mend one of them")
            update = {"kind": wish.kind, "bound": wish.bound, "nullable": column.nullable and wish.nullable}
            found[wish.name] = column.model_copy(update=update)
        return self.model_copy(update={"columns": tuple(found.values())})

    def to_arrow(self) -> pa.Schema:
        """The Arrow schema, with all that ours knows in its metadata."""
        metadata = decode_metadata(self.metadata)
        if self.csv is not None:
            metadata[b"svae.csv"] = self.csv.model_dump_json().encode()
        if self.txt is not None:
            metadata[b"svae.txt"] = self.txt.model_dump_json().encode()
        return pa.schema([column.field for column in self.columns], metadata or None)

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> Schema:
        """Inverse of `to_arrow`; kinds of foreign columns are inferred from their types (strings are text)."""
        metadata: dict[bytes, bytes] = dict(schema.metadata or {})
        dialect, lines = metadata.pop(b"svae.csv", None), metadata.pop(b"svae.txt", None)
        return cls(
            columns=tuple(Column.from_arrow(field) for field in schema),
            csv=None if dialect is None else CsvDialect.model_validate_json(dialect),
            txt=None if lines is None else TxtDialect.model_validate_json(lines),
            metadata=encode_metadata(metadata),
        )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self._plain(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Schema:
        """Inverse of `to_json`; SchemaError if the text is not a schema."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SchemaError(f"not a schema: {first_fault(error, cls)}") from error

    def to_yaml(self, path: str | Path) -> None:
        """Write the file that `from_yaml` reads."""
        import yaml

        Path(path).write_text(
            yaml.safe_dump(self._plain(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Schema:
        """Read a schema that a person wrote; SchemaError names the file and the first thing wrong in it."""
        import yaml

        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise SchemaError(f"{path}: there is no such schema file") from error
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise SchemaError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise SchemaError(f"{path}: {first_fault(error, cls)}") from error
        except (SchemaError, BoundError) as error:
            raise type(error)(f"{path}: {error}") from error

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)


class ColumnStats(Frozen):
    """What one pass over a column counts."""

    min: int | float | str | None = None
    """Smallest finite value, in the column's unit (timestamps as integers of their unit); None if there is none."""
    max: int | float | str | None = None
    """Largest finite value."""
    nulls: int = 0
    """Null values."""
    nans: int = 0
    """Values that are not a number."""
    infinities: int = 0
    """Values that are plus or minus infinity."""
    distinct: int | None = None
    """Distinct values, nulls not counted; None above `CATEGORY_CAP`."""
    mean: float | None = None
    """Mean of the finite values of a number column."""
    std: float | None = None
    """Their standard deviation (divided by n)."""
    categories: tuple[str, ...] | None = None
    """The distinct values of a categorical column, sorted."""
