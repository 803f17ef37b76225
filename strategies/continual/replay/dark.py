"""Replay that remembers the scores which remembered samples got when they were new."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedcl_distill.data import LabelledData
from fedcl_distill.micro_batches import micro_batches
from fedcl_distill.synthetic import SyntheticSet, quantisation_error
from fedcl_distill.synthetic.quantise import Floats, Range, dequantise, quantise
from strategies.continual.memories.base import Memory
from strategies.continual.replay.plugin import Replay

_SCORE_BITS = 8
RANGE_BYTES = 8


class DERpp(Replay):
    """Keeps the scores (logits) of every remembered sample beside any memory (Buzzega et al. 2020).

    A sample keeps the scores it got when it was first remembered: it is found again among those held before by its
    values, up to what storing them again may change. A sample that was distilled anew gets new scores. They are stored
    in 8 bits over their range, and count among the bytes kept: the memory's budget must leave room for them.

    Args:
        memory, like, settings: see :class:`Replay`.
        bits: in which the memory stores values.
    """

    def __init__(self, memory: Memory, like: LabelledData, *, bits: int = 8, **settings: Any) -> None:
        super().__init__(memory, like, **settings)
        self._bits = bits

    _codes: Tensor = torch.zeros(0, 0, dtype=torch.uint8)
    _span: tuple[float, float] = (0.0, 0.0)

    def scores_of(self, rows: Tensor) -> Tensor:
        """float32 (n, classes): the stored scores of the samples at ``rows``."""
        return torch.from_numpy(dequantise(self._codes[rows].numpy(), Range(*self._span), _SCORE_BITS))

    def state(self) -> dict[str, Any]:
        return super().state() | {"codes": self._codes, "span": list(self._span)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._codes = state["codes"]
        self._span = (state["span"][0], state["span"][1])

    def _remember(self, data: LabelledData, network: nn.Module) -> None:
        before = self.memory.recall()
        self.memory.add(data)
        held = self.memory.recall()
        if held is None:
            return
        scores = _scores(network, held.inputs())
        if before is not None:
            old, rows = _found_again(held, before, self._bits)
            scores[old] = self.scores_of(rows)
        self._store(scores.numpy())

    def _store(self, scores: Floats) -> None:
        span = Range.of(scores)
        self._span = (span.low, span.high)
        self._codes = torch.from_numpy(quantise(scores, span, _SCORE_BITS))

    def _bytes_now(self) -> int:
        return super()._bytes_now() + self._codes.numel() + RANGE_BYTES


def _found_again(held: SyntheticSet, before: SyntheticSet, bits: int) -> tuple[Tensor, Tensor]:
    """Positions of samples in ``held`` that ``before`` held too, and where it had them."""
    slack = sum(max(quantisation_error(one, bits).values()) for one in (held, before))
    now, then = held.inputs().flatten(1), before.inputs().flatten(1)
    pairs = []
    for label in before.class_counts.nonzero().flatten().tolist():
        rows = torch.nonzero(before.hard_labels == label).flatten()
        for row in torch.nonzero(held.hard_labels == label).flatten().tolist():
            distance = (then[rows] - now[row]).abs().amax(dim=1)
            if float(distance.min()) <= slack:
                pairs.append((row, int(rows[distance.argmin()])))
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


@torch.no_grad()
def _scores(network: nn.Module, inputs: Tensor) -> Tensor:
    device, training = next(network.parameters()).device, network.training
    network.eval()
    scores = torch.cat([network(part.to(device)).cpu() for (part,) in micro_batches(inputs)])
    network.train(training)
    return scores
