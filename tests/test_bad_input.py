"""Bad input of every sort: the class and the words of what is raised, and that the communicator works afterwards.

`python tests/test_bad_input.py` prints the table of what was tried and the sentence that came out, as Markdown.
"""

import functools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from forked import run_forked  # noqa: E402

from pycoll import Error, InvalidArgument, MismatchError, PeerFailed, Timeout, TransportError, algorithms  # noqa: E402

SIZE = 3
F = np.float32


def f(count=6, dtype=F):
    return np.zeros(count, dtype)


def frozen():
    x = f()
    x.flags.writeable = False
    return x


def by_rank(comm, *calls):
    """Rank r makes call r, or the last one; all on one line of the program."""
    return calls[min(comm.rank, len(calls) - 1)]()


def closed(comm):
    twin = comm.dup()
    twin.close()
    twin.allreduce(f())


def deserted(comm):
    """Rank 0 leaves, and the others call: what they raise, they raise at every later call too."""
    twin = comm.dup()
    if comm.rank == 0:
        twin.close()
        return
    try:
        twin.allreduce(f())
    except PeerFailed as first:
        try:
            twin.barrier()
        except PeerFailed as second:
            assert str(second) == str(first)
            assert (second.rank, second.host) == (0, comm.hosts[0])
            raise
    raise AssertionError("nothing was raised")


def late(comm):
    twin = comm.dup()
    if comm.rank:
        try:
            twin.allreduce(f(), timeout=0.3)
        finally:
            comm.barrier()
    comm.barrier()


def unpaired(comm):
    to = [[1, 1, 1], [1, 1, 1], [1, 2, 1]][comm.rank]
    comm.alltoall(f(sum(to)), f(3), send_counts=to, recv_counts=[1, 1, 1])


def waited(comm):
    return comm.allreduce(f(4 + comm.rank), wait=False).result()


def lazy(x):
    return torch.conj(torch.zeros(x, dtype=torch.complex64))


def overlapping(comm):
    x = f(7)
    comm.allreduce(x[:-1], out=x[1:])


def same_twice(comm):
    x = f()
    comm.alltoall(x, x)


