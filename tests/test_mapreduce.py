"""pycoll.mapreduce: results beside plain Python's, over ranks that are threads."""

import collections
import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

import pycoll
from pycoll import loopback, mapreduce
from pycoll.mapreduce import lines, memory

DOCS = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))


@pytest.fixture(params=["ample", "tight"])
def room(request, monkeypatch):
    """Memory of all sizes: the budget is that of a process, which here has torch in it already."""
    monkeypatch.setattr(memory, "resident", lambda: 0)
    if request.param == "tight":
        for name, size in {"records": 100_000, "block": 4096, "rows": 5000}.items():
            monkeypatch.setattr(memory.Memory, name, size)
        monkeypatch.setattr(memory.Memory, "stage", lambda self, ranks: 997)
        monkeypatch.setattr(memory.Memory, "buffer", lambda self, files: 256)
    return request.param


@pytest.fixture(autouse=True)
def no_budget(monkeypatch):
    monkeypatch.setattr(memory, "resident", lambda: 0)


def over(size, *args, **options):
    """All ranks' results of a job, one list a rank, and their stats."""

    def run(comm):
        result = mapreduce.run(*args, comm=comm, **options)
        return list(result) if not result.files else result.files, result.stats

    results = loopback.run(size, run, timeout=60)
    return [result for result, _ in results], [stats for _, stats in results]


def fails(error, match, *args, size=2, **options):
    """Every rank raises; `match` is what one of them says, the others name it."""

    def run(comm):
        try:
            mapreduce.run(*args, comm=comm, **options)
        except BaseException as raised:
            return raised
        finally:
            assert comm.allreduce(np.ones(1)).item() == size  # the communicator can be used on

    raised = loopback.run(size, run, timeout=60)
    assert all(isinstance(each, (error, pycoll.Error)) for each in raised), raised
    assert any(isinstance(each, error) and match in str(each) for each in raised), raised
    return raised


def words_of(paths):
    return [word.decode() for path in paths for word in path.read_bytes().split()]


