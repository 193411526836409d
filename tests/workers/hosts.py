"""One rank on one of several hosts: allreduces of every algorithm, short and long, each checked. Rank 0 prints "ok"."""

import sys

import numpy as np

import pycoll

COUNTS = (1, 1009, 300_007)


def main(hosts: int, per_host: int) -> None:
    with pycoll.init(timeout=20) as comm:
        assert comm.size == hosts * per_host and comm.transport == "mpi", (comm.size, comm.transport)
        assert len(set(comm.hosts)) == hosts, comm.hosts
        index = np.arange(max(COUNTS))
        for name in [None, *pycoll.algorithms("allreduce")]:
            if name == "direct":
                continue  # needs memory common to all
            for count in COUNTS:
                x = ((index[:count] + 5 * comm.rank) % 97).astype(np.float32)
                comm.allreduce(x, algo=name)
                want = sum((index[:count] + 5 * rank) % 97 for rank in range(comm.size))
                assert np.array_equal(x, want), (name, count)
        if comm.rank == 0:
            print("ok")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
