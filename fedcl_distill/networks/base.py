"""What every network offers: stages that end in an embedding, and a linear classifier on top of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Network(nn.Module):
    """Stages whose last output, flattened, is the embedding; then a linear classifier.

    Attributes:
        body: the stages, one after the other: maps inputs (n, channels, height, width) or (n, features) to the last
            stage's output.
        classifier: linear map of embeddings to class scores.
    """

    def __init__(self, stages: Sequence[nn.Module], embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*stages)
        self.embedding_size = embedding_size
        self.classifier = nn.Linear(embedding_size, num_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        """float32 (n, embedding_size): what the classifier sees (the penultimate layer)."""
        embedding: Tensor = self.body(inputs).flatten(1)
        return embedding

    def stages(self, inputs: Tensor) -> list[Tensor]:
        """float32 (n, …) output of every stage, not flattened; the last, flattened, is the embedding."""
        outputs: list[Tensor] = []
        for stage in self.body:
            inputs = stage(inputs)
            outputs.append(inputs)
        return outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): unnormalised class scores."""
        scores: Tensor = self.classifier(self.embed(inputs))
        return scores
