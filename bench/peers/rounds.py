"""Measures: all contestants in turn, round after round, so that they meet the same moods of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from .contestants import Contestant
from .environments import NotToBeHad
from .group import Failed, Group, Order
from .probe import Probe, label_of

START_SECONDS = 120.0
BLOCK_SECONDS = 30.0
WARMUP_MS = 1.0
CALIBRATIONS = 4


@dataclass(frozen=True)
class Effort:
    """rounds: blocks of a contestant at a size. block_ms: what a block's timed calls should take, roughly."""

    rounds: int = 5
    block_ms: float = 30.0
    touch: bool = False


@dataclass(frozen=True)
class Block:
    """What was measured once. us: of a call, median of the samples. *_ns: the probe's answers."""

    contestant: str
    collective: str
    ranks: int
    bytes: int
    label: str
    us: float
    samples: int
    batch: int
    before_ns: float | None
    after_ns: float | None


@dataclass(frozen=True)
class Plan:
    warmup: int
    samples: int
    batch: int


def batch_us(*, crowded: bool) -> float:
    """Batches are long against the clock and the ranks' skew, and with more ranks than cores against the scheduler."""
    return 2000.0 if crowded else 200.0


def plan_of(once_us: float, block_ms: float, *, crowded: bool, touch: bool) -> Plan:
    """Calls a block, for calls of so many microseconds."""
    once = max(once_us, 0.02)
    batch = 1 if touch else ceil(batch_us(crowded=crowded) / once)
    samples = min(64, max(3, int(block_ms * 1e3 / (batch * once))))
    return Plan(min(1000, max(2, int(WARMUP_MS * 1e3 / once))), samples, batch)


class Field:
    """The contestants of one number of ranks, with their processes. Who fails is named and left out from there on."""

    def __init__(
        self,
        ranks: int,
        cores: Sequence[int],
        probe: Probe,
        say: Callable[[str], None],
        failures: list[dict[str, Any]],
    ) -> None:
        self.ranks, self.cores = ranks, cores
        self.versions: dict[str, str] = {}
        self.failures = failures  # appended to
        self._probe, self._say = probe, say
        self._groups: dict[str, Group] = {}
        self._contestants: dict[str, Contestant] = {}

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._groups.values():
            group.close_orders()
        for group in self._groups.values():
            group.end()
        self._groups = {}

    def start(self, contestants: Sequence[Contestant]) -> None:
        for contestant in contestants:
            name = contestant.name
            try:
                command = contestant.command(self.ranks)
            except NotToBeHad as reason:
                self._leave_out(name, f"not to be had: {reason}")
                continue
            variables = contestant.variables_for(self.ranks, len(self.cores))
            if contestant.environment:
                variables = {**contestant.environment.variables, **variables}
            self._contestants[name] = contestant
            try:
                self._groups[name] = group = Group(command, self.ranks, self.cores, variables)
                self.versions[name] = group.wait_ready(START_SECONDS)
            except (Failed, OSError) as reason:
                self._leave_out(name, f"did not start: {reason}")

    def measure(self, collective: str, nbytes: int, effort: Effort) -> Iterator[list[Block]]:
        """The blocks of one round after the other."""
        nbytes = -(-nbytes // (4 * self.ranks)) * 4 * self.ranks if collective != "allreduce" else max(nbytes, 4)
        names = [n for n in self._groups if collective in self._contestants[n].collectives]
        plans = {name: self._calibrate(name, collective, nbytes, effort) for name in names}
        before = self._probe.ask()
        for turn in range(effort.rounds):
            blocks = []
            first = turn % max(1, len(names))
            for name in names[first:] + names[:first]:
                plan = plans[name]
                if plan is None or name not in self._groups:
                    continue
                taken = self._run(name, collective, nbytes, plan, effort.touch)
                after = self._probe.ask()
                if taken is not None:
                    label = label_of(before, after)
                    where = (name, collective, self.ranks, nbytes, label)
                    blocks.append(Block(*where, taken, plan.samples, plan.batch, before, after))
                before = after
            yield blocks

    def _calibrate(self, name: str, collective: str, nbytes: int, effort: Effort) -> Plan | None:
        """Asks again with longer batches until they are long enough to be believed; some libraries also choose their
        algorithm during the first calls."""
        crowded = self.ranks > len(self.cores)
        plan = Plan(warmup=2, samples=3, batch=1)
        for _ in range(CALIBRATIONS):
            once = self._run(name, collective, nbytes, plan, effort.touch)
            if once is None:
                return None
            believed = effort.touch or once * plan.batch >= batch_us(crowded=crowded) / 2
            plan = plan_of(once, effort.block_ms, crowded=crowded, touch=effort.touch)
            if believed:
                break
        return plan

    def _run(self, name: str, collective: str, nbytes: int, plan: Plan, touch: bool) -> float | None:
        """Microseconds of a call; None if the contestant failed, which is then left out."""
        memory = self._contestants[name].memory
        order = Order(collective, nbytes, memory, plan.warmup, plan.samples, plan.batch, touch)
        try:
            answer = self._groups[name].run(order, BLOCK_SECONDS)
        except (Failed, OSError) as reason:
            self._leave_out(name, f"{collective}, {nbytes} bytes: {reason}")
            return None
        if answer.wrong:
            self._leave_out(name, f"{collective}, {nbytes} bytes: {answer.wrong} elements were wrong")
            return None
        return statistics.median(answer.microseconds)

    def _leave_out(self, name: str, reason: str) -> None:
        self.failures.append({"contestant": name, "ranks": self.ranks, "reason": reason, "time": time.time()})
        self._say(f"left out, {self.ranks} ranks: {name}: {reason}")
        if group := self._groups.pop(name, None):
            group.end(grace=0)
