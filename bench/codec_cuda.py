"""Measures the CUDA codecs at 2^28 elements, beside the device's copy bandwidth and torch.topk.

    python bench/codec_cuda.py [--log-count 28] [--rounds 20] [--json out.json]

Each row is the median over rounds of one call between two events of the stream, the L2 cache flushed before each.
    bytes    logical bytes an element: what must be read and written, whatever the kernels do
    GB/s     that, by time          of copy   GB/s by those of torch's copy of as many floats, read and write counted
The data are normal. Encoders write whole wires, header and checksum included; decoders check them first, and wait for
what they find. "warm" top-k has had a step of the same array before, "cold" has not; its peer is torch.topk of |x| and
gather, with the residual's update where there is one. Without a device this says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

BLOCK = 256
PEERS = 8
RATIO = 0.01
FLUSH_BYTES = 512 << 20  # more than any L2


@dataclass
class Row:
    name: str
    bytes_per_element: float
    milliseconds: float
    gbs: float
    of_copy: float


class Bench:
    """Arrays of one size on one device, and the clock."""

    def __init__(self, torch: Any, count: int, rounds: int) -> None:
        self.torch, self.count, self.rounds = torch, count, rounds
        self.x, self.residual = (torch.randn(count, device="cuda") for _ in range(2))
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")

    def milliseconds(self, call: Callable[[], Any]) -> float:
        call()
        times = []
        for _ in range(self.rounds):
            self.flush.zero_()
            begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        return statistics.median(times)

    def cases(self, cuda: Any) -> Iterator[tuple[str, float, Callable[[], Any]]]:
        """Name, logical bytes an element, and what to call."""
        torch, count = self.torch, self.count
        out = torch.empty_like(self.x)
        yield "copy", 8, lambda: out.copy_(self.x)
        for name, codec in codecs().items():
            core = codec.core
            wires = [
                torch.empty(core.most_bytes(count), dtype=torch.uint8, device="cuda")
                for _ in range(PEERS + 1 if name == "int8" else 1)
            ]
            for wire in wires:
                cuda.encode(core, self.x, wire)
            payload = core.most_bytes(count) / count
            reads = RATIO if name == "random k" else 1  # elements that must be looked at
            adds = RATIO if name.startswith(("near top-k", "random k")) else 1
            encode = partial(cuda.encode, core, self.x, wires[0])
            yield f"{name} encode", 4 * reads + payload, encode
            yield f"{name} encode, residual", 12 + payload, partial(encode, residual=self.residual)
            yield f"{name} decode", 4 + payload, partial(cuda.decode_into, out, wires[0])
            yield f"{name} decode, add", 8 * adds + payload, partial(cuda.decode_add, out, wires[0])
            if name == "int8":
                total = partial(cuda.sum, core, wires[1:], wires[0], count)
                yield f"{name} sum of {PEERS}", (PEERS + 1) * payload, total
        k = int(count * RATIO)
        index = torch.empty(k, dtype=torch.int32, device="cuda")
        value = torch.empty(k, device="cuda")
        cold, warm, fed = (cuda.TopK() for _ in range(3))

        def from_nothing() -> None:
            cold.forget(torch.cuda.current_stream().cuda_stream)
            cold.select(self.x, k, index, value)

        entries = 8 * RATIO
        yield "top-k cold", 4 + entries, from_nothing
        yield "top-k warm", 4 + entries, lambda: warm.select(self.x, k, index, value)
        yield "top-k warm, residual", 12 + entries, lambda: fed.select(self.x, k, index, value, residual=self.residual)
        yield "torch.topk, gather", 4 + entries, lambda: self.x[torch.topk(self.x.abs(), k).indices]
        yield "torch.topk, residual", 12 + entries, self.torch_with_residual

    def torch_with_residual(self) -> None:
        self.residual += self.x
        chosen = self.torch.topk(self.residual.abs(), int(self.count * RATIO)).indices
        self.residual[chosen].clone()
        self.residual[chosen] = 0


def codecs() -> dict[str, Any]:
    """By the names of the rows."""
    from pycoll import Cast, Chain, Fp8, Int4, Int8, RandomK, Sign, TopK

    return {
        "bf16": Cast(),
        "int8": Int8(BLOCK),
        "int4": Int4(BLOCK),
        "e4m3": Fp8("e4m3", BLOCK),
        "e5m2": Fp8("e5m2", BLOCK),
        "sign": Sign(BLOCK),
        "near top-k": TopK(RATIO),
        "near top-k int8": Chain(TopK(RATIO), Int8()),
        "random k": RandomK(RATIO),
    }


def why_not() -> str | None:
    """What is missing to measure, or None."""
    try:
        import torch

        from pycoll import _cuda  # noqa: F401
    except ImportError as error:
        return str(error)
    return None if torch.cuda.is_available() else "torch sees none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log-count", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    if missing := why_not():
        print(f"no CUDA device: unmeasured ({missing})")
        return 0
    import torch

    from pycoll import _cuda

    bench = Bench(torch, 1 << options.log_count, options.rounds)
    rows: list[Row] = []
    print(f"{torch.cuda.get_device_name()}, {bench.count} elements")
    print(f"{'':28}{'bytes':>8}{'ms':>10}{'GB/s':>10}{'of copy':>9}")
    for name, per_element, call in bench.cases(_cuda):
        milliseconds = bench.milliseconds(call)
        gbs = per_element * bench.count / milliseconds / 1e6
        rows.append(Row(name, per_element, milliseconds, gbs, gbs / (rows[0].gbs if rows else gbs)))
        print(f"{name:28}{per_element:8.2f}{milliseconds:10.3f}{gbs:10.0f}{rows[-1].of_copy:9.2f}", flush=True)
    if options.json:
        report = {
            "schema": "pycoll-codec-cuda/1",
            "environment": {
                "device": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "cuda_runtime": _cuda.RUNTIME_VERSION,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            "settings": {"count": bench.count, "rounds": bench.rounds, "block": BLOCK, "ratio": RATIO},
            "results": [asdict(row) for row in rows],
        }
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
