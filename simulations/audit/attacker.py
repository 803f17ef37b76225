"""What the attacker observes of candidates, and what follows about their membership."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedcl_distill.audit import lira_scores, logit_confidences, nearest, random_features
from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig, fit
from simulations.audit.game import Game
from simulations.audit.releases import Release
from simulations.audit.settings import AuditSettings

CONFIDENCE, PIXELS, FEATURES = "confidence", "pixels", "features"
"""What is observed of each candidate, larger for likely members: the logit of a model's confidence in its class, and
minus the logarithm of the distance to the nearest released sample of its class."""

_MIN_DISTANCE = 1e-3
_RECIPE = {"learning_rate": 0.02, "batch_size": 32, "schedule": "cosine"}


@dataclass(frozen=True)
class Attacker:
    """Sees releases, and knows what is public: the way they are made, candidates, reference samples."""

    settings: AuditSettings
    game: Game

    def model_of(self, release: Release, seed: int) -> Network:
        """A released model itself, or one that the attacker trains on a released set."""
        if isinstance(release, Network):
            return release
        test = self.game.test
        network = Architecture.parse(self.settings.architecture).build(
            test.sample_shape, test.num_classes, seed=seed, device=self.settings.device
        )
        fit(network, release.inputs(), release.labels, TrainConfig(self.settings.attack_epochs, **_RECIPE), seed=seed)  # type: ignore[arg-type]
        return network

    def observe(self, release: Release, model: Network) -> dict[str, Tensor]:
        """float64 (n,) of every kind of observation that the release offers."""
        observed = {CONFIDENCE: logit_confidences(model, self.game.candidates)}
        if isinstance(release, SyntheticSet):
            labels = release.hard_labels
            observed[PIXELS] = self._nearness(self._seen(release), labels, self._pixels)
            if self._features is not None:
                observed[FEATURES] = self._nearness(self._embed(release.inputs()), labels, self._features)
        return observed

    def scores(self, observed: Mapping[str, Tensor], release: int) -> dict[str, Tensor]:
        """The score of each attack on one of the releases, float64 (n,).

        Args:
            observed: (releases, n) of each kind; releases but the attacked one are shadows.
            release: the attacked one.
        """
        candidates, confidences = self.game.candidates, observed[CONFIDENCE]
        found = {
            "loss": confidences[release],
            "loss, by class": confidences[release] - _class_medians(confidences[release], candidates),
        }
        if len(confidences) > 2:
            found["LiRA"] = self._lira(confidences, release)
            found["LiRA offline"] = self._lira(confidences, release, offline=True)
        if PIXELS in observed:
            found["nearest pixels"] = observed[PIXELS][release]
            found["pixels, relative"] = observed[PIXELS][release] - self._usual_nearness
        if FEATURES in observed:
            found["nearest features"] = observed[FEATURES][release]
        if PIXELS in observed and len(confidences) > 2:
            found["LiRA on pixels"] = self._lira(observed[PIXELS], release)
        return found

    def _lira(self, observed: Tensor, release: int, *, offline: bool = False) -> Tensor:
        shadows = torch.arange(len(observed)) != release
        return lira_scores(observed[release], observed[shadows], self.game.members[shadows], offline=offline)

    def _nearness(self, released: Tensor, labels: Tensor, candidates: Tensor) -> Tensor:
        distances, _ = nearest(candidates, self.game.candidates.labels, released, labels)
        return nearness(distances)

    @cached_property
    def _pixels(self) -> Tensor:
        return _seen_of(self.game.candidates)

    @cached_property
    def _features(self) -> Tensor | None:
        """Of images alone: an untrained network tells nothing more of a few features."""
        return self._embed(self.game.candidates.inputs()) if self.game.candidates.is_image else None

    @cached_property
    def _usual_nearness(self) -> Tensor:
        references = self.game.references
        return self._nearness(_seen_of(references), references.labels, self._pixels)

    def _seen(self, release: SyntheticSet) -> Tensor:
        return pixels_of(release) if self.game.candidates.is_image else release.inputs()

    def _embed(self, inputs: Tensor) -> Tensor:
        return random_features(inputs, seed=derive_seed(self.settings.seed, "features"))


def _seen_of(data: LabelledData) -> Tensor:
    """Pixels as a viewer sees them; feature vectors normalised, so that no unit of measurement outweighs the others."""
    return data.unit() if data.is_image else data.inputs()


def pixels_of(release: SyntheticSet) -> Tensor:
    """Released samples in unit values, cut to the range of the data: what a viewer sees."""
    return release.samples().clamp(*release.value_range)


def nearness(distances: Tensor) -> Tensor:
    """Minus the logarithm of distances; of those in a class without released samples, less than any other."""
    found = -distances.double().clamp(min=_MIN_DISTANCE).log()
    finite = found.isfinite()
    return torch.where(finite, found, found[finite].min() - 1 if finite.any() else torch.zeros((), dtype=found.dtype))


def _class_medians(values: Tensor, data: LabelledData) -> Tensor:
    medians = torch.zeros_like(values)
    for label in torch.unique(data.labels).tolist():
        of_class = data.labels == label
        medians[of_class] = values[of_class].median()
    return medians
