"""Allreduce with every codec, beside dense ones and beside the allgather of (index, value) pairs that others do.

    mpirun -n 4 python bench/compressed.py --elements 10M --codecs bf16,int8,topk:0.01 --json out.json

Contestants take turns, round after round. Columns:
    ms       of the slowest rank, median over rounds          ratio    dense float32's ms / this one's
    wire     bytes sent by the rank that sends most           enc dec  ms in encode and decode, the rest is the wire
    error    |result - exact sum| / |exact sum|, without what error feedback adds later
    check    ranks have the same bits, and over all ranks result + residuals = inputs + old residuals, within rounding

"pairs:RATIO" is what bolts top-k on outside the collective: each rank selects (by pycoll's kernel, so that only the
exchange differs), all gather all (u32 index, f32 value) pairs, everybody adds up.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from table import environment_of

import pycoll

CODECS = "none,bf16,int8,int4,fp8,sign,shared,topk:0.01,topk:0.001,randomk:0.01,pairs:0.01,pairs:0.001"


class Encoded:
    """pycoll's allreduce, dense if there is no codec."""

    def __init__(self, comm: Any, codec: Any, x: np.ndarray) -> None:
        self.comm, self.codec, self.x = comm, codec, x
        self.out = np.empty_like(x)
        self.feedback = pycoll.Feedback(x) if codec is not None else None

    def call(self) -> None:
        options = {} if self.codec is None else {"codec": self.codec, "feedback": self.feedback}
        self.comm.allreduce(self.x, out=self.out, **options)

    @property
    def residual(self) -> np.ndarray:
        return self.feedback.residual if self.feedback else np.zeros_like(self.x)

    @property
    def report(self) -> dict[str, Any]:
        return self.feedback.report if self.feedback else {}


class Pairs:
    """Selection, then an allgather of pairs, and everybody's sum."""

    def __init__(self, comm: Any, ratio: float, x: np.ndarray) -> None:
        self.comm, self.x = comm, x
        self.codec = pycoll.TopK(ratio)
        self.out = np.empty_like(x)
        self.residual = np.zeros_like(x)
        self.report: dict[str, Any] = {}

    def call(self) -> None:
        begin = time.perf_counter()
        wire = pycoll.codec.encode(self.x, self.codec, residual=self.residual)
        mine = pycoll.codec.decode(wire, np.empty_like(self.x))
        index = np.flatnonzero(mine).astype(np.uint32)
        encoded = time.perf_counter()
        counts = self.comm.allgather(np.array([len(index)])).tolist()
        indices = self.comm.allgather(index, counts=counts)
        values = self.comm.allgather(mine[index], counts=counts)
        gathered = time.perf_counter()
        self.out.fill(0)
        np.add.at(self.out, indices, values)
        self.report = {"encode_seconds": encoded - begin, "decode_seconds": time.perf_counter() - gathered}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", default="1M", help="of the array, float32 (1M); K, M, G are powers of 10")
    parser.add_argument("--codecs", default=CODECS, help=f"({CODECS})")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    scale = {"K": 1e3, "M": 1e6, "G": 1e9}.get(arguments.elements[-1:].upper(), 1)
    arguments.count = int(float(arguments.elements.rstrip("KMGkmg")) * scale)
    if arguments.count < 1 or arguments.rounds < 1:
        parser.error("--elements and --rounds must be at least 1")
    return arguments


def make(comm: Any, name: str, x: np.ndarray) -> Encoded | Pairs:
    kind, _, amount = name.partition(":")
    return Pairs(comm, float(amount), x) if kind == "pairs" else Encoded(comm, pycoll.codec.parse(name), x)


def check(comm: Any, one: Encoded | Pairs, exact: np.ndarray) -> tuple[float, bool]:
    """Error of one more call that starts without residuals, and whether ranks agree and nothing was lost."""
    one.residual.fill(0)
    one.call()
    error = float(np.linalg.norm(one.out - exact) / np.linalg.norm(exact))
    first = comm.broadcast(one.out.copy())
    same = np.array([int(np.array_equal(first.view(np.uint32), one.out.view(np.uint32)))])
    comm.allreduce(same, op="min")
    total = one.residual.astype(np.float64)
    comm.allreduce(total)
    lost = np.abs(one.out + total - exact).max()
    bound = 1e-5 * comm.size if one.report else 1e-6 * comm.size * np.abs(exact).max()
    return error, bool(same[0]) and bool(lost <= bound)


def main() -> None:
    arguments = parse()
    comm = pycoll.init()
    x = np.random.default_rng(comm.rank).standard_normal(arguments.count, np.float32)
    exact = x.astype(np.float64)
    comm.allreduce(exact)
    names = arguments.codecs.split(",")
    contestants = {name: make(comm, name, x) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    wire: dict[str, float] = {}
    for one in contestants.values():
        one.call()
    for _ in range(arguments.rounds):
        for name, one in contestants.items():
            comm.barrier()
            before, begin = comm.stats()["wire_bytes"], time.perf_counter()
            one.call()
            taken = np.array([time.perf_counter() - begin, comm.stats()["wire_bytes"] - before])
            comm.allreduce(taken, op="max")
            times[name].append(1e3 * taken[0])
            wire[name] = taken[1]
    results = []
    for name, one in contestants.items():
        report = dict(one.report)
        error, right = check(comm, one, exact)
        results.append(
            {
                "codec": name,
                "elements": arguments.count,
                "ms": float(np.median(times[name])),
                "p99_ms": float(np.percentile(times[name], 99)),
                "wire_bytes": wire[name],
                "encode_ms": 1e3 * report.get("encode_seconds", 0.0),
                "decode_ms": 1e3 * report.get("decode_seconds", 0.0),
                "error": error,
                "check": "ok" if right else "WRONG",
            }
        )
    if comm.rank == 0:
        show(comm, arguments, results)
    if any(result["check"] != "ok" for result in results):
        raise SystemExit(1)


def show(comm: Any, arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    dense = next((result["ms"] for result in results if result["codec"] == "none"), None)
    print(f"{comm.size} ranks over {comm.transport}, {arguments.count:,} float32, {arguments.rounds} rounds\n")
    print(f"{'codec':16}{'ms':>10}{'p99':>10}{'ratio':>8}{'wire':>14}{'enc':>9}{'dec':>9}{'error':>10}  check")
    for r in results:
        ratio = f"{dense / r['ms']:8.2f}" if dense else f"{'-':>8}"
        print(
            f"{r['codec']:16}{r['ms']:10.3f}{r['p99_ms']:10.3f}{ratio}{r['wire_bytes']:14,.0f}"
            f"{r['encode_ms']:9.3f}{r['decode_ms']:9.3f}{r['error']:10.5f}  {r['check']}"
        )
    if arguments.json:
        settings = {"elements": arguments.count, "codecs": arguments.codecs, "rounds": arguments.rounds}
        document = {
            "schema": "pycoll-compressed/1",
            "environment": environment_of(SimpleNamespace(comm=comm, peer=None)),
            "settings": settings,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({**document, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
