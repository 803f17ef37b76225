"""Words of nodes, added up so that the server learns the total alone.

The protocol is that of Bonawitz et al. (2017) with its consistency check: nodes exchange signed keys; share a seed and
a key among each other, sealed; send their sums under masks, and sign who shared secrets; sign who stayed; and open
shares of what must come off the total, once enough of them signed the same lists. Keys, sealing and shares
are Flower's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from typing import Any, Protocol, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.errors import PayloadError
from fedcl_distill.statistics.fixed_point import Words
from strategies.federated.aggregation import QuorumError, ReplyCollector
from strategies.federated.answers import unpack_words
from strategies.federated.internals import combine_shares, log
from strategies.federated.requests import CONFIG, NodeIdentity, round_record
from strategies.federated.secure.crypto import (
    FEWEST,
    KEYS,
    LETTERS,
    MASKED,
    SEED_BYTES,
    SURVIVORS,
    UNMASK,
    SecureOptions,
    commitment_of,
    pair_mask,
    public_of,
    read_bytes,
    read_positions,
    read_public_key,
    read_short,
    remove_mask,
    secure_record,
    senders_text,
    session_of,
    survivors_text,
)
from strategies.federated.strategy import TrainOnly

T = TypeVar("T")


class Fixed(Protocol):
    """How numbers are words of a fixed width, whose sums are exact."""

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Of words: little-endian unsigned integers."""
        ...


class Asks(Protocol):
    """What every node is asked."""

    def to_record(self, server_round: int) -> ConfigRecord: ...


@dataclass(frozen=True)
class _Session:
    """Who takes part in a round, once secrets are shared.

    Attributes:
        grid: how nodes are reached.
        nodes: node ids by position.
        mask_keys, sign_keys: public keys by position.
        name: of the round, as nodes sign it.
        commitments: to the seeds of masks, by position.
        threshold: nodes that must stay, and shares that open a secret.
        senders: positions that shared their secrets.
        fixed: how their sums are words.
    """

    grid: Grid
    nodes: list[int]
    mask_keys: list[bytes]
    sign_keys: list[bytes]
    name: bytes
    commitments: dict[int, bytes]
    threshold: int
    senders: list[int]
    fixed: Fixed


