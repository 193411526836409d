"""Shamir's secret sharing (1979): any `threshold` shares give the secret, fewer say nothing about it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from ...errors import Error, InvalidArgument

#: The smallest prime above 2^256, so that 32 bytes are one element of the field.
PRIME = 2**256 + 297
SECRET_BYTES, SHARE_BYTES = 32, 33


class TooFewShares(Error):
    """Too many clients dropped out: the sum of this round cannot be had."""


def split(secret: bytes, threshold: int, holders: Iterable[int]) -> dict[int, bytes]:
    """A share of 33 bytes for each holder, who are numbered from 0."""
    holders = list(holders)
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(holders) or len(set(holders)) < len(holders):
        raise InvalidArgument(
            f"split: got {len(secret)} bytes, threshold {threshold} of {len(holders)} holders; wanted {SECRET_BYTES} "
            "bytes and a threshold of at most as many different holders"
        )
    # The secret is the polynomial's value at 0; all other coefficients are uniform.
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {holder: _value(coefficients, holder + 1).to_bytes(SHARE_BYTES, "big") for holder in holders}


def join(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, from at least `threshold` shares by holder. Raises TooFewShares."""
    if len(shares) < threshold:
        raise TooFewShares(f"secure aggregation: {len(shares)} clients gave their shares, wanted at least {threshold}")
    points = {holder + 1: int.from_bytes(share, "big") for holder, share in list(shares.items())[:threshold]}
    secret = 0
    for x, y in points.items():  # Lagrange's interpolation at 0
        above = below = 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        secret = (secret + y * above * pow(below, -1, PRIME)) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise TooFewShares("secure aggregation: the shares do not belong together")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value
