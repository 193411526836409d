"""Ranks run mixed operations until one of them dies at a random moment; the others say what they raised, and how soon.

As a script: death.py MODE SEED, under mpirun.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np

import pycoll

MODES = ("exception", "exit", "kill", "stop")


def die(mode: str) -> None:
    print(json.dumps({"died": time.clock_gettime(time.CLOCK_MONOTONIC)}), flush=True)
    if mode == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL if mode == "kill" else signal.SIGSTOP)


def mixed(comm: pycoll.Communicator, moment: random.Random) -> None:
    """One operation, the same on all ranks: `moment` is seeded alike."""
    count = moment.choice([1, 100, 5000, 200_000])
    x = np.ones(count, np.float32)
    match moment.randrange(6):
        case 0:
            comm.allreduce(x)
        case 1:
            comm.broadcast(x, root=moment.randrange(comm.size))
        case 2:
            comm.allgather(x)
        case 3:
            comm.allreduce(x, algo=moment.choice(["ring", "tree", "halving"]))
        case 4:
            comm.allreduce(x, wait=False).wait()
        case _:
            comm.barrier()


def run(comm: pycoll.Communicator, mode: str, seed: int, wake_after: float = 0) -> None:
    own, shared = random.Random(seed * 1000 + 7), random.Random(seed)
    victim = comm.size - 1
    if comm.rank == victim and mode == "stop" and wake_after:
        # Somebody has to let the stopped rank end, long after the others are done with it. Started before the stream of
        # operations: a fork in the middle of it can take its time.
        subprocess.Popen(["sh", "-c", f"sleep {wake_after}; kill -CONT {os.getpid()}"], start_new_session=True)
    comm.barrier()
    if comm.rank == victim and mode != "exception":
        threading.Timer(own.uniform(0, 0.1), die, (mode,)).start()
    fatal = own.uniform(0, 0.1) + time.monotonic()
    try:
        while True:
            mixed(comm, shared)
            if comm.rank == victim and mode == "exception" and time.monotonic() > fatal:
                print(json.dumps({"died": time.clock_gettime(time.CLOCK_MONOTONIC)}), flush=True)
                raise ZeroDivisionError("the victim's own")
    except pycoll.PeerFailed as error:
        at = time.clock_gettime(time.CLOCK_MONOTONIC)
        print(
            json.dumps(
                {"raised": at, "rank": error.rank, "host": error.host, "operation": error.operation, "text": str(error)}
            ),
            flush=True,
        )
        # The group stays failed: a later call raises the same at once.
        with contextlib.suppress(pycoll.PeerFailed):
            comm.barrier()
            print("a failed communicator went on", flush=True)


if __name__ == "__main__":
    limit = float(os.environ.get("DEATH_TIMEOUT", "20"))
    world = pycoll.init(timeout=30)  # starting takes what it takes
    world.timeout = limit
    run(world, sys.argv[1], int(sys.argv[2]), wake_after=limit + 1.5)
