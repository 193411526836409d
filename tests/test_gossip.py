"""pycoll.gossip: topologies, exchanges against single-process references, rates of consensus, training."""

import copy
import dataclasses
import math
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from launch import available, run_ranks

import pycoll
from pycoll import loopback
from pycoll.gossip import (
    Exponential,
    Gossip,
    OnePeerExponential,
    RandomMatching,
    RandomPeer,
    Ring,
    Topology,
    Torus,
)

WORKER = Path(__file__).parent / "workers" / "gossip.py"
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
BALANCED = [Ring(), Torus(), Exponential(), OnePeerExponential(), RandomMatching(3)]


def exists(topology, size):
    try:
        topology.check(size)
    except pycoll.InvalidArgument:
        return False
    return True


# ---- Topologies


@pytest.mark.parametrize("topology", [*BALANCED, RandomPeer()], ids=repr)
def test_matrices(topology):
    for size in filter(lambda size: exists(topology, size), (1, 2, 3, 4, 6, 9, 12, 16, 17)):
        for step in range(5):
            for rank in range(size):
                peers = topology.peers(rank, size, step)
                assert len(set(peers)) == len(peers) and set(peers) <= set(range(size)) - {rank}
            matrix = topology.matrix(size, step)
            assert np.allclose(matrix.sum(0), 1, atol=1e-15)
            assert not topology.balanced or np.allclose(matrix.sum(1), 1, atol=1e-15)
            assert not topology.static or np.array_equal(matrix, topology.matrix(size, 0))
        assert size > 6 or 0 < topology.spectral_gap(size) <= 1


def test_spectral_gaps():
    for size in (3, 5, 16):
        assert Ring().spectral_gap(size) == pytest.approx(2 / 3 * (1 - math.cos(2 * math.pi / size)))
    assert Torus().spectral_gap(16) == pytest.approx(0.4)
    assert OnePeerExponential().spectral_gap(8) == 1 > OnePeerExponential().spectral_gap(9)
    for size in (4, 7, 16):  # drawn, and without drawing
        drawn = Topology.mean_square(RandomMatching(), size)
        assert RandomMatching().mean_square(size) == pytest.approx(drawn, rel=0.08)


class Line(Topology):
    """Of one's own: to the next rank, if there is one."""

    balanced = False

    def peers(self, rank, size, step):
        return (rank + 1,) if rank + 1 < size else ()


@dataclasses.dataclass
class Offsets(Topology):
    """Of one's own: to ranks so much further; at step 2 it is wrong."""

    static = False
    offsets: tuple[int, ...] = (1,)

    def peers(self, rank, size, step):
        return [rank + offset if step == 2 else (rank + offset) % size for offset in self.offsets]


class Graph(Topology):
    """Of one's own, without a repr: who sends to whom."""

    def __init__(self, edges, balanced=True):
        self.edges, self.balanced = edges, balanced

    def peers(self, rank, size, step):
        return self.edges[rank]


