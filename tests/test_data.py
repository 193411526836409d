"""pycoll.data: shards hold every sample once; batches keep all ranks in step, and go on after a checkpoint."""

import subprocess
import sys

import numpy as np
import pytest

import pycoll
from pycoll import data, loopback


@pytest.mark.parametrize("count", [0, 1, 7, 100])
@pytest.mark.parametrize("weights", [None, (1, 1, 1), (5, 1, 0.5)])
def test_by_index(count, weights):
    shards = data.by_index(count, 3, weights)
    assert [i for shard in shards for i in shard] == list(range(count))
    for shard, weight in zip(shards, weights or (1, 1, 1), strict=True):
        assert abs(len(shard) - count * weight / sum(weights or (1, 1, 1))) <= 1


def test_by_hash_moves_only_what_must():
    keys = [f"file-{i}" for i in range(2000)]
    four, five = data.by_hash(keys, 4), data.by_hash(keys, 5)
    assert sorted(i for shard in four for i in shard) == list(range(2000))
    assert all(420 < len(shard) < 580 for shard in four)
    for before, after in zip(four, five, strict=False):
        assert set(after) <= set(before)
    program = "from pycoll import data; print(data.by_hash([f'file-{i}' for i in range(50)], 4))"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert there.stdout.strip() == str(data.by_hash(keys[:50], 4))


@pytest.mark.parametrize("weights", [None, (3, 1, 1, 1)])
def test_by_size(weights):
    sizes = np.random.default_rng(0).pareto(1.5, 200).tolist()
    shards = data.by_size(sizes, 4, weights)
    assert sorted(i for shard in shards for i in shard) == list(range(200))
    times = [sum(sizes[i] for i in shard) / w for shard, w in zip(shards, weights or (1,) * 4, strict=True)]
    least = max(sum(sizes) / sum(weights or (1,) * 4), max(sizes) / max(weights or (1,)))
    assert max(times) <= 4 / 3 * least
    assert [len(shard) for shard in data.by_size([0] * 8, 4)] == [2] * 4


def epochs(comm, count, batch, epochs=2, **options):
    batches = data.Batches(count, batch, comm, **options)
    return [[(share, batches.state_dict()) for share in batches] for _ in range(epochs)], len(batches)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("last", ["keep", "drop", "wrap"])
