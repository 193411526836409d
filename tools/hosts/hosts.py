"""Hosts on one machine, for tests and benchmarks: hosts.sh for Python, and how each MPI starts ranks on them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
SCRIPT, LAUNCHER = str(HERE / "hosts.sh"), str(HERE / "launcher.sh")


def missing() -> str:
    """What this machine lacks for hosts, as one sentence; empty if nothing."""
    if sys.platform != "linux":
        return "hosts are network namespaces, which only Linux has"
    if os.geteuid() != 0:
        return "hosts are network namespaces, which only root may make"
    lacking = [tool for tool in ("ip", "tc", "unshare") if not shutil.which(tool)]
    if lacking:
        return f"hosts need {', '.join(lacking)}, which are not here (Debian: apt-get install iproute2 util-linux)"
    probe = subprocess.run(["unshare", "--net", "--uts", "--ipc", "--mount", "true"], capture_output=True, timeout=30)
    return "" if probe.returncode == 0 else f"this machine forbids namespaces: {probe.stderr.decode().strip()}"


@dataclass
class Result:
    """What a command on the hosts left behind. returncode is None if it ran into its time limit."""

    returncode: int | None
    stdout: str
    stderr: str


class Hosts:
    """`count` hosts with links of `rate` ("1gbit", "none") and a one-way `delay` ("50us"), up inside a `with`."""

    def __init__(self, count: int, rate: str = "none", delay: str = "") -> None:
        self.count, self.rate, self.delay = count, rate, delay
        self.group = f"pc{os.getpid()}h"  # of this process alone, so that two users do not meet

    def __enter__(self) -> Hosts:
        sweep()
        try:
            subprocess.run([SCRIPT, "up", self.group, str(self.count), self.rate, self.delay], check=True, timeout=60)
        except BaseException:  # also when we are interrupted
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([SCRIPT, "down", self.group], check=True, timeout=60)

    @property
    def names(self) -> list[str]:
        return [f"{self.group}{i}" for i in range(self.count)]

    def on(self, host: int, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` on one host."""
        return [SCRIPT, "in", self.names[host], *command]

    def ranks(self, prefix: Path, per_host: int, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` on `per_host` ranks a host, with the MPI installed in `prefix`."""
        env, ranks = [f"PATH={prefix / 'bin'}:{os.environ['PATH']}"], str(per_host * self.count)
        if (prefix / "bin" / "ompi_info").exists():
            start = ["mpirun", "--prtemca", "plm_ssh_agent", LAUNCHER, "--prtemca", "oob_tcp_if_include", "eth0"]
            start += ["--mca", "btl_tcp_if_include", "eth0"]
            start += ["--host", ",".join(f"{name}:{per_host}" for name in self.names), "-n", ranks]
            start += ["--map-by", "slot:OVERSUBSCRIBE", "--bind-to", "none"]
            if per_host * self.count > len(os.sched_getaffinity(0)):  # it cannot know that hosts share cores
                start += ["--mca", "mpi_yield_when_idle", "1"]
        else:
            start = ["mpiexec", "-launcher", "ssh", "-launcher-exec", LAUNCHER, "-hosts", ",".join(self.names)]
            start += ["-n", ranks, "-ppn", str(per_host), "-iface", "eth0"]
            env += ["FI_PROVIDER=tcp", "FI_TCP_IFACE=eth0"]
        return self.on(0, ["env", *env, *start, *command])

    def run(
        self,
        command: Sequence[str],
        timeout: float,
        env: Mapping[str, str] | None = None,
        stderr: IO[str] | None = None,
    ) -> Result:
        """Runs a command line of on() or ranks(); at the time limit everything on the hosts is ended.

        stderr: a file that it goes to as it comes; by default it is kept for the result.
        """
        root = {f"{p}_ALLOW_RUN_AS_ROOT{c}": "1" for p in ("OMPI", "PRTE") for c in ("", "_CONFIRM")}
        # Files, not pipes: what outlives the launcher would keep a pipe open, and us waiting.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=stderr or err,
                env={**os.environ, **root, **(env or {})},
                start_new_session=True,
            )
            code: int | None = None
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
            finally:  # also when we are interrupted
                subprocess.run([SCRIPT, "stop", self.group], check=True, timeout=60)
                process.wait()
            out.seek(0)
            err.seek(0)
            return Result(code, out.read(), err.read())


def sweep() -> None:
    """Removes hosts whose process is gone: it was killed before it could do so itself."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True, timeout=30).stdout
    for pid in re.findall(r"^pc(\d+)h-switch\b", listed, re.MULTILINE):
        if not Path(f"/proc/{pid}").exists():
            subprocess.run([SCRIPT, "down", f"pc{pid}h"], check=True, timeout=60)
