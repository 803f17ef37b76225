"""Models that go the wrong way."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, RecordDict

from fedcl_distill.settings import Positive, settings
from simulations.attacks.base import Attack
from strategies.federated.answers import WEIGHTS, unpack_weights


@settings(kw_only=True)
class SignFlip(Attack):
    """What training changed, times a negative number: the model is taken back along the way it should have gone.

    Attributes:
        scale: positive: how far.
    """

    scale: Positive = 1.0

    needs_model = True

    def send(self, question: RecordDict, answer: RecordDict) -> RecordDict:
        before, after = unpack_weights(question), unpack_weights(answer)
        flipped = {}
        for name, array in after.items():
            start = before[name].numpy()
            flipped[name] = Array((start - self.scale * (array.numpy() - start)).astype(start.dtype))
        return super().send(question, RecordDict({**answer, WEIGHTS: ArrayRecord(flipped)}))
