"""What every network offers: an embedding, and a linear classifier on top of it."""

from __future__ import annotations

from torch import Tensor, nn


class Network(nn.Module):
    """An embedding followed by a linear classifier.

    Attributes:
        body: maps inputs (n, channels, height, width) or (n, features) to embeddings (n, embedding_size).
        classifier: linear map of embeddings to class scores.
    """

    def __init__(self, body: nn.Module, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.embedding_size = embedding_size
        self.classifier = nn.Linear(embedding_size, num_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        """float32 (n, embedding_size): what the classifier sees (the penultimate layer)."""
        embedding: Tensor = self.body(inputs)
        return embedding

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): unnormalised class scores."""
        scores: Tensor = self.classifier(self.embed(inputs))
        return scores
