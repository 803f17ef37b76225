"""What is asked of nodes that hold features, and the servers that add up what they answer.

Sums go as they are, or as words: added up in secret, with noise, or both. What does not add up has neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.features import (
    STORAGES,
    FeatureSums,
    Head,
    SumHead,
    decode_sums,
    encode_sums,
    measure_data,
)
from fedcl_distill.features.release import SumWords, measure_within
from fedcl_distill.privacy import Guarantee, NoiseSource, PrivacyTarget, composed, weakest
from fedcl_distill.statistics.fixed_point import Words
from fedcl_distill.statistics.noisy import errors_kept_back, spend
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from strategies.federated.answers import (
    ClientReport,
    State,
    pack_payload,
    pack_words,
    unpack_payload,
    unpack_words,
    weights_of,
)
from strategies.federated.internals import log
from strategies.federated.private_statistics import NODE, PrivacyOptions, of_total
from strategies.federated.requests import CONFIG, Task, config_of, from_flat, round_record, to_flat
from strategies.federated.secure import Fixed, SecureOptions, SecureSum, send_words
from strategies.federated.strategy import ClientStep, ServerContext, TrainOnly

SUMS = "feature-sums"
_UNSEEN = -1e4  # the bias of a class that no node has, as a number that can be sent


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a node is asked: which second moments, as text for ``STORAGES``, and the bits of a value."""

    storage: str
    bits: int
    second_bits: int

    def to_record(self, server_round: int) -> ConfigRecord:
        return ConfigRecord({**round_record(server_round), **to_flat(self)})


def sum_features(task: Task) -> RecordDict:
    """The node's sums; SettingsError where its data are images, or the sums have more values than may be sent."""
    question = from_flat(Question, config_of(task.content))
    task.work_limits.check_numbers(question)
    if task.data.is_image:
        raise SettingsError("feature-sums takes feature vectors: let load_data put images through a backbone")
    sums = measure_data(task.data, question.storage)
    if sums.values > DEFAULT_LIMITS.max_values:
        raise SettingsError(f"sums of {sums.values:,} values, at most {DEFAULT_LIMITS.max_values:,} are sent")
    return pack_payload(SUMS, encode_sums(sums, question.bits, second_bits=question.second_bits or None))


SUMMED_FEATURES = ClientStep("feature_sums", sum_features)


class FeatureServer(TrainOnly):
    """Adds up what nodes sum, and fits a head to it.

    Attributes:
        sums: of all nodes, once the round is over.
        fitted: the head that follows from them.
        guarantee: what holds for each record; None without noise.
    """

    kind: str = SUMMED_FEATURES.kind
    """Message type of its requests."""

    def __init__(self, question: Question, head: SumHead, context: ServerContext) -> None:
        self.question, self.head = question, head
        self.spec, self.learner, self.collector = context.test.spec, context.learner, context.collector
        self.sums: FeatureSums | None = None
        self.fitted: Head | None = None
        self.guarantee: Guarantee | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask every node for its sums; there is no model to send."""
        content = RecordDict({CONFIG: self.question.to_record(server_round)})
        return self.collector.ask(grid, content, self.kind)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Check the sums, add them up in the order of partitions, and fit the head.

        Raises:
            QuorumError: too few answers could be used.
        """
        self.sums, heard = self._total(server_round, replies)
        self.fitted = self.head.fit(self.sums)
        return weights_of(self._network(self.fitted)), MetricRecord({"num-clients": heard})

    def state(self) -> State:
        """Nothing: there is one round."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing."""

    def summary(self) -> None:
        """Log what nodes are asked."""
        log.info("every node sends sums of its features: %s in %d bits", self.question.storage, self.question.bits)

    def _total(self, server_round: int, replies: Iterable[Message]) -> tuple[FeatureSums, int]:
        """The sums of all nodes that were heard, and how many these are."""
        answers = self.collector.iter_replies(server_round, replies, self._read)
        first, *others = (answer.value for answer in answers)
        return sum(others, first), len(answers)

    def _read(self, content: RecordDict) -> FeatureSums:
        payload = bytes(unpack_payload(content, SUMS, DEFAULT_LIMITS))
        sums = decode_sums(payload, self.spec.class_names, self.spec.sample_shape[0], self.spec.backbone)
        said = ClientReport.of(content).examples
        if round(sums.total) != said:
            raise PayloadError(f"sums count {sums.total:g} samples, the node says it has {said}")
        return sums

    def _network(self, head: Head) -> torch.nn.Module:
        network = self.learner.fresh()
        network.classifier.load_state_dict({"weight": head.weight, "bias": head.bias.clamp(min=_UNSEEN)})
        return network


EXACT, PRIVATE, MASKED, NOISED = "exact_features", "private_features", "masked_features", "noised_features"
_WORDS = "feature-words"


@dataclass(frozen=True, kw_only=True)
class WordsQuestion(Question):
    """Sums as words.

    Attributes:
        max_samples: of one class at a node.
        epsilon, delta: of the release; an ε of 0 for none.
        parties: how many nodes are asked.
    """

    max_samples: int = 10_000
    epsilon: float = 0.0
    delta: float = 1e-5
    parties: int = 1

    def words(self, spec: DataSpec, parties: int, fewest: int = 1) -> SumWords:
        """How sums of data like ``spec`` are words of so many nodes, ``fewest`` of which have all the noise.

        Raises:
            SettingsError: they do not fit, or would be more than may be sent.
        """
        found = SumWords(
            STORAGES.build(self.storage),
            spec.class_names,
            spec.sample_shape[0],
            spec.backbone,
            parties=parties,
            fewest=fewest if self.epsilon else 1,
            max_samples=self.max_samples,
            target=PrivacyTarget(self.epsilon, self.delta) if self.epsilon else None,
        )
        if found.length > DEFAULT_LIMITS.max_values:
            raise SettingsError(f"sums of {found.length:,} values, at most {DEFAULT_LIMITS.max_values:,} are sent")
        return found


