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
    "all_reduce_sum",
    "all_gather_into_cat_tensor_complex",
    "reduce_scatter_tensor",
    "all_to_all_single_unequal_split",
    "send_recv_with_tag",
    "irecv",
    "all_reduce_coalesced_full_group_sum",
    "barrier_timeout_global",
    "DistributedDataParallel_SyncBatchNorm_Diff_Input_Sizes_gradient",
    "ddp_uneven_inputs",
]


def test_suite_of_pytorch(tmp_path):
    results = tmp_path / "results.json"
    command = [sys.executable, SUITE, "-b", "pycoll", "-n", "2", "--json", results]
    command += ["-k", f"^test_({'|'.join(TELLING)})$"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = json.loads(results.read_text())["pycoll"]
    assert {name: test["outcome"] for name, test in tests.items()} == {f"test_{name}": "passed" for name in TELLING}
