"""TaskPool over processes: pool.py FOLDER. A worker is killed in the middle; the master looks at what ran when."""

import os
import signal
import sys
import time
from pathlib import Path

import pycoll

COUNT = 400
FATAL = 150


def task(folder, i):
    with open(f"{folder}/runs", "a") as log:
        log.write(f"{i} {time.time()}\n")
    if i == FATAL:
        try:
            Path(folder, "killed").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            pass
    time.sleep(0.0005)
    return i * i


def main(folder):
    with pycoll.TaskPool(pycoll.init(timeout=30)) as pool:
        if not pool:
            return
        came = {}
        futures = [pool.submit(task, folder, i) for i in range(COUNT)]
        for i, future in enumerate(futures):
            future.add_done_callback(lambda _, i=i: came.setdefault(i, time.time()))
        assert [future.result(timeout=60) for future in futures] == [i * i for i in range(COUNT)]
        done = pool.stats()
    runs = [line.split() for line in Path(folder, "runs").read_text().splitlines()]
    assert {int(i) for i, _ in runs} == set(range(COUNT))
    assert sum(int(i) == FATAL for i, _ in runs) == 2
    assert all(float(when) <= came[int(i)] for i, when in runs), "a task was repeated whose result had come"
    print(f"{len(runs) - COUNT} repeated, {sorted(done.values())}")


main(sys.argv[1])
