"""pycoll.TaskPool: an Executor over ranks; what is raised, what cannot be pickled, and who dies."""

import gc
import itertools
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from launch import available, run_ranks

import pycoll
from pycoll import loopback
from pycoll.parcel import Parcel
from pycoll.pool import Task, _as_many

WORKER = Path(__file__).parent / "workers" / "pool.py"


def over(size, master, **options):
    """What `master(pool)` returns on rank 0."""

    def run(comm):
        with pycoll.TaskPool(comm, **options) as pool:
            return master(pool) if pool else None

    return loopback.run(size, run, timeout=30)[0]


def power(x, exponent=2):
    return x**exponent


def unlucky(x):
    if x == 7:
        raise ValueError("seven")
    return x


@pytest.mark.parametrize("size", [1, 2, 4])
def test_map_and_submit(size):
    def master(pool):
        assert list(pool.map(power, range(1000))) == [x * x for x in range(1000)]
        assert list(pool.map(power, [2, 3], [3, 2])) == [8, 9]
        assert sorted(pool.map(power, range(1000), ordered=False)) == [x * x for x in range(1000)]
        assert list(pool.map(power, range(10), chunksize=3)) == [x * x for x in range(10)]
        assert list(pool.map(power, [])) == []
        futures = [pool.submit(power, x, exponent=3) for x in range(200)]
        assert [future.result() for future in futures] == [x**3 for x in range(200)]
        return sum(pool.stats().values())

    assert (over(size, master) > 200) == (size > 1)


def test_what_a_task_raises():
    def master(pool):
        with pytest.raises(ValueError, match="seven"):
            pool.submit(unlucky, 7).result()
        came = []
        with pytest.raises(ValueError, match="seven"):
            came.extend(x for x in pool.map(unlucky, range(20), chunksize=5))
        for x in (came := pool.map(unlucky, range(20), chunksize=5)):  # what came before is not lost
            if x == 6:
                break
        with pytest.raises(ValueError, match="seven"):
            next(came)
        return pool.submit(power, 3).result()

    assert over(3, master) == 9


def test_tries_again():
    tries = itertools.count()

    def shaky():
        if next(tries) < 2:
            raise OSError("not yet")
        return "now"

    # By a name in this module: what is pickled by reference is the same object in every thread.
    globals()["shaky"] = shaky
    shaky.__qualname__ = "shaky"
    assert over(2, lambda pool: pool.submit(shaky).result(), retries=2, retry_on=(OSError,)) == "now"
    with pytest.raises(OSError, match="not yet"):
        tries = itertools.count()
        over(2, lambda pool: pool.submit(shaky).result(), retries=1, retry_on=(OSError,))


def lock_of(_):
    return threading.Lock()


def lock_at_7(x):
    return threading.Lock() if x == 7 else x


def test_what_cannot_be_pickled():
    def master(pool):
        futures = [pool.submit(power, x) if x % 5 else pool.submit(power, threading.Lock()) for x in range(50)]
        for x, future in enumerate(futures):
            if x % 5:
                assert future.result() == x * x
            else:
                with pytest.raises(TypeError, match="pickle"):
                    future.result()
        with pytest.raises(TypeError, match="the result cannot be pickled"):
            pool.submit(lock_of, 0).result()
        results = pool.map(lock_at_7, range(20), chunksize=5)
        assert list(itertools.islice(results, 7)) == list(range(7))
        with pytest.raises(TypeError, match="the result cannot be pickled"):
            next(results)

    over(3, master)


class Brittle:
    """Can be pickled, but not back."""

    def __reduce__(self):
        return power, ("no", "number")


def brittle(_):
    return Brittle()


def test_what_cannot_be_unpickled():
    def master(pool):
        futures = [pool.submit(power, Brittle() if x == 30 else x) for x in range(60)]
        with pytest.raises(TypeError):
            futures.pop(30).result()
        assert sum(future.result() for future in futures) == sum(x * x for x in range(60)) - 900
        with pytest.raises(TypeError):
            pool.submit(brittle, 0).result()

    over(2, master)


def total(*arrays):
    return np.concatenate([array.ravel() for array in arrays])


