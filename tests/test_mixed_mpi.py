"""Built against one MPI and started by the other's mpiexec: one sentence says so, at once, on every rank."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = {"Open MPI": ROOT / ".venv", "MPICH": ROOT / ".venv-mpich"}
FLAGS = {"Open MPI": ["--map-by", ":OVERSUBSCRIBE"], "MPICH": []}
PROGRAM = "import pycoll; print(pycoll.init(timeout=10))"

missing = [
    f"{path.name} with {kind} (make {target})"
    for (kind, path), target in zip(ENVIRONMENTS.items(), ("py-test", "mpich-test"), strict=True)
    if not ((path / "bin/mpiexec").exists() and list(path.glob("lib/python*/site-packages/*pycoll*")))
]
pytestmark = [
    pytest.mark.mpi,  # so that it also runs once both are there: "make test" sets MPICH up last
    pytest.mark.skipif(bool(missing), reason=f"not set up in the checkout: {', '.join(missing)}"),
]


def run(launcher, library, tmp_path, transport):
    """Two ranks of `library`'s Python, started by `launcher`'s mpiexec."""
    env = {name: value for name, value in os.environ.items() if not re.match("OMPI_|PMI|PMIX|PRTE_|PYCOLL_", name)}
    for prefix in ("OMPI", "PRTE"):
        env[f"{prefix}_ALLOW_RUN_AS_ROOT"] = env[f"{prefix}_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    env["PYCOLL_TRANSPORT"] = transport
    command = [ENVIRONMENTS[launcher] / "bin/mpiexec", "-n", "2", *FLAGS[launcher]]
    command += [ENVIRONMENTS[library] / "bin/python", "-c", PROGRAM]
    return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("transport", ["auto", "shm", "mpi"])
@pytest.mark.parametrize(("launcher", "library"), [("Open MPI", "MPICH"), ("MPICH", "Open MPI")])
def test_the_wrong_mpiexec(launcher, library, tmp_path, transport):
    started = time.monotonic()
    done = run(launcher, library, tmp_path, transport)
    assert done.returncode != 0
    assert time.monotonic() - started < 20, "it waited for a deadline"
    sentences = re.findall(r"^pycoll\.errors\.(\w+): (.*)$", done.stderr, re.MULTILINE)
    assert sentences, done.stderr
    for kind, sentence in sentences:
        assert kind == "TransportError"
        assert re.match(
            rf"pycoll was built against {library} \d[\d.]*, but this process was started by {launcher}'s mpirun",
            sentence,
        )
        assert f"start it with {library}'s mpirun, or install pycoll again" in sentence


@pytest.mark.parametrize("mpi", list(ENVIRONMENTS))
def test_the_right_mpiexec(mpi, tmp_path):
    done = run(mpi, mpi, tmp_path, "auto")
    assert done.returncode == 0, done.stderr
    assert all(f"<pycoll.Communicator rank {rank} of 2 over shm>" in done.stdout for rank in (0, 1))
