"""Sources whose records are lines of text, and what is written in lines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..errors import InvalidArgument
from .source import Files, Source, Split, Urls, check_encoding, compression

_SPLIT = 32 << 20  # bytes of a file that are one rank's
_SPACE = re.compile(rb"[ \n\t\r\v\f]")

Parse = Callable[[str], Any]


class Text(Source):
    """Lines of files, each passed through `parse`; None of it is no record. The end of a line is not part of it."""

    files: Files

    def __init__(
        self, kind: str, urls: Urls, parse: Parse | None, encoding: str, storage_options: dict[str, Any] | None
    ) -> None:
        self.kind, self.files, self._parse, self._encoding = kind, Files(urls, storage_options), parse, encoding

    def splits(self) -> list[Split]:
        check_encoding(self._encoding)
        splits, position = [], 0
        for file in self.files.splits():
            step = max(file.nbytes if compression(file.url) else _SPLIT, 1)
            for begin in range(0, file.nbytes, step):
                end = min(begin + step, file.nbytes)
                splits.append(file.part(begin, end, position + begin, end - begin))
            position += file.nbytes
        return splits

    def blocks(self, split: Split, block: int, most: int, words: bool = False) -> Iterator[tuple[int, Any]]:
        """Lines that begin in the split, whole, with their position; compressed files are one split.

        words: blocks may end behind any word. Raises InvalidArgument for a line, or word, of more than `most` bytes.
        """
        compressed = compression(split.url) is not None
        with self.files.open_plain(split) as file:
            at = split.begin
            if at:  # the line that is under way belongs to the split before, unless it ends right here
                file.seek(at - 1)
                at += sum(map(len, _rest(file, words, block))) - 1
            while compressed or at < split.end:
                data: Any = file.read(block if compressed else min(block, split.end - at))
                if not data:
                    return
                last = data[-1:]
                if not (_SPACE.match(last) if words else last == b"\n"):
                    cut = max(data.rfind(end) for end in (b" \n\t\r\v\f" if words else b"\n")) + 1
                    if cut and len(data) == block and not compressed:  # the rest is read again
                        file.seek(at + cut)
                        data = memoryview(data)[:cut]
                    else:
                        pieces, nbytes = [data], len(data)
                        for piece in _rest(file, words, block):
                            pieces.append(piece)
                            nbytes += len(piece)
                            if nbytes > most:
                                raise InvalidArgument(
                                    f"{self.kind}: {split.url} has a {'word' if words else 'line'} of more than {most} "
                                    f"bytes near byte {at}, for which memory= has no room"
                                )
                        data = b"".join(pieces)
                yield split.position - split.begin + at, data
                at += len(data)

    def read(self, split: Split, block: int, most: int) -> Iterator[Iterable[Any]]:
        # Text and its lines take several times the bytes.
        for position, data in self.blocks(split, max(block // 8, 64 << 10), most // 4):
            try:
                lines = str(data, self._encoding).split("\n")
            except UnicodeDecodeError as error:
                where = position - split.position + split.begin + error.start
                raise InvalidArgument(
                    f"{self.kind}: {split.url} is not {self._encoding} at byte {where}; name its encoding="
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
                raise InvalidArgument(f"{self.kind}: {url} has a line {shown!r}: {error}") from None
            if record is not None:
                yield record


def _rest(file: io.BufferedReader, words: bool, block: int) -> Iterator[bytes]:
    """What is left of the line, or word, that is under way, and what ends it, in pieces."""
    while piece := file.peek(1)[:block] if words else file.readline(block):
        if not words:
            yield piece
            if piece[-1:] == b"\n":
                return
            continue
        space = _SPACE.search(piece)
        yield file.read(space.end() if space else len(piece))
        if space:
            return


def check_positions(splits: list[Split]) -> None:
    """Raises InvalidArgument for a file whose lines have no place in all files' bytes."""
    for split in splits:
        if compression(split.url):
            raise InvalidArgument(
                f"mapreduce: {split.url} is compressed, so its lines have no Positions; decompress it"
            )


def text(urls: Urls, encoding: str = "utf-8", *, storage_options: dict[str, Any] | None = None) -> Source:
    """Lines of text files, as str without their end.

    Args:
        urls: paths or fsspec URLs, of files, folders, or with * in them; those that end with .gz and the like are
            decompressed, and those in folders, or found by *, whose names begin with _ or . are left out. Large files
            are shared out in splits of 32 MiB, compressed ones are one split each.
        encoding: of the text, one whose lines end with the byte 10.
        storage_options: of the file system, as fsspec takes them: credentials for example.
    """
    return Text("text", urls, None, encoding, storage_options)


def jsonl(urls: Urls, encoding: str = "utf-8", *, storage_options: dict[str, Any] | None = None) -> Source:
    """What each line of JSON lines says, empty lines left out. Arguments: as of `text`."""
    return Text("jsonl", urls, lambda line: json.loads(line) if line.strip() else None, encoding, storage_options)


def libsvm(urls: Urls, *, storage_options: dict[str, Any] | None = None) -> Source:
    """Samples of libsvm files as (label, indices, values): float, int64 array, float64 array. Arguments: as of `text`.

    Indices are those of the file. Comments behind # and qid are left out.
    """
    return Text("libsvm", urls, _sample, "utf-8", storage_options)


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
