"""Ranks on several hosts: network namespaces, made for the test and gone after it (tools/hosts)."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import available

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools" / "hosts"))

from hosts import Hosts, missing  # noqa: E402

WORKER = str(ROOT / "tests" / "workers" / "hosts.py")
DEADLINE = 90.0

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(not available("mpi"), reason="no mpirun here"),
    pytest.mark.skipif(bool(missing()), reason=missing() or "hosts can be made"),
]


@pytest.mark.parametrize("per_host", [1, 2, 3])
def test_allreduce_between_two_hosts(per_host):
    with Hosts(2, "1gbit") as hosts:
        command = hosts.ranks(Path(sys.prefix), per_host, [sys.executable, WORKER, "2", str(per_host)])
        result = hosts.run(command, DEADLINE)
    assert result.returncode == 0 and result.stdout.split() == ["ok"], result


def test_hosts_leave_nothing_behind():
    with Hosts(1) as hosts:
        sleeper = subprocess.Popen(hosts.on(0, ["sleep", "600"]))
        assert hosts.run(hosts.on(0, ["hostname"]), 30).stdout.strip() == hosts.names[0]
        hosts.run(hosts.on(0, ["true"]), 30)
        assert sleeper.wait(10) != 0  # ended with the run
    assert hosts.group not in listed()


def test_hosts_that_are_half_made_go_as_well():
    script = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
    script += "from hosts import Hosts; Hosts(40).__enter__()"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT / "tools" / "hosts", stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while f"pc{process.pid}h3" not in listed():
        assert process.poll() is None and time.monotonic() < deadline
    process.terminate()
    assert process.wait(60) == 1
    assert f"pc{process.pid}h" not in listed()


def listed() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
