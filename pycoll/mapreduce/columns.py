"""Results as the columns of a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import numpy as np

from .._core import Merge
from ..errors import InvalidArgument


def write_parquet(
    file: Any, merge: Merge, keys: Set[str], values: Set[str], bytes: int, step: Callable[[], None]
) -> None:
    """All records of `merge`, about so many bytes at a time, with a call of `step` after each time.

    keys, values: what all ranks' results have, one type, one kind, or whole numbers and floats, which become floats: so
    that the schema is the same in all files, also of a rank that has no result.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise InvalidArgument("mapreduce: writing Parquet needs pyarrow: pip install 'pycoll[mapreduce]'") from None
    types = {"str": pa.large_string(), "bytes": pa.large_binary(), "int": pa.int64(), "float": pa.float64()}
    kinds = {"i": types["int"], "f": types["float"], "s": types["str"], "b": types["bytes"]}
    kinds["d"] = pa.large_list(pa.int64())
    as_real = "f" in values
    kind = "f" if as_real else min(values, default="i")
    schema = pa.schema([("key", types[min(keys, default="str")]), ("value", kinds[kind])])
    # Keys are distinct, and values mostly are: a dictionary of them would only cost time.
    with ParquetWriter(file, schema, use_dictionary=False, write_statistics=["key"]) as writer:
        while columns := merge.columns(bytes, as_real):
            # A row group at a time: batches would wait in memory for a million rows.
            writer.write_table(pa.Table.from_arrays([_key_array(columns), _value_array(columns)], schema=schema))
            step()


def _key_array(columns: dict[str, Any]) -> Any:
    """Keys are written as the core orders them: numbers as eight bytes, the highest first, the sign turned."""
    import pyarrow as pa

    kind, count = columns["key_type"], len(columns["key_ends"])
    if kind in ("str", "bytes"):
        return _strings(kind == "str", columns["key_ends"], columns["keys"])
    bits = np.frombuffer(columns["keys"], ">u8", count).astype(np.uint64)
    sign = np.uint64(1 << 63)
    if kind == "int":
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
