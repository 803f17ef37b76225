"""The JSON header of an encoded synthetic set: everything but the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations import Setting, Shape
from fedcl_distill.synthetic.container import read_shape
from fedcl_distill.synthetic.limits import Limits
from fedcl_distill.synthetic.quantise import BITS, Range
from fedcl_distill.synthetic.strict_json import compact, parse_object

FORMAT = 1
HARD, SOFT = "hard", "soft"
_REQUIRED = {"format", "bits", "store", "classes", "labels", "mean", "std", "range"}
_OPTIONAL = {"settings", "ranges", "shapes", "provenance"}


@dataclass(frozen=True)
class Header:
    """What the metadata text says.

    Attributes:
        bits: depth of the stored arrays.
        parameterization: its name; ``settings`` rebuild it, with its defaults for those that are absent.
        class_names: one name a class. The names "0", "1", … travel as their count.
        labels: "hard" or "soft" if there is an array of labels; the number of samples of each class if there
            is none because samples are ordered by class.
        mean, std: the normalisation.
        value_range: of the real data, in unit values.
        ranges: of each quantised array.
        shapes: of each array stored as a flat run of packed codes.
        provenance: as given.
    """

    bits: int
    parameterization: str
    class_names: tuple[str, ...]
    labels: str | tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        """Compact JSON; raises PayloadError if the provenance is no JSON."""
        count = len(self.class_names)
        optional = {
            "settings": dict(self.settings),
            "ranges": {name: span.to_text() for name, span in self.ranges.items()},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "provenance": dict(self.provenance),
        }
        required = {
            "format": FORMAT,
            "bits": self.bits,
            "store": self.parameterization,
            "classes": count if self.class_names == numbered(count) else list(self.class_names),
            "labels": self.labels if isinstance(self.labels, str) else list(self.labels),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "range": [float(value) for value in self.value_range],
        }
        return compact(required | {key: value for key, value in optional.items() if value})

    @classmethod
    def from_text(cls, text: str, limits: Limits) -> Header:
        """The inverse of :meth:`to_text` for untrusted text; raises PayloadError on anything out of place."""
        raw = parse_object(text, "metadata")
        _check_keys(raw)
        low, high = read_numbers(raw, "range", 2)
        if low > high:
            raise PayloadError(f"metadata: value range must ascend, got [{low}, {high}]")
        mean = read_numbers(raw, "mean")
        return cls(
            bits=raw["bits"],
            parameterization=_string(raw, "store"),
            class_names=read_class_names(raw["classes"], limits),
            labels=_labels(raw["labels"]),
            mean=mean,
            std=read_numbers(raw, "std", len(mean)),
            value_range=(low, high),
            settings=_settings(read_mapping(raw, "settings")),
            ranges={name: Range.from_text(span) for name, span in read_mapping(raw, "ranges").items()},
            shapes={name: read_shape(name, shape, limits) for name, shape in read_mapping(raw, "shapes").items()},
            provenance=read_mapping(raw, "provenance"),
        )


def numbered(count: int) -> tuple[str, ...]:
    """The names "0", "1", … of so many classes."""
    return tuple(str(label) for label in range(count))


def _check_keys(raw: dict[str, Any]) -> None:
    version = raw.get("format")
    if type(version) is not int or version != FORMAT:
        raise PayloadError(f"metadata: format {version!r} is unknown, expected {FORMAT}")
    missing, superfluous = _REQUIRED - set(raw), set(raw) - _REQUIRED - _OPTIONAL
    if missing or superfluous:
        raise PayloadError(f"metadata: missing {sorted(missing)}, superfluous {sorted(superfluous)}")
    if type(raw["bits"]) is not int or raw["bits"] not in BITS:
        raise PayloadError(f"metadata: bits must be one of {BITS}, got {raw['bits']!r}")


def read_class_names(classes: Any, limits: Limits) -> tuple[str, ...]:
    """Names from their list, or from their number; PayloadError if it is neither."""
    count = len(classes) if isinstance(classes, list) else classes
    if type(count) is not int or not 1 <= count <= limits.max_classes:
        raise PayloadError(f"metadata: number of classes must be in [1, {limits.max_classes}], got {count!r}")
    if not isinstance(classes, list):
        return numbered(count)
    if not all(isinstance(name, str) for name in classes):
        raise PayloadError("metadata: class names must be strings")
    return tuple(classes)


def _labels(labels: Any) -> str | tuple[int, ...]:
    if isinstance(labels, str) and labels in (HARD, SOFT):
        return labels
    if isinstance(labels, list) and all(type(count) is int and count >= 0 for count in labels):
        return tuple(labels)
    raise PayloadError(f"metadata: labels must be {HARD!r}, {SOFT!r} or a count a class, got {labels!r}")


def read_numbers(raw: dict[str, Any], key: str, count: int | None = None) -> tuple[float, ...]:
    """``count`` finite numbers, or any number of them; PayloadError if ``raw[key]`` is something else."""
    values = raw[key]
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise PayloadError(f"metadata: {key} must be a list of numbers")
    if count is not None and len(values) != count:
        raise PayloadError(f"metadata: {key} needs {count} numbers, got {len(values)}")
    try:
        numbers = tuple(float(value) for value in values)
    except OverflowError as error:
        raise PayloadError(f"metadata: {key} holds a number out of range") from error
    if not all(math.isfinite(value) for value in numbers):
        raise PayloadError(f"metadata: {key} must be finite")
    return numbers


def _string(raw: dict[str, Any], key: str) -> str:
    if not isinstance(raw[key], str):
        raise PayloadError(f"metadata: {key} must be a string, got {raw[key]!r}")
    return str(raw[key])


def read_mapping(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at ``key``, empty if there is none; PayloadError if it is something else."""
    value = raw.get(key, {})
    if not isinstance(value, dict):
        raise PayloadError(f"metadata: {key} must be an object")
    return value


def _settings(settings: dict[str, Any]) -> dict[str, Setting]:
    for name, value in settings.items():
        if not isinstance(value, str | int | float | bool | None):
            raise PayloadError(f"metadata: setting {name!r} must be a single value")
    return settings
