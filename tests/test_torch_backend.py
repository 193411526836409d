"""torch.distributed over pycoll: every way to start, every collective, and what happens when a rank fails."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launch import available, run_ranks

pytest.importorskip("torch")

WORKERS = Path(__file__).parent / "workers"
COLLECTIVES = WORKERS / "torch_collectives.py"
over_mpi = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]


def said_ok(run, n):
    assert run.ok and run.leftovers == [], run
    assert all(f"{rank} of {n} ok" in run.stdout for rank in range(n)), run


def test_collectives():
    """By torchrun, env://. The worker never imports pycoll: torch finds the backend."""
    said_ok(run_ranks(COLLECTIVES, 3, "torchrun", timeout=90), 3)


@pytest.mark.parametrize("transport", [pytest.param(name, marks=over_mpi) for name in ("shm", "mpi")])
def test_collectives_by_mpirun(transport):
    detail = {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}
    said_ok(run_ranks(COLLECTIVES, 2, transport, ["mpi://"], timeout=90, env=detail), 2)


def test_torch_multiprocessing(tmp_path):
    """tcp:// and file://, and again in the same processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = tmp_path / "spawned.py"
    program.write_text(f"""
import pycoll.comm, torch, torch.distributed as dist, torch.multiprocessing as mp

def main(rank):
    pycoll.comm._LAST_SECONDS = 1
    for method in ("tcp://localhost:{port}", "file://{tmp_path}/store", "tcp://localhost:{port}"):
        dist.init_process_group("pycoll", method, rank=rank, world_size=2)
        x = torch.full((3,), float(rank))
        dist.all_reduce(x)
        assert x.tolist() == [1, 1, 1]
        dist.destroy_process_group()
    dist.init_process_group("pycoll", "file://{tmp_path}/last", rank=rank, world_size=2)
    work = dist.irecv(torch.zeros(1), 1 - rank)  # that is never sent; and no destroy_process_group()
    dist.barrier()

if __name__ == "__main__":
    mp.spawn(main, nprocs=2)
    print("spawned ok")
""")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=90)
    assert done.stdout == "spawned ok\n" and done.returncode == 0, done.stderr


def test_a_rank_that_raises(tmp_path):
    """The other raises as well, and both end, though neither destroys the group."""
    program = tmp_path / "raises.py"
    program.write_text("""
import torch, torch.distributed as dist
dist.init_process_group("pycoll")
if dist.get_rank() == 1:
    raise ZeroDivisionError("on purpose")
work = dist.all_reduce(torch.ones(5), async_op=True)
try:
    work.get_future().wait()
except Exception as error:
    print("raised:", error, flush=True)
    assert not work.is_success()
    raise SystemExit(3)
""")
    run = run_ranks(program, 2, "torchrun", timeout=60)
    assert not run.timed_out and not run.ok and run.leftovers == [], run
    assert "ZeroDivisionError: on purpose" in run.stderr, run
