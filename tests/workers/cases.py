"""The frame of workers that are made of cases: each rank runs all of them and says how each went."""

from __future__ import annotations

import sys
import traceback

import numpy as np

import pycoll

comm = pycoll.init(timeout=15)
RANK, SIZE = comm.rank, comm.size
NEXT, PREV = (RANK + 1) % SIZE, (RANK - 1) % SIZE
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def ramp(rank, count, dtype=np.float64):
    return (np.arange(count) % 97 + rank).astype(dtype)


def total(count, dtype=np.float64):
    return sum(ramp(rank, count, dtype) for rank in range(SIZE))


def raises(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in str(error), error
        return
    raise AssertionError(f"no {kind.__name__} with {words!r}")


def main(names):
    for name in names or CASES:
        try:
            CASES[name]()
        except BaseException:
            print(f"{RANK} {name} failed\n{traceback.format_exc()}", flush=True)
            raise
        sys.stdout.write(f"{RANK} {name} ok\n")  # one write: lines stay whole
        comm.barrier()
    comm.close()
