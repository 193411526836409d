"""What goes wrong around a parameter server is one sentence on every rank, soon."""

from __future__ import annotations

import atexit
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import available, run_ranks
from server_training import network, sgd

import pycoll
from pycoll import loopback

WORKER = Path(__file__).parent / "workers" / "parameter_server.py"


def outcomes(ranks, body, timeout=20.0):
    """What each rank raised, as text; None for one that did not."""
    raised = [None] * ranks

    def run(comm):
        try:
            body(comm)
        except Exception as error:
            raised[comm.rank] = f"{type(error).__name__}: {error}"

    begin = time.monotonic()
    loopback.run(ranks, run, timeout=timeout)
    assert time.monotonic() - begin < timeout + 6
    left = [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("pycoll-server", "pycoll-worker"))
    ]
    assert not left
    return raised


def serve_or(comm, act, **options):
    model = network()
    with pycoll.ParameterServer(sgd(model.parameters()), model.named_parameters(), comm, **options) as ps:
        if ps.is_worker:
            act(ps, {name: torch.ones_like(p) for name, p in model.named_parameters()})
        else:
            ps.serve()


DEDICATED = {"servers": [0], "workers": [1, 2]}


@pytest.mark.parametrize("options", [DEDICATED, {}], ids=["dedicated", "shared"])
def test_a_worker_that_fails_is_named_everywhere(options):
    def act(ps, ones):
        for step in range(10):
            if step == 3 and ps._comm.rank == 2:
                raise ValueError("what rank 2 said")
            ps.push_pull(ones)

    raised = outcomes(3, lambda comm: serve_or(comm, act, **options))
    assert raised[2] == "ValueError: what rank 2 said"
    for rank, text in enumerate(raised[:2]):
        doing = f"serve: rank {rank}" if options and rank == 0 else rf"push_pull: rank {rank}, after \d pushes"
        assert re.match(rf"PeerFailed: {doing}: .*rank 2 .*what rank 2 said", text), raised


def test_a_failed_one_that_is_not_closed_ends_quietly(caplog):
    """At exit: one line in the log, and no thread stays."""

    def body(comm):
        model = network()
        ps = pycoll.ParameterServer(sgd(model.parameters()), model.named_parameters(), comm)
        kept.append(ps)
        ps.push_pull({})
        if comm.rank == 1:
            raise ValueError("what rank 1 said")
        ps.push_pull({})

    kept = []
    with pytest.raises(ValueError, match="what rank 1 said"):
        loopback.run(2, body, timeout=20)
    for ps in kept:
        atexit.unregister(ps._end)
        ps._end()
    assert len(caplog.messages) == 2
    assert all(re.match(r"ParameterServer, at exit: rank .: PeerFailed: close: rank", text) for text in caplog.messages)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("pycoll-server", "pycoll-work"))]


@pytest.mark.parametrize("options", [DEDICATED, {}], ids=["dedicated", "shared"])
def test_fewer_pushes_of_one_worker_are_a_mismatch(options):
    def act(ps, ones):
        for _ in range(3 if ps._comm.rank == 2 else 5):
            ps.push_pull(ones)

    raised = outcomes(3, lambda comm: serve_or(comm, act, **options))
    assert all(text and "rank 2 left after 3 pushes" in text for text in raised[:2]), raised


@pytest.mark.parametrize("options", [DEDICATED, {}], ids=["dedicated", "shared"])
def test_a_worker_that_does_not_come_is_a_timeout(options):
    def act(ps, ones):
        ps.push_pull(ones)
        if ps._comm.rank == 2:
            time.sleep(1.2)
        ps.push_pull(ones)

    raised = outcomes(3, lambda comm: serve_or(comm, act, **options), timeout=0.5)
    assert all(text and "waited 0.5 s for rank 2, after 1" in text for text in raised[:2]), raised
    assert raised[2] is not None and "Timeout" in raised[2]


def test_an_optimizer_that_raises_is_told_everywhere():
    def body(comm):
        model = torch.nn.Embedding(10, 4, sparse=True)
        with pycoll.ParameterServer(torch.optim.Adam(model.parameters()), model.named_parameters(), comm) as ps:
            model(torch.tensor([1])).sum().backward()
            ps.push_pull({"weight": model.weight.grad})

    assert all("does not support sparse gradients" in str(text) for text in outcomes(2, body))


def test_ranks_that_disagree():
    def body(comm):
        model = network()
        options = {"mode": "sync" if comm.rank else "async"}
        pycoll.ParameterServer(sgd(model.parameters()), model.named_parameters(), comm, **options)

    raised = outcomes(2, body)
    assert raised[0] == raised[1] == "MismatchError: ParameterServer: mode is sync on rank 1, but async on rank 0"

    def grouped(comm):
        model = network()
        layers = [[0, 1, 2]] if comm.rank else [[0], [1, 2]]
        groups = [{"params": [p for i in group for p in model[i].parameters()]} for group in layers]
        pycoll.ParameterServer(sgd(groups), model.named_parameters(), comm)

    raised = outcomes(2, grouped)
    said = "MismatchError: ParameterServer: the number of parameter groups is 1 on rank 1, but 2 on rank 0"
    assert raised[0] == raised[1] == said


