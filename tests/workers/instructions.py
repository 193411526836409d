"""A rank of two that call allreduce on 8 bytes, in place; rank 1 does so under callgrind. See test_instructions.py."""

from __future__ import annotations

import os
import sys

ENTRY = "pycoll::Communicator::run(pycoll::Call&)"  # where every call from Python enters the core, once
COUNTED = "PYCOLL_TEST_COUNTED"  # in the environment of the process that callgrind runs


def main(calls: int) -> None:
    import numpy as np

    import pycoll

    with pycoll.init(timeout=60) as comm:
        x = np.ones(2, np.float32)
        for _ in range(calls):
            comm.allreduce(x)


if __name__ == "__main__":
    rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
    if rank == "1" and COUNTED not in os.environ:
        tool = ["valgrind", "-q", "--tool=callgrind", "--compress-strings=no", f"--dump-before={ENTRY}"]
        command = [*tool, f"--callgrind-out-file={sys.argv[1]}", sys.executable, *sys.argv]
        # Names hashed alike in every run: collisions in Python's dictionaries cost instructions.
        os.execvpe("valgrind", command, os.environ | {COUNTED: "1", "PYTHONHASHSEED": "0"})
    main(int(sys.argv[2]))
