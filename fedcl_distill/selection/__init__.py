"""Core-set selection: which real samples stand best for their class."""

from fedcl_distill.selection.base import Criterion, select
from fedcl_distill.selection.cluster_centres import ClusterCentres
from fedcl_distill.selection.criteria import ClosestToMean, Herding, KCenter, Random
from fedcl_distill.selection.embeddings import Embedding, Inputs, Thumbnails, TrainedEmbedding
from fedcl_distill.selection.forgetting import Forgetting

__all__ = [
    "ClosestToMean",
    "ClusterCentres",
    "Criterion",
    "Embedding",
    "Forgetting",
    "Herding",
    "Inputs",
    "KCenter",
    "Random",
    "Thumbnails",
    "TrainedEmbedding",
    "select",
]
