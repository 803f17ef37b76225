"""Every setting of a federated run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from flwr.app import UserConfig

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import Protocol, find_protocol
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import check_bits
from strategies.federated.requests import (
    DistilRequest,
    Flat,
    StatisticsRequest,
    SurrogateRequest,
    TrainRequest,
    from_flat,
    to_flat,
)


@dataclass(frozen=True)
class FederatedSettings:
    """Settings of one run, the same for every way of running it.

    Attributes:
        strategy: one of ``list_strategies()``.
        strategy_settings: in place of its defaults, as JSON values.
        rounds: of questions and answers.
        seed: fixes the result (same machine and thread count, distillation budget in steps).

        data: name of the data set.
        data_root: folder to search first; a place on this computer, and no part of :meth:`as_record`.
        train_limit: at most so many training samples, all clients together; None for all.
        validation_share: of the training data, in [0, 1), that no client gets and that the model is judged on in place
            of the test data: for choosing settings; 0 judges on the test data.
        clients: how many.
        partition: how the training data are divided over clients, such as "iid" or "dirichlet:0.1".
        min_client_samples: the fewest a client gets.

        method: by which clients distil, and
        method_settings: in place of its defaults, as JSON values.
        images_per_class: synthetic samples for each class that a client holds.
        byte_budget: largest payload of a client in bytes, in place of ``images_per_class``; None for no such budget.
        distil_steps, distil_seconds: when distillation stops, whichever comes first; the method's own where both are
            None. Only steps are reproducible.
        bits: a synthetic value is sent in.
        quantisation_aware: whether clients distil with values rounded to ``bits``, so that what they send is what they
            trained.
        fit_to_budget: whether clients spend their byte budget as suits it, on bits and resolution, in place of ``bits``
            and of whole images: see :func:`~fedcl_distill.engine.allocate_bits`.

        local_epochs, local_learning_rate, local_momentum, local_weight_decay, local_batch_size: of local training
            (FedAvg and its kin).
        local_augment: augment local training as suits the data.

        architecture: of the global model, such as "convnet:width=64"; None takes the protocol's.
        protocol: name of the evaluation protocol by which the server trains on synthetic sets.
        device: where server and clients compute.

        quorum: fraction of the clients, in [0, 1], whose answers are needed each round; one always is.
        slack: how far synthetic values may leave the data's range, as a multiple of its width. Unclamped methods do
            leave it: for pixels in [0, 1], DM at one image per class reached 3.7 after 4,000 steps.
        wait_seconds: for all clients to register; then the run goes on with those that did.
        reply_seconds: for the replies of a round.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    strategy: str = "one-shot"
    strategy_settings: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 1
    seed: int = 0

    data: str = "digits"
    data_root: str | None = None
    train_limit: int | None = None
    validation_share: float = 0.0
    clients: int = 4
    partition: str = "dirichlet:0.1"
    min_client_samples: int = 1

    method: str = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: int = 10
    byte_budget: int | None = None
    distil_steps: int | None = None
    distil_seconds: float | None = None
    bits: int = 8
    quantisation_aware: bool = False
    fit_to_budget: bool = False

    local_epochs: int = 1
    local_learning_rate: float = 0.01
    local_momentum: float = 0.9
    local_weight_decay: float = 5e-4
    local_batch_size: int = 32
    local_augment: bool = False

    architecture: str | None = None
    protocol: str = "fast"
    device: str = "cpu"

    quorum: float = 0.0
    slack: float = 10.0
    wait_seconds: float = 60.0
    reply_seconds: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("rounds", "clients", "images_per_class", "local_epochs", "local_batch_size"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("train_limit", "byte_budget", "distil_steps", "distil_seconds"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be positive or None, got {value}")
        check_bits(self.bits)
        _require(not self.fit_to_budget or self.byte_budget is not None, "fit_to_budget needs a byte_budget")
        share = self.validation_share
        _require(0 <= share < 1, f"validation_share must be at least 0 and less than 1, got {share}")
        _require(0 <= self.quorum <= 1, f"quorum must be in [0, 1], got {self.quorum}")
        find_protocol(self.protocol)
        if self.architecture is not None:
            Architecture.parse(self.architecture)

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer.

        A validation share and a fit to the budget are part of it where there are any.
        """
        record = asdict(self)
        del record["data_root"]
        for name in ("validation_share", "fit_to_budget"):
            if not record[name]:
                del record[name]
        return record

    def to_run_config(self) -> UserConfig:
        """As Flower's run configuration: kebab-case keys; 0 or "" for None; ``method-settings`` as JSON text."""
        return to_flat(self)

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Flat]) -> Self:
        """The inverse of :meth:`to_run_config`; absent keys take their default, unknown ones are not looked at.

        Raises:
            SettingsError: a value has the wrong type or is out of range.
        """
        return from_flat(cls, run_config)

    @property
    def server_protocol(self) -> Protocol:
        return find_protocol(self.protocol)

    def architecture_for(self, data: LabelledData) -> str:
        """The global model's architecture as text for ``Architecture.parse``."""
        if self.architecture is not None:
            return self.architecture
        chosen = self.server_protocol.architecture_for(data)
        options = ",".join(f"{key}={value}" for key, value in chosen.options.items())
        return f"{chosen.name}:{options}" if options else chosen.name

    def distil_request(self, data: LabelledData) -> DistilRequest:
        """What clients are asked that send synthetic sets; ``data`` gives the normalisation."""
        return DistilRequest(
            seed=self.seed,
            mean=data.normalisation.mean,
            std=data.normalisation.std,
            method=self.method,
            method_settings=self.method_settings,
            images_per_class=self.images_per_class,
            byte_budget=self.byte_budget,
            steps=self.distil_steps,
            seconds=self.distil_seconds,
            bits=self.bits,
            quantisation_aware=self.quantisation_aware,
            fit_to_budget=self.fit_to_budget,
        )

    def surrogate_request(self, data: LabelledData, radius: float, weight_bits: int) -> SurrogateRequest:
        """What clients are asked that distil around the model; ``data`` gives architecture and normalisation."""
        architecture = self.architecture_for(data)
        return self.distil_request(data).extended(
            SurrogateRequest, architecture=architecture, radius=radius, weight_bits=weight_bits
        )

    def statistics_request(self, data: LabelledData, statistics: Mapping[str, Any]) -> StatisticsRequest:
        """What clients are asked that send sums; ``data`` gives the normalisation."""
        return StatisticsRequest(
            seed=self.seed,
            mean=data.normalisation.mean,
            std=data.normalisation.std,
            statistics=statistics,
            bits=self.bits,
        )

    def train_request(self, data: LabelledData) -> TrainRequest:
        """What clients are asked that train the model; ``data`` gives architecture and normalisation."""
        return TrainRequest(
            seed=self.seed,
            mean=data.normalisation.mean,
            std=data.normalisation.std,
            architecture=self.architecture_for(data),
            epochs=self.local_epochs,
            learning_rate=self.local_learning_rate,
            momentum=self.local_momentum,
            weight_decay=self.local_weight_decay,
            batch_size=self.local_batch_size,
            augment=self.local_augment,
        )


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SettingsError(otherwise)
