"""Frozen features: sums that add up over clients and time, heads in closed form, and both as a few bytes."""

from fedcl_distill.features.backbone import BACKBONES, IMAGENET, Backbone, RandomFeatures
from fedcl_distill.features.codec import decode_head, decode_sums, encode_head, encode_sums, encoded_size, row_bytes
from fedcl_distill.features.heads import HEADS, LDA, Head, Logistic, NaiveBayes, NearestMean, Ridge, SumHead
from fedcl_distill.features.storages import (
    STORAGES,
    ClusterCentres,
    Diagonal,
    Full,
    LowRank,
    Means,
    Projected,
    Storage,
    Within,
    fewer_centres,
    measure,
    measure_data,
)
from fedcl_distill.features.sums import FeatureSums, second_moments, within_scatter

__all__ = [
    "BACKBONES",
    "HEADS",
    "IMAGENET",
    "LDA",
    "STORAGES",
    "Backbone",
    "ClusterCentres",
    "Diagonal",
    "FeatureSums",
    "Full",
    "Head",
    "Logistic",
    "LowRank",
    "Means",
    "NaiveBayes",
    "NearestMean",
    "Projected",
    "RandomFeatures",
    "Ridge",
    "Storage",
    "SumHead",
    "Within",
    "decode_head",
    "decode_sums",
    "encode_head",
    "encode_sums",
    "encoded_size",
    "fewer_centres",
    "measure",
    "measure_data",
    "row_bytes",
    "second_moments",
    "within_scatter",
]
