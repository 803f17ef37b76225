"""The node's side of secure aggregation: one function for each of the five exchanges.

What must stay secret is kept in the node's state from one exchange to the next, and gone after the last. Each exchange
is answered once and in order: masks that were used twice would give away the difference of what they hide, and both
shares of one node would give away what it sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedcl_distill.errors import CheckpointError, PayloadError
from fedcl_distill.statistics.fixed_point import Words
from strategies.federated.answers import pack_words
from strategies.federated.internals import create_shares
from strategies.federated.requests import NodeIdentity, NoisyWordsRequest, SecureStatisticsRequest, Task
from strategies.federated.secure.crypto import (
    FEWEST,
    KEYS,
    LETTERS,
    MASKED,
    NOISED,
    SEED_BYTES,
    SURVIVORS,
    UNMASK,
    add_mask,
    commitment_of,
    fresh_keys,
    key_text,
    pair_mask,
    read_bytes,
    read_integer,
    read_positions,
    seal,
    secure_record,
    senders_text,
    session_of,
    survivors_text,
    unseal,
)
from strategies.federated.strategy import ClientStep, Work

_STATE = "secure-aggregation"
_STAGE = "stage"


def announce_keys(task: Task) -> RecordDict:
    """Two fresh pairs of keys, one for masks and one for letters to other nodes; their public halves are sent."""
    (mask_private, mask_public), (letter_private, letter_public) = fresh_keys(), fresh_keys()
    identity = task.identity or NodeIdentity.fresh()
    public = {"mask-key": mask_public, "letter-key": letter_public, "sign-key": identity.public}
    private = {"mask-private": mask_private, "letter-private": letter_private, "sign-private": identity.private}
    _keep(task, 1, {**public, **private})
    return secure_record({**public, "proof": identity.sign(key_text(task.server_round, mask_public, letter_public))})


def share_secrets(task: Task) -> RecordDict:
    """Shares of a fresh seed and of the private key of masks: a letter with one of each to every node.

    Raises:
        PayloadError: keys are missing, twice there, not signed or of nobody known; there are too few nodes, or half of
            them could open a secret.
    """
    own = _kept(task, 1)
    mask_keys = read_bytes(task.content, "mask-keys")
    letter_keys = read_bytes(task.content, "letter-keys", len(mask_keys))
    sign_keys = _known(task, mask_keys, letter_keys)
    position, threshold = _own_position(own, mask_keys, letter_keys), read_integer(task.content, "threshold")
    if len(mask_keys) < FEWEST or not len(mask_keys) < 2 * threshold <= 2 * len(mask_keys):
        raise PayloadError(
            f"{len(mask_keys)} nodes and a threshold of {threshold}: "
            f"at least {FEWEST} are needed, and a threshold of more than half of them"
        )
    seed = os.urandom(SEED_BYTES)
    shares = zip(
        create_shares(seed, threshold, len(mask_keys)),
        create_shares(own["mask-private"], threshold, len(mask_keys)),
        strict=True,
    )
    letters = [
        seal(own["letter-private"], key, position, receiver, *both)
        for receiver, (key, both) in enumerate(zip(letter_keys, shares, strict=True))
    ]
    session = session_of(task.server_round, threshold, mask_keys, letter_keys, sign_keys)
    keys = {"mask-keys": mask_keys, "letter-keys": letter_keys, "sign-keys": sign_keys, "session": session}
    _keep(task, 2, {**own, **keys, "threshold": threshold, "position": position, "seed": seed})
    return secure_record({"letters": letters, "commitment": commitment_of(seed)})


def send_masked(task: Task) -> RecordDict:
    """The node's statistics in fixed point, under its own mask and one for each other node whose letter is there.

    Raises:
        PayloadError: too few letters are there.
        DataError: the statistics leave the bounds that were agreed on.
    """

    def words(parties: int, threshold: int) -> Words:
        request = task.read(SecureStatisticsRequest)
        task.admit_sums(request)
        return request.fixed_point(parties).words(request.measure(task.data, task.device))

    return send_words(task, MASKED, words)


def send_noised(task: Task) -> RecordDict:
    """The same with the node's share of noise: of as many nodes as open a total, each adds one.

    Raises:
        PayloadError: too few letters are there.
        PrivacyError: the node's budget does not cover the release.
        SettingsError: words of so few bits cannot hold noise that would do.
    """

    def words(parties: int, threshold: int) -> Words:
        request = task.read(NoisyWordsRequest)
        task.admit_sums(request)
        return request.words(task.data, task.budget, parties, threshold, device=task.device)

    return send_words(task, NOISED, words)


def send_words(task: Task, action: str, words: Callable[[int, int], Words]) -> RecordDict:
    """What ``words`` gives for so many nodes and their threshold, masked."""
    own = _kept(task, 2)
    senders = read_positions(task.content, "senders", len(own["mask-keys"]))
    letters = read_bytes(task.content, "letters", len(senders))
    _require_enough(own, senders, "nodes shared secrets")
    masked = _masked(words(len(senders), own["threshold"]), own, senders)
    _keep(task, 3, {**own, "senders": senders, "letters": letters})
    return RecordDict({action: pack_words(masked), **_signed(own, senders_text(own["session"], senders))})


def confirm_survivors(task: Task) -> RecordDict:
    """A signature under the list of those that stayed, once each of them signed the list of senders that is ours.

    A node signs one list a round. So no two lists can find more than half of the nodes.

    Raises:
        PayloadError: too few nodes stayed, others than sent letters, or one that heard of other senders.
    """
    own = _kept(task, 3)
    survivors = read_positions(task.content, "survivors", len(own["mask-keys"]))
    _require_enough(own, survivors, "nodes stayed")
    if not set(survivors) <= set(own["senders"]):
        raise PayloadError("nodes stayed that never shared a secret")
    signatures = read_bytes(task.content, "signatures", len(survivors))
    text = senders_text(own["session"], own["senders"])
    for position, signature in zip(survivors, signatures, strict=True):
        if not NodeIdentity.verifies(own["sign-keys"][position], signature, text):
            raise PayloadError(f"train.survivors: node {position} did not sign the senders that this node heard of")
    _keep(task, 4, {**own, "survivors": survivors})
    return _signed(own, survivors_text(own["session"], own["senders"], survivors))


def open_letters(task: Task) -> RecordDict:
    """Shares of the seeds of nodes that sent their masked words, and of the keys of all others; never both of one node.

    Letters that cannot be opened are left out: others hold shares of the same secret.

    Raises:
        PayloadError: fewer nodes than the threshold signed the list of survivors that this node signed.
    """
    own = _kept(task, 4)
    survivors = own["survivors"]
    signers = read_positions(task.content, "signers", len(own["mask-keys"]))
    signatures = read_bytes(task.content, "signatures", len(signers))
    text = survivors_text(own["session"], own["senders"], survivors)
    agreed = [
        position
        for position, signature in zip(signers, signatures, strict=True)
        if position in survivors and NodeIdentity.verifies(own["sign-keys"][position], signature, text)
    ]
    if len(agreed) < own["threshold"]:
        raise PayloadError(
            f"train.unmask: {len(agreed)} nodes signed the survivors that this node heard of, "
            f"{own['threshold']} are needed"
        )
    del task.state[_STATE]
    positions, shares = [], []
    for sender, letter in zip(own["senders"], own["letters"], strict=True):
        opened = unseal(own["letter-private"], own["letter-keys"][sender], sender, own["position"], letter)
        if opened is not None:
            positions.append(sender)
            shares.append(opened[0] if sender in survivors else opened[1])
    return secure_record({"positions": positions, "shares": shares})


def _masked(words: Words, own: dict[str, Any], senders: list[int]) -> Words:
    words = words.copy()
    add_mask(words, own["seed"])
    for other in senders:
        if other != own["position"]:
            pair_mask(words, own["mask-private"], own["mask-keys"][other], own["position"], other)
    return words


def _signed(own: dict[str, Any], text: bytes) -> RecordDict:
    return secure_record({"signature": NodeIdentity(own["sign-private"]).sign(text)})


def _known(task: Task, mask_keys: list[bytes], letter_keys: list[bytes]) -> list[bytes]:
    """The signing keys of all nodes, each of which signed its other keys; of known nodes alone, where some are known.

    Raises:
        PayloadError: one did not, or is not known.
    """
    sign_keys = read_bytes(task.content, "sign-keys", len(mask_keys))
    proofs = read_bytes(task.content, "proofs", len(mask_keys))
    for position, (key, proof) in enumerate(zip(sign_keys, proofs, strict=True)):
        text = key_text(task.server_round, mask_keys[position], letter_keys[position])
        if not NodeIdentity.verifies(key, proof, text):
            raise PayloadError(f"train.letters: the keys of node {position} are not signed by it")
        if task.identity is not None and task.identity.trusted is not None and key not in task.identity.trusted:
            raise PayloadError(f"train.letters: node {position} is none of those that this node knows")
    if len(set(sign_keys)) != len(sign_keys):
        raise PayloadError("keys of two nodes are the same")
    return sign_keys


def _own_position(own: dict[str, Any], mask_keys: list[bytes], letter_keys: list[bytes]) -> int:
    if len({*mask_keys, *letter_keys}) != 2 * len(mask_keys):
        raise PayloadError("keys of two nodes are the same")
    pairs = list(zip(mask_keys, letter_keys, strict=True))
    if (own["mask-key"], own["letter-key"]) not in pairs:
        raise PayloadError("this node's own keys are not among those of the nodes that take part")
    return pairs.index((own["mask-key"], own["letter-key"]))


def _require_enough(own: dict[str, Any], positions: list[int], what: str) -> None:
    if own["position"] not in positions or len(positions) < own["threshold"]:
        raise PayloadError(f"{len(positions)} {what}, {own['threshold']} and this one among them are needed")


def _keep(task: Task, stage: int, values: dict[str, Any]) -> None:
    """Keep ``values`` for the exchange after ``stage``."""
    task.state[_STATE] = ConfigRecord({**values, "round": task.server_round, _STAGE: stage})


def _kept(task: Task, stage: int) -> dict[str, Any]:
    """What the exchange ``stage`` of this round left.

    Raises:
        CheckpointError: this node was not in it, or has answered the next one already.
    """
    record = task.state.get(_STATE)
    if not isinstance(record, ConfigRecord) or (record["round"], record[_STAGE]) != (task.server_round, stage):
        raise CheckpointError(f"this node is not at exchange {stage + 1} of secure aggregation")
    return dict(record)


def _exchange(action: str, work: Work, *, protected: bool = True) -> ClientStep:
    return ClientStep(action, work, protected=protected, discreet=True)


SECURE_STEPS = (
    _exchange(KEYS, announce_keys),
    _exchange(LETTERS, share_secrets),
    _exchange(MASKED, send_masked, protected=False),  # the total would be exact
    _exchange(NOISED, send_noised),
    _exchange(SURVIVORS, confirm_survivors),
    _exchange(UNMASK, open_letters),
)
"""The exchanges in their order; the third has two forms, of which one adds noise."""
