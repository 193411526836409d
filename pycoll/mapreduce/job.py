"""A job: map, shuffle, reduce."""

from __future__ import annotations

import collections
import functools
import heapq
import inspect
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

import pycoll

from .._core import Collector, Merge, Segments, Spool
from ..agree import check_agreement
from ..errors import Error, InvalidArgument, capture
from ..objects import allgather
from ..settings import log
from ..together import Together
from .lines import Text, check_positions
from .maps import Positions, Words
from .memory import Memory
from .output import FORMATS, check_folder, shard_url, write
from .result import Result, Stats
from .shuffle import parts_by_hash, parts_by_range, shuffle
from .source import Records, Source, Split, share

if TYPE_CHECKING:
    from ..comm import Communicator

Pairs = Iterable[tuple[Any, Any]]
_FOLDS = {"sum": "sum", "count": "sum", "min": "min", "max": "max", "set": "set"}
_KEYS = 65536  # that combine folds before they are collected
_FREQUENT = 10


def run(
    source: Source | Iterable[Any],
    map: Callable[[Any], Pairs] | Words | Positions,
    reduce: str | Callable[[Any, Iterator[Any]], Any] | None = None,
    *,
    combine: Callable[[Any, Any], Any] | None = None,
    partition: str = "hash",
    output: str | None = None,
    format: str = "tsv",
    overwrite: bool = False,
    memory: int | str = "1GiB",
    folder: str | None = None,
    comm: Communicator | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Maps records to pairs, brings the pairs of each key to one rank, and reduces them there. Collective.

    ::

        counts = mapreduce.run(mapreduce.text("books/*.txt"), mapreduce.Words(), "sum", output="counts", memory="256MB")

    Args:
        source: `text`, `jsonl`, `csv`, `parquet` or `libsvm` of the same files on all ranks, which share them out;
            or this rank's own records, an iterable.
        map: ``map(record)`` gives pairs (key, value). Keys are str, bytes, int, float or tuples of these, of one type
            in a job; values are what pickle takes.
        reduce: "sum", "min" or "max" of numbers, "count" of values, "set": whole numbers from 0 on, distinct and
            ascending, as an int64 array. Or a function of (key, values), where values is an iterator: it returns the
            key's result, or, a generator function, yields pairs.
        combine: folds two values of a key into one, before they are sent; without `reduce` it is all that is done.
        partition: "hash", or "range": keys are sorted, rank 0 has the first ones.
        output: folder, a path or fsspec URL, for one file a rank; by default the Result keeps the results.
        format: of the files: "tsv", "jsonl" (lines of [key, value]) or "parquet" (columns key and value).
        overwrite: shards that are in `output` already are replaced.
        memory: of this rank's process, all that it has before the call among it; bytes, or text such as "256MB".
        folder: where records lie that do not fit, by default the system's for temporary files. Files have no name.
        comm: the ranks, by default ``pycoll.init()``.
        progress: called as progress(phase, done, all) about 20 times a second, in a thread, phase being "map" (bytes)
            or "reduce" (bytes).

    Returns:
        This rank's Result.

    Raises:
        InvalidArgument: an argument is wrong, on all ranks. What `map` or `reduce` raises, where it does; Error that
        names the rank and says what it was, on the others.
    """
    comm = pycoll.init() if comm is None else comm
    source = source if isinstance(source, Source) else Records(source)
    wrong = capture(lambda: _check(comm, source, map, reduce, combine, partition, output, format))
    _agree(comm, wrong)
    check_agreement(comm, "mapreduce", _facts(map, reduce, combine, partition, output, format))
    fold = _FOLDS[reduce] if isinstance(reduce, str) else "none"
    job = _Job(comm, fold, "key" if partition == "range" else "hash", memory, folder, progress)
    try:
        splits = job.prepare(source, map, output, overwrite)
        collector = job.map(source, splits, map, combine, reduce == "count")
        sources = job.shuffle(collector)
        del collector  # what went to other ranks is not needed any more
        return job.reduce(sources, _reducer(reduce, combine), output, format)
    finally:
        job.together.close()


def _check(
    comm: Communicator, source: Source, map: Any, reduce: Any, combine: Any, partition: str, output: Any, format: str
) -> None:
    """Raises InvalidArgument for what is wrong."""

    def refuse(what: str, got: Any, wanted: str) -> None:
        raise InvalidArgument(f"mapreduce: rank {comm.rank}: {what} is {got!r}, wanted {wanted}")

    native = isinstance(map, (Words, Positions))
    if not native and not callable(map):
        refuse("map", map, "a function, Words() or Positions()")
    if isinstance(reduce, str) and reduce not in _FOLDS:
        refuse("reduce", reduce, f"a function, or one of {', '.join(_FOLDS)}")
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


def _facts(map: Any, reduce: Any, combine: Any, partition: str, output: Any, format: str) -> list[tuple[str, str]]:
    """What must be the same on all ranks; functions by their names."""

    def name(function: Any) -> str:
        return function if isinstance(function, str) else getattr(function, "__qualname__", type(function).__qualname__)

    shown = {"map": name(map), "reduce": name(reduce), "combine": name(combine), "partition": partition}
    return [*shown.items(), ("output", str(output)), ("format", format)]


def _agree(comm: Communicator, error: BaseException | None) -> None:
    """Raises what any rank passes, on all ranks. Collective."""
    for rank, told in enumerate(allgather(comm, error and (isinstance(error, InvalidArgument), _told(error)))):
        if told and error:
            raise error
        if told:
            invalid, text = told
            raise (InvalidArgument if invalid else Error)(text if invalid else f"mapreduce: rank {rank} failed: {text}")


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"


def _reducer(reduce: Any, combine: Any) -> Callable[[Any, Iterator[Any]], Any] | None:
    """None where the core's fold is all."""
    if isinstance(reduce, str):
        return None
    if reduce is None:
        return lambda key, values: functools.reduce(combine, values)
    return reduce


class _Job:
    """The phases of one run on one rank."""

    def __init__(
        self, comm: Communicator, fold: str, order: str, memory: int | str, folder: str | None, progress: Any
    ) -> None:
        self.comm, self.fold, self.order = comm, fold, order
        self.folder, self.progress = folder or tempfile.gettempdir(), progress
        self.stats = Stats()
        self.together = Together(comm, "mapreduce")
        self._done = 0
        self._budget = memory

    def prepare(self, source: Source, map: Any, output: Any, overwrite: bool) -> list[Split]:
        """This rank's splits. What is wrong with files is wrong on all ranks."""
        begin = time.perf_counter()
        splits: list[Split] = []

        def find() -> None:
            if self.comm.rank == 0 and not isinstance(source, Records):
                splits.extend(source.splits())
                if isinstance(map, Positions):
                    check_positions(splits)
            if self.comm.rank == 0 and output is not None:
                check_folder(str(output), overwrite)
            self.memory = Memory.of(self._budget, self.comm.rank)

        _agree(self.comm, capture(find))
        splits = allgather(self.comm, splits)[0]
        self.stats.seconds["prepare"] = time.perf_counter() - begin
        self._total = sum(split.nbytes for split in splits)
        return share(splits, self.comm)

    def map(self, source: Source, splits: list[Split], map: Any, combine: Any, counts: bool) -> Collector:
        begin = time.perf_counter()
        collector = Collector(self.fold, self.order, self.memory.records, self.folder)
        if isinstance(source, Records):
            splits = [Split("", 0, 0)]

        def work() -> None:
            for split in splits:
                if isinstance(source, Text) and self._is_native(map):
                    self._map_text(source, split, map, collector)
                else:
                    self._map_records(source, split, map, combine, counts, collector)
                self._done += split.nbytes
            collector.finish()

        self.together.run("map", work, lambda: self._done, self._report("map", self._total))
        self.stats.records, self.stats.spilled, self.stats.runs = collector.records, collector.spilled, collector.runs
        self.stats.seconds["map"] = time.perf_counter() - begin
        return collector

    def _is_native(self, map: Any) -> bool:
        """Whether the core makes the pairs and folds them: no value of them exists outside its table."""
        return isinstance(map, Positions) or (isinstance(map, Words) and self.fold in ("sum", "min", "max"))

    def _map_text(self, source: Text, split: Split, map: Words | Positions, collector: Collector) -> None:
        for position, data in source.blocks(split, self.memory.block):
            self.together.check()
            if isinstance(map, Words):
                collector.add_words(data)
            else:
                collector.add_positions(data, position)

    def _map_records(
        self, source: Source, split: Split, map: Any, combine: Any, counts: bool, collector: Collector
    ) -> None:
        for records in source.read(split, self.memory.block):
            self.together.check()
            pairs: Pairs = itertools.chain.from_iterable(map(record) for record in records)
            if counts:
                pairs = ((key, 1) for key, _ in pairs)
            if combine:
                pairs = _combined(pairs, combine)
            collector.add_pairs(pairs)

    def shuffle(self, collector: Collector) -> list[Segments]:
        begin = time.perf_counter()
        self.together.run("map", lambda: self._compact(collector), lambda: 0)
        parts = (parts_by_range if self.order == "key" else parts_by_hash)(self.comm, collector)
        sources, self.stats.sent = shuffle(self.comm, parts, self.fold, self.order, self.folder, self.memory)
        self.stats.reduced = sum(segments.bytes for source in sources for segments in source)
        reduced = self.comm.allgather(np.array([self.stats.reduced], np.int64))
        self.stats.skew = float(reduced.max() / max(reduced.mean(), 1))
        self.stats.seconds["shuffle"] = time.perf_counter() - begin
        return [segments for source in sources for segments in source]

    def _compact(self, collector: Collector) -> None:
        if self.memory.too_many(collector.runs * self.comm.size):
            collector.compact()

    def reduce(self, sources: list[Segments], reducer: Any, output: Any, format: str) -> Result:
        begin = time.perf_counter()
        merge = Merge(self.fold, self.order, sources, self.memory.buffer(len(sources)))
        size, rank = self.comm.size, self.comm.rank
        files = [shard_url(str(output), r, size, format) for r in range(size)] if output is not None else []
        spool: Spool | None = None
        total = self.comm.allreduce(np.array([self.stats.reduced], np.int64)).item()
        self._done = 0

        def step() -> None:
            self._done = merge.read
            self.together.check()

        def work() -> None:
            nonlocal merge, spool
            if reducer or not files:
                spool = Spool(self.folder)
                if reducer:
                    self._reduce_by(reducer, merge, spool)
                else:
                    while spool.take(merge, self.memory.rows):
                        step()
                self.stats.results = spool.count
            if files:
                if spool:
                    merge, spool = Merge("none", "hash", [spool.segments()], self.memory.buffer(1)), None
                write(files[rank], merge, format, self.memory.rows, step)
                self.stats.results = merge.taken

        self.together.run("reduce", work, lambda: self._done, self._report("reduce", total))
        if reducer:
            self._warn_of_frequent()
        self.stats.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.stats.seconds["reduce"] = time.perf_counter() - begin
        return Result(spool, files, self.stats)

    def _reduce_by(self, reducer: Any, merge: Merge, spool: Spool) -> None:
        yields = inspect.isgeneratorfunction(reducer)
        counts: list[tuple[int, int, Any]] = []  # the most frequent keys: values, tie-break, key
        tie = itertools.count()
        for key, group in itertools.groupby(self._pairs(merge), key=lambda pair: pair[0]):
            values = _Counted(value for _, value in group)
            if yields:
                for new_key, value in reducer(key, values):
                    spool.put(new_key, value)
            else:
                spool.put(key, reducer(key, values))
            collections.deque(values, 0)  # what it did not look at counts as well
            entry = (values.count, next(tie), key)
            if len(counts) < _FREQUENT:
                heapq.heappush(counts, entry)
            elif entry > counts[0]:
                heapq.heapreplace(counts, entry)
        self.stats.frequent = [(key, count) for count, _, key in counts]

    def _pairs(self, merge: Merge) -> Iterator[tuple[Any, Any]]:
        while pairs := merge.pairs(min(self.memory.rows, 1 << 20) // 4):
            self._done = merge.read
            self.together.check()
            yield from pairs

    def _warn_of_frequent(self) -> None:
        """The most frequent keys of all ranks; rank 0 warns where one of them is what a rank mainly reduces."""
        all_ = allgather(self.comm, (self.stats.frequent, self.stats.records))
        frequent = [entry for entries, _ in all_ for entry in entries]
        self.stats.frequent = sorted(frequent, key=lambda entry: -entry[1])[:_FREQUENT]
        records = sum(count for _, count in all_)
        if self.comm.rank == 0 and self.comm.size > 1 and self.stats.frequent:
            key, count = self.stats.frequent[0]
            if count > 1000 and count > 1.5 * records / self.comm.size:
                log.warning(
                    "mapreduce: key %r has %.0f %% of all %d values, and one rank reduces them; a combine would fold "
                    "them where they are emitted",
                    key,
                    100 * count / records,
                    records,
                )

    def _report(self, phase: str, total: int) -> Callable[[int], None] | None:
        if not self.progress or self.comm.rank:
            return None
        return lambda done: self.progress(phase, done, total)


class _Counted:
    """An iterator that counts."""

    def __init__(self, values: Iterator[Any]) -> None:
        self._values, self.count = values, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        value = next(self._values)
        self.count += 1
        return value


def _combined(pairs: Pairs, combine: Callable[[Any, Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs with those of equal keys folded, as far as some tens of thousands of keys go."""
    values: dict[Any, Any] = {}
    for key, value in pairs:
        if key in values:
            values[key] = combine(values[key], value)
        else:
            if len(values) == _KEYS:
                yield from values.items()
                values.clear()
            values[key] = value
    yield from values.items()


__all__ = ["run"]
