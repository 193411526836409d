"""MapReduce over ranks: data of any size in memory of a bounded one."""

from __future__ import annotations

from .job import run
from .lines import jsonl, libsvm, text
from .maps import Positions, Words
from .result import Result, Stats
from .source import Source, records
from .tables import csv, parquet

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
