"""What a job is asked for: whether it makes sense, and whether ranks ask for the same."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from .lines import Text
from .maps import Positions, Words
from .output import FORMATS
from .source import Records, Source

if TYPE_CHECKING:
    from ..comm import Communicator

FOLDS = {"sum": "sum", "count": "sum", "min": "min", "max": "max", "set": "set"}  # of the core, by what reduce says


def check(
    comm: Communicator, source: Source, map: Any, reduce: Any, combine: Any, partition: str, output: Any, format: str
) -> None:
    """Raises InvalidArgument for what is wrong."""

    def refuse(what: str, got: Any, wanted: str) -> None:
        raise InvalidArgument(f"mapreduce: rank {comm.rank}: {what} is {got!r}, wanted {wanted}")

    if isinstance(source, Records):
        given = source.iterable
        if isinstance(given, (str, bytes, os.PathLike)):
            refuse("source", given, f"text({given!r}) for a file, or an iterable of records")
        if not isinstance(given, Iterable) and not hasattr(given, "__getitem__"):
            refuse("source", given, "text() and the like, or an iterable of records")
    native = isinstance(map, (Words, Positions))
    if not native and not callable(map):
        refuse("map", map, "a function, Words() or Positions()")
    if isinstance(reduce, str) and reduce not in FOLDS:
        refuse("reduce", reduce, f"a function, or one of {', '.join(FOLDS)}")
    if not (reduce is None or isinstance(reduce, str) or callable(reduce)):
        refuse("reduce", reduce, "a function or a name")
    if reduce is None and combine is None:
        refuse("reduce", reduce, "a function, a name, or None and a combine")
    if combine is not None and (not callable(combine) or isinstance(reduce, str) or native):
        refuse("combine", combine, "None where reduce is a name, or map is Words or Positions, else a function")
    if isinstance(map, Positions) and not isinstance(source, Text):
        refuse("source", type(source).__name__, "text() for Positions")
    if isinstance(map, Positions) and reduce != "set":
        refuse("reduce", reduce, "'set' for Positions")
    if isinstance(map, Words) and reduce == "set":
        refuse("reduce", reduce, "a sum, a function, but not 'set', for Words")
    if partition not in ("hash", "range"):
        refuse("partition", partition, "hash or range")
    if format not in FORMATS:
        refuse("format", format, f"one of {', '.join(FORMATS)}")
    if output is not None and not isinstance(output, (str, os.PathLike)):
        refuse("output", output, "a path or URL")


def facts(
    source: Source, map: Any, reduce: Any, combine: Any, partition: str, output: Any, format: str
) -> list[tuple[str, str]]:
    """What must be the same on all ranks; functions by their names."""

    def name(function: Any) -> str:
        return function if isinstance(function, str) else getattr(function, "__qualname__", type(function).__qualname__)

    shown = {
        "source": source.kind,
        "map": name(map),
        "reduce": name(reduce),
        "combine": name(combine),
        "partition": partition,
    }
    return [*shown.items(), ("output", str(output)), ("format", format)]
