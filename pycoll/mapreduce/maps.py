"""Maps that the core has: as fast as the memory they look words up in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Words:
    """A map of text to (word, 1) for each word: with ``reduce="sum"`` a word count.

    A word is what lies between white space, as ``bytes.split()`` has it. Over `text()` lines are not even decoded, and
    its encoding is not asked for: words are the bytes of the file as UTF-8, with surrogates for what is not (PEP 383).
    """

    def __call__(self, line: str) -> Iterator[tuple[str, int]]:
        return self.pairs(line.encode("utf-8", "surrogateescape").split())

    def pairs(self, words: Iterable[bytes]) -> Iterator[tuple[str, int]]:
        for word in words:
            yield word.decode("utf-8", "surrogateescape"), 1


class Positions:
    """A map of text to (word, position of its line) for each word: with ``reduce="set"`` an inverted index.

    A position is the number of bytes before the line, in its file and in all files before it. Only over `text()`.
    """


__all__ = ["Positions", "Words"]
