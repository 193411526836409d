"""pycoll.mapreduce over ranks that are processes: within their memory, one of them killed, the example."""

import collections
from pathlib import Path

import numpy as np
import pytest
from launch import available, run_ranks

DOCS = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
WORKER = Path(__file__).parent / "workers" / "mapreduce_ranks.py"


def write_corpus(folder, words):
    rng = np.random.default_rng(1)
    for number in range(3):
        frequent, rare = rng.geometric(0.02, words // 6), rng.integers(0, 2_000_000, words // 6)
        text = " ".join(f"often{a} w{b}" for a, b in zip(frequent.tolist(), rare.tolist(), strict=True))
        (folder / f"{number}.txt").write_text(text.replace("often1 ", "often1\n"))


@pytest.mark.mpi
@pytest.mark.skipif(not available("mpi"), reason="no mpirun in this environment")
def test_memory_stays_within_its_budget(tmp_path):
    write_corpus(tmp_path, 1_200_000)
    run = run_ranks(WORKER, 2, "mpi", [str(tmp_path), "80MB"], timeout=120)
    assert run.ok and run.stdout.count(": right") == 2, run


@pytest.mark.mpi
@pytest.mark.skipif(not available("mpi"), reason="no mpirun in this environment")
def test_a_rank_that_is_killed(tmp_path):
    write_corpus(tmp_path, 30_000)
    run = run_ranks(WORKER, 3, "shm", [str(tmp_path), "100MB", "die"], timeout=60, survive=True)
    assert run.stdout.count("PeerFailed, rank 1, mapreduce: in map:") == 2, run
    assert run.seconds < 20, run


@pytest.mark.skipif(not available("mpi"), reason="no mpirun in this environment")
def test_the_example(tmp_path):
    pytest.importorskip("tqdm")
    pytest.importorskip("matplotlib")
    example = Path(__file__).parent.parent / "examples" / "word_count.py"
    run = run_ranks(example, 2, "shm", ["--plot", f"{tmp_path}/plot.png", *map(str, DOCS)], timeout=60)
    assert run.ok and (tmp_path / "plot.png").stat().st_size > 10_000, run
    lines = [line for path in DOCS for line in path.read_text().split("\n")]
    counts = collections.Counter(word for line in lines for word in line.split())
    pairs = sum(len(set(line.split())) for line in lines)
    assert f"{counts.total()} words, {len(counts)} different ones, {pairs} pairs of word and line" in run.stdout, run
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:8]
    assert "most frequent: " + ", ".join(f"{word} {count}" for word, count in most) in run.stdout, run
