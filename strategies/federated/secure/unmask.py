"""The server's last step: secrets from shares, and masks off the sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedcl_distill.errors import PayloadError
from fedcl_distill.statistics.fixed_point import Words
from strategies.federated.internals import combine_shares
from strategies.federated.secure.keys import public_of
from strategies.federated.secure.masks import SEED_BYTES, pair_mask, remove_mask


def unmask(
    total: Words,
    mask_keys: Sequence[bytes],
    senders: Iterable[int],
    survivors: Iterable[int],
    shares: Mapping[int, Sequence[bytes]],
    threshold: int,
) -> None:
    """Take all masks off ``total``, in place.

    Args:
        total: the sum of the masked words of ``survivors``.
        mask_keys: public keys by position.
        senders: positions whose letters all survivors had, so that they share a mask with each of them.
        survivors: positions whose words are in the sum.
        shares: by position, of its seed for survivors, of its private key for other senders.
        threshold: shares that a secret needs.

    Raises:
        PayloadError: a secret cannot be put together.
    """
    stayed = set(survivors)
    for sender in senders:
        secret = _combined(sender, shares.get(sender, ()), threshold)
        if sender in stayed:
            if len(secret) != SEED_BYTES:
                raise PayloadError(f"the seed of position {sender} has {len(secret)} bytes, expected {SEED_BYTES}")
            remove_mask(total, secret)
        else:
            _check_key(sender, secret, mask_keys[sender])
            for survivor in stayed:
                # What a survivor added for the lost node, as the lost node would have: the opposite of it.
                pair_mask(total, secret, mask_keys[survivor], sender, survivor)


def _combined(position: int, shares: Sequence[bytes], threshold: int) -> bytes:
    if len(shares) < threshold:
        raise PayloadError(f"{len(shares)} shares of the secret of position {position}, {threshold} are needed")
    try:
        return combine_shares(list(shares[:threshold]))
    except (ValueError, IndexError) as error:
        raise PayloadError(f"the shares of the secret of position {position} do not fit together: {error}") from error


def _check_key(position: int, private: bytes, public: bytes) -> None:
    try:
        found = public_of(private)
    except ValueError as error:
        raise PayloadError(f"the shares of position {position} make no private key") from error
    if found != public:
        raise PayloadError(f"the shares of position {position} make another key than it announced")
