"""Sources whose records are rows of tables."""

from __future__ import annotations

import codecs
import contextlib
import csv as standard
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import InvalidArgument
from .source import Files, Source, Split, Urls

_ROWS = 1024  # at most at a time
_BUFFER = 256 << 10  # bytes read at once of each column


class Csv(Source):
    kind = "csv"
    files: Files

    def __init__(
        self, urls: Urls, encoding: str, storage_options: dict[str, Any] | None, options: dict[str, Any]
    ) -> None:
        self.files, self._encoding, self._options = Files(urls, storage_options), encoding, options

    def splits(self) -> list[Split]:
        try:
            codecs.lookup(self._encoding)
            standard.reader([], **self._options)
        except (LookupError, TypeError) as error:
            raise InvalidArgument(f"csv: {error}") from None
        # A quoted field may have ends of lines in it, so where a row begins is known from the file's begin only.
        return self.files.splits()

    def read(self, split: Split, block: int, most: int) -> Iterator[Iterable[Any]]:
        yield self._rows(split)

    def _rows(self, split: Split) -> Iterator[dict[str, str]]:
        is_utf8 = codecs.lookup(self._encoding).name == "utf-8"  # a mark at the begin is no part of a name
        encoding = "utf-8-sig" if is_utf8 else self._encoding
        with self.files.open_plain(split) as binary, io.TextIOWrapper(binary, encoding, newline="") as file:
            rows = standard.reader(file, strict=True, **self._options)
            try:
                names = next(rows, [])
                if len(set(names)) < len(names):
                    raise InvalidArgument(f"csv: {split.url}: two columns have the same name, among {names}")
                for row in rows:
                    if not row:
                        continue
                    if len(row) != len(names):
                        raise InvalidArgument(
                            f"csv: {split.url}, line {rows.line_num}: a row has {len(row)} fields, wanted {len(names)}"
                        )
                    yield dict(zip(names, row, strict=True))
            except (standard.Error, UnicodeDecodeError) as error:
                raise InvalidArgument(f"csv: {split.url}, line {rows.line_num + 1}: {error}") from None


class Parquet(Source):
    kind = "parquet"
    files: Files

    def __init__(self, urls: Urls, columns: Sequence[str] | None, storage_options: dict[str, Any] | None) -> None:
        self.files, self._columns = Files(urls, storage_options), columns

    def splits(self) -> list[Split]:
        if isinstance(self._columns, str):
            raise InvalidArgument(f"parquet: columns is {self._columns!r}, wanted names, [{self._columns!r}]")
        splits = []
        for split in self.files.splits():
            with self._open(split) as file:
                names = file.schema_arrow.names
                if lacking := [c for c in self._columns or () if c not in names and c.partition(".")[0] not in names]:
                    raise InvalidArgument(f"parquet: {split.url} has no column {lacking[0]!r}, only {names}")
                for group in range(file.metadata.num_row_groups):
                    nbytes = file.metadata.row_group(group).total_byte_size
                    splits.append(split.part(group, group + 1, 0, nbytes))
        return splits

    def read(self, split: Split, block: int, most: int) -> Iterator[Iterable[Any]]:
        with self._open(split) as file:
            rows = sum(file.metadata.row_group(group).num_rows for group in range(split.begin, split.end))
            # Rows as objects take several times the bytes.
            some = min(max(block * rows // (8 * max(split.nbytes, 1)), 1), _ROWS)
            groups = list(range(split.begin, split.end))
            for batch in file.iter_batches(some, row_groups=groups, columns=self._columns, use_threads=False):
                yield batch.to_pylist()

    @contextlib.contextmanager
    def _open(self, split: Split) -> Iterator[Any]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise InvalidArgument("parquet: needs pyarrow: pip install 'pycoll[mapreduce]'") from None
        try:
            with (
                self.files.open(split) as binary,
                # Columns are read a buffer at a time, not a row group at a time.
                ParquetFile(binary, buffer_size=_BUFFER, pre_buffer=False) as file,
            ):
                yield file
        except ArrowException as error:
            raise InvalidArgument(f"parquet: {split.url}: {error}") from None


def csv(
    urls: Urls, encoding: str = "utf-8", *, storage_options: dict[str, Any] | None = None, **options: Any
) -> Source:
    """Rows of CSV files with a header, as dicts of str. A file is one rank's.

    urls, storage_options: as of `text`. encoding: any that Python knows. options: of Python's csv.reader, delimiter for
    example.
    """
    return Csv(urls, encoding, storage_options, options)


def parquet(
    urls: Urls, columns: Sequence[str] | None = None, *, storage_options: dict[str, Any] | None = None
) -> Source:
    """Rows of Parquet files as dicts, of `columns` only, by default of all. Ranks share out row groups.

    urls, storage_options: as of `text`. Needs pyarrow.
    """
    return Parquet(urls, columns, storage_options)


__all__ = ["csv", "parquet"]
