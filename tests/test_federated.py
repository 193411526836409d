"""pycoll.federated beside a plain program of each algorithm, on digits shared out to 100 clients by Dirichlet(0.1)."""

import argparse
import functools
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from launch import available, run_ranks
from workers.federated_ranks import Sines

import pycoll
from pycoll import federated, loopback
from pycoll.federated import partition

CLIENTS, ROUNDS, LR, BATCH, EPOCHS = 100, 4, 0.1, 10, 2


@functools.cache
def digits():
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


@functools.cache
def parts():
    return partition.dirichlet(digits()[1], CLIENTS, 0.1, seed=3)


def softmax_regression(proximal=0.0):
    """The clients: of torch, in float64."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    model = torch.nn.Linear(64, 10).double()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    x, y = torch.from_numpy(digits()[0]), torch.from_numpy(digits()[1])
    data = [(x[part], y[part]) for part in parts()]
    loss = torch.nn.functional.cross_entropy
    return federated.TorchClients(model, loss, data, lr=LR, epochs=EPOCHS, batch=BATCH, proximal=proximal)


def train_plainly(client, start, round, proximal):
    """What such a client does, in NumPy: the gradient of softmax regression is written out."""
    x, y = digits()[0][parts()[client]], np.eye(10)[digits()[1][parts()[client]]]
    parameters = start.copy()
    random = np.random.default_rng([0, round, client])
    for _ in range(EPOCHS):
        order = random.permutation(len(x))
        for begin in range(0, len(x), BATCH):
            rows = order[begin : begin + BATCH]
            weight, bias = parameters[:640].reshape(10, 64), parameters[640:]
            scores = np.exp(x[rows] @ weight.T + bias)
            error = (scores / scores.sum(axis=1, keepdims=True) - y[rows]) / len(rows)
            gradient = np.concatenate([(error.T @ x[rows]).ravel(), error.sum(axis=0)])
            parameters = parameters - LR * (gradient + proximal * (parameters - start))
    return parameters


def weighted(updates, samples):
    return sum(n * u for n, u in zip(samples, updates, strict=True)) / sum(samples)


def trimmed(updates, samples):
    return np.array([np.mean(sorted(column)[2:-2]) for column in np.array(updates).T])


def krum(updates, samples):
    def score(i):
        distances = sorted(np.sum((updates[i] - u) ** 2) for j, u in enumerate(updates) if j != i)
        return sum(distances[: len(updates) - 4])

    return np.mean([updates[i] for i in sorted(range(len(updates)), key=score)[:3]], axis=0)


def plainly(sample, server, aggregate=weighted, proximal=0.0, dropout=None):
    """The whole algorithm in one process. server: "avg", "momentum" or "adam"."""
    parameters = np.zeros(650)
    velocity, mean, square = np.zeros(650), np.zeros(650), np.zeros(650)
    for round in range(ROUNDS):
        asked = sample.draw(np.random.default_rng([0, round]), CLIENTS)
        clients = [c for c in asked if dropout is None or not dropout(round, c)]
        updates = [train_plainly(c, parameters, round, proximal) - parameters for c in clients]
        update = aggregate(updates, [len(parts()[c]) for c in clients])
        if server == "avg":
            parameters = parameters + update
        elif server == "momentum":
            velocity = 0.8 * velocity + update
            parameters = parameters + 0.5 * velocity
        else:
            mean, square = 0.9 * mean + 0.1 * update, 0.99 * square + 0.01 * update**2
            parameters = parameters + 0.02 * mean / (np.sqrt(square) + 1e-3)
    return parameters


FEW = federated.Uniform(20)
MOMENTUM, ADAM = federated.FedAvgM(lr=0.5, momentum=0.8), federated.FedAdam(lr=0.02)
DROPOUT = federated.RandomDropout(0.3)
METHODS = {
    "FedAvg": (federated.Method(), {"sample": federated.Everyone(), "server": "avg"}),
    "FedAvg sampled": (federated.Method(sample=FEW), {"sample": FEW, "server": "avg"}),
    "FedAvg dropouts": (
        federated.Method(sample=FEW, dropout=DROPOUT),
        {"sample": FEW, "server": "avg", "dropout": DROPOUT},
    ),
    "FedProx": (federated.Method(sample=FEW), {"sample": FEW, "server": "avg", "proximal": 0.7}),
    "FedAvgM": (federated.Method(sample=FEW, optimizer=MOMENTUM), {"sample": FEW, "server": "momentum"}),
    "FedAdam": (federated.Method(sample=FEW, optimizer=ADAM), {"sample": FEW, "server": "adam"}),
    "median": (
        federated.Method(sample=FEW, aggregate=federated.Median()),
        {"sample": FEW, "server": "avg", "aggregate": lambda updates, _: np.median(updates, axis=0)},
    ),
    "trimmed": (
        federated.Method(sample=FEW, aggregate=federated.TrimmedMean(0.1)),
        {"sample": FEW, "server": "avg", "aggregate": trimmed},
    ),
    "krum": (
        federated.Method(sample=FEW, aggregate=federated.Krum(faulty=2, keep=3)),
        {"sample": FEW, "server": "avg", "aggregate": krum},
    ),
    "secure": (
        federated.Method(sample=FEW, secure=federated.Secure(bits=64)),
        {"sample": FEW, "server": "avg"},
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_equals_a_plain_program(name):
    method, reference = METHODS[name]
    if method.secure:
        pytest.importorskip("cryptography")
    want = plainly(**reference)

    def train(comm):
        federation = federated.Federation(comm, softmax_regression(reference.get("proximal", 0.0)), method)
        return federation.run(ROUNDS), federation.parameters

    for ranks in (1, 4) if name in ("FedAvg sampled", "FedAdam", "secure") else (3,):
        results = loopback.run(ranks, train, timeout=60)
        assert len(results[0][0]) == ROUNDS and all(not reports for reports, _ in results[1:])
        for _, parameters in results:
            np.testing.assert_allclose(parameters, want, rtol=0, atol=1e-6)
    assert np.abs(want).max() > 0.01


def run(method, rounds=1, ranks=3, clients=Sines):
    """Reports and parameters of the server."""

    def train(comm):
        federation = federated.Federation(comm, clients(), method)
        return federation.run(rounds), federation.parameters

    return loopback.run(ranks, train, timeout=30)[0]


def test_the_example_learns_digits(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    torch, example = pytest.importorskip("torch"), pytest.importorskip("federated_digits")
    data = example.load(0, torch.float32)
    split = partition.dirichlet(data[1].numpy(), CLIENTS, 0.1, 0)
    (run,) = [run for run in example.runs(20, CLIENTS) if run.name == "FedAdam"]
    loopback.run(1, lambda comm: example.train(run, argparse.Namespace(rounds=50, seed=0), data, split, comm))
    assert run.accuracy >= 0.93


def test_codec():
    codec = pycoll.TopK(0.1)
    reports, parameters = run(federated.Method(codec=codec), rounds=3, clients=lambda: Sines(dtype=np.float32))
    want, residuals = np.zeros(3000), np.zeros((10, 3000), np.float32)
    for round in range(3):
        total = np.zeros(3000)
        start = want.astype(np.float32)
        for client in range(10):
            update = Sines(dtype=np.float32).train(client, start, round) - start
            total += (client + 1) * pycoll.codec.decode(
                pycoll.codec.encode(update, codec, residual=residuals[client], step=round, stream=client)
            )
        want = want + total / 55
    np.testing.assert_allclose(parameters, want, rtol=0, atol=1e-6)
    assert reports[0].received < 10 * 3000 * 4 * 0.2


def test_stragglers_are_not_waited_for_and_come_back():
    # Odd clients are on rank 2: 5 keeps it busy beyond the deadline, so 7 and 9 are not heard of either.
    reports, parameters = run(federated.Method(deadline=0.8), rounds=40, clients=lambda: Sines(slow={5}))
    assert reports[0].reported == [0, 1, 2, 3, 4, 6, 8] and reports[0].seconds < 1.6
    back = next(r.round for r in reports[1:] if len(r.reported) == 10)
    assert sum(r.late for r in reports[: back + 1]) >= 1
    want = np.zeros(3000)
    for report in reports:
        updates = [0.1 * (Sines().target(c) - want) for c in report.reported]
        want = want + weighted(updates, [c + 1 for c in report.reported])
    np.testing.assert_allclose(parameters, want, rtol=0, atol=1e-9)


def test_no_round_passes_without_a_host_that_is_free():
    class One(Sines):
        count = 300_000  # more than is on its way while the host does not take it

        def __len__(self):
            return 1

    reports, _ = run(federated.Method(deadline=0.3), rounds=9, ranks=2, clients=lambda: One(slow={0}))
    assert all(report.seconds >= 0.29 for report in reports if report.void)
    assert any(report.reported for report in reports)


class Broken(Sines):
    """Client 3 learns what is not finite."""

    def __init__(self, wrong=np.nan, **options):
        super().__init__(**options)
        self.wrong = wrong

    def train(self, client, parameters, round):
        trained = super().train(client, parameters, round)
        trained[7] = self.wrong if client == 3 else trained[7]
        return trained


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_what_is_not_finite_is_refused(wrong):
    def without(round, client):
        return client == 3

    def broken():
        return Broken(wrong, dtype=np.float32)

    methods = [
        {},
        {"aggregate": federated.Median()},
        {"codec": pycoll.Int8()},
        {"privacy": federated.Central(clip=1.0, noise=0.0)},
    ]
    if importlib.util.find_spec("cryptography"):
        methods.append({"secure": federated.Secure()})
    for method in methods:
        reports, parameters = run(federated.Method(**method), 2, clients=broken)
        want = run(federated.Method(**method, dropout=without), 2, clients=lambda: Sines(dtype=np.float32))[1]
        assert [report.refused for report in reports] == [[3], [3]] and 3 not in reports[0].reported
        np.testing.assert_array_equal(parameters, want, err_msg=str(method))
    # To refuse it would tell what local noise hides: it counts as no change.
    (report,), parameters = run(federated.Method(privacy=federated.Local(1.0, 0.1)), clients=broken)
    assert len(report.reported) == 10 and not report.refused and np.isfinite(parameters).all()


def test_a_round_that_cannot_be_put_together_is_void():
    class Nonsense(federated.Aggregate):
        def __call__(self, updates, weights):
            return np.full(updates.shape[1], np.nan)

    reasons = {
        federated.Krum(4): "Krum: 10 clients reported, wanted at least 11 for faulty 4 and keep 1",
        federated.TrimmedMean(0.1): "TrimmedMean: 9 clients reported, wanted at least 10 for trim 0.1",
        Nonsense(): "the aggregated update of 9 clients is not finite",
    }
    for aggregate, reason in reasons.items():
        broken = Sines if isinstance(aggregate, federated.Krum) else Broken
        reports, parameters = run(federated.Method(aggregate=aggregate), 2, clients=broken)
        assert [report.void for report in reports] == [reason] * 2 and not parameters.any()

    class AllBroken(Broken):
        def train(self, client, parameters, round):
            return np.full_like(parameters, np.inf)

    (report,), _ = run(federated.Method(), clients=AllBroken)
    assert report.void == "none of 10 clients reported, 10 had updates that are not finite"


def test_what_a_codec_makes_infinite_is_refused_once():
    class Leaps(Sines):
        """Client 3's first update is beyond float16, which ends at 65504."""

        def train(self, client, parameters, round):
            return super().train(client, parameters, round) + np.float32(1e9) * ((client, round) == (3, 0))

    reports, _ = run(federated.Method(codec=pycoll.Cast("fp16")), 3, clients=lambda: Leaps(dtype=np.float32))
    assert [report.refused for report in reports] == [[3], [], []]


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_client_may_write_into_its_parameters(ranks):
    class InPlace(Sines):
        def train(self, client, parameters, round):
            parameters += 0.1 * (self.target(client) - parameters)
            return parameters

    np.testing.assert_allclose(run(federated.Method(), 2, ranks, InPlace)[1], run(federated.Method(), 2)[1], atol=1e-12)


def test_a_round_without_answers_changes_nothing():
    reports, parameters = run(federated.Method(dropout=lambda round, client: round == 0), rounds=2)
    assert reports[0].void == "none of 10 clients reported" and not reports[0].reported
    assert reports[1].void is None
    np.testing.assert_allclose(parameters, run(federated.Method())[1])


@pytest.mark.parametrize("ranks", [1, 3])
def test_what_a_client_raises_ends_the_run(ranks):
    class Failing(Sines):
        def train(self, client, parameters, round):
            raise ArithmeticError(f"client {client} diverged")

    with pytest.raises(ArithmeticError, match="diverged"):
        run(federated.Method(), ranks=ranks, clients=Failing)


def test_goes_on_from_a_state():
    method = federated.Method(sample=federated.Uniform(4), optimizer=federated.FedAdam())

    def train(comm):
        whole, first, second = (federated.Federation(comm, Sines(), method) for _ in range(3))
        whole.run(5)
        first.run(2)
        if second.is_server:
            second.load_state_dict(first.state_dict())
            with pytest.raises(pycoll.InvalidArgument, match=r"the state has parameters \[7\], the clients \[3000\]"):
                second.load_state_dict({**first.state_dict(), "parameters": np.zeros(7)})
        second.run(3)
        return whole.parameters, second.parameters

    for whole, parts in loopback.run(3, train, timeout=30):
        np.testing.assert_array_equal(whole, parts)


