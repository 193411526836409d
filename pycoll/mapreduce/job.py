"""A job: map, shuffle, reduce."""

from __future__ import annotations

import contextlib
import functools
import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

import pycoll

from .._core import Collector, Merge, Segments, Spool
from ..agree import check_agreement
from ..during import during
from ..errors import InvalidArgument, capture
from ..objects import allgather
from ..settings import log
from ..together import Together, agree
from .arguments import FOLDS, check, facts
from .groups import FREQUENT, Reducer, reduce_groups
from .lines import Text, check_positions
from .maps import Positions, Words
from .memory import Memory
from .output import Kinds, Output
from .pairs import Pairs, combined, mapped
from .result import Result, Stats
from .shuffle import Cut, cut_by_hash, cut_by_range, shuffle
from .source import Records, Source, Split, share

if TYPE_CHECKING:
    from ..comm import Communicator


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
    storage_options: dict[str, Any] | None = None,
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
            key's result, or, a generator function, yields pairs. "min" and "max" of numbers with a NaN among them are
            NaN.
        combine: folds two values of a key into one, before they are sent; without `reduce` it is all that is done.
        partition: "hash", or "range": keys are sorted, rank 0 has the first ones.
        output: folder, a path or fsspec URL, for one file a rank; by default the Result keeps the results.
        format: of the files: "tsv", "jsonl" (lines of [key, value]) or "parquet" (columns key and value).
        overwrite: shards that are in `output` already are replaced, once the job has ended well on all ranks.
        storage_options: of the file system of `output`, as fsspec takes them.
        memory: of this rank's process, all that it has before the call among it; bytes, or text such as "256MB".
        folder: where records lie that do not fit, by default the system's for temporary files. Files have no name.
        comm: the ranks, by default ``pycoll.init()``.
        progress: called as progress(phase, done, all) about 20 times a second, in a thread, phase being "map" (bytes)
            or "reduce" (bytes).

    Returns:
        This rank's Result.

    Raises:
        InvalidArgument: an argument is wrong, on all ranks. What `map`, `reduce` or `progress` raises, where it does;
        Error that names the rank and says what it was, on the others. PeerFailed or Timeout that names the phase. No
        file has its name then.
    """
    comm = pycoll.init() if comm is None else comm
    source = source if isinstance(source, Source) else Records(source)
    wrong = capture(lambda: check(comm, source, map, reduce, combine, partition, output, format))
    agree(comm, "mapreduce", wrong)
    check_agreement(comm, "mapreduce", facts(source, map, reduce, combine, partition, output, format))
    fold = FOLDS[reduce] if isinstance(reduce, str) else "none"
    out = None if output is None else Output(comm, output, format, overwrite, storage_options)
    job = _Job(comm, fold, "key" if partition == "range" else "hash", out, memory, folder, progress)
    try:
        splits = job.prepare(source, map)
        collector = job.map(source, splits, map, combine, reduce == "count")
        sources = job.shuffle(collector, keeps_keys=not callable(reduce))
        del collector  # what went to other ranks is not needed any more
        return job.reduce(sources, _reducer(reduce, combine))
    except BaseException:
        if out:
            with contextlib.suppress(Exception):  # the error that counts is the first one
                out.discard()
        with during(f"mapreduce: in {job.phase}"):
            raise
    finally:
        job.together.close()


def _reducer(reduce: Any, combine: Any) -> Reducer | None:
    """None where the core's fold is all."""
    if isinstance(reduce, str):
        return None
    if reduce is None:
        return lambda key, values: functools.reduce(combine, values)
    return reduce


