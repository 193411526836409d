"""The same model and data under every system of pycoll, dense and compressed: what each takes, and how well it does.

    python examples/compare_systems.py --plot                   # 4 ranks of this machine
    python examples/compare_systems.py --slow 3:4 --plot        # the last of which computes four times longer
    python examples/compare_systems.py --link 100mbit --plot    # 4 hosts on links of 100 Mbit/s; as root

It starts its own ranks, or runs on those of `pycoll run`. A step's computation is the network's own and a sleep, so
that two cores are enough for all. docs/systems.md says which system is for what. The table has, for each system:

    to 95 %        seconds until the test accuracy first was that high
    seconds        from the first step until all ranks have the same model; samples/s is of all ranks in that time
    kB sent        by a rank, mean over ranks, as the library counts them; × fewer: than the first system that sends
    communication  part of the time that a rank's training thread is in pycoll's calls, where it waits for others,
                   encodes and averages: all but forward and backward pass, sleep, and the optimizer's own step. Mean
                   over the ranks that train. What goes on beside the computation is not in it; waiting for a slow
                   rank is.
    efficiency     samples/s, of what that many ranks would do if all were as fast as one alone (the first line)
"""

import argparse
import fnmatch
import re
import sys
from pathlib import Path

import torch
from digits import load
from systems import federation, figures, plots, ranks, training
from systems.catalogue import ALONE, FEDERATED, SYSTEMS
from systems.record import Record
from systems.task import Task

import pycoll


def run(comm, task, data, system, codec, name):
    """A Record, on every rank."""
    if system is FEDERATED:
        return federation.train(comm, task, data, codec, name)
    if system is not ALONE:
        return training.train(comm, task, data, system, codec, name)
    one = comm.split(0 if comm.rank == 0 else None)
    record = Record() if one is None else training.train(one, task, data, system, None, name)
    comm.barrier()
    return record


def compare(comm, arguments, task):
    """Each system in turn; the figures, on rank 0."""
    data, found = load(task.seed, torch.float32), []
    for system in arguments.systems:
        for name in ("", *arguments.codec) if system.codecs else ("",):
            codec = pycoll.codec.parse(name) if name else None
            label = f"{f'{system.name}, {name}' if name else system.name:26}"
            record = run(comm, task, data, system, codec, label)
            found.append(figures.gather(comm, system, name, record, task, data, arguments.target))
    if comm.rank == 0:
        for figure in found:
            figure.efficiency = figure.rate / found[0].rate / (1 if figure is found[0] else comm.size)
    return found


def report(arguments, task, found, size):
    links = f"links of {arguments.link}" if arguments.link else "one machine"
    slow = f", rank {task.slow[0]} {task.slow[1]:g} times slower" if task.slow else ""
    title = f"Handwritten digits, {size} ranks, {links}{slow}"
    print(f"\n{title}\n{figures.table(found, arguments.target)}")
    if arguments.json:
        settings = {**vars(task), "link": arguments.link, "delay": arguments.delay, "target": arguments.target}
        figures.save(arguments.json, settings, found)
        print(f"figures: {arguments.json}")
    if arguments.plot:
        plots.plot(found, title, arguments.target, arguments.plot)


def slow(text):
    rank, _, factor = text.partition(":")
    if not rank.isdigit() or not factor or float(factor) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not RANK:FACTOR with a factor of at least 1, such as 3:4")
    return int(rank), float(factor)


def chosen(text):
    """Systems by their names, with wildcards; one rank alone is always among them."""
    found = [s for s in SYSTEMS if s is ALONE or any(fnmatch.fnmatch(s.name, name) for name in text.split(","))]
    if len(found) == 1:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(s.name for s in SYSTEMS)}")
    return found


def parse():
    own = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=own)
    add = parser.add_argument
    add("--ranks", type=int, default=4, help="that it starts (4)")
    add("--steps", type=int, default=Task.steps, help=f"of each rank ({Task.steps})")
    add("--compute", type=float, default=1e3 * Task.compute, help="milliseconds that a step sleeps (3)")
    add("--slow", type=slow, metavar="RANK:FACTOR", help="this rank computes so many times longer")
    add("--link", metavar="RATE", help="a host for each rank, on links of this rate: 100mbit, 1gbit; needs root")
    add("--delay", default="", help="of such a link, one way: 1ms")
    add("--codec", type=lambda text: [n for n in text.split(",") if n != "none"], default="int4", help="names (int4)")
    add("--systems", type=chosen, default="*", metavar="NAMES", help="with wildcards: all-reduce,server*")
    add("--target", type=float, default=0.95, help="accuracy (0.95)")
    add("--seed", type=int, default=0)
    add("--json", type=Path, metavar="FILE", help="save the figures")
    add("--plot", nargs="?", const=Path("out/compare.png"), type=Path, metavar="FILE", help="(out/compare.png)")
    arguments = parser.parse_args()
    if arguments.ranks < 2 or arguments.steps < 1 or arguments.compute < 0:
        parser.error("--ranks must be at least 2, --steps at least 1, --compute not below 0")
    if arguments.link and not re.fullmatch(r"[1-9]\d*[kmg]bit", arguments.link):
        parser.error(f"--link: {arguments.link!r} is not a rate such as 100mbit or 1gbit")
    if arguments.delay and not arguments.link:
        parser.error("--delay is that of a shaped link: it wants --link too")
    try:
        for name in arguments.codec:
            pycoll.codec.parse(name)
    except pycoll.InvalidArgument as error:
        parser.error(f"--codec: {error}")
    return arguments


def main():
    arguments = parse()
    torch.set_num_threads(1)  # ranks share the cores
    with pycoll.init() as comm:
        if comm.size > 1:
            if arguments.link and len(set(comm.hosts)) < comm.size:
                sys.exit(
                    "--link: these ranks share a machine, where no link can be shaped; start it without a launcher"
                )
            if arguments.slow and arguments.slow[0] >= comm.size:
                sys.exit(f"--slow: there is no rank {arguments.slow[0]} among {comm.size}")
            lengths = {"steps": arguments.steps, "compute": arguments.compute / 1e3, "every": -(-arguments.steps // 32)}
            task = Task(comm.size, slow=arguments.slow, seed=arguments.seed, **lengths)
            found = compare(comm, arguments, task)
            if comm.rank == 0:
                report(arguments, task, found, comm.size)
            return
    if arguments.link:
        ranks.on_hosts(arguments.ranks, arguments.link, arguments.delay, [Path(__file__).resolve(), *sys.argv[1:]])
    else:
        ranks.here(arguments.ranks, [Path(__file__).resolve(), *sys.argv[1:]])


if __name__ == "__main__":
    main()
