"""bench/time_to_accuracy.py: what it makes of runs, and that it trains every kind of contestant on hosts of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from launch import available

pytest.importorskip("torch")
pytest.importorskip("sklearn")

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools" / "hosts"), str(ROOT / "bench")]  # both have a hosts.py, the first is meant

from accuracy.results import figures_of, load, merge, save  # noqa: E402
from accuracy.table import table  # noqa: E402
from accuracy.task import Task, batches  # noqa: E402
from hosts import missing  # noqa: E402

TASK = Task(steps=4, every=2)
SCRIPT = [sys.executable, str(ROOT / "bench" / "time_to_accuracy.py"), "--quick"]


def on_hosts(test: Callable[..., None]) -> Callable[..., None]:
    test = pytest.mark.skipif(not available("mpi"), reason="no mpirun here")(test)
    test = pytest.mark.skipif(bool(missing()), reason=missing() or "hosts can be made")(test)
    return pytest.mark.mpi(test)


def run(contestant: str, seed: int, accuracies: list[float], second: float = 1.0) -> dict[str, object]:
    return {
        "contestant": contestant,
        "seed": seed,
        "rate": "1gbit",
        "hosts": 4,
        "ranks_agree": True,
        "compute_seconds": 0.1,
        "seconds": [second] * len(accuracies),
        "bytes": [1000] * len(accuracies),
        "accuracies": accuracies,
    }


def test_time_ends_with_the_first_evaluation_at_the_target():
    runs = [run("gloo", 0, [0.5, 0.97]), run("gloo", 1, [0.98]), run("gloo", 2, [0.97, 0.2], 3.0)]
    [figure] = figures_of(runs, TASK)
    assert (figure.seconds, figure.steps, figure.median) == ([2.0, 1.0, 3.0], [4, 2, 2], 2.0)
    assert figure.final == [0.97, 0.2]  # the second run stopped early
    assert (figure.step_seconds, figure.step_bytes) == (0.5, 500)


def test_bytes_of_a_local_method_are_of_its_agreements_too():
    rounds = run("pycoll-diloco-20-int4", 0, [0.5] * 9 + [0.97] * 11)
    rounds["bytes"] = [0] * 9 + [4000] + [0] * 9 + [4000]  # two agreements, twenty steps apart
    [figure] = figures_of([rounds], TASK)
    assert (figure.step_bytes, figure.sent, figure.steps) == (200, [4000], [20])


def test_a_seed_that_fails_leaves_no_median():
    [figure] = figures_of([run("gloo", 0, [0.5, 0.97]), run("gloo", 1, [0.5, 0.6])], TASK)
    assert figure.median is None
    assert "by 1 of 2 seeds" in table([figure], "")


def test_factors_are_of_dense_gloo():
    figures = figures_of([run("gloo", 0, [0.97]), run("pycoll", 0, [0.97], 0.25)], TASK)
    assert [line.split()[3] for line in table(figures, "title").splitlines()[2:]] == ["1.0", "4.0"]


def test_results_are_kept_and_merged(tmp_path):
    runs: list[dict[str, object]] = []
    for entry in (run("gloo", 0, [0.1]), run("gloo", 1, [0.2]), run("gloo", 0, [0.3])):
        merge(runs, entry)
    save(tmp_path / "a.json", {}, {"hosts": 4}, runs)
    assert load(tmp_path / "a.json", {"hosts": 4}) == [run("gloo", 1, [0.2]), run("gloo", 0, [0.3])]
    with pytest.raises(ValueError, match="other settings"):
        load(tmp_path / "a.json", {"hosts": 2})


def test_the_schedule_rises_and_falls_to_the_end():
    task = Task()
    rates = [task.rate_at(step) for step in range(1, task.steps + 1)]
    assert max(rates) == rates[task.warmup - 1] == task.rate and 0 < rates[-1] < rates[0]


def test_batches_deal_out_every_index_once_a_pass():
    dealt = batches(10, 3, seed=1)
    first = [next(dealt) for _ in range(3)]
    assert len({int(i) for batch in first for i in batch}) == 9
    assert next(dealt).tolist() != first[0].tolist()


@on_hosts
def test_every_kind_of_contestant_trains(tmp_path):
    file, plot = tmp_path / "out.json", tmp_path / "out.png"
    result = subprocess.run(
        [*SCRIPT, "--json", str(file), "--plot", str(plot)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result
    document = json.loads(file.read_text())
    runs = {run["contestant"]: run for run in document["runs"]}
    assert {"gloo-powersgd-1", "pycoll"} <= set(runs)
    assert plot.exists() == ("no plot" not in result.stdout)
    for name, measured in runs.items():
        assert measured["ranks_agree"] and measured["parameters"] > 2_000_000, name
        assert len(measured["seconds"]) == len(measured["accuracies"]) == 2 and min(measured["seconds"]) > 0, name
    dense = 4 * document["runs"][0]["parameters"]  # what each of two ranks sends a step
    first, second = runs["gloo-powersgd-1"]["bytes"]  # its first two steps are dense
    for nbytes in (first, *runs["pycoll"]["bytes"]):  # the interface may still hold the last ones when it is asked
        assert 0.95 * dense < nbytes / 2 < 1.1 * dense, runs
    assert second / 2 < dense / 10


@on_hosts
def test_nothing_is_left_when_it_is_ended():
    process = subprocess.Popen(SCRIPT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    space = f"pc{process.pid}h1"
    try:
        deadline = time.monotonic() + 60
        while not (space in _said(["ip", "netns", "list"]) and _said(["ip", "netns", "pids", space])):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode != 0 and f"pc{process.pid}h" not in _said(["ip", "netns", "list"])


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
