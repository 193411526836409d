"""pycoll.federated beside a plain program of each algorithm, on digits shared out to 100 clients by Dirichlet(0.1)."""

import argparse
import functools
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: federated.Uniform(0), "count is 0"),
        (lambda: federated.Poisson(1.5), "probability is 1.5"),
        (lambda: federated.TrimmedMean(0.5), "trim is 0.5"),
        (lambda: federated.Method(deadline=0), "deadline is 0"),
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
