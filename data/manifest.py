"""The manifest of an ingested dataset: what it is, where it came from, how it is split."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from data.errors import SourceError
from data.schema import ColumnStats, Frozen, Schema
from data.split import Split

MANIFEST_NAME = "manifest.json"
FORMAT = 1
"""Version of typing, layout and statistics: a dataset of another version is made again."""


class Part(Frozen):
    """One Parquet file of a dataset."""

    path: str
    """Relative to the dataset's folder."""
    rows: int = Field(ge=0)
    """Rows in it."""
    bytes: int = Field(ge=0)
    """Its size."""


class Origin(Frozen):
    """The source that a dataset was made from."""

    uri: str
    """As it was named."""
    source_bytes: int
    """Bytes as handed over, decompressed (for arrays their raw bytes)."""
    stored_bytes: int
    """Bytes on disk."""
    digest: str
    """SHA-256 of the stored bytes, hex."""
    request: str | None = None
    """Digest of the schema that was asked for; None if all was inferred."""


class Manifest(Frozen):
    """Everything known of a dataset without opening its Parquet."""

    format: int = FORMAT
    """Version of the layout."""
    schema_: Schema = Field(alias="schema")
    """Columns, as typed."""
    rows: int
    """Rows of all parts."""
    digest: str
    """SHA-256 of the content, hex; the same however source and parts are cut."""
    columns: dict[str, ColumnStats]
    """Statistics by column name."""
    split: Split
    """Which rows train, validate and test."""
    source: Origin
    """Where the rows came from."""
    parts: tuple[Part, ...]
    """The Parquet files, in row order."""

    @property
    def schema(self) -> Schema:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Columns, as typed."""
        return self.schema_

    def in_folder(self, name: str) -> Manifest:
        """The same with its parts in the subfolder `name`."""
        moved = tuple(
            part.model_copy(update={"path": f"{name}/{Path(part.path).name}"}) for part in self.parts
        )
        return self.model_copy(update={"parts": moved})

    def to_json(self) -> str:
        """Indented JSON, as it stands in `manifest.json`."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_defaults=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a dataset's folder.

        Raises:
            SourceError: There is none, or it is damaged.
        """
        path = folder / MANIFEST_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceError(
                f"{folder}: is not a dataset (no {MANIFEST_NAME}); make one with `svae ingest SOURCE --out {folder}`"
            ) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: is damaged or of another version; ingest the source again") from error