# what was tried, what is raised, words of the sentence, the call
LOCAL = [
    ("object array", InvalidArgument, '"O", wanted float16', lambda c: c.allreduce(np.array([None]))),
    ("datetime64", InvalidArgument, "datetime64", lambda c: c.allreduce(np.zeros(3, "M8[s]"))),
    ("big-endian", InvalidArgument, "big-endian", lambda c: c.allreduce(np.zeros(3, ">f4"))),
    ("structured dtype", InvalidArgument, "T{", lambda c: c.allreduce(np.zeros(3, "i4,f4"))),
    ("strings", InvalidArgument, "wanted float16", lambda c: c.allgather(np.array(["a"]))),
    ("long double", InvalidArgument, '"g"', lambda c: c.allreduce(np.zeros(3, np.longdouble))),
    ("a number", InvalidArgument, "got a float, wanted", lambda c: c.allreduce(1.5)),
    ("None", InvalidArgument, "got a NoneType, wanted", lambda c: c.broadcast(None)),
    ("list of numbers", InvalidArgument, "got a float, wanted", lambda c: c.allreduce([1.0, 2.0])),
    ("every second element", InvalidArgument, "non-contiguous", lambda c: c.allreduce(f()[::2])),
    ("transposed", InvalidArgument, "non-contiguous", lambda c: c.allreduce(f().reshape(2, 3).T)),
    ("transposed tensor", InvalidArgument, "non-contiguous", lambda c: c.allreduce(torch.zeros(2, 3).t())),
    ("read-only, in place", InvalidArgument, "read-only ndarray", lambda c: c.allreduce(frozen())),
    ("bytes, in place", InvalidArgument, "read-only bytes", lambda c: c.broadcast(b"abc")),
    ("read-only out", InvalidArgument, "read-only", lambda c: c.allreduce(f(), out=frozen())),
    ("out too short", InvalidArgument, "out array of 5 elements, wanted 6", lambda c: c.allreduce(f(), out=f(5))),
    ("out of another type", InvalidArgument, "out array of f64", lambda c: c.allreduce(f(), out=f(6, float))),
    ("allgather out too long", InvalidArgument, "of 19 elements, wanted 18", lambda c: c.allgather(f(), f(19))),
    ("empty list", InvalidArgument, "empty list", lambda c: c.allreduce([])),
    ("list of two types", InvalidArgument, "f32 and f64", lambda c: c.allreduce([f(), f(2, float)])),
    ("fewer outs than arrays", InvalidArgument, "got 1 out arrays for 2", lambda c: c.allreduce([f(), f()], out=[f()])),
    ("list, outs do not fit", InvalidArgument, "f32[5] for f32[6]", lambda c: c.allreduce([f()], out=[f(5)])),
    ("list where one array goes", InvalidArgument, "take lists", lambda c: c.allgather([f(), f()])),
    ("list, one out", InvalidArgument, "wanted a list of out arrays", lambda c: c.allreduce([f(), f()], out=f(12))),
    ("out overlaps", InvalidArgument, "overlaps", lambda c: overlapping(c)),
    ("alltoall in place", InvalidArgument, "overlaps", lambda c: same_twice(c)),
    ("unknown op", InvalidArgument, 'op is "median", wanted sum', lambda c: c.allreduce(f(), "median")),
    ("op is a number", InvalidArgument, "op is 3, wanted a name", lambda c: c.allreduce(f(), 3)),
    ("unknown algo", InvalidArgument, 'algo is "quick", wanted one of', lambda c: c.allreduce(f(), algo="quick")),
    ("algo of others", InvalidArgument, '"doubling", which does not', lambda c: c.broadcast(f(), algo="doubling")),
    ("min of complex", InvalidArgument, "min of c64", lambda c: c.allreduce(f(6, np.complex64), "min")),
    ("and of float", InvalidArgument, "and of f32", lambda c: c.allreduce(f(), "and")),
    ("avg of bool", InvalidArgument, "avg of bool", lambda c: c.allreduce(f(6, bool), "avg")),
    ("premul_sum of int", InvalidArgument, "of i32", lambda c: c.allreduce(f(6, np.int32), "premul_sum", factor=2)),
    ("premul_sum, no factor", InvalidArgument, "factor goes with", lambda c: c.allreduce(f(), "premul_sum")),
    ("factor without premul_sum", InvalidArgument, "factor goes with", lambda c: c.allreduce(f(), factor=2)),
    ("factor is no number", InvalidArgument, "factor is 'x'", lambda c: c.allreduce(f(), "premul_sum", factor="x")),
    ("root 3 of 3", InvalidArgument, "named rank 3, wanted 0 to 2", lambda c: c.broadcast(f(), root=3)),
    ("root -1", InvalidArgument, "named rank -1, wanted 0 to 2", lambda c: c.gather(f(), root=-1)),
    ("timeout 0", InvalidArgument, "timeout is 0 s", lambda c: c.barrier(timeout=0)),
    ("timeout nan", InvalidArgument, "timeout is nan s", lambda c: c.barrier(timeout=float("nan"))),
    ("timeout is no number", InvalidArgument, "timeout is 'soon'", lambda c: c.barrier(timeout="soon")),
    ("communicator's timeout -1", InvalidArgument, "timeout is -1", lambda c: setattr(c, "timeout", -1)),
    ("too few counts", InvalidArgument, "got 2 counts", lambda c: c.allgather(f(), counts=[6, 6])),
    ("counts of others", InvalidArgument, "6 elements, wanted 1", lambda c: c.allgather(f(), counts=[1, 1, 1])),
    (
        "negative counts",
        InvalidArgument,
        "counts has -1, wanted whole numbers",
        lambda c: c.allgather(f(), counts=[-1, 4, 3]),
    ),
    ("7 elements over 3 ranks", InvalidArgument, "evenly over 3", lambda c: c.reduce_scatter(f(7))),
    ("7 elements, out given", InvalidArgument, "evenly over 3", lambda c: c.alltoall(f(7), f(7))),
    ("send_counts alone", InvalidArgument, "recv_counts", lambda c: c.alltoall(f(), send_counts=[2, 2, 2])),
    ("send to itself", InvalidArgument, "named itself as the peer", lambda c: c.send(f(), c.rank)),
    ("recv from rank 9", InvalidArgument, "named rank 9", lambda c: c.recv(f(), 9)),
    ("sendrecv from itself", InvalidArgument, "source", lambda c: c.sendrecv(f(), (c.rank + 1) % 3, f(), c.rank)),
    ("sparse tensor", InvalidArgument, "sparse", lambda c: c.allreduce(torch.eye(3).to_sparse())),
    ("meta tensor", InvalidArgument, "on meta", lambda c: c.allreduce(torch.zeros(3, device="meta"))),
    ("lazily conjugated tensor", InvalidArgument, ".resolve_conj()", lambda c: c.allreduce(lazy(3))),
    (
        "tensor that requires grad",
        InvalidArgument,
        ".detach()",
        lambda c: c.allreduce(torch.ones(3, requires_grad=True)),
    ),
    ("quantized tensor", InvalidArgument, "float8", lambda c: c.allreduce(torch.zeros(3).to(torch.float8_e4m3fn))),
    ("negative shape", InvalidArgument, "no negative", lambda c: c.empty((2, -1))),
    ("split by color -5", InvalidArgument, "color -5, wanted at least 0", lambda c: c.split(-5)),
    ("mpi without MPI", TransportError, "not started by MPI", lambda c: c.mpi),
    ("algorithms of what is none", InvalidArgument, "such as allreduce", lambda c: algorithms("sort")),
    ("closed communicator", InvalidArgument, "communicator is closed", closed),
]
# The same sentence on every rank. The calls of a row are on one line, which the sentence names.
AGREED = [
    ("different operations", "rank 0 called barrier", lambda c: by_rank(c, c.barrier, lambda: c.allreduce(f()))),
    ("different counts", "rank 0 called allreduce f32[4]", lambda c: c.allreduce(f(6 if c.rank else 4))),
    ("different counts, async", "called allreduce f32[5] sum", waited),
    ("different types", "called allreduce i32[6]", lambda c: c.allreduce(f(6, [np.int32, F, F][c.rank]))),
    ("different ops", "rank 1 called allreduce f32[6] max", lambda c: c.allreduce(f(), ["sum", "max", "sum"][c.rank])),
    ("different roots", "rank 2 called broadcast f32[6] root 2", lambda c: c.broadcast(f(), root=c.rank // 2 * 2)),
    ("different algos", "algo ring", lambda c: c.allreduce(f(), algo=["ring", "tree", None][c.rank])),
    ("different v-counts", "uneven counts", lambda c: c.allgather(f(2), counts=[2 + c.rank // 2, 2 - c.rank // 2, 2])),
    ("alltoall that does not pair up", "rank 2 sends 2 elements to rank 1, which wants 1", unpaired),
]  # fmt: skip
# Not all ranks raise; which do is said.
SOME = [
    ("scatter without out", InvalidArgument, "only the root knows", (1, 2), lambda c: c.rank and c.scatter(f())),
    ("recv of another count", MismatchError, "rank 1 called recv f32[7] from rank 0; rank 0 called send f32[6]", (1,),
     lambda c: by_rank(c, lambda: c.send(f(), 1), lambda: c.recv(f(7), 0), lambda: None)),
    ("recv of another type", MismatchError, "recv i32[6] from rank 0; rank 0 called send f32[6]", (1,),
     lambda c: by_rank(c, lambda: c.send(f(), 1), lambda: c.recv(f(6, np.int32), 0), lambda: None)),
    ("a rank has closed its communicator", PeerFailed, "allreduce f32[6] sum (operation", (1, 2), deserted),
    ("a rank comes late", Timeout, "passed its timeout waiting for rank 0", (1, 2), late),
]  # fmt: skip
ROWS = (
    [(what, kind, words, tuple(range(SIZE)), call) for what, kind, words, call in LOCAL]
    + [(what, MismatchError, words, tuple(range(SIZE)), call) for what, words, call in AGREED]
    + SOME
)


def body(comm):
    for row, (*_, call) in enumerate(ROWS):
        raised = None
        try:
            call(comm)
        except Exception as error:
            raised = [type(error).__name__, str(error)]
        comm.barrier(timeout=5)
        works = bool((comm.allreduce(np.ones(3)) == SIZE).all())
        print(json.dumps({"row": row, "rank": comm.rank, "raised": raised, "works": works}), flush=True)


@functools.cache
def outcomes():
    """row -> rank -> what it said."""
    ended = run_forked(SIZE, body, timeout=60, op_timeout=5)
    table = {row: {} for row in range(len(ROWS))}
    for line in (line for one in ended for line in one.output.splitlines() if line.startswith('{"row"')):
        said = json.loads(line)
        table[said["row"]][said["rank"]] = said
    return table, "\n".join(one.output[-2000:] for one in ended)


@pytest.mark.parametrize("row", range(len(ROWS)), ids=[row[0].replace(" ", "-") for row in ROWS])
def test_says_what_is_wrong(row):
    _, kind, words, ranks, _ = ROWS[row]
    said = outcomes()[0][row]
    assert sorted(said) == list(range(SIZE)), f"not all ranks came this far:\n{outcomes()[1]}"
    for rank in range(SIZE):
        assert said[rank]["works"]
        raised = said[rank]["raised"]
        if rank not in ranks:
            assert raised is None
            continue
        assert raised, "nothing was raised"
        assert raised[0] == kind.__name__, raised[1]
        assert words in raised[1]
        assert not issubclass(kind, Error) or "\n" not in raised[1]
    if kind in (MismatchError, PeerFailed, Timeout):
        assert len({said[rank]["raised"][1] for rank in ranks}) == 1, "ranks raised different sentences"


def test_disagreement_names_the_line():
    for row, (what, kind, *_) in enumerate(ROWS):
        text = outcomes()[0][row][1]["raised"]
        if kind is MismatchError and what.startswith("different"):
            assert text[1].count(f" at {Path(__file__).name}:") >= 2, text


if __name__ == "__main__":
    print("| what was tried | what came out |\n| --- | --- |")
    for row, said in outcomes()[0].items():
        texts = Counter(": ".join(one["raised"]) if one["raised"] else "(no error)" for one in said.values())
        best = next((text for text, _ in texts.most_common() if text != "(no error)"), "(no error)")
        print(f"| {ROWS[row][0]} | {best.splitlines()[0]} |")
