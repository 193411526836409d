"""The tutorials in examples/: they run, and what they print is right."""

import collections
import functools
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from launch import available, run_ranks

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
WORKER = Path(__file__).parent / "workers" / "examples.py"
EPOCHS = 4
sys.path.insert(0, str(EXAMPLES))

import digits  # noqa: E402
import logistic  # noqa: E402


def run(*examples, n, launcher):
    """Runs lines of an example's name and arguments on the same ranks; returns what each printed, by name."""
    words = " -- ".join(f"{EXAMPLES}/{example}" for example in examples).split()
    done = run_ranks(WORKER, n, launcher, words, timeout=150)
    assert done.ok and done.leftovers == [], done
    printed = collections.defaultdict(str)
    for name, text in re.findall(r"^=== (\w+)\n((?:(?!===).*\n)*)", done.stdout, re.MULTILINE):
        printed[name] += text
    return printed


# ---- Of NumPy alone


@functools.cache
def of_numpy(n, tumours, folder):
    verify = "--verify" if n == 3 else ""  # elsewhere here: ranks that import scikit-learn take their time
    fit = f"logistic.py --file {tumours} --save {folder}/{n} {verify}"
    return run("three_points.py", fit, n=n, launcher="shm")


@pytest.fixture(scope="module")
def tumours(tmp_path_factory):
    path = tmp_path_factory.mktemp("libsvm") / "tumours"
    logistic.write(path)
    return path


@pytest.fixture
def printed(n, tumours):
    if not available("shm"):
        pytest.skip("no mpirun")
    return of_numpy(n, tumours, tumours.parent)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_three_points(printed):
    printed = printed["three_points"]
    rows = re.findall(r"^ *(\d+) +(\d\.\d+) +(\d+\.\d+)$", printed, re.MULTILINE)
    assert [int(step) for step, _, _ in rows] == [0, 1, 2, 5, 10, 15, 20]
    for step, w, loss in rows:
        # Of the mean over three points, not of the mean of means: the error shrinks by 1 - 2 · 0.05 · mean(x²) a step.
        error = 2 * (1 - 0.1 * 14 / 3) ** int(step)
        assert (float(w), float(loss)) == pytest.approx((2 - error, error**2 * 14 / 3), abs=1e-6)
    assert printed.endswith("y = 2.0000 x\n")


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_logistic(printed, n, tumours):
    assert "562 of 569 lines on the right side" in printed["logistic"]
    assert ("difference from scikit-learn" in printed["logistic"]) == (n == 3)
    w = np.loadtxt(tumours.parent / str(n))
    assert logistic.verify(tumours, 1.0, w) < 1e-4
    assert logistic.verify(tumours, 1.0, w + 2e-4) > 1e-4


def test_logistic_reads_every_line_once(tmp_path):
    path = tmp_path / "small"
    path.write_text("1 1:0.5 3:2 # a comment\n\n-1 2:-1e-3\n# nothing else\n1\n-1 1:1 2:2 3:3")
    whole = [(1, {1: 0.5, 3: 2}), (-1, {2: -1e-3}), (1, {}), (-1, {1: 1, 2: 2, 3: 3})]
    for parts in range(1, path.stat().st_size + 3):
        shares = [logistic.read(path, part, parts) for part in range(parts)]
        assert [pair for labels, rows in shares for pair in zip(labels, rows, strict=True)] == whole
    path.write_text("1 0:0.5\n")
    with pytest.raises(ValueError, match="count from 1"):
        logistic.read(path, 0, 1)


# ---- Of torch


def mirrored_batches(count):
    order = torch.Generator().manual_seed(0)
    return [torch.randperm(count, generator=order).split(64) for _ in range(EPOCHS)]


def sampled_batches(count):
    """What two ranks with a DistributedSampler have together."""
    samplers = [torch.utils.data.DistributedSampler(range(count), 2, rank) for rank in (0, 1)]
    epochs = []
    for epoch in range(EPOCHS):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = (torch.tensor(list(sampler)).split(32) for sampler in samplers)
        epochs.append([torch.cat(share) for share in zip(*shares, strict=True)])
    return epochs


