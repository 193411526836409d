"""Run by test_federated.py: a federation over processes ends as it does within one."""

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


def main():
    comm = pycoll.init(timeout=30)
    for name, method in METHODS.items():
        many, one = federated.Federation(comm, Sines(), method), federated.Federation(Alone(), Sines(), method)
        many.run(3)
        one.run(3)
        np.testing.assert_array_equal(many.parameters, one.parameters, err_msg=name)
    print(f"{comm.rank} federated ok")


if __name__ == "__main__":
    main()