def test_robust_aggregates_hold_where_the_mean_does_not():
    random = np.random.default_rng(0)
    updates = random.normal(1.0, 0.1, (11, 500)).astype(np.float32)
    updates[[2, 7]] = [[1e6], [-3e8]]
    weights = np.ones(11)
    assert abs(federated.Mean()(updates, weights).mean() - 1) > 1e6
    robust = [federated.Median(), federated.TrimmedMean(0.2), federated.Krum(2), federated.Krum(2, keep=5)]
    for aggregate in robust:
        assert np.abs(aggregate(updates, weights) - 1).max() < 0.6, aggregate
    updates[2] = np.nan
    assert np.abs(federated.Krum(2, keep=5)(updates, weights) - 1).max() < 0.6


def test_partitions():
    labels = digits()[1]
    made = {
        "iid": partition.iid(1437, 100),
        "dirichlet 0.1": parts(),
        "dirichlet 100": partition.dirichlet(labels, 100, 100.0),
        "by label": partition.by_label(labels, 100, each=2),
        "by quantity": partition.by_quantity(1437, 100, 0.3, least=2),
    }
    for name, clients in made.items():
        assert len(clients) == 100 and min(c.size for c in clients) >= 1, name
        np.testing.assert_array_equal(np.sort(np.concatenate(clients)), np.arange(1437), err_msg=name)
    kinds = {name: np.mean([np.unique(labels[c]).size for c in clients]) for name, clients in made.items()}
    assert kinds["dirichlet 0.1"] < 4 < 6 < kinds["dirichlet 100"]
    assert kinds["by label"] <= 2.3
    sizes = [c.size for c in made["by quantity"]]
    assert min(sizes) >= 2 and max(sizes) > 5 * np.median(sizes)
    assert {c.size for c in made["iid"]} == {14, 15}