def test_memory_of_arrays_is_not_pickled():
    def master(pool):
        for count in (1, 6, 7, 20):
            arrays = [np.arange(1000 * i, dtype=np.float64).reshape(-1, 10) for i in range(count)]
            assert len(Parcel(arrays)._pickle) < 200 * count + 200
            np.testing.assert_array_equal(pool.submit(total, *arrays).result(), total(*arrays))
        assert list(pool.map(len, [np.zeros(100_000)] * 30)) == [100_000] * 30

    over(3, master)


def test_back_pressure():
    def master(pool):
        taken = itertools.count()
        results = pool.map(power, (next(taken) for _ in range(10_000)), chunksize=10)
        next(results)
        assert next(taken) < 500
        results.close()
        begin = time.monotonic()
        futures = [pool.submit(time.sleep, 0.01) for _ in range(30)]
        assert time.monotonic() - begin > 0.1  # not before most of the tasks were done
        return [future.result() for future in futures]

    over(2, master, waiting=5)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_map_keeps_nothing(ordered):
    def master(pool):
        results = pool.map(power, itertools.count(), chunksize=1, ordered=ordered)
        for _ in range(300):
            next(results)
        kept = sum(isinstance(thing, Task) for thing in gc.get_objects())
        results.close()
        return kept

    assert over(3, master) < 60  # four a worker are under way


def test_as_many_tasks_as_take_two_milliseconds_and_four_megabytes():
    assert _as_many(1, 0.0, 0.0, 1) == 4  # fourfold at most
    assert _as_many(100, 0.004, 1e3, 100) == 50
    assert _as_many(100, 0.001, 16 << 20, 100) == 25
    assert _as_many(1, 5.0, 1e9, 1) == 1


def dies(_):
    raise SystemExit("enough")


def test_workers_that_die():
    def master(pool):
        deadly = pool.submit(dies, 0)
        with pytest.raises(pycoll.PeerFailed, match=r"rank [123] failed.*enough"):
            deadly.result()
        assert list(pool.map(power, range(100))) == [x * x for x in range(100)]
        last = [pool.submit(dies, 0) for _ in range(3)]
        for future in last:
            with pytest.raises(pycoll.PeerFailed):
                future.result()
        with pytest.raises(pycoll.PeerFailed, match="none of its 3 workers is left"):
            pool.submit(power, 1)
        return "the master lives"

    def run(comm):
        with pycoll.TaskPool(comm, retries=1) as pool:
            return master(pool) if pool else None

    # Two workers die of the first task, the third of another. SystemExit ends their threads.
    with pytest.raises(SystemExit, match="enough"):
        loopback.run(4, run, timeout=30)


def test_a_worker_that_does_not_answer():
    def run(comm):
        try:
            with pycoll.TaskPool(comm, retries=0, timeout=0.5) as pool:
                if pool:
                    with pytest.raises(pycoll.PeerFailed, match=r"rank 1 failed: .*passed its timeout"):
                        pool.submit(time.sleep, 2).result()
                    return "told"
        except pycoll.Timeout:  # of the master, who said so to all
            return "given up"

    assert loopback.run(2, run, timeout=30) == ["told", "given up"]


def test_idle_workers_stay():
    def master(pool):
        time.sleep(1)
        return pool.submit(power, 4).result()

    assert over(2, master, timeout=0.4) == 16


@pytest.mark.parametrize("options", [{"retries": -1}, {"waiting": 0}, {"waiting": True}])
def test_bad_arguments(options):
    with pytest.raises(pycoll.InvalidArgument, match=f"TaskPool: {next(iter(options))} is"):
        pycoll.TaskPool(**options)


def test_after_the_end():
    def master(pool):
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(power, 1)

    over(2, master)


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["shm", "mpi"])
def test_kill_a_worker(launcher, tmp_path):
    if not available(launcher):
        pytest.skip("no mpirun")
    run = run_ranks(WORKER, 3, launcher, [str(tmp_path)], timeout=90, survive=True)
    assert re.search(r"^\d+ repeated, ", run.stdout, re.MULTILINE), run
    assert run.leftovers == []
