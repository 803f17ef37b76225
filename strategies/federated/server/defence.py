"""What a server does against sets that lie: drop what others disagree with, and bound what any client counts for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl_distill.robust import Agreement, Judge, Verdict, capped
from fedcl_distill.specs import read_spec
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.server.collector import Answer, ReplyCollector

DEFENCES: dict[str, Callable[..., Judge]] = {"agreement": Agreement}


@dataclass(frozen=True)
class Defence:
    """A judge of the sets of one round.

    Attributes:
        judge: says which samples are used.
        seed: of the run.
        device: where to compute.
    """

    judge: Judge
    seed: int
    device: str = "cpu"

    def sift(
        self, collector: ReplyCollector, server_round: int, answers: list[Answer[SyntheticSet]]
    ) -> list[Answer[SyntheticSet]]:
        """The answers that are left, with what is left of their sets; the rest is counted among the rejections.

        Raises:
            QuorumError: too few answers are left.
        """
        verdicts = self.judge.judge([answer.value for answer in answers], seed=self.seed, device=self.device)
        left = []
        for answer, verdict in zip(answers, verdicts, strict=True):
            for drop in verdict.drops:
                collector.reject(server_round, answer, drop.reason, label=drop.label, samples=drop.samples)
            if verdict.kept.any():
                left.append(_what_is_kept(answer, verdict))
        collector.require_quorum(server_round, len(left))
        return left


def read_defence(text: str, seed: int, device: str) -> Defence | None:
    """The defence that ``text`` names, such as "agreement:tolerance=0.6"; None for "".

    Raises:
        SettingsError: it is unknown, or its settings are.
    """
    return Defence(read_spec("defence", text, DEFENCES), seed, device) if text else None


def capped_by_class(weights: Tensor, labels: Tensor, owners: Tensor, share: float) -> Tensor:
    """float64 (n,): ``weights`` of samples, where no owner has more than ``share`` of a class's weight.

    Args:
        weights: float (n,), positive.
        labels, owners: int64 (n,): the class of each sample, and whose it is.
        share: in (0, 1]. A class of so few owners that all of them exceed it is shared among them evenly.
    """
    result = weights.double().clone()
    for label in range(int(labels.max()) + 1):
        rows = torch.nonzero(labels == label).flatten()
        held = torch.bincount(owners[rows], weights=result[rows])
        factors = capped(held, share) / held.clamp(min=torch.finfo(held.dtype).tiny)
        result[rows] *= factors[owners[rows]]
    return result


def _what_is_kept(answer: Answer[SyntheticSet], verdict: Verdict) -> Answer[SyntheticSet]:
    if verdict.kept.all():
        return answer
    return replace(answer, value=answer.value.subset(torch.nonzero(verdict.kept).flatten()))
