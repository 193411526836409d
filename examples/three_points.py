"""Fits y = w x to three points that are dealt out to the ranks: the smallest training over ranks there is.

    pycoll run -n 2 examples/three_points.py

Each rank knows its own points only. In a step it sums the gradient over them, `allreduce` adds up the ranks' sums, and
so every rank goes the same step. It divides by the number of points of all ranks: the mean of the ranks' means would be
wrong where one rank has two points and another has one. A rank without points adds zero.
"""

import numpy as np

import pycoll

POINTS = np.array([[1, 2], [2, 4], [3, 6]], np.float64)
RATE, STEPS = 0.05, 20


def main():
    with pycoll.init() as comm:
        x, y = POINTS[comm.rank :: comm.size].T
        shares = comm.gather(np.array([len(x)]))
        if comm.rank == 0:
            print(f"{len(POINTS)} points over {comm.size} ranks: {' '.join(map(str, shares))}")
            print("step         w      loss")
        w = 0.0
        for step in range(STEPS + 1):
            error = w * x - y
            sums = np.array([len(x), np.sum(error**2), np.sum(2 * error * x)])
            count, loss, gradient = comm.allreduce(sums)
            if comm.rank == 0 and (step < 3 or step % 5 == 0):
                print(f"{step:4}  {w:8.6f}  {loss / count:8.6f}")
            if step < STEPS:
                w -= RATE * gradient / count
        if comm.rank == 0:
            print(f"y = {w:.4f} x")


if __name__ == "__main__":
    main()
