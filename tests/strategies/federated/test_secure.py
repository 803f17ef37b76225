"""Secure aggregation: the total is exact, whoever is lost on the way, and a single message says nothing."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedcl_distill.data import partition
from fedcl_distill.errors import CheckpointError, PayloadError, SettingsError
from fedcl_distill.statistics import StatisticsSpec, class_statistics
from federations import data_and_test, honest_app, quick, run, tampered
from strategies.federated import (
    InProcessGrid,
    QuorumError,
    ReplyCollector,
    SecureOptions,
    ServerContext,
    make_client_app,
)
from strategies.federated.answers import weights_of
from strategies.federated.client import partition_of
from strategies.federated.requests import NodeIdentity, Task
from strategies.federated.secure import node

CLIENTS = 4
SMALL = {"views": 3, "architecture": "mlp:width=8", "dimensions": 6, "secure": True, "max_samples": 50}
EXCHANGES = ("keys", "letters", "masked", "survivors", "unmask")


def settings(**changes):
    chosen = {**SMALL, **changes.pop("strategy_settings", {})}
    base = {"strategy": "statistics", "clients": CLIENTS, "distil_steps": 2, "bits": 32}
    return quick(**{**base, **changes}, strategy_settings=chosen)


def served(one, tampers=None, watch=None):
    """The strategy after its round, and its collector."""
    train, test = data_and_test()
    app = tampered(honest_app(one, train), tampers or {})
    learner, collector = one.learner(test), ReplyCollector(one.clients, wait_seconds=0)
    strategy = one.build_strategy().server(ServerContext(test, learner, collector))
    with InProcessGrid(app if watch is None else watch(app), one.clients) as grid:
        strategy.start(grid, weights_of(learner.fresh()), 1)
    return strategy, collector


def of_parts(one, strategy, partitions, parties):
    """The plain total of the words of some partitions."""
    train, _ = data_and_test()
    parts = partition(train, one.partition, one.clients, seed=one.seed)
    fixed = strategy.request.fixed_point(parties)
    spec = StatisticsSpec.of(strategy.request.statistics)
    words = [fixed.words(class_statistics(parts[index], spec)) for index in partitions]
    return fixed.total(np.sum(words, axis=0, dtype=fixed.dtype), spec, strategy.expectation.domain)


def lost_at(action):
    def tamper(reply):
        if reply.metadata.message_type == f"train.{action}":
            raise RuntimeError("gone")
        return reply

    return tamper


@pytest.mark.parametrize("bits", [16, 32])
def test_the_total_is_that_of_the_words_bit_for_bit(bits):
    one = settings(bits=bits)
    strategy, collector = served(one)
    assert collector.rejections == []
    assert strategy.statistics.digest() == of_parts(one, strategy, range(CLIENTS), CLIENTS).digest()
    assert [facts.examples for facts in collector.facts[1]] == [1] * CLIENTS  # no node says how much it holds


@pytest.mark.parametrize("action", EXCHANGES)
def test_a_node_lost_at_any_exchange_leaves_an_exact_total(action):
    one = settings()
    strategy, collector = served(one, {2: lost_at(action)})
    (rejection,) = collector.rejections
    assert (rejection.node, rejection.reason) == (1002, "RuntimeError: gone")
    heard = [0, 1, 3] if action not in ("survivors", "unmask") else range(CLIENTS)  # what was added stays
    senders = CLIENTS - (action in ("keys", "letters"))
    assert strategy.statistics.digest() == of_parts(one, strategy, heard, senders).digest()


@pytest.mark.parametrize("action", EXCHANGES)
def test_too_few_that_stay_end_the_round(action):
    with pytest.raises(QuorumError, match=r"round 1: 2 nodes .* 3 are needed to add up securely"):
        run(settings(), {1: lost_at(action), 2: lost_at(action)})


def test_it_learns_what_it_learns_in_the_open():
    secret = run(settings(distil_steps=100))
    open_ = run(settings(distil_steps=100, strategy_settings={"secure": False}))
    assert secret.accuracy == pytest.approx(open_.accuracy, abs=0.05)
    assert secret.accuracy > 0.9


def words_sent(one):
    seen: dict[int, np.ndarray] = {}

    def watch(app):
        def call(message, context):
            reply = app(message, context)
            if message.metadata.message_type == "train.masked":
                seen[context.node_id] = reply.content["masked"]["payload"].numpy()
            return reply

        return call

    strategy, _ = served(one, watch=watch)
    return strategy, seen


def test_what_the_server_sees_is_noise():
    one = settings(strategy_settings={"views": 100})
    strategy, seen = words_sent(one)
    _, again = words_sent(one)
    fixed, domain = strategy.request.fixed_point(CLIENTS), strategy.expectation.domain
    for name, words in seen.items():
        counts = np.bincount(words.view(np.uint8), minlength=256)
        expected = counts.sum() / 256
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - 255) < 6 * np.sqrt(2 * 255)  # six standard deviations, 255 degrees of freedom
        assert (words == again[name]).mean() < 0.01  # fresh masks, though the run is the same
        with pytest.raises(PayloadError):
            fixed.total(words, strategy.expectation.spec, domain)
    assert set(seen) == {1000, 1001, 1002, 1003}
    some = sum((words for name, words in seen.items() if name != 1000), start=np.zeros_like(seen[1000]))
    with pytest.raises(PayloadError):  # nor does the sum of all but one say anything
        fixed.total(some, strategy.expectation.spec, domain)


def _content(reply, action, **values):
    if reply.metadata.message_type == f"train.{action}":
        record = reply.content["secure"]
        reply.content = RecordDict({**reply.content, "secure": ConfigRecord({**record, **values})})
    return reply


def no_key(reply):
    return _content(reply, "keys", **{"mask-key": b"no key"})


def key_of_another_curve(reply):
    weak = public_key_to_bytes(ec.generate_private_key(ec.SECP256R1()).public_key())
    return _content(reply, "keys", **{"letter-key": weak})


def too_few_letters(reply):
    return _content(reply, "letters", letters=[b"x"])


def huge_letters(reply):
    return _content(reply, "letters", letters=[bytes(10**6)] * CLIENTS)


def words_of_another_width(reply):
    if reply.metadata.message_type == "train.masked":
        words = reply.content["masked"]["payload"].numpy()
        reply.content = RecordDict(
            {**reply.content, "masked": ArrayRecord({"payload": Array(words.astype(np.uint16))})}
        )
    return reply


def too_few_words(reply):
    if reply.metadata.message_type == "train.masked":
        words = reply.content["masked"]["payload"].numpy()
        reply.content = RecordDict({**reply.content, "masked": ArrayRecord({"payload": Array(words[:-1])})})
    return reply


def positions_that_are_not(reply):
    return _content(reply, "unmask", positions=[0, 99])


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (no_key, "mask-key is no public key"),
        (key_of_another_curve, "no public key on the curve P-384"),
        (too_few_letters, "letters has 1 entries, expected 4"),
        (huge_letters, "byte strings of at most"),
        (words_of_another_width, "holds uint16"),
        (too_few_words, "expected uint32 of shape"),
        (positions_that_are_not, "positions must be ascending positions from 0 to 3"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_one_bad_node_is_turned_away(tamper, reason):
    result = run(settings(), {3: tamper})
    (rejection,) = result.rejections
    assert rejection.node == 1003
    assert reason in rejection.reason


def test_letters_that_one_node_forged_are_done_without():
    def forged(reply):
        if reply.metadata.message_type == "train.letters":
            letters = reply.content["secure"]["letters"]
            return _content(reply, "letters", letters=[b"forged", *letters[1:]])
        return reply

    one = settings()
    strategy, collector = served(one, {3: forged})
    assert collector.rejections == []
    assert strategy.statistics.digest() == of_parts(one, strategy, range(CLIENTS), CLIENTS).digest()


def test_a_sum_that_one_node_spoiled_is_not_taken_for_one():
    def spoiled(reply):
        if reply.metadata.message_type == "train.masked":
            words = reply.content["masked"]["payload"].numpy() + np.uint32(2**31)
            reply.content = RecordDict({**reply.content, "masked": ArrayRecord({"payload": Array(words)})})
        return reply

    with pytest.raises(PayloadError, match="total is no sum of statistics"):
        run(settings(), {3: spoiled})


def spoiling(action, name, count, bit=1):
    """A node that flips a byte in ``count`` of what it sends under ``name``."""

    def tamper(reply):
        if reply.metadata.message_type != f"train.{action}":
            return reply
        values = reply.content["secure"][name]
        flipped = [one[:20] + bytes([one[20] ^ bit]) + one[21:] for one in values[:count]]
        return _content(reply, action, **{name: [*flipped, *values[count:]]})

    return tamper


@pytest.mark.parametrize(("action", "name"), [("letters", "letters"), ("unmask", "shares")])
def test_what_one_node_flips_is_done_without(action, name):
    """The attack: the model was spoiled (0.47, and 0.05 of accuracy), and nothing said so."""
    one = settings()
    for count in (1, 2 if action == "unmask" else 1):
        strategy, _ = served(one, {0: spoiling(action, name, count)})
        assert strategy.statistics.digest() == of_parts(one, strategy, range(CLIENTS), CLIENTS).digest()


def test_a_seed_that_cannot_be_had_ends_the_round_and_names_the_exchange():
    with pytest.raises(PayloadError, match=r"train\.unmask: the shares of the secret of position 0"):
        run(settings(), {node: spoiling("unmask", "shares", CLIENTS, bit=node + 1) for node in (0, 1)})

    def committed_to_another(reply):
        return _content(reply, "letters", commitment=bytes(32))

    with pytest.raises(PayloadError, match=r"train\.unmask: the shares of the secret of position 2"):
        run(settings(), {2: committed_to_another})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 8}, "16 or 32 bits"),
        ({"strategy_settings": {"threshold": 0.5}}, "threshold must be in"),
        ({"strategy_settings": {"max_samples": 0}}, "max_samples"),
        ({"strategy_settings": {"max_samples": 50_000}, "bits": 16}, "4 parties of up to 50000 samples"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anyone_is_asked(changes, message):
    with pytest.raises(SettingsError, match=message):
        run(settings(**changes))


def test_two_nodes_are_too_few():
    with pytest.raises(QuorumError, match="2 nodes sent keys, 3 are needed"):
        run(settings(clients=2))


@pytest.mark.parametrize("nodes", range(3, 30))
def test_a_threshold_is_always_more_than_half(nodes):
    assert nodes < 2 * SecureOptions(threshold=0.51).threshold_of(nodes) <= 2 * nodes
    assert SecureOptions(threshold=1.0).threshold_of(nodes) == nodes


class Nodes:
    """Nodes without data, and a server of which they must not believe everything."""

    def __init__(self, count=3, threshold=2, identities=None):
        self.states, self.identities = [RecordDict() for _ in range(count)], identities or [None] * count
        public = [self.ask(index, node.announce_keys) for index in range(count)]
        names = {"mask-key": "mask-keys", "letter-key": "letter-keys", "sign-key": "sign-keys", "proof": "proofs"}
        self.request = {many: [of[one] for of in public] for one, many in names.items()} | {"threshold": threshold}

    def ask(self, index, work, server_round=1, **values):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round}), "secure": ConfigRecord(values)})
        answer = work(Task(content, None, index, "cpu", self.states[index], identity=self.identities[index]))
        return dict(answer["secure"])

    def share(self):
        shared = [self.ask(index, node.share_secrets, **self.request) for index in range(len(self.states))]
        self.letters = [one["letters"] for one in shared]
        return self.letters

    def send(self, index, senders):
        """A node's signature under the senders that it is told of."""
        letters = [self.letters[sender][index] for sender in senders]
        return self.ask(index, node.send_masked, senders=senders, letters=letters)["signature"]


