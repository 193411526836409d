"""Which rank has which samples: shards of a data set, and batches that all ranks go through in step."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import pycoll
from pycoll.arguments import check_whole
from pycoll.errors import InvalidArgument

if TYPE_CHECKING:
    from pycoll.comm import Communicator


# ---- Shards: what each of `parts` ranks keeps


def by_index(count: int, parts: int, weights: Sequence[float] | None = None) -> list[range]:
    """Consecutive indices, equally many for each part or in proportion to `weights`; none is more than one off.

    count: samples, at least 0. weights: one positive number a part, a rank's speed for example.
    """
    check_whole("by_index", "count", count, 0)
    check_whole("by_index", "parts", parts, 1)
    ends = np.round(np.cumsum(_fractions("by_index", parts, weights)) * count).astype(int).tolist()
    ends[-1] = count
    return [range(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def by_hash(keys: Iterable[str | bytes | int], parts: int) -> list[list[int]]:
    """Positions of the keys in each part. A key's part depends on the key and on `parts` alone, in any process.

    With one part more, only the keys of the new one move: the part with the highest hash of (key, part) has the key
    (rendezvous hashing, Thaler and Ravishankar, 1998).
    """
    check_whole("by_hash", "parts", parts, 1)
    shards: list[list[int]] = [[] for _ in range(parts)]
    for position, key in enumerate(keys):
        data = key if isinstance(key, bytes) else str(key).encode()
        shards[max(range(parts), key=lambda part: _hash(data, part))].append(position)
    return shards


def by_size(sizes: Sequence[float], parts: int, weights: Sequence[float] | None = None) -> list[list[int]]:
    """Positions of the sizes (bytes of files, for example) in each part, so that the sums are even.

    The largest goes first, each to the part that would have the least for its weight: the fullest part has at most 4/3
    of what is possible at equal weights (Graham, 1969).
    """
    check_whole("by_size", "parts", parts, 1)
    if any(not size >= 0 for size in sizes):
        raise InvalidArgument("by_size: a size is negative or not a number, wanted at least 0")
    speed = _fractions("by_size", parts, weights)
    shards: list[list[int]] = [[] for _ in range(parts)]
    if weights is None:
        heap = [(0.0, 0, part) for part in range(parts)]  # load, entries: those without bytes are dealt out as well
        for position in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
            load, entries, part = heap[0]
            heapq.heapreplace(heap, (load + sizes[position], entries + 1, part))
            shards[part].append(position)
    else:
        loads = np.zeros(parts)
        for position in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
            part = int(np.argmin((loads + sizes[position]) / speed))
            loads[part] += sizes[position]
            shards[part].append(position)
    return [sorted(shard) for shard in shards]


def measured_speeds(comm: Communicator, work: Callable[[], Any], seconds: float = 0.2) -> list[float]:
    """Calls of `work` a second on each rank, all at once, as weights for the functions above and for Batches.

    Collective. Every rank calls `work` (a training step without communication, for example) once to warm up, then for
    `seconds`, at least three times.
    """
    work()
    comm.barrier()
    begin, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - begin < seconds:
        work()
        calls += 1
    return comm.allgather(np.array([calls / (time.perf_counter() - begin)])).tolist()


# ---- Batches: what each rank takes in each step


class Batches:
    """Indices of this rank's share of each global batch, for every epoch anew: a torch batch sampler, or for NumPy.

    ::

        batches = pycoll.data.Batches(len(dataset), 64, comm)
        for epoch in range(10):
            for x, y in DataLoader(dataset, batch_sampler=batches):
                loss = pycoll.data.scale(comm, len(y)) * mean_loss(model(x), y)

    All ranks take equally many steps, and each has a sample in every one, so that none waits for a rank that has
    stopped. Each pass goes on to the next epoch. The order of the samples depends on seed and epoch alone, not on the
    number of ranks: a checkpoint goes on with the next sample on any number of ranks. Where fewer samples than ranks
    are left of its epoch, "keep" takes the missing ones from the epoch's begin.

    Args:
        count: samples in the data set.
        batch: samples a step, of all ranks together; at least one a rank.
        comm: the ranks, by default ``pycoll.init()``.
        shuffle: a new order in every epoch; else 0, 1, 2, ...
        seed: of the order; the same on all ranks.
        weights: in proportion to which the ranks share a batch, ``measured_speeds()`` for example; the same on all.
        last: what becomes of a last batch that is smaller: "keep" it (what is too little to give each rank a sample
            joins the batch before), "drop" it, or "wrap": fill it up from the epoch's begin.

    Raises:
        InvalidArgument: names what is wrong.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        comm: Communicator | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        last: str = "keep",
    ) -> None:
        comm = pycoll.init() if comm is None else comm
        self._rank, self._size = comm.rank, comm.size
        check_whole("Batches", "batch", batch, self._size)
        check_whole("Batches", "count", count, batch if last == "drop" else self._size)
        if last not in ("keep", "drop", "wrap"):
            raise InvalidArgument(f'Batches: last is {last!r}, wanted "keep", "drop" or "wrap"')
        self._count, self._batch, self._shuffle, self._seed, self._last = count, batch, shuffle, seed, last
        self._weights = _fractions("Batches", self._size, weights)
        self._begin(0, 0)

    def __len__(self) -> int:
        """Steps in a whole epoch."""
        return len(self._ends_after(0))

    def __iter__(self) -> Iterator[list[int]]:
        self._begin(*self._place(self._taken))
        return self._batches()

    def set_epoch(self, epoch: int) -> None:
        """Starts epoch `epoch` from its begin."""
        self._begin(epoch, 0)

    def state_dict(self, steps: int | None = None) -> dict[str, int]:
        """Where this is. steps: how many batches of the pass begun last are done, where a DataLoader's workers have
        taken more of them already, maybe all; by default as many as were taken. After the last one, the state is the
        next epoch's begin."""
        if steps is not None:
            check_whole("Batches", "steps", steps, 0, len(self._ends) - 1)
        epoch, done = self._place(self._taken if steps is None else steps)
        return {"epoch": epoch, "done": done, "count": self._count, "seed": self._seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where `state` was taken, also with other ranks, weights or batches."""
        for what, mine in (("count", self._count), ("seed", self._seed)):
            if state[what] != mine:
                raise InvalidArgument(f"Batches: the checkpoint's {what} is {state[what]}, this one's {mine}")
        self._begin(state["epoch"], state["done"])

    def _begin(self, epoch: int, done: int) -> None:
        """A pass through what is left of `epoch` after `done` samples; where that is no batch, through the next."""
        ends = self._ends_after(done)
        if not ends:
            epoch, done, ends = epoch + 1, 0, self._ends_after(0)
        self.epoch = self._pass_epoch = epoch  # of the next batch; of the pass, also when its last batch was taken
        self._ends = [done, *ends]  # where the pass begins, and each of its batches ends
        self._taken = 0  # of its batches

    def _place(self, steps: int) -> tuple[int, int]:
        """Epoch, and samples of it that are done, after `steps` batches of the pass."""
        return (self._pass_epoch, self._ends[steps]) if steps < len(self._ends) - 1 else (self._pass_epoch + 1, 0)

    def _batches(self) -> Iterator[list[int]]:
        order = self._order()
        for begin, end in itertools.pairwise(self._ends):
            self._taken += 1
            # What stands behind the end wraps to the begin.
            yield [int(order[i % self._count]) for i in self._share(begin, end)]
        self.epoch = self._pass_epoch + 1

    def _order(self) -> Any:
        if not self._shuffle:
            return np.arange(self._count)
        return np.random.default_rng([self._seed, self._pass_epoch]).permutation(self._count)

    def _ends_after(self, done: int) -> list[int]:
        """Where each batch ends that begins at `done` or after."""
        left = max(self._count - done, 0)
        whole, rest = divmod(left, self._batch)
        ends = [done + (i + 1) * self._batch for i in range(whole)]
        if rest and self._last == "wrap":
            ends.append(ends[-1] + self._batch if ends else done + self._batch)
        elif rest and self._last == "keep":
            if rest >= self._size or not ends:
                ends.append(max(self._count, done + self._size))
            else:
                ends[-1] = self._count
        return ends

    def _share(self, begin: int, end: int) -> range:
        # One sample each, the rest by weight.
        extra = by_index(max(end - begin - self._size, 0), self._size, self._weights)[self._rank]
        return range(begin + extra.start + self._rank, min(begin + extra.stop + self._rank + 1, end))


def scale(comm: Communicator, samples: int) -> float:
    """What to multiply this rank's mean loss over `samples` samples by, so that the ranks' mean is that of all samples.

    Collective; `samples` may be 0 on some ranks.
    """
    total = comm.allreduce(np.array([samples], np.int64))[0]
    return float(comm.size * samples / total) if total else 0.0


# ---- Their arguments


def _fractions(what: str, parts: int, weights: Sequence[float] | None) -> Any:
    if weights is None:
        return np.full(parts, 1 / parts)
    numbers = np.asarray(weights, np.float64)
    if numbers.shape != (parts,) or not (numbers > 0).all() or not np.isfinite(numbers).all():
        raise InvalidArgument(f"{what}: weights are {list(weights)}, wanted {parts} positive numbers")
    return numbers / numbers.sum()


def _hash(key: bytes, part: int) -> bytes:
    return hashlib.blake2b(key, digest_size=8, salt=part.to_bytes(8, "little")).digest()


__all__ = ["Batches", "by_hash", "by_index", "by_size", "measured_speeds", "scale"]
