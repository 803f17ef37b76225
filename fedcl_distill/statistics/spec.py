"""Which statistics all parties take: drawn from one shared seed, so that every sum is a sum of the same features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, Architecture, default_architecture
from fedcl_distill.parameterizations.checks import check_integer

MEAN, DIRECTION, CHARACTERISTIC = "mean", "direction", "characteristic"
BOUNDED = (DIRECTION, CHARACTERISTIC)
"""Kinds of which each number lies in [-1, 1], whatever the sample."""

_MOST_VIEWS = 100_000
_MOST_DIMENSIONS = 100_000
_LARGEST_MOMENTS = 64
_LONGEST_TEXT = 200
_WIDTH = 32


@dataclass(frozen=True)
class StatisticsSpec:
    """What is summed over a class: features under random networks, and coarse moments of the samples themselves.

    Each view is a random network with one draw of the augmentation, both named by ``seed`` and the number of the view.

    Attributes:
        seed: of everything drawn, in [0, 2**63).
        views: how many, at least 2.
        architecture: of the networks, as text for ``Architecture.parse``; None takes a ConvNet for images and an MLP
            for features, of width 32. The classifier on top is not used.
        kind: "mean" sums embeddings, as DM compares them (Zhao and Bilen 2023, equation 6). "direction" sums the same
            scaled to length 1, so that what one sample adds is bounded. "characteristic" sums
            cosines and sines of random projections of embeddings of length 1 (Rahimi and Recht 2007; compare Wang et
            al. 2025): each lies in [-1, 1], so that what one sample adds is bounded.
        dimensions: numbers a class in each view. Embeddings that are longer are projected to so many by a random
            matrix, which keeps squared distances on average (Johnson and Lindenstrauss 1984); 0 keeps them as they are.
            Characteristic features are an even number of them, half cosines and half sines.
        frequency: standard deviation of the frequencies of characteristic features; larger ones tell finer differences
            apart.
        share: fraction of the samples that each view looks at, in (0, 1]. Which ones follows from what they hold, not
            from where they are: so the sums are the same however the data are divided. It bounds the work.
        moments: images are averaged to so many pixels a side, and the second moments of these are summed, for the
            server's first samples; 0 for none. Feature vectors are taken as they are, if they are no longer than its
            square.
        augment: whether views augment as suits the data (DSA for images).

    Raises:
        SettingsError: on construction, if a value is of the wrong type, out of range or unknown.
    """

    seed: int = 0
    views: int = 50
    architecture: str | None = None
    kind: str = MEAN
    dimensions: int = 512
    frequency: float = 4.0
    share: float = 1.0
    moments: int = 7
    augment: bool = True

    def __post_init__(self) -> None:
        check_integer("statistics: seed", self.seed, 0, 2**63 - 1)
        check_integer("statistics: views", self.views, 2, _MOST_VIEWS)
        check_integer("statistics: dimensions", self.dimensions, 0, _MOST_DIMENSIONS)
        check_integer("statistics: moments", self.moments, 0, _LARGEST_MOMENTS)
        _check_number("frequency", self.frequency, 1e6)
        _check_number("share", self.share, 1)
        if self.kind not in (MEAN, *BOUNDED):
            raise SettingsError(f"statistics: unknown kind {self.kind!r}; known: {', '.join((MEAN, *BOUNDED))}")
        if self.kind == CHARACTERISTIC and (self.dimensions == 0 or self.dimensions % 2):
            raise SettingsError(f"characteristic features need an even number of dimensions, got {self.dimensions}")
        if type(self.augment) is not bool:
            raise SettingsError(f"statistics: augment must be true or false, got {self.augment!r}")
        if self.architecture is not None:
            if not isinstance(self.architecture, str) or len(self.architecture) > _LONGEST_TEXT:
                raise SettingsError("statistics: architecture must be a short text such as 'convnet:width=32'")
            DEFAULT_NETWORK_LIMITS.check_options(Architecture.parse(self.architecture))

    def architecture_for(self, sample_shape: tuple[int, ...]) -> Architecture:
        """Of the networks that look at samples of this shape."""
        if self.architecture is None:
            return default_architecture(sample_shape, _WIDTH)
        return Architecture.parse(self.architecture)

    def settings(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> StatisticsSpec:
        """The inverse of :meth:`settings`; absent fields take their default.

        Raises:
            SettingsError: a field is unknown, or as for the class.
        """
        known = list(cls.__dataclass_fields__)
        unknown = [str(name)[:50] for name in settings if name not in known]
        if unknown:
            raise SettingsError(f"statistics have no setting {', '.join(unknown[:5])}; they have: {', '.join(known)}")
        return cls(**settings)


def _check_number(name: str, value: object, most: float) -> None:
    if type(value) not in (int, float) or not 0 < value <= most:  # type: ignore[operator]
        raise SettingsError(f"statistics: {name} must be a number in (0, {most:g}], got {str(value)[:50]}")
