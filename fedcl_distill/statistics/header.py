"""The JSON header of encoded statistics: everything but the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedcl_distill.data.labelled import Normalisation
from fedcl_distill.errors import PayloadError
from fedcl_distill.statistics.domain import Domain
from fedcl_distill.statistics.layout import BITS
from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.synthetic.container import read_shape
from fedcl_distill.synthetic.header import numbered, read_class_names, read_mapping, read_numbers
from fedcl_distill.synthetic.limits import Limits
from fedcl_distill.synthetic.quantise import Range
from fedcl_distill.synthetic.strict_json import compact, parse_object

FORMAT = 1
_KEYS = {"format", "bits", "spec", "shape", "classes", "mean", "std", "range", "mirrorable", "ranges"}


@dataclass(frozen=True)
class StatisticsHeader:
    """What the metadata text says.

    Attributes:
        bits: of a value.
        spec, domain: of the statistics.
        ranges: of the means of each kind, where they are quantised.
    """

    bits: int
    spec: StatisticsSpec
    domain: Domain
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def to_text(self) -> str:
        """Compact JSON."""
        domain = self.domain
        numbers = domain.class_names == numbered(domain.num_classes)
        return compact(
            {
                "format": FORMAT,
                "bits": self.bits,
                "spec": self.spec.settings(),
                "shape": list(domain.sample_shape),
                "classes": domain.num_classes if numbers else list(domain.class_names),
                "mean": [float(value) for value in domain.normalisation.mean],
                "std": [float(value) for value in domain.normalisation.std],
                "range": [float(value) for value in domain.value_range],
                "mirrorable": domain.mirrorable,
                "ranges": {name: span.to_text() for name, span in self.ranges.items()},
            }
        )

    @classmethod
    def from_text(cls, text: str, limits: Limits) -> StatisticsHeader:
        """The inverse of :meth:`to_text` for untrusted text; raises PayloadError or DataError on what is wrong."""
        raw = parse_object(text, "metadata")
        if set(raw) != _KEYS or type(raw["format"]) is not int or raw["format"] != FORMAT:
            raise PayloadError(f"metadata is not that of statistics of format {FORMAT}")
        if type(raw["bits"]) is not int or raw["bits"] not in BITS:
            raise PayloadError(f"metadata: bits must be one of {BITS}, got {str(raw['bits'])[:50]}")
        return cls(
            bits=raw["bits"],
            spec=StatisticsSpec.of(read_mapping(raw, "spec")),
            domain=_domain(raw, limits),
            ranges={name: Range.from_text(span) for name, span in read_mapping(raw, "ranges").items()},
        )


def _domain(raw: dict[str, Any], limits: Limits) -> Domain:
    shape = read_shape("samples", raw["shape"], limits)
    if len(shape) not in (1, 3) or 0 in shape:
        raise PayloadError(f"metadata: samples cannot have shape {shape}")
    if type(raw["mirrorable"]) is not bool:
        raise PayloadError("metadata: mirrorable must be true or false")
    low, high = read_numbers(raw, "range", 2)
    if low > high:
        raise PayloadError(f"metadata: value range must ascend, got [{low}, {high}]")
    return Domain(
        sample_shape=shape,
        class_names=read_class_names(raw["classes"], limits),
        normalisation=Normalisation(read_numbers(raw, "mean", shape[0]), read_numbers(raw, "std", shape[0])),
        value_range=(low, high),
        mirrorable=raw["mirrorable"],
    )
