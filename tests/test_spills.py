"""tools/check_spills.py fails on a kernel that spills registers, and only on that."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = [sys.executable, str(Path(__file__).parent.parent / "tools" / "check_spills.py")]
LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'good' for 'sm_80'
ptxas info    : Function properties for good
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 63 registers, used 1 barriers
ptxas info    : Compiling entry function 'other' for 'sm_90'
    8 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
"""
# 64 values that are alive at once, in at most 32 registers.
KERNEL = """
__global__ void greedy(const float* in, float* out) {
  float x[64];
  for (int i = 0; i < 64; ++i) x[i] = in[threadIdx.x + 32 * i];
  __syncthreads();
  for (int i = 0; i < 64; ++i) out[threadIdx.x + 32 * i] = x[i] - x[(i + 7) % 64];
}
"""


def run(*arguments):
    return subprocess.run([*CHECK, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("stores", "loads", "code"), [(0, 0, 0), (4, 0, 1), (0, 8, 1)])
def test_logs(tmp_path, stores, loads, code):
    log = tmp_path / "log"
    log.write_text(LOG.format(stores=stores, loads=loads))
    done = run(log)
    assert done.returncode == code, done.stdout
    assert ("spills: other for sm_90" in done.stdout) == bool(code)
    assert "good" not in done.stdout


def test_a_log_without_kernels_proves_nothing(tmp_path):
    (tmp_path / "log").write_text("ptxas info    : 0 bytes gmem\n")
    assert run(tmp_path / "log").returncode == 1


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
def test_a_kernel_that_spills_does_not_compile(tmp_path):
    (tmp_path / "greedy.cu").write_text(KERNEL)
    compile_it = ["nvcc", "-arch=sm_80", "-Xptxas=-v", "-c", tmp_path / "greedy.cu", "-o", tmp_path / "greedy.o"]
    assert run("--launcher", *compile_it).returncode == 0
    done = run("--launcher", *compile_it, "-maxrregcount=32")
    assert done.returncode == 1
    assert "spills: " in done.stderr and "greedy" in done.stderr


def test_a_command_that_fails_goes_on_failing():
    assert run("--launcher", sys.executable, "-c", "raise SystemExit(3)").returncode == 3
