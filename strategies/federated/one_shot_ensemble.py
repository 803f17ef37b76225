"""One-shot federated learning by an ensemble (Guha et al. 2019), distilled on synthetic samples.

Each node trains a model of its own until it is done, and distils its data. It sends both, once. The server lets all
models together say what the samples of all synthetic sets are, and trains the global model on these answers. Guha et
al. distil on public unlabelled data; here the synthetic sets stand in for those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Literal

import torch
from flwr.app import Message, RecordDict

from fedcl_distill.errors import PayloadError
from fedcl_distill.settings import Count, settings
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.aggregation import AggregatedSets, ReplyCollector, SetAggregator
from strategies.federated.answers import WEIGHTS, ClientReport, unpack_weights, weights_of
from strategies.federated.distillation import Distillation, DistilRequest, distilled
from strategies.federated.learner import Ensemble, Learner, ensemble_weights, scores
from strategies.federated.local_training import LocalTraining, TrainRequest, fit_locally
from strategies.federated.one_shot import OneShot, OneShotUnion
from strategies.federated.requests import CONFIG, Task
from strategies.federated.strategy import ClientStep, FederatedStrategy, ServerContext, register_strategy

DISTIL_CONFIG = "distil-config"
"""Where the request to distil stands beside the request to train."""


def train_and_distil(task: Task) -> RecordDict:
    """A model of the node's own, and a synthetic set."""
    request = TrainRequest.of(task.content)
    network = task.network(request, request.architecture)
    fit_locally(task, network, request)
    return RecordDict({WEIGHTS: weights_of(network), **distilled(task, DISTIL_CONFIG)})


ENSEMBLE = ClientStep("ensemble", train_and_distil, counts_classes=True)


@register_strategy("one-shot-ensemble")
@settings
class OneShotEnsemble(Distillation, FederatedStrategy):
    """Models, each trained until it is done, and synthetic sets, once: see this module.

    A node's class counts, which it tells the server, decide how much its model counts. What it says of a class counts
    only where its set shows samples of that class; beyond that, as with the sample counts of FedAvg, it is believed.

    Attributes:
        local: how every node trains its own model, but for its ``epochs``.
        epochs: of that training.
        weighting: how much each model counts for each class: see ``ensemble_weights``.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    local: LocalTraining = LocalTraining()
    epochs: Count = 50
    weighting: Literal["classes", "samples", "uniform"] = "classes"

    client_steps = (ENSEMBLE,)

    def server(self, context: ServerContext) -> OneShotEnsembleServer:
        context.require_one_round("one-shot-ensemble")
        architecture = context.learner.architecture_text
        train = replace(self.local, epochs=self.epochs).request(context.seed, architecture)
        own = OneShot(**{one.name: getattr(self, one.name) for one in fields(Distillation)})
        request = self.request(context.seed)
        union = request, own.aggregator(context), context.learner, context.collector
        return OneShotEnsembleServer(train, *union, weighting=self.weighting)


class OneShotEnsembleServer(OneShotUnion):
    """Collects models and synthetic sets, and trains the global model on what the models say about the sets.

    Args:
        train_request: how every node trains its own model.
        weighting: see ``ensemble_weights``.
        request, aggregator, learner, collector: as for :class:`OneShotUnion`.

    Attributes:
        synthetic: the union, with the ensemble's probabilities for labels, once the round is over.
        ensemble: the nodes' models, once the round is over.
    """

    def __init__(
        self,
        train_request: TrainRequest,
        request: DistilRequest,
        aggregator: SetAggregator,
        learner: Learner,
        collector: ReplyCollector,
        *,
        weighting: str = "classes",
    ) -> None:
        super().__init__(request, aggregator, learner, collector, ENSEMBLE)
        self.train_request = train_request
        self.weighting = weighting
        self.ensemble: Ensemble | None = None

    def _question(self, server_round: int) -> RecordDict:
        train, distil = self.train_request.to_record(server_round), self.request.to_record(server_round)
        return RecordDict({CONFIG: train, DISTIL_CONFIG: distil})

    def collect(self, server_round: int, replies: Iterable[Message]) -> AggregatedSets:
        """All valid sets as one, labelled by the models that came with them."""
        answers = self.collector.iter_replies(server_round, replies, self._read)
        gathered = self._keep(self.aggregator.unite(answers))
        united = gathered.synthetic
        counts = torch.tensor([_shown(answer.facts, answer.value) for answer in answers])
        members = [self.learner.with_weights(unpack_weights(answer.message.content)) for answer in answers]
        self.ensemble = Ensemble(members, ensemble_weights(counts, self.weighting))
        labelled = replace(united, labels=self.ensemble.probabilities(united.inputs()))
        self.gathered = replace(gathered, synthetic=labelled)
        return self.gathered

    def _read(self, content: RecordDict) -> SyntheticSet:
        synthetic = self.aggregator.read(content)
        member = self.learner.with_weights(unpack_weights(content))
        if not scores(member, synthetic.inputs()).isfinite().all():
            raise PayloadError("the model's scores of the node's own synthetic set are not finite")
        if not any(_shown(ClientReport.of(content), synthetic)):
            raise PayloadError("class counts name none of the classes of the synthetic set")
        return synthetic


def _shown(facts: ClientReport, synthetic: SyntheticSet) -> list[int]:
    """The class counts, 0 where the set shows no sample of the class.

    Raises:
        PayloadError: there are not as many counts as classes.
    """
    shown = synthetic.class_counts.tolist()
    if len(facts.class_counts) != len(shown):
        raise PayloadError(f"answer counts {len(facts.class_counts)} classes, expected {len(shown)}")
    return [count if samples else 0 for count, samples in zip(facts.class_counts, shown, strict=True)]
