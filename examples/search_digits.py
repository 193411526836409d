"""A search for the best parameters of a classifier: rank 0 deals out the fits, and the other ranks make them.

    pycoll run -n 3 examples/search_digits.py --plot
    mpirun -n 3 python examples/search_digits.py --verify     # and compare with scikit-learn's own search

A support vector machine with Gaussian kernel on scikit-learn's handwritten digits, for every pair of a penalty C and a
width gamma in a grid, cross-validated in five folds. A fit takes from some tens of milliseconds to a second, which
nobody knows before, so a rank gets the next one when it is free.
"""

import argparse
import functools
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import look
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.svm import SVC
from tqdm import tqdm

import pycoll

FOLDS = 5


@dataclass
class Fit:
    """What a task gives back: the fold's accuracy, by which rank, from when to when (seconds, the machine's clock)."""

    c: float
    gamma: float
    accuracy: float
    rank: int
    begin: float
    end: float


@functools.cache
def data():
    """Loaded once by every rank: only numbers travel with a task. Training and test images, and the labels of both."""
    images, labels = load_digits(return_X_y=True)
    return train_test_split(images / 16, labels, test_size=0.2, stratify=labels, random_state=0)


def folds():
    return StratifiedKFold(FOLDS, shuffle=True, random_state=0)


def fit(c, gamma, fold):
    begin = time.time()
    x, _, y, _ = data()
    train, validate = list(folds().split(x, y))[fold]
    accuracy = SVC(C=c, gamma=gamma).fit(x[train], y[train]).score(x[validate], y[validate])
    return Fit(c, gamma, accuracy, pycoll.init().rank, begin, time.time())


def search(pool, cs, gammas):
    """All fits, in the order in which they came."""
    tasks = list(itertools.product(cs, gammas, range(FOLDS)))
    results = pool.map(fit, *zip(*tasks, strict=True), ordered=False)
    return list(tqdm(results, total=len(tasks), desc="fits", ncols=88, unit=""))


def scores(fits, cs, gammas):
    """Mean accuracy over the folds, [C, gamma]."""
    sums = np.zeros((len(cs), len(gammas)))
    for each in fits:
        sums[cs.index(each.c), gammas.index(each.gamma)] += each.accuracy
    return sums / FOLDS


def report(fits, mean, cs, gammas, seconds):
    took = [each.end - each.begin for each in fits]
    workers = len({each.rank for each in fits})
    best = np.unravel_index(mean.argmax(), mean.shape)
    c, gamma = cs[best[0]], gammas[best[1]]
    x, x_test, y, y_test = data()
    accuracy = SVC(C=c, gamma=gamma).fit(x, y).score(x_test, y_test)
    print(
        f"{len(fits)} fits of {min(took):.2f} to {max(took):.2f} s in {seconds:.1f} s by {workers} of the ranks, ",
        end="",
    )
    print(f"which were busy {sum(took) / seconds / workers:.0%} of that time")
    print(f"best: C {c:g}, gamma {gamma:g}: {mean.max():.2%} in the folds, {accuracy:.2%} of the test set")


def verify(mean, cs, gammas):
    """The largest difference from what scikit-learn's own search says, in this process."""
    x, _, y, _ = data()
    own = GridSearchCV(SVC(), {"C": cs, "gamma": gammas}, cv=folds(), refit=False).fit(x, y)
    return np.abs(own.cv_results_["mean_test_score"].reshape(mean.shape) - mean).max()


def plot(fits, mean, cs, gammas, path):
    plt = look.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.4), width_ratios=[1, 1.5], layout="constrained")
    image = left.imshow(100 * mean, origin="lower", cmap="Blues", vmin=90, aspect="auto")
    left.set_xticks(range(len(gammas)), [f"{gamma:.3g}" for gamma in gammas])
    left.set_yticks(range(len(cs)), [f"{c:.3g}" for c in cs])
    left.set_xlabel("gamma")
    left.set_ylabel("C")
    left.grid(visible=False)
    figure.colorbar(image, ax=left, label="accuracy, %", extend="min")
    best = np.unravel_index(mean.argmax(), mean.shape)
    left.plot(best[1], best[0], "o", color=look.ORANGE, ms=9)
    left.set_title("Mean over the folds", loc="left", fontweight="bold")
    first, ranks = min(each.begin for each in fits), sorted({each.rank for each in fits})
    for each in fits:
        bar = (each.begin - first, each.end - each.begin)
        right.broken_barh([bar], (ranks.index(each.rank) - 0.35, 0.7), color=look.BLUE, ec="white", lw=0.6)
    right.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks])
    right.set_xlabel("seconds")
    right.grid(axis="y", visible=False)
    right.set_title("Who made which fit when; each bar is one", loc="left", fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=int, default=7, help="values of C, and of gamma (7)")
    parser.add_argument("--verify", action="store_true", help="compare with scikit-learn's search: fails if it differs")
    parser.add_argument("--plot", nargs="?", type=Path, const=Path("out/search.png"), metavar="FILE")
    arguments = parser.parse_args()
    if arguments.grid < 1:
        parser.error("--grid must be at least 1")
    cs, gammas = (np.geomspace(*ends, arguments.grid).tolist() for ends in ((0.1, 100), (0.001, 1)))
    with pycoll.TaskPool() as pool:
        if not pool:
            return  # a worker, after the last task
        begin = time.perf_counter()
        fits = search(pool, cs, gammas)
        seconds = time.perf_counter() - begin
    mean = scores(fits, cs, gammas)
    report(fits, mean, cs, gammas, seconds)
    if arguments.plot:
        plot(fits, mean, cs, gammas, arguments.plot)
    if arguments.verify:
        difference = verify(mean, cs, gammas)
        print(f"largest difference from scikit-learn's own search: {difference:.1e}")
        sys.exit(bool(difference > 1e-12))


if __name__ == "__main__":
    main()
