"""Where bytes come from: local paths, globs, folders, and the file systems that Arrow knows (`s3://`, `gs://` ...)."""

from __future__ import annotations

import glob
import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.fs

from data.errors import SourceError

fs: Any = pyarrow.fs

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".npy": "npy",
    ".npz": "npz",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".idx": "idx",
    "-ubyte": "idx",
    ".png": "image",
    ".jpg": "image",
    ".jpeg": "image",
}
"""Ends of names that are read; `.gz` or `.zip` may follow those of `PACKED_FORMATS`."""
TEXT_FORMATS = ("csv", "jsonl", "txt")
PACKED_FORMATS = (*TEXT_FORMATS, "idx")
_KNOWN = f"known are {', '.join(FORMATS)}, and .gz or .zip of text files and idx"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class DataFile:
    """One file, compressed or not, on some file system."""

    path: str
    system: Any
    format: str
    size: int
    """Stored bytes."""
    changed: int | None
    """Time of the last change in nanoseconds, where the file system keeps it."""
    root: str = ""
    """The folder that was named, if the file was found below one."""

    @property
    def compression(self) -> str:
        """`gz`, `zip` or nothing."""
        return next((ending for ending in ("gz", "zip") if self.path.lower().endswith(f".{ending}")), "")

    @contextmanager
    def open(self) -> Generator[BinaryIO]:
        """The content, decompressed, as a stream.

        Raises:
            SourceError: The file cannot be opened or decompressed.
        """
        with explained(self.path), self.system.open_input_file(self.path) as raw:
            if self.compression == "gz":
                with gzip.open(raw) as stream:
                    yield cast(BinaryIO, stream)
            elif self.compression == "zip":
                with zipfile.ZipFile(raw) as archive, self._open_member(archive) as stream:
                    yield stream
            else:
                yield raw

    @contextmanager
    def open_stored(self) -> Generator[Any]:
        """The file as it is stored: seekable."""
        with explained(self.path), self.system.open_input_file(self.path) as raw:
            yield raw

    def digest(self) -> bytes:
        """SHA-256 of the stored bytes."""
        digest = hashlib.sha256()
        with self.open_stored() as raw:
            while block := raw.read(_BLOCK):
                digest.update(block)
        return digest.digest()

    def content_bytes(self) -> int:
        """Bytes after decompression."""
        if not self.compression:
            return self.size
        if self.compression == "zip":
            with self.open_stored() as raw, zipfile.ZipFile(raw) as archive:
                return archive.getinfo(self._member(archive)).file_size
        count = 0
        with self.open() as stream:
            while block := stream.read(_BLOCK):
                count += len(block)
        return count

    def is_unchanged(self) -> bool:
        """Whether size and time of the last change are what they were when the source was opened."""
        info = self.system.get_file_info(self.path)
        return info.type == fs.FileType.File and (info.size, info.mtime_ns) == (self.size, self.changed)

    def _open_member(self, archive: zipfile.ZipFile) -> BinaryIO:
        try:
            return cast(BinaryIO, archive.open(self._member(archive)))
        except RuntimeError as error:  # Encrypted, or packed by a method that Python does not know.
            raise SourceError(f"{self.path}: cannot be unpacked: {one_line(error)}") from error

    def _member(self, archive: zipfile.ZipFile) -> str:
        names = [
            name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if len(names) != 1:
            shown = ", ".join(names[:5]) or "nothing"
            raise SourceError(
                f"{self.path}: must hold one file, holds {shown}; unpack it and name a file or the folder"
            )
        return names[0]


@contextmanager
def explained(place: str) -> Generator[None]:
    """Turn what reading damaged or forbidden files raises into one clear `SourceError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"{place}: there is no such file") from error
    except OSError as error:
        if error.errno is not None:
            raise SourceError(f"{place}: cannot be read: {error.strerror or one_line(error)}") from error
        raise SourceError(_damaged(place, error)) from error
    except (pa.ArrowException, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SourceError(_damaged(place, error)) from error


def _damaged(place: str, error: Exception) -> str:
    return f"{place}: damaged or cut short: {one_line(error)}; fetch it again"


def one_line(error: BaseException) -> str:
    """An error's message on one line of bounded length."""
    return " ".join(str(error).split())[:300]


def find_files(uri: str) -> list[DataFile]:
    """The files that a path, folder, glob or URI names, in the order of their names.

    Text files beside those of another kind are taken for notes on them, and left out.

    Raises:
        SourceError: Nothing there, or files of no or several known formats.
    """
    system, path, is_remote = _file_system(uri)
    try:
        with explained(uri):
            infos, root = _list(system, path, is_remote)
    except UnicodeError as error:
        raise SourceError(f"{uri}: holds a name that is not UTF-8; give the file another") from error
    files = [_data_file(system, info, root) for info in infos]
    if len(infos) == 1 and files[0] is None:
        raise SourceError(f"{uri}: not a known kind of file; {_KNOWN}")
    known_files = [file for file in files if file is not None]
    if not known_files:
        raise SourceError(f"{uri}: no data files here; {_KNOWN}")
    if any(file.format != "txt" for file in known_files):
        known_files = [file for file in known_files if file.format != "txt"]
    formats = sorted({file.format for file in known_files})
    if len(formats) > 1:
        raise SourceError(
            f"{uri}: holds files of several kinds ({', '.join(formats)}); name one kind with a glob"
        )
    return known_files


def local_file(path: Path, form: str) -> DataFile:
    """One local file whose format its name does not tell; SourceError if it is not there."""
    with explained(str(path)):
        info = path.stat()
    return DataFile(str(path), fs.LocalFileSystem(), form, info.st_size, info.st_mtime_ns)


def joint_digest(files: Iterable[DataFile]) -> str:
    """SHA-256 of the files' bytes in their order, hex; independent of names and times."""
    digests = [file.digest() for file in files]
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()


def _file_system(uri: str) -> tuple[Any, str, bool]:
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).expanduser()), False
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{uri}: no file system for this address: {one_line(error)}") from error
    return system, path, not isinstance(system, fs.LocalFileSystem)


def _list(system: Any, path: str, is_remote: bool) -> tuple[list[Any], str]:
    """File infos of a file, of all files below a folder (which is told, too), or of a glob's matches."""
    info = system.get_file_info(path)
    if info.type == fs.FileType.File:
        return [info], ""
    if info.type == fs.FileType.Directory:
        below = system.get_file_info(fs.FileSelector(path, recursive=True))
        base = len(path.rstrip("/")) + 1
        return sorted((item for item in below if _is_visible(item, base)), key=lambda item: item.path), path
    if not is_remote and glob.has_magic(path):
        matches = sorted(match for match in glob.glob(path, recursive=True) if Path(match).is_file())  # noqa: PTH207
        if not matches:
            raise SourceError(f"{path}: no file matches")
        return [system.get_file_info(match) for match in matches], ""
    raise FileNotFoundError(path)


def _is_visible(info: Any, base: int) -> bool:
    hidden = any(part.startswith((".", "_")) for part in PurePosixPath(info.path[base:]).parts)
    return info.type == fs.FileType.File and not hidden


def _data_file(system: Any, info: Any, root: str) -> DataFile | None:
    name = PurePosixPath(info.path.lower())
    packed = name.suffix in {".gz", ".zip"}
    bare = name.stem if packed else name.name
    form = next((form for ending, form in FORMATS.items() if bare.endswith(ending) and bare != ending), None)
    if form is None or (packed and form not in PACKED_FORMATS):
        return None
    return DataFile(info.path, system, form, info.size, info.mtime_ns, root)
