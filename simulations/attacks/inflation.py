"""Lies about how many samples an answer stands for, consistent in all that it says."""

from __future__ import annotations

from dataclasses import replace

from flwr.app import RecordDict

from fedcl_distill.statistics import ClassStatistics, Sums, decode_statistics, encode_statistics
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from strategies.federated.answers import METRICS, SUMS, ClientReport, pack_payload, unpack_payload
from strategies.federated.requests import StatisticsRequest

_MOST = 10**9  # examples that a server takes for possible


def inflated(question: RecordDict, answer: RecordDict, factor: int) -> RecordDict:
    """``answer`` as of ``factor`` times as many samples, as far as a server believes; sums count them all, too."""
    facts = ClientReport.of(answer)
    factor = max(1, min(factor, _MOST // facts.examples))
    if factor == 1:
        return answer
    counts = tuple(factor * count for count in facts.class_counts)
    content = {**answer, METRICS: replace(facts, examples=factor * facts.examples, class_counts=counts).to_record()}
    if SUMS in answer:
        statistics = decode_statistics(unpack_payload(answer, SUMS, DEFAULT_LIMITS))
        bits = StatisticsRequest.of(question).bits
        content.update(pack_payload(SUMS, encode_statistics(_multiplied(statistics, factor), bits)))
    return RecordDict(content)


def _multiplied(statistics: ClassStatistics, factor: int) -> ClassStatistics:
    sums = {name: Sums(factor * one.counts, factor * one.values) for name, one in statistics.sums.items()}
    return replace(statistics, sums=sums)
