"""Sources whose records are rows of tables."""

from __future__ import annotations

import csv as standard
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import InvalidArgument
from .source import Source, Split, open_files

_ROWS = 1024  # at a time


class Csv(Source):
    def __init__(self, urls: str | Iterable[str], options: dict[str, Any]) -> None:
        self._urls, self._options = urls, options

    def splits(self) -> list[Split]:
        # A quoted field may have ends of lines in it, so where a row begins is known from the file's begin only.
        return [Split(url, 0, nbytes, 0, nbytes) for url, nbytes in open_files(self._urls)]

    def read(self, split: Split, block: int) -> Iterator[Iterable[Any]]:
        import fsspec

        with fsspec.open(split.url, "rt", compression="infer", newline="", encoding="utf-8").open() as file:
            rows = standard.DictReader(file, restkey="", strict=True, **self._options)
            while some := list(itertools.islice(rows, _ROWS)):
                for row in some:
                    if "" in row or None in row.values():
                        raise InvalidArgument(
                            f"csv: {split.url}, line {rows.line_num}: a row has not {len(rows.fieldnames or ())} fields"
                        )
                yield some


class Parquet(Source):
    def __init__(self, urls: str | Iterable[str], columns: Sequence[str] | None) -> None:
        self._urls, self._columns = urls, columns

    def splits(self) -> list[Split]:
        splits = []
        for url, _ in open_files(self._urls):
            with _open_parquet(url) as file:
                for group in range(file.metadata.num_row_groups):
                    splits.append(Split(url, group, group + 1, 0, file.metadata.row_group(group).total_byte_size))
        return splits

    def read(self, split: Split, block: int) -> Iterator[Iterable[Any]]:
        with _open_parquet(split.url) as file:
            groups = list(range(split.begin, split.end))
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=self._columns):
                yield batch.to_pylist()


def _open_parquet(url: str) -> Any:
    import fsspec

    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InvalidArgument("parquet: needs pyarrow: pip install 'pycoll[mapreduce]'") from None
    return ParquetFile(fsspec.open(url, "rb").open())


def csv(urls: str | Iterable[str], **options: Any) -> Source:
    """Rows of CSV files with a header, as dicts of str. A file is one rank's.

    urls: as in `text`. options: of Python's csv.reader, delimiter for example.
    """
    return Csv(urls, options)


def parquet(urls: str | Iterable[str], columns: Sequence[str] | None = None) -> Source:
    """Rows of Parquet files as dicts, of `columns` only, by default of all. Ranks share out row groups.

    urls: paths or fsspec URLs, of files, folders, or with * in them. Needs pyarrow.
    """
    return Parquet(urls, columns)


__all__ = ["csv", "parquet"]