def test_topologies_of_ones_own():
    """Ranks compare their fields, and what they say is checked before anything is sent."""

    def run(comm):
        said, x = [], np.full(3, float(comm.rank))
        for topology, how in (
            (Graph({0: [1], 1: [2], 2: [0]}), {}),
            (Graph(np.array([[1], [2], [0]])), {}),
            (Line(), {"push_sum": True}),
            (Offsets((1, 2)), {}),
        ):
            gossip = Gossip(comm, topology, **how)
            gossip.average(gossip.mix(gossip.mix(x.copy())))
            gossip.close()
        Gossip(comm, Graph([np.random.default_rng(0), lambda: 0, object(), np.zeros((9, 9))])).close()  # no addresses
        with pytest.raises(pycoll.InvalidArgument) as raised:
            gossip = Gossip(comm, Offsets())
            for _ in range(3):
                gossip.mix(x)
        said.append(str(raised.value))
        for edges in ({0: [1, 1], 1: [2], 2: [0]}, {0: [0], 1: [2], 2: [0]}, {0: [1], 1: [2], 2: [1]}):
            gossip = Gossip(comm, Graph(edges))
            with pytest.raises(pycoll.InvalidArgument) as raised:
                gossip.mix(x)
            said.append(str(raised.value))
            assert gossip.stats()["messages"] == 0
        for odd, even in ((Graph({0: [1]}), Graph({0: [2]})), (Offsets((2,)), Offsets((1,))), (Line(), Ring())):
            with pytest.raises(pycoll.MismatchError) as raised:
                Gossip(comm, odd if comm.rank == 1 else even, push_sum=True)
            said.append(str(raised.value))
        return said

    for said in loopback.run(3, run, timeout=20):
        assert said == [
            "Offsets: at step 2 peers of rank 2 are [3], wanted others of 3 ranks, each once",
            "Graph: at step 0 peers of rank 0 are [1, 1], wanted others of 3 ranks, each once",
            "Graph: at step 0 peers of rank 0 are [0], wanted others of 3 ranks, each once",
            "Graph: at step 0 weights of what rank 0 hears sum to 0.5, wanted 1 of a balanced topology; say balanced = "
            "False and take push_sum=True",
            "Gossip: topology is Graph(edges={0: [1]}, balanced=True) on rank 1, but Graph(edges={0: [2]}, "
            "balanced=True) on rank 0",
            "Gossip: topology is Offsets(offsets=[2]) on rank 1, but Offsets(offsets=[1]) on rank 0",
            "Gossip: topology is Line() on rank 1, but Ring() on rank 0",
        ]


# ---- Exchanges


def start_of(rank, count=57, dtype=np.float64):
    return np.random.default_rng(rank).standard_normal(count).astype(dtype)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_exchanges_are_products(size):
    """Each step is x = W x, and what was added during an exchange is added to that."""

    def mix(comm):
        found = []
        for topology in filter(lambda topology: exists(topology, size), BALANCED):
            for dtype in (np.float64, np.float32):
                with_delta = start_of(comm.rank, dtype=dtype)
                plain, gossip = with_delta.copy(), Gossip(comm, topology)
                overlapping = Gossip(comm, topology)
                for _ in range(4):
                    assert gossip.mix(plain) is plain
                    overlapping.start(with_delta)
                    with_delta += comm.rank
                    overlapping.finish(with_delta)
                found.append((topology, plain, with_delta))
        return found

    results = loopback.run(size, mix, timeout=30)
    for i, (topology, plain, _) in enumerate(results[0]):
        first = np.stack([start_of(rank, dtype=plain.dtype) for rank in range(size)]).astype(np.float64)
        alone, added = first, first
        for step in range(4):
            alone = topology.matrix(size, step) @ alone
            added = topology.matrix(size, step) @ added + np.arange(size)[:, None]
        for expected, which in ((alone, 1), (added, 2)):
            got = np.stack([result[i][which] for result in results])
            # A step rounds each number a few times, and weights are at most 1.
            bound = 4 * 8 * np.finfo(plain.dtype).eps * (np.abs(first).max() + 4 * size)
            assert np.abs(got - expected).max() <= bound, (topology, plain.dtype)


def test_push_sum_finds_the_mean_where_plain_exchanges_do_not():
    def mix(comm):
        gossip, x = Gossip(comm, RandomPeer(1), push_sum=True), start_of(comm.rank)
        for _ in range(60):
            gossip.mix(x)
        before, weight = x.copy(), gossip.weight
        return before, weight, gossip.average(x), gossip.weight

    results = loopback.run(6, mix, timeout=30)
    mean = np.mean([start_of(rank) for rank in range(6)], axis=0)
    weights = [weight for _, weight, _, _ in results]
    assert sum(weights) == pytest.approx(6) and max(weights) > 1.2
    for before, _, after, weight in results:
        assert np.abs(before - mean).max() < 1e-8 and np.abs(after - mean).max() < 1e-13 and weight == 1


