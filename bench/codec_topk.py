"""Top-k on one thread, beside torch and beside what the same thread's memory allows.

    python bench/codec_topk.py --counts 1e7,1e8 --json out.json

Normal random float32; p50 over rounds. Rows:
    feedback   p = g + e; the k largest |p| are written down with their indices and zeroed in e, all else stays there.
               torch: p = g + e; topk(|p|); values, indices = p[i], i; e = p; e[i] = 0
    plain      the k largest |g| and their indices. torch: topk(|g|); g[i]
Columns: ms of torch (sorted=False), of the exact selection, of the near one, and of the codec (near, with header,
compact indices and checksum); how many times faster than torch the exact one is; the bytes that must move (12 an
element with feedback: read g, read e, write e; 4 without) over its time, GB/s; what a plain vector loop of the same
traffic reaches (e += g; a sum of g); and the share of that.

torch runs in this process, pycoll in a native one, one after the other.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's arrays on large pages, as the native ones

import torch
from peers.environments import native


def time_torch(count: int, k: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, by row."""
    g, e = torch.randn(count), torch.randn(count)
    before = e.clone()

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.topk(g.abs(), k, sorted=False).indices
        return g[index], index

    def feedback() -> tuple[torch.Tensor, torch.Tensor]:
        e.add_(g)
        index = torch.topk(e.abs(), k, sorted=False).indices
        values = e[index]
        e[index] = 0
        return values, index

    times: dict[str, list[float]] = {"feedback": [], "plain": []}
    for _ in range(rounds):
        for name, call in (("feedback", feedback), ("plain", plain)):
            e.copy_(before)
            begin = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def rows_of(count: int, ratio: float, native: dict[str, list[float]], torch_ms: dict[str, list[float]]) -> list[dict]:
    median = {name: statistics.median(times) for name, times in native.items()}
    rows = []
    for name, suffix, bytes_each, limit in (("feedback", "_feedback", 12, "add"), ("plain", "", 4, "read")):
        exact, gigabytes = median["topk" + suffix], bytes_each * count / 1e9
        rows.append(
            {
                "count": count,
                "ratio": ratio,
                "row": name,
                "torch_ms": statistics.median(torch_ms[name]),
                "exact_ms": exact,
                "near_ms": median["near" + suffix],
                "codec_ms": median["encode_near_feedback"] if suffix else None,
                "times_faster": statistics.median(torch_ms[name]) / exact,
                "gbs": gigabytes / exact * 1e3,
                "limit_gbs": gigabytes / median[limit] * 1e3,
                "share": median[limit] / exact,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1e7,1e8")
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--torch-rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    results = []
    print(f"{'count':>10} {'row':>9} {'torch ms':>9} {'exact':>8} {'near':>8} {'codec':>8} {'faster':>7}", end="")
    print(f" {'GB/s':>6} {'limit':>6} {'share':>6}")
    for count in (int(float(text)) for text in options.counts.split(",")):
        command = [str(native("codec_topk")), str(count), str(options.ratio), str(options.rounds)]
        selected = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)
        torch_ms = time_torch(count, math.ceil(options.ratio * count), options.torch_rounds)
        for row in rows_of(count, options.ratio, selected, torch_ms):
            codec = f"{row['codec_ms']:8.2f}" if row["codec_ms"] else f"{'-':>8}"
            print(
                f"{count:10} {row['row']:>9} {row['torch_ms']:9.1f} {row['exact_ms']:8.2f} {row['near_ms']:8.2f}",
                end="",
            )
            print(f" {codec} {row['times_faster']:6.1f}x {row['gbs']:6.1f} {row['limit_gbs']:6.1f} {row['share']:6.0%}")
            results.append(row)
    if options.json:
        environment = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        document = {"schema": "pycoll-codec-topk/1", "environment": environment, "results": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
