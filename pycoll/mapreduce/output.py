"""Files that a job writes: one a rank, under its name only once it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._core import Merge
from ..errors import InvalidArgument

FORMATS = ("tsv", "jsonl", "parquet")


def shard_url(folder: str, rank: int, size: int, format: str) -> str:
    return f"{folder.rstrip('/')}/part-{rank:05}-of-{size:05}.{format}"


def check_folder(folder: str, overwrite: bool) -> None:
    """Makes it; raises if there are shards of a job before. With overwrite they are deleted."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(folder)
    system.makedirs(path, exist_ok=True)
    old = [name for name in system.ls(path, detail=False) if Path(name).name.startswith("part-")]
    if old and not overwrite:
        raise InvalidArgument(f"mapreduce: {folder} has {len(old)} shards already; overwrite=True replaces them")
    for name in old:
        system.rm(name)


def write(url: str, merge: Merge, format: str, bytes: int, step: Callable[[], None]) -> None:
    """Takes all records out of `merge`, about so many bytes at a time, with a call of `step` after each time."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    folder, _, name = path.rpartition("/")
    draft = f"{folder}/.{name}.draft"
    try:
        with system.open(draft, "wb") as file:
            if format == "parquet":
                _write_parquet(file, merge, bytes, step)
            else:
                for piece in _lines(merge, bytes) if format == "tsv" else _json_lines(merge, bytes):
                    file.write(piece)
                    step()
        system.mv(draft, path)
    except BaseException:
        if system.exists(draft):
            system.rm(draft)
        raise


def _lines(merge: Merge, bytes: int) -> Iterator[Any]:
    while piece := merge.lines(bytes):
        yield piece


def _json_lines(merge: Merge, bytes: int) -> Iterator[Any]:
    while pairs := merge.pairs(bytes):
        try:
            yield "".join(json.dumps([key, value], default=_plain) + "\n" for key, value in pairs).encode()
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"mapreduce: cannot write a result as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _write_parquet(file: Any, merge: Merge, bytes: int, step: Callable[[], None]) -> None:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise InvalidArgument("mapreduce: writing Parquet needs pyarrow: pip install 'pycoll[mapreduce]'") from None
    writer = None
    try:
        while columns := merge.columns(bytes):
            keys, values = _key_array(columns), _value_array(columns)
            if writer is None:
                schema = pa.schema([("key", keys.type), ("value", values.type)])
                # Keys are distinct, and values mostly are: a dictionary of them would only cost time.
                writer = ParquetWriter(file, schema, use_dictionary=False, write_statistics=["key"])
            if (keys.type, values.type) != (schema.field(0).type, schema.field(1).type):
                raise InvalidArgument(
                    f"mapreduce: a result is of {keys.type} and {values.type}, the ones before it of "
                    f"{schema.field(0).type} and {schema.field(1).type}, and a column has one type; write jsonl"
                )
            # A row group at a time: batches would wait in memory for a million rows.
            writer.write_table(pa.Table.from_arrays([keys, values], schema=schema))
            step()
        if writer is None:
            writer = ParquetWriter(file, pa.schema([("key", pa.large_string()), ("value", pa.int64())]))
    finally:
        if writer:
            writer.close()


def _key_array(columns: dict[str, Any]) -> Any:
    """Keys are written as the core orders them: numbers as eight bytes, the highest first, the sign turned."""
    import pyarrow as pa

    kind, count = columns["key_type"], len(columns["key_ends"])
    if kind in ("text", "bytes"):
        return _strings(kind == "text", columns["key_ends"], columns["keys"])
    if kind == "tuple":
        raise InvalidArgument("mapreduce: got a tuple as key, wanted text, bytes or a number for Parquet; write jsonl")
    bits = np.frombuffer(columns["keys"], ">u8", count).astype(np.uint64)
    sign = np.uint64(1 << 63)
    if kind == "whole":
        return pa.array((bits ^ sign).view(np.int64))
    return pa.array(np.where(bits & sign, bits & ~sign, ~bits).view(np.float64))


def _value_array(columns: dict[str, Any]) -> Any:
    import pyarrow as pa

    if columns["kind"] in "if":
        return pa.array(columns["numbers"])
    if columns["kind"] in "sb":
        return _strings(columns["kind"] == "s", columns["value_ends"], columns["values"])
    ends = np.concatenate([[0], columns["value_ends"]])
    return pa.LargeListArray.from_arrays(ends, pa.array(columns["numbers"]))


def _strings(is_text: bool, ends: np.ndarray, data: bytes) -> Any:
    import pyarrow as pa

    kind = pa.LargeStringArray if is_text else pa.LargeBinaryArray
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    array = kind.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InvalidArgument(f"mapreduce: text is not UTF-8 ({error}), as Parquet wants it; write tsv") from None
    return array