def halves(line):
    for word in line.split():
        yield word[: len(word) // 2], len(word)


@pytest.mark.parametrize("partition", ["hash", "range"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_word_count(size, partition, room, monkeypatch):
    monkeypatch.setattr(lines, "_SPLIT", 50_000)
    urls = [str(path) for path in DOCS]
    results, stats = over(size, mapreduce.text(urls), mapreduce.Words(), "sum", partition=partition)
    flat = [pair for result in results for pair in result]
    assert len(flat) == len(dict(flat))
    assert dict(flat) == collections.Counter(words_of(DOCS))
    assert sum(s.records for s in stats) == len(words_of(DOCS))
    assert all((s.spilled > 0) == (room == "tight") for s in stats)
    assert sum(s.results for s in stats) == len(flat)
    if partition == "range":
        assert [key for key, _ in flat] == sorted((key for key, _ in flat), key=str.encode)
    if size > 1:
        # Buckets, the largest first: the fullest rank has at most 4/3 of what is possible (Graham, 1969). A bound
        # between ranges is off by less than the kilobyte between two samples, of each run, to either side.
        runs, mean = sum(s.runs for s in stats), sum(s.reduced for s in stats) / size
        assert 1 <= stats[0].skew <= (4 / 3 if partition == "hash" else 1 + 2 * 1100 * runs / mean)


def test_words_for_a_function():
    results, _ = over(2, mapreduce.text([str(path) for path in DOCS]), mapreduce.Words(), lambda key, ones: -sum(ones))
    assert dict(pair for result in results for pair in result) == {
        word: -count for word, count in collections.Counter(words_of(DOCS)).items()
    }


@pytest.mark.parametrize("size", [1, 3])
def test_inverted_index(size, room, tmp_path):
    all_lines, wanted, position = [], collections.defaultdict(list), 0
    for path in DOCS:
        all_lines += path.read_bytes().splitlines(keepends=True)
    (tmp_path / "a.txt").write_bytes(b"".join(all_lines[:1000]))
    (tmp_path / "b.txt").write_bytes(b"".join(all_lines[1000:]))
    for line in all_lines:
        for word in sorted(set(line.split())):
            wanted[word.decode()].append(position)
        position += len(line)
    results, _ = over(size, mapreduce.text(str(tmp_path / "*.txt")), mapreduce.Positions(), "set")
    got = {key: ids.tolist() for result in results for key, ids in result}
    assert got == wanted


@pytest.mark.parametrize("size", [1, 3])
def test_functions(size, room):
    """A map and a reduce of one's own, all values looked at, or none, or results that are pairs."""
    urls = [str(path) for path in DOCS]
    wanted = collections.defaultdict(list)
    for path in DOCS:
        for line in path.read_text().split("\n"):
            for key, value in halves(line):
                wanted[key].append(value)

    def both_ends(key, values):
        values = sorted(values)
        yield f"least {key}", values[0]
        yield f"most {key}", values[-1]

    source = mapreduce.text(urls)
    results, stats = over(size, source, halves, lambda key, values: sorted(values))
    assert dict(pair for result in results for pair in result) == {k: sorted(v) for k, v in wanted.items()}
    most = max(wanted, key=lambda key: len(wanted[key]))
    assert all(s.frequent[0] == (most, len(wanted[most])) for s in stats)

    results, _ = over(size, source, halves, lambda key, values: key * 2)
    assert dict(pair for result in results for pair in result) == {k: k * 2 for k in wanted}

    results, _ = over(size, source, halves, both_ends)
    ends = {f"least {k}": min(v) for k, v in wanted.items()} | {f"most {k}": max(v) for k, v in wanted.items()}
    assert dict(pair for result in results for pair in result) == ends

    for name, function in {"sum": sum, "min": min, "max": max, "count": len}.items():
        results, _ = over(size, source, halves, name)
        assert dict(pair for result in results for pair in result) == {k: function(v) for k, v in wanted.items()}, name

    results, folded = over(size, source, halves, combine=max)
    assert dict(pair for result in results for pair in result) == {k: max(v) for k, v in wanted.items()}
    assert sum(s.records for s in folded) < sum(s.records for s in stats) / 2


KEYS = {
    "text": ["", "a", "a\0", "ab", "z", "é", "\U0001f600", "x" * 3000],
    "bytes": [b"", b"\0", b"\0\0", b"a", b"\xff", b"\xff\xff"],
    "whole": [-(2**63), -1000, -1, 0, 1, 255, 256, 2**63 - 1],
    "real": [-math.inf, -1.5, -1e-310, 0.0, 1e-310, 2.5, math.inf],
    "tuple": [(), ("",), ("", -1), ("", 0), ("a",), ("a", "b"), ("a\0",), ("b", 1.5, b"\0"), ("b", 2.5, b"")],
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_type_in_order(kind):
    keys = KEYS[kind] * 3
    random.Random(1).shuffle(keys)

    def run(comm):
        mine = [(key, i) for i, key in enumerate(keys) if i % comm.size == comm.rank]
        return list(mapreduce.run(mine, lambda pair: [pair], "count", partition="range", comm=comm))

    got = [pair for result in loopback.run(3, run, timeout=60) for pair in result]
    assert got == [(key, 3) for key in sorted(KEYS[kind])]


def test_values_of_every_kind_come_back():
    values = [None, True, 1, -1, 2**80, 1.5, math.inf, "text", b"bytes", (1, "a"), {"k": [1]}, np.float32(2), 2**63]
    results, _ = over(2, values, lambda value: [(repr(value), value)], lambda key, values: list(values))
    got = dict(pair for result in results for pair in result)
    assert got == {repr(value): [value, value] for value in values}
    assert all(type(got[repr(value)][0]) is type(value) for value in values)


def test_words_that_are_not_utf_8(tmp_path):
    (tmp_path / "a").write_bytes(b"caf\xe9 caf\xc3\xa9 caf\xe9\n")
    counts, _ = over(2, mapreduce.text(str(tmp_path)), mapreduce.Words(), "sum")
    flat = [pair for result in counts for pair in result]
    assert sorted(flat) == sorted([("café", 1), (b"caf\xe9".decode("utf-8", "surrogateescape"), 2)])
    again, _ = over(1, flat, lambda pair: [pair], "sum")
    assert sorted(again[0]) == sorted(flat)
    pytest.importorskip("pyarrow")
    fails(pycoll.InvalidArgument, "not UTF-8", flat, lambda p: [p], "sum", output=str(tmp_path / "o"), format="parquet")


def test_numbers():
    pairs = [("whole", 1), ("whole", np.int32(2)), ("real", np.float32(0.5)), ("real", 1), ("large", 2**61)]
    results, _ = over(2, pairs, lambda pair: [pair], "sum")
    got = dict(pair for result in results for pair in result)
    assert got == {"whole": 6, "real": 3.0, "large": 2**62}


def test_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "_SPLIT", 100)  # lines lie across splits, and splits within lines
    rows = [{"name": f"n{i % 7}", "size": i, "note": 'a "quote",\nand more' if i % 5 == 0 else ""} for i in range(200)]
    wanted = collections.Counter(f"n{i % 7}" for i in range(200))
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows[:150]))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows[150:]))
    (tmp_path / "c.jsonl").write_text("")

    def total(source, of=lambda row: [(row["name"], 1)]):
        results, _ = over(3, source, of, "sum")
        return dict(pair for result in results for pair in result)

    assert total(mapreduce.jsonl(str(tmp_path / "*.jsonl*"))) == wanted

    import csv

    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert total(mapreduce.csv(str(tmp_path / "a.csv"), delimiter=";")) == wanted

    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=30)
    assert total(mapreduce.parquet(str(tmp_path / "a.parquet"), columns=["name"])) == wanted

    (tmp_path / "a.svm").write_text("1 qid:3 1:0.5 7:2 # said\n\n-1 7:1.5\n")
    found = total(mapreduce.libsvm(str(tmp_path / "a.svm")), lambda s: zip(s[1].tolist(), s[0] * s[2], strict=True))
    assert found == {1: 0.5, 7: 0.5}

    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://corpus/a.txt", "w") as file:
        file.write("to be\r\nor not\r\n\r\nto be")
    assert total(mapreduce.text("memory://corpus"), lambda line: [(line, 1)]) == {"to be": 2, "or not": 1, "": 1}


