"""Masks: key agreement, and the stream of uniform integers that a seed stands for.

The primitives are those of the package `cryptography`: X25519, HKDF-SHA256, ChaCha20, ChaCha20-Poly1305.
"""

from __future__ import annotations

import numpy as np

try:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    raise ImportError("secure aggregation needs the package cryptography: pip install 'pycoll[federated]'") from error

KEY_BYTES = 32
_CHUNK = 1 << 18  # bytes: large enough for the cipher's own cost, small enough for a core's cache
_ZEROS = bytes(_CHUNK)


def agree(mine: X25519PrivateKey, theirs: bytes, purpose: bytes) -> bytes:
    """A key of 32 bytes that the owner of the other private key comes to as well, for one purpose only."""
    shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"pycoll federated 1 " + purpose).derive(shared)


def add_mask(vector: np.ndarray, seed: bytes, sign: int) -> None:
    """vector += sign * the seed's mask, modulo 2^bits. vector: uint32 or uint64, contiguous. sign: 1 or -1.

    The mask is ChaCha20's key stream, counted from 0, as little-endian integers. A seed is used for one vector only.
    """
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), None).encryptor()
    scratch = np.empty(_CHUNK, np.uint8)
    operation = np.add if sign > 0 else np.subtract
    step = _CHUNK // vector.itemsize
    for begin in range(0, vector.size, step):
        part = vector[begin : begin + step]
        mask = scratch[: part.nbytes]
        stream.update_into(memoryview(_ZEROS)[: part.nbytes], mask.data)
        operation(part, mask.view(vector.dtype.newbyteorder("<")), out=part)


def seal(key: bytes, message: bytes, about: bytes) -> bytes:
    """Encrypted and authenticated, together with `about`. A key seals one message."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), message, about)


def open_sealed(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """The message. Raises cryptography's InvalidTag if it, or what it is about, was changed."""
    return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, about)
