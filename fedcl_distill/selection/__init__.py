"""Core-set selection: which real samples stand best for their class."""

from fedcl_distill.selection.base import Criterion, select
from fedcl_distill.selection.criteria import Herding, KCenter, Random
from fedcl_distill.selection.embeddings import Embedding, Inputs, TrainedEmbedding

__all__ = ["Criterion", "Embedding", "Herding", "Inputs", "KCenter", "Random", "TrainedEmbedding", "select"]
