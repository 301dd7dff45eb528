"""A table's images as a folder of PNG files.

A file's name is what the column `file` says; where it says nothing it is the row's number, in a folder named by the
column `label` if there is one. Names come from archives, which anybody may have made: none leads out of the folder.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.atomic import (
    check_writable,
    made_parents,
    remove_tree,
    sync_file,
    sync_folder,
    temporary_name,
    writing,
)
from data.errors import DataError, UsageError
from data.imagefiles import pillow
from data.images import Shape, image_shape, images_of
from data.kinds import listed
from data.schema import Schema

_MOST_PARTS = 16
_SYNCED_AT_ONCE = 16
_PLAIN = re.compile(r"[^./\\:\x00-\x1f\x7f][^/\\:\x00-\x1f\x7f]{0,254}")
"""One part of a name: not hidden, not `..`, nothing that a shell or another system takes for a path."""
_BY_NUMBER = "leave the column out (--columns), and files are named by row number"


def image_column(schema: Schema) -> tuple[str, Shape]:
    """The one column of images of a table that a folder can hold, and their shape.

    Raises:
        UsageError: There is none, or there are several, or there is more than images and their names.
    """
    arrow = schema.to_arrow()
    shapes = {name: image_shape(arrow, name) for name in schema.names}
    found = [(name, shape) for name, shape in shapes.items() if shape is not None]
    others = [name for name, shape in shapes.items() if shape is None and name not in {"file", "label"}]
    if len(found) != 1:
        what = "are several columns of images" if found else "is no column of images"
        raise UsageError(f"a folder is for images, and there {what}; {listed(schema.names)}")
    if others:
        raise UsageError(
            f"a folder of images has no place for column {others[0]!r}; leave it out (--columns)"
        )
    return found[0]


def check_free(path: Path) -> None:
    """DataError where a folder cannot appear under this name."""
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise DataError(f"{path}: is there and not an empty folder; name a new one")
    check_writable(path, folder=True)


def write_png_folder(batches: Iterable[pa.RecordBatch], schema: Schema, path: Path) -> None:
    """Write a PNG for each row into a new folder, which appears whole or not at all.

    Raises:
        UsageError: The table is not one of images.
        ExtraError: Pillow is not installed.
        DataError: The folder holds something, or a name is none that a file below it can have.
    """
    name, shape = image_column(schema)
    Image = pillow()
    check_free(path)
    with writing(path), made_parents(path):
        work = temporary_name(path)
        try:
            work.mkdir()
            row = 0
            for batch in batches:
                images = images_of(batch.column(schema.names.index(name)), shape)
                for image, file in zip(images, _files(batch, schema, row), strict=True):
                    target = _made(work, file, row)
                    Image.fromarray(image[..., 0] if shape[2] == 1 else image).save(target, "PNG")
                    row += 1
            _sync_tree(work)
            work.replace(path)  # An empty folder gives way.
        finally:
            remove_tree(work)
        sync_folder(path.parent)


def _files(batch: pa.RecordBatch, schema: Schema, row: int) -> Iterator[str]:
    """The names of a batch's files; `row` is its first row's number."""
    columns: dict[str, Any] = dict(zip(schema.names, batch.columns, strict=True))
    nulls: Any = pa.nulls(batch.num_rows)
    for place, file, label in zip(
        range(batch.num_rows), columns.get("file", nulls), columns.get("label", nulls), strict=True
    ):
        number = f"{row + place:08d}.png"
        if file.is_valid:
            yield _with_ending(str(file.as_py()))
        else:
            yield f"{label.as_py()}/{number}" if label.is_valid else number


def _with_ending(name: str) -> str:
    """A name that says PNG.

    >>> _with_ending("cat/1.jpg"), _with_ending("1.PNG"), _with_ending("1")
    ('cat/1.png', '1.PNG', '1.png')
    """
    return (
        name
        if name.lower().endswith(".png")
        else re.sub(r"(\.jpe?g)?$", ".png", name, count=1, flags=re.IGNORECASE)
    )


def _made(folder: Path, name: str, row: int) -> Path:
    """A new empty file of this name below a folder."""
    parts = name.split("/")
    if len(parts) > _MOST_PARTS or not all(_PLAIN.fullmatch(part) for part in parts):
        raise DataError(f"row {row}: {name!r} is not a name for a file in the folder; {_BY_NUMBER}")
    path = folder.joinpath(*parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"row {row}: {name!r} is the name of another row's file, too; {_BY_NUMBER}"
        ) from error
    except (OSError, UnicodeEncodeError) as error:
        if isinstance(error, OSError) and error.errno not in {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}:
            raise
        raise DataError(
            f"row {row}: {name!r} is not a name for a file in the folder; {_BY_NUMBER}"
        ) from error
    return path


def _sync_tree(folder: Path) -> None:
    """Flush all files and folders; side by side, since the disk takes many at once in the time of one."""
    places = [(Path(place), files) for place, _, files in os.walk(folder)]
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        list(pool.map(sync_file, (place / file for place, files in places for file in files)))
    for place, _ in places:
        sync_folder(place)
