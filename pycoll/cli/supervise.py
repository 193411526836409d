"""Waits for the ranks of a job: forwards signals, notices deaths, and leaves no process behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
FORWARDED = ENDING | {signal.SIGUSR1, signal.SIGUSR2}
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """For preexec_fn: SIGTERM to this process when its parent ends, even by kill -9."""
    pr_set_pdeathsig = 1
    _libc.prctl(pr_set_pdeathsig, signal.SIGTERM)


@dataclass
class Job:
    """Ranks that run.

    processes: the launcher, or the ranks where we are the launcher; they end when the ranks do
    folder: what every process of the job on this machine has as PYCOLL_RUN_DIR in its environment
    failures: the ranks that failed so far, with their exit codes
    relay: sends a signal to ranks on other machines
    grace: seconds that the other ranks get to end once one failed
    """

    processes: Sequence[subprocess.Popen]
    folder: Path
    failures: Callable[[], dict[int, int]]
    relay: Callable[[int], None] | None = None
    grace: float = 10.0
    deaths: dict[int, int] = field(default_factory=dict)  # rank -> exit code, in the order seen
    interrupted: int = 0  # the ending signal that we were sent
    give_up: float | None = None  # when everything is ended

    def look(self) -> None:
        """Takes note of ranks that failed; the first one starts the grace period."""
        for rank, code in self.failures().items():
            if rank in self.deaths:
                continue
            self.deaths[rank] = code
            if self.give_up is None:
                self.give_up = time.monotonic() + self.grace
                if any(process.poll() is None for process in self.processes):
                    say(f"rank {rank} {fate(code)}; the others have {self.grace:g} s to end")

    def signalled(self, number: int, _frame: object) -> None:
        if number in ENDING:
            if self.interrupted:  # the second time is meant
                self.give_up = time.monotonic()
                return
            self.interrupted = number
            self.give_up = min(self.give_up or float("inf"), time.monotonic() + self.grace)
        for pid in members(self.folder):
            kill(pid, number)
        if self.relay:
            self.relay(number)

    def wait(self) -> int:
        """Returns the job's exit code once no process of it is left."""
        before = {number: signal.signal(number, self.signalled) for number in FORWARDED}
        try:
            while any(process.poll() is None for process in self.processes):
                self.look()
                if self.give_up is not None and time.monotonic() >= self.give_up:
                    say("ending the ranks that are left")
                    break
                time.sleep(0.05)
            self.end()
            self.look()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.code()

    def end(self) -> None:
        """SIGTERM, a moment, SIGKILL: to the launcher and to whatever the ranks left behind."""
        for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            until = time.monotonic() + seconds
            running = [process for process in self.processes if process.poll() is None]
            for process in running:
                process.send_signal(number)
            for pid in members(self.folder):
                kill(pid, number)
            while time.monotonic() < until:
                if all(process.poll() is not None for process in self.processes) and not members(self.folder):
                    return
                time.sleep(0.02)

    def code(self) -> int:
        """128 + the signal we were ended by, else that of the first rank that failed, else the launcher's."""
        if self.interrupted:
            return 128 + self.interrupted
        codes = [*self.deaths.values(), *(exit_code(process) for process in self.processes)]
        return next((code for code in codes if code), 0)


def members(folder: Path) -> list[int]:
    """Processes that the job started on this machine and that still run: they carry its folder in their environment."""
    mark = f"PYCOLL_RUN_DIR={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # gone, or somebody else's
                continue
    return found


def exit_code(process: subprocess.Popen) -> int:
    """As a shell would give it: 128 + signal; 0 while running."""
    code = process.poll() or 0
    return 128 - code if code < 0 else code


def reports(folder: Path) -> dict[int, int]:
    """What rank.sh wrote down."""
    texts = {int(report.name): report.read_text().strip() for report in sorted(folder.glob("[0-9]*"))}
    return {rank: int(text) for rank, text in texts.items() if text}


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def fate(code: int) -> str:
    """What an exit code says happened."""
    if code > 128:
        try:
            return f"was ended by {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"ended with exit code {code}"


def say(sentence: str) -> None:
    print(f"pycoll run: {sentence}", file=sys.stderr, flush=True)