@pytest.fixture
def without_data(monkeypatch):
    monkeypatch.setattr(node.SecureStatisticsRequest, "of", classmethod(lambda cls, _: _Nothing()))
    monkeypatch.setattr(Task, "admit_sums", lambda task, request: None)


def test_a_node_refuses_what_would_give_it_away():
    nodes = Nodes()
    keys = ("mask-keys", "letter-keys", "sign-keys", "proofs")
    for changes, reason in [
        ({"threshold": 1}, "threshold of 1"),
        ({"threshold": 4}, "threshold of 4"),
        ({key: nodes.request[key][1:] for key in keys}, "own keys"),
        ({key: [nodes.request[key][0]] * 3 for key in keys}, "the same"),
        ({"mask-keys": nodes.request["mask-keys"][::-1]}, "not signed"),
    ]:
        with pytest.raises(PayloadError, match=reason):
            nodes.ask(0, node.share_secrets, **{**nodes.request, **changes})
    nodes.share()
    with pytest.raises(CheckpointError, match="not at exchange 2"):  # another seed under the same keys
        nodes.ask(0, node.share_secrets, **nodes.request)
    with pytest.raises(CheckpointError, match="not at exchange 5"):  # shares before anything was sent
        nodes.ask(0, node.open_letters, signers=[0, 1, 2], signatures=[b""] * 3)
    with pytest.raises(CheckpointError, match="not at exchange 3"):  # in another round
        nodes.ask(0, node.send_masked, server_round=2, senders=[0, 1], letters=[b"", b""])
    with pytest.raises(PayloadError, match="1 nodes shared secrets, 2"):
        nodes.ask(0, node.send_masked, senders=[0], letters=[b""])
    with pytest.raises(PayloadError, match="this one among them"):
        nodes.ask(0, node.send_masked, senders=[1, 2], letters=[b"", b""])


