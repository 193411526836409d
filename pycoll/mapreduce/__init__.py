"""MapReduce over ranks: data of any size in memory of a bounded one."""

from __future__ import annotations

from .job import run
from .maps import Positions, Words
from .result import Result, Stats
from .source import Source, records
from .tables import csv, parquet
from .text import jsonl, libsvm, text

__all__ = [
    "Positions",
    "Result",
    "Source",
    "Stats",
    "Words",
    "csv",
    "jsonl",
    "libsvm",
    "parquet",
    "records",
    "run",
    "text",
]
