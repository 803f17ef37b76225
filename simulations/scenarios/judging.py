"""Saved sets judged as the settings of a run say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fedcl_distill.data import LabelledData
from fedcl_distill.evaluation import Evaluation, evaluate, find_protocol
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import SyntheticSet


class Judging(Protocol):
    """Settings of a judgement; the number of networks and their architecture are the protocol's where None."""

    @property
    def protocol(self) -> str: ...
    @property
    def networks(self) -> int | None: ...
    @property
    def architecture(self) -> str | None: ...
    @property
    def device(self) -> str: ...
    @property
    def seed(self) -> int: ...


def judge(
    settings: Judging,
    synthetic: SyntheticSet,
    test: LabelledData,
    on_network: Callable[[int, float], None] | None = None,
) -> Evaluation:
    """:func:`~fedcl_distill.evaluation.evaluate` with ``settings``."""
    return evaluate(
        synthetic,
        test,
        find_protocol(settings.protocol),
        seed=settings.seed,
        architecture=None if settings.architecture is None else Architecture.parse(settings.architecture),
        networks=settings.networks,
        device=settings.device,
        on_network=on_network,
    )
