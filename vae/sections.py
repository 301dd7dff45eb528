"""What the evaluation page is made of: sections of words, tables and pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FIGURES = {
    "training.png": ("Training", "Curves of the loss in training and of a validation row's bits, over the steps."),
    "bits.png": ("Bits by column", "Bars of the bits a row takes, one a column, the dearest first."),
    "codes.png": ("Use of the latents", "Bars of how often each latent is on, and of how many are on in a row."),
    "originals.png": ("Originals and the code alone", "Each column as it was against what the code alone gives back."),
}  # fmt: skip
RIVALS = {
    "source": "source, as handed over",
    "csv": "CSV",
    "parquet_snappy": "Parquet, snappy",
    "parquet_zstd19": "Parquet, zstd level 19",
    "parquet_brotli11": "Parquet, brotli level 11",
    "pcodec": "pcodec, level 12",
}
"""Names of files that a report or an evaluation has sizes of."""


SHRUNK_PIXELS = 640
"""Width up to which a picture is shrunk on a phone; wider ones keep their size, and are moved."""


class Table(NamedTuple):
    """A table; the first cell of a row names it."""

    caption: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    """Columns that are numbers."""
    shares: Sequence[float] = ()
    """Per cent of the largest, one a row, drawn as bars."""
    ours: Sequence[int] = ()
    """Rows that are this project's, or that the others are compared with."""


class Figure(NamedTuple):
    """A picture, as a data URI."""

    data: str
    alt: str
    caption: str
    small: bool = False
    """Whether several fit beside each other, and each on a phone."""
    fits: bool = False
    """Whether it has so few pixels that it is seen as well when it is shrunk to a phone's width."""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


def pictures(paths: Sequence[Path]) -> list[Figure]:
    """PNG files of an evaluation as the page holds them; files of other names are left out."""
    return [
        picture(path.read_bytes(), FIGURES[path.name][1], FIGURES[path.name][0])
        for path in paths
        if path.name in FIGURES
    ]


def picture(png: bytes, alt: str, caption: str) -> Figure:
    """A PNG file as the page holds it."""
    wide = int.from_bytes(png[16:20], "big")
    data = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Figure(data, alt, caption, fits=wide <= SHRUNK_PIXELS)
