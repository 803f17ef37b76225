"""The server's own network: fresh weights, training on a synthetic set, and central evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ArrayRecord
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig, class_accuracies, fit, predict
from strategies.federated.messages.arrays import put_weights, weights_of
from strategies.federated.server.ball import L2Projection


@dataclass(frozen=True)
class Learner:
    """What the server trains, and how.

    Attributes:
        architecture: of the global model.
        train_config: of training on synthetic sets.
        sample_shape, num_classes: of the data.
        seed: of the run; fixes fresh weights, batch order and augmentation.
        device: where to compute.
    """

    architecture: Architecture
    train_config: TrainConfig
    sample_shape: tuple[int, ...]
    num_classes: int
    seed: int
    device: str = "cpu"

    def fresh(self) -> Network:
        """The global model before the first round: the same for every strategy of this seed."""
        seed = derive_seed(self.seed, "model")
        return self.architecture.build(self.sample_shape, self.num_classes, seed=seed, device=self.device)

    def with_weights(self, weights: ArrayRecord) -> Network:
        """The global model with ``weights``; PayloadError if they are another model's."""
        network = self.fresh()
        put_weights(network, weights)
        return network

    def learn(
        self,
        synthetic: SyntheticSet,
        server_round: int,
        *,
        sample_weights: Tensor | None = None,
        start: ArrayRecord | None = None,
        radius: float | None = None,
    ) -> ArrayRecord:
        """Weights of the global model after training on ``synthetic``.

        Args:
            synthetic: what to learn from.
            server_round: names the draws.
            sample_weights: float (n,), positive: how often each sample is seen; None: all alike.
            start: weights to begin with; fresh ones where None.
            radius: the farthest, in the Euclidean norm of all parameters, that training may go from there: after every
                step, weights outside are put back onto the sphere. None for no bound.

        Raises:
            DivergenceError: the loss stopped being finite.
            PayloadError: ``start`` holds another model's weights.
        """
        network = self.fresh() if start is None else self.with_weights(start)
        fit(
            network,
            synthetic.inputs(),
            synthetic.labels,
            self.train_config,
            seed=derive_seed(self.seed, "server", server_round),
            weights=sample_weights,
            keep_going=None if radius is None else L2Projection(network, radius).project,
        )
        return weights_of(network)

    def class_accuracies(self, weights: ArrayRecord, test: LabelledData) -> tuple[float, tuple[float, ...]]:
        """Accuracy on ``test``, and on each of its classes, in [0, 1]; NaN for a class without test samples."""
        predicted = predict(self.with_weights(weights), test)
        correct = (predicted == test.labels).double()
        return float(correct.mean()), tuple(class_accuracies(predicted, test).tolist())
