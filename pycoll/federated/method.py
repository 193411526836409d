"""What a federation does in a round, alike on all ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from ..arguments import check_whole
from ..codec import Codec
from ..errors import InvalidArgument
from .aggregate import Aggregate, Mean
from .optimizer import FedAvg
from .privacy import Central, Privacy
from .sampling import Dropout, Everyone, Poisson, Sample


@dataclass(frozen=True)
class Secure:
    """Secure aggregation (pycoll.federated.secure); needs the package `cryptography`.

    survivors: the part of a round's clients that must stay to the end; more than the others could collude with the
    server before it learned a vector. bits: 32 or 64, of the integers that travel. range: the largest magnitude that
    an element of update * samples may have (of update alone, under `privacy`): the smaller, the finer the steps.
    """

    survivors: float = 2 / 3
    bits: int = 32
    range: float = 1024.0

    def __post_init__(self) -> None:
        if not 0 < self.survivors <= 1 or self.bits not in (32, 64) or not 0 < self.range < math.inf:
            raise InvalidArgument(
                f"Secure: got survivors {self.survivors}, bits {self.bits}, range {self.range}; wanted above 0 and at "
                "most 1, 32 or 64, a finite number above 0"
            )

    def check(self, clients: int) -> None:
        """Raises InvalidArgument where so many clients leave too few bits for the numbers' fraction."""
        from .secure import FixedPoint

        FixedPoint(self.bits, self.range, clients)


@dataclass(frozen=True)
class Method:
    """The algorithm of a federation. The defaults are FedAvg over all clients.

    aggregate, optimizer: how updates become one, and what the server does with it. sample: whom a round asks. dropout:
    f(round, client), True where a client leaves the round after it was asked (to try out how that ends). deadline:
    seconds that a round, or each step of a secure one, waits for answers; later ones are not used. None: the
    communicator's timeout, and then it is an error.

    codec: encodes updates (docs/codecs.md); feedback: what it loses is kept where the client is and added to its next
    update. secure, privacy: see there; under privacy clients weigh the same.

    seed: of the choice of clients, which the server alone makes; the same seed gives the same choices. None: 0, and
    under privacy a number from the system's entropy, because accounts suppose that the choice is secret.
    """

    aggregate: Aggregate = field(default_factory=Mean)
    optimizer: FedAvg = field(default_factory=FedAvg)
    sample: Sample = field(default_factory=Everyone)
    dropout: Dropout | None = None
    deadline: float | None = None
    codec: Codec | None = None
    feedback: bool = True
    secure: Secure | None = None
    privacy: Privacy | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check_types()
        mean = isinstance(self.aggregate, Mean)
        if self.secure and not mean:
            raise InvalidArgument(f"Method: secure aggregation gives sums only, and {self.aggregate} needs each update")
        if self.secure and self.codec:
            raise InvalidArgument("Method: secure aggregation sends integers modulo 2^bits, which no codec encodes")
        if isinstance(self.privacy, Central):
            if not mean:
                raise InvalidArgument(f"Method: central privacy is of a sum, and {self.aggregate} is none; use Local")
            if not isinstance(self.sample, (Everyone, Poisson)):
                raise InvalidArgument(f"Method: the account of privacy needs Poisson or Everyone, got {self.sample}")
        if self.privacy and self.codec:
            # What feedback carries over is not clipped, and neither is what a decoder makes of it.
            raise InvalidArgument("Method: a codec after clipping could exceed the clip; use one of codec and privacy")
        if self.deadline is not None and not self.deadline > 0:
            raise InvalidArgument(f"Method: deadline is {self.deadline!r}, wanted seconds above 0, or None")

    def facts(self) -> list[tuple[str, str]]:
        """What ranks must agree upon: all but what is a function, and what the server alone needs and may hide."""
        alike = [f.name for f in fields(self) if f.name not in ("dropout", "seed")]
        return [(name, _text(getattr(self, name))) for name in alike]

    def _check_types(self) -> None:
        for name, kind, wanted in (
            ("aggregate", Aggregate, "an Aggregate, for example Mean()"),
            ("optimizer", FedAvg, "a FedAvg, for example FedAdam()"),
            ("sample", Sample, "a Sample, for example Uniform(20)"),
            ("codec", Codec | None, "a Codec, for example Int8(), or None"),
            ("secure", Secure | None, "a Secure, for example Secure(), or None"),
            ("privacy", Privacy | None, "a Privacy, for example Central(1.0, 1.0), or None"),
        ):
            if not isinstance(getattr(self, name), kind):
                raise InvalidArgument(f"Method: {name} is {getattr(self, name)!r}, wanted {wanted}")
        if self.dropout is not None and not callable(self.dropout):
            raise InvalidArgument(
                f"Method: dropout is {self.dropout!r}, wanted a function of round and client, or None"
            )
        if self.seed is not None:
            check_whole("Method", "seed", self.seed, 0)


def _text(x: Any) -> str:
    """What x is, alike in all processes: the repr of an object without one of its own has an address in it."""
    if is_dataclass(x):
        shown = ", ".join(f"{f.name}={_text(getattr(x, f.name, None))}" for f in fields(x) if f.repr)
        return f"{type(x).__name__}({shown})"
    if isinstance(x, (list, tuple)):
        return f"({', '.join(map(_text, x))})"
    if isinstance(x, np.generic):
        return repr(x.item())
    plain = x is None or isinstance(x, (bool, int, float, str, bytes))
    return repr(x) if plain else type(x).__name__