def reference_choco(topology, size, codec, gamma, steps):
    """Algorithm 1 of Koloskova et al. as it stands: every rank's view of every neighbour, in one process."""
    x = [start_of(rank, 300, np.float32).astype(np.float64) for rank in range(size)]
    hat = [np.zeros(300) for _ in range(size)]
    matrix = topology.matrix(size)
    for step in range(steps):
        for rank in range(size):
            difference = (x[rank] - hat[rank]).astype(np.float32)
            hat[rank] = hat[rank] + pycoll.codec.decode(pycoll.codec.encode(difference, codec, step=step, stream=rank))
        moved = [sum(matrix[i, j] * (hat[j] - hat[i]) for j in range(size)) for i in range(size)]
        x = [(a + gamma * b).astype(np.float32).astype(np.float64) for a, b in zip(x, moved, strict=True)]
    return x


@pytest.mark.parametrize(
    "codec",
    [pycoll.TopK(0.1, exact=True), pycoll.Int4(rounding="stochastic"), pycoll.RandomK(0.2), pycoll.Sign()],
    ids=repr,
)
def test_choco_is_the_published_algorithm(codec):
    def mix(comm):
        gossip, x = Gossip(comm, Torus(), codec=codec, gamma=0.2), start_of(comm.rank, 300, np.float32)
        for _ in range(12):
            gossip.mix(x)
        return x

    expected = reference_choco(Torus(), 6, codec, 0.2, 12)
    for got, wanted in zip(loopback.run(6, mix, timeout=30), expected, strict=True):
        assert np.abs(got - wanted).max() < 1e-5  # 12 steps of rounding to float32, of numbers below 4


# ---- Rates, 16 ranks


def distances(comm, topology, steps, every, **how):
    count, dtype = (2000, np.float32) if "codec" in how else (64, np.float64)
    gossip, x = Gossip(comm, topology, **how), start_of(comm.rank, count, dtype)
    found = [gossip.consensus_distance(x)]
    for step in range(steps):
        gossip.mix(x)
        if step % every == every - 1:
            found.append(gossip.consensus_distance(x))
    return found, x, gossip.stats()