class Halves(Sines):
    def samples(self, client):
        return 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: federated.Uniform(0), "count is 0"),
        (lambda: federated.Poisson(1.5), "probability is 1.5"),
        (lambda: federated.TrimmedMean(0.5), "trim is 0.5"),
        (lambda: federated.Method(deadline=0), "deadline is 0"),
        (lambda: federated.Uniform(2.5), "count is 2.5"),
        (lambda: federated.Krum(1.5), "faulty is 1.5"),
        (lambda: federated.FedAdam(tau=0), "FedAdam: tau is 0"),
        (lambda: federated.FedAdam(0.02, 0.9, 0.99), "betas is 0.9"),
        (lambda: federated.FedAvgM(0.5, {}), "momentum is {}"),
        (lambda: federated.Method(sample=20), "sample is 20, wanted a Sample"),
        (lambda: federated.Method(aggregate=federated.Median), "aggregate is <class .*, wanted an Aggregate"),
        (lambda: federated.Method(secure=True), r"secure is True, wanted a Secure, for example Secure\(\), or None"),
        (lambda: federated.Secure(range=float("inf")), "range inf"),
        (lambda: partition.dirichlet(np.eye(4), 2, 0.1), r"labels have shape \[4, 4\]"),
        (lambda: partition.dirichlet([1, 2], 2, float("inf")), "dirichlet: alpha is inf"),
        (lambda: partition.by_quantity(4, 2, 1e308), "by_quantity: alpha is 1e\\+308"),
        (lambda: run(federated.Method(), 1.5), "rounds is 1.5"),
        (lambda: run(federated.Method(), clients=Halves), r"client \d: the number of samples is 0.5"),
        (lambda: federated.Method(secure=federated.Secure(), aggregate=federated.Median()), "sums only"),
        (lambda: federated.Method(secure=federated.Secure(), codec=pycoll.Int8()), "no codec encodes"),
        (lambda: federated.Method(privacy=federated.Central(1, 1), aggregate=federated.Krum(1)), "use Local"),
        (lambda: federated.Method(privacy=federated.Central(1, 1), sample=FEW), "wanted|needs Poisson"),
        (lambda: federated.Krum(2)(np.ones((6, 3)), np.ones(6)), "6 clients reported, wanted at least 7"),
        (lambda: partition.dirichlet([1, 2], 3, 0.1), "2 samples for 3 clients"),
        (lambda: run(federated.Method(), clients=lambda: Sines(dtype=np.int64)), "wanted a flat array"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(pycoll.InvalidArgument, match=message):
        make()


def test_positional_arguments():
    momentum, adam = federated.FedAvgM(0.5, 0.8), federated.FedAdam(0.02, (0.8, 0.9), 1e-2)
    assert (momentum.lr, momentum.momentum, momentum.state) == (0.5, 0.8, {})
    assert (adam.lr, adam.betas, adam.tau, adam.state) == (0.02, (0.8, 0.9), 1e-2, {})


def test_models_of_a_type_that_cannot_travel():
    torch = pytest.importorskip("torch")
    mixed = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).double())
    for model, types in ((mixed, "float32, float64"), (torch.nn.Linear(2, 2).bfloat16(), "bfloat16")):
        with pytest.raises(pycoll.InvalidArgument, match=f"parameters of {types}, wanted all float32 or all float64"):
            federated.TorchClients(model, None, [])


