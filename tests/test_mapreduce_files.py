"""pycoll.mapreduce's files: those it reads, in all their kinds, and those it writes, of all ranks or of none."""

import bz2
import gzip
import math
import zipfile

import pytest
from test_mapreduce import fails, no_budget, over  # noqa: F401

import pycoll
from pycoll import mapreduce
from pycoll.mapreduce import lines

INVALID = pycoll.InvalidArgument


def one(line):
    return [(line, 1)]


def merged(size, *args, **options):
    results, _ = over(size, *args, **options)
    return dict(pair for result in results for pair in result)


# ---- What is written


def test_shards_are_replaced_once_all_is_well(tmp_path):
    (tmp_path / "a.txt").write_text("a b\n")
    source, out = mapreduce.text(tmp_path / "a.txt"), tmp_path / "out"
    over(2, source, mapreduce.Words(), "sum", output=out)
    (out / "part-list.txt").write_text("not a shard")
    before = {path.name: path.read_text() for path in out.iterdir()}
    again = {"output": str(out), "overwrite": True}

    def broken(*_):
        raise KeyError("broken")

    fails(KeyError, "broken", source, broken, "sum", **again)
    fails(KeyError, "broken", source, one, broken, **again)
    fails(INVALID, "memory is 1000 bytes", source, mapreduce.Words(), "sum", memory=1000, **again)
    fails(INVALID, "is to be read, and lies in output=", mapreduce.text(out), one, "count", **again)
    assert {path.name: path.read_text() for path in out.iterdir()} == before

    over(1, source, mapreduce.Words(), "sum", **again)
    assert {path.name for path in out.iterdir()} == {"part-00000-of-00001.tsv", "part-list.txt"}


