"""Runs PyTorch's own distributed suite, as it is in the installed torch, over pycoll and over Gloo as the control.

    python tests/torch/suite.py                       # everything, 4 ranks, both backends: minutes
    python tests/torch/suite.py -k all_reduce -b pycoll
    python tests/torch/suite.py --json out/torch-suite.json

Prints one line a test and what differs between the backends; ends with 1 if pycoll failed a test that Gloo passes.

The suite decides by name what a backend runs: `BACKEND == "gloo"`, `BACKEND != "mpi"`, sets of names. So its source is
loaded with a BACKEND that is "pycoll" wherever it is used, and equal to "gloo" and "mpi" where it is compared: pycoll
runs what Gloo runs, and what the suite keeps for MPI on CPU (all_to_all). dist.monitored_barrier, which refuses all
names but "gloo", is replaced by one that calls the group's method. The lists of backends whose profiles are
looked at get pycoll's name too.

The suite starts each rank as a new process that imports torch; here ranks are forked from this one, which has done so.
Tests of groups, which the suite runs with eight ranks and more only, run with as many as there are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from datetime import timedelta
from pathlib import Path
from types import ModuleType

SUITE = "torch.testing._internal.distributed.distributed_test"
LIMIT = 60  # seconds a test


class Pycoll(str):
    """The name "pycoll", equal to those of the backends whose tests it runs."""

    def __eq__(self, other: object) -> bool:
        return any(str.__eq__(name, other) is True for name in ("pycoll", "gloo", "mpi"))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = "gloo".__hash__  # found in sets that have Gloo


def load(backend: str) -> ModuleType:
    """The suite's module for a backend."""
    spec = importlib.util.find_spec(SUITE)
    source, count = re.subn(
        r'^BACKEND = os.environ\["BACKEND"\]$',
        "BACKEND = BACKEND_UNDER_TEST",
        Path(spec.origin).read_text(),
        flags=re.M,
    )
    if count != 1:
        raise SystemExit(f"{spec.origin} does not name its backend as it did in torch 2.13: look how it does now")
    module = importlib.util.module_from_spec(spec)
    module.BACKEND_UNDER_TEST = Pycoll("pycoll") if backend == "pycoll" else backend
    sys.modules[SUITE] = module
    if backend == "pycoll":
        from torch.testing._internal.common_distributed import DistTestCases

        DistTestCases.backend_feature["plugin"].add("pycoll")
        use_monitored_barrier_of_groups()
    exec(compile(source, spec.origin, "exec", dont_inherit=True), module.__dict__)
    if backend == "pycoll":
        for backends in (module.PROFILING_SUPPORTED_BACKENDS, module.SEND_RECV_PROFILING_SUPPORTED_BACKENDS):
            backends.append("pycoll")
    return module


def use_monitored_barrier_of_groups() -> None:
    import torch.distributed as dist

    def monitored_barrier(group=None, timeout=None, wait_all_ranks=False):
        if dist.get_rank(group) >= 0:
            wanted = timedelta(seconds=timeout) if isinstance(timeout, float) else timeout
            (group or dist.group.WORLD).monitored_barrier(wanted, wait_all_ranks)

    dist.monitored_barrier = monitored_barrier


def make_case(module: ModuleType) -> type:
    """The suite's tests, with ranks that are forked."""
    from torch import multiprocessing

    class Suite(module.TestDistBackend, module.DistributedTest._DistTestBase):
        def setUp(self):
            super().setUp()
            self._start_processes(multiprocessing.get_context("fork").Process)

    return Suite


def run_backend(backend: str, pattern: str, ranks: int, limit: float) -> dict[str, dict]:
    """In this process: every test that matches, one after the other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    temporary = tempfile.mkdtemp(prefix="torch-suite-")
    os.environ.update(BACKEND=backend, WORLD_SIZE=str(ranks), TEMP_DIR=temporary, MASTER_PORT=str(port))
    os.environ["INIT_METHOD"] = f"file://{temporary}/meeting"
    from torch.testing._internal import common_distributed

    common_distributed.get_timeout = lambda test_id: limit
    common_distributed.skip_if_small_worldsize = lambda test: test
    module = load(backend)
    case = make_case(module)
    results = {}
    for name in unittest.TestLoader().getTestCaseNames(case):
        if re.search(pattern, name):
            results[name] = run_test(case, name, limit)
            print(f"{backend:7} {name}: {results[name]['outcome']} {results[name]['seconds']:.1f} s", flush=True)
    return results


def run_test(case: type, name: str, limit: float) -> dict:
    """One test, with what its ranks print kept for the report of a failure."""
    outcome = unittest.TestResult()
    begin = time.monotonic()
    with tempfile.TemporaryFile() as output:
        saved = [os.dup(1), os.dup(2)]
        try:
            sys.stdout.flush()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            signal.alarm(int(2 * limit))  # the suite's own limit is what should end it
            case(name).run(outcome)
        finally:
            signal.alarm(0)
            sys.stdout.flush()
            for fd, kept in enumerate(saved, 1):
                os.dup2(kept, fd)
                os.close(kept)
        output.seek(0)
        text = output.read().decode(errors="replace")
    problems = [error for _, error in outcome.errors + outcome.failures]
    if problems:
        return {"outcome": "failed", "seconds": time.monotonic() - begin, "why": (text + "\n".join(problems))[-6000:]}
    why = outcome.skipped[0][1] if outcome.skipped else ""
    return {"outcome": "skipped" if why else "passed", "seconds": time.monotonic() - begin, "why": why}


def compare(results: dict[str, dict[str, dict]]) -> int:
    """Prints sums, and tests that end differently; 1 if pycoll fails one that the control passes, or that it skips."""
    for backend, tests in results.items():
        outcomes = [test["outcome"] for test in tests.values()]
        print(backend, ", ".join(f"{outcomes.count(o)} {o}" for o in ("passed", "failed", "skipped")))
    failed = [name for name, test in results.get("pycoll", {}).items() if test["outcome"] == "failed"]
    control = results.get("gloo", {})
    worse = [name for name in failed if control.get(name, {}).get("outcome") != "failed"]
    for name in failed:
        print(f"pycoll failed {name}; gloo: {control.get(name, {}).get('outcome', 'not run')}")
    for name, test in control.items():
        if test["outcome"] == "failed" and name not in failed:
            print(f"gloo failed {name}; pycoll: {results.get('pycoll', {}).get(name, {}).get('outcome', 'not run')}")
    return int(bool(worse))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", "--pattern", default="", help="tests whose name has this regular expression")
    parser.add_argument("-b", "--backend", action="append", choices=["pycoll", "gloo"], help="both if none is given")
    parser.add_argument("-n", "--ranks", type=int, default=4)
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds a test ({LIMIT})")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    backends = options.backend or ["pycoll", "gloo"]
    if len(backends) == 1:
        results = {backends[0]: run_backend(backends[0], options.pattern, options.ranks, options.limit)}
        code = compare(results)
    else:  # a process each: the suite's module exists once in a process
        results = {}
        for backend in backends:
            with tempfile.NamedTemporaryFile(suffix=".json") as file:
                command = [sys.executable, __file__, "-b", backend, "-k", options.pattern, "-n", str(options.ranks)]
                subprocess.run([*command, "--limit", str(options.limit), "--json", file.name])
                results |= json.loads(Path(file.name).read_text() or "{}")
        code = compare(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return code


if __name__ == "__main__":
    sys.exit(main())
