"""The frame of workers over torch.distributed that are made of cases: every rank runs all of them, in order."""

from __future__ import annotations

import sys
import time

import torch.distributed as dist

CASES = []


def case(function):
    CASES.append(function)
    return function


def run(cases):
    """With -v rank 0 says how long each took."""
    for each in cases:
        begin = time.monotonic()
        each()
        if "-v" in sys.argv and dist.get_rank() == 0:
            print(f"{each.__name__}: {time.monotonic() - begin:.2f} s", flush=True)


def say_ok(rank, size):
    print(f"{rank} of {size} ok {len(CASES)}", flush=True)
