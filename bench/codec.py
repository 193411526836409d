"""Measures the kernels of the dense codecs on one thread against the memory bandwidth of that thread.

    python bench/codec.py --elements 10M,100M --pages huge --json out.json

Builds and runs bench/native/codec_blocks.cc. Columns:
    codec, direction, elements    what is measured; blocks of 256 elements
    ms          median of the rounds
    GB/s        bytes that must move (4 an element read, 1.016 written by int8, ...) / time
    reference   GB/s of a plain loop that moves the same mix of bytes, in turn with it in the same run
    percent     GB/s / reference

Then int8 beside plain torch operations (absmax of blocks, divide, round, to int8), one thread each, in one process.

--json FILE writes {"schema": "pycoll-codec-blocks/1", "environment": {...}, "results": [the columns],
"torch": [{"elements", "pycoll_ms", "torch_ms", "ratio"}]}.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from peers.environments import native

import pycoll
from pycoll import _build_info, _core

DIRECTIONS_WIDTH = 24


def elements_of(text: str) -> list[int]:
    units = {"k": 10**3, "M": 10**6, "G": 10**9}
    return [int(float(part.rstrip("kMG")) * units.get(part[-1], 1)) for part in text.split(",")]


def median_ms(call: Callable[[], Any], rounds: int) -> float:
    call()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken)) * 1e3


def beside_torch(count: int, rounds: int) -> dict[str, Any] | None:
    """int8 of pycoll and the same of plain torch operations; None where torch is missing."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    count -= count % 256
    x = torch.randn(count)
    encoder = _core.Encoder.blocks("int8", 256, False, 0)
    wire = np.empty(encoder.most_bytes(count), np.uint8)

    def plain() -> Any:
        blocks = x.view(-1, 256)
        scale = blocks.abs().amax(1, keepdim=True) / 127
        return scale, (blocks / scale).round_().to(torch.int8)

    ours, theirs = median_ms(lambda: encoder.encode(x, wire), rounds), median_ms(plain, rounds)
    return {"elements": count, "pycoll_ms": ours, "torch_ms": theirs, "ratio": theirs / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--elements", type=elements_of, default=[10**7, 10**8], help="for example 10M,100M")
    parser.add_argument("--pages", choices=("huge", "plain"), default="huge", help="huge: 2 MiB, by madvise")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()

    program = native("codec_blocks")
    environment = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "pycoll": _build_info.VERSION,
        "simd": _core.simd(),
        "compiler": _build_info.COMPILER,
        "pages": arguments.pages,
        "rounds": arguments.rounds,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    print(
        f"# pycoll {pycoll.__version__} ({_core.simd()}, {_build_info.COMPILER}), one thread, {arguments.pages} pages; "
        f"{environment['time']}"
    )
    print(
        f"{'codec':10} {'direction':{DIRECTIONS_WIDTH}} {'elements':>10} {'ms':>9} {'GB/s':>7} {'reference':>9} percent"
    )
    results, torch_results = [], []
    for count in arguments.elements:
        command = [str(program), str(count), arguments.pages, str(arguments.rounds)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout.splitlines()
        for r in map(json.loads, lines):
            results.append(r)
            print(
                f"{r['codec']:10} {r['direction']:{DIRECTIONS_WIDTH}} {r['elements']:>10} {r['ms']:9.2f} "
                f"{r['gbs']:7.2f} {r['reference_gbs']:9.2f} {r['percent']:7.1f}"
            )
        if row := beside_torch(count, arguments.rounds):
            torch_results.append(row)
            ours, theirs = row["pycoll_ms"], row["torch_ms"]
            print(
                f"int8 of {row['elements']} elements: pycoll {ours:.2f} ms, torch {theirs:.2f} ms: {theirs / ours:.1f}x"
            )
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps(
                {
                    "schema": "pycoll-codec-blocks/1",
                    "environment": environment,
                    "results": results,
                    "torch": torch_results,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
