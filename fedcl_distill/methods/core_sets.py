"""Core sets as methods: real samples at the same call, so that every comparison has them beside distilled sets."""

from __future__ import annotations

from fedcl_distill.engine import CoreSet
from fedcl_distill.selection import Embedding, Herding, Inputs, KCenter, Random


def random() -> CoreSet:
    """Uniformly random real samples of each class."""
    return CoreSet(Random())


def herding(*, embedding: Embedding | None = None) -> CoreSet:
    """Real samples whose running mean stays closest to the class mean (Welling 2009; Rebuffi et al. 2017)."""
    return CoreSet(Herding(embedding or Inputs()))


def k_center(*, embedding: Embedding | None = None) -> CoreSet:
    """Real samples that cover the class: greedy k-center (Sener and Savarese 2018)."""
    return CoreSet(KCenter(embedding or Inputs()))
