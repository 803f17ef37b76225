"""Data that were read in one place, in the terms of all places: classes and columns by name, one scale, one range."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import DataError

_LOG = logging.getLogger(__name__)

RANGE_SLACK = 10.0
"""How far real values may leave the range that was agreed on, as a multiple of its width: beyond is another unit."""
_MOST_NAMES = 10


def conform(data: LabelledData, spec: DataSpec) -> LabelledData:
    """``data`` as data of the kind that ``spec`` describes: the same samples, in its order and on its scale.

    Labels go by the names of classes, whatever their order here; classes that ``data`` lack have no samples. Columns of
    tables go by their names where both sides name them. Normalisation, permission to mirror and tasks are those of
    ``spec``; so is the range, but that float values which leave it (by at most ten times its width) widen it here, and
    a warning says so.

    Args:
        data: as some reader gave them.
        spec: what all who work together agreed on.

    Raises:
        DataError: samples have another shape or backbone, a class with samples or a column has no counterpart, a name
            stands for two of them, or values are far outside the range.

    Example:
        >>> here = from_arrays([[1.0, 2.0], [3.0, 4.0]], ["dog", "cat"])
        >>> agreed = replace(here.spec, class_names=("dog", "cat", "cow"))
        >>> here.labels.tolist(), conform(here, agreed).labels.tolist()
        ([1, 0], [0, 1])
    """
    if data.spec == spec and data.spec.feature_names == spec.feature_names:
        return data
    if data.spec.backbone != spec.backbone:
        raise DataError(f"{data.name}: samples are {data.spec.made_by}; agreed on are {spec.made_by}")
    samples, labels = _in_columns_of(spec, data), _in_classes_of(spec, data)
    agreed = replace(spec, value_range=_range_of(samples, spec, data.name))
    return replace(data, samples=samples, labels=labels, spec=agreed)


def _in_columns_of(spec: DataSpec, data: LabelledData) -> Tensor:
    own, wanted = data.spec.feature_names, spec.feature_names
    if own and wanted and own != wanted:
        missing, more = _without(wanted, own), _without(own, wanted)
        if missing or more:
            raise DataError(f"{data.name}: columns differ from what was agreed on: {_differences(missing, more)}")
        return data.samples[:, _places(own, wanted, f"{data.name}: column")]
    if data.sample_shape != spec.sample_shape:
        hint = "; let load_data put images through a backbone" if data.is_image and not spec.is_image else ""
        raise DataError(f"{data.name}: samples have shape {data.sample_shape}, agreed on is {spec.sample_shape}{hint}")
    return data.samples


def _in_classes_of(spec: DataSpec, data: LabelledData) -> Tensor:
    own, wanted = data.class_names, spec.class_names
    if own == wanted:
        return data.labels
    held = [name for name, count in zip(own, data.class_counts.tolist(), strict=True) if count]
    unknown = _without(held, wanted)
    if unknown:
        raise DataError(
            f"{data.name}: class {_listed(unknown)} is none of those agreed on, {_listed(wanted)}"
            + _unnamed(own, wanted)
        )
    _places(own, held, f"{data.name}: class")
    places = torch.zeros(len(own), dtype=torch.int64)
    places[data.class_counts > 0] = torch.tensor(_places(wanted, held, f"{data.name}: class"), dtype=torch.int64)
    return places[data.labels]


def _places(names: Sequence[str], wanted: Sequence[str], what: str) -> list[int]:
    """Where each of ``wanted`` is among ``names``."""
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{what} {twice[:50]!r} is there twice: names do not tell which is which")
    return [names.index(name) for name in wanted]


def _range_of(samples: Tensor, spec: DataSpec, name: str) -> tuple[float, float]:
    low, high = spec.value_range
    if samples.dtype == torch.uint8 or not len(samples):
        if samples.dtype == torch.uint8 and (low, high) != (0, 1):
            raise DataError(f"{name}: 8-bit pixels stand for values in [0, 1], agreed on is [{low:g}, {high:g}]")
        return low, high
    smallest, largest = (float(end) for end in torch.aminmax(samples))
    if low <= smallest and largest <= high:
        return low, high
    margin = RANGE_SLACK * (high - low)
    if smallest < low - margin or largest > high + margin:
        raise DataError(
            f"{name}: values span [{smallest:g}, {largest:g}], far outside [{low:g}, {high:g}], which was agreed on: "
            "are they in another unit?"
        )
    outside = int(((samples < low) | (samples > high)).flatten(1).any(dim=1).sum())
    _LOG.warning(
        "%s: %d of %d samples leave the range that was agreed on, [%g, %g]: values span [%g, %g]",
        *(name, outside, len(samples), low, high, smallest, largest),
    )
    return min(low, smallest), max(high, largest)


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _differences(missing: Sequence[str], more: Sequence[str]) -> str:
    both = (("missing are", missing), ("nobody knows", more))
    return "; ".join(f"{what} {_listed(names)}" for what, names in both if names)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:50]) for name in names[:_MOST_NAMES])
    return shown + (f", … ({len(names)} in all)" if len(names) > _MOST_NAMES else "")


def _unnamed(own: Sequence[str], wanted: Sequence[str]) -> str:
    """Advice where one side has numbers for names."""
    numbered = [all(name.isdigit() for name in names) for names in (own, wanted)]
    if numbered[0] == numbered[1]:
        return ""
    who = "these data" if numbered[0] else "those"
    return f"; {who} have numbers for names: give class_names=… where they are read"
