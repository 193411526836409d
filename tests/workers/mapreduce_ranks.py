"""Word count and index of FOLDER/*.txt on ranks that are processes, each in a budget of memory; one dies if told to.

mapreduce_ranks.py FOLDER BUDGET [die]
"""

import collections
import os
import signal
import sys
import time
from pathlib import Path

import pycoll
from pycoll import mapreduce
from pycoll.objects import allgather

folder, budget, *die = sys.argv[1:]
comm = pycoll.init(timeout=30)
source = mapreduce.text(f"{folder}/*.txt")


def words(line):
    if die and comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if die:
        time.sleep(0.5)  # a rank has a hundred lines: it hears of the death long before it is at the end of its own
    return [(word, 1) for word in line.split()]


if die:
    try:
        mapreduce.run(source, words, "sum", memory=budget, comm=comm)
    except pycoll.PeerFailed as error:
        print(f"rank {comm.rank}: PeerFailed, rank {error.rank}, {str(error)[:18]}", flush=True)
    sys.exit()

counts = mapreduce.run(source, mapreduce.Words(), "sum", memory=budget, comm=comm)
index = mapreduce.run(source, mapreduce.Positions(), "set", memory=budget, comm=comm)
peak = max(counts.stats.peak, index.stats.peak)
assert peak <= 1.2 * mapreduce.memory.parse_bytes(budget), f"rank {comm.rank} had {peak} bytes"
assert index.stats.spilled > 0

got = {}
for part in allgather(comm, list(counts)):
    got |= part
paths = sorted(Path(folder).glob("*.txt"))
wanted = collections.Counter(word.decode() for path in paths for word in path.read_bytes().split())
assert got == wanted
frequencies = collections.Counter(
    word.decode() for path in paths for line in path.read_bytes().split(b"\n") for word in set(line.split())
)
lengths = [(key, len(ids)) for key, ids in index]
assert {key: length for part in allgather(comm, lengths) for key, length in part} == frequencies
print(f"rank {comm.rank}: right", flush=True)
