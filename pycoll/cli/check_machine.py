"""`pycoll doctor`: memory that ranks can share, huge pages, cores, network interfaces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from . import machine
from .check import Check, fail, gigabytes, ok, warn

THP = Path("/sys/kernel/mm/transparent_hugepage")
NET = Path("/sys/class/net")
# A memfd of one process, opened by its sibling through /proc: what ranks of a node do.
OWNER = """
import os, sys
memory = os.memfd_create("pycoll-doctor")
os.ftruncate(memory, 1 << 20)
os.pwrite(memory, b"pycoll", 0)
print(os.getpid(), memory, flush=True)
sys.stdin.read()
"""
READER = "import os, sys; print(os.pread(os.open(sys.argv[1], os.O_RDWR), 6, 0).decode())"


def shared_memory() -> Check:
    name = "shared memory"
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=-1, stdout=-1, stderr=-1, text=True)
    try:
        assert owner.stdout and owner.stdin
        words = owner.stdout.readline().split()
        if len(words) != 2:
            return fail(
                name,
                "memfd_create is refused",
                "run outside this sandbox, or allow memfd_create in its seccomp profile",
            )
        path = f"/proc/{words[0]}/fd/{words[1]}"
        done = subprocess.run([sys.executable, "-c", READER, path], capture_output=True, text=True, timeout=20)
    finally:
        owner.communicate()
    if done.stdout.strip() != "pycoll":
        why = (done.stderr.strip().splitlines() or ["it read something else"])[-1]
        return fail(name, f"a process cannot open its sibling's memory: {why}", "docker run --cap-add SYS_PTRACE ...")
    limit = machine.memory_limit()
    available = min(machine.meminfo("MemAvailable"), limit or sys.maxsize)
    found = f"memfd is shared through /proc; {gigabytes(available)} available" + (
        f", control group limit {gigabytes(limit)}" if limit else ""
    )
    if available < 1 << 30:
        return warn(name, found, "docker run --memory 4g ..., or fewer ranks")
    return ok(name, found)


def chosen(setting: Path) -> str:
    """The [bracketed] word of a kernel setting, or ""."""
    try:
        words = setting.read_text().split()
    except OSError:
        return ""
    return next((word.strip("[]") for word in words if word.startswith("[")), "")


def huge_pages() -> list[Check]:
    private, shared = chosen(THP / "enabled"), chosen(THP / "shmem_enabled")
    reserved, free = machine.meminfo("HugePages_Total"), machine.meminfo("HugePages_Free")
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " hugetlbfs " in line]
    checks = []
    for name, setting, value in (
        ("huge pages, private", "enabled", private),
        ("huge pages, shared", "shmem_enabled", shared),
    ):
        if value in ("always", "madvise", "advise", "within_size", "force"):
            checks.append(ok(name, f"transparent: {value}"))
        elif name.endswith("shared") and free:
            checks.append(ok(name, f"transparent: {value or 'none'}; hugetlbfs: {free} pages free"))
        else:
            value_wanted = "madvise" if setting == "enabled" else "advise"
            mend = f"echo {value_wanted} | sudo tee {THP / setting}"
            checks.append(warn(name, f"transparent: {value or 'not in this kernel'}; large arrays are slower", mend))
    if reserved:
        checks.append(ok("hugetlbfs", f"{free} of {reserved} pages free, mounted at {', '.join(mounts) or 'nothing'}"))
    else:
        checks.append(ok("hugetlbfs", "no pages reserved (not needed where transparent huge pages are on)"))
    return checks


def cores(ranks: int) -> Check:
    own, quota = machine.cores(), machine.quota()
    threads = sum(map(len, own))
    found = f"{len(own)} cores ({threads} hardware threads) for {ranks} ranks"
    granted = min(len(own), quota) if quota else len(own)
    if quota and quota < len(own):
        found += f", but the control group grants the time of {quota:g}"
    if ranks > granted:
        return warn("cores", f"{found}: they take turns", f"pycoll run -n {max(1, int(granted))} ...")
    return ok("cores", found)


def read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # the speed of a virtual or unplugged interface
        return ""


def network() -> list[Check]:
    names = sorted(entry.name for entry in NET.iterdir()) if NET.exists() else []
    # Real ones have a device behind them or the name of one (a container's eth0); bridges and shapers come and go.
    names = [name for name in names if (NET / name / "device").exists() or name.startswith(("en", "eth", "ib", "bond"))]
    checks = []
    for name in names:
        state, speed = read(NET / name / "operstate"), read(NET / name / "speed")
        rate = (
            f", {int(speed) / 1000:g} Gbit/s" if speed.lstrip("-").isdigit() and int(speed) > 0 else ", speed not told"
        )
        if state in ("up", "unknown"):
            checks.append(ok(f"network {name}", f"up{rate}"))
        else:
            checks.append(warn(f"network {name}", state or "no state", f"sudo ip link set {name} up"))
    return checks or [ok("network", "loopback only: ranks on this machine")]


def everything(ranks: int) -> list[Check]:
    return [shared_memory(), *huge_pages(), cores(ranks), *network()]
