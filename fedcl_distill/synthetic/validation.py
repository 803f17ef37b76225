"""What a server asks of a synthetic set before it uses one from a client."""

from __future__ import annotations

import torch

from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import PayloadError
from fedcl_distill.settings import Count, NonNegative, settings
from fedcl_distill.synthetic.set import SyntheticSet

_FLOAT_ROUNDING = 1e-4
_LABEL_ROUNDING = 0.5 / 255  # half a step of the coarsest codes that labels travel in, 8 bits


@settings
class Expectation:
    """What a synthetic set must look like to be welcome; soft labels must be probabilities.

    Attributes:
        spec: samples, classes, normalisation and value range must be exactly these, or the receiver's networks would
            read something else. Whether images may be mirrored is the sender's to say.
        slack: how far decoded values may leave ``value_range`` on either side, as a multiple of its width.
            Distilled pixels are usually not clamped and do leave it: on digits, DM with one image per class reached
            [-1.3, 3.2] after 2,000 steps and 3.7 after 4,000. 10.0 lets pixels of [0, 1] reach [-10, 11].
        max_samples: of all classes together, or None for no bound.
        max_samples_per_class: of any class (soft labels count for their largest entry), or None for no bound.

    Raises:
        SettingsError: ``slack`` is negative or a bound is below 1.
    """

    spec: DataSpec
    slack: NonNegative = 10.0
    max_samples: Count | None = None
    max_samples_per_class: Count | None = None

    def check(self, synthetic: SyntheticSet) -> None:
        """Return if ``synthetic`` is as expected; cheap questions come first, values last.

        Raises:
            PayloadError: it is not; the message says what was found and what was expected.
        """
        difference = self.spec.describe_difference(synthetic.spec)
        if difference is not None:
            raise PayloadError(f"synthetic set: {difference}")
        self._check_counts(synthetic)
        self._check_values(synthetic)

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
                    f"set has {int(most)} samples of class {self.spec.class_names[int(label)]!r}, "
                    f"at most {self.max_samples_per_class} are allowed"
                )

    def _check_values(self, synthetic: SyntheticSet) -> None:
        low, high = self.spec.value_range
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
