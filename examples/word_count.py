"""MapReduce over the sources of Python's own library: a word count, an inverted index, and who imports what.

    pycoll run -n 2 examples/word_count.py --plot
    python examples/word_count.py --memory 200MB path/of/other/texts

Counts and index are maps that the core has; the imports are found by two functions of this file.
"""

import argparse
import re
import sysconfig
from pathlib import Path

import look
import numpy as np
from tqdm import tqdm

import pycoll
from pycoll import mapreduce

IMPORT = re.compile(r"^\s*(?:from|import)\s+([a-zA-Z_]\w*)")


def imports(line):
    """The map: the module that a line imports."""
    found = IMPORT.match(line)
    return [(found[1], 1)] if found else []


def most_of(comm, result, count):
    """The `count` largest results of all ranks as (key, value), on the rank that got key 0; elsewhere nothing."""

    def order(pair):
        return -pair[1], pair[0]

    mine = sorted(result, key=order)[:count]
    best = mapreduce.run(mine, lambda pair: [(0, pair)], lambda _, pairs: sorted(pairs, key=order)[:count], comm=comm)
    return [pair for _, pairs in best for pair in pairs]


class Bars:
    """A progress bar for each phase of a job, on rank 0."""

    def __init__(self, job):
        self.job, self.bar, self.phase = job, None, None

    def __call__(self, phase, done, total):
        if phase != self.phase:
            self.close()
            self.phase = phase
            self.bar = tqdm(total=total, desc=f"{self.job}, {phase}", unit="B", unit_scale=True)
        self.bar.update(done - self.bar.n)

    def close(self):
        if self.bar:
            self.bar.close()


def run(comm, job, *args, **options):
    bars = Bars(job)
    result = mapreduce.run(*args, comm=comm, progress=bars, **options)
    bars.close()
    return result


def draw(frequencies, modules, path):
    plt = look.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    ranks = np.arange(1, len(frequencies) + 1)
    left.loglog(ranks, frequencies, color=look.BLUE, lw=1.6)
    slope, offset = np.polyfit(np.log(ranks[10:3000]), np.log(frequencies[10:3000]), 1)
    left.loglog(ranks, np.exp(offset) * ranks**slope, color=look.GREY, lw=1, ls="--")
    left.set_title(f"Words by frequency; slope {slope:.2f}", loc="left", fontweight="bold")
    left.set_xlabel("rank of the word")
    left.set_ylabel("occurrences")
    names, counts = zip(*modules[::-1], strict=True)
    right.barh(names, counts, color=look.ORANGE)
    right.set_title("Lines that import a module", loc="left", fontweight="bold")
    right.grid(axis="y", visible=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "texts", nargs="*", help="files, folders or patterns; by default the sources of Python's library"
    )
    parser.add_argument("--memory", default="256MB", help="of each rank")
    parser.add_argument("--plot", nargs="?", type=Path, const=Path("out/word_count.png"), metavar="FILE")
    options = parser.parse_args()
    comm = pycoll.init()
    texts = options.texts
    if not texts:
        library = Path(sysconfig.get_path("stdlib"))
        texts = sorted(str(path) for path in library.rglob("*.py") if "site-packages" not in path.parts)
    source, room = mapreduce.text(texts, encoding="latin-1"), {"memory": options.memory}
    counts = run(comm, "count", mapreduce.text(texts), mapreduce.Words(), "sum", **room)
    index = run(comm, "index", mapreduce.text(texts), mapreduce.Positions(), "set", **room)
    modules = most_of(comm, run(comm, "imports", source, imports, "sum", **room), 12)
    everywhere = gathered(comm, [count for _, count in counts])
    words = comm.allreduce(np.array([counts.stats.records, len(counts), sum(len(ids) for _, ids in index)]))
    frequent = most_of(comm, counts, 8)
    if modules:
        print(f"{words[0]} words, {words[1]} different ones, {words[2]} pairs of word and line, {comm.size} ranks")
        print("most frequent: " + ", ".join(f"{word} {count}" for word, count in frequent))
        print("most imported: " + ", ".join(f"{name} {count}" for name, count in modules[:8]))
        if options.plot:
            draw(np.sort(everywhere)[::-1], modules, options.plot)


def gathered(comm, numbers):
    """All ranks' numbers, of which each may have another count."""
    counts = comm.allgather(np.array([len(numbers)])).ravel().tolist()
    everything = np.empty(sum(counts), np.int64)
    return comm.allgather(np.array(numbers, np.int64), everything, counts=counts)


if __name__ == "__main__":
    main()
