"""Allreduce between hosts: pycoll beside each MPI's own, in-place float32, over links of a known rate.

    sudo .venv/bin/python bench/hosts.py --hosts 2,4 --rates 1gbit,10gbit --mpi .venv --mpi .venv-mpich --json out.json

Hosts are network namespaces of this machine (tools/hosts), so it needs root and iproute2. For each number of hosts and
rate they are made, and every MPI starts its ranks on them once: in those processes pycoll and the MPI's own allreduce
take turns. For each size it prints

    bound   ms, 2(P-1)/P x bytes / rate for P hosts: what the link would allow without headers
    mpi     the MPI's own allreduce (mpi4py)
    pycoll  as it chooses; then every algorithm asked for

Times are medians over turns, in ms, and in brackets how much of the bound they reach: above 100 % where the shaper's
burst (128 KiB, at 10gbit 1 MiB) lets a short message through faster than the rate. Every contestant's result is
checked. "tcp" is what plain TCP reaches between these hosts, all sending and receiving at once (hosts_socket.py). The
hosts share the cores of this machine, so at a high rate these are the limit.

JSON: {"schema": "pycoll-hosts/1", "environment", "settings", "results": [{"hosts", "per_host", "rate", "mpi", "bytes",
"bound_us", "tcp_gbits" (payload, each way), "wrong", "us": {contestant: us}}]}
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from options import parse_sizes

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "hosts"))

from hosts import Hosts, missing  # noqa: E402

UNITS = {"gbit": 1e9, "mbit": 1e6, "kbit": 1e3}


def main() -> None:
    args = parse()
    if why := missing():
        sys.exit(f"bench/hosts.py: {why}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench/hosts.py: ended"))  # by way of Hosts, which cleans up
    results: list[dict[str, Any]] = []
    for count in args.hosts:
        for rate in args.rates:
            with Hosts(count, rate, args.delay) as hosts:
                tcp = plain_tcp(hosts)
                print(f"# {count} hosts, {rate}: tcp {tcp:.3f} Gbit/s each way", flush=True)
                for prefix in args.mpi:
                    for row in allreduce(hosts, prefix, args):
                        row["tcp_gbits"] = tcp
                        show(row)
                        results.append(row)
    if args.json:
        settings = {key: value if key != "mpi" else [p.name for p in value] for key, value in vars(args).items()}
        document = {"schema": "pycoll-hosts/1", "environment": environment(), "settings": settings, "results": results}
        del settings["json"]
        Path(args.json).write_text(json.dumps(document, indent=1) + "\n")
    if any(row["wrong"] for row in results):
        sys.exit("bench/hosts.py: wrong results")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--hosts", type=lambda text: [int(n) for n in text.split(",")], default="2,4", help="how many (2,4)")
    add("--per-host", type=int, default=1, help="ranks a host (1)")
    add("--rates", type=lambda text: text.split(","), default="1gbit,10gbit", help="of links (1gbit,10gbit)")
    add("--delay", default="", help="one way, for example 50us (none)")
    add("--sizes", type=parse_sizes, default="64K,1M,64M", help="bytes: 8:64M doubles, or 64K,1M,64M (64K,1M,64M)")
    add("--algos", type=lambda text: ["auto", *(name for name in text.split(",") if name)], default="")
    add("--mpi", type=Path, action="append", help="environments, each with an MPI, mpi4py and pycoll (this Python's)")
    add("--seconds", type=float, default=1.5, help="for a size and contestant (1.5)")
    args = _with_json(parser)
    args.mpi = [prefix.resolve() for prefix in args.mpi or [Path(sys.prefix)]]
    return args


def _with_json(parser: argparse.ArgumentParser) -> argparse.Namespace:
    parser.add_argument("--json", metavar="FILE", help="write results there as well")
    return parser.parse_args()


def allreduce(hosts: Hosts, prefix: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One start of ranks: a row a size."""
    worker = [str(prefix / "bin" / "python"), str(ROOT / "bench" / "hosts_rank.py")]
    worker += [",".join(map(str, args.sizes)), ",".join(args.algos), str(args.seconds)]
    measuring = len(args.sizes) * (1 + len(args.algos)) * args.seconds
    result = hosts.run(hosts.ranks(prefix, args.per_host, worker), timeout=60 + 5 * measuring)
    if result.returncode != 0:
        sys.exit(f"bench/hosts.py: ranks of {prefix} ended with {result.returncode}\n{result.stdout}{result.stderr}")
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    for row in rows:
        bound = 2 * (hosts.count - 1) / hosts.count * row["bytes"] * 8 / bits(hosts.rate) * 1e6
        row |= {"hosts": hosts.count, "per_host": args.per_host, "rate": hosts.rate, "mpi": vendor(prefix)}
        row["bound_us"] = round(bound, 2)
    return rows


def plain_tcp(hosts: Hosts) -> float:
    """Gbit/s of payload that each host sends, and receives."""
    nbytes = int(bits(hosts.rate) / 8 / 4)  # a quarter of a second
    script = [sys.executable, str(ROOT / "bench" / "hosts_socket.py")]
    lines = [hosts.on(i, [*script, str(i), str(nbytes), *hosts.names]) for i in range(hosts.count)]
    others = [subprocess.Popen(line, stderr=subprocess.DEVNULL) for line in lines[1:]]  # the first one sees failures
    result = hosts.run(lines[0], timeout=120)  # ends the others if they have not ended
    for other in others:
        other.wait()
    if result.returncode != 0:
        sys.exit(f"bench/hosts.py: plain TCP failed: {result.stderr}")
    return round(nbytes * 8 / statistics.median(json.loads(result.stdout)) / 1e3, 3)


def bits(rate: str) -> float:
    """ "10gbit" -> 1e10."""
    return float(rate[:-4]) * UNITS[rate[-4:]]


def vendor(prefix: Path) -> str:
    return "Open MPI" if (prefix / "bin" / "ompi_info").exists() else "MPICH"


def show(row: dict[str, Any]) -> None:
    ranks = f" x {row['per_host']} ranks" if row["per_host"] > 1 else ""
    what = f"{row['hosts']} hosts{ranks} {row['rate']} {row['mpi']}"
    times = {name.removeprefix("pycoll ").replace("auto", "pycoll"): us for name, us in row["us"].items()}
    cells = "  ".join(f"{name} {us / 1e3:.3f} ({row['bound_us'] / us:.0%})" for name, us in times.items())
    print(f"{what:27}{row['bytes']:>9} B  bound {row['bound_us'] / 1e3:.3f}  {cells}", flush=True)
    if row["wrong"]:
        print(f"{what}: {row['wrong']} wrong elements", flush=True)


def environment() -> dict[str, Any]:
    machine = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            machine = line.split(":", 1)[1].strip()
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "machine": machine,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "commit": commit.stdout.strip() or None,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
