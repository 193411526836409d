"""What is wrong with a job of pycoll.mapreduce: the sentence, on all ranks, soon."""

import gzip
import time

import numpy as np
import pytest
from test_mapreduce import fails, halves, no_budget, over  # noqa: F401

import pycoll
from pycoll import loopback, mapreduce


def test_what_map_and_reduce_raise_is_told_on_all_ranks():
    def broken_on_1(comm):
        def broken(x):
            if comm.rank == 1:
                raise KeyError("that")
            return [(x, x)]

        with pytest.raises((KeyError, pycoll.Error)) as info:
            mapreduce.run(range(5), broken, "sum", comm=comm)
        assert comm.allreduce(np.ones(1)).item() == comm.size
        return info.value

    raised = loopback.run(3, broken_on_1, timeout=60)
    assert isinstance(raised[1], KeyError)
    assert str(raised[0]) == str(raised[2]) == "mapreduce: rank 1 failed in map: KeyError: 'that'"

    def reduce(key, values):
        raise ValueError(f"not {key}")

    fails(ValueError, "not 1", [1], lambda x: [(x, x)], reduce)


def test_wrong_arguments():
    def pair(x):
        return [(x, x)]

    invalid = pycoll.InvalidArgument
    fails(invalid, "mapreduce: rank 0: reduce is 'mean', wanted a function, or one of sum", [1], pair, "mean")
    fails(invalid, "reduce is None, wanted a function, a name, or None and a combine", [1], pair)
    fails(
        invalid, "combine is <built-in function max>, wanted None where reduce is a name", [1], pair, "sum", combine=max
    )
    fails(invalid, "map is 3, wanted a function", [1], 3, "sum")
    fails(invalid, "source is 'Records', wanted text() for Positions", [1], mapreduce.Positions(), "set")
    fails(invalid, "source is 'a.txt', wanted text('a.txt') for a file", "a.txt", pair, "sum")
    fails(invalid, "source is 3, wanted text() and the like", 3, pair, "sum")
    fails(invalid, "partition is 'sort', wanted hash or range", [1], pair, "sum", partition="sort")
    fails(invalid, "format is 'xml', wanted one of tsv, jsonl, parquet", [1], pair, "sum", format="xml")
    fails(invalid, "memory is '1 MB/s', wanted bytes, or text such as", [1], pair, "sum", memory="1 MB/s")
    fails(invalid, "memory is 1000 bytes, wanted at least", [1], pair, "sum", memory=1000)
    fails(invalid, "names no file", mapreduce.text("/no/such/file"), pair, "sum")
    fails(pycoll.Error, "cannot write to /no/such/folder", [1], pair, "sum", folder="/no/such/folder")
    fails(invalid, "map gave 3, wanted pairs of key and value", [1], lambda x: [3], "sum")
    fails(invalid, "got a key of type list, wanted str, bytes, int, float or a tuple", [1], lambda x: [([], 1)], "sum")
    fails(invalid, "the value of key 'k' is of type str, wanted a number", [1], lambda x: [("k", "1")], "sum")
    fails(invalid, "the value of key 'k' is -1, wanted a whole number from 0", [1], lambda x: [("k", -1)], "set")
    fails(invalid, "leaves 64 bits", [2**62] * 2, lambda x: [("k", x)], "sum")


def test_what_map_and_reduce_give_is_told():
    def pair(x):
        return [(x, x)]

    def no_pairs(key, values):
        yield "xy"

    invalid = pycoll.InvalidArgument
    fails(invalid, "map gave None for a record, wanted an iterable of pairs", [1], lambda x: None, "sum")
    fails(invalid, "map gave 'ab', wanted pairs of key and value", [1], lambda x: ["ab"], "count")
    fails(invalid, "map gave 'ab', wanted pairs of key and value", [1], lambda x: ["ab"], combine=max)
    fails(invalid, "got a key of type list, wanted str", [1], lambda x: [([], 1)], combine=max)
    fails(invalid, "reduce yielded 'xy' for key 1, wanted pairs", [1], pair, no_pairs)
    fails(invalid, "reduce yielded 1 for key 1, wanted pairs", [1], pair, lambda key, values: (v for v in values))
    fails(invalid, "the result of key 1 is an iterator, wanted its values", [1], pair, lambda key, values: values)
    fails(invalid, "the result of key 1 cannot be kept", [1], pair, lambda key, values: lambda: 0)
    fails(pycoll.Error, "map raised StopIteration", [1], lambda x: next(iter(())), "sum")
    fails(pycoll.Error, "reduce raised StopIteration for key 1", [1], pair, lambda k, v: [next(v) for _ in range(9)])

    class Yields:
        def __call__(self, key, values):
            yield key, sum(values)

    results, _ = over(2, [1, 2], pair, Yields())
    assert dict(pair for result in results for pair in result) == {1: 2, 2: 4}


