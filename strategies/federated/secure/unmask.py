"""The server's last step: secrets from shares, and masks off the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, islice

from fedcl_distill.errors import PayloadError
from fedcl_distill.statistics.fixed_point import Words
from strategies.federated.internals import combine_shares
from strategies.federated.secure.keys import public_of
from strategies.federated.secure.masks import SEED_BYTES, pair_mask, remove_mask
from strategies.federated.secure.texts import commitment_of


def unmask(
    total: Words,
    mask_keys: Sequence[bytes],
    senders: Iterable[int],
    survivors: Iterable[int],
    shares: Mapping[int, Sequence[bytes]],
    threshold: int,
    commitments: Mapping[int, bytes],
) -> None:
    """Take all masks off ``total``, in place.

    Args:
        total: the sum of the masked words of ``survivors``.
        mask_keys: public keys by position.
        senders: positions whose letters all survivors had, so that they share a mask with each of them.
        survivors: positions whose words are in the sum.
        shares: by position, of its seed for survivors, of its private key for other senders.
        threshold: shares that a secret needs.
        commitments: by position, to its seed.

    Raises:
        PayloadError: a secret cannot be put together from any of the shares.
    """
    stayed = set(survivors)
    for sender in senders:
        if sender in stayed:
            seed = _combined(sender, shares.get(sender, ()), threshold, partial(_opens, commitments[sender]))
            remove_mask(total, seed)
        else:
            key = _combined(sender, shares.get(sender, ()), threshold, partial(_is_half, mask_keys[sender]))
            for survivor in stayed:
                # What a survivor added for the lost node, as the lost node would have: the opposite of it.
                pair_mask(total, key, mask_keys[survivor], sender, survivor)


def _combined(position: int, shares: Sequence[bytes], threshold: int, fits: Callable[[bytes], bool]) -> bytes:
    """The secret that enough of the shares make and that ``fits``; shares that some node spoiled are done without."""
    if len(shares) < threshold:
        raise PayloadError(f"{len(shares)} shares of the secret of position {position}, {threshold} are needed")
    for chosen in islice(combinations(shares, threshold), _MOST_TRIES):
        try:
            secret = combine_shares(list(chosen))
        except (ValueError, IndexError):
            continue
        if fits(secret):
            return secret
    raise PayloadError(
        f"train.unmask: the shares of the secret of position {position} do not make what it announced; "
        "it or too many others sent garbage"
    )


def _opens(commitment: bytes, seed: bytes) -> bool:
    return len(seed) == SEED_BYTES and commitment_of(seed) == commitment


def _is_half(public: bytes, private: bytes) -> bool:
    try:
        return public_of(private) == public
    except ValueError:
        return False


_MOST_TRIES = 1000  # of ways to leave shares out
