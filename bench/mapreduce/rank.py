"""pycoll's side, on each rank: rank.py TASK OUTPUT MEMORY FILE...; rank 0 prints one line of JSON."""

from __future__ import annotations

import json
import sys
import time

import pycoll
from pycoll import mapreduce
from pycoll.objects import allgather


def main() -> None:
    task, output, memory, *paths = sys.argv[1:]
    comm = pycoll.init()
    map, reduce = (mapreduce.Words(), "sum") if task == "count" else (mapreduce.Positions(), "set")
    options = {"format": "parquet", "overwrite": True, "memory": memory, "comm": comm}
    mapreduce.run(mapreduce.text(paths[:1]), map, reduce, output=f"{output}-warm", **options)
    comm.barrier()
    begin = time.perf_counter()
    result = mapreduce.run(mapreduce.text(paths), map, reduce, output=output, **options)
    comm.barrier()
    seconds = time.perf_counter() - begin
    stats = allgather(comm, vars(result.stats))
    if comm.rank == 0:
        print(json.dumps({"seconds": seconds, "stats": stats}), flush=True)


if __name__ == "__main__":
    main()