def _question(task: Task) -> WordsQuestion:
    if task.data.is_image:
        raise SettingsError("feature-sums takes feature vectors: let load_data put images through a backbone")
    asked = from_flat(WordsQuestion, config_of(task.content))
    task.work_limits.check_numbers(asked)
    return asked


def _noised(task: Task, words: SumWords) -> Words:
    """The node's words with its share of noise, if its budget covers them; PrivacyError if not."""
    words.guarantee()  # what is impossible must not be paid for
    source, data = NoiseSource.fresh(), task.data
    assert words.target is not None
    if task.budget is not None:
        spend(task.budget, data, words.target, source, fingerprint(data, ["feature sums", repr(words)]))
    with errors_kept_back():
        return words.noised(words.words(measure_within(data, words.storage)), source)


def _exact(data: LabelledData, words: SumWords) -> Words:
    return words.words(measure_within(data, words.storage))


def send_exact(task: Task) -> RecordDict:
    """The node's words, for a server that adds noise to the total."""
    asked = _question(task)
    return RecordDict({_WORDS: pack_words(_exact(task.data, asked.words(task.data.spec, asked.parties)))})


def send_private(task: Task) -> RecordDict:
    """The node's words with all the noise of a release; PrivacyError if its budget does not cover it."""
    asked = _question(task)
    _require_noise(asked)
    return RecordDict({_WORDS: pack_words(_noised(task, asked.words(task.data.spec, asked.parties)))})


def send_masked(task: Task) -> RecordDict:
    """The node's words under masks."""
    asked = _question(task)
    return send_words(
        task, MASKED, lambda parties, threshold: _exact(task.data, asked.words(task.data.spec, parties, threshold))
    )


def send_noised(task: Task) -> RecordDict:
    """The same with the node's share of noise; PrivacyError if its budget does not cover the release."""
    asked = _question(task)
    _require_noise(asked)
    return send_words(
        task, NOISED, lambda parties, threshold: _noised(task, asked.words(task.data.spec, parties, threshold))
    )


def _require_noise(asked: WordsQuestion) -> None:
    if not asked.epsilon:
        raise SettingsError("a private release needs a positive epsilon")


WORD_STEPS = (
    ClientStep(EXACT, send_exact),
    ClientStep(PRIVATE, send_private, protected=True, discreet=True),
    ClientStep(MASKED, send_masked, discreet=True),
    ClientStep(NOISED, send_noised, protected=True, discreet=True),
)


class NoisyFeatures(FeatureServer):
    """Adds up words: with noise of every node, or with its own, once."""

    question: WordsQuestion

    def __init__(self, question: WordsQuestion, head: SumHead, context: ServerContext, privacy: PrivacyOptions) -> None:
        super().__init__(question, head, context)
        self.privacy = privacy
        self.kind = f"train.{PRIVATE if privacy.trust == NODE else EXACT}"
        self.words = question.words(context.test.spec, question.parties)
        self.words.guarantee()

    def _total(self, server_round: int, replies: Iterable[Message]) -> tuple[FeatureSums, int]:
        key, words = _WORDS, self.words
        answers = self.collector.iter_replies(
            server_round, replies, lambda content: unpack_words(content, key, words.dtype, words.length)
        )
        heard, total = len(answers), np.zeros(words.length, words.dtype)
        for answer in answers:
            np.add(total, answer.value, out=total)
        single = words.guarantee()
        if self.privacy.trust == NODE:
            together = weakest if self.privacy.disjoint_clients else composed
            self.guarantee = together([single] * heard)
            sums = words.total(total, heard)
        else:
            self.guarantee = of_total(single, 1 if self.privacy.disjoint_clients else heard)
            sums = words.total(words.noised(total), 1)
        _tell(self.guarantee)
        return sums, heard


class SecretFeatures(SecureSum, FeatureServer):
    """Learns the total of words alone; with shares of noise, no more of it than a release says."""

    request: WordsQuestion

    def __init__(
        self,
        question: WordsQuestion,
        head: SumHead,
        context: ServerContext,
        options: SecureOptions,
        privacy: PrivacyOptions,
    ) -> None:
        super().__init__(question, head, context)
        self.request, self.privacy = question, privacy
        self.action = NOISED if question.epsilon else MASKED
        self.secure(options, context.reply_seconds)

    def fixed_point(self, parties: int, threshold: int) -> SumWords:
        """How sums of so many nodes become words, of which so many are opened at least."""
        words = self.request.words(self.spec, parties, threshold)
        words.guarantee()
        return words

    def _length(self, fixed: Fixed) -> int:
        assert isinstance(fixed, SumWords)
        return fixed.length

    def _total(self, server_round: int, replies: Iterable[Message]) -> tuple[FeatureSums, int]:
        fixed, total, heard, _ = self._sum(server_round, replies)
        assert isinstance(fixed, SumWords)
        self.guarantee = of_total(fixed.guarantee(), 1 if self.privacy.disjoint_clients else heard)
        _tell(self.guarantee)
        return fixed.total(total, heard), heard


def _tell(guarantee: Guarantee | None) -> None:
    if guarantee is not None:
        log.info("of every record: %s", guarantee)
