"""`pycoll advise`: its model by itself, and the command over real ranks and rate-limited links."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pycoll
from pycoll.cli import advice, speeds, workload
from pycoll.cli.launch import LaunchError
from pycoll.cli.mpi import find_mpirun
from pycoll.cost import Bucket, Group, Link, Speed, compressed, dense, exposed

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools" / "hosts"))

from hosts import Hosts, missing  # noqa: E402

FREE = Link(0.0, 1e9, 1e9)  # no latency, 1 GB/s
MILLION = Bucket(((1_000_000,),))


def four(link: Link = FREE) -> Group:
    return Group(link, 4)


def test_dense_bytes_are_those_of_the_algorithms():
    for count in (1000, 100_000, 10_000_000):  # doubling, circulant, ring
        bytes = 4 * count * (2 if count == 1000 else 1.5)
        cost = dense(count, four(), 0.0)
        assert cost.bytes == bytes and cost.seconds == pytest.approx(bytes / 1e9)
    assert dense(1000, Group(FREE, 1), 0.0).seconds == 0


def test_latency_counts_rounds():
    slow = Link(1.0, math.inf, math.inf)
    # 2 to agree; then doubling 2, circulant 4, ring 6.
    assert [dense(count, four(slow), 0.0).seconds for count in (10, 100_000, 10_000_000)] == [4, 6, 8]
    assert dense(100_000, four(slow), 0.0, itemsize=2).seconds == 4


@pytest.mark.parametrize("name", ["bf16", "int8", "topk:0.01", "randomk:0.01", "shared", "powersgd:4"])
def test_codecs_send_fewer_bytes_than_dense(name):
    bucket = Bucket(((1024, 1024), (77,)))
    speed = Speed(1e-9, 1e-9, 1e-9, {"bf16": 2.0, "int8": 1.016, "topk:0.01": 0.06}.get(name, 4.0))
    cost = compressed(pycoll.codec.parse(name), bucket, four(), speed, 1e-10)
    full = dense(bucket.count, four(), 1e-10)
    assert 0 < cost.bytes <= full.bytes * 0.51 and cost.kernels > 0
    left = replace(bucket, compressed=False)
    assert compressed(pycoll.codec.parse(name), left, four(), speed, 1e-10) == full


def test_model_counts_the_bytes_that_are_sent():
    """Against the wire bytes that the C++ tests hold the algorithms to: two-shot sends 2 S (P-1)/P."""
    cost = compressed(pycoll.Int8(), MILLION, four(), Speed(0, bytes=1.0), 0)
    assert cost.bytes == pytest.approx(1.5e6)


def test_between_nodes_only_a_lane_travels():
    flat = compressed(pycoll.Int8(), MILLION, four(), Speed(0, bytes=1.0), 0)
    nested = compressed(pycoll.Int8(), MILLION, Group(FREE, 4, 2, inside=1e-12), Speed(0, bytes=1.0), 0)
    assert nested.bytes == pytest.approx(flat.bytes / 2)


def advised(speed: Speed, link: Link, name: str = "topk:0.05", compute: float = 0.0):
    codecs, buckets, add = {name: pycoll.codec.parse(name)}, [MILLION], 1e-10
    rows = advice.rows_of(codecs, buckets, four(link), {name: speed}, add, compute)
    return rows, advice.recommendation(codecs, rows, buckets, four(link), {name: speed}, add)


def test_break_even_is_where_both_take_as_long():
    speed = Speed(2e-9, 1e-9, 1e-9, 0.3)
    rows, said = advised(speed, Link(0.0, 1e6, 1e6))
    assert said.startswith("Use topk:0.05")
    at = rows[2].pays_below
    slower, _ = advised(speed, Link(0.0, at * 1.01, at * 1.01))
    faster, _ = advised(speed, Link(0.0, at * 0.99, at * 0.99))
    assert slower[2].seconds > slower[1].seconds and faster[2].seconds < faster[1].seconds


def test_topk_that_does_not_pay_is_told_what_it_needs():
    speed = Speed(1e-9, bytes=0.3)
    _, said = advised(speed, Link(0.0, 2.8e9, 2.8e9))
    assert "Use no codec" in said and "topk:0.05 off: needs k/N below" in said and "you asked 5 %" in said
    needed = float(said.split("below ")[1].split()[0]) / 100
    below, _ = advised(replace(speed, bytes=speed.bytes * needed / 0.05 * 0.9), Link(0.0, 2.8e9, 2.8e9))
    assert below[2].seconds < below[1].seconds
    _, said = advised(speed, Link(0.0, 1e12, 1e12))
    assert "no k/N pays" in said


def test_compute_hides_what_fits_beside_it():
    assert exposed([1.0, 1.0], 0.0) == 2.0
    assert exposed([1.0, 1.0], 30.0) == 1.0  # the last bucket is ready when compute ends
    rows, _ = advised(Speed(1e-9, bytes=0.3), Link(0.0, 1e6, 1e6), compute=1.0)
    assert rows[0].exposed <= rows[0].seconds


def test_a_stream_tells_latency_and_bandwidth():
    stream = speeds.Stream(5, [(b, 5 * 50e-6 + b / 125e6) for b in (1000, 100_000, 3_000_000)])
    assert stream.latency() == pytest.approx(50e-6) and stream.bandwidth() == pytest.approx(125e6)


def test_buckets():
    assert [b.count for b in workload.of_parameters(int(20e6))] == [6553600] * 3 + [339200]
    assert [b.count for b in workload.of_bytes([workload.number("25M"), 4])] == [6553600, 1]
    with pytest.raises(LaunchError, match="--from nothing"):
        workload.of_model("nothing.py:make")


def test_buckets_of_a_model(tmp_path):
    pytest.importorskip("torch")
    script = tmp_path / "model.py"
    script.write_text("import torch\ndef make():\n    return torch.nn.Linear(100, 50)\n")
    buckets = workload.of_model(f"{script}:make")
    assert sorted((b.shapes, b.compressed) for b in buckets) == [(((50,),), False), (((50, 100),), True)]


def command(*words: str) -> subprocess.CompletedProcess:
    alone = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI_", "PMIX_", "RANK", "WORLD_SIZE"))}
    line = [sys.executable, "-m", "pycoll.cli", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env=alone | {"OMP_NUM_THREADS": "1"})


def test_alone_it_says_how_to_start_it():
    done = command("advise", "--parameters", "1e6")
    assert done.returncode == 2 and "pycoll run -n 4 -m pycoll.cli advise" in done.stderr


def test_another_group(tmp_path):
    out = tmp_path / "out.json"
    words = ["--parameters", "1e6", "--codecs", "int8,topk:0.01", "--seconds", "0.01", "--json", str(out)]
    done = command("advise", *words, "--ranks", "64", "--bandwidth", "1e7", "--latency", "50e-6")
    assert done.returncode == 0, done
    found = json.loads(out.read_text())
    assert found["group"]["nodes"] == 64 and found["recommendation"].startswith("Use topk:0.01")
    assert "64 ranks, link as asked: 50 µs a message, 10 MB/s" in done.stdout


@pytest.mark.mpi
@pytest.mark.skipif(find_mpirun() is None, reason="no mpirun")
def test_verify_over_ranks():
    words = ["--buckets", "256K,64K", "--codecs", "topk:0.01,powersgd:2", "--seconds", "0.01", "--verify"]
    done = command("run", "-n", "2", "-m", "pycoll.cli", "advise", *words)
    assert done.returncode == 0, done
    assert "pred/meas" in done.stdout and "powersgd:2" in done.stdout


@pytest.mark.mpi
@pytest.mark.skipif(bool(missing()), reason=missing() or "hosts can be made")
def test_a_slow_link_is_measured_and_predicted(tmp_path):
    out = tmp_path / "out.json"
    words = ["--buckets", "1M", "--codecs", "int8", "--seconds", "0.05", "--verify", "--json", str(out)]
    with Hosts(2, "100mbit") as hosts:
        line = hosts.ranks(Path(sys.prefix), 1, [sys.executable, "-m", "pycoll.cli", "advise", *words])
        result = hosts.run(line, 60, {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result
    found = json.loads(out.read_text())
    assert 8e6 < found["measured"]["link"]["bandwidth"] < 15e6
    assert found["recommendation"].startswith("Use int8")
    for row in found["rows"]:
        # A quarter is the target on a quiet machine; tests share theirs.
        assert 0.5 < row["seconds"] / row["measured"] < 2, row
