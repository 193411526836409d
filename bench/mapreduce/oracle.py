"""What counts and index of a corpus are: one process, plain Python, none of pycoll's code. Kept beside the corpus."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

MASK = 2**64 - 1


def digest(pairs: Iterable[tuple[bytes, bytes]]) -> str:
    """Of pairs in any order."""
    total = 0
    for key, value in pairs:
        hashed = hashlib.blake2b(len(key).to_bytes(8, "little") + key + value, digest_size=8).digest()
        total += int.from_bytes(hashed, "little")
    return f"{total & MASK:016x}"


def whole(number: int) -> bytes:
    return number.to_bytes(8, "little")


def of(paths: list[Path]) -> dict[str, object]:
    """Digests of word counts, of the numbers of lines of each word, and of the positions of these lines."""
    kept = paths[0].with_suffix(".oracle.json")
    if kept.exists():
        return json.loads(kept.read_text())
    counts: Counter[bytes] = Counter()
    index: defaultdict[bytes, array[int]] = defaultdict(lambda: array("q"))
    position = 0
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                words = line.split()
                counts.update(words)
                for word in set(words):
                    index[word].append(position)
                position += len(line)
    facts = {
        "bytes": position,
        "words": counts.total(),
        "distinct": len(counts),
        "postings": sum(len(lines) for lines in index.values()),
        "counts": digest((word, whole(count)) for word, count in counts.items()),
        "frequencies": digest((word, whole(len(lines))) for word, lines in index.items()),
        "index": digest((word, lines.tobytes()) for word, lines in index.items()),
    }
    kept.write_text(json.dumps(facts, indent=1))
    return facts
