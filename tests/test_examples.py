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

import compare_systems  # noqa: E402
import digits  # noqa: E402
import logistic  # noqa: E402
import placement_digits  # noqa: E402


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


# ---- Tasks, and who has which samples


@pytest.mark.skipif(not available("shm"), reason="no mpirun")
def test_search(tmp_path):
    plot = f"--plot {tmp_path}/plot.png" if importlib.util.find_spec("matplotlib") else ""
    printed = run(f"search_digits.py --grid 2 --verify {plot}", n=3, launcher="shm")["search_digits"]
    assert re.search(r"^20 fits of .* by 2 of the ranks, which were busy \d+% of that time$", printed, re.MULTILINE)
    assert "best: C 100, gamma 1: 97." in printed
    assert float(re.search(r"scikit-learn's own search: (\S+)$", printed, re.MULTILINE)[1]) < 1e-12
    assert bool(plot) == (tmp_path / "plot.png").exists()


def test_placement(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    words = f"--ranks 3 --epochs 2 --batch 60 --cost 0.5 --slow 4 --plot {tmp_path}/plot.png"
    monkeypatch.setattr("sys.argv", ["placement_digits.py", *words.split()])
    placement_digits.main()
    printed = capsys.readouterr().out
    rows = re.findall(r"^(.{16}) +((?:\d+ ){3}) *(\d+\.\d) +\d+% +(\d+\.\d+)%$", printed, re.MULTILINE)
    (_, shares, seconds, accuracy), (_, weighted, sooner, as_good) = rows
    assert shares.split() == ["20"] * 3
    assert np.allclose([int(n) for n in weighted.split()], [26, 26, 8], atol=4)  # the speeds are measured
    assert float(sooner) < 0.8 * float(seconds)
    assert accuracy == as_good and float(accuracy) > 80
    assert float(re.search(r"steps are at most (\S+) apart", printed)[1]) < 1e-4
    assert "one rank fewer: 1437 of 1437 samples seen once in it\n" in printed
    assert re.search(r"^files by size: the fullest rank has 1\.00\d times the mean$", printed, re.MULTILINE)
    assert (tmp_path / "plot.png").exists()


# ---- Every system, beside the others


@functools.cache
def compared(folder):
    """What compare_systems.py says of all systems, and of two of them with a rank that computes four times longer."""
    every = f"compare_systems.py --steps 32 --compute 1 --json {folder}/every.json"
    if importlib.util.find_spec("matplotlib"):
        every += f" --plot {folder}/every.png"
    slow = "--systems server?sync,server?async --codec none --steps 16 --compute 20 --slow 0:4"
    printed = run(every, f"compare_systems.py {slow} --json {folder}/slow.json", n=2, launcher="torchrun")
    files = [json.loads((folder / name).read_text())["systems"] for name in ("every.json", "slow.json")]
    return printed["compare_systems"], *({(f["system"], f["codec"]): f for f in file} for file in files)


def test_every_system_learns_and_sends_less_with_a_codec(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    printed, figures, _ = compared(folder)
    assert len(figures) == 17
    assert (folder / "every.png").exists() == bool(importlib.util.find_spec("matplotlib"))
    for (system, codec), figure in figures.items():
        assert (f"\n{system}, {codec} " if codec else f"\n{system} ") in printed
        assert figure["accuracy"] > 0.8, (system, codec)
        assert figure["samples"] == 2 * 32 * 32 or system == "federated", (system, figure["samples"])
        assert figure["seconds"] > 0 and 0 <= figure["communication"] < 1 and figure["efficiency"] > 0, figure
        if codec:
            most = 0.7 if system == "federated" else 0.3  # the way to its clients is dense
            assert 0 < figure["sent"] < most * figures[system, ""]["sent"], system


def test_a_slow_rank_holds_up_those_who_wait_for_it(tmp_path_factory):
    """In the time in which it takes one step and the other four, they take two in step, and five apart."""
    _, _, figures = compared(tmp_path_factory.getbasetemp())
    waiting, apart = figures["server sync", ""], figures["server async", ""]
    assert apart["samples"] == waiting["samples"]
    assert apart["rate"] > 1.4 * waiting["rate"] and apart["seconds"] < waiting["seconds"], (apart, waiting)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--systems nothing", "--systems: 'nothing' is none of one rank, all-reduce, "),
        ("--slow 3", "--slow: '3' is not RANK:FACTOR"),
        ("--link fast", "--link: 'fast' is not a rate"),
        ("--delay 1ms", "--delay is that of a shaped link"),
        ("--codec int5", '--codec: codec is "int5", wanted one of none, '),
    ],
)
def test_what_compare_systems_cannot_do_is_refused(words, sentence, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare_systems.py", *words.split()])
    with pytest.raises(SystemExit):
        compare_systems.parse()
    assert sentence in capsys.readouterr().err


def test_compare_systems_starts_its_ranks():
    done = run_ranks(EXAMPLES / "compare_systems.py", 1, "python", ["--ranks", "2", "--slow", "2:4"], timeout=100)
    assert done.returncode == 1 and done.leftovers == [], done
    assert "--slow: there is no rank 2 among 2\n" in done.stderr and "Traceback" not in done.stderr, done


def test_links_are_shaped_by_root_alone(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match=r"^--link: hosts are network namespaces, which only (root|Linux)"):
        compare_systems.ranks.on_hosts(2, "100mbit", "", ["compare_systems.py"])
