"""Where records come from: splits of files that ranks share out, or what each rank has."""

from __future__ import annotations

import codecs
import contextlib
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import Error, InvalidArgument

if TYPE_CHECKING:
    from ..comm import Communicator

Urls = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
#: Ends of names, what fsspec calls them, and the package that has them where it is not Python's own.
_COMPRESSED = {
    ".gz": ("gzip", ""),
    ".bz2": ("bz2", ""),
    ".xz": ("xz", ""),
    ".lzma": ("lzma", ""),
    ".zip": ("zip", ""),
    ".zst": ("zstd", "zstandard"),
    ".lz4": ("lz4", "lz4"),
}


@dataclass(frozen=True)
class Split:
    """A part of a file that one rank reads: of bytes, or of row groups."""

    url: str
    begin: int
    end: int
    position: int = 0  # of its begin, in all files
    nbytes: int = 0
    path: str = ""  # of the file, in the file system of `root`
    root: str = ""  # the URL that was asked for

    def part(self, begin: int, end: int, position: int, nbytes: int) -> Split:
        return Split(self.url, begin, end, position, nbytes, self.path, self.root)


class Source:
    """What a job reads. `splits` is called on rank 0 alone, `read` where a split went.

    Attributes: `kind` (str, for messages), `files` (None where a rank's records come from elsewhere).
    """

    kind = "records"
    files: Files | None = None

    def splits(self) -> list[Split]:
        """All parts, in order."""
        raise NotImplementedError

    def read(self, split: Split, block: int, most: int) -> Iterator[Iterable[Any]]:
        """Its records, some at a time: as many as about `block` bytes of input hold.

        Raises InvalidArgument for a record of more than `most` bytes.
        """
        raise NotImplementedError


class Records(Source):
    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable

    def read(self, split: Split, block: int, most: int) -> Iterator[Iterable[Any]]:
        yield self.iterable


def records(iterable: Iterable[Any]) -> Source:
    """Records that this rank has itself: each rank passes its own, the Result of another job for example."""
    return Records(iterable)


class Files:
    """Files that URLs name, at any place that fsspec knows.

    Args:
        urls: paths or URLs, of files, folders, or with * in them.
        options: of the file systems, as fsspec takes them.
    """

    def __init__(self, urls: Urls, options: dict[str, Any] | None) -> None:
        self._urls = [urls] if isinstance(urls, (str, os.PathLike)) else list(urls)
        self._options = options
        self._systems: dict[str, tuple[Any, str]] = {}  # of URLs; an archive is open as long as its system lives

    def splits(self) -> list[Split]:
        """Each file as one split, in order; names that begin with _ or . are left out where they are not asked for."""
        splits: list[Split] = []
        for named in self._urls:
            url = os.fspath(named)
            system, path = self._system(url)
            chain = "::" + url.partition("::")[2] if "::" in url else ""
            found = _found(system, path)
            if not found:
                raise InvalidArgument(f"mapreduce: {url!r} names no file")
            splits += [
                Split(system.unstrip_protocol(name) + chain, 0, nbytes, 0, nbytes, name, url) for name, nbytes in found
            ]
        if not splits:
            raise InvalidArgument("mapreduce: got no files to read")
        for split in splits:
            compression(split.url)
        return splits

    def open(self, split: Split) -> Any:
        """The split's file, of bytes, as it lies there."""
        system, _ = self._system(split.root)
        return system.open(split.path, "rb")

    @contextlib.contextmanager
    def open_plain(self, split: Split) -> Iterator[io.BufferedReader]:
        """The split's file, of bytes, decompressed if its name says that it is compressed.

        Raises Error that names the file, if it cannot be read, or is not what its name says.
        """
        try:
            with self.open(split) as file, io.BufferedReader(_decompressed(file, split.url)) as plain:
                yield plain
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise Error(f"mapreduce: cannot read {split.url}: {error}") from error

    def check_outside(self, splits: list[Split], folder: str, options: dict[str, Any] | None) -> None:
        """Raises InvalidArgument if one of the files lies in `folder`, where a job writes."""
        system, path = file_system(folder, options)
        begin = _real(system, path).rstrip("/") + "/"
        for split in splits:
            its, _ = self._system(split.root)
            if type(its) is type(system) and _real(its, split.path).startswith(begin):
                raise InvalidArgument(f"mapreduce: {split.url} is to be read, and lies in output={folder!r}")

    def _system(self, url: str) -> tuple[Any, str]:
        if url not in self._systems:
            self._systems[url] = file_system(url, self._options)
        return self._systems[url]


def file_system(url: str, options: dict[str, Any] | None) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InvalidArgument("mapreduce: files need fsspec: pip install 'pycoll[mapreduce]'") from None
    return url_to_fs(url, **(options or {}))


def _found(system: Any, path: str) -> list[tuple[str, int]]:
    """Name and bytes of the files."""
    parts = PurePosixPath(path).parts
    if any(sign in path for sign in "*?[") and not system.exists(path):
        found = system.glob(path, detail=True)
        given = next(place for place, part in enumerate(parts) if any(sign in part for sign in "*?["))
        given += parts[given][0] in "_."  # a pattern such as _*
    elif system.isdir(path):
        found, given = system.find(path, detail=True), len(parts)
    elif system.exists(path):
        return [(path, int(system.size(path)))]
    else:
        return []
    return [
        (name, int(info["size"]))
        for name, info in sorted(found.items())
        if info["type"] == "file" and not any(part[0] in "_." for part in PurePosixPath(name).parts[given:])
    ]


def compression(url: str) -> str | None:
    """What fsspec calls a file's compression, by its name. Raises InvalidArgument if it cannot be undone here."""
    known = _COMPRESSED.get(PurePosixPath(url.partition("::")[0]).suffix.lower())
    if not known:
        return None
    codec, package = known
    from fsspec.compression import compr

    if codec not in compr:
        raise InvalidArgument(f"mapreduce: {url} is compressed with {codec}, which needs {package or codec}, a package")
    return codec


def check_encoding(encoding: str) -> None:
    """Raises InvalidArgument unless lines of text in `encoding` end with the byte \\n."""
    try:
        if codecs.decode(b"\n", encoding) == "\n":
            return
    except (LookupError, UnicodeDecodeError):
        pass
    raise InvalidArgument(f"mapreduce: encoding is {encoding!r}, wanted one whose lines end with the byte 10, as UTF-8")


def _decompressed(file: Any, url: str) -> Any:
    codec = compression(url)
    if not codec:
        return file
    from fsspec.compression import compr

    if codec == "zip":
        _check_zip(file, url)
    return compr[codec](file, mode="rb")


def _check_zip(file: Any, url: str) -> None:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise InvalidArgument(f"mapreduce: {url} has {len(names)} files, wanted one; name them: zip://*::{url}")
    file.seek(0)


def _real(system: Any, path: str) -> str:
    """One path a file, where links may lead to it as well."""
    from fsspec.implementations.local import LocalFileSystem

    return os.path.realpath(path) if isinstance(system, LocalFileSystem) else path


def share(splits: list[Split], comm: Communicator) -> list[Split]:
    """This rank's: consecutive ones, of about as many bytes as every other rank's."""
    total = sum(split.nbytes for split in splits) or 1
    mine, before = [], 0
    for split in splits:
        middle = before + split.nbytes / 2
        before += split.nbytes
        if min(int(comm.size * middle / total), comm.size - 1) == comm.rank:
            mine.append(split)
    return mine


__all__ = ["Source", "records"]
