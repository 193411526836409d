"""The include rules hold, and the check can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECK = ROOT / "tools" / "check_layers.py"


def check(csrc: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, CHECK, csrc], capture_output=True, text=True, timeout=60)


def test_the_house_keeps_its_rules():
    done = check(ROOT / "csrc")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "include", "sentence"),
    [
        ("core/dtype.h", '"kernels/reduce.h"', "core may include nothing of ours"),
        ("pattern/ring.h", '"transport/net.h"', "pattern may include core"),
        ("transport/shm.cc", '"kernels/reduce.h"', "transport may include core"),
        (
            "algo/ring.cc",
            '"transport/shm.h"',
            "algo may include of transport only transport/net.h",
        ),
        ("algo/ring.cc", '"comm/communicator.h"', "algo may include"),
        ("algo/ring.cc", '"ring.h"', 'write it as "layer/file.h"'),
        ("comm/engine.cc", "<mpi.h>", "only transport/mpi"),
        ("kernels/reduce.cc", "<cuda_runtime.h>", "_cuda"),
        ("comm/engine.cc", "<pybind11/pybind11.h>", "only bind/"),
        ("bind/module.cc", "<torch/extension.h>", "nothing may include it"),
        ("misc/things.h", "<vector>", "no such room"),
    ],
)
def test_each_broken_rule_is_found(tmp_path, file, include, sentence):
    source = tmp_path / file
    source.parent.mkdir()
    source.write_text(f"// A comment.\n#include {include}\n")
    done = check(tmp_path)
    assert done.returncode == 1
    assert sentence in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_what_is_allowed_passes(tmp_path):
    for file, include in {
        "core/buffer.h": '"core/dtype.h"',
        "algo/ring.cc": '"transport/net.h"',
        "transport/mpi.cc": "<mpi.h>",
        "kernels/reduce_cuda.cu": "<cuda_runtime.h>",
        "bind/module.cc": "<pybind11/pybind11.h>",
        "comm/engine.cc": '"transport/shm.h"',
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(f"#include {include}\n")
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout
