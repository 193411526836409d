"""What bench/peers.py makes of its contestants: figures, the table, and those that hang, die or compute wrong sums."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

from peers.contestants import CONTESTANTS, Contestant
from peers.environments import NotToBeHad
from peers.group import Answer, Failed, Group, Order, parse_answers
from peers.plots import spread
from peers.probe import Probe, label_of
from peers.results import Figures, comparisons, figures_of
from peers.rounds import Block, Effort, Field, plan_of
from peers.table import ratio_name, size_name, tables, time_name

BENCH = Path(__file__).resolve().parents[1] / "bench"
ORDER = Order("allreduce", 8, "private", warmup=1, samples=2, batch=4)

# A rank that does as its first argument says; all ranks of a contestant are forked by one process.
FAKE = """
import os, sys, time
folder = os.environ["PEERS_FOLDER"]
rank = next((r for r in range(1, int(sys.argv[2])) if os.fork() == 0), 0)
orders = open(f"{folder}/order.{rank}")
answers = open(f"{folder}/answer.{rank}", "w", buffering=1)
print("ready", os.getpid(), "fake 1.0", file=answers)
for order in orders:
    samples, batch = int(order.split()[4]), int(order.split()[5])
    if sys.argv[1] == "hang" and rank == 1:
        time.sleep(600)
    if sys.argv[1] == "die" and rank == 1:
        print("error: the fake dies", file=sys.stderr, flush=True)
        os._exit(3)
    times = [7000, 7000 + 1000 * batch * (rank + 1)] * samples
    print("done", int(sys.argv[1] == "wrong"), *times, file=answers)
