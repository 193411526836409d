"""Where records come from: splits of files that ranks share out, or what each rank has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from ..comm import Communicator


@dataclass(frozen=True)
class Split:
    """A part of a file that one rank reads: of bytes, or of row groups."""

    url: str
    begin: int
    end: int
    position: int = 0  # of its begin, in all files
    nbytes: int = 0


class Source:
    """What a job reads. `splits` is called on rank 0 alone, `read` where a split went."""

    def splits(self) -> list[Split]:
        """All parts, in order."""
        raise NotImplementedError

    def read(self, split: Split, block: int) -> Iterator[Iterable[Any]]:
        """Its records, some at a time: as many as about `block` bytes of input hold."""
        raise NotImplementedError

    def blocks(self, split: Split, block: int) -> Iterator[tuple[int, Any]]:
        """Its text as (position, whole lines). Only of `text()`."""
        raise InvalidArgument("mapreduce: Positions is a map of text(), got another source")


class Records(Source):
    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable

    def read(self, split: Split, block: int) -> Iterator[Iterable[Any]]:
        yield self.iterable


def records(iterable: Iterable[Any]) -> Source:
    """Records that this rank has itself: each rank passes its own, the Result of another job for example."""
    return Records(iterable)


def open_files(urls: str | Iterable[str]) -> list[tuple[str, int]]:
    """URL and bytes of each file that `urls` name; patterns with * are expanded, folders taken whole."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InvalidArgument("mapreduce: reading files needs fsspec: pip install 'pycoll[mapreduce]'") from None
    files = []
    for url in [urls] if isinstance(urls, str) else urls:
        system, path = url_to_fs(str(url))
        if "*" in path or "?" in path or "[" in path:
            found = sorted(system.glob(path))
        elif system.isdir(path):
            found = sorted(system.find(path))
        else:
            found = [path]
        if not found or not system.exists(found[0]):
            raise InvalidArgument(f"mapreduce: {url!r} names no file")
        files += [(system.unstrip_protocol(name), int(system.size(name))) for name in found]
    if not files:
        raise InvalidArgument("mapreduce: got no files to read")
    return files


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
