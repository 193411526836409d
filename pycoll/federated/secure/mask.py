"""Masks: key agreement, and the stream of uniform integers that a seed stands for.

The primitives are those of the package `cryptography`: X25519, HKDF-SHA256, AES-256-CTR, ChaCha20-Poly1305.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

try:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    raise ImportError("secure aggregation needs the package cryptography: pip install 'pycoll[federated]'") from error

KEY_BYTES = 32
_CHUNK = 1 << 17  # bytes: large enough for a call's own cost; zeros, mask and numbers fit in a core's cache
_ZEROS = bytes(_CHUNK)


def agree(mine: X25519PrivateKey, theirs: bytes) -> bytes:
    """A secret of 32 bytes that the owner of the other private key comes to as well. For key_for(), nothing else."""
    return mine.exchange(X25519PublicKey.from_public_bytes(theirs))


def key_for(secret: bytes, purpose: bytes) -> bytes:
    """A key of 32 bytes, for one purpose only."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"pycoll federated 2 " + purpose).derive(secret)


def add_masks(vector: np.ndarray, masks: Iterable[tuple[bytes, int]]) -> None:
    """vector += sign * the seed's mask, for each (seed, sign), modulo 2^bits. vector: uint32 or uint64, contiguous.

    sign: 1 or -1. A mask is the key stream of AES-256 in counter mode, counted from 0, as little-endian integers; it is
    the generator of Bonawitz et al. A seed is used for one vector only. All masks are added to a part of the vector
    before the next part is touched.
    """
    streams = [
        (Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor(), np.add if sign > 0 else np.subtract)
        for seed, sign in masks
    ]
    scratch = np.empty(_CHUNK, np.uint8)
    step = _CHUNK // vector.itemsize
    for begin in range(0, vector.size, step):
        part = vector[begin : begin + step]
        zeros, room = memoryview(_ZEROS)[: part.nbytes], scratch[: part.nbytes].data
        mask = scratch[: part.nbytes].view(vector.dtype.newbyteorder("<"))
        for stream, operation in streams:
            stream.update_into(zeros, room)
            operation(part, mask, out=part)


def seal(key: bytes, message: bytes, about: bytes) -> bytes:
    """Encrypted and authenticated, together with `about`. A key seals one message."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), message, about)


def open_sealed(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """The message. Raises cryptography's InvalidTag if it, or what it is about, was changed."""
    return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, about)