def test_consensus_at_the_rate_of_the_spectral_gap():
    cases = [(Ring(), 80), (Torus(), 24), (Exponential(), 24), (RandomMatching(), 40)]

    def measure(comm):
        found = [distances(comm, topology, steps, steps // 4)[:2] for topology, steps in cases]
        found.append(distances(comm, RandomPeer(), 40, 10, push_sum=True)[:2])
        return found, distances(comm, OnePeerExponential(), 4, 1)[:2]

    results = loopback.run(16, measure, timeout=60)
    mean = np.mean([start_of(rank, 64) for rank in range(16)], axis=0)
    for (topology, steps), (found, _) in zip([*cases, (RandomPeer(), 40)], results[0][0], strict=True):
        # The first quarter is left out: other eigenvalues than the largest have their say there.
        measured = 1 - (found[-1] / found[1]) ** (1 / (steps * 3 // 4))
        assert measured == pytest.approx(topology.spectral_gap(16), rel=0.2), topology
    for _, (exact, x) in results:
        assert exact[-1] < 1e-14 < exact[-2] and np.abs(x - mean).max() < 1e-14  # 2^4 ranks
    for i in range(len(cases)):
        assert np.allclose(np.mean([result[0][i][1] for result in results], axis=0), mean, atol=1e-14)


def test_choco_with_one_percent_converges():
    codec = pycoll.TopK(0.01)
    results = loopback.run(16, partial(distances, topology=Torus(), steps=210, every=70, codec=codec), timeout=60)
    found, _, stats = results[0]
    assert found[1] > 1.5 * found[2] > 2 * found[3] and found[3] < found[0] / 8
    mean = np.mean([start_of(rank, 2000, np.float32) for rank in range(16)], axis=0)
    assert np.allclose(np.mean([x for _, x, _ in results], axis=0), mean, atol=1e-5)
    dense = 4 * 210 * (2000 * 4 + 32)
    assert stats["messages"] == 4 * 210 and stats["wire_bytes"] < dense / 25
    larger = partial(distances, topology=Torus(), steps=70, every=70, codec=codec, gamma=0.5)
    assert loopback.run(16, larger, timeout=60)[0][0][-1] > found[1]  # too large a gamma is worse than the default


# ---- Training


def test_training_is_as_good_as_with_allreduce():
    digits, replicas = examples()
    data = digits.load(0, digits.torch.float32)
    ways = {
        "all-reduce": pycoll.DistributedOptimizer,
        "exponential": pycoll.gossip.GossipOptimizer,
    }

    def train(comm):
        return [
            replicas.train(comm, data, label, lambda o, named, w=wrap: w(o, named, comm), steps=60, lr=0.12)
            for label, wrap in ways.items()
        ]

    digits.torch.set_num_threads(1)
    dense, gossip = loopback.run(16, train, timeout=100)[0]
    assert dense.accuracy > 0.95 and gossip.accuracy > dense.accuracy - 0.01


def test_the_example(tmp_path, capsys):
    digits, _ = examples()
    pytest.importorskip("matplotlib")
    import gossip_digits

    data = digits.load(0, digits.torch.float32)
    result = loopback.run(4, partial(gossip_digits.everything, data=data, steps=5), timeout=60)[0]
    gossip_digits.report(*result)
    said = capsys.readouterr().out
    assert re.search(r"Ring +66\.7% +66\.\d%", said) and len(re.findall(r"\d\d\.\d\d%", said)) == 6
    gossip_digits.plot(*result, tmp_path / "gossip.png")
    assert (tmp_path / "gossip.png").stat().st_size > 10_000


def examples():
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    import digits
    import replicas

    return digits, replicas


@pytest.mark.parametrize(
    "how",
    [
        {"topology": Ring(), "overlap": True, "codec": pycoll.TopK(0.1)},
        {"topology": RandomPeer(), "push_sum": True, "every": 2},
        {"topology": RandomMatching(), "overlap": True, "every": 2},
    ],
    ids=repr,
)
def test_training_goes_on_from_a_checkpoint(how):
    torch = pytest.importorskip("torch")

    def make(comm, start=None):
        model = [torch.nn.Parameter(torch.full((40, 3), 1.0)), torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16))]
        optimizer = torch.optim.SGD(model, lr=0.05, momentum=0.9)
        optimizer = pycoll.gossip.GossipOptimizer(optimizer, comm=comm, **how)
        if start is not None:
            for parameter, saved in zip(model, start[0], strict=True):
                parameter.data.copy_(saved)
            optimizer.load_state_dict(start[1])
        return model, optimizer

    def steps(comm, model, optimizer, which):
        for step in which:
            for parameter in model:
                noise = torch.as_tensor(start_of(comm.rank * 100 + step, parameter.numel()))
                parameter.grad = noise.reshape(parameter.shape).to(parameter.dtype)
            optimizer.step()

    def run(comm):
        model, optimizer = make(comm)
        steps(comm, model, optimizer, range(5))
        saved = copy.deepcopy(([p.detach() for p in model], optimizer.state_dict()))  # torch keeps references
        again, other = make(comm, saved)
        steps(comm, model, optimizer, range(5, 11))
        steps(comm, again, other, range(5, 11))
        before = optimizer.consensus_distance()
        alike = all(torch.equal(a, b) for a, b in zip(model, again, strict=True))
        optimizer.average()
        saved[1]["pycoll"]["gossip"]["rank"] = comm.rank + 1
        with pytest.raises(pycoll.InvalidArgument, match=f"a state of rank {comm.rank + 1} of 4 was given to rank"):
            other.load_state_dict(saved[1])
        return alike, before, [p.detach().float().numpy() for p in model]

    results = loopback.run(4, run, timeout=30)
    for alike, before, model in results:
        assert alike and before > 1e-3
        assert all(np.array_equal(a, b) for a, b in zip(model, results[0][2], strict=True))


# ---- What goes wrong


@pytest.mark.parametrize(
    ("words", "topology", "how"),
    [
        ("topology is 'ring', wanted one of pycoll.gossip", "ring", {}),
        ("Torus: 3 ranks make no grid", Torus(), {}),
        ("Torus: 3 ranks do not make 2 rows", Torus(2), {}),
        ("Torus: rows is -1", Torus(-1), {}),
        ("RandomMatching: seed is -1", RandomMatching(-1), {}),
        ("gamma is 0", Ring(), {"gamma": 0}),
        ("gamma is nan", Ring(), {"gamma": math.nan}),
        ("push_sum is 1", Ring(), {"push_sum": 1}),
        ("only push_sum=True comes to the mean", Line(), {}),
        ("push_sum has neither", Ring(), {"push_sum": True, "codec": pycoll.Int8()}),
        ("codec is 'int8'", Ring(), {"codec": "int8"}),
        ("codec is SharedScale", Ring(), {"codec": pycoll.SharedScale()}),
        ("codec is PowerSGD", Ring(), {"codec": pycoll.PowerSGD(1)}),
        ("wants one that is static", RandomMatching(), {"codec": pycoll.Int8()}),
        ("wanted a gamma for TopK", Ring(), {"codec": pycoll.TopK(k=3)}),
    ],
)
def test_bad_arguments(words, topology, how):
    def build(comm):
        with pytest.raises(pycoll.InvalidArgument) as raised:
            Gossip(comm, topology, **how)
        return str(raised.value)

    for message in loopback.run(3, build, timeout=20):
        assert words in message and "\n" not in message


def test_bad_arrays_and_ranks_that_disagree():
    def run(comm):
        gossip = Gossip(comm, Ring())
        for bad in (np.ones(4, np.int32), np.ones((4, 4))[:, :2], [1.0, 2.0], "x"):
            with pytest.raises(pycoll.InvalidArgument, match=f"Gossip: rank {comm.rank} got (int32|float64|list|str)"):
                gossip.mix(bad)
        gossip.mix(np.ones(4))
        with pytest.raises(pycoll.InvalidArgument, match=re.escape("got float64[5], before it was float64[4]")):
            gossip.mix(np.ones(5))
        with pytest.raises(pycoll.InvalidArgument, match=r"rank . got finish\(\) without a start"):
            gossip.finish(np.ones(4))
        gossip.start(np.ones(4))
        with pytest.raises(pycoll.InvalidArgument, match=r"start\(\) before exchange 1 was finished"):
            gossip.start(np.ones(4))
        gossip.finish(np.ones(4))
        said = []
        with pytest.raises(pycoll.MismatchError) as raised:
            Gossip(comm, Exponential() if comm.rank == 2 else Ring())
        said.append(str(raised.value))
        with pytest.raises(pycoll.MismatchError) as raised:
            Gossip(comm, Ring()).mix(np.ones(3 + (comm.rank == 1)))
        return [*said, str(raised.value)]

    for said in loopback.run(3, run, timeout=20):
        assert said == [
            "Gossip: topology is Exponential() on rank 2, but Ring() on rank 0",
            "Gossip: the array is float64[4] on rank 1, but float64[3] on rank 0",
        ]


def test_a_rank_that_does_not_come_is_not_waited_for():
    def run(comm):
        gossip, x = Gossip(comm, Ring()), np.ones(4)
        gossip.mix(x)
        if comm.rank:
            with pytest.raises((pycoll.Timeout, pycoll.PeerFailed), match=f"Gossip: rank {comm.rank} in exchange 1: "):
                gossip.mix(x)

    loopback.run(3, run, timeout=1)


# ---- Processes


@pytest.mark.mpi
@pytest.mark.skipif(not available("mpi"), reason="no mpirun")
def test_over_mpi():
    run = run_ranks(WORKER, 4, "mpi", timeout=100)
    for case in re.findall(r"@case\ndef (\w+)", WORKER.read_text()):
        assert all(f"{rank} {case} ok" in run.stdout for rank in range(4)), run
    assert run.ok and run.leftovers == [], run
