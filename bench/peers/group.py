"""A contestant's ranks: started once, ordered a block at a time, asleep in between, ended at last or when they fail."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "PEERS_MARK"  # in the environment of every process of a group, so that all of them are found again
GRACE = 3.0  # seconds for ranks to end by themselves at end of file
KILL_SECONDS = 5.0  # for killed processes to be gone


class Failed(Exception):
    """A contestant that died, hung or refused, and how."""


@dataclass(frozen=True)
class Order:
    """A block: `samples` timings of `batch` calls each. bytes: of the larger of a rank's two arrays."""

    collective: str
    bytes: int
    memory: str
    warmup: int
    samples: int
    batch: int
    touch: bool = False

    def line(self) -> str:
        numbers = f"{self.bytes} {self.memory} {self.warmup} {self.samples} {self.batch} {int(self.touch)}"
        return f"{self.collective} {numbers}\n"


@dataclass(frozen=True)
class Answer:
    """wrong: elements, over all ranks. microseconds: a call's, for each sample."""

    wrong: int
    microseconds: list[float]


def parse_answers(lines: Sequence[str], order: Order) -> Answer:
    """A sample lasts from the first rank's begin to the last one's end: a rank that is done before others have begun,
    as the root of a broadcast may be, or one of two on a core, does not make it shorter. Raises Failed if a rank
    refused, or answered something else."""
    wrong, begins, ends = 0, [], []
    for rank, line in enumerate(lines):
        kind, _, rest = line.partition(" ")
        if kind == "error":
            raise Failed(f"rank {rank}: {rest}")
        try:
            first, *times = (int(word) for word in rest.split())
        except ValueError:
            times = []
        if kind != "done" or len(times) != 2 * order.samples:
            raise Failed(f"rank {rank} answered {line[:80]!r}, wanted {order.samples} samples")
        wrong += first
        begins.append(times[::2])
        ends.append(times[1::2])
    lasted = zip(zip(*begins, strict=True), zip(*ends, strict=True), strict=True)
    return Answer(wrong, [(max(end) - min(begin)) / order.batch / 1e3 for begin, end in lasted])


class Group:
    """Ranks started by `command`, which see PEERS_FOLDER and PEERS_CORES; see bench/native/block.h for what is said."""

    def __init__(self, command: Sequence[str], ranks: int, cores: Sequence[int], variables: Mapping[str, str]) -> None:
        self.ranks = ranks
        self.folder = Path(tempfile.mkdtemp(prefix="pycoll-peers-"))
        self._mark = uuid.uuid4().hex
        self._pending = [b""] * ranks
        self._orders, self._answers = [], []
        for rank in range(ranks):
            for kind in ("order", "answer"):
                os.mkfifo(self.folder / f"{kind}.{rank}")
            # Open for both, so that opening does not wait; ranks see end of file when this process closes it or ends.
            self._orders.append(os.open(self.folder / f"order.{rank}", os.O_RDWR | os.O_NONBLOCK))
            self._answers.append(os.open(self.folder / f"answer.{rank}", os.O_RDONLY | os.O_NONBLOCK))
        environment = {
            **os.environ,
            **variables,
            MARK: self._mark,
            "PEERS_FOLDER": str(self.folder),
            "PEERS_CORES": ",".join(str(core) for core in cores),
        }
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float) -> str:
        """The version that the ranks name. Raises Failed."""
        lines = self._read_lines(seconds)
        for rank, line in enumerate(lines):
            if not line.startswith("ready "):
                raise Failed(f"rank {rank} began with {line[:80]!r}")
        return lines[0].split(" ", 2)[2]

    def run(self, order: Order, seconds: float) -> Answer:
        """Raises Failed if an answer is missing after `seconds`."""
        line = order.line().encode()
        for fd in self._orders:
            os.write(fd, line)
        return parse_answers(self._read_lines(seconds), order)

    def close_orders(self) -> None:
        """Lets the ranks end."""
        for fd in self._orders:
            os.close(fd)
        self._orders = []

    def end(self, grace: float = GRACE) -> None:
        """Ends what is left after `grace` seconds: exactly the processes of this group, which carry its mark."""
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        _kill_marked(self._mark)
        self._process.wait()
        for fd in [*self._orders, *self._answers]:
            os.close(fd)
        self._orders, self._answers = [], []
        shutil.rmtree(self.folder, ignore_errors=True)

    def said(self) -> str:
        """The last line of what its processes printed that names an error, or the first one there is."""
        lines = [line.strip() for line in (self.folder / "log").read_text(errors="replace").splitlines()]
        lines = [line for line in lines if any(c.isalpha() for c in line)]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors[-1:] or lines[:1] or ["it printed nothing"])[0][:300]

    def _read_lines(self, seconds: float) -> list[str]:
        """A line from every rank. A rank that has ended, or is silent until the deadline, raises Failed."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        missing = {fd: rank for rank, fd in enumerate(self._answers) if b"\n" not in self._pending[rank]}
        for fd in missing:
            poll.register(fd, select.POLLIN)
        while missing:
            for fd, event in poll.poll(200):
                rank = missing[fd]
                data = os.read(fd, 1 << 16) if event & select.POLLIN else b""
                self._pending[rank] += data
                if b"\n" in self._pending[rank]:
                    poll.unregister(fd)
                    del missing[fd]
                elif not data:
                    raise Failed(f"rank {rank} ended: {self.said()}")
            late = ", ".join(str(rank) for rank in sorted(missing.values()))
            if missing and self._process.poll() is not None:
                raise Failed(
                    f"ended with status {self._process.returncode} before ranks {late} answered: {self.said()}"
                )
            if missing and time.monotonic() > deadline:
                raise Failed(f"no answer of ranks {late} within {seconds:g} s")
        lines = []
        for rank in range(self.ranks):
            line, _, self._pending[rank] = self._pending[rank].partition(b"\n")
            lines.append(line.decode(errors="replace"))
        return lines


def _kill_marked(mark: str) -> None:
    """Returns once there are none, or after a few seconds: the kernel ends a process that is busy in it when it can."""
    deadline = time.monotonic() + KILL_SECONDS
    while pids := _marked(mark):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _marked(mark: str) -> list[int]:
    """Processes that carry the mark; one that has ended and waits to be reaped carries none."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue  # it has gone, or belongs to somebody else
    return found