@pytest.mark.parametrize("format", ["tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("reduce", ["sum", "set", "function"])
def test_files(format, reduce, tmp_path):
    if format == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    pairs = [(f"key {i % 1000}\t", i) for i in range(5000)]
    wanted = collections.defaultdict(list)
    for key, value in pairs * 2:
        wanted[key].append(value)
    how = {"sum": sum, "set": lambda v: sorted(set(v)), "function": lambda v: f"{len(v)}"}[reduce]
    wanted = {key: how(values) for key, values in wanted.items()}
    folder = f"file://{tmp_path}/out"
    options = {"output": folder, "format": format}
    given = (lambda key, values: str(len(list(values)))) if reduce == "function" else reduce
    files, stats = over(2, pairs, lambda pair: [pair], given, **options)
    assert files[0] == files[1] == [f"{folder}/part-{rank:05}-of-00002.{format}" for rank in range(2)]
    assert [s.results for s in stats] != [0, 0] and sum(s.results for s in stats) == 1000
    got = {}
    for file in files[0]:
        path = Path(file.removeprefix("file://"))
        if format == "tsv":
            for line in path.read_text().splitlines():
                key, value = line.split("\t")
                key = key.replace("\\t", "\t")
                got[key] = [int(x) for x in value.split()] if reduce == "set" else value
                got[key] = int(value) if reduce == "sum" else got[key]
        elif format == "jsonl":
            got.update(json.loads(line) for line in path.read_text().splitlines())
        else:
            got.update((row["key"], row["value"]) for row in parquet.read_table(path).to_pylist())
    assert got == wanted
    with pytest.raises(pycoll.InvalidArgument, match="has 2 shards already; overwrite=True replaces them"):
        over(1, pairs, lambda pair: [pair], "sum", **options)
    over(1, pairs, lambda pair: [pair], "sum", overwrite=True, **options)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"part-00000-of-00001.{format}"]


def test_a_reduce_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(
        pycoll.InvalidArgument, match="keys of type tuple and values of type int, which tsv cannot hold"
    ):
        over(2, [1, 2], lambda x: [((x, x), 1)], "sum", output=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_frequent_key_is_reported_and_does_not_crowd_its_rank(caplog):
    pairs = [("often", i) for i in range(6000)] + [(f"key {i}", i) for i in range(4000)]
    with caplog.at_level("WARNING", logger="pycoll"):
        results, stats = over(2, pairs, lambda pair: [pair], lambda key, values: sum(1 for _ in values))
    assert dict(pair for result in results for pair in result)["often"] == 12000
    assert stats[0].frequent[0] == ("often", 12000) and stats[1].frequent == stats[0].frequent
    assert "key 'often' has 60 % of all 20000 values" not in caplog.text  # below 1.5 of a rank's share
    with_it, without = sorted(dict(result).get("often", 0) > 0 and len(result) for result in results)[::-1]
    assert with_it < 0.45 * 4000 and not without  # its rank has fewer of the others
    pairs = [("often", i) for i in range(9000)] + [(f"key {i}", i) for i in range(1000)]
    with caplog.at_level("WARNING", logger="pycoll"):
        over(2, pairs, lambda pair: [pair], lambda key, values: sum(1 for _ in values))
    assert "key 'often' has 90 % of all 20000 values, and one rank reduces them" in caplog.text


def test_progress(tmp_path):
    (tmp_path / "a.txt").write_text("some words\n" * 30_000)
    calls = []
    over(2, mapreduce.text(str(tmp_path)), mapreduce.Words(), "sum", progress=lambda *call: calls.append(call))
    assert ("map", 330_000, 330_000) in calls
    assert {phase for phase, _, _ in calls} == {"map", "reduce"}
    assert all(0 <= done <= total for _, done, total in calls)


def test_not_a_number():
    """NaN is one key, whoever reduces; and the least and the most of any numbers that it is among."""
    keys = [math.nan, float("nan"), 1.0]
    for key in (lambda x: x, lambda x: ("a", x)):
        for reduce in ("count", lambda key, values: len(list(values))):
            results, _ = over(2, keys, lambda x, key=key: [(key(x), x)], reduce)
            assert sorted(count for result in results for _, count in result) == [2, 4]
    for values in ([math.nan, 1, 2.0], [1, math.nan, 2.0], [2.0, 1, math.nan]):
        for reduce in ("min", "max"):
            results, _ = over(2, values, lambda x: [("k", x)], reduce)
            assert all(math.isnan(value) for result in results for _, value in result), values


def test_large_records_are_merged_a_few_at_a_time(monkeypatch):
    """Values of 300 kB in runs of two or three: all runs at once would take more than there is."""
    monkeypatch.setattr(memory.Memory, "records", 1_000_000)
    values = [(i % 3, bytes([i]) * 300_000) for i in range(20)]
    results, _ = over(2, values, lambda pair: [pair], lambda key, v: sorted(x[0] for x in v), memory=20_000_000)
    wanted = {key: sorted([i for i in range(20) if i % 3 == key] * 2) for key in range(3)}
    assert dict(pair for result in results for pair in result) == wanted


def test_budget():
    parse = memory.parse_bytes
    assert [parse(x) for x in (5, "5", "256MB", "1.5 GiB", "2kb")] == [5, 5, 256 * 10**6, 3 << 29, 2000]
    for ranks in (1, 2, 64, 2000):
        for left in (32 << 20, 256 << 20, 8 << 30):
            m = memory.Memory(left)
            assert m.records + 3 * m.block <= left
            assert 2 * ranks * m.stage(ranks) <= max(left // 4, ranks * 8192)
            assert m.too_many(100_000) or 100_000 * m.buffer(100_000) <= left // 4


def test_ranges_of_long_keys_that_begin_alike(monkeypatch):
    """Few keys are sampled, or one a rank: results are whole, and shared out as well as that goes."""
    monkeypatch.setattr(memory.Memory, "records", 1_000_000)
    keys = ["k" * 20_000 + f"{i:03}" for i in range(90)]
    for sample, least in ((10_000_000, 10), (1, 0)):
        monkeypatch.setattr(memory.Memory, "sample", sample)
        results, stats = over(3, keys, lambda key: [(key, 1)], "sum", partition="range")
        assert [key for result in results for key, _ in result] == keys
        assert stats[0].runs > 1 and all(len(result) >= least for result in results), [len(r) for r in results]
