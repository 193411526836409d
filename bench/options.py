"""The command line of a benchmark."""

from __future__ import annotations

import argparse

from case import DTYPES, OPS, UNIT, Collective


def parse_bytes(text: str) -> int:
    """ "64K" -> 65536."""
    shift = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper(), 0)
    return int(text[:-1] if shift else text) << shift


def parse_sizes(text: str) -> list[int]:
    """ "8:64M" doubles, "8:64M:8" multiplies by 8, "8,1K,1M" is a list."""
    if ":" not in text:
        return [parse_bytes(part) for part in text.split(",")]
    first, last, *factor = text.split(":")
    size, end, step = parse_bytes(first), parse_bytes(last), int(factor[0]) if factor else 2
    if size < 1 or step < 2:
        raise argparse.ArgumentTypeError(f"sizes must start at 1 or more and grow by 2 or more, got {text}")
    sizes = []
    while size <= end:
        sizes.append(size)
        size *= step
    return sizes


def _iterations(text: str) -> str:
    if text != "auto" and not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f'iterations must be "auto" or a positive number, got {text}')
    return text


def parse(collective: Collective) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Measures {collective.name} over the ranks that mpirun starts.")
    add = parser.add_argument
    add("--sizes", type=parse_sizes, default="8:64M", help="bytes: 8:64M doubles, 8:64M:8, or 8,1K,1M (8:64M)")
    add("--dtype", choices=DTYPES, default="float32")
    add("--op", choices=OPS, default="sum", help="reductions only")
    add("--algo", help="force an algorithm, for example ring")
    add("--symmetric", action="store_true", help="pycoll's arrays from comm.empty(), read by peers in place")
    add("--iterations", type=_iterations, default="auto", help="calls a size, or auto: as many as fit in --seconds")
    add("--seconds", type=float, default=0.5, help="auto: seconds a size and contestant (0.5)")
    add("--warmup", type=int, default=5, help="calls before anything is timed (5)")
    add("--rounds", type=int, default=7, help="turns that pycoll and its peer take (7)")
    add("--peer", choices=("mpi4py", "none"), help="run beside pycoll (mpi4py where the type and op allow it)")
    add("--no-check", action="store_true", help="do not compare results with the oracle")
    add("--json", metavar="FILE", help="write results there as well")
    arguments = parser.parse_args()
    integer_only = arguments.op in ("and", "or", "xor")
    if integer_only and arguments.dtype in UNIT:
        parser.error(f"--op {arguments.op} is for integers, --dtype is {arguments.dtype}")
    return arguments
