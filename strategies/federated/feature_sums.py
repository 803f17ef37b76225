"""Sums of frozen features, once: every node sends counts, class means and second moments, the server a linear head.

Whoever holds a pretrained network trains nothing at a node. The head follows in closed form, is the same however
samples are divided over nodes, and costs one round: FedNCM from means alone (Legate et al. 2023), Fed3R and AFL by
ridge regression on whole matrices (Fanì et al. 2024; He et al. 2025), FedCGS by discriminant analysis (Guan et al.
2025). A few directions of the scatter within classes take a hundredth of a matrix's bytes. These baselines are
strategies of their own, by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.features import (
    HEADS,
    STORAGES,
    FeatureSums,
    Head,
    NaiveBayes,
    Storage,
    SumHead,
    Within,
    decode_sums,
    encode_sums,
    measure_data,
)
from fedcl_distill.registry import Plain, describe, to_text
from fedcl_distill.settings import Count, settings
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from strategies.federated.answers import ClientReport, State, pack_payload, unpack_payload, weights_of
from strategies.federated.internals import log
from strategies.federated.requests import CONFIG, Task, config_of, from_flat, round_record, to_flat
from strategies.federated.strategy import ClientStep, FederatedStrategy, ServerContext, TrainOnly, register_strategy

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
    if task.data.is_image:
        raise SettingsError("feature-sums takes feature vectors: let load_data put images through a backbone")
    sums = measure_data(task.data, question.storage)
    if sums.values > DEFAULT_LIMITS.max_values:
        raise SettingsError(f"sums of {sums.values:,} values, at most {DEFAULT_LIMITS.max_values:,} are sent")
    return pack_payload(SUMS, encode_sums(sums, question.bits, second_bits=question.second_bits or None))


@register_strategy("feature-sums")
@settings
class FederatedFeatures(FederatedStrategy):
    """Sums of features, once, and a linear head in closed form: see this module.

    Attributes:
        storage: which second moments nodes send: "means", "low-rank:rank=8", "centres:per_class=5", "diagonal",
            "projected:dimensions=256" or "full".
        head: what the server makes of the sums: "lda", "ncm", "ridge" or "logistic".
        bits: of each value of a class mean.
        second_bits: of each value of second moments; 0 takes ``bits``, and at least 8 for whole matrices.
        byte_budget: of a node's sums, in place of ``storage``: the whole matrix where it fits, else as many directions
            as fit, and never more bytes than its features themselves.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown, or the head is no linear one.

    Example:
        >>> run_server(grid, FederatedFeatures("low-rank:rank=16"), test=features_of_the_test_data)
    """

    storage: Storage | Plain = "low-rank:rank=8"
    head: SumHead | Plain = "lda"
    bits: Literal[2, 4, 8, 16, 32] = 4
    second_bits: Literal[0, 2, 4, 8, 16, 32] = 0
    byte_budget: Count | None = None

    client_steps = (ClientStep("feature_sums", sum_features),)
    network = "linear"

    def __post_init__(self) -> None:
        _ = self.kept
        if isinstance(HEADS.build(self.head), NaiveBayes):
            raise SettingsError("feature-sums trains a linear head; naive-bayes is none")

    def server(self, context: ServerContext) -> FeatureServer:
        context.require_one_round("feature-sums")
        if context.test.is_image:
            raise SettingsError("feature-sums takes feature vectors: put the server's images through the backbone, too")
        question = Question(
            storage=to_text(describe(self.kept)),
            bits=self.bits,
            second_bits=self.second_bits,
        )
        return FeatureServer(question, HEADS.build(self.head), context)

    @property
    def kept(self) -> Storage:
        """How nodes keep second moments.

        Raises:
            SettingsError: there is a byte budget for bits of second moments that it does not know.
        """
        if self.byte_budget is None:
            return STORAGES.build(self.storage)
        if self.second_bits:
            raise SettingsError("feature-sums: a byte budget chooses the bits of second moments; leave second_bits out")
        return Within(self.byte_budget, self.bits, 32 if self.bits == 32 else 16 if self.bits == 16 else 8)


@register_strategy("fedncm")
@settings
class FedNCM(FederatedFeatures):
    """Class means and the nearest of them (Legate et al. 2023)."""

    storage: Storage | Plain = "means"
    head: SumHead | Plain = "ncm"
    bits: Literal[2, 4, 8, 16, 32] = 32


@register_strategy("fed3r")
@settings
class Fed3R(FederatedFeatures):
    """Whole matrices and ridge regression (Fanì et al. 2024)."""

    storage: Storage | Plain = "full"
    head: SumHead | Plain = "ridge"
    bits: Literal[2, 4, 8, 16, 32] = 32


@register_strategy("afl")
@settings
class AFL(FederatedFeatures):
    """Whole matrices and least squares (He et al. 2025), who take each client's regularisation off again."""

    storage: Storage | Plain = "full"
    head: SumHead | Plain = "ridge:regularisation=1e-6"
    bits: Literal[2, 4, 8, 16, 32] = 32


@register_strategy("fedcgs")
@settings
class FedCGS(FederatedFeatures):
    """Class means and one covariance that all classes share: a Gaussian classifier (Guan et al. 2025)."""

    storage: Storage | Plain = "full"
    head: SumHead | Plain = "lda"
    bits: Literal[2, 4, 8, 16, 32] = 32


@register_strategy("fedpft")
@settings
class FedPFT(FederatedFeatures):
    """A diagonal Gaussian for each class of a node, and a head trained on draws (Beitollahi et al. 2024).

    With one component; the server draws from the Gaussian of all nodes together.
    """

    storage: Storage | Plain = "diagonal"
    head: SumHead | Plain = "logistic"
    bits: Literal[2, 4, 8, 16, 32] = 16


class FeatureServer(TrainOnly):
    """The server of :class:`FederatedFeatures`.

    Attributes:
        sums: of all nodes, once the round is over.
        fitted: the head that follows from them.
    """

    def __init__(self, question: Question, head: SumHead, context: ServerContext) -> None:
        self.question, self.head = question, head
        self.spec, self.learner, self.collector = context.test.spec, context.learner, context.collector
        self.sums: FeatureSums | None = None
        self.fitted: Head | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask every node for its sums; there is no model to send."""
        (step,) = FederatedFeatures.client_steps
        content = RecordDict({CONFIG: self.question.to_record(server_round)})
        return self.collector.ask(grid, content, step.kind)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Check the sums, add them up in the order of partitions, and fit the head.

        Raises:
            QuorumError: too few answers could be used.
        """
        answers = self.collector.iter_replies(server_round, replies, self._read)
        first, *others = (answer.value for answer in answers)
        self.sums = sum(others, first)
        self.fitted = self.head.fit(self.sums)
        return weights_of(self._network(self.fitted)), MetricRecord({"num-clients": len(answers)})

    def state(self) -> State:
        """Nothing: there is one round."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing."""

    def summary(self) -> None:
        """Log what nodes are asked."""
        log.info("every node sends sums of its features: %s in %d bits", self.question.storage, self.question.bits)

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
