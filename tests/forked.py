"""Ranks as forked children of the test process: a group in milliseconds, without any launcher."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pycoll
from pycoll.bootstrap import make_group
from pycoll.settings import Settings


class FileExchange:
    """Exchange through small files in a directory that all ranks see."""

    def __init__(self, folder: Path, rank: int, size: int, timeout: float) -> None:
        self.rank, self.size = rank, size
        self._folder, self._timeout, self._round = folder, timeout, 0

    def allgather(self, mine: bytes) -> list[bytes]:
        self._round += 1
        draft = self._folder / f"draft.{self.rank}"
        draft.write_bytes(mine)
        draft.rename(self._folder / f"{self._round}.{self.rank}")
        files = [self._folder / f"{self._round}.{rank}" for rank in range(self.size)]
        deadline = time.monotonic() + self._timeout
        while not all(file.exists() for file in files):
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank {self.rank}: not all ranks came to round {self._round}")
            time.sleep(0.0005)
        return [file.read_bytes() for file in files]


class Outcome:
    """How a rank ended: `code` as os.waitstatus_to_exitcode gives it, and what it printed."""

    def __init__(self, code: int, output: str) -> None:
        self.code, self.output = code, output


def run_forked(
    size: int, body: Callable[[pycoll.Communicator], None], timeout: float = 60, op_timeout: float = 20
) -> list[Outcome]:
    """Runs body(comm) in `size` children over shared memory; returns how each ended. Children that outlast `timeout`
    seconds are killed and reported with code -9. A stopped child is continued once all others have ended."""
    with tempfile.TemporaryDirectory(prefix="pycoll-test-") as name:
        folder = Path(name)
        pids = [_fork(folder, rank, size, body, op_timeout) for rank in range(size)]
        codes: dict[int, int] = {}
        deadline = time.monotonic() + timeout
        while len(codes) < size:
            for rank, pid in enumerate(pids):
                if rank in codes:
                    continue
                ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
                if not ended:
                    continue
                if not os.WIFSTOPPED(status):
                    codes[rank] = os.waitstatus_to_exitcode(status)
            left = [rank for rank in range(size) if rank not in codes]
            if left and all(_stopped(pids[rank]) for rank in left):
                for rank in left:
                    os.kill(pids[rank], signal.SIGCONT)
            if time.monotonic() > deadline:
                for rank in left:
                    os.kill(pids[rank], signal.SIGKILL)
            time.sleep(0.001)
        return [Outcome(codes[rank], (folder / f"output.{rank}").read_text()) for rank in range(size)]


def _stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except OSError:
        return False


def _fork(folder: Path, rank: int, size: int, body: Callable[[pycoll.Communicator], None], op_timeout: float) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(folder / f"output.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        comm = pycoll.Communicator(make_group(FileExchange(folder, rank, size, 30), Settings(timeout=op_timeout)))
        with comm:
            body(comm)
        code = 0
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