def one_process(batches):
    """Mean loss and test accuracy of each epoch, where one process trains on the joined batches."""
    x_train, y_train, x_test, y_test = digits.load(0, torch.float32)
    model = digits.build(0, torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses, accuracies = [], []
    for epoch in batches(len(x_train)):
        sums = []
        for batch in epoch:
            loss = torch.nn.functional.cross_entropy(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums.append(loss.item())
        losses.append(np.mean(sums))
        accuracies.append(100 * (model(x_test).argmax(1) == y_test).double().mean().item())
    return losses, accuracies


def losses(printed):
    return [float(loss) for loss in re.findall(r"  loss (\d+\.\d+)", printed)]


def accuracies(printed):
    """Of each epoch, in percent; each epoch once, however many ranks there are."""
    epochs, found = zip(*re.findall(r"epoch +(\d+) .*test accuracy (\d+\.\d+)%", printed), strict=True)
    assert [int(epoch) for epoch in epochs] == list(range(1, EPOCHS + 1)), printed
    return [float(accuracy) for accuracy in found]


def same_as_one_process(printed, batches):
    loss, accuracy = one_process(batches)
    assert losses(printed) == pytest.approx(loss, abs=1e-4)
    assert accuracies(printed) == pytest.approx(accuracy, abs=0.3)  # one of 360
    assert accuracy[-1] > 93


@functools.cache
def of_torch():
    there = [f"{name}_digits" for name in ("accelerate", "lightning") if importlib.util.find_spec(name)]
    lines = [f"{name}.py --epochs {EPOCHS}" for name in ("mirrored", *there)]
    return run(*lines, "../tests/workers/replicas.py", n=2, launcher="torchrun")


@functools.cache
def spawned():
    done = run_ranks(EXAMPLES / "spawn_ddp.py", 1, "python", ["--epochs", str(EPOCHS)], timeout=150)
    assert done.ok and done.leftovers == [], done
    return done.stdout


def test_spawn_ddp():
    same_as_one_process(spawned(), sampled_batches)


def test_mirrored():
    printed = of_torch()["mirrored"]
    assert "2 replicas of 76,564 variables and momenta: the same to the last bit\n" in printed
    same_as_one_process(printed, mirrored_batches)


def test_mirrored_sees_what_differs():
    assert sorted(of_torch()["replicas"].splitlines()) == [f"rank {rank}: True, then False" for rank in (0, 1)]


def test_lightning():
    """It deals out the samples as spawn_ddp.py does."""
    pytest.importorskip("lightning")
    printed = of_torch()["lightning_digits"]
    assert "2 ranks over pycoll\n" in printed
    assert accuracies(printed) == accuracies(spawned())


def test_accelerate():
    pytest.importorskip("accelerate")
    printed = of_torch()["accelerate_digits"]
    assert "2 ranks over pycoll, DistributedDataParallel\n" in printed
    assert 93 < accuracies(printed)[-1] <= 100


# ---- Every system, beside the others


def test_compare_systems(tmp_path):
    file = tmp_path / "figures.json"
    words = ["--ranks", "2", "--steps", "40", "--compute", "4", "--slow", "1:4", "--json", str(file)]
    done = run_ranks(EXAMPLES / "compare_systems.py", 1, "python", words, timeout=150)
    assert done.ok and done.leftovers == [], done
    figures = {(f["system"], f["codec"]): f for f in json.loads(file.read_text())["systems"]}
    for (system, codec), figure in figures.items():
        assert (f"\n{system}, {codec}" if codec else f"\n{system} ") in done.stdout
        assert figure["accuracy"] > 0.7, (system, codec)
        assert figure["seconds"] > 0 and 0 <= figure["communication"] < 1 and 0 < figure["efficiency"] <= 1.1, figure
        if codec:
            assert 0 < figure["sent"] < 0.7 * figures[system, ""]["sent"], system  # federated ones go one way dense
    assert len(figures) == 17
    # Of two ranks one takes four times as long: in step they do 2 steps while the fast one could do 4, apart 5.
    for system in ("all-reduce", "server sync", "server bounded"):
        assert figures["server async", ""]["rate"] > 1.7 * figures[system, ""]["rate"], system
        assert figures["server async", ""]["communication"] < figures[system, ""]["communication"], system
