"""Sources whose records are lines of text, and what is written in lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..errors import InvalidArgument
from .source import Source, Split, open_files

_SPLIT = 32 << 20  # bytes of a file that are one rank's
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst", ".lzma")

Parse = Callable[[str], Any]


class Text(Source):
    """Lines of files, each passed through `parse`; None of it is no record. The end of a line is not part of it."""

    def __init__(self, kind: str, urls: str | Iterable[str], parse: Parse | None, encoding: str) -> None:
        self._kind, self._urls, self._parse, self._encoding = kind, urls, parse, encoding

    def splits(self) -> list[Split]:
        splits, position = [], 0
        for url, nbytes in open_files(self._urls):
            step = nbytes if url.endswith(_COMPRESSED) else _SPLIT
            for begin in range(0, nbytes, max(step, 1)):
                end = min(begin + step, nbytes)
                splits.append(Split(url, begin, end, position + begin, end - begin))
            position += nbytes
        return splits

    def blocks(self, split: Split, block: int) -> Iterator[tuple[int, Any]]:
        """Lines that begin in the split, whole, with their position; compressed files are one split."""
        import fsspec

        compressed = split.url.endswith(_COMPRESSED)
        with fsspec.open(split.url, "rb", compression="infer" if compressed else None).open() as file:
            at = split.begin
            if at:  # the line that is under way belongs to the split before, unless it ends right here
                file.seek(at - 1)
                at += len(file.readline()) - 1
            while compressed or at < split.end:
                data = file.read(block if compressed else min(block, split.end - at))
                if not data:
                    return
                if data[-1:] != b"\n":
                    cut = data.rfind(b"\n") + 1
                    if cut and len(data) == block:  # the rest is read again
                        if compressed:
                            data += file.readline()
                        else:
                            file.seek(at + cut)
                            data = memoryview(data)[:cut]
                    else:
                        data += file.readline()
                yield split.position - split.begin + at, data
                at += len(data)

    def read(self, split: Split, block: int) -> Iterator[Iterable[Any]]:
        # Text and its lines take several times the bytes.
        for position, data in self.blocks(split, max(block // 8, 64 << 10)):
            try:
                lines = str(data, self._encoding).split("\n")
            except UnicodeDecodeError as error:
                where = position - split.position + split.begin + error.start
                raise InvalidArgument(
                    f"{self._kind}: {split.url} is not {self._encoding} at byte {where}; name its encoding=, or Words"
                ) from None
            if not lines[-1]:
                lines.pop()
            yield self._parsed(split.url, lines) if self._parse else [line.removesuffix("\r") for line in lines]

    def _parsed(self, url: str, lines: list[str]) -> Iterator[Any]:
        assert self._parse
        for line in lines:
            try:
                record = self._parse(line)
            except (ValueError, IndexError) as error:
                shown = line if len(line) <= 80 else line[:77] + "..."
                raise InvalidArgument(f"{self._kind}: {url} has a line {shown!r}: {error}") from None
            if record is not None:
                yield record


def check_positions(splits: list[Split]) -> None:
    """Raises InvalidArgument for a file whose lines have no place in all files' bytes."""
    for split in splits:
        if split.url.endswith(_COMPRESSED):
            raise InvalidArgument(
                f"mapreduce: {split.url} is compressed, so its lines have no Positions; decompress it"
            )


def text(urls: str | Iterable[str], encoding: str = "utf-8") -> Source:
    """Lines of text files, as str without their end.

    urls: paths or fsspec URLs, of files, folders, or with * in them; those that end with .gz and the like are
    decompressed. Large files are shared out in splits of 32 MiB, compressed ones are one split each.
    """
    return Text("text", urls, None, encoding)


def jsonl(urls: str | Iterable[str], encoding: str = "utf-8") -> Source:
    """What each line of JSON lines says, empty lines left out. urls: as in `text`."""
    return Text("jsonl", urls, lambda line: json.loads(line) if line.strip() else None, encoding)


def libsvm(urls: str | Iterable[str]) -> Source:
    """Samples of libsvm files as (label, indices, values): float, int64 array, float64 array. urls: as in `text`.

    Indices are those of the file. Comments behind # and qid are left out.
    """
    return Text("libsvm", urls, _sample, "utf-8")


def _sample(line: str) -> tuple[float, np.ndarray, np.ndarray] | None:
    fields = line.partition("#")[0].split()
    if not fields:
        return None
    pairs = [field.split(":") for field in fields[1:] if not field.startswith("qid:")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("wanted a label, then index:value")
    indices = np.array([int(index) for index, _ in pairs], np.int64)
    return float(fields[0]), indices, np.array([float(value) for _, value in pairs])


__all__ = ["jsonl", "libsvm", "text"]
