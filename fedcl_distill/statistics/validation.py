"""What a server asks of statistics before it adds them to others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.seeding import generator_for
from fedcl_distill.statistics.domain import Domain
from fedcl_distill.statistics.features import feature_map
from fedcl_distill.statistics.spec import BOUNDED, StatisticsSpec
from fedcl_distill.statistics.sums import FEATURES, MOMENTS, SAMPLES, ClassStatistics, shapes_of
from fedcl_distill.synthetic import Limits

_PROBES = 16  # noise samples by which to tell how large features may be
_EPSILON = 1e-2


@dataclass(frozen=True)
class StatisticsExpectation:
    """What statistics must be to be welcome.

    Attributes:
        spec, domain: exactly these.
        slack: means of embeddings may be so many times as large as the largest that noise gives. Nothing bounds
            embeddings of an arbitrary network; a mean far beyond could make all that is added to it useless.

    Raises:
        SettingsError: on construction, if the slack is not positive or the specification does not suit the domain.
    """

    spec: StatisticsSpec
    domain: Domain
    slack: float = 10.0

    def __post_init__(self) -> None:
        if not self.slack > 0:
            raise SettingsError(f"statistics: slack must be positive, got {self.slack}")
        shapes_of(self.spec, self.domain)

    @property
    def limits(self) -> Limits:
        """What a decoder may read of an honest answer, at 32 bits a value."""
        pairs = [(views * self.domain.num_classes, size) for views, size in shapes_of(self.spec, self.domain).values()]
        values = sum(rows * size for rows, size in pairs)
        counts = sum(rows for rows, _ in pairs)
        names = sum(len(name.encode()) for name in self.domain.class_names) + 40 * sum(self.domain.sample_shape[:1])
        header = Limits.max_metadata_bytes + 2 * names
        return Limits(
            max_payload_bytes=4 * (values + counts) + header,
            max_metadata_bytes=header,
            max_values=max(values, 1),
        )

    def check(self, statistics: ClassStatistics) -> None:
        """Return if ``statistics`` are as expected.

        Raises:
            PayloadError: they are not; the message says what was found and what was expected.
        """
        if statistics.spec != self.spec:
            raise PayloadError("statistics are of another specification than was asked for")
        if statistics.domain != self.domain:
            raise PayloadError("statistics are of another kind of data than was asked for (shape, classes, scale)")
        if int(statistics.class_counts.sum()) == 0:
            raise PayloadError("statistics count no samples")
        for name, (low, high) in self._bounds.items():
            smallest, largest = (extreme.item() for extreme in torch.aminmax(statistics.sums[name].means))
            if not low <= smallest <= largest <= high:
                raise PayloadError(
                    f"means of {name} span [{smallest:g}, {largest:g}], expected within [{low:g}, {high:g}]"
                )

    @property
    def magnitudes(self) -> dict[str, float]:
        """The largest absolute mean of each kind; 1 where features are bounded by design."""
        bounds = {name: max(-low, high) for name, (low, high) in self._bounds.items()}
        return {**bounds, FEATURES: 1.0} if self.spec.kind in BOUNDED else bounds

    @cached_property
    def _bounds(self) -> dict[str, tuple[float, float]]:
        """Between which all means of each kind must lie; 0, that of absent classes, always does."""
        channels = self.domain.sample_shape[0]
        shape = (2, channels) + (1,) * (len(self.domain.sample_shape) - 1)
        corners = torch.tensor(self.domain.value_range)[:, None].expand(2, channels).reshape(shape)
        inputs = self.domain.normalisation.apply(corners)
        low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
        most = max(-low, high)
        bounds = {SAMPLES: _widened(low, high), FEATURES: self._feature_bound()}
        if MOMENTS in shapes_of(self.spec, self.domain):
            bounds[MOMENTS] = _widened(-(most**2), most**2)
        return bounds

    @torch.no_grad()
    def _feature_bound(self) -> tuple[float, float]:
        if self.spec.kind in BOUNDED:
            return _widened(-1, 1)
        noise = torch.randn(_PROBES, *self.domain.sample_shape, generator=generator_for(self.spec.seed, "probes"))
        classes = torch.arange(_PROBES) % self.domain.num_classes
        features = feature_map(self.spec, self.domain, 0, torch.device("cpu"))
        most = self.slack * float(features(noise, classes).abs().max())
        return -most, most


def _widened(low: float, high: float) -> tuple[float, float]:
    """Room for rounding."""
    margin = _EPSILON * max(1.0, abs(low), abs(high))
    return low - margin, high + margin