class SecureSum(TrainOnly, ABC):
    """The server of a strategy whose nodes send words, of which it learns the total alone.

    A round fails with a :class:`QuorumError` where fewer nodes stay than ``threshold`` asks for, at any exchange.

    Attributes:
        request: what every node is asked.
        collector: waits for nodes and turns bad answers away.
        options: how many nodes must stay.
        timeout: seconds for each exchange.
    """

    action: str = MASKED
    """Of the exchange in which nodes send their words."""

    request: Asks
    collector: ReplyCollector

    def secure(self, options: SecureOptions, timeout: float) -> None:
        """Add up by ``options`` from here on.

        Raises:
            SettingsError: numbers of so many nodes do not fit into words.
        """
        self.options, self.timeout = options, timeout
        nodes = self.collector.nodes
        self.fixed_point(nodes, options.threshold_of(nodes))  # bounds that cannot be met must not cost a round
        self._session: _Session | None = None

    @abstractmethod
    def fixed_point(self, parties: int, threshold: int) -> Fixed:
        """How the numbers of so many nodes become words, of which so many are opened at least.

        Raises:
            SettingsError: they do not fit.
        """

    @abstractmethod
    def _length(self, fixed: Fixed) -> int:
        """Words of one node."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Let nodes exchange keys and secrets, and ask those that did for their masked sums."""
        registered = self.collector.wait_for_nodes(grid)
        greeting = RecordDict({CONFIG: round_record(server_round)})
        keys = self._exchange(grid, server_round, KEYS, dict.fromkeys(registered, greeting), _public_keys)
        nodes = sorted(keys)
        _require(server_round, len(nodes), FEWEST, "sent keys")
        threshold = self.options.threshold_of(len(nodes))
        mask_keys, letter_keys, sign_keys, proofs = (
            list(one) for one in zip(*(keys[node] for node in nodes), strict=True)
        )
        everyone: dict[str, Any] = {"mask-keys": mask_keys, "letter-keys": letter_keys, "sign-keys": sign_keys}
        everyone |= {"proofs": proofs, "threshold": threshold}
        content = RecordDict({CONFIG: round_record(server_round), **secure_record(everyone)})
        letters = self._exchange(
            grid,
            server_round,
            LETTERS,
            dict.fromkeys(nodes, content),
            lambda one: (read_bytes(one, "letters", len(nodes)), read_short(one, "commitment", 32)),
        )
        senders = [position for position, node in enumerate(nodes) if node in letters]
        _require(server_round, len(senders), threshold, "shared their secrets")
        fixed = self.fixed_point(len(senders), threshold)
        name = session_of(server_round, threshold, mask_keys, letter_keys, sign_keys)
        commitments = {position: letters[nodes[position]][1] for position in senders}
        self._session = _Session(grid, nodes, mask_keys, sign_keys, name, commitments, threshold, senders, fixed)
        request = self.request.to_record(server_round)
        questions = {}
        for receiver in senders:
            for_it = {"senders": senders, "letters": [letters[nodes[sender]][0][receiver] for sender in senders]}
            questions[nodes[receiver]] = RecordDict({CONFIG: request, **secure_record(for_it)})
        return self._questions(self.action, questions)

    def summary(self) -> None:
        """Log what nodes are asked."""
        super().summary()  # type: ignore[safe-super]  # that of the class behind it
        log.info("sums are added up securely; a threshold of %.2f of the nodes", self.options.threshold)

    def _sum(self, server_round: int, replies: Iterable[Message]) -> tuple[Fixed, Words, int, tuple[int, ...]]:
        """How words stand for numbers, the total without masks, of how many nodes, and which partitions these hold."""
        session, self._session = self._session, None
        assert session is not None, "configure_train comes first"
        fixed = session.fixed
        total, signatures = np.zeros(self._length(fixed), fixed.dtype), dict[int, bytes]()
        text, unsigned = senders_text(session.name, session.senders), []
        for answer in self.collector.listen(server_round, replies, self._words(fixed)):
            position, (words, signature) = session.nodes.index(answer.node), answer.value
            if NodeIdentity.verifies(session.sign_keys[position], signature, text):
                np.add(total, words, out=total)
                signatures[position] = signature
            else:
                unsigned.append(answer)
        for answer in unsigned:
            self.collector.reject(server_round, answer, f"train.{self.action}: did not sign who sent letters")
        facts = self.collector.facts[server_round]
        survivors = sorted(signatures)
        _require(server_round, len(survivors), session.threshold, "sent their sums")
        agreed = self._agreed(session, server_round, survivors, [signatures[one] for one in survivors])
        shares = self._shares(session, server_round, agreed)
        self.collector.facts[server_round] = facts  # a round's work is what its sums took
        unmask(total, session.mask_keys, session.senders, survivors, shares, session.threshold, session.commitments)
        partitions = tuple(one.partition for one in facts)
        return fixed, total, len(survivors), partitions

    def _words(self, fixed: Fixed) -> Callable[[RecordDict], tuple[Words, bytes]]:
        size = self._length(fixed)
        return lambda content: (unpack_words(content, self.action, fixed.dtype, size), _signature(content))

    def _agreed(
        self, session: _Session, server_round: int, survivors: list[int], signatures: list[bytes]
    ) -> dict[int, bytes]:
        """Signatures under the list of survivors, by position."""
        told = secure_record({"survivors": survivors, "signatures": signatures})
        content = RecordDict({CONFIG: round_record(server_round), **told})
        asked = {session.nodes[position]: content for position in survivors}
        text = survivors_text(session.name, session.senders, survivors)
        found = self._exchange(session.grid, server_round, SURVIVORS, asked, _signature)
        agreed = {session.nodes.index(node): signature for node, signature in found.items()}
        agreed = {
            position: signature
            for position, signature in sorted(agreed.items())
            if NodeIdentity.verifies(session.sign_keys[position], signature, text)
        }
        _require(server_round, len(agreed), session.threshold, "signed who stayed")
        return agreed

    def _shares(self, session: _Session, server_round: int, agreed: dict[int, bytes]) -> dict[int, list[bytes]]:
        told = secure_record({"signers": list(agreed), "signatures": list(agreed.values())})
        content = RecordDict({CONFIG: round_record(server_round), **told})
        asked = {session.nodes[position]: content for position in agreed}

        def read(content: RecordDict) -> list[tuple[int, bytes]]:
            positions = read_positions(content, "positions", len(session.nodes))
            return list(zip(positions, read_bytes(content, "shares", len(positions)), strict=True))

        opened = self._exchange(session.grid, server_round, UNMASK, asked, read)
        _require(server_round, len(opened), session.threshold, "opened their shares")
        shares: dict[int, list[bytes]] = {}
        for of_node in opened.values():
            for position, share in of_node:
                shares.setdefault(position, []).append(share)
        return shares

    def _exchange(
        self,
        grid: Grid,
        server_round: int,
        action: str,
        contents: Mapping[int, RecordDict],
        read: Callable[[RecordDict], T],
    ) -> dict[int, T]:
        """What ``read`` makes of the answers to ``contents``, by node."""
        replies = grid.send_and_receive(self._questions(action, contents), timeout=self.timeout)
        return {answer.node: answer.value for answer in self.collector.iter_replies(server_round, replies, read)}

    def _questions(self, action: str, contents: Mapping[int, RecordDict]) -> list[Message]:
        messages = [Message(content, node, f"train.{action}") for node, content in contents.items()]
        self.collector.expect_answers(messages)
        return messages


def _public_keys(content: RecordDict) -> tuple[bytes, bytes, bytes, bytes]:
    keys = read_public_key(content, "mask-key"), read_public_key(content, "letter-key")
    return (*keys, read_short(content, "sign-key", 32), read_short(content, "proof", 64))


def _signature(content: RecordDict) -> bytes:
    return read_short(content, "signature", 64)


def _require(server_round: int, found: int, needed: int, what: str) -> None:
    if found < needed:
        raise QuorumError(f"round {server_round}: {found} nodes {what}, {needed} are needed to add up securely")


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
