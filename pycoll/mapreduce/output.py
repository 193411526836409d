"""Files that a job writes: one a rank, all of them under their names once all are whole, or none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import Merge
from ..errors import InvalidArgument, capture
from ..together import agree
from .columns import write_parquet
from .source import file_system

if TYPE_CHECKING:
    from ..comm import Communicator

#: What each format can hold: types of keys, and kinds of values (see csrc/records/value.h).
FORMATS = {
    "tsv": ({"str", "int", "float"}, set("nifsd")),
    "jsonl": ({"str", "int", "float", "tuple"}, set("nifsdp")),
    "parquet": ({"str", "bytes", "int", "float"}, set("ifsbd")),
}
_KINDS = {"n": "None", "i": "int", "f": "float", "s": "str", "b": "bytes", "p": "other objects", "d": "sets"}
_SHARD = re.compile(rf"part-\d{{5,}}-of-\d{{5,}}\.({'|'.join(FORMATS)})")


@dataclass(frozen=True)
class Kinds:
    """What all ranks' results are: the types of their keys, the kinds of their values."""

    keys: frozenset[str]
    values: frozenset[str]

    def fit(self, format: str) -> bool:
        keys, values = FORMATS[format]
        one = format != "parquet" or (len(self.keys) <= 1 and (len(self.values) <= 1 or self.values == {"i", "f"}))
        return one and self.keys <= keys and self.values <= values

    def check(self, format: str) -> None:
        """Raises InvalidArgument where the format cannot hold them."""
        if self.fit(format):
            return
        what = f"keys of type {' and '.join(sorted(self.keys))}"
        if self.values:
            what += f" and values of type {' and '.join(_KINDS[kind] for kind in sorted(self.values))}"
        others = " or ".join(other for other in FORMATS if self.fit(other))
        advice = f"write {others}" if others else "no format can, so leave output= out"
        raise InvalidArgument(f"mapreduce: results have {what}, which {format} cannot hold; {advice}")


class Output:
    """A folder and this rank's file in it."""

    def __init__(
        self, comm: Communicator, folder: Any, format: str, overwrite: bool, options: dict[str, Any] | None
    ) -> None:
        self.folder, self.options = os.fspath(folder).rstrip("/"), options
        self.format, self._comm, self._overwrite = format, comm, overwrite
        self._old: list[str] = []  # shards of a job before
        self._written: str | None = None  # path of this rank's file as long as it is not the result

    @property
    def files(self) -> list[str]:
        """URLs of all ranks' files."""
        return [f"{self.folder}/{self._name(rank)}" for rank in range(self._comm.size)]

    def prepare(self) -> None:
        """On rank 0: makes the folder, raises InvalidArgument if there are shards that are not to be replaced."""
        system, path = self._place()
        system.makedirs(path, exist_ok=True)
        entries = system.ls(path, detail=True)
        self._old = [e["name"] for e in entries if e["type"] == "file" and _SHARD.fullmatch(_last(e["name"]))]
        if self._old and not self._overwrite:
            raise InvalidArgument(
                f"mapreduce: {self.folder} has {len(self._old)} shards already; overwrite=True replaces them"
            )

    def write(self, merge: Merge, kinds: Kinds, bytes: int, step: Callable[[], None]) -> None:
        """All records of `merge` to a draft, about so many bytes at a time, with a call of `step` after each time."""
        system, path = self._place()
        self._written = f"{path}/.{self._name(self._comm.rank)}.draft"
        with system.open(self._written, "wb") as file:
            if self.format == "parquet":
                write_parquet(file, merge, kinds.keys, kinds.values, bytes, step)
                return
            for piece in _lines(merge, bytes) if self.format == "tsv" else _json_lines(merge, bytes):
                file.write(piece)
                step()

    def publish(self) -> None:
        """Gives all ranks' drafts their names; then shards of a job before are deleted. Collective."""
        system, path = self._place()
        name = f"{path}/{self._name(self._comm.rank)}"

        def rename() -> None:
            system.mv(self._written, name)
            self._written = name

        def delete() -> None:
            new = {self._name(rank) for rank in range(self._comm.size)}
            for old in self._old:
                if _last(old) not in new:
                    system.rm(old)

        agree(self._comm, "mapreduce", capture(rename))
        self._written = None
        agree(self._comm, "mapreduce", capture(delete))

    def discard(self) -> None:
        """Deletes what this rank has written, unless it is the result."""
        if not self._written:
            return
        system, _ = self._place()
        if system.exists(self._written):
            system.rm(self._written)

    def _name(self, rank: int) -> str:
        return f"part-{rank:05}-of-{self._comm.size:05}.{self.format}"

    def _place(self) -> tuple[Any, str]:
        system, path = file_system(self.folder, self.options)
        return system, path.rstrip("/")


def _last(path: str) -> str:
    return PurePosixPath(path).name


def _lines(merge: Merge, bytes: int) -> Iterator[Any]:
    while piece := merge.lines(bytes):
        yield piece


def _json_lines(merge: Merge, bytes: int) -> Iterator[Any]:
    def line(key: Any, value: Any) -> str:
        try:
            return json.dumps([key, value], default=_plain, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"mapreduce: cannot write the result of key {key!r} as JSON: {error}") from None

    while pairs := merge.pairs(bytes):
        yield "".join(line(key, value) for key, value in pairs).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no JSON form")
