"""pycoll beside Open MPI, MPICH, Intel MPI, oneCCL, mpi4py and torch + Gloo, in one run, in turn.

    python bench/peers.py
    python bench/peers.py --ranks 2 --collectives allreduce --sizes 8,1K,64K,1M --contestants 'pycoll|Open MPI'

The peers are fetched from PyPI into out/peers/ at the first run, each into an environment of its own. Who cannot be
had, dies, hangs or computes something wrong is named, left out, and the run goes on. bench/results/README.md says how
the figures come about and how to read them.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers import machine
from peers.contestants import COLLECTIVES, CONTESTANTS, Contestant
from peers.environments import HOME, NotToBeHad
from peers.plots import draw
from peers.probe import Probe
from peers.results import document_of, figures_of
from peers.rounds import Block, Effort, Field
from peers.table import size_name, tables

ALLREDUCE_SIZES = "8,1K,64K,1M,16M,64M,256M"
OTHER_SIZES = "1K,64K,1M,16M,64M"


def sizes(text: str) -> list[int]:
    units = {"": 1, "K": 1 << 10, "M": 1 << 20}
    found = [re.fullmatch(r"(\d+)([KM]?)", word.strip().upper()) for word in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 8,1K,64K,1M")
    chosen = [int(m[1]) * units[m[2]] for m in found if m]
    if not all(4 <= n <= 256 << 20 for n in chosen):
        raise argparse.ArgumentTypeError(f"{text!r} has a size that is not 4 bytes to 256M")
    return chosen


def rank_numbers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    if not all(1 < n <= 64 for n in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} has a number of ranks that is not 2 to 64")
    return numbers


def collectives(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in COLLECTIVES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(COLLECTIVES)}")
    return names


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=rank_numbers, default=[2, 4], metavar="2,4")
    parser.add_argument("--collectives", type=collectives, default=list(COLLECTIVES), metavar=",".join(COLLECTIVES))
    parser.add_argument(
        "--sizes", type=sizes, help=f"bytes of an array ({ALLREDUCE_SIZES} for allreduce, else {OTHER_SIZES})"
    )
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contestant at each size")
    parser.add_argument("--block-ms", type=float, default=30.0, help="what a block's calls take, roughly")
    parser.add_argument("--touch", action="store_true", help="arrays are rewritten before every call, untimed")
    parser.add_argument("--contestants", type=re.compile, default=re.compile(""), metavar="REGEX", help="only these")
    parser.add_argument("--json", type=Path, default=HOME / "peers.json", help="where all figures go (%(default)s)")
    parser.add_argument("--plots", type=Path, default=HOME / "plots", help="the folder of the pictures (%(default)s)")
    return parser.parse_args(words)


def say(line: str) -> None:
    print(line, flush=True)


def terminate(*_: object) -> None:
    """Contestants are ended on the way out, which a second signal must not cut short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit("terminated")


class Run:
    """All that was measured so far, and the file that has it: whoever ends the run early keeps it."""

    def __init__(self, arguments: argparse.Namespace, chosen: list[Contestant], cores: int, effort: Effort) -> None:
        self.place = machine.describe()
        self.blocks: list[Block] = []
        self.failures: list[dict[str, Any]] = []
        self.versions: dict[str, str] = {}
        self._arguments, self._chosen, self._cores, self._effort = arguments, chosen, cores, effort

    def save(self) -> None:
        """Whole or not at all, also where it is ended in the middle of it."""
        settings = {
            c.name: {
                "ranks": {str(r): c.settings_for(r, self._cores) for r in self._arguments.ranks},
                "version": self.versions[c.name],
            }
            for c in self._chosen
            if c.name in self.versions
        }
        document = {
            "schema": "pycoll-peers/1",
            "environment": self.place,
            "settings": asdict(self._effort),
            "contestants": settings,
            "failures": self.failures,
            **document_of(self.blocks, figures_of(self.blocks)),
        }
        path = self._arguments.json
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_text(json.dumps(document, indent=1) + "\n")
        unfinished.replace(path)


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, terminate)
    chosen = [c for c in CONTESTANTS if arguments.contestants.search(c.name)]
    if not chosen:
        say(f"no contestant is called like {arguments.contestants.pattern!r}; there are:")
        for contestant in CONTESTANTS:
            say(f"  {contestant.name}")
        return 2
    cores = machine.cores()
    try:
        probe = Probe(cores)
    except NotToBeHad as reason:
        say(f"the programs of bench/native cannot be built: {reason}")
        return 1
    effort = Effort(arguments.rounds, arguments.block_ms, arguments.touch)
    run = Run(arguments, chosen, len(cores), effort)
    place = run.place
    say(f"{place['machine']}, {len(cores)} cores, {place['time']}, commit {str(place['commit'])[:10]}")
    blocks, failures = run.blocks, run.failures
    for ranks in arguments.ranks:
        with Field(ranks, cores, probe, say, failures) as field:
            field.start(chosen)
            run.versions.update(field.versions)
            for collective in arguments.collectives:
                default = ALLREDUCE_SIZES if collective == "allreduce" else OTHER_SIZES
                for nbytes in arguments.sizes or sizes(default):
                    say(f"... {collective}, {ranks} ranks, {size_name(nbytes)}")
                    for measured in field.measure(collective, nbytes, effort):
                        blocks += measured
                        run.save()
    probe.close()
    run.save()
    figures = figures_of(blocks)
    say("\n" + tables(figures, chosen))
    mixed = sum(block.label == "mixed" for block in blocks)
    say(f"\n{mixed} of {len(blocks)} blocks do not count: the cores' distance changed meanwhile")
    for failure in failures:
        say(f"left out, {failure['ranks']} ranks: {failure['contestant']}: {failure['reason']}")
    say(f"figures: {arguments.json}")
    for path in draw(figures, chosen, arguments.plots):
        say(f"picture: {path}")
    return 0 if figures else 1


if __name__ == "__main__":
    sys.exit(main())
