"""Many synthetic sets as one of fixed size: a set that grows is distilled anew, so that memory stays bounded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine import Budget, Distiller, finished
from fedcl_distill.errors import DataError
from fedcl_distill.privacy.accounting import KEY, composed, guarantee_of, weakest
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, checked, settings
from fedcl_distill.synthetic import SyntheticSet, union
from fedcl_distill.training import check_weights, systematic_resample


@dataclass(frozen=True)
class WeightedSet:
    """A synthetic set that knows how much each of its samples stands for.

    Attributes:
        synthetic: the set.
        weights: float64 (n,), positive: real samples behind each decoded sample, or anything in proportion to them.

    Raises:
        SettingsError: on construction, if weights do not fit the samples, or one is not finite and positive.
    """

    synthetic: SyntheticSet
    weights: Tensor

    def __post_init__(self) -> None:
        check_weights(self.weights, len(self.synthetic))

    @property
    def class_weights(self) -> Tensor:
        """float64 (classes,): what the samples of each class stand for together."""
        return torch.bincount(
            self.synthetic.hard_labels, weights=self.weights.double(), minlength=self.synthetic.num_classes
        )

    @classmethod
    def standing_for(cls, synthetic: SyntheticSet, real: float) -> WeightedSet:
        """``synthetic``, whose samples stand for ``real`` > 0 real samples together, each for as many."""
        return cls(synthetic, torch.full((len(synthetic),), real / max(len(synthetic), 1), dtype=torch.float64))

    def as_labelled_data(self, seed: int) -> LabelledData:
        """As many samples as there are here, each as often as its weight among those of its class says.

        Any distiller and any core set can so work on weighted samples. Soft labels become their most probable class.
        Every sample occurs once where weights within classes are equal.
        """
        data = self.synthetic.as_labelled_data()
        rows = []
        for label in range(data.num_classes):
            own = data.indices_of(label)
            if len(own):
                rows.append(own[systematic_resample(self.weights[own], generator_for(seed, "weighted", label))])
        return data.subset(torch.cat(rows))


def weighted_union(parts: list[WeightedSet], *, disjoint: bool = False) -> WeightedSet:
    """All samples of ``parts`` with their weights, in the order given; DataError as for ``union``.

    Privacy guarantees add up, unless whoever calls states that no record is in two ``parts`` (``disjoint``); then the
    weakest holds.
    """
    claims = [guarantee_of(part.synthetic.provenance) for part in parts]
    guarantee = weakest(claims) if disjoint else composed(claims)
    kept = {} if guarantee is None else {KEY: guarantee.as_record()}
    whole = union([part.synthetic for part in parts], {"merged": len(parts), **kept})
    return WeightedSet(whole, torch.cat([part.weights for part in parts]))


@settings
class Merger:
    """Distils a weighted set to a smaller one.

    Attributes:
        distiller: any, core sets included.
        per_class: samples of each class that is present, or as many as there are.
        budget: of each distillation; None takes the distiller's own.
        device: where to compute.
        disjoint: whether no real record is behind two of the sets; guarantees add up otherwise.

    Raises:
        SettingsError: on construction, if a value does not fit.
    """

    distiller: Distiller
    per_class: Count
    budget: Budget | None = None
    device: str = "cpu"
    disjoint: bool = False

    def merge(self, parts: list[WeightedSet], seed: int) -> WeightedSet:
        """One set for all ``parts``: each class keeps its weight, spread evenly over its samples.

        Raises:
            DataError: there are no parts, or they differ in classes, shape or normalisation.
            DivergenceError: the distiller's loss stopped being finite.
        """
        whole = weighted_union(parts, disjoint=self.disjoint)
        synthetic = finished(
            self.distiller.distil(
                whole.as_labelled_data(seed),
                self.per_class,
                seed=seed,
                budget=self.budget,
                device=self.device,
                absent_classes="skip",
            )
        )
        # What it was distilled from may have had a wider range than real data.
        plain = union([synthetic.with_spec(value_range=whole.synthetic.value_range)], whole.synthetic.provenance)
        labels = plain.hard_labels
        share = whole.class_weights / labels.bincount(minlength=plain.num_classes).clamp(min=1)
        return WeightedSet(plain, share[labels])


class MergeTree:
    """Takes sets one by one and holds never more than a bounded number of samples.

    Sets gather on the lowest level. Where a level would hold more than ``max_samples``, it is merged into one set on
    the next. N samples so pass through about log N distillations, and as many levels are held.

    Args:
        merger: how a level becomes one set.
        max_samples: decoded samples that a level holds, positive; a level of two sets holds these in any case.
        seed: names every distillation by its place.

    Attributes:
        merges: distillations so far.

    Raises:
        SettingsError: on construction, if a value does not fit.
    """

    @checked
    def __init__(self, merger: Merger, max_samples: Count, seed: int) -> None:
        self.merger, self.max_samples, self.seed = merger, max_samples, seed
        self.merges = 0
        self._levels: list[list[WeightedSet]] = []

    def add(self, one: WeightedSet) -> None:
        """Take one more set; DataError if it differs from others in classes, shape or normalisation."""
        self._put(0, one)

    def result(self) -> WeightedSet:
        """One set of at most ``merger.per_class`` samples a class; of fewer where fewer were ever added.

        The tree is empty afterwards.

        Raises:
            DataError: nothing was added.
        """
        parts = [part for level in reversed(self._levels) for part in level]
        self._levels = []
        if not parts:
            raise DataError("a merge tree without sets has no result")
        whole = weighted_union(parts, disjoint=self.merger.disjoint)
        if int(whole.synthetic.class_counts.max()) <= self.merger.per_class:
            return whole
        return self._merge(parts)

    def _put(self, height: int, one: WeightedSet) -> None:
        if height == len(self._levels):
            self._levels.append([])
        full = level = self._levels[height]
        if len(level) > 1 and sum(len(part.synthetic) for part in level) + len(one.synthetic) > self.max_samples:
            self._levels[height] = level = []
            self._put(height + 1, self._merge(full))
        level.append(one)

    def _merge(self, parts: list[WeightedSet]) -> WeightedSet:
        merged = self.merger.merge(parts, derive_seed(self.seed, "merge", self.merges))
        self.merges += 1
        return merged
