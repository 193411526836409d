"""pycoll.TaskPool: an Executor over ranks; what is raised, what cannot be pickled, and who dies."""

import gc
import itertools
import pickle
import re
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from launch import available, run_ranks

import pycoll
from pycoll import loopback
from pycoll.parcel import Parcel
from pycoll.pool.task import Task, as_many
from pycoll.pool.worker import Worker

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
            assert len(Parcel(arrays).pickled) < 200 * count + 200
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
        kept = sum(type(thing) is Task for thing in gc.get_objects())
        results.close()
        return kept

    assert over(3, master) < 60  # four a worker are under way


def test_as_many_tasks_as_take_two_milliseconds_and_four_megabytes():
    assert as_many(1, 0.0, 0.0, 1) == 4  # fourfold at most
    assert as_many(100, 0.004, 1e3, 100) == 50
    assert as_many(100, 0.001, 16 << 20, 100) == 25
    assert as_many(1, 5.0, 1e9, 1) == 1


def dies(_):
    raise KeyboardInterrupt("enough")


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

    # Two workers die of the first task, the third of another. Ctrl-C ends their threads.
    with pytest.raises(KeyboardInterrupt, match="enough"):
        loopback.run(4, run, timeout=30)


def test_a_worker_that_gives_no_sign_of_life(monkeypatch):
    monkeypatch.setattr(Worker, "_pulse", lambda self: None)

    def run(comm):
        try:
            with pycoll.TaskPool(comm, retries=0, timeout=0.5) as pool:
                if pool:
                    with pytest.raises(pycoll.PeerFailed, match=r"rank 1 failed: gave no sign of life for 0\.5 s"):
                        pool.submit(time.sleep, 2).result()
                    return "told"
        except pycoll.Timeout as error:  # of the master, who said so to all
            return str(error)

    told, given_up = loopback.run(2, run, timeout=30)
    assert told == "told" and given_up.startswith("TaskPool: ")


def slow_behind_fast(x):
    if x >= 300:
        time.sleep(0.06)
    return threading.current_thread().name


def test_tasks_may_take_longer_than_the_timeout_and_are_dealt_out_anew():
    """Batches are as many as suits tasks that take nothing; then come slow ones."""

    def master(pool):
        assert pool.submit(time.sleep, 0.9).result() is None
        for results in (
            [future.result() for future in [pool.submit(slow_behind_fast, x) for x in range(308)]],
            list(pool.map(slow_behind_fast, range(308))),
        ):
            assert len(set(results[300:])) > 1  # not all of them by the one that had them in its batch

    over(3, master, timeout=0.3)


class Odd(Exception):
    """Can be pickled, but not back."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class OddResult(Brittle):
    pass


calls = []


def odd(x):
    calls.append(x)
    if x == 5:
        raise Odd("one", "other")
    if x == 6:
        raise SystemExit(3)
    return OddResult() if x == 7 else x


def test_what_does_not_come_through_pickle_costs_nothing_else():
    def master(pool):
        futures = [pool.submit(odd, x) for x in range(10)]
        with pytest.raises(pycoll.Error, match="a task raised Odd: one and other; Odd itself cannot be unpickled"):
            futures[5].result()
        with pytest.raises(SystemExit):
            futures[6].result()
        with pytest.raises(TypeError, match="the result cannot be unpickled"):
            futures[7].result()
        assert [futures[x].result() for x in (0, 4, 8, 9)] == [0, 4, 8, 9]
        assert sorted(calls) == list(range(10))  # none of them twice
        results = pool.map(odd, range(10), chunksize=10)
        assert list(itertools.islice(results, 5)) == list(range(5))  # what came before is not lost
        with pytest.raises(pycoll.Error, match="a task raised Odd"):
            next(results)

    calls.clear()
    over(2, master)


def test_where_it_was_raised_is_told():
    def master(pool):
        with pytest.raises(ValueError, match="seven") as raised:
            pool.submit(unlucky, 7).result()
        return str(raised.value.__cause__)

    assert re.search(r"On rank 1:\nTraceback .*in unlucky.*ValueError: seven", over(2, master), re.DOTALL)


def test_callbacks_may_submit_and_raise_what_they_like():
    def master(pool):
        second, came = [], threading.Event()

        def callback(future):
            second.extend(pool.submit(power, x) for x in range(5))  # more than may wait
            came.set()
            sys.exit("of no consequence")

        pool.submit(power, 2).add_done_callback(callback)
        assert came.wait(20)
        return [future.result() for future in second]

    assert over(2, master, waiting=2) == [0, 1, 4, 9, 16]


def test_memory_of_tensors_is_not_pickled():
    torch = pytest.importorskip("torch")
    tensors = [torch.arange(5000.0).reshape(50, 100), torch.ones(3000, dtype=torch.bfloat16), torch.zeros(0, 3)]
    parcel = Parcel({"tensors": tensors, "transposed": tensors[0].T, "grad": torch.ones(2, requires_grad=True)})
    assert len(parcel.pickled) < 1500
    back = pickle.loads(parcel.pickled, buffers=parcel.arrays)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(back["tensors"], tensors, strict=True))
    assert torch.equal(back["transposed"], tensors[0].T) and back["grad"].requires_grad


def test_who_waits_for_what_is_cancelled_goes_on():
    def master(pool):
        futures = [pool.submit(time.sleep, 0.05) for _ in range(20)]
        pool.shutdown(cancel_futures=True)
        return len(wait(futures, timeout=10).not_done)

    assert over(2, master) == 0


def test_idle_workers_stay():
    def master(pool):
        time.sleep(1)
        return pool.submit(power, 4).result()

    assert over(2, master, timeout=0.4) == 16


@pytest.mark.parametrize(
    "options",
    [{"retries": -1}, {"waiting": 0}, {"waiting": True}, {"timeout": -1}, {"timeout": "5"}, {"retry_on": "OSError"}],
)
def test_bad_arguments(options):
    with pytest.raises(pycoll.InvalidArgument, match=f"TaskPool: .*{next(iter(options))} "):
        pycoll.TaskPool(**options)
    with pytest.raises(pycoll.InvalidArgument, match="chunksize is -1"):
        pycoll.TaskPool(retry_on=OSError).map(power, [1], chunksize=-1)


@pytest.mark.parametrize("size", [1, 2])
def test_after_the_end(size):
    def master(pool):
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(power, 1)

    over(size, master)


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["shm", "mpi"])
def test_kill_a_worker(launcher, tmp_path):
    if not available(launcher):
        pytest.skip("no mpirun")
    run = run_ranks(WORKER, 3, launcher, [str(tmp_path)], timeout=90, survive=True)
    assert re.search(r"^\d+ repeated, ", run.stdout, re.MULTILINE), run
    assert run.leftovers == []
