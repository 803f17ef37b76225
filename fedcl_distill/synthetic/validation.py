"""What a server asks of a synthetic set before it uses one from a client."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedcl_distill.data.labelled import LabelledData, Normalisation
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.synthetic.set import SyntheticSet

_FLOAT_ROUNDING = 1e-4
_LABEL_ROUNDING = 0.5 / 255  # half a step of the coarsest codes that labels travel in, 8 bits


@dataclass(frozen=True)
class Expectation:
    """What a synthetic set must look like to be welcome; soft labels must be probabilities.

    Attributes:
        sample_shape: of one decoded sample: (channels, height, width) or (features,).
        class_names: in this order.
        normalisation: exactly this one, or the receiver's networks would read something else.
        value_range: smallest and largest unit value of real samples.
        slack: how far decoded values may leave ``value_range`` on either side, as a multiple of its width.
            Distilled pixels are usually not clamped and do leave it: on digits, DM with one image per class reached
            [-1.3, 3.2] after 2,000 steps and 3.7 after 4,000. 10.0 lets pixels of [0, 1] reach [-10, 11].
        max_samples: of all classes together, or None for no bound.
        max_samples_per_class: of any class (soft labels count for their largest entry), or None for no bound.

    Raises:
        SettingsError: a range does not ascend, ``slack`` is negative or a bound is below 1.
    """

    sample_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: Normalisation
    value_range: tuple[float, float] = (0.0, 1.0)
    slack: float = 10.0
    max_samples: int | None = None
    max_samples_per_class: int | None = None

    def __post_init__(self) -> None:
        low, high = self.value_range
        if not low <= high:
            raise SettingsError(f"expectation: range [{low}, {high}] does not ascend")
        if not self.slack >= 0:
            raise SettingsError(f"expectation: slack must not be negative, got {self.slack}")
        for bound in (self.max_samples, self.max_samples_per_class):
            if bound is not None and bound < 1:
                raise SettingsError(f"expectation: a bound on samples must be at least 1, got {bound}")

    @classmethod
    def like(
        cls,
        data: LabelledData,
        *,
        slack: float = 10.0,
        max_samples: int | None = None,
        max_samples_per_class: int | None = None,
    ) -> Expectation:
        """Expect sets that stand for data like ``data``."""
        return cls(
            sample_shape=data.sample_shape,
            class_names=data.class_names,
            normalisation=data.normalisation,
            value_range=data.value_range,
            slack=slack,
            max_samples=max_samples,
            max_samples_per_class=max_samples_per_class,
        )

    def check(self, synthetic: SyntheticSet) -> None:
        """Return if ``synthetic`` is as expected; cheap questions come first, values last.

        Raises:
            PayloadError: it is not; the message says what was found and what was expected.
        """
        self._check_kind(synthetic)
        self._check_counts(synthetic)
        self._check_values(synthetic)

    def _check_kind(self, synthetic: SyntheticSet) -> None:
        if synthetic.sample_shape != self.sample_shape:
            raise PayloadError(f"samples have shape {synthetic.sample_shape}, expected {self.sample_shape}")
        if synthetic.num_classes != len(self.class_names):
            raise PayloadError(f"set has {synthetic.num_classes} classes, expected {len(self.class_names)}")
        for found, expected in zip(synthetic.class_names, self.class_names, strict=True):
            if found != expected:
                raise PayloadError(f"set has a class {found[:50]!r} where {expected!r} was expected")
        if synthetic.normalisation != self.normalisation:
            raise PayloadError("set is normalised with another mean or standard deviation than expected")
        if synthetic.value_range != self.value_range:
            raise PayloadError(f"set has value range {synthetic.value_range}, expected {self.value_range}")

    def _check_counts(self, synthetic: SyntheticSet) -> None:
        count = len(synthetic)
        if count == 0:
            raise PayloadError("set has no samples")
        if self.max_samples is not None and count > self.max_samples:
            raise PayloadError(f"set has {count} samples, at most {self.max_samples} are allowed")
        if self.max_samples_per_class is not None:
            most, label = synthetic.class_counts.max(dim=0)
            if int(most) > self.max_samples_per_class:
                raise PayloadError(
                    f"set has {int(most)} samples of class {self.class_names[int(label)]!r}, "
                    f"at most {self.max_samples_per_class} are allowed"
                )

    def _check_values(self, synthetic: SyntheticSet) -> None:
        low, high = self.value_range
        margin = self.slack * (high - low)
        # Rounding from normalising and back must not be a reason to refuse a set where the slack is 0.
        epsilon = 1e-4 * max(1.0, abs(low), abs(high))
        _check_range("samples", synthetic.samples(), low - margin - epsilon, high + margin + epsilon)
        if synthetic.labels.ndim == 2:
            _check_probabilities(synthetic.labels)


def _check_probabilities(labels: torch.Tensor) -> None:
    """Soft labels, (n, classes), are probabilities: others would count for more than one sample each."""
    _check_range("soft labels", labels, -_FLOAT_ROUNDING, 1 + _FLOAT_ROUNDING)
    totals = labels.sum(dim=1)
    rounding = _FLOAT_ROUNDING + _LABEL_ROUNDING * labels.shape[1]
    _check_range("sums of soft labels", totals, 1 - rounding, 1 + rounding)


def _check_range(what: str, values: torch.Tensor, low: float, high: float) -> None:
    smallest, largest = (float(extreme) for extreme in torch.aminmax(values))
    if not low <= smallest <= largest <= high:  # also false for NaN
        raise PayloadError(f"{what} span [{smallest:g}, {largest:g}], expected within [{low:g}, {high:g}]")
