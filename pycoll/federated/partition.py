"""Who has which samples: even and uneven, label-skewed partitions of a data set over clients.

Each function returns one array of indices a client, sorted; together they are every index exactly once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidArgument

Partition = list[np.ndarray]


def iid(count: int, clients: int, seed: int = 0) -> Partition:
    """`count` samples dealt out at random; numbers differ by at most one."""
    _at_least("iid", clients, count)
    return _sorted(np.array_split(np.random.default_rng(seed).permutation(count), clients))


def dirichlet(labels: Any, clients: int, alpha: float, seed: int = 0, least: int = 1) -> Partition:
    """Each label's samples in shares drawn from Dirichlet(alpha): the smaller alpha, the fewer labels a client has.

    (Yurochkin et al. 2019, "Bayesian nonparametric federated learning", section 4.) Clients that would have fewer than
    `least` samples get theirs from the one that has most.

    labels: integers[count]. alpha: above 0, finite.
    """
    labels = _labels("dirichlet", labels)
    _at_least("dirichlet", clients, labels.size, least)
    _check_alpha("dirichlet", alpha, clients)
    random = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        mine = random.permutation(np.flatnonzero(labels == label))
        for part, piece in zip(parts, _cut(mine, random.dirichlet(np.full(clients, alpha))), strict=True):
            part.append(piece)
    return _fill([np.concatenate(part) for part in parts], least)


def by_label(labels: Any, clients: int, each: int = 2, seed: int = 0) -> Partition:
    """Samples sorted by label, cut into clients * each shards, `each` of them for every client.

    (McMahan et al. 2017, "Communication-efficient learning", section 3: with each=2 most clients have two labels.)
    """
    labels = _labels("by_label", labels)
    if each < 1:
        raise InvalidArgument(f"by_label: each is {each!r}, wanted at least 1")
    _at_least("by_label", clients, labels.size, each)
    shards = np.array_split(np.argsort(labels, kind="stable"), clients * each)
    order = np.random.default_rng(seed).permutation(len(shards)).reshape(clients, each)
    return _sorted([np.concatenate([shards[i] for i in row]) for row in order])


def by_quantity(count: int, clients: int, alpha: float, seed: int = 0, least: int = 1) -> Partition:
    """Labels as they come, but numbers of samples in shares drawn from Dirichlet(alpha)."""
    _at_least("by_quantity", clients, count, least)
    _check_alpha("by_quantity", alpha, clients)
    random = np.random.default_rng(seed)
    return _fill(_cut(random.permutation(count), random.dirichlet(np.full(clients, alpha))), least)


def _cut(indices: np.ndarray, shares: np.ndarray) -> Partition:
    return np.split(indices, np.rint(np.cumsum(shares)[:-1] * indices.size).astype(np.int64))


def _fill(parts: Partition, least: int) -> Partition:
    for poor in range(len(parts)):
        while parts[poor].size < least:
            rich = int(np.argmax([part.size for part in parts]))
            parts[poor] = np.append(parts[poor], parts[rich][-1])
            parts[rich] = parts[rich][:-1]
    return _sorted(parts)


def _sorted(parts: Partition) -> Partition:
    return [np.sort(part) for part in parts]


def _labels(who: str, labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise InvalidArgument(f"{who}: labels have shape {list(labels.shape)}, wanted one label a sample")
    return labels


def _check_alpha(who: str, alpha: float, clients: int) -> None:
    if not 0 < alpha * clients < np.inf:  # what is drawn is divided by its sum
        raise InvalidArgument(f"{who}: alpha is {alpha!r}, wanted a finite number above 0; iid() for even parts")


def _at_least(who: str, clients: int, count: int, least: int = 1) -> None:
    if clients < 1 or least < 0 or count < clients * least:
        raise InvalidArgument(
            f"{who}: got {count} samples for {clients} clients, wanted at least {least} for each of 1 or more"
        )
