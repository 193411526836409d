"""What a benchmark prints: where it ran, and a row a size with nccl-tests' columns."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from harness import Bench


def environment_of(bench: Any) -> dict[str, Any]:
    machine = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            machine = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    from pycoll import _build_info, _core

    environment = {
        "machine": machine,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pycoll": _build_info.VERSION,
        "simd": _core.simd(),
        "compiler": _build_info.COMPILER,
        "mpi": None,
        "mpi4py": None,
        "ranks": bench.comm.size,
        "transport": bench.comm.transport,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    if bench.peer is not None:
        import mpi4py
        from mpi4py import MPI

        environment["mpi"] = MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\0 ")
        environment["mpi4py"] = mpi4py.__version__
    return environment


def header(say: Callable[..., None], bench: Bench, environment: dict[str, Any]) -> None:
    e, a = environment, bench.arguments
    mpi = f"{e['mpi']}, mpi4py {e['mpi4py']}" if e["mpi"] else "no peer"
    say(
        f"# {bench.collective.name}: {e['ranks']} ranks, transport {e['transport']}; "
        f"{e['machine']}, {e['cores']} cores a rank"
    )
    say(
        f"# pycoll {e['pycoll']} ({e['simd']}, {e['compiler']}), Python {e['python']}, NumPy {e['numpy']}; "
        f"{mpi}; {e['time']}"
    )
    say(
        f"# algorithm {a.algo or 'chosen'}, pycoll's memory {'symmetric' if a.symmetric else 'private'}, "
        f"{a.rounds} rounds, iterations {a.iterations}; us are of the slowest rank"
    )
    names = ["size", "count", "type", "redop", "time", "algbw", "busbw", "#wrong", "p50", "p99", "wire", "error"]
    units = ["B", "elements", "-", "-", "us", "GB/s", "GB/s", "-", "us", "us", "B", "-"]
    if bench.peer is not None:
        names, units = [*names, "mpi4py", "ratio"], [*units, "us", "x"]
    for words in (names, units):
        say("#" + _cells(("" if word == "-" else word for word in words), comment=True))


WIDTHS = (11, 10, 8, 5, 10, 8, 8, 7, 10, 10, 10, 8, 10, 6)


def _cells(words: Iterator[str] | list[str], *, comment: bool = False) -> str:
    line = " ".join(f"{word:>{width}}" for word, width in zip(words, WIDTHS, strict=False))
    return line[1:] if comment else line


def row(result: dict[str, Any], bench: Bench) -> str:
    dash = "-"
    words = [
        str(result["bytes"]),
        str(result["count"]),
        result["dtype"] if bench.collective.has_data else dash,
        result["op"] or dash,
        _number(result["time_us"]),
        f"{result['algbw_gbs']:.2f}",
        f"{result['busbw_gbs']:.2f}",
        dash if result["wrong"] is None else str(result["wrong"]),
        _number(result["p50_us"]),
        _number(result["p99_us"]),
        str(result["wire_bytes"]),
        dash if result["max_error"] is None else f"{result['max_error']:.0e}" if result["max_error"] else "0",
    ]
    if result["peer"]:
        words += [_number(result["peer"]["time_us"]), f"{result['peer']['ratio']:.2f}"]
    return _cells(words)


def _number(us: float) -> str:
    return f"{us:.2f}" if us < 100 else f"{us:.1f}" if us < 10000 else f"{us:.0f}"
