"""Statistics first: class-wise sums of features under shared random networks, which add up; distilled once."""

from fedcl_distill.statistics.codec import (
    BITS,
    NoisyExpectation,
    StatisticsExpectation,
    decode_noisy,
    decode_statistics,
    encode_noisy,
    encode_statistics,
    load_statistics,
    save_statistics,
)
from fedcl_distill.statistics.distil import StatisticsDistiller, distil_statistics
from fedcl_distill.statistics.fixed_point import FixedPoint, NoisyFixedPoint
from fedcl_distill.statistics.noisy import NoisyStatistics, Shares, add_up_noisy, release, spend, with_noise
from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.statistics.sums import ClassStatistics, RobustSum, Sums, add_up, class_statistics, no_statistics

__all__ = [
    "BITS",
    "ClassStatistics",
    "FixedPoint",
    "NoisyExpectation",
    "NoisyFixedPoint",
    "NoisyStatistics",
    "RobustSum",
    "Shares",
    "StatisticsDistiller",
    "StatisticsExpectation",
    "StatisticsSpec",
    "Sums",
    "add_up",
    "add_up_noisy",
    "class_statistics",
    "decode_noisy",
    "decode_statistics",
    "distil_statistics",
    "encode_noisy",
    "encode_statistics",
    "load_statistics",
    "no_statistics",
    "release",
    "save_statistics",
    "spend",
    "with_noise",
]