def test_a_rank_that_fails_while_it_writes(tmp_path):
    """JSON has no NaN: the rank with that result fails, and the other one's file, long whole, is not left."""
    pairs = [(str(i), math.nan if i == 7 else 1.0) for i in range(100)]
    fails(INVALID, "the result of key '7' as JSON", pairs, lambda p: [p], "max", output=tmp_path, format="jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_cannot_rename(tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    move = LocalFileSystem.mv

    def broken(self, old, new, **options):
        if "part-00001" in new:
            raise OSError("no")
        move(self, old, new, **options)

    monkeypatch.setattr(LocalFileSystem, "mv", broken)
    fails(OSError, "no", ["a", "b"], one, "sum", output=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_cannot_hold_is_told_before_reduce(tmp_path):
    def wrong(told, pair, reduce="sum", **options):
        fails(INVALID, told, [1], lambda x: [pair], reduce, output=tmp_path / "out", **options)

    wrong("keys of type bytes and values of type int, which tsv cannot hold; write parquet", (b"k", 1))
    wrong(
        "keys of type bytes and values of type int, which jsonl cannot hold; write parquet", (b"k", 1), format="jsonl"
    )
    wrong("keys of type tuple and values of type int, which parquet cannot hold", ((), 1), format="parquet")
    wrong("values of type bytes, which tsv cannot hold; write parquet", ("k", b"v"), lambda k, v: next(v))
    wrong("values of type other objects, which tsv cannot hold; write jsonl", ("k", []), lambda k, v: next(v))
    wrong("which tsv cannot hold; no format can", (b"k", []), lambda k, v: next(v))


def test_parquet_files_of_all_ranks_have_one_schema(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, pairs, types, reduce in (
        ("few", [(1, "a")], ("int64", "large_string"), lambda key, values: next(values)),
        ("mixed", [(str(i), 0.5 if i == 9 else i) for i in range(50)], ("large_string", "double"), "max"),
        (
            "mixed by a function",
            [(i, i) for i in range(50)],
            ("int64", "double"),
            lambda key, _: 0.5 if key == 9 else key,
        ),
        ("none", [], ("large_string", "int64"), "sum"),
    ):
        files, _ = over(3, pairs, lambda pair: [pair], reduce, output=tmp_path / name, format="parquet")
        schemas = [parquet.read_schema(file) for file in files[0]]
        assert [tuple(str(kind) for kind in schema.types) for schema in schemas] == [types] * 3, name
        table = parquet.read_table(tmp_path / name).to_pydict()
        assert len(table["key"]) == len(pairs) and parquet.read_metadata(files[0][0]).num_row_groups <= 1, name


# ---- What is read


def test_compressed_files(tmp_path):
    (tmp_path / "A.GZ").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    (tmp_path / "b.bz2").write_bytes(bz2.compress(b"two"))
    for source in (one, mapreduce.Words()):
        assert merged(2, mapreduce.text(tmp_path), source, "sum") == {"one": 1, "two": 2}
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a.txt", "one\n")
        archive.writestr("b.txt", "two\n")
    fails(
        INVALID, "c.zip has 2 files, wanted one; name them: zip://*::", mapreduce.text(tmp_path / "c.zip"), one, "sum"
    )
    (tmp_path / "d.gz").write_bytes(gzip.compress(b"one\n" * 100_000)[:200])
    fails(pycoll.Error, "d.gz: Compressed file ended before", mapreduce.text(tmp_path / "d.gz"), one, "sum")
    (tmp_path / "d.gz").write_bytes(b"nothing of the kind")
    fails(pycoll.Error, "d.gz: Not a gzipped file", mapreduce.text(tmp_path / "d.gz"), mapreduce.Words(), "sum")
    assert merged(2, mapreduce.text(f"zip://*.txt::{tmp_path}/c.zip"), one, "sum") == {"one": 1, "two": 1}


def test_a_compression_that_is_not_here(tmp_path, monkeypatch):
    compr = pytest.importorskip("fsspec.compression").compr
    monkeypatch.delitem(compr, "zstd", raising=False)
    (tmp_path / "a.zst").write_bytes(b"anything")
    fails(INVALID, "a.zst is compressed with zstd, which needs zstandard", mapreduce.text(tmp_path), one, "sum")


def test_names_in_folders_that_are_no_data(tmp_path):
    for name in ("a.txt", "_SUCCESS", ".a.txt.crc", ".draft/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("line\n")
    assert merged(2, mapreduce.text(tmp_path), one, "sum") == {"line": 1}
    assert merged(2, mapreduce.text([tmp_path / "_SUCCESS"]), one, "sum") == {"line": 1}
    assert merged(2, mapreduce.text(f"{tmp_path}/*"), one, "sum") == {"line": 1}
    assert merged(2, mapreduce.text(f"{tmp_path}/.*crc"), one, "sum") == {"line": 1}


def test_a_file_system_with_hosts_and_options():
    """Its paths have no host in them, as of hdfs://: it is found by the URL that was asked for."""
    memory_system = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    import fsspec

    class Hosts(memory_system):
        protocol, cachable = "hosts", False

        def __init__(self, host=None, user=None, **options):
            assert (host, user) == ("far", "me")
            super().__init__(**options)

        @classmethod
        def _strip_protocol(cls, path):
            return "/" + path.split("://")[1].partition("/")[2] if "://" in path else path

        @staticmethod
        def _get_kwargs_from_urls(url):
            return {"host": url.split("://")[1].partition("/")[0]}

    fsspec.register_implementation("hosts", Hosts, clobber=True)
    options = {"storage_options": {"user": "me"}}
    memory_system().pipe("/hosts/in/a.txt", b"one\ntwo\n")
    files, _ = over(
        2, mapreduce.text("hosts://far/hosts/in", **options), one, "sum", output="hosts://far/hosts/out", **options
    )
    assert files[0][0] == "hosts://far/hosts/out/part-00000-of-00002.tsv"
    assert merged(2, mapreduce.text(files[0], **options), one, "sum") == {"one\t1": 1, "two\t1": 1}


@pytest.mark.parametrize("split", [7, 50, 1 << 20])
def test_one_long_line(split, tmp_path, monkeypatch):
    """Words are shared out within it, and in bounded memory; a line of text is refused where it does not fit."""
    monkeypatch.setattr(lines, "_SPLIT", split)
    (tmp_path / "a.txt").write_text(" ".join(f"w{i % 50}" for i in range(600)))
    source = mapreduce.text(tmp_path)
    for reduce in ("sum", lambda key, values: sum(values)):
        assert merged(3, source, mapreduce.Words(), reduce) == {f"w{i}": 12 for i in range(50)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapreduce.memory.Memory, "block", 64)
        patch.setattr(mapreduce.memory.Memory, "record", 100)
        assert merged(3, source, mapreduce.Words(), "sum") == {f"w{i}": 12 for i in range(50)}
        fails(INVALID, "has a line of more than 100 bytes", source, mapreduce.Positions(), "set")


def test_csv_of_all_kinds(tmp_path):
    def rows(data, **options):
        (tmp_path / "a.csv").write_bytes(data)
        return [
            row
            for row, _ in merged(
                1, mapreduce.csv(tmp_path / "a.csv", **options), lambda r: [(str(r), 1)], "sum"
            ).items()
        ]

    def wrong(told, data, **options):
        (tmp_path / "a.csv").write_bytes(data)
        fails(INVALID, told, mapreduce.csv(tmp_path / "a.csv", **options), lambda r: [], "sum")

    assert rows(b",a\n0,x\n") == ["{'': '0', 'a': 'x'}"]  # as pandas writes it
    assert rows("\ufeffa\nä\n".encode()) == ["{'a': 'ä'}"]
    assert rows("a\nä\n".encode("latin-1"), encoding="latin-1") == ["{'a': 'ä'}"]
    assert rows("a\nĊ\n".encode("utf-16"), encoding="utf-16") == ["{'a': 'Ċ'}"]
    assert rows(b"a,b\n\n1,2\n\n") == ["{'a': '1', 'b': '2'}"]
    assert rows(b"") == rows(b"a,b\n") == []
    wrong("a.csv, line 1: 'utf-8' codec can't decode", "a\nä\n".encode("latin-1"))
    wrong("a.csv, line 3: unexpected end of data", b'a\n"b')
    wrong("a.csv: two columns have the same name", b"a,a\n1,2\n")
    wrong("csv: unknown encoding: utf-17", b"", encoding="utf-17")
    fails(INVALID, "encoding is 'utf-16', wanted one whose lines", mapreduce.text(tmp_path, "utf-16"), one, "sum")
    wrong("csv: 'fields' is an invalid keyword", b"", fields=1)


def test_parquet_of_all_kinds(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": ["x" * 1000] * 500, "b": [{"c": 1}] * 500}), tmp_path / "a.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapreduce.memory.Memory, "block", 64 << 10)
        assert merged(2, mapreduce.parquet(tmp_path, ["a"]), lambda row: [(row["a"], 1)], "sum") == {"x" * 1000: 500}
        source = mapreduce.parquet(tmp_path, ["b.c"])
        assert merged(1, source, lambda row: [(str(row), 1)], "sum") == {"{'b': {'c': 1}}": 500}
        split = mapreduce.parquet(tmp_path).splits()[0]
        assert len(next(source.read(split, 8 << 10, 0))) < 500  # as many as about a block has
    fails(
        INVALID, "a.parquet has no column 'z', only ['a', 'b']", mapreduce.parquet(tmp_path, ["z"]), dict.items, "sum"
    )
    fails(INVALID, "columns is 'a', wanted names, ['a']", mapreduce.parquet(tmp_path, "a"), dict.items, "sum")
    (tmp_path / "b.parquet").write_bytes(b"something else")
    fails(INVALID, "b.parquet: Parquet magic bytes not found", mapreduce.parquet(tmp_path), dict.items, "sum")
