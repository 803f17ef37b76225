"""Masks: words that look random to all who do not know their seed, and that a sum can be freed of.

Flower's own generator of masks folds a seed of 256 bits to 32 and feeds it to the Mersenne twister, and its words never
take their largest value: a mask can be found by trying 2^32 seeds. So masks are the key stream of ChaCha20 here (RFC
8439), as the cryptography package has it.
"""

from __future__ import annotations

import base64

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fedcl_distill.statistics.fixed_point import Words
from strategies.federated.secure.keys import common_key

SEED_BYTES = 32
_NONCE = bytes(16)  # a seed makes one mask and nothing else


def add_mask(words: Words, seed: bytes) -> None:
    """Add the mask of ``seed`` to ``words``, modulo their range, in place."""
    np.add(words, _stream(words, seed), out=words)


def remove_mask(words: Words, seed: bytes) -> None:
    """Undo :func:`add_mask`."""
    np.subtract(words, _stream(words, seed), out=words)


def pair_mask(words: Words, private: bytes, public: bytes, own: int, other: int) -> None:
    """Add to the ``words`` of position ``own``, in place, the mask that it has with ``other``; the two cancel.

    Args:
        words: of any width.
        private, public: ``own``'s private and ``other``'s public key.
        own, other: positions; the lower one adds, the higher one subtracts.
    """
    seed = base64.urlsafe_b64decode(common_key(private, public))
    (add_mask if own < other else remove_mask)(words, seed)


def _stream(words: Words, seed: bytes) -> Words:
    """Uniform words, as many and as wide as ``words``; ``seed`` has 32 bytes."""
    cipher = Cipher(ChaCha20(seed, _NONCE), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(words.nbytes)), words.dtype)
