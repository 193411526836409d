"""Logistic regression on a libsvm file, of which every rank reads a part.

    pycoll run -n 2 examples/logistic.py --verify

The file lies where all ranks can read it; where there is none yet, scikit-learn's breast cancer data are written to it.
A rank reads the lines that begin in its range of bytes. The training is Newton's method: in a round every rank sums
loss, gradient and Hessian over its lines and one `allreduce` adds up the ranks' sums. All ranks get the same bits, so
all go the same step and stop after the same round. --verify fits the whole file with scikit-learn, and compares.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import pycoll


def write(path):
    """569 tumours with 30 measures each."""
    from sklearn.datasets import dump_svmlight_file, load_breast_cancer

    path.parent.mkdir(parents=True, exist_ok=True)
    dump_svmlight_file(*load_breast_cancer(return_X_y=True), str(path), zero_based=False)


def read(path, part, parts):
    """Labels and {index: value} of each line whose first byte is in range `part` of `parts` of the file."""
    labels, rows = [], []
    bytes = path.stat().st_size
    begin, end = (bytes * i // parts for i in (part, part + 1))
    with path.open("rb") as file:
        if begin > 0:
            file.seek(begin - 1)
            file.readline()  # the rest of a line that began before, or only its end
        while file.tell() < end:
            words = file.readline().partition(b"#")[0].split()
            if words:  # no empty line, nor one that is all comment
                labels.append(float(words[0]))
                rows.append({int(index): float(value) for index, value in (word.split(b":") for word in words[1:])})
    if any(min(row, default=1) < 1 for row in rows):
        raise ValueError(f"{path}: columns must count from 1")
    return np.array(labels), rows


def matrix(rows, columns):
    """Rows of features, then a column of ones for the intercept."""
    x = np.zeros((len(rows), columns + 1))
    x[:, -1] = 1
    for i, row in enumerate(rows):
        x[i, np.array(list(row), int) - 1] = list(row.values())
    return x


def standardize(comm, x):
    """Every feature gets mean 0 and deviation 1 over the lines of all ranks; returns the number of lines."""
    count = comm.allreduce(np.array([len(x)]))[0]
    features = x[:, :-1]
    features -= comm.allreduce(features.sum(0)) / count
    deviation = np.sqrt(comm.allreduce((features**2).sum(0)) / count)
    features /= np.where(deviation > 0, deviation, 1)
    return count


def fit(comm, x, y, l2, rounds=50):
    """Minimises sum(log(1 + exp(-y x w))) + l2 / 2 |w|², the intercept free. y: -1 or 1. Returns w."""
    penalty = np.full(x.shape[1], l2)
    penalty[-1] = 0
    w, step, lowest = np.zeros(x.shape[1]), np.zeros(x.shape[1]), np.inf
    for iteration in range(rounds):
        margin = y * (x @ w)
        p = np.exp(-np.logaddexp(0, margin))  # the probability of the other label
        loss, gradient, hessian = np.logaddexp(0, -margin).sum(keepdims=True), x.T @ (-y * p), (x.T * (p * (1 - p))) @ x
        comm.allreduce([loss, gradient, hessian])
        loss = loss[0] + penalty @ w**2 / 2
        gradient += penalty * w
        if comm.rank == 0:
            print(f"{iteration:5}  {loss:12.6f}  {np.abs(gradient).max():12.2e}")
        if np.abs(gradient).max() < 1e-8:
            return w
        if loss > lowest * (1 + 1e-12):  # too far: half the way back
            step /= 2
            w -= step
            continue
        lowest = loss
        step = -np.linalg.solve(hessian + np.diag(penalty), gradient)
        w = w + step
    raise RuntimeError(f"no minimum in {rounds} rounds")


def verify(path, l2, w):
    """The largest difference from scikit-learn's coefficients, fitted by another method to what it reads itself."""
    from sklearn.datasets import load_svmlight_file
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = load_svmlight_file(str(path))
    x = StandardScaler().fit_transform(x.toarray())
    model = LogisticRegression(C=1 / l2, solver="lbfgs", tol=1e-8, max_iter=10_000).fit(x, y)
    return np.abs(np.append(model.coef_, model.intercept_) - w).max()


def main():
    parser = argparse.ArgumentParser(description="Logistic regression on a libsvm file, partitioned over ranks.")
    parser.add_argument(
        "--file", type=Path, default=Path("out/breast_cancer.libsvm"), help="two labels; columns from 1"
    )
    parser.add_argument("--l2", type=float, default=1.0, help="weight of the squared coefficients (1)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the coefficients, the intercept last")
    parser.add_argument("--verify", action="store_true", help="compare with scikit-learn; fails beyond 1e-4")
    arguments = parser.parse_args()
    with pycoll.init() as comm:
        if comm.rank == 0 and not arguments.file.exists():
            write(arguments.file)
        comm.barrier()
        labels, rows = read(arguments.file, comm.rank, comm.size)
        columns = comm.allreduce(np.array([max((max(row, default=0) for row in rows), default=0)]), "max")[0]
        low, high = comm.allreduce(np.array([-labels, labels]).max(1, initial=-np.inf), "max") * [-1, 1]
        if not np.isin(labels, [low, high]).all():
            raise ValueError(f"{arguments.file}: more than two labels")
        x, y = matrix(rows, columns), np.where(labels == high, 1.0, -1.0)
        shares = comm.gather(np.array([len(y)]))
        count = standardize(comm, x)
        if comm.rank == 0:
            print(f"{count} lines, {columns} features over {comm.size} ranks: {' '.join(map(str, shares))} lines")
            print("round          loss      gradient")
        w = fit(comm, x, y, arguments.l2)
        right = comm.allreduce(np.array([np.sum((x @ w > 0) == (y > 0))]))[0]
        rank = comm.rank
    if rank == 0:
        print(f"{right} of {count} lines on the right side, {right / count:.2%}")
        if arguments.save:
            np.savetxt(arguments.save, w)
        if arguments.verify:
            difference = verify(arguments.file, arguments.l2, w)
            print(f"largest difference from scikit-learn's coefficients: {difference:.1e}")
            sys.exit(bool(difference >= 1e-4))


if __name__ == "__main__":
    main()
