"""The `pycoll` command: `doctor` (what is wrong here), `run` (start ranks), `tune` (measure this machine),
`advise` (whether compression pays)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import advise, doctor, launch, tune


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `pycoll ARGUMENTS` and returns its exit code."""
    parser = argparse.ArgumentParser(prog="pycoll", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="doctor | run | tune | advise")
    for command in (doctor, launch, tune, advise):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    try:
        return args.main(args)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        return 0
    except launch.LaunchError as error:
        print(f"pycoll {args.command}: {error}", file=sys.stderr)
        return 2