def test_ranks_agree_upon_parts_of_ones_own():
    class Plain(federated.Aggregate):
        def __call__(self, updates, weights):
            return updates.mean(axis=0, dtype=np.float64)

    class First(federated.Sample):
        def draw(self, random, clients):
            return [0]

        def rate(self, clients):
            return 1 / clients

    class Half(federated.FedAvg):
        def direction(self, update):
            return update / 2

    def train(comm):
        method = federated.Method(aggregate=Plain(), sample=First(), optimizer=Half())
        federation = federated.Federation(comm, Sines(), method)
        federation.run(1)
        return federation.parameters

    for parameters in loopback.run(2, train, timeout=30):
        np.testing.assert_allclose(parameters, 0.05 * Sines().target(0))


def test_ranks_must_agree():
    def disagree(comm):
        method = federated.Method(sample=federated.Uniform(3 + comm.rank))
        with pytest.raises(pycoll.MismatchError, match="Uniform"):
            federated.Federation(comm, Sines(), method)

    loopback.run(2, disagree, timeout=30)


@pytest.mark.mpi
def test_over_mpi():
    if not available("mpi"):
        pytest.skip("mpi: cannot start ranks here")
    pytest.importorskip("cryptography")
    ran = run_ranks(Path(__file__).parent / "workers" / "federated_ranks.py", 3, "mpi", timeout=60)
    assert ran.ok and ran.stdout.count("federated ok") == 3, ran
    assert ran.leftovers == []


@pytest.mark.mpi
@pytest.mark.parametrize(("launcher", "deadline"), [("shm", "none"), ("mpi", "0.5")])
def test_a_host_that_is_killed_is_named_at_once(launcher, deadline):
    if not available(launcher):
        pytest.skip(f"{launcher}: cannot start ranks here")
    worker = Path(__file__).parent / "workers" / "federated_ranks.py"
    ran = run_ranks(worker, 3, launcher, [deadline], timeout=60, survive=True)
    (killed,) = re.findall(r"killed at (\S+)", ran.stdout)
    raised = re.findall(r"raised at (\S+) about rank 2", ran.stdout)
    assert len(raised) == 2 and max(map(float, raised)) - float(killed) < 5, ran