@pytest.mark.parametrize("weights", [False, True])
def test_every_sample_once_and_all_in_step(size, last, weights):
    for count, batch in ((5, 5), (64, 16), (65, 16), (79, 16), (100, 7)):
        speeds = [1 + 3 * rank for rank in range(size)] if weights else None
        ranks = loopback.run(size, lambda comm: epochs(comm, count, batch, last=last, weights=speeds), timeout=60)  # noqa: B023
        orders = []
        for epoch in (0, 1):
            steps = {len(taken[epoch]) for taken, _ in ranks}
            assert steps == {ranks[0][1]}
            shares = [[share for share, _ in taken[epoch]] for taken, _ in ranks]
            assert all(share for rank in shares for share in rank)
            seen = [i for step in zip(*shares, strict=True) for share in step for i in share]
            wanted = {"keep": count, "drop": count - count % batch, "wrap": -(-count // batch) * batch}[last]
            assert len(seen) == wanted and len(set(seen)) == min(wanted, count)
            orders.append(seen)
        assert orders[0] != orders[1]
        if weights and size > 1 and batch >= 16:
            assert len(shares[-1][0]) > len(shares[0][0])


def test_a_checkpoint_goes_on_with_other_ranks():
    def shares(comm, state=None, steps=None):
        batches = data.Batches(50, 8, comm, seed=3)
        if state:
            batches.load_state_dict(state)
        taken = []
        for share in batches:
            taken.append(share)
            if len(taken) == steps:
                break
        return taken, batches.state_dict(), batches.state_dict(1)

    def joined(ranks):
        return [i for step in zip(*(taken for taken, *_ in ranks), strict=True) for share in step for i in share]

    whole = joined(loopback.run(1, shares))
    before = loopback.run(3, lambda comm: shares(comm, steps=4))
    after = loopback.run(2, lambda comm: shares(comm, before[2][1]))
    assert joined(before) + joined(after) == whole
    # A loader's workers had taken four, one was done.
    assert joined(before)[:8] + joined(loopback.run(2, lambda comm: shares(comm, before[0][2]))) == whole
    assert {state["epoch"] for _, state, _ in after} == {1}


def resumed(state, ranks, **options):
    """What is left of the state's epoch, by rank."""

    def rest(comm):
        batches = data.Batches(comm=comm, shuffle=False, **options)
        batches.load_state_dict(state)
        return list(batches), batches.epoch

    return loopback.run(ranks, rest, timeout=60)


def test_a_state_names_the_pass_that_is_consumed():
    comm = pycoll.init()
    ahead = data.Batches(40, 10, comm, shuffle=False)
    list(ahead)  # as a loader's workers do, while nothing was consumed
    states = [ahead.state_dict(steps) for steps in range(5)]
    assert [(s["epoch"], s["done"]) for s in states] == [(0, 0), (0, 10), (0, 20), (0, 30), (1, 0)]
    # With other batches, a pass begins within the epoch, and steps are its own.
    other = data.Batches(40, 8, comm, shuffle=False)
    other.load_state_dict(states[1])
    assert next(iter(other)) == list(range(10, 18))
    assert other.state_dict() == other.state_dict(1) == {**states[1], "done": 18}
    assert (other.state_dict(4)["epoch"], other.state_dict(4)["done"]) == (1, 0)


@pytest.mark.parametrize("last", ["keep", "drop", "wrap"])
def test_a_state_after_the_last_step_begins_the_next_epoch(last):
    batches = data.Batches(10, 4, pycoll.init(), shuffle=False, last=last)
    states = [batches.state_dict() for _ in batches]
    assert (states[-1]["epoch"], states[-1]["done"]) == (1, 0)
    ((rest, epoch),) = resumed(states[-1], 1, count=10, batch=4, last=last)
    assert len(rest) == len(batches) and epoch == 2


def test_more_ranks_than_samples_are_left():
    state = {"epoch": 0, "done": 8, "count": 9, "seed": 0}
    ranks = resumed(state, 4, count=9, batch=8)
    assert [rest for rest, _ in ranks] == [[[8]], [[0]], [[1]], [[2]]]


def test_mean_over_uneven_shares():
    losses = np.random.default_rng(1).random(19)

    def mean(comm):
        total, count = 0.0, 0
        for share in data.Batches(19, 5, comm, weights=[1, 2, 4][: comm.size]):
            x = comm.allreduce(np.array([data.scale(comm, len(share)) * losses[share].mean()]))[0] / comm.size
            n = comm.allreduce(np.array([len(share)]))[0]
            total, count = total + x * n, count + n
        return total / count, data.scale(comm, 0)

    for result, nothing in loopback.run(3, mean, timeout=60):
        assert result == pytest.approx(losses.mean(), rel=1e-12)
        assert nothing == 0


def test_loader_of_torch():
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.arange(20))

    def take(comm):
        loader = torch.utils.data.DataLoader(dataset, batch_sampler=data.Batches(20, 6, comm, shuffle=False))
        return [x.tolist() for (x,) in loader]

    workers = data.Batches(20, 6, pycoll.init())  # which take all batches ahead
    states = []
    for step, _ in enumerate(torch.utils.data.DataLoader(dataset, batch_sampler=workers, num_workers=1), 1):
        states.append(workers.state_dict(step))
    assert [(state["epoch"], state["done"]) for state in states] == [(0, 6), (0, 12), (0, 18), (1, 0)]

    first, second = loopback.run(2, take, timeout=60)
    assert first[0] == [0, 1, 2] and second[0] == [3, 4, 5] and first[-1] + second[-1] == [18, 19]


def test_speeds_are_measured():
    def measure(comm):
        import time

        return data.measured_speeds(comm, lambda: time.sleep(0.002 if comm.rank else 0.02), seconds=0.1)

    slow, fast = loopback.run(2, measure, timeout=60)[0]
    assert fast > 3 * slow > 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: data.by_index(-1, 2), "by_index: count is -1"),
        (lambda: data.by_index(3, 0), "by_index: parts is 0"),
        (lambda: data.by_index(3, 2, [1]), "wanted 2 positive numbers"),
        (lambda: data.by_size([1, float("nan")], 2), "a size is negative or not a number"),
        (lambda: data.Batches(10, 0), "Batches: batch is 0"),
        (lambda: data.Batches(3, 4, last="drop"), "Batches: count is 3, wanted a whole number of at least 4"),
        (lambda: data.Batches(9, 3, last="stop"), "last is 'stop'"),
        (lambda: data.Batches(9, 3).load_state_dict({"epoch": 0, "done": 0, "count": 8, "seed": 0}), "count is 8"),
        (lambda: data.Batches(9, 3).state_dict(4), "steps is 4"),
    ],
)
def test_what_is_wrong_is_named(call, sentence):
    with pytest.raises(pycoll.InvalidArgument, match=sentence):
        call()