def test_what_raises_in_a_strange_way_ends_the_job_as_well():
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    def mute_on_1(comm):
        def mute(x):
            if comm.rank == 1:
                raise Mute
            return []

        with pytest.raises((Mute, pycoll.Error)) as info:
            mapreduce.run([1], mute, "sum", comm=comm)
        return info.value

    first, second = loopback.run(2, mute_on_1, timeout=60)
    assert isinstance(second, Mute)
    assert str(first) == "mapreduce: rank 1 failed in map: Mute, whose text cannot be had: ValueError"

    def broken(phase, done, total):
        raise ValueError("a bar that breaks")

    first, second = fails(ValueError, "a bar that breaks", [1], lambda x: [(x, x)], "sum", progress=broken)
    assert str(second) == "mapreduce: rank 0 failed in map: ValueError: a bar that breaks", first


def test_a_failure_is_noticed_within_a_block():
    """The other rank is in its map, or its reduce, for a minute."""

    def run(comm):
        def wait(_):
            if comm.rank:
                raise KeyError("early")
            time.sleep(0.2)

        def map(x):
            for i in range(300):
                yield i, wait(x)

        def reduce(key, values):
            wait(key)

        everywhere = [i for i in range(600)]
        for job in ((everywhere, map, "count"), (everywhere, lambda x: [(x, x)], reduce)):
            with pytest.raises((KeyError, pycoll.Error), match="early"):
                mapreduce.run(*job, comm=comm)

    begin = time.monotonic()
    loopback.run(2, run, timeout=60)
    assert time.monotonic() - begin < 20


def test_keys_of_several_types():
    invalid = pycoll.InvalidArgument
    told = "got a key of type float behind one of type int, wanted keys of one type"
    fails(invalid, told, [1, 2.0], lambda x: [(x, x)], "sum")

    def run(comm):
        with pytest.raises(invalid, match="keys are of type int on rank 0 and of type str on rank 1"):
            mapreduce.run([[1], ["a"]][comm.rank], lambda x: [(x, 1)], "sum", comm=comm)

    loopback.run(2, run, timeout=60)


def test_ranks_that_disagree():
    def run(comm):
        with pytest.raises(pycoll.MismatchError, match="mapreduce: reduce is max on rank 1, but min on rank 0"):
            mapreduce.run([1], lambda x: [(x, x)], ["min", "max"][comm.rank], comm=comm)
        with pytest.raises(pycoll.MismatchError, match="mapreduce: source is text on rank 1, but records on rank 0"):
            mapreduce.run([[1], mapreduce.text("a")][comm.rank], lambda x: [(x, x)], "sum", comm=comm)

    loopback.run(2, run, timeout=60)


def test_files_that_are_wrong(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
    fails(pycoll.InvalidArgument, "a.jsonl has a line '{\"a\": '", mapreduce.jsonl(str(tmp_path)), dict.items, "sum")
    (tmp_path / "a.jsonl").write_bytes(b"fine\n\xff\xfe\n")
    fails(pycoll.InvalidArgument, "is not utf-8 at byte 5", mapreduce.text(str(tmp_path)), halves, "sum")
    (tmp_path / "a.jsonl").write_text("a,b\n1,2\n1\n")
    fails(
        pycoll.InvalidArgument,
        "line 3: a row has 1 fields, wanted 2",
        mapreduce.csv(str(tmp_path)),
        dict.items,
        "count",
    )
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"words"))
    fails(
        pycoll.InvalidArgument, "b.gz is compressed", mapreduce.text(f"{tmp_path}/b.gz"), mapreduce.Positions(), "set"
    )
    (tmp_path / "b.gz").unlink()
    (tmp_path / "a.jsonl").write_text("1 2 3\n")
    fails(
        pycoll.InvalidArgument, "wanted a label, then index:value", mapreduce.libsvm(str(tmp_path)), lambda s: [], "sum"
    )
