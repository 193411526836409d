"""What `pycoll advise` says: a row for each codec, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from pycoll.codec import Cast, Codec, Fp8, Int8, SharedScale, TopK
from pycoll.cost import Bucket, Cost, Group, Speed, compressed, crossing, dense, exposed

DENSE, HALVES = "dense fp32", "dense bf16"
SLOWEST, FASTEST = 1e2, 1e13  # bytes a second between which a break-even is looked for
NEAR = 1.1  # no further behind the fastest, a codec that keeps more of the numbers is preferred


class Row(NamedTuple):
    """A step's communication: seconds (of which wire and kernels, which may overlap), bytes a rank, and how many times
    fewer these are than in float32. pays_below: bytes a second; inf: at any speed, 0: at none. exposed: seconds beyond
    the compute that hides the rest."""

    name: str
    seconds: float
    wire: float
    kernels: float
    bytes: float
    ratio: float
    pays_below: float | None
    exposed: float
    measured: float | None = None


def rows_of(
    codecs: Mapping[str, Codec],
    buckets: Sequence[Bucket],
    group: Group,
    speeds: Mapping[str, Speed],
    add: float,
    compute: float,
) -> list[Row]:
    over_a_link = replace(group, memory=0)  # ratios are those of messages, also where dense ones send none
    full = total(dense(b.count, over_a_link, add) for b in buckets).bytes

    def row(name: str, cost: Callable[[Bucket, Group], Cost], pays_below: float | None) -> Row:
        costs = [cost(b, group) for b in buckets]
        sum = total(costs)
        late = exposed([c.seconds for c in costs], compute)
        sent = total(cost(b, over_a_link) for b in buckets).bytes
        ratio = full / sent if sent else 1.0
        return Row(name, sum.seconds, sum.wire, sum.kernels, sum.bytes, ratio, pays_below, late)

    rows = [
        row(DENSE, lambda b, group: dense(b.count, group, add), None),
        row(HALVES, lambda b, group: dense(b.count, group, add, 2), None),
    ]
    for name, codec in codecs.items():
        cost = partial(_compressed, codec, speeds[name], add)
        rows.append(row(name, cost, pays_below(codec, buckets, group, speeds[name], add)))
    return rows


def _compressed(codec: Codec, speed: Speed, add: float, bucket: Bucket, group: Group) -> Cost:
    return compressed(codec, bucket, group, speed, add)


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def best_dense(buckets: Sequence[Bucket], group: Group, add: float) -> float:
    """Seconds of the faster one."""
    return min(total(dense(b.count, group, add, size) for b in buckets).seconds for size in (2, 4))


def gain(codec: Codec, buckets: Sequence[Bucket], group: Group, speed: Speed, add: float) -> float:
    """Seconds a step that the codec saves against the better dense one."""
    taken = total(compressed(codec, b, group, speed, add) for b in buckets).seconds
    return best_dense(buckets, group, add) - taken


def pays_below(codec: Codec, buckets: Sequence[Bucket], group: Group, speed: Speed, add: float) -> float | None:
    """The bandwidth above which the codec does not pay; None where dense ones use no link."""
    if group.memory or group.ranks == 1:
        return None

    def saved(bandwidth: float) -> float:
        link = replace(group.link, bandwidth=bandwidth, spread=bandwidth * group.link.spread / group.link.bandwidth)
        return gain(codec, buckets, replace(group, link=link), speed, add)

    found = crossing(saved, SLOWEST, FASTEST)
    return 0.0 if found == SLOWEST else math.inf if found == FASTEST else found


def density_needed(codec: TopK, buckets: Sequence[Bucket], group: Group, speed: Speed, add: float) -> float:
    """k/N below which top-k pays: its bytes grow with k, its kernels hardly. 0: at none."""
    asked = density_of(codec, buckets)
    low = 1e-6

    def saved(density: float) -> float:
        return gain(codec, buckets, group, replace(speed, bytes=speed.bytes * density / asked), add)

    found = crossing(saved, low, 1.0)
    return 0.0 if found == low else found


def density_of(codec: TopK, buckets: Sequence[Bucket]) -> float:
    if isinstance(codec.ratio, float) and codec.ratio:
        return codec.ratio
    return codec.k / max(b.count for b in buckets)


def fidelity(codec: Codec) -> int:
    """Less is lost by codecs with a higher one."""
    if isinstance(codec, Cast):
        return 3
    return 2 if isinstance(codec, (Int8, Fp8, SharedScale)) else 1


def recommendation(
    codecs: Mapping[str, Codec],
    rows: Sequence[Row],
    buckets: Sequence[Bucket],
    group: Group,
    speeds: Mapping[str, Speed],
    add: float,
) -> str:
    """One sentence on what to use, and one for each top-k that does not pay."""
    if group.ranks == 1:
        return "Use no codec: one rank has nobody to send to."
    plain = min(rows[:2], key=lambda row: row.exposed)
    fastest = min(rows[2:], key=lambda row: row.exposed)
    near = [row for row in rows[2:] if row.exposed <= fastest.exposed * NEAR]
    best = max(near, key=lambda row: (fidelity(codecs[row.name]), -row.exposed))
    if rows[0].exposed == 0:
        said = f"Use no codec: {DENSE} is hidden behind the compute, all of its {duration(rows[0].seconds)}."
    elif best.exposed >= plain.exposed:
        cause = "kernels" if best.kernels > best.wire else "messages and bytes"
        said = (
            f"Use no codec: {plain.name} takes {duration(plain.exposed)} a step, the nearest codec, {best.name}, "
            f"{duration(best.exposed)}, most of it for its {cause}."
        )
    else:
        link = f", as the link's {speed_of(group.link.bandwidth)} are below its break-even"
        why = f"{link}, {speed_of(best.pays_below)}" if best.pays_below and math.isfinite(best.pays_below) else ""
        said = (
            f"Use {best.name}: {duration(best.exposed)} a step instead of {duration(plain.exposed)} for {plain.name}, "
            f"{plain.exposed / max(best.exposed, 1e-9):.1f} times less{why}."
        )
    for row in rows[2:]:
        codec = codecs[row.name]
        if isinstance(codec, TopK) and not codec.scheduled() and row.seconds >= min(r.seconds for r in rows[:2]):
            needed = density_needed(codec, buckets, group, speeds[row.name], add)
            needs = f"needs k/N below {100 * needed:.2g} %" if needed else "no k/N pays"
            asked = f"you asked {100 * density_of(codec, buckets):.2g} %"
            said += f"\n{row.name} off: {needs} at {group.ranks} ranks, {asked}."
    return said


def show(rows: Sequence[Row], buckets: Sequence[Bucket], group: Group, measured: Group, compute: float) -> None:
    """The table, below what it was computed from."""
    count = sum(b.count for b in buckets)
    plain = sum(b.count for b in buckets if not b.compressed)
    kept = f", {plain / 1e6:.3g} M of them dense with every codec" if plain else ""
    print(f"{count / 1e6:.4g} M float32 in {len(buckets)} bucket{'s' * (len(buckets) > 1)}{kept}")
    where = f"{group.nodes} nodes of {group.per_node} ranks" if group.per_node > 1 else f"{group.ranks} ranks"
    origin = "measured" if group.link == measured.link else "as asked"
    if group.ranks > 1:
        print(
            f"{where}, link {origin}: {duration(group.link.latency)} a message, "
            f"{speed_of(group.link.bandwidth)} each way to a neighbour, {speed_of(group.link.spread)} to all at once"
        )
    if group.memory:
        print(f"dense ones go through shared memory, {speed_of(1 / group.memory)}, measured: no link is used")
    better = min(rows[:2], key=lambda row: row.seconds)
    verified = any(row.measured for row in rows)
    titles = ["", "predicted", "wire", "kernels", "bytes a rank", "ratio", "pays below"]
    titles += ["beyond compute", "hidden"] * bool(compute) + ["measured", "pred/meas"] * verified
    table = [titles]
    for row in rows:
        pays = "" if row.pays_below is None else speed_of(row.pays_below)
        cells = [row.name, duration(row.seconds), duration(row.wire), duration(row.kernels), f"{row.bytes:,.0f}"]
        cells += [f"{row.ratio:.1f}", pays]
        if compute:
            cells += [duration(row.exposed), f"{1 - row.exposed / row.seconds:.0%}" if row.seconds else ""]
        if verified:
            cells += [duration(row.measured), f"{row.seconds / row.measured:.2f}"] if row.measured else ["", ""]
        if row.seconds > better.seconds and row not in rows[:2]:
            cells.append(f"slower than {better.name}")
        table.append(cells)
    widths = [max(len(cells[i]) for cells in table if i < len(cells)) for i in range(len(titles))]
    for name, *cells in table:  # a remark behind the last column stands as it is
        print("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, [*widths[1:], 0], strict=False))]))


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} µs"


def speed_of(bytes_a_second: float) -> str:
    if bytes_a_second == 0:
        return "nothing"
    if math.isinf(bytes_a_second):
        return "any speed"
    for unit, scale in (("GB/s", 1e9), ("MB/s", 1e6)):
        if bytes_a_second >= 0.9995 * scale:
            return f"{bytes_a_second / scale:.3g} {unit}"
    return f"{bytes_a_second / 1e3:.3g} kB/s"