class _Job:
    """The phases of one run on one rank."""

    def __init__(
        self,
        comm: Communicator,
        fold: str,
        order: str,
        output: Output | None,
        memory: int | str,
        folder: str | None,
        progress: Any,
    ) -> None:
        self.comm, self.fold, self.order, self.output = comm, fold, order, output
        self.folder, self.progress = folder or tempfile.gettempdir(), progress
        self.stats = Stats()
        self.together = Together(comm, "mapreduce")
        self.phase = "prepare"
        self._done = 0
        self._budget = memory

    def prepare(self, source: Source, map: Any) -> list[Split]:
        """This rank's splits. What is wrong with files is wrong on all ranks."""
        begin = time.perf_counter()
        splits: list[Split] = []

        def find() -> None:
            self.memory = Memory.of(self._budget, self.comm.rank)
            Spool(self.folder)  # raises where nothing can be written to it
            if self.comm.rank:
                return
            if not isinstance(source, Records):
                splits.extend(source.splits())
                if isinstance(map, Positions):
                    check_positions(splits)
            if self.output:
                if source.files:
                    source.files.check_outside(splits, self.output.folder, self.output.options)
                self.output.prepare()

        agree(self.comm, "mapreduce", capture(find))
        splits = allgather(self.comm, splits)[0]
        self.stats.seconds["prepare"] = time.perf_counter() - begin
        self._total = sum(split.nbytes for split in splits)
        return share(splits, self.comm)

    def map(self, source: Source, splits: list[Split], map: Any, combine: Any, counts: bool) -> Collector:
        begin, self.phase = time.perf_counter(), "map"
        collector = Collector(self.fold, self.order, self.memory.records, self.folder)
        if isinstance(source, Records):
            splits = [Split("", 0, 0)]

        def work() -> None:
            for split in splits:
                if isinstance(source, Text) and isinstance(map, (Words, Positions)):
                    self._map_text(source, split, map, collector)
                else:
                    self._map_records(source, split, map, combine, counts, collector)
                self._done += split.nbytes
            collector.finish()

        self.together.run("map", work, lambda: self._done, self._report("map", self._total), collector.stop)
        self.stats.records, self.stats.spilled, self.stats.runs = collector.records, collector.spilled, collector.runs
        self.stats.seconds["map"] = time.perf_counter() - begin
        return collector

    def _map_text(self, source: Text, split: Split, map: Words | Positions, collector: Collector) -> None:
        """Bytes of text that the core, or else no decoder, looks at."""
        folds = self.fold != "none"
        block = self.memory.block if folds else max(self.memory.block // 8, 64 << 10)  # words take several times theirs
        for position, data in source.blocks(split, block, self.memory.record, words=isinstance(map, Words)):
            self.together.check()
            if isinstance(map, Positions):
                collector.add_positions(data, position)
            elif folds:
                collector.add_words(data)
            else:
                words = bytes(data).split()
                collector.add_pairs(map.pairs(words), self.together.check, False)

    def _map_records(
        self, source: Source, split: Split, map: Any, combine: Any, counts: bool, collector: Collector
    ) -> None:
        check = self.together.check
        for records in source.read(split, self.memory.block, self.memory.record):
            pairs: Pairs = itertools.chain.from_iterable(mapped(map, records, check))
            collector.add_pairs(combined(pairs, combine) if combine else pairs, check, counts)

    def shuffle(self, collector: Collector, keeps_keys: bool) -> list[Segments]:
        """What this rank reduces. keeps_keys: a key of map's is the key of its result."""
        begin, self.phase = time.perf_counter(), "shuffle"
        self._agree_on_keys(collector, keeps_keys)
        by_key = self.order == "key"
        cut = cut_by_range(self.comm, collector, self.memory) if by_key else cut_by_hash(self.comm, collector)
        parts = self.together.run("shuffle", lambda: self._parts(collector, cut), lambda: 0, stop=collector.stop)
        sources, self.stats.sent = shuffle(self.comm, parts, self.fold, self.order, self.folder, self.memory)
        self.stats.reduced = sum(segments.bytes for source in sources for segments in source)
        reduced = self.comm.allgather(np.array([self.stats.reduced], np.int64))
        self.stats.skew = float(reduced.max() / max(reduced.mean(), 1))
        self.stats.seconds["shuffle"] = time.perf_counter() - begin
        return [segments for source in sources for segments in source]

    def _agree_on_keys(self, collector: Collector, keeps_keys: bool) -> None:
        """Raises InvalidArgument on all ranks where keys are of several types, or of one that no file can hold."""
        every = allgather(self.comm, (collector.key_types, collector.kinds))
        types = [(key_type, rank) for rank, (key_types, _) in enumerate(every) for key_type in key_types]
        for key_type, rank in types:
            if key_type != types[0][0]:
                raise InvalidArgument(
                    f"mapreduce: keys are of type {types[0][0]} on rank {types[0][1]} and of type {key_type} on rank "
                    f"{rank}, wanted one type in a job"
                )
        self._kinds = _kinds_of(every)
        if keeps_keys and self.output:
            values = self._kinds.values if self.fold != "none" else frozenset("")
            Kinds(self._kinds.keys, values).check(self.output.format)

    def _parts(self, collector: Collector, cut: Cut) -> list[list[Segments]]:
        """For each rank, what it gets; of one run only, where more could not be merged in the memory there is."""
        parts = cut(collector)
        large = self.memory.too_large(parts, self.fold)
        if collector.runs > 1 and (large or self.memory.too_many(collector.runs * self.comm.size)):
            collector.compact()
            parts = cut(collector)
        return parts

    def reduce(self, sources: list[Segments], reducer: Reducer | None) -> Result:
        begin, self.phase = time.perf_counter(), "reduce"
        merge = Merge(self.fold, self.order, sources, self.memory.buffer(len(sources)))
        total = self.comm.allreduce(np.array([self.stats.reduced], np.int64)).item()
        self._done = 0
        spool: Spool | None = None
        if reducer or not self.output:
            spool = Spool(self.folder)
            work = functools.partial(self._fill, spool, merge, reducer)
            self.together.run("reduce", work, lambda: self._done, self._report("reduce", total))
            self.stats.results = spool.count
        if self.output:
            if spool:
                self._kinds = _kinds_of(allgather(self.comm, (spool.key_types, spool.kinds)))
                merge, spool = Merge("none", "hash", [spool.segments()], self.memory.buffer(1)), None
            self._write(self.output, merge, None if reducer else self._report("reduce", total))
        if reducer:
            self._warn_of_frequent()
        self.stats.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.stats.seconds["reduce"] = time.perf_counter() - begin
        return Result(spool, self.output.files if self.output else [], self.stats)

    def _fill(self, spool: Spool, merge: Merge, reducer: Reducer | None) -> None:
        if reducer:
            self.stats.frequent = reduce_groups(self._pairs(merge), reducer, spool, self.together.check)
            return
        while spool.take(merge, self.memory.rows):
            self._step(merge)

    def _pairs(self, merge: Merge) -> Iterator[tuple[Any, Any]]:
        while pairs := merge.pairs(min(self.memory.rows, 1 << 20) // 4):
            self._step(merge)
            yield from pairs

    def _step(self, merge: Merge) -> None:
        self._done = merge.read
        self.together.check()

    def _write(self, output: Output, merge: Merge, report: Callable[[int], None] | None) -> None:
        """The results of all ranks get their names, or none do."""
        self.phase = "output"
        self._kinds.check(output.format)

        def work() -> None:
            output.write(merge, self._kinds, self.memory.rows, lambda: self._step(merge))

        self.together.run("output", work, lambda: self._done, report)
        self.stats.results = merge.taken
        output.publish()

    def _warn_of_frequent(self) -> None:
        """The most frequent keys of all ranks; rank 0 warns where one of them is what a rank mainly reduces."""
        all_ = allgather(self.comm, (self.stats.frequent, self.stats.records))
        frequent = [entry for entries, _ in all_ for entry in entries]
        self.stats.frequent = sorted(frequent, key=lambda entry: -entry[1])[:FREQUENT]
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


def _kinds_of(every: list[tuple[list[str], str]]) -> Kinds:
    """Of all ranks' types of keys and kinds of values."""
    return Kinds(frozenset().union(*(keys for keys, _ in every)), frozenset().union(*(kinds for _, kinds in every)))


__all__ = ["run"]
