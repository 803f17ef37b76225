"""What every network offers: stages that end in an embedding, and a linear classifier on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

PRECISIONS = ("float32", "bfloat16")


class Network(nn.Module):
    """Stages whose last output, flattened, is the embedding; then a linear classifier.

    Attributes:
        body: the stages, one after the other: maps inputs (n, channels, height, width) or (n, features) to the last
            stage's output.
        classifier: linear map of embeddings to class scores.
        precision: "float32", or "bfloat16" for convolutions and products of the stages with 8 bits of mantissa, from
            and to float32: weights, embeddings, scores and all gradients of weights stay float32. Processors that
            have such instructions (AVX512-BF16, AMX, GPUs) then pass ConvNets half again as fast; others are slower.
            For first derivatives: those of gradient and trajectory matching are differences that 8 bits make coarse.
    """

    precision: str = "float32"

    def __init__(self, stages: Sequence[nn.Module], embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*stages)
        self.embedding_size = embedding_size
        self.classifier = nn.Linear(embedding_size, num_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        """float32 (n, embedding_size): what the classifier sees (the penultimate layer)."""
        with self._computing(inputs):
            embedding: Tensor = self.body(inputs).flatten(1)
        return embedding.to(inputs.dtype)

    def stages(self, inputs: Tensor) -> list[Tensor]:
        """float32 (n, …) output of every stage, not flattened; the last, flattened, is the embedding."""
        outputs: list[Tensor] = []
        reached = inputs
        with self._computing(inputs):
            for stage in self.body:
                reached = stage(reached)
                outputs.append(reached.to(inputs.dtype))
        return outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): unnormalised class scores."""
        scores: Tensor = self.classifier(self.embed(inputs))
        return scores

    def _computing(self, inputs: Tensor) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        # Without the cache: it would keep the first cast of a weight while the weight goes on learning.
        return torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=False)
