"""A corpus of any size with the word statistics of natural language: Zipf's law, and frequent words are short."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VOCABULARY = 2_000_000  # words
SHIFT, EXPONENT = 2.7, 1.0  # Zipf and Mandelbrot: the word of rank r has a probability of 1 / (r + SHIFT) ** EXPONENT
WORDS = 120  # a line, on average: a line is a document


def vocabulary(rng: np.random.Generator) -> list[bytes]:
    """Distinct words of lower-case letters, the frequent ones first: spelled as numbers, so lengths grow slowly."""
    letters = b"etaoinshrdlucmfwypvbgkjqxz"
    words = []
    for number in range(VOCABULARY):
        word = bytearray()
        rest = number + 1
        while rest:
            rest, digit = divmod(rest - 1, 26)
            word.append(letters[(digit + 7 * len(word)) % 26])
        words.append(bytes(word) if number < 300 else bytes(word) + letters[number % 23 : number % 23 + number % 4])
    head = words[1000:]
    rng.shuffle(head)  # beyond the head, length says nothing about rank
    return list(dict.fromkeys(words[:1000] + head))


def write(folder: Path, nbytes: int, files: int = 16, seed: int = 1) -> list[Path]:
    """Text files of `nbytes` bytes in all, unless they are there from a call before."""
    paths = [folder / f"corpus-{nbytes}-{number:02}.txt" for number in range(files)]
    if all(path.exists() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary(np.random.default_rng(seed))
    weights = 1 / (np.arange(len(words)) + SHIFT) ** EXPONENT
    cumulated = np.cumsum(weights / weights.sum())
    for number, path in enumerate(paths):
        rng = np.random.default_rng([seed, number])
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            while file.tell() < nbytes / files:
                many = 1_000_000
                tokens = np.searchsorted(cumulated, rng.random(many)).clip(max=len(words) - 1).tolist()
                ends = np.cumsum(rng.geometric(1 / WORDS, many // 100))
                begin = 0
                for end in [*ends[ends < many].tolist(), many]:
                    file.write(b" ".join([words[token] for token in tokens[begin:end]]) + b"\n")
                    begin = end
        draft.rename(path)
    return paths
