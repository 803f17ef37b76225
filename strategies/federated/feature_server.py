"""What is asked of nodes that hold features, and the server that adds up what they answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.features import (
    FeatureSums,
    Head,
    SumHead,
    decode_sums,
    encode_sums,
    measure_data,
)
from fedcl_distill.privacy import Guarantee
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from strategies.federated.answers import ClientReport, pack_payload, unpack_payload
from strategies.federated.internals import log
from strategies.federated.node import Task
from strategies.federated.requests import CONFIG, config_of, from_flat, round_record, to_flat
from strategies.federated.state import State
from strategies.federated.strategy import ClientStep, ServerContext, TrainOnly
from strategies.federated.weights import weights_of

SUMS = "feature-sums"
_UNSEEN = -1e4  # the bias of a class that no node has, as a number that can be sent


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a node is asked: which second moments, as text for ``STORAGES``, the bits of a value, and of which features.

    Attributes:
        backbone: fingerprint of what made them; a node with features of another one answers nothing.
    """

    storage: str
    bits: int
    second_bits: int
    backbone: str = ""

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