def test_a_node_opens_its_letters_once_and_one_share_of_each(without_data):
    nodes, everyone = Nodes(), [0, 1, 2]
    nodes.share()
    sent = [nodes.send(index, everyone) for index in everyone]
    with pytest.raises(CheckpointError):  # the same masks for other sums
        nodes.send(0, everyone)
    with pytest.raises(PayloadError, match="1 nodes stayed, 2"):
        nodes.ask(0, node.confirm_survivors, survivors=[0], signatures=sent[:1])
    told = {"survivors": [0, 1], "signatures": sent[:2]}
    signed = [nodes.ask(index, node.confirm_survivors, **told)["signature"] for index in (0, 1)]
    with pytest.raises(CheckpointError):  # a second list
        nodes.ask(0, node.confirm_survivors, survivors=[0, 2], signatures=[sent[0], sent[2]])
    for signers, signatures in (([0], signed[:1]), ([0, 1], [signed[0]] * 2), ([0, 2], signed)):
        with pytest.raises(PayloadError, match=r"train\.unmask: 1 nodes signed"):
            nodes.ask(0, node.open_letters, signers=signers, signatures=signatures)
    opened = nodes.ask(0, node.open_letters, signers=[0, 1], signatures=signed)
    assert opened["positions"] == everyone
    assert Counter(map(len, opened["shares"])).most_common(1)[0][1] == 2  # two of seeds, one of a key
    assert "secure-aggregation" not in nodes.states[0]
    with pytest.raises(CheckpointError):
        nodes.ask(0, node.open_letters, signers=[0, 1], signatures=signed)