class Scaled(torch.optim.SGD):
    """Cannot be built of parameters alone."""

    def __init__(self, params, lr, scale):
        super().__init__(params, lr=lr * scale)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_bad_arguments():
    def body(comm):
        model = network()
        make = lambda **options: pycoll.PSOptimizer(sgd(model.parameters()), model.named_parameters(), comm, **options)  # noqa: E731
        for options, words in (
            ({"mode": "fast"}, "mode is 'fast'"),
            ({"servers": [0], "workers": [0]}, "rank 1 is neither"),
            ({"servers": [2]}, r"servers is \[2\]"),
            ({"servers": []}, r"servers is \[\]"),
            ({"servers": 0}, "servers is 0, wanted a list of ranks from 0 to 1"),
            ({"workers": [True]}, r"workers is \[True\]"),
            ({"piece_bytes": 0}, "piece_bytes is 0"),
            ({"codec": pycoll.SharedScale()}, "SharedScale"),
            ({"pull_codec": "int8"}, "codec"),
            ({"delay": 2}, "delay is 2"),
        ):
            with pytest.raises(pycoll.InvalidArgument, match=words):
                make(**options)
        with pytest.raises(pycoll.InvalidArgument, match="lacks"):
            pycoll.ParameterServer(sgd(model.parameters()), list(model.named_parameters())[:2], comm)
        for kind, words in (
            (lambda parameters: Scaled(parameters, 0.1, 2), "cannot be built over pieces of the parameters"),
            (torch.optim.LBFGS, r"step\(\) of LBFGS needs closure"),
        ):
            with pytest.raises(pycoll.InvalidArgument, match=f"on rank {comm.rank} .*{words}"):
                pycoll.ParameterServer(kind(model.parameters()), model.named_parameters(), comm)
        with make(servers=[np.int64(0)], workers=np.array([1])) as optimizer:
            ps = optimizer.server
            if comm.rank == 0:
                with pytest.raises(pycoll.InvalidArgument, match="rank 0 is a server only"):
                    ps.pull()
                optimizer.serve()
                return
            for call, words in (
                (lambda: ps.push({"nothing": torch.ones(1)}), "no parameter 'nothing'"),
                (lambda: ps.push({"0.weight": torch.ones(3)}), "wanted \\[64, 20\\]"),
                (lambda: ps.push({"0.bias": np.ones(64)}), "rank 1 got for the gradient of '0.bias' ndarray, wanted"),
                (lambda: ps.push({"0.bias": torch.ones(64, dtype=torch.complex64)}), "got .* complex64"),
                (lambda: ps.push({"0.bias": torch.ones(64, dtype=torch.int32)}), "got .* int32"),
                (lambda: ps.push({"0.bias": torch.ones(64, device="meta")}), r"\(strided, on meta\)"),
                (lambda: ps.push({"0.weight": torch.ones(64, 20).to_sparse()}), r"\(sparse_coo in 2 dimensions"),
                (lambda: ps.push({"0.weight": torch.ones(64, 20).to_sparse_csr()}), r"\(sparse_csr, on cpu\)"),
                (lambda: ps.pull(["nothing"]), "no parameter 'nothing'"),
                (lambda: ps.pull(rows={"0.weight": torch.tensor([64])}), "wanted 0 to 63"),
                (lambda: ps.pull(rows={"0.weight": torch.ones(64) > 0}), "rank 1 got for the rows of .* bool"),
                (lambda: ps.pull(rows={"0.weight": [1.5]}), "got .* float32"),
                (lambda: ps.pull(rows={"0.weight": [[1], [2]]}), r"got .* int64\[2, 1\]"),
                (lambda: ps.pull(rows={"0.weight": "1"}), "got .* str, wanted 0 to 63, whole numbers"),
                (lambda: ps.pull(["0.bias"], rows={"0.weight": [1]}), "rows of '0.weight', which is not among"),
                (
                    lambda: optimizer.load_state_dict({**optimizer.optimizer.state_dict(), "pycoll": {"rank": 1}}),
                    "got one",
                ),
                (lambda: ps.serve(), "rank 1 is a worker"),
                (lambda: optimizer.add_param_group({}), "before wrapping"),
            ):
                with pytest.raises(pycoll.InvalidArgument, match=words):
                    call()
            ps.pull()
        with pytest.raises(pycoll.Error, match="closed"):
            ps.pull()

    loopback.run(2, body, timeout=20)


@pytest.mark.mpi
@pytest.mark.skipif(not available("mpi"), reason="no mpirun here")
def test_over_mpi():
    """Training over processes, then one is killed; see workers/parameter_server.py."""
    ended = run_ranks(WORKER, 3, "mpi", timeout=60, survive=True)
    assert not ended.timed_out, str(ended)
    assert "rank 1 trained as all-reduce does" in ended.stdout, str(ended)
    for rank in (0, 1):
        assert f"rank {rank} raised PeerFailed about rank 2" in ended.stdout, str(ended)
