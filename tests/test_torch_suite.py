"""Some of PyTorch's own tests of a backend; tests/torch/suite.py (make torch-suite) runs them all, beside Gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SUITE = Path(__file__).parent / "torch" / "suite.py"
#: One of each kind; the whole suite takes minutes.
TELLING = [
    "DistributedDataParallelCPU",
    "accumulate_gradients_no_sync_allreduce_with_then_hook",
    "all_gather_coalesced_simple",
    "all_reduce_sum_complex",
    "all_to_all_single_unequal_split_complex",
    "barrier_timeout_global",
    "batch_isend_irecv_gloo_tags",
    "gather_checks",
    "get_future",
    "monitored_barrier_gloo",
    "scatter_object_list",
    "send_recv_any_source",
    "send_recv_with_tag",
    "sparse_all_reduce_sum",
    "static_graph_api_cpu",
]


def test_suite_of_pytorch(tmp_path):
    results = tmp_path / "results.json"
    command = [sys.executable, SUITE, "-b", "pycoll", "-n", "2", "--json", results]
    command += ["-k", f"^test_({'|'.join(TELLING)})$"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = json.loads(results.read_text())["pycoll"]
    assert {name: test["outcome"] for name, test in tests.items()} == {f"test_{name}": "passed" for name in TELLING}
