"""DDP, FSDP2, ZeRO, tensor and pipeline parallelism, checkpoints: the same numbers over pycoll as over Gloo."""

from pathlib import Path

import pytest
from launch import run_ranks

pytest.importorskip("torch")

WORKER = Path(__file__).parent / "workers" / "torch_training.py"


def test_training(tmp_path):
    run = run_ranks(WORKER, 2, "torchrun", [str(tmp_path)], timeout=150)
    assert run.ok and run.leftovers == [], run
    assert all(f"{rank} of 2 ok" in run.stdout for rank in range(2)), run
