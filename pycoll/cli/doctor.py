"""`pycoll doctor`: looks at everything that ranks need here; each line is ok, or names the command that mends it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import textwrap

from . import check_machine, check_mpi, check_software
from .check import Check

MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("doctor", help="what this machine has, and what mends the rest", description=__doc__)
    size = next(
        (os.environ[name] for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE") if name in os.environ), "2"
    )
    parser.add_argument(
        "-n", "--ranks", type=int, default=int(size), help="how many ranks you mean to start (default 2)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: a list of {name, status, found, mend}")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Prints the report; 1 if anything fails."""
    checks = [*check_software.everything(), *check_mpi.everything(), *check_machine.everything(args.ranks)]
    if args.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        show(checks)
    return int(any(check.status == "fail" for check in checks))


def show(checks: list[Check]) -> None:
    counts = {status: sum(check.status == status for check in checks) for status in MARKS}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        show_plain(checks)
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        table.add_column("what", no_wrap=True)
        table.add_column("found", overflow="fold")
        for check in checks:
            found = Text(check.found)
            if check.mend:
                found.append(f"\nmend: {check.mend}", style="bold")
            table.add_row(Text(check.status, style=MARKS[check.status]), Text(check.name), found)
        # Into a pipe or a file: wide enough for a command to stay on its line.
        console = Console() if sys.stdout.isatty() else Console(width=160)
        console.print(table)
    print(summary)


def show_plain(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    room = max(40, shutil.get_terminal_size((120, 25)).columns - width - 8)
    for check in checks:
        lines = textwrap.wrap(check.found, room, break_on_hyphens=False) + (
            [f"mend: {check.mend}"] if check.mend else []
        )
        print(f"{check.status:4}  {check.name:{width}}  {lines[0]}")
        for line in lines[1:]:
            print(" " * (width + 8) + line)
