"""`pycoll advise`: measures these ranks' link and kernels, and says whether a codec pays for a model's gradients.

    pycoll run -n 4 -m pycoll.cli advise --parameters 25e6
    mpirun -n 4 pycoll advise --from train.py:make_model --compute 0.15 --verify

docs/advise.md says what is measured, what is computed from it, and how near that comes.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pycoll.codec import Codec, parse
from pycoll.cost import Bucket, Group, Link
from pycoll.errors import InvalidArgument
from pycoll.launcher import mpi_launcher, store_launcher

from . import workload
from .launch import LaunchError

CODECS = "bf16,int8,fp8,int4,sign,topk:0.01,topk:0.01+int8,shared,powersgd:4"
HOW = """started alone: the link between ranks is what it measures. Start it on those it is about:
    pycoll run -n 4 -m pycoll.cli advise --parameters 25e6
    mpirun -n 4 pycoll advise --parameters 25e6
or name the link, then only kernels are measured:
    pycoll advise --parameters 25e6 --ranks 64 --bandwidth 1.25e9 --latency 50e-6"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "advise",
        help="predict whether a codec pays",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--parameters", type=workload.number, metavar="N", help="float32 numbers, in buckets of 25 MiB")
    what.add_argument("--buckets", metavar="25M,10M", help="bytes of each bucket")
    what.add_argument("--from", dest="model", metavar="FILE.py:FUNCTION", help="makes a torch model")
    add("--codecs", default=CODECS, metavar="A,B", help="default %(default)s")
    add("--compute", type=float, default=0.0, metavar="S", help="seconds of a step without communication")
    add("--ranks", type=int, metavar="P", help="predict for so many, one a node")
    add("--bandwidth", type=workload.number, metavar="B", help="predict for a link of B bytes a second, each way")
    add("--latency", type=float, metavar="S", help="and of S seconds a message")
    add("--seconds", type=float, default=0.3, help="time for one measurement (default 0.3)")
    add("--verify", action="store_true", help="measure each codec as well")
    add("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    named = args.ranks is not None and args.bandwidth is not None and args.latency is not None
    if not (mpi_launcher() or store_launcher() or named):
        raise LaunchError(HOW)
    check(args)
    import pycoll

    from . import advice, speeds, verify

    codecs = codecs_of(args.codecs)
    with pycoll.init() as comm:
        buckets = buckets_of(args)
        measured = speeds.group_of(comm, args.seconds)
        largest = max((b for b in buckets if b.compressed), key=lambda b: b.count, default=buckets[0])
        speed = dict(zip(codecs, speeds.speeds_of(comm, list(codecs.values()), largest, args.seconds), strict=True))
        add = speeds.add_speed(comm, args.seconds)
        group = asked(args, measured)
        rows = advice.rows_of(codecs, buckets, group, speed, add, args.compute)
        if args.verify:
            rows = verify.verified(comm, codecs, buckets, rows, args.seconds)
        if comm.rank == 0:
            reason = advice.recommendation(codecs, rows, buckets, group, speed, add)
            advice.show(rows, buckets, group, measured, args.compute)
            print(reason)
            if args.json:
                document = {
                    "schema": "pycoll-advise/1",
                    "group": asdict(group),
                    "measured": asdict(measured),
                    "buckets": [asdict(b) for b in buckets],
                    "speeds": {name: asdict(s) for name, s in speed.items()},
                    "add": add,
                    "rows": [row._asdict() for row in rows],
                    "recommendation": reason,
                }
                args.json.write_text(json.dumps(finite(document), indent=1) + "\n")
    return 0


def check(args: argparse.Namespace) -> None:
    for name in ("parameters", "ranks", "bandwidth"):
        if getattr(args, name) is not None and not getattr(args, name) >= 1:
            raise LaunchError(f"--{name}: wanted at least 1")
    if min(args.latency or 0, args.compute) < 0 or not args.seconds > 0:
        raise LaunchError("--latency, --compute, --seconds: wanted no negative numbers, and some seconds")
    if args.verify and (args.ranks, args.bandwidth, args.latency) != (None, None, None):
        raise LaunchError("--verify measures these ranks: it does not go with --ranks, --bandwidth or --latency")


def codecs_of(names: str) -> dict[str, Codec]:
    try:
        found = {name: parse(name) for name in names.split(",")}
    except InvalidArgument as error:
        raise LaunchError(f"--codecs: {error}") from None
    if None in found.values():
        raise LaunchError("--codecs: none is no codec; the dense ones are always in the table")
    return {name: codec for name, codec in found.items() if codec}


def buckets_of(args: argparse.Namespace) -> list[Bucket]:
    if args.model:
        return workload.of_model(args.model)
    if args.buckets:
        return workload.of_bytes([workload.number(size) for size in args.buckets.split(",")])
    return workload.of_parameters(int(args.parameters))


def asked(args: argparse.Namespace, measured: Group) -> Group:
    """The group to predict for: the measured one, but for what the command line says."""
    if (args.ranks, args.bandwidth, args.latency) == (None, None, None):
        return measured
    link = Link(
        measured.link.latency if args.latency is None else args.latency,
        measured.link.bandwidth if args.bandwidth is None else args.bandwidth,
        measured.link.spread if args.bandwidth is None else args.bandwidth,
    )
    if math.isinf(link.bandwidth) and (args.ranks or 1) > 1:
        raise LaunchError("one rank has no link to measure: give --bandwidth and --latency too, or start more ranks")
    if args.ranks is None and args.bandwidth is None:
        return replace(measured, link=link)
    return Group(link, args.ranks or measured.nodes)


def finite(value: Any) -> Any:
    """JSON has no infinity: None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not -1e300 < value < 1e300 else value