def test_a_server_that_tells_the_victim_of_other_senders_opens_nothing(without_data):
    """The attack: 0 masked with 1 and 2 alone, who were said to be lost to all others; three shares opened it."""
    nodes = Nodes(5, 3)
    nodes.share()
    sent = [nodes.send(0, [0, 1, 2]), *(nodes.send(index, [0, 1, 2, 3, 4]) for index in range(1, 5))]
    with pytest.raises(PayloadError, match="node 0 did not sign the senders"):
        nodes.ask(3, node.confirm_survivors, survivors=[0, 3, 4], signatures=[sent[0], sent[3], sent[4]])


def test_a_server_that_tells_of_other_survivors_opens_one_list_at_most(without_data):
    nodes, everyone = Nodes(5, 3), [0, 1, 2, 3, 4]
    nodes.share()
    sent = [nodes.send(index, everyone) for index in everyone]
    lists = {0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 2], 3: [0, 3, 4], 4: [0, 3, 4]}
    signed = {
        index: nodes.ask(index, node.confirm_survivors, survivors=told, signatures=[sent[one] for one in told])[
            "signature"
        ]
        for index, told in lists.items()
    }
    for index in (3, 4):
        with pytest.raises(PayloadError, match=r"train\.unmask: 2 nodes signed .* 3 are needed"):
            nodes.ask(index, node.open_letters, signers=everyone, signatures=[signed[one] for one in everyone])


def test_keys_known_beforehand_keep_a_server_out_that_hands_on_its_own():
    own = [NodeIdentity.fresh() for _ in range(3)]
    known = [NodeIdentity(one.private, frozenset(other.public for other in own)) for one in own]
    assert len(Nodes(identities=known).share()) == 3
    with pytest.raises(PayloadError, match="node 2 is none of those"):
        Nodes(identities=[*known[:2], NodeIdentity.fresh()]).share()
    one = settings()
    train, _ = data_and_test()
    parts = partition(train, one.partition, one.clients, seed=one.seed)
    four = [NodeIdentity.fresh() for _ in range(4)]
    app = make_client_app(
        lambda context: parts[partition_of(context)],
        load_identity=lambda context: NodeIdentity(
            four[partition_of(context)].private, frozenset(each.public for each in four)
        ),
    )
    strategy, collector = served(one, watch=lambda _: app)
    assert collector.rejections == []
    assert strategy.statistics is not None


class _Nothing:
    def fixed_point(self, parties):
        return SimpleNamespace(words=lambda _: np.zeros(1000, np.uint32))

    def measure(self, data, device):
        return None


def test_why_flowers_own_masks_and_mod_are_not_used():
    """Once this fails, Flower has changed, and docs/secure-aggregation.md with it."""
    one, other = bytes(32), bytes([1, 0, 0, 0]) * 2 + bytes(24)  # their eight words have the same exclusive or
    masks = [pseudo_rand_gen(seed, 2**32, [(100,)])[0] for seed in (one, other)]
    assert np.array_equal(*masks)
    told = []
    with InProcessGrid(
        lambda message, context: told.append(secaggplus_mod(message, context, _plain)) or told[-1], 1
    ) as g:
        list(g.send_and_receive([Message(RecordDict(), 1000, "train.statistics")]))
    assert told[0].content["secret"]["value"] == 42  # the mod lets messages of any named type through, unmasked


def _plain(message: Message, context: Context) -> Message:
    return Message(RecordDict({"secret": ConfigRecord({"value": 42})}), reply_to=message)
