"""Run by test_federated.py: a federation over processes ends as it does within one, or as a killed host ends it.

As a script: federated_ranks.py, or federated_ranks.py DEADLINE ("none": without) to kill the host of client 1.
"""

import os
import signal
import sys
import time

import numpy as np

import pycoll
from pycoll import federated


class Sines:
    """Ten clients whose updates are known without training."""

    count = 3000

    def __init__(self, slow=(), dtype=np.float64):
        self.slow, self.dtype = slow, dtype

    def __len__(self):
        return 10

    def parameters(self):
        return np.zeros(self.count, self.dtype)

    def samples(self, client):
        return client + 1

    def target(self, client):
        return np.sin(np.arange(self.count) * (client + 1))

    def train(self, client, parameters, round):
        if client in self.slow and round == 0:
            time.sleep(1.6)
        return (parameters + 0.1 * (self.target(client) - parameters)).astype(self.dtype)


METHODS = {
    "plain": federated.Method(sample=federated.Uniform(6), optimizer=federated.FedAdam()),
    "secure": federated.Method(secure=federated.Secure(), dropout=federated.RandomDropout(0.2)),
}


class Alone:
    """What a federation asks of a communicator of one rank."""

    rank, size, timeout = 0, 1, 60.0

    def allgather(self, x, out, **_):
        out[:] = x


class Mortal(Sines):
    """Client 1 takes its host along in round 3."""

    def train(self, client, parameters, round):
        if (client, round) == (1, 3):
            print(f"killed at {time.clock_gettime(time.CLOCK_MONOTONIC)}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(client, parameters, round)


def lose_a_host(comm, deadline):
    try:
        federated.Federation(comm, Mortal(), federated.Method(deadline=deadline)).run(8)
    except pycoll.PeerFailed as error:
        when = time.clock_gettime(time.CLOCK_MONOTONIC)
        print(f"raised at {when} about rank {error.rank}", flush=True)


def main():
    comm = pycoll.init(timeout=30)
    if len(sys.argv) > 1:
        lose_a_host(comm, None if sys.argv[1] == "none" else float(sys.argv[1]))
        return
    for name, method in METHODS.items():
        many, one = federated.Federation(comm, Sines(), method), federated.Federation(Alone(), Sines(), method)
        many.run(3)
        one.run(3)
        np.testing.assert_array_equal(many.parameters, one.parameters, err_msg=name)
    print(f"{comm.rank} federated ok")


if __name__ == "__main__":
    main()