"""


def fake(how: str) -> Contestant:
    return Contestant(how, how, "peer", "C", lambda ranks: [sys.executable, "-c", FAKE, how, str(ranks)])


def block(contestant: str, us: float, label: str = "near", nbytes: int = 1024) -> Block:
    return Block(contestant, "allreduce", 2, nbytes, label, us, 3, 1, 50.0, 50.0)


def test_a_sample_lasts_from_the_first_begin_to_the_last_end() -> None:
    lines = ["done 0 1000 5000 20000 28000", "done 2 2000 7000 24000 27000"]
    assert parse_answers(lines, ORDER) == Answer(2, [1.5, 2.0])


@pytest.mark.parametrize("line", ["error no memory", "done 0 4000 5000", "done", "done 0 a b", "gone 0 1 2", ""])
def test_an_answer_that_is_none_is_a_failure(line: str) -> None:
    with pytest.raises(Failed, match="rank 1"):
        parse_answers(["done 0 1000 5000 20000 28000", line], ORDER)


@pytest.mark.parametrize(
    ("before", "after", "label"),
    [(50, 60, "near"), (240, 200, "far"), (50, 240, "mixed"), (50, 140, "mixed"), (None, 50, "unknown")],
)
def test_label(before: float | None, after: float | None, label: str) -> None:
    assert label_of(before, after) == label


def test_medians_are_taken_within_one_label() -> None:
    near = [block("a", us) for us in (1.0, 9.0, 2.0)]
    others = [block("a", 100.0, "far"), block("a", 5000.0, "mixed")]
    figures = {f.label: f for f in figures_of([*near, *others])}
    assert set(figures) == {"near", "far"}
    assert (figures["near"].us, figures["near"].least_us, figures["near"].most_us) == (2.0, 1.0, 9.0)
    assert (figures["near"].blocks, figures["far"].us) == (3, 100.0)


def test_busbw_is_that_of_nccl_tests() -> None:
    four_ranks = Block("a", "allreduce", 4, 1 << 20, "near", 100.0, 3, 1, 50.0, 50.0)
    assert figures_of([four_ranks])[0].busbw_gbs == pytest.approx((1 << 20) / 100e3 * 1.5)


def test_pycoll_is_compared_with_the_fastest_peer_of_its_level() -> None:
    blocks = [block(c.name, 10.0) for c in CONTESTANTS if c.kind == "peer"]
    blocks += [block("MPICH, release-gather", 6.0, nbytes=2048), block("pycoll, private", 4.0, nbytes=2048)]
    blocks += [
        block("pycoll, private", 5.0),
        block("pycoll from Python, private", 20.0),
        block("mpi4py on Open MPI", 1.0),
    ]
    here = Figures(figures_of(blocks), "allreduce", 2, "near")
    by_title = {c.title: c for c in comparisons(CONTESTANTS)}
    private = by_title["pycoll, private : fastest peer"]
    assert here.ratio(private, 1024) == pytest.approx(2.0)
    assert here.ratio(private, 2048) == pytest.approx(1.5)
    assert here.ratio(by_title["pycoll from Python, private : mpi4py"], 1024) == pytest.approx(5.5 / 20)
    assert here.ratio(by_title["pycoll from Python, private : Gloo"], 1024) == pytest.approx(0.5)
    assert here.ratio(by_title["pycoll, symmetric : fastest peer"], 1024) is None


def test_there_is_no_ratio_where_the_fastest_peer_may_be_unknown() -> None:
    blocks = [block("Open MPI, default", 9.0), block("MPICH, default", 1.0, "far"), block("pycoll, private", 3.0)]
    here = Figures(figures_of(blocks), "allreduce", 2, "near")
    assert here.fastest(["Open MPI, default", "MPICH, default"], 1024) == here.get("Open MPI, default", 1024)
    assert here.bound(["Open MPI, default", "MPICH, default"], 1024) is None
    assert here.bound(["Open MPI, default", "Intel MPI, default"], 1024) is not None  # the latter took no part
    assert here.ratio(comparisons(CONTESTANTS)[0], 1024) is None


def test_table() -> None:
    times = {"Open MPI, default": 0.211, "pycoll, symmetric": 0.1, "roofline, ordinary stores": 0.09}
    text = tables(figures_of([block(name, us) for name, us in times.items()]), CONTESTANTS)
    lines = {line.rsplit(None, 1)[0]: line.rsplit(None, 1)[1] for line in text.splitlines() if line.strip()}
    assert "allreduce, 2 ranks, cores near" in text
    assert "MPICH" not in text
    assert lines["Open MPI, default"] == "0.21"
    assert lines["pycoll, symmetric : fastest peer"] == "2.11×"
    assert lines["pycoll, symmetric : roofline"] == "90%"


def test_numbers_have_three_digits_that_count() -> None:
    assert [time_name(us) for us in (0.0612, 9.994, 12.345, 99.96, 30823.0, None)] == [
        "0.06", "9.99", "12.3", "100", "30823", "–",
    ]  # fmt: skip
    assert [ratio_name(ratio) for ratio in (0.5, 9.96, 100.4, None)] == ["0.50×", "10.0×", "100×", "–"]
    assert [size_name(n) for n in (8, 1024, 1 << 20, 1540)] == ["8 B", "1 KiB", "1 MiB", "1540 B"]


def test_batches_are_long_against_the_clock() -> None:
    assert plan_of(0.2, 30, crowded=False, touch=False).batch == 1000
    assert plan_of(5000, 30, crowded=False, touch=False).batch == 1
    assert plan_of(5000, 30, crowded=False, touch=False).samples == 6
    assert plan_of(0.2, 30, crowded=False, touch=True).batch == 1
    assert plan_of(1e6, 30, crowded=True, touch=False).samples == 3


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    moved = spread([0.5, 0.9, 0.51, 0.1, 0.5], gap=0.05)
    assert min(b - a for a, b in zip(sorted(moved), sorted(moved)[1:], strict=False)) > 0.0499
    assert moved[1] == pytest.approx(0.9)
    assert moved[0] < moved[2]


def test_names_of_contestants_are_unique() -> None:
    assert len({c.name for c in CONTESTANTS}) == len(CONTESTANTS)


def test_who_fails_is_named_and_ended_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(ranks: int) -> list[str]:
        raise NotToBeHad("there is no such package")

    monkeypatch.setattr("peers.rounds.BLOCK_SECONDS", 1.0)
    said: list[str] = []
    absent = Contestant("absent", "absent", "peer", "C", impossible)
    with Field(2, [0], Probe([0]), said.append, []) as field:
        begin = time.monotonic()
        field.start([fake("hang"), fake("die"), absent, fake("wrong"), fake("good")])
        blocks = [b for turn in field.measure("allreduce", 1024, Effort(rounds=2)) for b in turn]
        assert time.monotonic() - begin < 30
    assert {b.contestant for b in blocks} == {"good"}
    assert [b.us for b in blocks] == [2.0, 2.0]
    reasons = {failure["contestant"]: failure["reason"] for failure in field.failures}
    assert set(reasons) == {"hang", "die", "absent", "wrong"}
    assert "no answer of ranks 1 within 1 s" in reasons["hang"]
    assert "rank 1 ended: error: the fake dies" in reasons["die"]
    assert "no such package" in reasons["absent"]
    assert "2 elements were wrong" in reasons["wrong"]
    assert all(any(name in line for line in said) for name in reasons)


@pytest.mark.parametrize("how", ["good", "hang"])
def test_no_process_and_no_file_is_left_behind(how: str) -> None:
    contestant = fake(how)
    group = Group(contestant.command(3), 3, [0], {})
    assert group.wait_ready(20) == "fake 1.0"
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _belongs(entry, group.folder)]
    assert len(pids) == 3
    if how == "hang":
        with pytest.raises(Failed, match="ranks 1"):
            group.run(ORDER, 0.5)
    group.close_orders()
    group.end(grace=1)
    assert not any(_alive(pid) for pid in pids)
    assert not group.folder.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--contestants", "nobody"], "Intel MPI, algorithm 8"),
        (["--sizes", "8,1X"], "'8,1X' is not like 8,1K,64K,1M"),
        (["--sizes", "1G"], "'1G' is not like"),
        (["--sizes", "512M"], "not 4 bytes to 256M"),
        (["--collectives", "allreduce,gather"], "gather: not one of allreduce"),
        (["--ranks", "1"], "a number of ranks that is not 2 to 64"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_started(words: list[str], said: str) -> None:
    ran = subprocess.run([sys.executable, BENCH / "peers.py", *words], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert said in ran.stdout + ran.stderr


def _belongs(entry: Path, folder: Path) -> bool:
    try:
        return f"PEERS_FOLDER={folder}".encode() in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
